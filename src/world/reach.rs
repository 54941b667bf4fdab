//! Who can be reached: neighbours on a link, and how far packets get. Only people or a suspicion cause such a test,
//! never an idle daemon.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use clatd_stages::path::{Hop, Probe};
use clatd_stages::world::WorldError;
use tokio::time::{Instant, sleep};

use super::SystemWorld;
use crate::kernel::Reachability;
use crate::probe::{self, How};

/// How long the kernel may take to notice that a neighbour is gone: 5 s in which it still trusts its entry, and three
/// solicitations (RFC 4861 section 10).
const SURE_AFTER: Duration = Duration::from_secs(9);
const LOOK: Duration = Duration::from_millis(100);
/// The IPv4 neighbours of the namespace.
const ARP_TABLE: &str = "/proc/net/arp";

/// Whether a neighbour answers.
pub(super) async fn hears(world: &SystemWorld, device: &str, neighbour: IpAddr) -> Result<Option<bool>, WorldError> {
    match neighbour {
        IpAddr::V6(address) => hears6(world, device, address).await,
        IpAddr::V4(address) => hears4(device, address).await,
    }
}

pub(super) async fn trace(device: &str, probe: &Probe) -> Result<Vec<Hop>, WorldError> {
    let answers = probe::trace(device, probe).await;
    answers.map_err(|error| WorldError::new(format!("probing {} through {device}", probe.target), error))
}

/// First an echo, which most routers answer; else the kernel's address resolution for that echo.
async fn hears6(world: &SystemWorld, device: &str, neighbour: Ipv6Addr) -> Result<Option<bool>, WorldError> {
    let failed = || format!("asking the neighbour {neighbour} on {device}");
    let begun = Instant::now();
    let echo = probe::answers(device, None, neighbour, How::Echo, 1).await;
    if echo.map_err(|error| WorldError::new(failed(), error))? {
        return Ok(Some(true));
    }
    let Some(index) = world.index(device).await? else {
        return Ok(Some(false));
    };
    loop {
        let entry = world.netlink.neighbour(index, neighbour).await;
        let entry = entry.map_err(|error| WorldError::new(failed(), error))?;
        match entry.map(|entry| entry.says) {
            // The link needs no neighbour entries.
            None => return Ok(None),
            Some(Reachability::Answers) => return Ok(Some(true)),
            Some(Reachability::Failed) => return Ok(Some(false)),
            Some(Reachability::Heard | Reachability::Asked) if begun.elapsed() >= SURE_AFTER => return Ok(Some(false)),
            Some(Reachability::Heard | Reachability::Asked) => sleep(LOOK).await,
        }
    }
}

async fn hears4(device: &str, neighbour: Ipv4Addr) -> Result<Option<bool>, WorldError> {
    let echo = Probe {
        target: neighbour.into(),
        hops: 1..=1,
        length: 0,
    };
    if !trace(device, &echo).await?.is_empty() {
        return Ok(Some(true));
    }
    let table = tokio::fs::read_to_string(ARP_TABLE).await;
    let table = table.map_err(|error| WorldError::new(format!("reading {ARP_TABLE}"), error))?;
    Ok(probe::in_arp_table(&table, device, neighbour))
}
