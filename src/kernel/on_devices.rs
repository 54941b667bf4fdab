//! Holds on one IPv6 sysctl of several devices at once: one step, however many devices a host has.

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;

use clatd_stages::journal::{Left, Outcome};
use clatd_stages::op::{OnDevices, SysctlRelease};
use clatd_stages::sysctl::key;
use nix::net::if_::if_indextoname;

use super::failure::{Failure, NOTHING, OpResult};
use super::sysctl::{Holds, SysctlId, read};
use crate::sys::device::index;

impl Holds {
    /// Adds a holder on each device that has the value from before. All of them or, where it fails, none. Part of a
    /// [`Self::change`].
    pub(crate) fn acquire_on(&self, holder: &str, on: &OnDevices) -> OpResult {
        let socket = UnixDatagram::unbound()?;
        let mut held = BTreeMap::new();
        for device in on.devices.iter() {
            let index = index(&socket, device).ok();
            match self.acquire_one(holder, device, index, on) {
                Ok(true) => _ = held.insert(device.clone(), index),
                Ok(false) => {}
                Err(failure) => {
                    self.release_on(holder, on, Some(&Left::Holds(held.into()).into()))?;
                    return Err(failure);
                }
            }
        }
        Ok(Left::Holds(held.into()).into())
    }

    /// False = the device is gone, or somebody gave it another value since.
    fn acquire_one(&self, holder: &str, device: &str, index: Option<u32>, on: &OnDevices) -> Result<bool, Failure> {
        let Some(index) = index else { return Ok(false) };
        let key = key(device, &on.name);
        let id = SysctlId::of(&key, Some(index));
        let held = self.before_at(&id);
        let is_held = held.is_some();
        let now = match held {
            None => read(&key)?,
            held => held,
        };
        if now.as_ref() != Some(&on.before) {
            return Ok(false);
        }
        // With two hundred uplinks forty thousand of these holds are taken, and all but two hundred this way.
        if is_held && self.share(holder, &id, &on.value) {
            return Ok(true);
        }
        match self.acquire(holder, &key, &on.value, &on.before) {
            Ok(_) => Ok(true),
            // It went between the two.
            Err(_) if read(&key)?.is_none() => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Takes the holder away on each device that it holds, whatever that is called now. Goes on past errors.
    pub(crate) fn release_on(&self, holder: &str, on: &OnDevices, outcome: Option<&Outcome>) -> OpResult {
        let devices: Vec<(&str, Option<u32>)> = match outcome.map(|outcome| &outcome.left) {
            Some(Left::Holds(held)) => held.iter().map(|(name, index)| (name.as_str(), *index)).collect(),
            Some(_) | None => on.devices.iter().map(|device| (device.as_str(), None)).collect(),
        };
        let mut failed = None;
        for (device, index) in devices {
            let id = SysctlId::of(&key(device, &on.name), index);
            if index.is_some() && self.leave_to_others(holder, &id) {
                continue;
            }
            let Some(device) = called_now(device, index) else {
                if let Some(index) = index {
                    self.forget(holder, &key(device, &on.name), index);
                }
                continue;
            };
            let release = SysctlRelease {
                key: key(&device, &on.name),
                value: on.value.clone(),
                before: on.before.clone(),
                give_back: BTreeMap::new(),
            };
            failed = failed.or(self.release(holder, &release, None).err());
        }
        failed.map_or(Ok(NOTHING), Err)
    }

    /// Whether all of them still have the value while it is held. Of those who share holds the first one looks, for all.
    pub(crate) fn stand_on(&self, holder: Option<&str>, on: &OnDevices) -> std::io::Result<bool> {
        let first = on.keys().find_map(|key| self.first_holder(&key));
        if holder.is_some_and(|holder| first.as_deref() != Some(holder)) {
            return Ok(true);
        }
        for key in on.keys() {
            if self.before(&key).is_some() && read(&key)?.is_some_and(|now| now != on.value) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The present name of a device; `None` = it is gone.
fn called_now(name: &str, index: Option<u32>) -> Option<String> {
    match index {
        None => Some(name.to_owned()),
        Some(index) => if_indextoname(index).ok()?.into_string().ok(),
    }
}
