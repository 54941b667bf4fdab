//! The Explicit Address Mapping Table (RFC 7757 section 3).

use alloc::{format, string::String, vec::Vec};
use core::net::{Ipv4Addr, Ipv6Addr};
use ipnet::{Ipv4Net, Ipv6Net};

/// The table of explicit mappings between IPv4 and IPv6 prefixes, searched by longest match in either direction.
#[derive(Clone, Debug, Default)]
pub struct EamTable {
    entries: Vec<(Ipv4Net, Ipv6Net)>,
    by_v4: Vec<Group<u32>>,
    by_v6: Vec<Group<u128>>,
    /// The only mapping, if it is one of two addresses: that of a CLAT.
    only: Option<(u32, u128)>,
}

/// Why a mapping was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// The IPv4 prefix has more suffix bits than the IPv6 prefix (RFC 7757 section 3.2).
    #[error("map {0} {1}: the IPv4 prefix leaves {left4} suffix bits but the IPv6 prefix only {left6} (RFC 7757 section 3.2)",
        left4 = 32 - .0.prefix_len(), left6 = 128 - .1.prefix_len())]
    SuffixBits(Ipv4Net, Ipv6Net),
    /// The IPv4 prefix has bits set behind its length.
    #[error("map {0} {1}: {0} has bits set behind the prefix length")]
    HostBits4(Ipv4Net, Ipv6Net),
    /// The IPv6 prefix has bits set behind its length.
    #[error("map {0} {1}: {1} has bits set behind the prefix length")]
    HostBits6(Ipv4Net, Ipv6Net),
    /// Two mappings have the same IPv4 prefix (RFC 7757 section 5).
    #[error("map {0} {1}: {0} is already mapped to {2}")]
    SameIpv4(Ipv4Net, Ipv6Net, Ipv6Net),
    /// Two mappings have the same IPv6 prefix (RFC 7757 section 5).
    #[error("map {0} {1}: {1} is already mapped to {2}")]
    SameIpv6(Ipv4Net, Ipv6Net, Ipv4Net),
}

/// All mappings whose key has the same prefix length, sorted by key.
#[derive(Clone, Debug)]
struct Group<K> {
    length: u8,
    mask: K,
    /// Apart from the rows, so that a search touches little memory.
    keys: Vec<K>,
    rows: Vec<Row>,
}

/// IPv4 prefix, IPv6 prefix, and the lengths of the two.
type Row = (u32, u128, u8, u8);

impl EamTable {
    /// Builds the table; a length may be anything that RFC 7757 section 3.2 allows.
    ///
    /// Identical prefixes are refused, nested ones are legal: see [`EamTable::overlaps`].
    pub fn new(maps: &[(Ipv4Net, Ipv6Net)]) -> Result<Self, MapError> {
        let mut table = Self::default();
        for &(v4, v6) in maps {
            check(&table.entries, v4, v6)?;
            table.entries.push((v4, v6));
            let row = (
                u32::from(v4.addr()),
                u128::from(v6.addr()),
                v4.prefix_len(),
                v6.prefix_len(),
            );
            insert(&mut table.by_v4, mask4(row.2), row.2, row.0, row);
            insert(&mut table.by_v6, mask6(row.3), row.3, row.1, row);
        }
        if let [(v4, v6)] = &table.entries[..]
            && (v4.prefix_len(), v6.prefix_len()) == (32, 128)
        {
            table.only = Some((u32::from(v4.addr()), u128::from(v6.addr())));
        }
        Ok(table)
    }

    /// The mappings, in the order in which they were given.
    pub fn entries(&self) -> &[(Ipv4Net, Ipv6Net)] {
        &self.entries
    }

    /// Whether there is no mapping at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// One line for each pair of mappings that overlap, which RFC 7757 section 5 suggests to warn about: packets
    /// of the wider one may not find their way back.
    pub fn overlaps(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (n, (a4, a6)) in self.entries.iter().enumerate() {
            for (b4, b6) in self.entries.iter().skip(n + 1) {
                if a4.contains(b4) || b4.contains(a4) || a6.contains(b6) || b6.contains(a6) {
                    lines.push(format!(
                        "map {a4} {a6} overlaps map {b4} {b6}: their translations may not be symmetric"
                    ));
                }
            }
        }
        lines
    }

    /// The IPv6 address of `address` (RFC 7757 section 3.3.1), if a mapping covers it.
    pub fn to_v6(&self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        self.to_v6_bits(u32::from(address)).map(Ipv6Addr::from)
    }

    /// The IPv4 address of `address` (RFC 7757 section 3.3.2), if a mapping covers it.
    pub fn to_v4(&self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        self.to_v4_bits(u128::from(address)).map(Ipv4Addr::from)
    }

    #[inline(always)]
    pub(crate) fn to_v6_bits(&self, address: u32) -> Option<u128> {
        if let Some((v4, v6)) = self.only {
            return (v4 == address).then_some(v6);
        }
        self.search_v4(address)
    }

    fn search_v4(&self, address: u32) -> Option<u128> {
        self.by_v4.iter().find_map(|group| {
            let &(_, v6, len4, len6) = find(group, address & group.mask)?;
            // The suffix, aligned right behind the IPv6 prefix, trailing zeros.
            let suffix = u128::from(address & !mask4(len4)) << 96;
            let aligned = suffix.checked_shl(u32::from(len4)).unwrap_or(0);
            Some(v6 | aligned.checked_shr(u32::from(len6)).unwrap_or(0))
        })
    }

    #[inline(always)]
    pub(crate) fn to_v4_bits(&self, address: u128) -> Option<u32> {
        if let Some((v4, v6)) = self.only {
            return (v6 == address).then_some(v4);
        }
        self.search_v6(address)
    }

    fn search_v6(&self, address: u128) -> Option<u32> {
        self.by_v6.iter().find_map(|group| {
            let &(v4, _, len4, len6) = find(group, address & group.mask)?;
            let aligned = (address & !mask6(len6)).checked_shl(u32::from(len6)).unwrap_or(0);
            let suffix = ((aligned >> 96) as u32).checked_shr(u32::from(len4)).unwrap_or(0);
            Some(v4 | suffix)
        })
    }
}

fn check(entries: &[(Ipv4Net, Ipv6Net)], v4: Ipv4Net, v6: Ipv6Net) -> Result<(), MapError> {
    if 32 - v4.prefix_len() > 128 - v6.prefix_len() {
        return Err(MapError::SuffixBits(v4, v6));
    }
    if v4.trunc() != v4 {
        return Err(MapError::HostBits4(v4, v6));
    }
    if v6.trunc() != v6 {
        return Err(MapError::HostBits6(v4, v6));
    }
    for &(other4, other6) in entries {
        if other4 == v4 {
            return Err(MapError::SameIpv4(v4, v6, other6));
        }
        if other6 == v6 {
            return Err(MapError::SameIpv6(v4, v6, other4));
        }
    }
    Ok(())
}

fn insert<K: Ord + Copy>(groups: &mut Vec<Group<K>>, mask: K, length: u8, key: K, row: Row) {
    // Longest prefix first, so that the first hit is the longest match.
    let at = match groups.binary_search_by(|group| length.cmp(&group.length)) {
        Ok(at) => at,
        Err(at) => {
            groups.insert(
                at,
                Group {
                    length,
                    mask,
                    keys: Vec::new(),
                    rows: Vec::new(),
                },
            );
            at
        }
    };
    if let Some(group) = groups.get_mut(at) {
        let at = group.keys.partition_point(|other| *other < key);
        group.keys.insert(at, key);
        group.rows.insert(at, row);
    }
}

#[inline]
fn find<K: Ord + Copy>(group: &Group<K>, key: K) -> Option<&Row> {
    // Most addresses are strangers, and most tables a few neighbouring ones.
    if key < *group.keys.first()? || key > *group.keys.last()? {
        return None;
    }
    group.rows.get(group.keys.binary_search(&key).ok()?)
}

fn mask4(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

fn mask6(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(&str, &str)]) -> Result<EamTable, MapError> {
        let rows: Vec<_> = rows
            .iter()
            .map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap()))
            .collect();
        EamTable::new(&rows)
    }

    const FIGURE_1: [(&str, &str); 6] = [
        ("192.0.2.1/32", "2001:db8:aaaa::/128"),
        ("192.0.2.2/32", "2001:db8:bbbb::b/128"),
        ("192.0.2.16/28", "2001:db8:cccc::/124"),
        ("192.0.2.128/26", "2001:db8:dddd::/64"),
        ("192.0.2.192/29", "2001:db8:eeee:8::/62"),
        ("192.0.2.224/31", "64:ff9b::/127"),
    ];

    #[test]
    fn an_overlap_in_either_family_is_told() {
        let beside = ("192.0.2.0/28", "2001:db8::/124");
        for other in [
            ("192.0.2.1/32", "2001:db8:1::1/128"),
            ("198.51.100.1/32", "2001:db8::1/128"),
        ] {
            for pair in [[beside, other], [other, beside]] {
                assert_eq!(table(&pair).unwrap().overlaps().len(), 1, "{pair:?}");
            }
        }
        let apart = [beside, ("198.51.100.1/32", "2001:db8:1::1/128")];
        assert!(table(&apart).unwrap().overlaps().is_empty());
    }

    #[test]
    fn rfc7757_figure_7() {
        let table = table(&FIGURE_1).unwrap();
        for (v4, v6) in [
            ("192.0.2.1", "2001:db8:aaaa::"),
            ("192.0.2.2", "2001:db8:bbbb::b"),
            ("192.0.2.16", "2001:db8:cccc::"),
            ("192.0.2.24", "2001:db8:cccc::8"),
            ("192.0.2.31", "2001:db8:cccc::f"),
            ("192.0.2.128", "2001:db8:dddd::"),
            ("192.0.2.152", "2001:db8:dddd:0:6000::"),
            ("192.0.2.183", "2001:db8:dddd:0:dc00::"),
            ("192.0.2.191", "2001:db8:dddd:0:fc00::"),
            ("192.0.2.195", "2001:db8:eeee:9:8000::"),
            ("192.0.2.225", "64:ff9b::1"),
        ] {
            let (v4, v6) = (v4.parse().unwrap(), v6.parse().unwrap());
            assert_eq!(table.to_v6(v4), Some(v6));
            assert_eq!(table.to_v4(v6), Some(v4));
        }
        assert_eq!(table.to_v6("192.0.2.248".parse().unwrap()), None);
    }

    #[test]
    fn ivi_table_maps_everything() {
        let table = table(&[
            ("0.0.0.0/0", "2001:db8:ff00::/40"),
            ("198.51.100.64/32", "2001:db8::abcd/128"),
        ])
        .unwrap();
        let v6 = table.to_v6("198.51.100.65".parse().unwrap()).unwrap();
        assert_eq!(v6, "2001:db8:ffc6:3364:4100::".parse::<Ipv6Addr>().unwrap());
        assert_eq!(table.to_v4(v6), Some("198.51.100.65".parse().unwrap()));
        assert_eq!(
            table.to_v6("198.51.100.64".parse().unwrap()),
            Some("2001:db8::abcd".parse().unwrap())
        );
        assert_eq!(table.overlaps().len(), 1);
    }

    #[test]
    fn refused_mappings() {
        assert!(matches!(
            table(&[("192.0.2.0/24", "2001:db8::/128")]),
            Err(MapError::SuffixBits(..))
        ));
        assert!(matches!(
            table(&[("192.0.2.1/24", "2001:db8::/64")]),
            Err(MapError::HostBits4(..))
        ));
        assert!(matches!(
            table(&[("192.0.2.0/24", "2001:db8::1/64")]),
            Err(MapError::HostBits6(..))
        ));
        let same6 = [
            ("198.51.100.8/32", "2001:db8::1/128"),
            ("198.51.100.9/32", "2001:db8::1/128"),
        ];
        assert!(matches!(table(&same6), Err(MapError::SameIpv6(..))));
        let same4 = [
            ("198.51.100.8/32", "2001:db8::1/128"),
            ("198.51.100.8/32", "2001:db8::2/128"),
        ];
        assert!(matches!(table(&same4), Err(MapError::SameIpv4(..))));
    }
}
