//! A system made of sets and maps: every operation has its effect on it, so that "state after equals state before"
//! can be checked for every plan and every place of failure in milliseconds.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use clatd_stages::apply::{OpError, System};
use clatd_stages::fixed_world::FixedWorld;
use clatd_stages::journal::Outcome;
use clatd_stages::op::{NewNftTable, NewTun, NftTableDeletion, OnDevices, Op, SysctlRelease};

/// What the model holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelState {
    /// Devices of ours.
    pub devices: BTreeSet<String>,
    /// (device, object): goes with the device; the empty device is nobody's.
    pub objects: BTreeSet<(String, String)>,
    /// Sysctls.
    pub sysctls: BTreeMap<String, String>,
}

/// When an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Never.
    None,
    /// At the n-th call, before it had its effect.
    Before(usize),
    /// At the n-th call, after it had its effect.
    After(usize),
}

/// The system.
#[derive(Debug, Clone)]
pub struct Model {
    /// Its state.
    pub state: ModelState,
    /// Where it fails.
    pub fault: Fault,
    /// All calls, as text.
    pub calls: Vec<String>,
}

impl Model {
    /// The system that a world shows.
    pub fn of(world: &FixedWorld) -> Self {
        let mut state = ModelState {
            sysctls: world.sysctls.clone(),
            ..ModelState::default()
        };
        for route in world.routes4.values().flatten() {
            state.objects.insert((String::new(), format!("route {route}")));
        }
        Self {
            state,
            fault: Fault::None,
            calls: Vec::new(),
        }
    }

    fn add(&mut self, device: &str, object: String) {
        self.state.objects.insert((self.owner(device), object));
    }

    fn remove(&mut self, device: &str, object: String) {
        self.state.objects.remove(&(self.owner(device), object));
    }

    /// Objects on devices that are not ours do not go with them.
    fn owner(&self, device: &str) -> String {
        if self.state.devices.contains(device) {
            device.to_owned()
        } else {
            String::new()
        }
    }

    /// Writing all/forwarding resets every device, as the kernel does.
    fn write_sysctl(&mut self, key: &str, value: &str) {
        self.state.sysctls.insert(key.to_owned(), value.to_owned());
        if key == "net/ipv6/conf/all/forwarding" {
            for (_, of_device) in self
                .state
                .sysctls
                .iter_mut()
                .filter(|(key, _)| key.ends_with("/forwarding"))
            {
                value.clone_into(of_device);
            }
        }
    }

    /// Writes a sysctl of those devices where it has the value `from`.
    fn exchange(&mut self, on: &OnDevices, from: &str, to: &str) {
        for key in on.keys() {
            if let Some(value) = self.state.sysctls.get_mut(&key)
                && value == from
            {
                to.clone_into(value);
            }
        }
    }

    fn have_effect(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::CreateTun(NewTun { device, .. }) => {
                if !self.state.devices.insert(device.clone()) {
                    return Err(format!("{device} exists"));
                }
            }
            Op::DeleteTun { device, .. } => {
                self.state.devices.remove(device);
                self.state.objects.retain(|(owner, _)| owner != device);
            }
            Op::SetLinkUp { device, mtu } => self.add(device, format!("up, MTU {mtu}")),
            Op::AddAddress { device, address } => self.add(device, format!("address {address}")),
            Op::RemoveAddress { device, address } => self.remove(device, format!("address {address}")),
            Op::SetDeviceSysctl { key, value } => {
                let device = key.split('/').nth(3).unwrap_or_default().to_owned();
                if self.state.sysctls.contains_key(key) {
                    self.state.sysctls.insert(key.clone(), value.clone());
                } else {
                    self.add(&device, format!("{key}={value}"));
                }
            }
            Op::HoldSysctl { key, value, before } => {
                if self.state.sysctls.get(key) != Some(before) {
                    return Err(format!("{key} is not {before}"));
                }
                self.write_sysctl(key, value);
            }
            Op::ReleaseSysctl(SysctlRelease {
                key,
                value,
                before,
                give_back,
            }) => {
                if self.state.sysctls.get(key) == Some(value) {
                    self.write_sysctl(key, before);
                    self.state.sysctls.extend(give_back.clone());
                }
            }
            Op::HoldOnDevices(on) => self.exchange(on, &on.before, &on.value),
            Op::ReleaseOnDevices(on) => self.exchange(on, &on.value, &on.before),
            Op::AddProxyNeighbour { device, address } => self.add(device, format!("proxy {address}")),
            Op::RemoveProxyNeighbour { device, address } => self.remove(device, format!("proxy {address}")),
            Op::JoinAnycast { device, address } => self.add(device, format!("anycast {address}")),
            Op::LeaveAnycast { device, address } => self.remove(device, format!("anycast {address}")),
            Op::AddRoute { route } => {
                let device = route.device.clone().unwrap_or_default();
                self.add(&device, format!("route {route}"));
            }
            Op::RemoveRoute { route } => {
                let device = route.device.clone().unwrap_or_default();
                self.remove(&device, format!("route {route}"));
            }
            Op::HoldLocalRule {} => self.add("", "local rule at 1".into()),
            Op::ReleaseLocalRule {} => self.remove("", "local rule at 1".into()),
            Op::AddRule { rule } => self.add("", format!("rule {rule}")),
            Op::RemoveRule { rule } => self.remove("", format!("rule {rule}")),
            Op::InsertNftRule { rule, .. } => self.add("", format!("nft {rule}")),
            Op::RemoveNftRule { rule, .. } => self.remove("", format!("nft {rule}")),
            Op::CreateNftTable(NewNftTable { family, table, .. }) => {
                self.add("", format!("nft table {family} {table}"))
            }
            Op::DeleteNftTable(NftTableDeletion { family, table, .. }) => {
                self.remove("", format!("nft table {family} {table}"))
            }
            Op::InsertIp6tables { chain, rule, .. } => self.add("", format!("ip6tables {chain} {rule:?}")),
            Op::DeleteIp6tables { chain, rule, .. } => self.remove("", format!("ip6tables {chain} {rule:?}")),
            // A file that the user named is kept, so it is no part of the state that must come back.
            Op::WriteFile { path, .. } if path.starts_with("/run/") => self.add("", format!("file {path}")),
            Op::RemoveFile { path } => self.remove("", format!("file {path}")),
            Op::WriteFile { .. } | Op::RunScript(_) | Op::Nothing { .. } => {}
            Op::StartTranslator { translator } => self.add("", format!("translator {}", translator.device())),
            Op::StopTranslator { device } => self.remove("", format!("translator {device}")),
            Op::AttachFastPath { fast_path } => self.add("", format!("fast path {}", fast_path.device())),
            Op::DetachFastPath { device, .. } => self.remove("", format!("fast path {device}")),
            Op::SetNextHop { device, gateway, .. } => self.add(device, format!("next hop {gateway:?}")),
        }
        Ok(())
    }
}

#[async_trait]
impl System for Model {
    async fn apply(&mut self, op: &Op, _outcome: Option<&Outcome>) -> Result<Outcome, OpError> {
        let call = self.calls.len();
        self.calls.push(op.to_string());
        if self.fault == Fault::Before(call) {
            return Err(OpError::new(op, "fault injected before it had an effect"));
        }
        self.have_effect(op).map_err(|cause| OpError::new(op, cause))?;
        if self.fault == Fault::After(call) {
            return Err(OpError::new(op, "fault injected after it had its effect"));
        }
        Ok(Outcome::NOTHING)
    }
}
