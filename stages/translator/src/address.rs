//! Which address becomes which: explicit mappings (RFC 7757) before the prefix (RFC 6052), and the addresses that
//! are never translated.

use crate::config::{Config, UnmappedSource};
use crate::counters::DropReason;
use crate::eam::{EamTable, MapError};
use crate::prefix::Pref64;

/// The address mappings of one translator.
#[derive(Debug)]
pub(crate) struct AddressMap {
    eam: EamTable,
    pref64: Option<Pref64>,
    refuse_non_global: bool,
    unmapped: UnmappedSource,
}

/// Which rules an address follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// An address on our side: IPv4 source or IPv6 destination (swapped inside ICMP errors).
    Ours,
    /// An address on the far side.
    Theirs,
    /// No explicit mapping may be used (RFC 7757 section 4.2.1).
    PrefixOnly,
}

/// An IPv4 address, and how it was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapped4 {
    pub(crate) address: u32,
    pub(crate) by_prefix: bool,
}

/// Why an address has no translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unmapped {
    /// No explicit mapping, and the configuration asks for one.
    NeedsMapping,
    /// Neither a mapping nor the prefix covers it.
    Outside,
    /// RFC 6052 section 3.1.
    NonGlobal,
}

impl Unmapped {
    pub(crate) fn source(self) -> DropReason {
        match self {
            Self::NeedsMapping => DropReason::UnmappedSource,
            Self::Outside => DropReason::UntranslatableSource,
            Self::NonGlobal => DropReason::NonGlobalWkp,
        }
    }

    pub(crate) fn destination(self) -> DropReason {
        match self {
            Self::NeedsMapping => DropReason::UnmappedDestination,
            Self::Outside => DropReason::UntranslatableDestination,
            Self::NonGlobal => DropReason::NonGlobalWkp,
        }
    }
}

impl AddressMap {
    pub(crate) fn new(config: &Config) -> Result<Self, MapError> {
        Ok(Self {
            eam: EamTable::new(&config.maps)?,
            pref64: config.pref64,
            refuse_non_global: config.wkp_strict && config.pref64.is_some_and(Pref64::is_well_known),
            unmapped: config.unmapped_source,
        })
    }

    pub(crate) fn eam(&self) -> &EamTable {
        &self.eam
    }

    /// The IPv6 address of an IPv4 address.
    #[inline(always)]
    pub(crate) fn to_v6(&self, address: u32, side: Side) -> Result<u128, Unmapped> {
        if side != Side::PrefixOnly
            && let Some(mapped) = self.eam.to_v6_bits(address)
        {
            return Ok(mapped);
        }
        if side == Side::Ours && self.unmapped == UnmappedSource::Drop {
            return Err(Unmapped::NeedsMapping);
        }
        let pref64 = self.pref64.ok_or(Unmapped::Outside)?;
        self.check_global(address)?;
        Ok(pref64.embed_bits(address))
    }

    /// The IPv4 address of an IPv6 address.
    #[inline(always)]
    pub(crate) fn to_v4(&self, address: u128, side: Side) -> Result<Mapped4, Unmapped> {
        if let Some(address) = self.eam.to_v4_bits(address) {
            return Ok(Mapped4 {
                address,
                by_prefix: false,
            });
        }
        if side == Side::Ours && self.unmapped == UnmappedSource::Drop {
            return Err(Unmapped::NeedsMapping);
        }
        let address = self
            .pref64
            .and_then(|prefix| prefix.extract_bits(address))
            .ok_or(Unmapped::Outside)?;
        self.check_global(address)?;
        Ok(Mapped4 {
            address,
            by_prefix: true,
        })
    }

    /// Whether an explicit mapping covers an IPv4 address.
    #[inline]
    pub(crate) fn is_mapped(&self, address: u32) -> bool {
        self.eam.to_v6_bits(address).is_some()
    }

    #[inline(always)]
    fn check_global(&self, address: u32) -> Result<(), Unmapped> {
        if self.refuse_non_global && is_non_global4(address) {
            Err(Unmapped::NonGlobal)
        } else {
            Ok(())
        }
    }
}

#[inline]
fn within(address: u32, octets: [u8; 4], length: u32) -> bool {
    (address ^ u32::from_be_bytes(octets)) >> (32 - length) == 0
}

/// 224.0.0.0/4.
#[inline]
pub(crate) fn is_multicast4(address: u32) -> bool {
    within(address, [224, 0, 0, 0], 4)
}

/// Sources and destinations that a router does not forward: "this network", loopback, link-local (RFC 3927
/// section 7), class E and broadcast (RFC 1812 sections 4.2.2.11 and 5.3.7). Multicast is told apart.
#[inline]
pub(crate) fn is_illegal4(address: u32) -> bool {
    within(address, [0, 0, 0, 0], 8)
        || within(address, [127, 0, 0, 0], 8)
        || within(address, [169, 254, 0, 0], 16)
        || within(address, [240, 0, 0, 0], 4)
}

/// Neither [`is_multicast4`] nor [`is_illegal4`], at a glance.
#[inline(always)]
pub(crate) fn is_forwarded4(address: u32) -> bool {
    let first = address >> 24;
    (1..224).contains(&first) && first != 127 && !within(address, [169, 254, 0, 0], 16)
}

/// ff00::/8.
#[inline]
pub(crate) fn is_multicast6(address: u128) -> bool {
    address >> 120 == 0xff
}

/// Sources and destinations that a router does not forward: unspecified, loopback, IPv4-mapped, link-local
/// (RFC 4291 section 2.5).
#[inline]
pub(crate) fn is_illegal6(address: u128) -> bool {
    address <= 1 || address >> 32 == 0xffff || address >> 118 == 0xfe80 >> 6
}

/// RFC 1918, RFC 5735 section 3 and RFC 6598: not to be represented in the Well-Known Prefix.
fn is_non_global4(address: u32) -> bool {
    const BLOCKS: [([u8; 4], u32); 15] = [
        ([0, 0, 0, 0], 8),
        ([10, 0, 0, 0], 8),
        ([100, 64, 0, 0], 10),
        ([127, 0, 0, 0], 8),
        ([169, 254, 0, 0], 16),
        ([172, 16, 0, 0], 12),
        ([192, 0, 0, 0], 24),
        ([192, 0, 2, 0], 24),
        ([192, 88, 99, 0], 24),
        ([192, 168, 0, 0], 16),
        ([198, 18, 0, 0], 15),
        ([198, 51, 100, 0], 24),
        ([203, 0, 113, 0], 24),
        ([224, 0, 0, 0], 4),
        ([240, 0, 0, 0], 4),
    ];
    BLOCKS.iter().any(|&(octets, length)| within(address, octets, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edges_of_what_is_not_global() {
        let bits = |text: &str| u32::from(text.parse::<std::net::Ipv4Addr>().unwrap());
        for (first, last) in [
            ("0.0.0.0", "0.255.255.255"),
            ("10.0.0.0", "10.255.255.255"),
            ("100.64.0.0", "100.127.255.255"),
            ("127.0.0.0", "127.255.255.255"),
            ("169.254.0.0", "169.254.255.255"),
            ("172.16.0.0", "172.31.255.255"),
            ("192.0.0.0", "192.0.0.255"),
            ("192.0.2.0", "192.0.2.255"),
            ("192.88.99.0", "192.88.99.255"),
            ("192.168.0.0", "192.168.255.255"),
            ("198.18.0.0", "198.19.255.255"),
            ("198.51.100.0", "198.51.100.255"),
            ("203.0.113.0", "203.0.113.255"),
            ("224.0.0.0", "255.255.255.255"),
        ] {
            let (first_bits, last_bits) = (bits(first), bits(last));
            assert!(
                is_non_global4(first_bits) && is_non_global4(last_bits),
                "{first} to {last}"
            );
            let middle = first_bits + (last_bits - first_bits) / 2;
            assert!(
                is_non_global4(middle) && is_non_global4(middle + 1),
                "{first} to {last}"
            );
            assert!(first_bits == 0 || !is_non_global4(first_bits - 1), "before {first}");
            assert!(last_bits == u32::MAX || !is_non_global4(last_bits + 1), "behind {last}");
        }
    }

    #[test]
    fn what_is_forwarded_is_neither_multicast_nor_illegal() {
        // The edges of all blocks, since none is longer than 16 bits.
        for half in 0..=0xffffu32 {
            for address in [half << 16, half << 16 | 0xffff] {
                let expected = !is_multicast4(address) && !is_illegal4(address);
                assert_eq!(
                    is_forwarded4(address),
                    expected,
                    "{:?}",
                    std::net::Ipv4Addr::from(address)
                );
            }
        }
    }
}
