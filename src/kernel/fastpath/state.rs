//! The instances that take the fast path, and the uplinks that they share.

use std::collections::{BTreeMap, BTreeSet};

use aya::programs::ProgramError;
use aya::programs::tc::SchedClassifierLink;
use clatd_stages::fast_path::FastPathSpec;

use super::super::failure::Failure;
use super::attached::attach;
use super::counted::Counted;
use super::layout::NextHop;
use super::programs::{Devices, LoadError, Program, Programs};
use crate::report::chain;

/// All of it.
#[derive(Default)]
pub(super) struct State {
    programs: Option<Result<Box<Programs>, String>>,
    /// By CLAT device.
    pub(super) instances: BTreeMap<String, Instance>,
    /// By index.
    uplinks: BTreeMap<u32, Uplink>,
    /// Why the programs could not be attached to a device; by its index, as another one may have its name later.
    pub(super) refusals: BTreeMap<u32, String>,
}

/// One instance.
pub(super) struct Instance {
    devices: Devices,
    spec: FastPathSpec,
    next_hop: Option<NextHop>,
    _links: [SchedClassifierLink; 2],
}

struct Uplink {
    /// None = somebody took it off.
    link: Option<SchedClassifierLink>,
    users: BTreeSet<String>,
    made_clsact: bool,
}

impl State {
    /// The programs, loaded at the first call.
    pub(super) fn programs(&mut self) -> Result<&mut Programs, String> {
        let load = || Programs::load().map(Box::new).map_err(|error| refusal(&error));
        match self.programs.get_or_insert_with(load) {
            Ok(programs) => Ok(programs),
            Err(why) => Err(why.clone()),
        }
    }

    pub(super) fn attach(
        &mut self,
        devices: Devices,
        spec: &FastPathSpec,
        next_hop: Option<NextHop>,
    ) -> Result<(), Failure> {
        let programs = self.programs().map_err(Failure::new)?;
        programs.enter(devices, spec, next_hop)?;
        let attached = self.attach_entered(devices, spec, next_hop);
        if attached.is_err() {
            self.leave_uplink(devices.uplink, spec.device());
            if let Ok(programs) = self.programs() {
                programs.forget(devices, spec);
            }
        }
        attached
    }

    fn attach_entered(
        &mut self,
        devices: Devices,
        spec: &FastPathSpec,
        next_hop: Option<NextHop>,
    ) -> Result<(), Failure> {
        let (device, attachment) = (spec.device(), spec.way.attachment);
        let programs = self.programs().map_err(Failure::new)?;
        let links = [
            attach(programs, Program::Out, device, attachment)?,
            attach(programs, Program::Back, device, attachment)?,
        ];
        if self
            .uplinks
            .get(&devices.uplink)
            .is_none_or(|uplink| uplink.link.is_none())
        {
            let programs = self.programs().map_err(Failure::new)?;
            let link = attach(programs, Program::In, &spec.uplink, attachment)?;
            self.uplink(devices.uplink).link = Some(link);
        }
        self.uplink(devices.uplink).users.insert(device.to_owned());
        self.programs().map_err(Failure::new)?.take_in(devices, spec)?;
        let instance = Instance {
            devices,
            spec: spec.clone(),
            next_hop,
            _links: links,
        };
        self.instances.insert(device.to_owned(), instance);
        Ok(())
    }

    fn uplink(&mut self, index: u32) -> &mut Uplink {
        self.uplinks.entry(index).or_insert_with(|| Uplink {
            link: None,
            users: BTreeSet::new(),
            made_clsact: false,
        })
    }

    /// Returns the next hop that an instance had.
    pub(super) fn detach(&mut self, device: &str) -> Option<NextHop> {
        let instance = self.instances.remove(device)?;
        self.leave_uplink(instance.devices.uplink, device);
        if let Ok(programs) = self.programs() {
            programs.forget(instance.devices, &instance.spec);
        }
        instance.next_hop
    }

    /// The program of an uplink goes with its last user.
    fn leave_uplink(&mut self, index: u32, user: &str) {
        if let Some(uplink) = self.uplinks.get_mut(&index) {
            uplink.users.remove(user);
            if uplink.users.is_empty() {
                self.uplinks.remove(&index);
            }
        }
    }

    pub(super) fn is_in_use(&self, uplink: u32) -> bool {
        self.uplinks.contains_key(&uplink)
    }

    /// Remembers that clsact was made on an uplink, now or for an earlier instance.
    pub(super) fn made_clsact(&mut self, uplink: u32, made: bool) -> bool {
        let uplink = self.uplink(uplink);
        uplink.made_clsact |= made;
        uplink.made_clsact
    }

    pub(super) fn set_next_hop(&mut self, device: &str, next_hop: NextHop) -> Result<(), Failure> {
        let Self {
            programs, instances, ..
        } = self;
        let (Some(Ok(programs)), Some(instance)) = (programs, instances.get_mut(device)) else {
            return Err(Failure::new(format!("there is no fast path for {device}")));
        };
        programs.set(instance.devices, &instance.spec, Some(next_hop))?;
        instance.next_hop = Some(next_hop);
        Ok(())
    }

    /// The kernel's numbers of the programs, if this instance has them on these devices.
    pub(super) fn numbers(&mut self, device: &str, clat: u32, uplink: u32) -> Result<Option<[u32; 3]>, ProgramError> {
        let devices = self.instances.get(device).map(|instance| instance.devices);
        if devices.map(|devices| (devices.clat, devices.uplink)) != Some((clat, uplink)) {
            return Ok(None);
        }
        match &mut self.programs {
            Some(Ok(programs)) => {
                let [out, back, into] = Program::ALL;
                Ok(Some([programs.id(out)?, programs.id(back)?, programs.id(into)?]))
            }
            Some(Err(_)) | None => Ok(None),
        }
    }

    /// Somebody took a program off: the one of an uplink, which instances share, is attached anew by the first of them.
    pub(super) fn lost(&mut self, program: Program, uplink: u32) {
        if let (Program::In, Some(uplink)) = (program, self.uplinks.get_mut(&uplink)) {
            uplink.link = None;
        }
    }

    pub(super) fn counted(&self, device: &str) -> Option<Counted> {
        let clat = self.instances.get(device)?.devices.clat;
        match &self.programs {
            Some(Ok(programs)) => programs.counted(clat),
            Some(Err(_)) | None => None,
        }
    }
}

/// In one line, for people.
fn refusal(error: &LoadError) -> String {
    let why = chain(error);
    if let LoadError::Program { source, .. } = error
        && source.kind() == std::io::ErrorKind::PermissionDenied
    {
        return format!("{why} (it takes CAP_BPF and CAP_NET_ADMIN)");
    }
    why
}
