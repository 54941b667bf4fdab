//! The flows of instances that share the host's address: `flows_of` of stages/translator/bpf/layout.h, and a map for each.

use std::net::Ipv6Addr;

use aya::maps::{HashOfMaps, MapData, MapError};
use clatd_stages::fast_path::{FastPathSpec, Sharing};
use clatd_stages::settings::Pref64Setting;

use super::layout::{self, FLOW, FLOW_KEY};
use super::programs::Devices;

/// Flows of one instance: about 6 MB of the kernel's memory.
const FLOWS: u32 = 1 << 16;
/// `BPF_MAP_TYPE_LRU_HASH`.
const LRU_HASH: u32 = 9;
/// How many maps of instances that ended are kept. An instance is often attached anew at once, when the network has
/// changed, and its flows go on then.
const KEPT: usize = 8;

/// What makes flows those of an instance, whatever its device is by now.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owner {
    device: String,
    uplink: u32,
    address: Ipv6Addr,
    prefix: Pref64Setting,
}

/// The maps of all instances.
pub(super) struct Flows {
    of: HashOfMaps<MapData, u32, MapData>,
    in_use: Vec<(u32, Owner, MapData)>,
    /// The oldest first.
    kept: Vec<(Owner, MapData)>,
}

impl Flows {
    pub(super) fn new(of: HashOfMaps<MapData, u32, MapData>) -> Self {
        Self {
            of,
            in_use: Vec::new(),
            kept: Vec::new(),
        }
    }

    /// Gives an instance its map, if flows tell its packets from the host's.
    pub(super) fn enter(&mut self, devices: Devices, spec: &FastPathSpec) -> Result<(), MapError> {
        let (Some(Sharing::Flows), Some(shared)) = (spec.shared, layout::shared(spec)) else {
            return Ok(());
        };
        let owner = Owner {
            device: spec.device().to_owned(),
            uplink: devices.uplink,
            address: shared.v6.addr(),
            prefix: spec.translation.plat_prefix,
        };
        let map = match self.kept.iter().position(|(kept, _)| *kept == owner) {
            Some(place) => self.kept.remove(place).1,
            None => make()?,
        };
        self.of.insert(devices.clat, &map, 0)?;
        self.in_use.push((devices.clat, owner, map));
        Ok(())
    }

    /// Makes all flows older, as if there had been no packet for so many seconds.
    #[cfg(feature = "testing")]
    pub(super) fn age(&self, seconds: u32) -> Result<(), MapError> {
        for (_, _, map) in &self.in_use {
            let mut flows = entries(map)?;
            for entry in flows.iter().collect::<Result<Vec<_>, _>>()? {
                let (key, [port, seen]) = entry;
                flows.insert(key, [port, seen.wrapping_sub(seconds)], 0)?;
            }
        }
        Ok(())
    }

    /// Forgets all flows, as if others had driven them out.
    #[cfg(feature = "testing")]
    pub(super) fn drive_out(&self) -> Result<(), MapError> {
        for (_, _, map) in &self.in_use {
            let mut flows = entries(map)?;
            for key in flows.keys().collect::<Result<Vec<_>, _>>()? {
                flows.remove(&key)?;
            }
        }
        Ok(())
    }

    /// Takes it away; what is not there is no error.
    pub(super) fn forget(&mut self, clat: u32) {
        let Some(place) = self.in_use.iter().position(|(index, _, _)| *index == clat) else {
            return;
        };
        let (_, owner, map) = self.in_use.remove(place);
        _ = self.of.remove(&clat);
        self.kept.push((owner, map));
        let oldest = self.kept.len().saturating_sub(KEPT);
        self.kept.drain(..oldest);
    }
}

fn make() -> Result<MapData, MapError> {
    let map = aya_obj::Map::new_from_params(LRU_HASH, FLOW_KEY, FLOW, FLOWS, 0);
    MapData::create(map, "flows", None)
}

/// The entries of a map: keys, and values in two parts, of which the second one is the time.
#[cfg(feature = "testing")]
fn entries(map: &MapData) -> Result<aya::maps::HashMap<MapData, [u8; FLOW_KEY as usize], [u32; 2]>, MapError> {
    aya::maps::Map::LruHashMap(MapData::from_id(map.info()?.id())?).try_into()
}
