//! What makes neighbours send us the packets of an address: proxy neighbour entries and anycast addresses.

use std::net::Ipv6Addr;

use clatd_stages::journal::Outcome;
use clatd_stages::net::ROUTE_PROTOCOL;
use clatd_stages::world::WorldError;

use super::super::failure::{Failure, NOTHING, OpResult, changed_nothing, existed};
use super::super::netlink::{Netlink, NetlinkError, ProxyNeighbour};
use super::super::{Kernel, anycast};
use super::{Look, Nature, Operation, Sweep, UNDOING, failed, link};

pub(super) enum Change<'a> {
    AddProxy(&'a str, Ipv6Addr),
    RemoveProxy(&'a str, Ipv6Addr),
    JoinAnycast(&'a str, Ipv6Addr),
    LeaveAnycast(&'a str, Ipv6Addr),
}

impl<'a> Operation<'a> for Change<'a> {
    fn nature(&self) -> Nature {
        match self {
            Self::AddProxy(..) => Nature {
                untold: true,
                atomic: true,
                swept: true,
                outlives_device: false,
            },
            Self::JoinAnycast(..) => Nature {
                untold: false,
                atomic: true,
                swept: false,
                outlives_device: false,
            },
            Self::RemoveProxy(..) | Self::LeaveAnycast(..) => UNDOING,
        }
    }

    fn device(&mut self) -> Option<&mut &'a str> {
        match self {
            Self::AddProxy(device, _) | Self::RemoveProxy(device, _) => Some(device),
            // The socket that joined the address is found by the name that the device had.
            Self::JoinAnycast(..) | Self::LeaveAnycast(..) => None,
        }
    }

    async fn carry_out(&self, kernel: &mut Kernel, outcome: Option<&Outcome>) -> OpResult {
        let netlink = &kernel.netlink;
        match *self {
            Self::AddProxy(device, address) => add(netlink, device, address).await,
            Self::RemoveProxy(device, address) => remove(netlink, device, address, outcome).await,
            Self::JoinAnycast(device, address) => kernel.anycast.join(netlink, device, address).await,
            Self::LeaveAnycast(device, address) => kernel.anycast.leave(device, address),
        }
    }

    async fn stands(&self, look: &mut Look<'_>) -> Result<bool, WorldError> {
        let (Self::AddProxy(device, address)
        | Self::RemoveProxy(device, address)
        | Self::JoinAnycast(device, address)
        | Self::LeaveAnycast(device, address)) = *self;
        let Some(link) = look.link(device).await? else {
            return Ok(true);
        };
        match self {
            Self::AddProxy(..) => {
                let is_it = |entry: &ProxyNeighbour| entry.index == link.index && entry.address == address;
                Ok(look.proxies().await?.iter().any(is_it))
            }
            Self::JoinAnycast(..) => anycast::stands(look.netlink, link.index, address)
                .await
                .map_err(|failure| failed("an anycast address", failure.into_source())),
            Self::RemoveProxy(..) | Self::LeaveAnycast(..) => Ok(true),
        }
    }
}

/// Removes proxy neighbour entries with our protocol number. Anycast addresses go with the daemon.
pub(super) async fn sweep(sweep: &mut Sweep<'_>) -> Result<(), Failure> {
    let netlink = sweep.netlink.clone();
    let entries = netlink.proxy_neighbours().await?;
    for entry in entries.into_iter().filter(|entry| entry.protocol == ROUTE_PROTOCOL) {
        let what = format!("stop answering neighbour solicitations for {}", entry.address);
        let removed = async { Ok(netlink.delete_proxy_neighbour(entry.index, entry.address).await?) };
        sweep.remove(what, removed).await;
    }
    Ok(())
}

async fn add(netlink: &Netlink, device: &str, address: Ipv6Addr) -> OpResult {
    let link = link(netlink, device).await?;
    // The kernel would silently make a user's entry ours.
    if let Some(entry) = find(netlink, link.index, address).await? {
        return Ok(if entry.protocol == ROUTE_PROTOCOL {
            NOTHING
        } else {
            existed()
        });
    }
    netlink.add_proxy_neighbour(link.index, address).await?;
    Ok(NOTHING)
}

async fn remove(netlink: &Netlink, device: &str, address: Ipv6Addr, outcome: Option<&Outcome>) -> OpResult {
    if changed_nothing(outcome) {
        return Ok(NOTHING);
    }
    let Some(link) = netlink.link(device).await? else {
        return Ok(NOTHING);
    };
    let Some(entry) = find(netlink, link.index, address).await? else {
        return Ok(NOTHING);
    };
    // The daemon was killed before it wrote the outcome: only the label distinguishes our entry from a user's.
    if outcome.is_none() && entry.protocol != ROUTE_PROTOCOL {
        return Ok(NOTHING);
    }
    match netlink.delete_proxy_neighbour(link.index, address).await {
        Err(error) if !matches!(error.errno(), libc::ENOENT | libc::ENODEV) => Err(error.into()),
        _ => Ok(NOTHING),
    }
}

async fn find(netlink: &Netlink, index: u32, address: Ipv6Addr) -> Result<Option<ProxyNeighbour>, NetlinkError> {
    let entries = netlink.proxy_neighbours().await?;
    Ok(entries
        .into_iter()
        .find(|entry| entry.index == index && entry.address == address))
}
