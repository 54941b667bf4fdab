//! Interface identifiers: candidates for the CLAT's address, one after the other.

use std::net::{Ipv4Addr, Ipv6Addr};

use clatd_translator::Pref64;
use sha2::{Digest, Sha256};

/// A way to make addresses out of a network.
pub(super) struct Identifier {
    /// The network's bits; host bits are zero.
    network: u128,
    host_bits: u128,
    kind: IdentifierKind,
    /// Ones' complement sum that the whole address must have; `None` = any.
    neutral: Option<u16>,
}

enum IdentifierKind {
    /// First c1a7 in the middle of this address, then random.
    C1a7 {
        base: Ipv6Addr,
        seed: u128,
    },
    Random {
        seed: u128,
    },
    /// RFC 7217 section 5: all inputs of the identifier except the counter.
    Stable {
        input: Vec<u8>,
    },
}

impl Identifier {
    /// The 2016 clatd's, of a modified EUI-64 address.
    pub(super) fn c1a7(base: Ipv6Addr, seed: u128) -> Self {
        Self::new(base, 64, IdentifierKind::C1a7 { base, seed })
    }

    /// The 2016 clatd's, of any other address.
    pub(super) fn random(base: Ipv6Addr, length: u8, seed: u128) -> Self {
        Self::new(base, length, IdentifierKind::Random { seed })
    }

    /// RFC 7217: the same result for the same network, device, instance and host.
    pub(super) fn stable(base: Ipv6Addr, length: u8, device: &str, instance: &str, secret: &[u8]) -> Self {
        let mut input = Vec::new();
        let network = u128::from(base) & !host_bits(length);
        // Each part is hashed with its length, so that two different inputs never give the same bytes.
        for part in [
            &network.to_be_bytes()[..],
            device.as_bytes(),
            instance.as_bytes(),
            secret,
        ] {
            input.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            input.extend(part);
        }
        Self::new(base, length, IdentifierKind::Stable { input })
    }

    /// Like a stable identifier, but its last 16 bits are chosen so that pseudo-header checksums stay the same: the
    /// sum over the CLAT's address and the PLAT prefix equals that over the CLAT's IPv4 address (RFC 6052 section
    /// 4.1).
    pub(super) fn neutral(mut self, v4: Ipv4Addr, prefix: Pref64) -> Result<Self, String> {
        if self.host_bits & 0xffff != 0xffff {
            return Err("a checksum-neutral address needs 16 bits of the uplink's prefix for itself".into());
        }
        // An IPv4 address that is not aligned to 16 bits in its IPv6 address adds up differently.
        if !matches!(prefix.length(), 32 | 96) {
            return Err(format!(
                "no address is checksum-neutral with {prefix}: only lengths 32 and 96 allow it; use stable"
            ));
        }
        self.neutral = Some(subtract(sum(&v4.octets()), sum(&prefix.address().octets())));
        Ok(self)
    }

    fn new(base: Ipv6Addr, length: u8, kind: IdentifierKind) -> Self {
        let host_bits = host_bits(length);
        Self {
            network: u128::from(base) & !host_bits,
            host_bits,
            kind,
            neutral: None,
        }
    }

    /// The candidate of this number.
    pub(super) fn address(&self, attempt: u32) -> Ipv6Addr {
        let bits = match &self.kind {
            IdentifierKind::C1a7 { base, .. } if attempt == 0 => {
                let mut octets = base.octets();
                octets[11..13].copy_from_slice(&[0xc1, 0xa7]);
                u128::from_be_bytes(octets)
            }
            IdentifierKind::C1a7 { seed, .. } | IdentifierKind::Random { seed } => seed.wrapping_add(attempt.into()),
            IdentifierKind::Stable { input } => {
                let digest = Sha256::new()
                    .chain_update(input)
                    .chain_update(attempt.to_be_bytes())
                    .finalize();
                digest
                    .iter()
                    .take(16)
                    .fold(0, |bits, octet| bits << 8 | u128::from(*octet))
            }
        };
        let mut host = bits & self.host_bits;
        // Zero is the subnet-router anycast address (RFC 4291 section 2.6.1).
        if host == 0 {
            host = u128::from(attempt) + 1;
        }
        let address = self.network | host;
        let Some(wanted) = self.neutral else {
            return address.into();
        };
        let without_last = address & !0xffff;
        let last = subtract(wanted, sum(&without_last.to_be_bytes()));
        Ipv6Addr::from(without_last | u128::from(last))
    }

    /// How the candidate was made, for people.
    pub(super) fn describe(&self, attempt: u32) -> &'static str {
        match &self.kind {
            IdentifierKind::C1a7 { .. } if attempt == 0 => "c1a7 in the modified EUI-64 address of the uplink",
            IdentifierKind::C1a7 { .. } | IdentifierKind::Random { .. } => {
                "random interface identifier in the uplink's prefix"
            }
            IdentifierKind::Stable { .. } if self.neutral.is_some() => {
                "checksum-neutral interface identifier in the uplink's prefix"
            }
            IdentifierKind::Stable { .. } => "stable interface identifier in the uplink's prefix (RFC 7217)",
        }
    }
}

fn host_bits(length: u8) -> u128 {
    u128::MAX.checked_shr(length.into()).unwrap_or(0)
}

/// Ones' complement sum of 16-bit words.
fn sum(octets: &[u8]) -> u16 {
    octets
        .chunks_exact(2)
        .fold(0, |sum, word| add(sum, u16::from_be_bytes([word[0], word[1]])))
}

fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}

fn subtract(a: u16, b: u16) -> u16 {
    add(a, !b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v6(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    #[test]
    fn c1a7_goes_into_a_modified_eui64_address() {
        let identifier = Identifier::c1a7(v6("2001:db8::211:22ff:fe33:4455"), 9);
        assert_eq!(identifier.address(0), v6("2001:db8::211:22c1:a733:4455"));
        assert_eq!(identifier.address(1), v6("2001:db8::a"));
    }

    #[test]
    fn random_identifiers_keep_the_network_and_are_never_zero() {
        assert_eq!(
            Identifier::random(v6("2001:db8::1"), 64, 7).address(0),
            v6("2001:db8::7")
        );
        assert_eq!(
            Identifier::random(v6("2001:db8::1"), 64, 0).address(0),
            v6("2001:db8::1")
        );
        assert_eq!(
            Identifier::random(v6("2001:db8::ff00"), 120, u128::MAX).address(0),
            v6("2001:db8::ffff")
        );
    }

    #[test]
    fn stable_identifiers_depend_on_everything_but_time() {
        let make = |base: &str, device: &str, instance: &str, secret: &[u8], attempt| {
            Identifier::stable(v6(base), 64, device, instance, secret).address(attempt)
        };
        let one = make("2001:db8::1", "wan0", "clat", b"secret", 0);
        assert_eq!(
            one,
            make("2001:db8::2", "wan0", "clat", b"secret", 0),
            "the same network"
        );
        for other in [
            make("2001:db8:1::1", "wan0", "clat", b"secret", 0),
            make("2001:db8::1", "wan1", "clat", b"secret", 0),
            make("2001:db8::1", "wan0", "clat2", b"secret", 0),
            make("2001:db8::1", "wan0", "clat", b"other", 0),
            make("2001:db8::1", "wan0", "clat", b"secret", 1),
        ] {
            assert_ne!(one.octets()[8..], other.octets()[8..]);
        }
    }

    #[test]
    fn neutral_addresses_leave_the_pseudo_header_sum_as_it_is() {
        for prefix in ["64:ff9b::/96", "2001:db8::/32"] {
            let prefix: Pref64 = prefix.parse().unwrap();
            let clat4 = Ipv4Addr::new(192, 0, 0, 1);
            let stable = Identifier::stable(v6("2001:db8:1::5"), 64, "wan0", "clat", b"secret");
            let clat6 = stable.neutral(clat4, prefix).unwrap().address(0);
            assert_eq!(clat6.octets()[..8], v6("2001:db8:1::").octets()[..8]);
            let server = Ipv4Addr::new(198, 51, 100, 7);
            let before = add(sum(&clat4.octets()), sum(&server.octets()));
            let after = add(sum(&clat6.octets()), sum(&prefix.embed(server).octets()));
            // Zero has two forms in ones' complement.
            assert_eq!(before % 0xffff, after % 0xffff, "{prefix}");
        }
        let odd = Identifier::stable(v6("2001:db8:1::5"), 64, "wan0", "clat", b"");
        assert!(
            odd.neutral(Ipv4Addr::new(192, 0, 0, 1), "2001:db8:100::/40".parse().unwrap())
                .is_err()
        );
    }
}
