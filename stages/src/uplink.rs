//! The uplink: the device on which the PLAT prefix was learned, or the device of the route to it.
//!
//! A running CLAT keeps its uplink while that is usable, whatever routes others add: a VPN may run over the CLAT
//! itself. (RFC 8880 section 7.1 has the same idea: a prefix belongs to the network in which it was learned.)

use std::net::{IpAddr, Ipv6Addr};

use clatd_translator::Pref64;

use crate::facts::{Fact, Facts, Source};
use crate::net::{Address6, Link, MAIN_TABLE, Route};
use crate::settings::Settings;
use crate::validity::problem_of_device;
use crate::vrf;
use crate::world::{RouteAnswer, World, WorldError};

/// The uplink of the CLAT that runs, under its present name; `None` = none runs, or the device is gone.
pub(crate) async fn running(world: &dyn World, facts: &Facts) -> Result<Option<Link>, WorldError> {
    if facts.memory.running {
        present(world, facts).await
    } else {
        Ok(None)
    }
}

/// The uplink that the CLAT has or had last, under its present name; `None` = it had none, or the device is gone.
async fn present(world: &dyn World, facts: &Facts) -> Result<Option<Link>, WorldError> {
    let Some(before) = &facts.memory.uplink else {
        return Ok(None);
    };
    match world.link(&before.name).await? {
        Some(link) if link.index == before.index => Ok(Some(link)),
        _ => Ok(world
            .links()
            .await?
            .iter()
            .find(|link| link.index == before.index)
            .cloned()),
    }
}

/// The device that `plat-dev` names. A CLAT that ran on it stays there while it is usable, whatever that device or another
/// one is called now.
pub(crate) async fn named(settings: &Settings, world: &dyn World, facts: &Facts) -> Result<Option<Link>, WorldError> {
    let Some(name) = &settings.plat.plat_dev else {
        return Ok(None);
    };
    match present(world, facts).await? {
        Some(link) if link.up && link.carrier => Ok(Some(link)),
        had => Ok(world.link(name).await?.or(had)),
    }
}

/// The devices of the IPv6 default routes, the best first.
pub(crate) async fn by_default_route(world: &dyn World) -> Result<Vec<String>, WorldError> {
    let routes = world.routes6(MAIN_TABLE).await?;
    let mut defaults: Vec<&Route> = routes.iter().filter(|route| route.is_default()).collect();
    defaults.sort_by_key(|route| route.metric);
    let mut devices = Vec::new();
    for device in defaults.into_iter().filter_map(|route| route.device.as_ref()) {
        if !devices.contains(device) {
            devices.push(device.clone());
        }
    }
    Ok(devices)
}

/// The route towards the PLAT, by `device` if given. If there is no route for every source, a route for the sources
/// that the CLAT may have counts (RFC 8028 section 3.2).
pub(crate) async fn route_to_plat(
    prefix: Pref64,
    device: Option<&str>,
    world: &dyn World,
) -> Result<Option<RouteAnswer>, WorldError> {
    let plat = prefix.address();
    if let Some(answer) = world.route_to(plat, device).await? {
        return Ok(Some(answer));
    }
    let devices = match device {
        Some(device) => vec![device.to_owned()],
        None => by_default_route(world).await?,
    };
    for device in &devices {
        for source in sources(&world.addresses6(device).await?) {
            if let Some(mut answer) = world.route_from(source, plat, device).await? {
                answer.source = Some(IpAddr::V6(source));
                return Ok(Some(answer));
            }
        }
    }
    Ok(None)
}

fn sources(addresses: &[Address6]) -> impl Iterator<Item = Ipv6Addr> {
    let usable = addresses.iter().filter(|address| address.global && !address.deprecated);
    usable.map(|address| address.address)
}

/// What looking for the uplink came to.
pub(crate) enum Uplink {
    /// This device.
    Found(String),
    /// None, and why.
    None(String),
}

/// Finds the uplink for a prefix: the device `wanted`, or the device of the route to the PLAT.
pub(crate) async fn find(
    wanted: Option<&str>,
    source: Source,
    prefix: Pref64,
    world: &dyn World,
    facts: &mut Facts,
) -> Result<Uplink, WorldError> {
    let Some(route) = route_to_plat(prefix, wanted, world).await? else {
        let through = match (wanted, &source) {
            (Some(device), Source::Configuration) => format!(" through {device} (plat-dev)"),
            (Some(device), _) => format!(" through {device}"),
            (None, _) => String::new(),
        };
        return Ok(Uplink::None(format!(
            "no IPv6 route to the PLAT prefix {prefix}{through}"
        )));
    };
    let Some(link) = world.link(&route.device).await? else {
        return Ok(Uplink::None(format!("the uplink {} is gone", route.device)));
    };
    if !link.up || !link.carrier {
        let what = if link.up { "has no carrier" } else { "is down" };
        return Ok(Uplink::None(format!("the uplink {} {what}", link.name)));
    }
    if link.is_clat() {
        return Ok(Uplink::None(format!(
            "the route to the PLAT prefix {prefix} leads into the CLAT device {}",
            link.name
        )));
    }
    facts.plat_gateway = route
        .gateway
        .map(|gateway| Fact::new(gateway, Source::Kernel("route to the PLAT prefix")));
    let name = link.name.clone();
    facts.uplink_vrf = vrf::of(&link, world).await?;
    let vrf = facts.uplink_vrf.as_ref().map(|vrf| vrf.value.name.as_str());
    for device in [Some(name.as_str()), vrf].into_iter().flatten() {
        if let Some(problem) = problem_of_device(device) {
            return Ok(Uplink::None(format!(
                "the device {device:?} cannot be used: its name {problem}; rename it"
            )));
        }
    }
    facts.uplink = Some(Fact::new(link, source));
    Ok(Uplink::Found(name))
}
