//! Devices going up, and their addresses.

use clatd_stages::journal::Outcome;
use clatd_stages::net::Link;
use ipnet::IpNet;

use super::failure::{Done, Failure, NOTHING, changed_nothing, existed};
use super::netlink::Netlink;

pub(crate) async fn set_up(netlink: &Netlink, device: &str, mtu: u32) -> Done {
    let link = link(netlink, device).await?;
    netlink.set_link_up(link.index, mtu).await?;
    Ok(NOTHING)
}

pub(crate) async fn add(netlink: &Netlink, device: &str, address: IpNet) -> Done {
    let link = link(netlink, device).await?;
    match netlink.add_address(link.index, address).await {
        Ok(()) => Ok(NOTHING),
        Err(error) if error.errno() == libc::EEXIST => {
            if !netlink.has_address(link.index, address).await? {
                return Err(
                    Failure::new(error).hint(format!("{device} has {} with another prefix length", address.addr()))
                );
            }
            Ok(if link.is_clat() { NOTHING } else { existed() })
        }
        Err(error) => Err(error.into()),
    }
}

pub(crate) async fn remove(netlink: &Netlink, device: &str, address: IpNet, outcome: Option<&Outcome>) -> Done {
    if changed_nothing(outcome) {
        return Ok(NOTHING);
    }
    let Some(link) = netlink.link(device).await? else {
        return Ok(NOTHING);
    };
    // The daemon was killed before it wrote the outcome. On another program's device it may be that program's
    // address.
    if outcome.is_none() && !link.is_clat() {
        return Ok(NOTHING);
    }
    match netlink.remove_address(link.index, address).await {
        Err(error) if !matches!(error.errno(), libc::EADDRNOTAVAIL | libc::ENODEV) => Err(error.into()),
        _ => Ok(NOTHING),
    }
}

/// A device that must be there.
pub(crate) async fn link(netlink: &Netlink, device: &str) -> Result<Link, Failure> {
    netlink
        .link(device)
        .await?
        .ok_or_else(|| Failure::new(format!("there is no device {device}")))
}
