//! The instances that take the fast path, and the uplinks that they share.

use std::collections::{BTreeMap, BTreeSet};

use aya::programs::tc::SchedClassifierLink;
use clatd_stages::fast_path::{Attachment, FastPathSpec};

use super::super::failure::Failure;
use super::attached::{Links, Own};
use super::counted::Counted;
use super::layout::NextHop;
use super::programs::{Devices, LoadError, Loaded, Programs};
use crate::report::chain;

/// From so many instances on, CLAT devices take filters of clsact.
const MANY: usize = 16;

/// What is loaded, and for whom.
#[derive(Default)]
pub(super) struct Registry {
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
    own: Own,
}

/// The programs of an instance as they should be attached.
pub(super) struct Expected {
    /// The kernel's numbers, in the order of [`Program::ALL`].
    pub(super) numbers: [u32; 3],
    /// How the CLAT device has them.
    pub(super) own: Attachment,
}

/// What was taken off. The programs are off when the links are dropped, which may take its time.
#[derive(Default)]
pub(super) struct Detached {
    /// The next hop that the instance had.
    pub(super) next_hop: Option<NextHop>,
    pub(super) links: Vec<SchedClassifierLink>,
}

struct Uplink {
    /// None = somebody took it off.
    link: Option<SchedClassifierLink>,
    users: BTreeSet<String>,
    made_clsact: bool,
}

impl Registry {
    /// The programs, loaded at the first call.
    pub(super) fn programs(&mut self) -> Result<&mut Programs, String> {
        let load = || Programs::load().map(Box::new).map_err(|error| refusal(&error));
        match self.programs.get_or_insert_with(load) {
            Ok(programs) => Ok(programs),
            Err(why) => Err(why.clone()),
        }
    }

    /// Tells the programs of an instance. Returns them, and whether the uplink lacks its program.
    pub(super) fn enter(
        &mut self,
        devices: Devices,
        spec: &FastPathSpec,
        next_hop: Option<NextHop>,
    ) -> Result<(Loaded, bool), Failure> {
        let programs = self.programs().map_err(Failure::new)?;
        programs.enter(devices, spec, next_hop)?;
        let loaded = programs.loaded();
        let uplink = self.uplinks.get(&devices.uplink);
        Ok((loaded, uplink.is_none_or(|uplink| uplink.link.is_none())))
    }

    /// The programs are attached: an instance that was entered takes its packets from now on. If it cannot, returns the
    /// links to be dropped, too.
    pub(super) fn take_in(
        &mut self,
        devices: Devices,
        spec: &FastPathSpec,
        next_hop: Option<NextHop>,
        links: Links,
    ) -> Result<(), (Failure, Detached)> {
        let device = spec.device();
        let uplink = self.uplink(devices.uplink);
        if links.uplink.is_some() {
            uplink.link = links.uplink;
        }
        uplink.users.insert(device.to_owned());
        let instance = Instance {
            devices,
            spec: spec.clone(),
            next_hop,
            own: links.own,
        };
        self.instances.insert(device.to_owned(), instance);
        let taken = match self.programs() {
            Ok(programs) => programs.take_in(devices, spec).map_err(Failure::from),
            Err(why) => Err(Failure::new(why)),
        };
        taken.map_err(|failure| (failure, self.detach(device)))
    }

    /// The programs could not be attached.
    pub(super) fn give_up(&mut self, devices: Devices, spec: &FastPathSpec) {
        if let Ok(programs) = self.programs() {
            programs.forget(devices, spec);
        }
    }

    fn uplink(&mut self, index: u32) -> &mut Uplink {
        self.uplinks.entry(index).or_insert_with(|| Uplink {
            link: None,
            users: BTreeSet::new(),
            made_clsact: false,
        })
    }

    /// Forgets an instance. The program of an uplink goes with its last user.
    pub(super) fn detach(&mut self, device: &str) -> Detached {
        let Some(instance) = self.instances.remove(device) else {
            return Detached::default();
        };
        if let Ok(programs) = self.programs() {
            programs.forget(instance.devices, &instance.spec);
        }
        let mut links = Vec::from(instance.own.links);
        links.extend(self.leave_uplink(instance.devices.uplink, device));
        Detached {
            next_hop: instance.next_hop,
            links,
        }
    }

    fn leave_uplink(&mut self, index: u32, user: &str) -> Option<SchedClassifierLink> {
        let uplink = self.uplinks.get_mut(&index)?;
        uplink.users.remove(user);
        if !uplink.users.is_empty() {
            return None;
        }
        self.uplinks.remove(&index)?.link
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

    /// Whether it has so many instances that the time which TCX takes for another one counts more than what filters cost
    /// its packets.
    pub(super) fn serves_many(&self) -> bool {
        self.instances.len() >= MANY
    }

    /// What should be attached for this instance, if it has these devices.
    pub(super) fn expected(&self, device: &str, clat: u32, uplink: u32) -> Option<Expected> {
        let instance = self.instances.get(device)?;
        if (instance.devices.clat, instance.devices.uplink) != (clat, uplink) {
            return None;
        }
        let programs = self.programs.as_ref()?.as_ref().ok()?;
        Some(Expected {
            numbers: programs.numbers(),
            own: instance.own.attachment,
        })
    }

    /// Somebody took the program off an uplink, which instances share: the first of them attaches it anew.
    pub(super) fn lost(&mut self, uplink: u32) {
        if let Some(uplink) = self.uplinks.get_mut(&uplink) {
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
