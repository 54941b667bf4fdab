//! Proxy neighbour entries.

use std::net::Ipv6Addr;

use clatd_stages::journal::Outcome;
use clatd_stages::net::ROUTE_PROTOCOL;

use super::addresses::link;
use super::failure::{Done, NOTHING, changed_nothing, existed};
use super::netlink::{Netlink, NetlinkError, ProxyNeighbour};

pub(crate) async fn add(netlink: &Netlink, device: &str, address: Ipv6Addr) -> Done {
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

pub(crate) async fn remove(netlink: &Netlink, device: &str, address: Ipv6Addr, outcome: Option<&Outcome>) -> Done {
    if changed_nothing(outcome) {
        return Ok(NOTHING);
    }
    let Some(link) = netlink.link(device).await? else {
        return Ok(NOTHING);
    };
    let Some(entry) = find(netlink, link.index, address).await? else {
        return Ok(NOTHING);
    };
    // The daemon was killed before it wrote the outcome: only the mark distinguishes our entry from a user's.
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
