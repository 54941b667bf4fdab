//! IPv4-embedded IPv6 addresses (RFC 6052): a prefix of one of the six lengths, embedding and extraction.

use alloc::{borrow::ToOwned, string::String};
use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

/// A NAT64/SIIT translation prefix (RFC 6052 section 2.2): 32, 40, 48, 56, 64 or 96 bits long.
///
/// Text form is `ADDRESS/LENGTH`; the address bits behind the prefix must be zero, and so must bits 64 to 71
/// (the "u" octet) of a /96 prefix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pref64 {
    bits: u128,
    length: u8,
}

/// Why a [`Pref64`] could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Pref64Error {
    /// The text is not `ADDRESS/LENGTH`.
    #[error("`{0}` is not an IPv6 prefix (expected ADDRESS/LENGTH)")]
    Syntax(String),
    /// The length is none of the six of RFC 6052 section 2.2.
    #[error("a translation prefix is 32, 40, 48, 56, 64 or 96 bits long, not {0} (RFC 6052 section 2.2)")]
    Length(u8),
    /// Bits behind the prefix length are set.
    #[error("{0}/{1} has bits set behind the prefix length")]
    HostBits(Ipv6Addr, u8),
    /// Bits 64 to 71 of a /96 prefix are set.
    #[error("bits 64 to 71 of {0}/96 must be zero (RFC 6052 section 2.2)")]
    UOctet(Ipv6Addr),
}

const U_OCTET: u128 = 0xff << 56;

impl Pref64 {
    /// The Well-Known Prefix `64:ff9b::/96` (RFC 6052 section 2.1).
    pub const WELL_KNOWN: Self = Self {
        bits: 0x0064_ff9b << 96,
        length: 96,
    };

    /// The lengths a translation prefix can have, shortest first.
    pub const LENGTHS: [u8; 6] = [32, 40, 48, 56, 64, 96];

    /// Makes a prefix; see [`Pref64Error`] for what is refused.
    pub fn new(address: Ipv6Addr, length: u8) -> Result<Self, Pref64Error> {
        if !Self::LENGTHS.contains(&length) {
            return Err(Pref64Error::Length(length));
        }
        let bits = u128::from(address);
        if bits & (u128::MAX >> length) != 0 {
            return Err(Pref64Error::HostBits(address, length));
        }
        if bits & U_OCTET != 0 {
            return Err(Pref64Error::UOctet(address));
        }
        Ok(Self { bits, length })
    }

    /// The prefix as an address, all bits behind the prefix zero.
    pub fn address(self) -> Ipv6Addr {
        Ipv6Addr::from(self.bits)
    }

    /// The prefix length in bits.
    pub fn length(self) -> u8 {
        self.length
    }

    /// Whether this is `64:ff9b::/96`.
    pub fn is_well_known(self) -> bool {
        self == Self::WELL_KNOWN
    }

    /// Whether `address` lies in the prefix.
    pub fn contains(self, address: Ipv6Addr) -> bool {
        self.contains_bits(u128::from(address))
    }

    /// The IPv6 address that stands for `address` (RFC 6052 section 2.3); "u" octet and suffix are zero.
    pub fn embed(self, address: Ipv4Addr) -> Ipv6Addr {
        Ipv6Addr::from(self.embed_bits(u32::from(address)))
    }

    /// The IPv4 address that `address` stands for, or `None` if it lies outside the prefix.
    ///
    /// The "u" octet is removed and the suffix ignored, as RFC 6052 sections 2.2 and 2.3 say for receivers.
    pub fn extract(self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        self.extract_bits(u128::from(address)).map(Ipv4Addr::from)
    }

    #[inline]
    pub(crate) fn contains_bits(self, address: u128) -> bool {
        (address ^ self.bits) >> (128 - u32::from(self.length)) == 0
    }

    #[inline]
    pub(crate) fn embed_bits(self, address: u32) -> u128 {
        if self.length == 96 {
            return self.bits | u128::from(address);
        }
        // The 120-bit sequence without the "u" octet, aligned to the top; then the low part moves down by one octet.
        let joined = u128::from(address) << (96 - u32::from(self.length));
        let high = joined & !(u128::from(u64::MAX));
        let low = joined & u128::from(u64::MAX);
        self.bits | high | (low >> 8)
    }

    #[inline]
    pub(crate) fn extract_bits(self, address: u128) -> Option<u32> {
        if !self.contains_bits(address) {
            return None;
        }
        if self.length == 96 {
            return Some(address as u32);
        }
        let high = address & !(u128::from(u64::MAX));
        let low = (address << 8) & u128::from(u64::MAX);
        Some(((high | low) >> (96 - u32::from(self.length))) as u32)
    }
}

impl FromStr for Pref64 {
    type Err = Pref64Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let syntax = || Pref64Error::Syntax(text.to_owned());
        let (address, length) = text.split_once('/').ok_or_else(syntax)?;
        let address = address.parse().map_err(|_| syntax())?;
        if !length.bytes().all(|b| b.is_ascii_digit()) {
            return Err(syntax());
        }
        Self::new(address, length.parse().map_err(|_| syntax())?)
    }
}

impl fmt::Display for Pref64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(), self.length)
    }
}

impl fmt::Debug for Pref64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc6052_table_1_and_2() {
        for (prefix, v6) in [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
            ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
        ] {
            let prefix: Pref64 = prefix.parse().unwrap();
            let v6: Ipv6Addr = v6.parse().unwrap();
            let v4 = Ipv4Addr::new(192, 0, 2, 33);
            assert_eq!(prefix.embed(v4), v6, "{prefix}");
            assert_eq!(prefix.extract(v6), Some(v4), "{prefix}");
        }
    }

    #[test]
    fn suffix_and_u_octet_are_ignored_on_receipt() {
        let prefix: Pref64 = "2001:db8:100::/40".parse().unwrap();
        assert_eq!(
            prefix.extract("2001:db8:1c0:2:ff21:1234::9".parse().unwrap()),
            Some(Ipv4Addr::new(192, 0, 2, 33))
        );
        assert_eq!(prefix.extract("2001:db8:200::".parse().unwrap()), None);
    }

    #[test]
    fn bad_prefixes_are_refused() {
        assert!(matches!("64:ff9b::/95".parse::<Pref64>(), Err(Pref64Error::Length(95))));
        assert!(matches!(
            "64:ff9b::1/96".parse::<Pref64>(),
            Err(Pref64Error::HostBits(..))
        ));
        assert!(matches!(
            "2001:db8:0:0:100::/96".parse::<Pref64>(),
            Err(Pref64Error::UOctet(_))
        ));
        for text in ["64:ff9b::", "64:ff9b::/+96", "x/96", "64:ff9b::/", ""] {
            assert!(
                matches!(
                    text.parse::<Pref64>(),
                    Err(Pref64Error::Syntax(_) | Pref64Error::Length(_))
                ),
                "{text}"
            );
        }
    }
}
