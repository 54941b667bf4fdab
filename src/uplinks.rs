//! Which devices are uplinks: those with an IPv6 default route, in the main table or in a VRF's table.

use std::collections::BTreeSet;

use clatd_stages::net::Link;
use clatd_stages::vrf;
use clatd_stages::world::{World, WorldError};

/// The names of the uplinks, sorted.
pub async fn find(world: &dyn World) -> Result<BTreeSet<String>, WorldError> {
    let links = world.links().await?;
    let mut uplinks = BTreeSet::new();
    for table in vrf::tables(&links) {
        let routes = world.routes6(table).await?;
        let defaults = routes.iter().filter(|route| route.is_default());
        uplinks.extend(defaults.filter_map(|route| route.device.clone()));
    }
    let can_serve = |link: &&Link| link.up && !link.is_clat() && link.name != "lo";
    let names: BTreeSet<&str> = links.iter().filter(can_serve).map(|link| link.name.as_str()).collect();
    uplinks.retain(|uplink| names.contains(uplink.as_str()));
    Ok(uplinks)
}
