//! Sysctls: of our own device, and holds on those that belong to no single instance.

use std::borrow::Cow;
use std::collections::BTreeMap;

use clatd_stages::journal::{Left, Outcome};
use clatd_stages::op::{OnDevices, SysctlRelease};
use clatd_stages::world::WorldError;

use super::super::Kernel;
use super::super::failure::{Failure, NOTHING, OpResult};
use super::super::netlink::{Netlink, NetlinkError};
use super::super::sysctl::{self, Holds, device_of, of_device};
use super::{Look, Nature, Operation, UNDOING, failed, link};

pub(super) enum Change<'a> {
    Set {
        key: &'a str,
        value: &'a str,
    },
    Hold {
        key: &'a str,
        value: &'a str,
        before: &'a str,
    },
    Release(&'a SysctlRelease),
    HoldOn(&'a OnDevices),
    ReleaseOn(&'a OnDevices),
}

impl<'a> Operation<'a> for Change<'a> {
    fn nature(&self) -> Nature {
        // A sysctl has no room for a label, so no sweep finds a hold.
        let held = Nature {
            untold: true,
            atomic: false,
            swept: false,
            outlives_device: false,
        };
        match self {
            Self::Set { .. } | Self::Hold { .. } => held,
            Self::HoldOn(_) => Nature { atomic: true, ..held },
            Self::Release(_) | Self::ReleaseOn(_) => Nature {
                atomic: false,
                ..UNDOING
            },
        }
    }

    fn device(&mut self) -> Option<&mut &'a str> {
        match self {
            // It goes with the device.
            Self::Set { .. } => None,
            // They record it by themselves: a hold is on a device, whoever took it first.
            Self::Hold { .. } | Self::Release(_) | Self::HoldOn(_) | Self::ReleaseOn(_) => None,
        }
    }

    async fn carry_out(&self, kernel: &mut Kernel, outcome: Option<&Outcome>) -> OpResult {
        let (holds, holder) = (&kernel.holds, &kernel.instance);
        let holder = holder.clone();
        match self {
            Self::Set { key, value } => {
                if let Some((device, mode)) = addr_gen_mode(key, value) {
                    return set_addr_gen_mode(&kernel.netlink, device, mode).await;
                }
                let (key, value) = ((*key).to_owned(), (*value).to_owned());
                holds.change(move |_| sysctl::set(&key, &value)).await
            }
            Self::Hold { key, value, before } => {
                let [key, value, before] = [key, value, before].map(|text| (*text).to_owned());
                let acquire = move |holds: &Holds| holds.acquire(&holder, &key, &value, &before);
                holds.change(acquire).await
            }
            Self::Release(release) => release_by_index(kernel, release, outcome).await,
            Self::HoldOn(on) => {
                let on = (*on).clone();
                holds.change(move |holds| holds.acquire_on(&holder, &on)).await
            }
            Self::ReleaseOn(on) => {
                let (on, outcome) = ((*on).clone(), outcome.cloned());
                let release = move |holds: &Holds| holds.release_on(&holder, &on, outcome.as_ref());
                holds.change(release).await
            }
        }
    }

    async fn stands(&self, look: &mut Look<'_>) -> Result<bool, WorldError> {
        match self {
            Self::Set { key, value } | Self::Hold { key, value, .. } => {
                if let Some((device, mode)) = addr_gen_mode(key, value) {
                    let Some(link) = look.link(device).await? else {
                        return Ok(true);
                    };
                    let now = look.netlink.addr_gen_mode(link.index).await;
                    return Ok(now.map_err(|error| failed(key, error))?.is_none_or(|now| now == mode));
                }
                let now = sysctl::read(key).map_err(|error| failed(key, error))?;
                Ok(now.is_none_or(|now| now == *value))
            }
            Self::HoldOn(on) => {
                let stands = look.holds.stand_on(look.holder, on);
                stands.map_err(|error| failed(&on.name, error))
            }
            Self::Release(_) | Self::ReleaseOn(_) => Ok(true),
        }
    }
}

/// The device and the value, if it is this sysctl of a device.
fn addr_gen_mode<'a>(key: &'a str, value: &str) -> Option<(&'a str, u8)> {
    let device = device_of(key)?;
    (key == clatd_stages::sysctl::key(device, "addr_gen_mode")).then_some((device, value.parse().ok()?))
}

async fn set_addr_gen_mode(netlink: &Netlink, device: &str, mode: u8) -> OpResult {
    let hint = "the device is gone, or has no IPv6";
    let index = link(netlink, device).await.map_err(|failure| failure.hint(hint))?.index;
    let set = netlink.set_addr_gen_mode(index, mode).await;
    set.map_err(|error| Failure::new(error).hint(hint))?;
    Ok(NOTHING)
}

/// Gives a hold back under the present names of devices.
async fn release_by_index(kernel: &Kernel, release: &SysctlRelease, outcome: Option<&Outcome>) -> OpResult {
    let (netlink, holder) = (&kernel.netlink, &kernel.instance);
    let give_back = match outcome.map(|outcome| &outcome.left) {
        Some(Left::Hold { devices, .. }) if !devices.is_empty() => {
            Cow::Owned(called_now(netlink, &release.give_back, devices).await?)
        }
        Some(_) | None => Cow::Borrowed(&release.give_back),
    };
    let key = match (device_of(&release.key), outcome.and_then(|outcome| outcome.device)) {
        (Some(_), Some(index)) => match netlink.name(index).await? {
            Some(now) => of_device(&release.key, &now),
            None => {
                kernel.holds.forget(holder, &release.key, index);
                return Ok(NOTHING);
            }
        },
        (None, _) | (_, None) => release.key.clone(),
    };
    let release = SysctlRelease {
        key,
        value: release.value.clone(),
        before: release.before.clone(),
        give_back: give_back.into_owned(),
    };
    let (holder, outcome) = (holder.clone(), outcome.cloned());
    let release = move |holds: &Holds| holds.release(&holder, &release, outcome.as_ref());
    kernel.holds.change(release).await
}

/// Sysctls of many devices under the present names of those devices. Those that are gone are left out.
async fn called_now(
    netlink: &Netlink,
    sysctls: &BTreeMap<String, String>,
    devices: &BTreeMap<String, u32>,
) -> Result<BTreeMap<String, String>, NetlinkError> {
    let mut now = BTreeMap::new();
    for (key, value) in sysctls {
        let key = match device_of(key).and_then(|device| devices.get(device)) {
            None => Some(key.clone()),
            Some(index) => netlink.name(*index).await?.map(|name| of_device(key, &name)),
        };
        now.extend(key.map(|key| (key, value.clone())));
    }
    Ok(now)
}
