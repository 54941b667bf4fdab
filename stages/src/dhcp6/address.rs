//! The CLAT's address out of a delegated prefix.

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;
use sha2::{Digest, Sha256};

/// An address in the first /64 of `prefix`, the same for the same seed. Its interface identifier reveals nothing (as
/// in RFC 7217) and is not a reserved one (RFC 5453): neither the subnet-router anycast address (RFC 4291 section
/// 2.6.1) nor any other.
///
/// A prefix longer than /64 leaves fewer bits; a /128 has a single address.
pub fn choose_address(prefix: Ipv6Net, seed: u128) -> Ipv6Addr {
    let network = u128::from(prefix.trunc().addr());
    let host_bits = u128::MAX
        .checked_shr(u32::from(prefix.prefix_len().max(64)))
        .unwrap_or(0);
    let mut chosen = network;
    for attempt in 0..=u8::MAX {
        let base = Sha256::new()
            .chain_update(b"clatd address\0")
            .chain_update(seed.to_be_bytes());
        let random = number(base.chain_update(network.to_be_bytes()).chain_update([attempt]));
        chosen = network | random & host_bits;
        if chosen != network && !is_reserved(chosen as u64) {
            return Ipv6Addr::from(chosen);
        }
    }
    // With so few host bits, chance left all of them at 0. The lowest addresses are none of the anycast ones.
    Ipv6Addr::from(chosen | 1 & host_bits)
}

/// A seed for [`choose_address`] that stays the same over restarts. `machine` identifies the machine; `name`
/// distinguishes those that take addresses on it.
pub fn stable_seed(machine: &[u8], name: &str) -> u128 {
    let base = Sha256::new().chain_update(b"clatd seed\0").chain_update(machine);
    number(base.chain_update(b"\0").chain_update(name))
}

fn number(hash: Sha256) -> u128 {
    let digest = hash.finalize();
    digest[..16].iter().fold(0, |sum, octet| sum << 8 | u128::from(*octet))
}

/// The registry of RFC 5453.
fn is_reserved(identifier: u64) -> bool {
    identifier == 0
        || (0x0200_5eff_fe00_0000..=0x0200_5eff_feff_ffff).contains(&identifier)
        || (0xfdff_ffff_ffff_ff80..=0xfdff_ffff_ffff_ffff).contains(&identifier)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(prefix: &str, seed: u128) -> Ipv6Addr {
        choose_address(prefix.parse().unwrap(), seed)
    }

    #[test]
    fn it_is_in_the_first_64_of_any_prefix() {
        for prefix in [
            "2001:db8:1::/48",
            "2001:db8:1:10::/60",
            "2001:db8:1:ff00::/56",
            "2001:db8:1:2::/64",
            "fd00::/8",
        ] {
            let first = Ipv6Net::new(prefix.parse::<Ipv6Net>().unwrap().network(), 64).unwrap();
            for seed in 0..100 {
                let address = chosen(prefix, seed);
                assert!(
                    first.contains(&address) && address != first.network(),
                    "{prefix} {address}"
                );
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_address_and_another_prefix_another_identifier() {
        let identifier = |address: Ipv6Addr| u128::from(address) as u64;
        assert_eq!(chosen("2001:db8::/60", 5), chosen("2001:db8::/60", 5));
        assert_ne!(chosen("2001:db8::/60", 5), chosen("2001:db8::/60", 6));
        assert_ne!(
            identifier(chosen("2001:db8::/60", 5)),
            identifier(chosen("2001:db9::/60", 5))
        );
        assert_ne!(stable_seed(b"id", "wan0"), stable_seed(b"id", "wan1"));
        assert_eq!(stable_seed(b"id", "wan0"), stable_seed(b"id", "wan0"));
    }

    #[test]
    fn prefixes_with_little_room_serve_too() {
        for seed in 0..500 {
            assert_eq!(chosen("2001:db8::4/127", seed).to_string(), "2001:db8::5");
            assert!(![0, 0x100].contains(&(u128::from(chosen("2001:db8::100/120", seed)) & 0x1ff)));
        }
        assert_eq!(chosen("2001:db8::4/128", 1).to_string(), "2001:db8::4");
    }

    #[test]
    fn reserved_identifiers_are_known() {
        for reserved in [0, 0x0200_5eff_fe00_5213, 0xfdff_ffff_ffff_ff80, 0xfdff_ffff_ffff_ffff] {
            assert!(is_reserved(reserved), "{reserved:x}");
        }
        assert!(!is_reserved(1) && !is_reserved(0xfdff_ffff_ffff_ff7f));
    }
}
