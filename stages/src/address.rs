//! Stage address: the CLAT's IPv6 address. `derived` is the algorithm of the 2016 clatd: out of the uplink's address
//! that is nearest to the PLAT prefix; of a modified EUI-64 one the middle 16 bits become c1a7, else the interface
//! identifier is random.

use std::net::Ipv6Addr;

use async_trait::async_trait;

use crate::facts::{Fact, Facts, Source};
use crate::net::Address6;
use crate::plan::{StageName, Step};
use crate::settings::ClatV6Addr;
use crate::stage::{Instance, ObserveError, PlanError, Stage, Verdict, world_error};
use crate::world::World;

/// The stage.
pub struct Address;

/// Longer prefixes leave no room for an address of the CLAT's own.
const LONGEST_PREFIX: u8 = 120;

#[async_trait]
impl Stage for Address {
    fn name(&self) -> StageName {
        StageName::Address
    }

    async fn observe(
        &self,
        instance: &Instance,
        world: &dyn World,
        facts: &mut Facts,
    ) -> Result<Verdict, ObserveError> {
        let stage = self.name();
        let unusable = |what: String| Err(ObserveError::Unusable { stage, what });
        let (Some(uplink), Some(prefix)) = (&facts.uplink, &facts.plat_prefix) else {
            return unusable("no uplink and PLAT prefix to derive an address for".into());
        };
        let fact = match instance.settings.clat_v6_addr {
            ClatV6Addr::Address(address) => Fact::new(address, Source::Configuration),
            ClatV6Addr::Shared => {
                return unusable(
                    "clat-v6-addr=shared is not available in this version; use derived or an address".into(),
                );
            }
            ClatV6Addr::Derived => {
                let name = &uplink.value.name;
                let addresses = world.addresses6(name).await.map_err(world_error(stage))?;
                let Some(base) = choose(&addresses, prefix.value.address()) else {
                    if addresses
                        .iter()
                        .any(|address| address.tentative && could_serve(address))
                    {
                        return Err(ObserveError::NotYet {
                            stage,
                            what: format!("duplicate address detection on {name} has not ended"),
                        });
                    }
                    return unusable(format!(
                        "{name} has no IPv6 address to derive the CLAT's from (global, preferred, not temporary, prefix no longer than \
                         /{LONGEST_PREFIX}); found {}; set clat-v6-addr to an address that is routed to this host",
                        describe(&addresses)
                    ));
                };
                derive(base, instance.seed, &addresses)
            }
        };
        facts.clat_v6_addr = Some(fact);
        Ok(Verdict::Ready)
    }

    fn plan(&self, _instance: &Instance, _facts: &Facts) -> Result<Vec<Step>, PlanError> {
        Ok(Vec::new())
    }
}

/// The address to derive from: modified EUI-64 before any other, then the longest common prefix with the PLAT prefix;
/// among equals the first. ULAs serve only where there is nothing else.
pub fn choose(addresses: &[Address6], plat_prefix: Ipv6Addr) -> Option<&Address6> {
    let usable: Vec<&Address6> = addresses
        .iter()
        .filter(|address| could_serve(address) && !address.tentative)
        .collect();
    let only_ula = usable.iter().all(|address| is_ula(address.address));
    let common = |address: &Address6| (u128::from(address.address) ^ u128::from(plat_prefix)).leading_zeros();
    usable
        .into_iter()
        .filter(|address| only_ula || !is_ula(address.address))
        // `rev`, since `max_by_key` keeps the last of equals.
        .rev()
        .max_by_key(|address| (is_modified_eui64(address), common(address)))
}

fn could_serve(address: &Address6) -> bool {
    address.global && !address.deprecated && !address.temporary && address.prefix_len <= LONGEST_PREFIX
}

fn is_ula(address: Ipv6Addr) -> bool {
    address.octets()[0] & 0xfe == 0xfc
}

/// RFC 4291 appendix A: a /64 whose interface identifier has ff:fe in the middle.
fn is_modified_eui64(address: &Address6) -> bool {
    address.prefix_len == 64 && address.address.octets()[11..13] == [0xff, 0xfe]
}

fn derive(base: &Address6, random: u128, taken: &[Address6]) -> Fact<Ipv6Addr> {
    let mut octets = base.address.octets();
    octets[11..13].copy_from_slice(&[0xc1, 0xa7]);
    let substituted = Ipv6Addr::from(octets);
    let is_taken = |address: Ipv6Addr| taken.iter().any(|other| other.address == address);
    if is_modified_eui64(base) && !is_taken(substituted) {
        return Fact::new(
            substituted,
            Source::Derived("c1a7 in the modified EUI-64 address of the uplink"),
        );
    }
    let host_bits = u128::MAX.checked_shr(base.prefix_len.into()).unwrap_or(0);
    let network = u128::from(base.address) & !host_bits;
    // Zero is the subnet-router anycast address (RFC 4291 section 2.6.1).
    let candidates = (0..).map(|step: u128| Ipv6Addr::from(network | (random.wrapping_add(step) & host_bits)));
    let free = candidates
        .take(taken.len() + 2)
        .find(|candidate| u128::from(*candidate) & host_bits != 0 && !is_taken(*candidate));
    Fact::new(
        free.unwrap_or(substituted),
        Source::Derived("random interface identifier in the uplink's prefix"),
    )
}

fn describe(addresses: &[Address6]) -> String {
    if addresses.is_empty() {
        return "none at all".into();
    }
    let one = |address: &Address6| {
        let flags = [
            (!address.global, "not global"),
            (address.tentative, "tentative"),
            (address.deprecated, "deprecated"),
            (address.temporary, "temporary"),
        ];
        let flags: Vec<&str> = flags.iter().filter(|(set, _)| *set).map(|(_, word)| *word).collect();
        let flags = if flags.is_empty() {
            String::new()
        } else {
            format!(" ({})", flags.join(", "))
        };
        format!("{}/{}{flags}", address.address, address.prefix_len)
    };
    addresses.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str, prefix_len: u8) -> Address6 {
        Address6 {
            address: text.parse().unwrap(),
            prefix_len,
            global: true,
            tentative: false,
            deprecated: false,
            temporary: false,
            valid_s: None,
        }
    }

    fn chosen(addresses: &[Address6], prefix: &str) -> Option<String> {
        choose(addresses, prefix.parse().unwrap()).map(|address| address.address.to_string())
    }

    #[test]
    fn c1a7_goes_into_a_modified_eui64_address() {
        let fact = derive(&address("2001:db8::211:22ff:fe33:4455", 64), 0, &[]);
        assert_eq!(fact.value.to_string(), "2001:db8::211:22c1:a733:4455");
    }

    #[test]
    fn other_addresses_get_a_random_identifier_that_is_free() {
        let base = address("2001:db8::1", 64);
        assert_eq!(derive(&base, 7, &[]).value.to_string(), "2001:db8::7");
        assert_eq!(derive(&base, 0, &[]).value.to_string(), "2001:db8::1");
        assert_eq!(
            derive(&base, 0, std::slice::from_ref(&base)).value.to_string(),
            "2001:db8::2"
        );
        let eui = address("2001:db8::211:22ff:fe33:4455", 64);
        let taken = [eui.clone(), address("2001:db8::211:22c1:a733:4455", 64)];
        assert_eq!(derive(&eui, 9, &taken).value.to_string(), "2001:db8::9");
    }

    #[test]
    fn eui64_comes_first_then_the_longest_common_prefix() {
        let far = address("2001:db8:1::5", 64);
        let near = address("2001:db8:ff::5", 64);
        let eui = address("2a00::211:22ff:fe33:4455", 64);
        assert_eq!(
            chosen(&[far.clone(), near.clone()], "2001:db8:fe::").as_deref(),
            Some("2001:db8:ff::5")
        );
        assert_eq!(
            chosen(&[far.clone(), near, eui], "2001:db8:fe::").as_deref(),
            Some("2a00::211:22ff:fe33:4455")
        );
        assert_eq!(
            chosen(&[far.clone(), address("2001:db8:1::6", 64)], "64:ff9b::").as_deref(),
            Some("2001:db8:1::5")
        );
        // ff:fe in an address that is no /64 is no modified EUI-64.
        assert!(!is_modified_eui64(&address("2001:db8::211:22ff:fe33:4455", 80)));
    }

    #[test]
    fn unfit_addresses_are_never_chosen() {
        let base = address("2001:db8::5", 64);
        assert_eq!(
            chosen(
                &[Address6 {
                    deprecated: true,
                    ..base.clone()
                }],
                "64:ff9b::"
            ),
            None
        );
        assert_eq!(
            chosen(
                &[Address6 {
                    tentative: true,
                    ..base.clone()
                }],
                "64:ff9b::"
            ),
            None
        );
        assert_eq!(
            chosen(
                &[Address6 {
                    temporary: true,
                    ..base.clone()
                }],
                "64:ff9b::"
            ),
            None
        );
        assert_eq!(
            chosen(
                &[Address6 {
                    global: false,
                    ..base.clone()
                }],
                "64:ff9b::"
            ),
            None
        );
        assert_eq!(chosen(&[address("2001:db8::5", 121)], "64:ff9b::"), None);
    }

    #[test]
    fn a_ula_serves_only_where_no_global_address_does() {
        let ula = address("fd00::211:22ff:fe33:4455", 64);
        let gua = address("2001:db8::5", 64);
        assert_eq!(
            chosen(&[ula.clone(), gua.clone()], "fd00:64::").as_deref(),
            Some("2001:db8::5")
        );
        assert_eq!(
            chosen(std::slice::from_ref(&ula), "64:ff9b::").as_deref(),
            Some("fd00::211:22ff:fe33:4455")
        );
        let gone = Address6 {
            deprecated: true,
            ..gua
        };
        assert_eq!(
            chosen(&[ula, gone], "64:ff9b::").as_deref(),
            Some("fd00::211:22ff:fe33:4455")
        );
    }
}
