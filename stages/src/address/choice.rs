//! Which of the uplink's addresses the CLAT's address is derived from: source address selection (RFC 6724 section 5)
//! against the PLAT prefix. All candidates are on one device and have global scope. Deprecated (rule 3) and temporary
//! addresses (rule 7) are no candidates. So rule 6 (labels) and rule 8 (prefix) remain.

use std::net::Ipv6Addr;

use clatd_translator::Pref64;

use crate::net::Address6;

/// Longer prefixes leave no room for an address of the CLAT's own.
const LONGEST_PREFIX: u8 = 120;

/// RFC 6724 section 2.1: prefix, its length, label. The longest match counts.
const LABELS: [(Ipv6Addr, u32, u8); 9] = [
    (Ipv6Addr::LOCALHOST, 128, 0),
    (Ipv6Addr::UNSPECIFIED, 96, 3),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, 4),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32, 5),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, 2),
    (Ipv6Addr::new(0x3ffe, 0, 0, 0, 0, 0, 0, 0), 16, 12),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, 11),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, 13),
    (Ipv6Addr::UNSPECIFIED, 0, 1),
];

/// The address to derive from. Of equal ones the last is taken, which is the oldest in the kernel's order, so that a
/// new prefix breaks no connections. With `eui64_first`, as the 2016 clatd does, modified EUI-64 addresses come
/// before a longer common prefix, but never before a better label: a unique local source does not reach a PLAT in the
/// internet.
pub fn choose(addresses: &[Address6], plat: Pref64, eui64_first: bool) -> Option<&Address6> {
    let wanted = label(plat.address());
    addresses
        .iter()
        .filter(|address| could_serve(address))
        .max_by_key(|address| {
            (
                label(address.address) == wanted,
                // RFC 6724 has no such rule: where no label matches, the global one is the better guess.
                !is_ula(address.address),
                eui64_first && is_modified_eui64(address),
                common(address, plat),
            )
        })
}

/// CommonPrefixLen of RFC 6724 section 2.2. It ends at the source's own prefix length, and at the PLAT prefix's: the
/// bits behind that are the IPv4 addresses of all destinations.
fn common(address: &Address6, plat: Pref64) -> u32 {
    (u128::from(address.address) ^ u128::from(plat.address()))
        .leading_zeros()
        .min(address.prefix_len.into())
        .min(plat.length().into())
}

fn label(address: Ipv6Addr) -> u8 {
    let matches = |&&(prefix, length, _): &&(Ipv6Addr, u32, u8)| {
        (u128::from(address) ^ u128::from(prefix)).leading_zeros() >= length
    };
    LABELS
        .iter()
        .filter(matches)
        .max_by_key(|(_, length, _)| *length)
        .map_or(1, |(_, _, label)| *label)
}

fn could_serve(address: &Address6) -> bool {
    is_preferred(address) && address.prefix_len <= LONGEST_PREFIX
}

/// Whether it may be a source at all, alone or with others of its prefix.
pub(super) fn is_preferred(address: &Address6) -> bool {
    address.global && !address.deprecated && !address.temporary
}

pub(super) fn is_ula(address: Ipv6Addr) -> bool {
    address.octets()[0] & 0xfe == 0xfc
}

/// RFC 4291 appendix A: a /64 whose interface identifier has ff:fe in the middle.
pub(super) fn is_modified_eui64(address: &Address6) -> bool {
    address.prefix_len == 64 && address.address.octets()[11..13] == [0xff, 0xfe]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address6 {
        let (address, length) = text.split_once('/').unwrap();
        Address6 {
            address: address.parse().unwrap(),
            prefix_len: length.parse().unwrap(),
            global: true,
            tentative: false,
            deprecated: false,
            temporary: false,
            valid_s: None,
        }
    }

    fn chosen_of(addresses: &[Address6], plat: &str, eui64_first: bool) -> Option<String> {
        choose(addresses, plat.parse().unwrap(), eui64_first).map(|address| address.address.to_string())
    }

    /// In both orders, so that the order of the list does not decide.
    fn chosen(addresses: &[&str], plat: &str, eui64_first: bool) -> String {
        let mut addresses: Vec<_> = addresses.iter().map(|text| address(text)).collect();
        let forward = chosen_of(&addresses, plat, eui64_first).unwrap();
        addresses.reverse();
        assert_eq!(chosen_of(&addresses, plat, eui64_first).unwrap(), forward);
        forward
    }

    #[test]
    fn unique_local_addresses_are_those_of_fc00_7() {
        for (text, ula) in [
            ("fc00::1", true),
            ("fdff:ffff::1", true),
            ("fbff::1", false),
            ("fe00::1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_ula(text.parse().unwrap()), ula, "{text}");
        }
    }

    const EUI64: &str = "2a00::211:22ff:fe33:4455/64";

    #[test]
    fn the_longest_common_prefix_counts() {
        let near = ["2001:db8:1::5/64", "2001:db8:ff::5/64"];
        assert_eq!(chosen(&near, "2001:db8:fe::/96", true), "2001:db8:ff::5");
        assert_eq!(chosen(&near, "2001:db8:1:5::/64", true), "2001:db8:1::5");
    }

    #[test]
    fn modified_eui64_goes_before_the_prefix_only_for_derived() {
        let addresses = ["2001:db8:ff::5/64", EUI64];
        assert_eq!(chosen(&addresses, "2001:db8:fe::/96", true), "2a00::211:22ff:fe33:4455");
        assert_eq!(chosen(&addresses, "2001:db8:fe::/96", false), "2001:db8:ff::5");
        // ff:fe in an address that is no /64 is no modified EUI-64.
        assert!(!is_modified_eui64(&address("2001:db8::211:22ff:fe33:4455/80")));
    }

    /// Rule 6 goes before rule 8, and before the rule of 2016.
    #[test]
    fn matching_labels_go_first() {
        let both = ["fd00::211:22ff:fe33:4455/64", "2001:db8::5/64"];
        assert_eq!(chosen(&both, "64:ff9b::/96", true), "2001:db8::5");
        assert_eq!(chosen(&both, "64:ff9b:1::/48", true), "2001:db8::5");
        let both = ["fd00:1::5/64", EUI64];
        assert_eq!(chosen(&both, "fd64:1:2::/96", true), "fd00:1::5");
        assert_eq!(
            chosen(&["2002:c000:201::5/64", "2001:db8::5/64"], "2001:db8:64::/96", false),
            "2001:db8::5"
        );
        // 2002::/16 (6to4) has more common bits, but a label of its own.
        assert_eq!(
            chosen(&["2002:c000:201::5/64", "3fff::5/64"], "2003::/32", false),
            "3fff::5"
        );
        assert_eq!(
            chosen(&["2001:0:1::5/64", "2a00::5/64"], "2001:db8:64::/96", false),
            "2a00::5"
        );
    }

    #[test]
    fn a_ula_serves_where_no_global_address_does() {
        assert_eq!(chosen(&["fd00::5/64"], "64:ff9b::/96", true), "fd00::5");
        let gone = Address6 {
            deprecated: true,
            ..address("2001:db8::5/64")
        };
        let left = chosen_of(&[address("fd00::5/64"), gone], "64:ff9b::/96", true);
        assert_eq!(left.as_deref(), Some("fd00::5"));
        // Neither label matches that of a 6to4 prefix.
        assert_eq!(
            chosen(&["fd00::5/64", "2001:db8::5/64"], "2002:c000:201::/96", true),
            "2001:db8::5"
        );
    }

    /// Bits behind the source's prefix, or behind the PLAT prefix, are no common prefix: the last of equals is taken.
    #[test]
    fn only_prefixes_are_compared() {
        let last = |addresses: [&str; 2], plat: &str| chosen_of(&addresses.map(address), plat, false);
        assert_eq!(
            last(["2001:db8::5/64", "2001:db8::1:0:0:1/64"], "2001:db8::/96").as_deref(),
            Some("2001:db8::1:0:0:1")
        );
        assert_eq!(
            last(["2001:db8::1/64", "2001:db8:ffff::1/64"], "2001:db8::/32").as_deref(),
            Some("2001:db8:ffff::1")
        );
    }

    #[test]
    fn unfit_addresses_are_never_chosen() {
        let base = address("2001:db8::5/64");
        let unfit = [
            Address6 {
                deprecated: true,
                ..base.clone()
            },
            Address6 {
                temporary: true,
                ..base.clone()
            },
            Address6 {
                global: false,
                ..base.clone()
            },
            address("2001:db8::5/121"),
        ];
        assert_eq!(chosen_of(&unfit, "64:ff9b::/96", true), None);
    }

    #[test]
    fn a_tentative_address_tells_the_network_too() {
        let tentative = Address6 {
            tentative: true,
            ..address("2001:db8::5/64")
        };
        assert_eq!(
            chosen_of(&[tentative], "64:ff9b::/96", true).as_deref(),
            Some("2001:db8::5")
        );
    }
}
