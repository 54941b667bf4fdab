//! Uplinks in a VRF. Their routes are in the VRF's table. For the kernel their packets come in by the VRF: rules of
//! routing and of packet filters see the VRF as the input device. In prerouting, packets pass twice: once with each
//! device.

use std::collections::BTreeSet;

use crate::facts::{Fact, Facts, Source};
use crate::net::{Link, MAIN_TABLE};
use crate::world::{World, WorldError};

/// The VRF that a device is in.
pub(crate) async fn of(device: &Link, world: &dyn World) -> Result<Option<Fact<Link>>, WorldError> {
    let Some(master) = device.master else { return Ok(None) };
    let links = world.links().await?;
    let vrf = links
        .iter()
        .find(|link| link.index == master && link.vrf_table.is_some());
    Ok(vrf.map(|vrf| Fact::new(vrf.clone(), Source::Kernel("master of the uplink"))))
}

/// The tables with routes from router advertisements: the main table and those of VRFs.
pub fn tables(links: &[Link]) -> BTreeSet<u32> {
    links
        .iter()
        .filter_map(|link| link.vrf_table)
        .chain([MAIN_TABLE])
        .collect()
}

impl Facts {
    /// The input device that the kernel sees for packets from the uplink.
    pub(crate) fn incoming(&self) -> Option<&str> {
        let device = self.uplink_vrf.as_ref().or(self.uplink.as_ref())?;
        Some(device.value.name.as_str())
    }

    /// The table with the uplink's routes.
    pub(crate) fn uplink_table(&self) -> u32 {
        let table = self.uplink_vrf.as_ref().and_then(|vrf| vrf.value.vrf_table);
        table.unwrap_or(MAIN_TABLE)
    }
}
