//! Types of settings with a grammar of their own.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use clatd_translator::Pref64;

use super::ExpectedValue;
use super::text::as_text;

/// `v4-defaultroute-mtu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteMtu {
    /// So many bytes; 0 = none set.
    Bytes(u32),
    /// The IPv6 MTU of the uplink, less 20 bytes for the larger IPv6 header; less 8 more where fragments pass the
    /// translator uncut.
    Auto,
}

impl fmt::Display for RouteMtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => bytes.fmt(f),
            Self::Auto => f.write_str("auto"),
        }
    }
}

impl FromStr for RouteMtu {
    type Err = ExpectedValue;
    fn from_str(text: &str) -> Result<Self, ExpectedValue> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => text
                .parse()
                .map(Self::Bytes)
                .map_err(|_| ExpectedValue("auto or a number of bytes".into())),
        }
    }
}
as_text!(RouteMtu);

/// `traffic-class` and `tos` (RFC 7915 sections 4.1 and 5.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TosSetting {
    /// As received, all eight bits.
    #[default]
    Copy,
    /// Always this value.
    Value(u8),
}

impl fmt::Display for TosSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copy => f.write_str("copy"),
            Self::Value(value) => value.fmt(f),
        }
    }
}

impl FromStr for TosSetting {
    type Err = ExpectedValue;
    fn from_str(text: &str) -> Result<Self, ExpectedValue> {
        match text {
            "copy" => Ok(Self::Copy),
            _ => text
                .parse()
                .map(Self::Value)
                .map_err(|_| ExpectedValue("copy or a number from 0 to 255".into())),
        }
    }
}
as_text!(TosSetting);

/// `icmp-error-rate` (RFC 7915 sections 4.4 and 5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IcmpErrorRate {
    /// As many as there are reasons.
    Unlimited,
    /// So many a second on average; with 0 none are sent.
    PerSecond(u32),
}

impl Default for IcmpErrorRate {
    fn default() -> Self {
        Self::PerSecond(1000)
    }
}

impl fmt::Display for IcmpErrorRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => f.write_str("unlimited"),
            Self::PerSecond(rate) => rate.fmt(f),
        }
    }
}

impl FromStr for IcmpErrorRate {
    type Err = ExpectedValue;
    fn from_str(text: &str) -> Result<Self, ExpectedValue> {
        match text {
            "unlimited" => Ok(Self::Unlimited),
            _ => text
                .parse()
                .map(Self::PerSecond)
                .map_err(|_| ExpectedValue("unlimited or a number".into())),
        }
    }
}
as_text!(IcmpErrorRate);

/// `plat-check`: RFC 7050 section 3.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlatCheck {
    /// The PLAT is probed where packets go out and nothing comes back.
    Auto,
    /// The PLAT is believed in.
    No,
    /// The server that the network itself names must answer.
    Yes,
    /// This IPv4 address must answer: by ICMPv6 echo, or by TCP on this port.
    Address {
        /// The address probed, embedded in the prefix.
        address: Ipv4Addr,
        /// The TCP port; `None` = ICMPv6 echo.
        port: Option<u16>,
    },
}

impl fmt::Display for PlatCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::No => f.write_str("no"),
            Self::Yes => f.write_str("yes"),
            Self::Address { address, port: None } => address.fmt(f),
            Self::Address {
                address,
                port: Some(port),
            } => write!(f, "{address}:{port}"),
        }
    }
}

impl FromStr for PlatCheck {
    type Err = ExpectedValue;
    fn from_str(text: &str) -> Result<Self, ExpectedValue> {
        let expected = || {
            ExpectedValue(
                "auto, yes, no, an IPv4 address to ping through the PLAT, or address:port to connect to".into(),
            )
        };
        match text {
            "auto" => return Ok(Self::Auto),
            "no" => return Ok(Self::No),
            "yes" => return Ok(Self::Yes),
            _ => {}
        }
        let (address, port) = match text.split_once(':') {
            Some((address, port)) => (address, Some(port.parse().map_err(|_| expected())?)),
            None => (text, None),
        };
        let address: Ipv4Addr = address.parse().map_err(|_| expected())?;
        if crate::discovery::WELL_KNOWN_ADDRESSES.contains(&address) {
            return Err(ExpectedValue(
                "another address than those of ipv4only.arpa, which must not be probed (RFC 7050 section 3.2.1)".into(),
            ));
        }
        Ok(Self::Address { address, port })
    }
}
as_text!(PlatCheck);

/// `clat-v6-addr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClatV6Addr {
    /// Derived from an address of the uplink, as the 2016 clatd did.
    Derived,
    /// Derived from the uplink's prefix by a hash (RFC 7217): the same after a restart.
    Stable,
    /// Like `stable`, and chosen so that translation leaves transport checksums as they are.
    ChecksumNeutral,
    /// In a prefix delegated by DHCPv6 (RFC 8415).
    Pd,
    /// The host's own address. Conntrack marks distinguish the flows, as in clatd 2.x.
    Shared,
    /// This one.
    Address(Ipv6Addr),
}

impl ClatV6Addr {
    /// The words that it takes besides an address, in the order of the manual.
    pub const WORDS: &'static [&'static str] = &["derived", "stable", "checksum-neutral", "shared", "pd"];
}

impl fmt::Display for ClatV6Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Derived => f.write_str("derived"),
            Self::Stable => f.write_str("stable"),
            Self::ChecksumNeutral => f.write_str("checksum-neutral"),
            Self::Pd => f.write_str("pd"),
            Self::Shared => f.write_str("shared"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl FromStr for ClatV6Addr {
    type Err = ExpectedValue;
    fn from_str(text: &str) -> Result<Self, ExpectedValue> {
        match text {
            "derived" => Ok(Self::Derived),
            "stable" => Ok(Self::Stable),
            "checksum-neutral" => Ok(Self::ChecksumNeutral),
            "pd" => Ok(Self::Pd),
            "shared" => Ok(Self::Shared),
            _ => text
                .parse()
                .map(Self::Address)
                .map_err(|_| ExpectedValue(format!("an IPv6 address, or one of {}", Self::WORDS.join(", ")))),
        }
    }
}
as_text!(ClatV6Addr);

/// `plat-prefix`: an RFC 6052 prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pref64Setting(pub Pref64);

impl fmt::Display for Pref64Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl FromStr for Pref64Setting {
    type Err = ExpectedValue;
    fn from_str(text: &str) -> Result<Self, ExpectedValue> {
        text.parse().map(Self).map_err(|error| {
            ExpectedValue(format!(
                "an RFC 6052 prefix with length 32, 40, 48, 56, 64 or 96, such as 64:ff9b::/96 ({error})"
            ))
        })
    }
}
as_text!(Pref64Setting);

/// One of `dns64-servers`: an address, a link-local one with its `%device`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsServer {
    /// The server's address.
    pub address: IpAddr,
    /// The device of a link-local address.
    pub device: Option<String>,
}

impl fmt::Display for DnsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.device {
            Some(device) => write!(f, "{}%{device}", self.address),
            None => self.address.fmt(f),
        }
    }
}
impl FromStr for DnsServer {
    type Err = ExpectedValue;
    fn from_str(text: &str) -> Result<Self, ExpectedValue> {
        let (address, device) = match text.split_once('%') {
            Some((address, device)) if !device.is_empty() => (address, Some(device.to_owned())),
            Some((address, _)) => (address, None),
            None => (text, None),
        };
        let address = address
            .parse()
            .map_err(|_| ExpectedValue("IP addresses of DNS servers, separated by commas".into()))?;
        Ok(Self { address, device })
    }
}
as_text!(DnsServer);

/// One `map`: an IPv4 prefix and the IPv6 prefix of the same suffix length (RFC 7757 section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapEntry {
    /// The IPv4 side.
    pub v4: ipnet::Ipv4Net,
    /// The IPv6 side.
    pub v6: ipnet::Ipv6Net,
}

impl fmt::Display for MapEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.v4, self.v6)
    }
}
impl FromStr for MapEntry {
    type Err = ExpectedValue;
    fn from_str(text: &str) -> Result<Self, ExpectedValue> {
        let expected = || {
            ExpectedValue(
                "an IPv4 prefix and an IPv6 prefix separated by a blank, such as 192.0.2.1/32 2001:db8::1/128".into(),
            )
        };
        let mut words = text.split_whitespace();
        let (Some(v4), Some(v6), None) = (words.next(), words.next(), words.next()) else {
            return Err(expected());
        };
        let v4: ipnet::Ipv4Net = with_length(v4, 32).parse().map_err(|_| expected())?;
        let v6: ipnet::Ipv6Net = with_length(v6, 128).parse().map_err(|_| expected())?;
        if v4.trunc() != v4 || v6.trunc() != v6 {
            return Err(ExpectedValue("prefixes without host bits".into()));
        }
        if 32 - v4.prefix_len() > 128 - v6.prefix_len() {
            return Err(ExpectedValue(
                "an IPv6 suffix at least as long as the IPv4 suffix (RFC 7757 section 3.1)".into(),
            ));
        }
        Ok(Self { v4, v6 })
    }
}
as_text!(MapEntry);

fn with_length(text: &str, length: u8) -> String {
    if text.contains('/') {
        text.to_owned()
    } else {
        format!("{text}/{length}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plat_check_is_read_as_it_is_written_and_spares_ipv4only_arpa() {
        for text in ["auto", "yes", "no", "198.51.100.1", "198.51.100.1:443"] {
            assert_eq!(text.parse::<PlatCheck>().unwrap().to_string(), text);
        }
        for (text, hint) in [
            ("192.0.0.170", "ipv4only.arpa"),
            ("192.0.0.171:443", "ipv4only.arpa"),
            ("198.51.100.1:x", "address:port"),
            ("nat64.example", "address:port"),
        ] {
            let error = text.parse::<PlatCheck>().unwrap_err().to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }
}
