//! Addresses of devices.

use clatd_stages::journal::Outcome;
use clatd_stages::world::WorldError;
use ipnet::IpNet;

use super::super::Kernel;
use super::super::failure::{Failure, NOTHING, OpResult, changed_nothing, existed};
use super::super::netlink::Netlink;
use super::{Look, Nature, Operation, UNDOING, failed, link};

pub(super) enum Change<'a> {
    Add(&'a str, IpNet),
    Remove(&'a str, IpNet),
}

impl<'a> Operation<'a> for Change<'a> {
    fn nature(&self) -> Nature {
        match self {
            Self::Add(..) => Nature {
                untold: false,
                atomic: true,
                swept: false,
                outlives_device: false,
            },
            Self::Remove(..) => UNDOING,
        }
    }

    fn device(&mut self) -> Option<&mut &'a str> {
        match self {
            Self::Add(device, _) | Self::Remove(device, _) => Some(device),
        }
    }

    async fn carry_out(&self, kernel: &mut Kernel, outcome: Option<&Outcome>) -> OpResult {
        match *self {
            Self::Add(device, address) => add(&kernel.netlink, device, address).await,
            Self::Remove(device, address) => remove(&kernel.netlink, device, address, outcome).await,
        }
    }

    async fn stands(&self, look: &mut Look<'_>) -> Result<bool, WorldError> {
        match *self {
            Self::Add(device, address) => match look.link(device).await? {
                Some(link) => {
                    let found = look.netlink.has_address(link.index, address).await;
                    found.map_err(|error| failed("an address", error))
                }
                None => Ok(true),
            },
            Self::Remove(..) => Ok(true),
        }
    }
}

async fn add(netlink: &Netlink, device: &str, address: IpNet) -> OpResult {
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

async fn remove(netlink: &Netlink, device: &str, address: IpNet, outcome: Option<&Outcome>) -> OpResult {
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
