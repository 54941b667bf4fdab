//! Stage proxy-ND: the uplink answers neighbour solicitations for the CLAT's IPv6 address, by a proxy neighbour entry
//! (RFC 4861 section 7.2.8) or by joining it as an anycast address (section 7.2.7).
//!
//! | | proxy entry | anycast |
//! |---|---|---|
//! | needs | `forwarding` and `proxy_ndp` of the uplink | an address in a prefix of the uplink, unless the uplink forwards |
//! | takes away | default routes of router advertisements where `accept_ra=0` | nothing |
//! | packets to it | are forwarded | are the host's own, unless a rule before the local table takes them |
//!
//! So clatd prefers the proxy entry. It joins an anycast address where a proxy entry cannot work or would do harm.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use async_trait::async_trait;

use ipnet::Ipv6Net;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::claims::Claims;
use crate::facts::{Fact, Facts, Source};
use crate::net::{Address6, Route};
use crate::op::Op;
use crate::plan::{StageName, Step};
use crate::settings::{NdChoice, Settings};
use crate::stage::{Delay, Instance, ObserveError, PlanError, Readiness, Stage};
use crate::sysctl::{ALL_FORWARDING, key};
use crate::translator::mappings;
use crate::vrf;
use crate::world::{World, WorldError};

/// Routing protocol of what router advertisements bring.
const FROM_ADVERTISEMENT: u8 = 9;

/// What the CLAT's address is to the uplink's neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddressRole {
    /// The host's own address, for which the kernel answers in any case.
    Shared,
    /// One of a delegated prefix, which is routed to this host.
    Delegated,
    /// One outside of the uplink's prefixes, which is routed to this host.
    Routed,
    /// One on the link, for which the configuration leaves the answer to others.
    LeftToOthers,
    /// One on the link with a proxy neighbour entry.
    Proxied,
    /// One on the link that is joined as an anycast address.
    Anycast,
}

/// What the CLAT's address is to the uplink's neighbours, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbours {
    /// What the address is.
    pub address: AddressRole,
    /// Why.
    pub why: &'static str,
    /// Those of the CLAT's addresses that are joined, if not all of them are.
    pub on_link: Option<Vec<Ipv6Addr>>,
}

impl Neighbours {
    fn new(address: AddressRole, why: &'static str) -> Self {
        let on_link = None;
        Self { address, why, on_link }
    }

    /// Whether there are proxy neighbour entries.
    pub(crate) fn are_proxied(facts: &Facts) -> bool {
        Self::have(facts, AddressRole::Proxied)
    }

    /// Whether addresses are joined as anycast addresses.
    pub(crate) fn find_anycast(facts: &Facts) -> bool {
        Self::have(facts, AddressRole::Anycast)
    }

    fn have(facts: &Facts, address: AddressRole) -> bool {
        let neighbours = facts.neighbours.as_ref();
        neighbours.is_some_and(|neighbours| neighbours.address == address)
    }
}

impl Serialize for Neighbours {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_map(None)?;
        fields.serialize_entry("neighbours", &Fact::new(self.address, Source::Derived(self.why)))?;
        // Earlier versions show this one only.
        if self.address == AddressRole::Anycast {
            fields.serialize_entry("anycast", self.why)?;
        }
        if let Some(on_link) = &self.on_link {
            fields.serialize_entry("on_link", on_link)?;
        }
        fields.end()
    }
}

/// Decides what the CLAT's address is to the neighbours, once the sysctls are known. Nobody else decides it.
pub(crate) async fn choose(settings: &Settings, world: &dyn World, facts: &mut Facts) -> Result<(), WorldError> {
    let (Some(uplink), Some(clat)) = (&facts.uplink, &facts.clat_v6_addr) else {
        return Ok(());
    };
    let (uplink, clat) = (uplink.value.name.clone(), clat.value);
    facts.neighbours = Some(judge(settings, &uplink, clat, world, facts).await?);
    Ok(())
}

async fn judge(
    settings: &Settings,
    uplink: &str,
    clat: Ipv6Addr,
    world: &dyn World,
    facts: &mut Facts,
) -> Result<Neighbours, WorldError> {
    if facts.shared {
        return Ok(Neighbours::new(
            AddressRole::Shared,
            "the CLAT's address is the host's own",
        ));
    }
    if facts.delegated_prefix.is_some() {
        return Ok(Neighbours::new(
            AddressRole::Delegated,
            "its prefix is routed to this host",
        ));
    }
    if !settings.clat.proxynd_enable {
        return Ok(Neighbours::new(AddressRole::LeftToOthers, "proxynd-enable=no"));
    }
    let asked = match settings.clat.nd {
        NdChoice::None => return Ok(Neighbours::new(AddressRole::LeftToOthers, "nd=none")),
        NdChoice::Proxy => return Ok(Neighbours::new(AddressRole::Proxied, "nd=proxy")),
        NdChoice::Anycast => Some("nd=anycast"),
        NdChoice::Auto => None,
    };
    if facts.fast_path.is_some() {
        let on_link = on_link(&world.addresses6(uplink).await?, hosts(settings, clat).into_iter());
        if on_link.is_empty() {
            return Ok(Neighbours::new(AddressRole::Routed, "it is in no prefix of the uplink"));
        }
        let why = "the fast path forwards nothing, and proxied neighbours need forwarding";
        return Ok(Neighbours {
            on_link: Some(on_link),
            ..Neighbours::new(AddressRole::Anycast, why)
        });
    }
    if let Some(why) = asked {
        return Ok(Neighbours::new(AddressRole::Anycast, why));
    }
    let proxied = Neighbours::new(AddressRole::Proxied, "forwarding of the uplink is on, or will be");
    let Some(why) = against_forwarding(settings, uplink, world, facts).await? else {
        return Ok(proxied);
    };
    // An address outside of the uplink's prefixes is routed to this host, so nobody looks for it on the link.
    let on_link = on_link(&world.addresses6(uplink).await?, std::iter::once(clat));
    Ok(if on_link.is_empty() {
        Neighbours::new(
            AddressRole::Proxied,
            "it is in no prefix of the uplink, so it cannot be joined",
        )
    } else {
        Neighbours::new(AddressRole::Anycast, why)
    })
}

/// Why the uplink's `forwarding`, which proxy entries need, stays off; `None` = it is on, or will be.
async fn against_forwarding(
    settings: &Settings,
    uplink: &str,
    world: &dyn World,
    facts: &mut Facts,
) -> Result<Option<&'static str>, WorldError> {
    let is_off = |facts: &Facts, key: &str| facts.sysctls.get(key).is_some_and(|value| value == "0");
    if !is_off(facts, &key(uplink, "forwarding")) {
        return Ok(None);
    }
    if !settings.clat.forwarding_enable {
        return Ok(Some(
            "forwarding-enable=no, without which the kernel answers for no proxied neighbour",
        ));
    }
    // Before Linux 6.17 either all devices forward or none, so anycast would save nothing.
    if is_off(facts, ALL_FORWARDING) && !facts.sysctls.contains_key(&key(uplink, "force_forwarding")) {
        return Ok(None);
    }
    for device in advertised_uplinks(world).await? {
        let key = key(&device, "accept_ra");
        if world.sysctl(&key).await?.as_deref() == Some("0") {
            facts.sysctls.insert(key, "0".into());
            return Ok(Some(
                "forwarding=1 would take away the default route of a router advertisement on a device with accept_ra=0",
            ));
        }
    }
    Ok(None)
}

/// The devices with a default route of a router advertisement. Switching any `forwarding` on purges these routes on
/// devices whose `accept_ra` is not 2.
pub(crate) async fn advertised_uplinks(world: &dyn World) -> Result<BTreeSet<String>, WorldError> {
    let mut devices = BTreeSet::new();
    for table in vrf::tables(&world.links().await?) {
        let routes = world.routes6(table).await?;
        let advertised = routes.iter().filter(|route| is_advertised(route));
        devices.extend(advertised.filter_map(|route| route.device.clone()));
    }
    Ok(devices)
}

fn is_advertised(route: &Route) -> bool {
    route.is_default() && route.protocol == FROM_ADVERTISEMENT
}

/// Those of the CLAT's addresses that neighbours look for: those in a prefix of the uplink. The others are routed here.
fn on_link(prefixes: &[Address6], addresses: impl Iterator<Item = Ipv6Addr>) -> Vec<Ipv6Addr> {
    let is_on_link = |address: &Ipv6Addr| {
        prefixes.iter().any(|found| {
            Ipv6Net::new(found.address, found.prefix_len).is_ok_and(|prefix| prefix.trunc().contains(address))
        })
    };
    addresses.filter(is_on_link).collect()
}

/// The single addresses among those of the CLAT.
fn hosts(settings: &Settings, clat_v6: Ipv6Addr) -> Vec<Ipv6Addr> {
    let single = |map: &crate::settings::MapEntry| map.v6.prefix_len() == 128;
    let maps = mappings(settings, clat_v6);
    maps.iter().filter(|map| single(map)).map(|map| map.v6.addr()).collect()
}

/// The stage.
pub struct ProxyNdStage;

#[async_trait]
impl Stage for ProxyNdStage {
    fn name(&self) -> StageName {
        StageName::ProxyNd
    }

    fn delay(&self, _instance: &Instance) -> Option<Delay> {
        None
    }

    async fn observe(
        &self,
        _instance: &Instance,
        _world: &dyn World,
        _claims: &dyn Claims,
        _facts: &mut Facts,
    ) -> Result<Readiness, ObserveError> {
        Ok(Readiness::Ready)
    }

    /// The reason for or against joining the address may be gone by now. That is no reason to change while packets pass.
    fn keep(&self, old: &Facts, new: &mut Facts) {
        let decided_by = |facts: &Facts| {
            let address = facts.clat_v6_addr.as_ref().map(|address| address.value);
            let routed = facts.delegated_prefix.is_some();
            (address, facts.shared, routed, facts.fast_path.is_some())
        };
        if decided_by(new) == decided_by(old) {
            new.neighbours.clone_from(&old.neighbours);
        }
    }

    fn plan(&self, instance: &Instance, facts: &Facts) -> Result<Vec<Step>, PlanError> {
        let (Some(uplink), Some(address)) = (&facts.uplink, &facts.clat_v6_addr) else {
            return Err(PlanError {
                stage: self.name(),
                what: "no uplink and CLAT address".into(),
            });
        };
        let Some(neighbours) = &facts.neighbours else {
            return Ok(Vec::new());
        };
        let hosts = hosts(&instance.settings, address.value)
            .into_iter()
            .filter(|host| neighbours.on_link.as_ref().is_none_or(|on_link| on_link.contains(host)));
        let steps = hosts.filter_map(|address| {
            let device = uplink.value.name.clone();
            let (again, why) = (device.clone(), "the uplink's neighbours must find the CLAT's address");
            let (apply, undo) = match neighbours.address {
                AddressRole::Proxied => (
                    Op::AddProxyNeighbour { device, address },
                    Op::RemoveProxyNeighbour { device: again, address },
                ),
                AddressRole::Anycast => (
                    Op::JoinAnycast { device, address },
                    Op::LeaveAnycast { device: again, address },
                ),
                AddressRole::Shared | AddressRole::Delegated | AddressRole::Routed | AddressRole::LeftToOthers => {
                    return None;
                }
            };
            Some(Step::new(self.name(), why, apply, undo))
        });
        Ok(steps.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fact shows why.
    #[tokio::test]
    async fn a_device_that_would_lose_its_route_speaks_against_forwarding() {
        let link = |index, name: &str| crate::net::Link {
            index,
            name: name.into(),
            mtu: 1500,
            up: true,
            carrier: true,
            alias: None,
            master: None,
            vrf_table: None,
        };
        let mut route = Route::ours("::/0".parse().unwrap(), "up1");
        route.protocol = FROM_ADVERTISEMENT;
        for (accept_ra, speaks) in [("0", true), ("1", false)] {
            let world = crate::fixed_world::FixedWorld {
                links: vec![link(2, "up0"), link(3, "up1")],
                routes6: [(crate::net::MAIN_TABLE, vec![route.clone()])].into(),
                sysctls: [(key("up1", "accept_ra"), accept_ra.to_owned())].into(),
                ..Default::default()
            };
            let mut facts = Facts::default();
            for name in ["forwarding", "force_forwarding"] {
                facts.sysctls.insert(key("up0", name), "0".into());
            }
            let why = against_forwarding(&Settings::default(), "up0", &world, &mut facts).await;
            assert_eq!(why.unwrap().is_some_and(|why| why.contains("accept_ra=0")), speaks);
            let shown = facts.sysctls.get(&key("up1", "accept_ra"));
            assert_eq!(shown.is_some_and(|value| value == "0"), speaks);
        }
    }

    #[test]
    fn only_default_routes_of_advertisements_are_lost() {
        let lost = |destination: &str, protocol| {
            let mut route = Route::ours(destination.parse().unwrap(), "up0");
            route.protocol = protocol;
            is_advertised(&route)
        };
        assert!(lost("::/0", FROM_ADVERTISEMENT));
        // One that somebody set (`ip route add`: 3, `boot`; a DHCP client: 16).
        assert!(!lost("::/0", 3));
        assert!(!lost("::/0", 16));
        assert!(!lost("2001:db8::/64", FROM_ADVERTISEMENT));
    }
}
