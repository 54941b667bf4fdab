//! Stage proxy-ND: the uplink answers neighbour solicitations for the CLAT's IPv6 address, by a proxy neighbour entry
//! (RFC 4861 section 7.2.8) or by joining it as an anycast address (section 7.2.7).
//!
//! | | proxy entry | anycast |
//! |---|---|---|
//! | needs | `forwarding` and `proxy_ndp` of the uplink | an address in a prefix of the uplink, unless that forwards |
//! | takes away | default routes of router advertisements where `accept_ra=0` | nothing |
//! | packets to it | are forwarded | are the host's own, unless a rule before the local table takes them |
//!
//! So the proxy entry comes first, and where it cannot work or would do harm, the other takes its place.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use async_trait::async_trait;

use crate::facts::Facts;
use crate::fast_path;
use crate::net::{Address6, Route};
use crate::op::Op;
use crate::plan::{StageName, Step};
use crate::settings::{NdChoice, Settings};
use crate::stage::{Instance, PlanError, Stage};
use crate::sysctl::{ALL_FORWARDING, key};
use crate::translator::mappings;
use crate::vrf;
use crate::world::{World, WorldError};

/// Routing protocol of what router advertisements bring.
const FROM_ADVERTISEMENT: u8 = 9;

/// How the neighbours find the CLAT's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// By a proxy neighbour entry.
    Proxy,
    /// By an anycast address.
    Anycast,
}

/// How the kernel is to answer for the CLAT's address. For the host's own address it answers in any case, and a
/// delegated prefix is routed to this host: nothing is needed for these.
pub(crate) fn way(settings: &Settings, facts: &Facts) -> Option<Way> {
    let wanted = settings.clat.proxynd_enable && settings.clat.nd != NdChoice::None;
    let needed = !facts.shared && facts.delegated_prefix.is_none();
    let way = match facts.anycast {
        Some(_) => Some(Way::Anycast),
        None if facts.fast_path.is_none() || settings.clat.nd == NdChoice::Proxy => Some(Way::Proxy),
        // No address of the CLAT is on the link, so nobody looks for one there.
        None => None,
    };
    way.filter(|_| wanted && needed)
}

/// Decides, once the sysctls are known, whether the address should be joined instead.
pub(crate) async fn choose(settings: &Settings, world: &dyn World, facts: &mut Facts) -> Result<(), WorldError> {
    let (Some(uplink), Some(clat)) = (&facts.uplink, &facts.clat_v6_addr) else {
        return Ok(());
    };
    let (uplink, clat) = (&uplink.value.name.clone(), clat.value);
    (facts.anycast, facts.on_link) = (None, None);
    if facts.fast_path.is_some() && settings.clat.nd != NdChoice::Proxy && settings.clat.nd != NdChoice::None {
        let hosts = hosts(settings, clat);
        let on_link = fast_path::on_link(&world.addresses6(uplink).await?, hosts.into_iter());
        if settings.clat.proxynd_enable && !on_link.is_empty() && facts.delegated_prefix.is_none() {
            facts.anycast = Some("the fast path forwards nothing, and proxied neighbours need forwarding");
            facts.on_link = Some(on_link);
        }
        return Ok(());
    }
    facts.anycast = match settings.clat.nd {
        _ if way(settings, facts).is_none() => None,
        NdChoice::Proxy | NdChoice::None => None,
        NdChoice::Anycast => Some("nd=anycast"),
        NdChoice::Auto => match against_forwarding(settings, uplink, world, facts).await? {
            // An address outside of the uplink's prefixes is routed to this host, so nobody looks for it on the link.
            Some(why) if is_on_link(&world.addresses6(uplink).await?, clat) => Some(why),
            _ => None,
        },
    };
    Ok(())
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
        let routes = world.routes6(table).await?.into_iter();
        devices.extend(routes.filter(is_advertised).filter_map(|route| route.device));
    }
    Ok(devices)
}

fn is_advertised(route: &Route) -> bool {
    route.is_default() && route.protocol == FROM_ADVERTISEMENT
}

fn is_on_link(addresses: &[Address6], clat: std::net::Ipv6Addr) -> bool {
    addresses.iter().any(|found| {
        ipnet::Ipv6Net::new(found.address, found.prefix_len).is_ok_and(|prefix| prefix.trunc().contains(&clat))
    })
}

/// The single addresses among those of the CLAT.
fn hosts(settings: &Settings, clat_v6: Ipv6Addr) -> Vec<Ipv6Addr> {
    let single = |map: &crate::settings::MapEntry| map.v6.prefix_len() == 128;
    let maps = mappings(settings, clat_v6);
    maps.iter().filter(|map| single(map)).map(|map| map.v6.addr()).collect()
}

/// The stage.
pub struct ProxyNd;

#[async_trait]
impl Stage for ProxyNd {
    fn name(&self) -> StageName {
        StageName::ProxyNd
    }

    fn plan(&self, instance: &Instance, facts: &Facts) -> Result<Vec<Step>, PlanError> {
        let (Some(uplink), Some(address)) = (&facts.uplink, &facts.clat_v6_addr) else {
            return Err(PlanError {
                stage: self.name(),
                what: "no uplink and CLAT address".into(),
            });
        };
        let Some(way) = way(&instance.settings, facts) else {
            return Ok(Vec::new());
        };
        let hosts = hosts(&instance.settings, address.value)
            .into_iter()
            .filter(|host| facts.on_link.as_ref().is_none_or(|on_link| on_link.contains(host)));
        let steps = hosts.map(|address| {
            let device = uplink.value.name.clone();
            let (again, why) = (device.clone(), "the uplink's neighbours must find the CLAT's address");
            let (apply, undo) = match way {
                Way::Proxy => (
                    Op::AddProxyNeighbour { device, address },
                    Op::RemoveProxyNeighbour { device: again, address },
                ),
                Way::Anycast => (
                    Op::JoinAnycast { device, address },
                    Op::LeaveAnycast { device: again, address },
                ),
            };
            Step::new(self.name(), why, apply, undo)
        });
        Ok(steps.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
