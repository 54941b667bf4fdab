//! Network objects as plain data: what `World` reads, and what operations add or remove.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Protocol number of all our routes and rules (464XLAT). `clatd cleanup` recognises them by it.
pub const ROUTE_PROTOCOL: u8 = 46;
/// Beginning of the ifalias of all our devices; the instance's name follows.
pub const ALIAS_PREFIX: &str = "clatd:";
/// The kernel's main routing table.
pub const MAIN_TABLE: u32 = 254;
/// The kernel's table of the host's own addresses.
pub const LOCAL_TABLE: u32 = 255;

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Device name.
    pub name: String,
    /// MTU in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Has carrier.
    pub carrier: bool,
    /// The ifalias, by which our own devices are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// Index of the VRF (or bridge, bond) that it is a member of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<u32>,
    /// Routing table, where the device is itself a VRF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrf_table: Option<u32>,
}

impl Link {
    /// Whether a clatd made this device.
    pub fn is_clat(&self) -> bool {
        self.alias
            .as_deref()
            .is_some_and(|alias| alias.starts_with(ALIAS_PREFIX))
    }
}

/// An IPv6 address on a device, with the flags that matter for choosing one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address6 {
    /// The address.
    pub address: Ipv6Addr,
    /// Its prefix length.
    pub prefix_len: u8,
    /// Global scope, as the kernel says (`ip` calls ULA global too).
    pub global: bool,
    /// Duplicate address detection has not ended, or has failed.
    pub tentative: bool,
    /// Preferred lifetime is over.
    pub deprecated: bool,
    /// RFC 8981 temporary address.
    pub temporary: bool,
    /// Valid lifetime in seconds; `None` = for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_s: Option<u32>,
}

/// A unicast route. `raw` has the kernel's own message if the route was read from the kernel. With it the route can
/// be restored with every attribute, also those without a field here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination prefix; the default route is 0.0.0.0/0 or ::/0.
    pub destination: IpNet,
    /// Output device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Next hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Preferred source address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// Metric; 0 = the kernel's default.
    pub metric: u32,
    /// Routing table.
    pub table: u32,
    /// Routing protocol number.
    pub protocol: u8,
    /// Route MTU in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Advertised TCP MSS in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// The next hop is on the link, whatever the addresses say (`onlink`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub onlink: bool,
    /// Next hop dead or without carrier.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dead: bool,
    /// The RTM_NEWROUTE payload as read from the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<RouteMessage>,
}

/// The kernel's own message of a route; in hex where it is written. Routes are read far more often than they are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RouteMessage(pub Arc<[u8]>);

/// What is not hexadecimal.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not hexadecimal, with two digits a byte")]
pub struct NotHex(String);

impl TryFrom<String> for RouteMessage {
    type Error = NotHex;

    fn try_from(text: String) -> Result<Self, NotHex> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let byte = |pair: &[u8]| match *pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        bytes.map(|bytes| Self(bytes.into())).ok_or(NotHex(text))
    }
}

impl From<RouteMessage> for String {
    fn from(message: RouteMessage) -> Self {
        message.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Route {
    /// A route of ours: our protocol number, main table, no next hop.
    pub fn ours(destination: IpNet, device: &str) -> Self {
        Self {
            destination,
            device: Some(device.to_owned()),
            gateway: None,
            source: None,
            metric: 0,
            table: MAIN_TABLE,
            protocol: ROUTE_PROTOCOL,
            mtu: None,
            advmss: None,
            onlink: false,
            dead: false,
            raw: None,
        }
    }

    /// Whether it is a default route.
    pub fn is_default(&self) -> bool {
        self.destination.prefix_len() == 0
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_default() {
            f.write_str("default")?;
        } else if self.destination.prefix_len() == self.destination.max_prefix_len() {
            write!(f, "{}", self.destination.addr())?;
        } else {
            write!(f, "{}", self.destination)?;
        }
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(device) = &self.device {
            write!(f, " dev {device}")?;
        }
        if self.table != MAIN_TABLE {
            write!(f, " table {}", self.table)?;
        }
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        if self.metric != 0 {
            write!(f, " metric {}", self.metric)?;
        }
        if let Some(mtu) = self.mtu {
            write!(f, " mtu {mtu}")?;
        }
        if let Some(advmss) = self.advmss {
            write!(f, " advmss {advmss}")?;
        }
        if self.onlink {
            f.write_str(" onlink")?;
        }
        Ok(())
    }
}

/// A policy rule: what it selects and the table it leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// True = IPv6, false = IPv4.
    pub v6: bool,
    /// Priority; lower comes first.
    pub priority: u32,
    /// The rule must stand before other programs' rules that would take the same packets. `priority` is its place if
    /// nothing is in the way; otherwise it gets a lower one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ahead: bool,
    /// Source prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpNet>,
    /// Destination prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<IpNet>,
    /// Input device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iif: Option<String>,
    /// Output device (of sockets bound to it).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oif: Option<String>,
    /// Packet mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fwmark: Option<u32>,
    /// Routes with a prefix of this length or shorter are ignored; 0 = all but the default route count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppress_prefixlen: Option<u32>,
    /// Table looked up.
    pub table: u32,
    /// Protocol number, ours on our rules.
    pub protocol: u8,
}

impl Rule {
    /// A rule of ours that leads everything to `table`. Its fields narrow it.
    pub fn ours(v6: bool, priority: u32, table: u32) -> Self {
        Self {
            v6,
            priority,
            ahead: false,
            from: None,
            to: None,
            iif: None,
            oif: None,
            fwmark: None,
            suppress_prefixlen: None,
            table,
            protocol: ROUTE_PROTOCOL,
        }
    }
}

impl Rule {
    /// Whether `found` is this rule, wherever it stands.
    pub fn is_at_any_place(&self, found: &Self) -> bool {
        let placed = Self {
            priority: found.priority,
            ahead: found.ahead,
            ..self.clone()
        };
        placed == *found
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} priority {}{}",
            if self.v6 { "IPv6" } else { "IPv4" },
            self.priority,
            if self.ahead { " (or before others')" } else { "" }
        )?;
        for (word, value) in [("from", &self.from), ("to", &self.to)] {
            if let Some(prefix) = value {
                write!(f, " {word} {prefix}")?;
            }
        }
        for (word, value) in [("iif", &self.iif), ("oif", &self.oif)] {
            if let Some(device) = value {
                write!(f, " {word} {device}")?;
            }
        }
        if let Some(mark) = self.fwmark {
            write!(f, " fwmark {mark:#x}")?;
        }
        write!(f, " lookup {}", self.table)?;
        match self.suppress_prefixlen {
            Some(length) => write!(f, " suppress_prefixlength {length}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_the_same_wherever_it_stands() {
        let rule = Rule::ours(true, 100, 64);
        let elsewhere = Rule {
            ahead: true,
            ..Rule::ours(true, 7, 64)
        };
        assert!(rule.is_at_any_place(&elsewhere));
        assert!(!rule.is_at_any_place(&Rule::ours(true, 100, 65)));
        assert!(!rule.is_at_any_place(&Rule::ours(false, 100, 64)));
    }

    #[test]
    fn the_message_of_a_route_is_written_in_hex() {
        let message = RouteMessage([0, 9, 0xa0, 0xff].as_slice().into());
        assert_eq!(serde_json::to_string(&message).unwrap(), r#""0009a0ff""#);
        let read: Result<RouteMessage, _> = serde_json::from_str(r#""0009A0ff""#);
        assert_eq!(read.unwrap(), message);
        for wrong in [r#""000""#, r#""0g""#, "7"] {
            assert!(serde_json::from_str::<RouteMessage>(wrong).is_err(), "{wrong}");
        }
    }
}
