//! The instances that take the fast path, and the uplinks that they share.

use std::collections::{BTreeMap, BTreeSet};

use clatd_stages::fast_path::{Attachment, FastPathSpec};
use nix::net::if_::if_indextoname;

use super::super::failure::Failure;
use super::counted::Counted;
use super::hooked::{Hooked, Links};
use super::layout::NextHop;
use super::programs::{Devices, LoadError, Loaded, Program, Programs};
use crate::report::chain;

/// TCX is used for this many uplinks, and for the CLAT devices of this many instances. The others have filters of
/// clsact.
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
    /// Uplinks that have TCX, or were told that they will; by index.
    by_tcx: BTreeSet<u32>,
}

/// One instance.
pub(super) struct Instance {
    devices: Devices,
    spec: FastPathSpec,
    next_hop: Option<NextHop>,
    own: [Hooked; 2],
}

/// The programs of an instance as they should be attached.
pub(super) struct Expected {
    /// The programs.
    pub(super) loaded: Loaded,
    /// How the two programs of the CLAT device are attached.
    pub(super) own: Attachment,
    /// How the one program of the uplink is attached; `None` = somebody detached it.
    pub(super) uplink: Option<Attachment>,
}

/// What an instance had, whose programs are to be taken off.
#[derive(Default)]
pub(super) struct Detached {
    /// The next hop that the instance had.
    pub(super) next_hop: Option<NextHop>,
    pub(super) hooked: Vec<Hooked>,
    /// An uplink that it was the last to use, and on which clsact was made.
    pub(super) made_clsact: Option<u32>,
}

#[derive(Default)]
struct Uplink {
    /// None = somebody took it off.
    hooked: Option<Hooked>,
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

    /// The kernel's number of the program for uplinks; `None` = it is not loaded.
    pub(super) fn number_at_uplinks(&self) -> Option<u32> {
        let programs = self.programs.as_ref()?.as_ref().ok()?;
        Some(programs.loaded().number(Program::In))
    }

    /// Tells the programs about an instance. Returns the programs, and whether the uplink lacks its program.
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
        Ok((loaded, uplink.is_none_or(|uplink| uplink.hooked.is_none())))
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
        if spec.placement.attachment == Attachment::Tcx {
            self.by_tcx.insert(devices.uplink);
        }
        let uplink = self.uplinks.entry(devices.uplink).or_default();
        if let Some(hooked) = links.uplink {
            // clsact may have been made for this instance or an earlier one. The last one on this uplink removes it.
            uplink.made_clsact |= hooked.made_clsact();
            uplink.hooked = Some(hooked);
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

    /// Forgets an instance. The program of an uplink goes with its last user.
    pub(super) fn detach(&mut self, device: &str) -> Detached {
        let Some(instance) = self.instances.remove(device) else {
            return Detached::default();
        };
        if let Ok(programs) = self.programs() {
            programs.forget(instance.devices, &instance.spec);
        }
        let mut detached = Detached {
            next_hop: instance.next_hop,
            hooked: Vec::from(instance.own),
            made_clsact: None,
        };
        let index = instance.devices.uplink;
        if let Some(uplink) = self.leave_uplink(index, device) {
            detached.made_clsact = uplink.made_clsact.then_some(index);
            detached.hooked.extend(uplink.hooked);
        }
        detached
    }

    /// Returns what the last user leaves.
    fn leave_uplink(&mut self, index: u32, user: &str) -> Option<Uplink> {
        let uplink = self.uplinks.get_mut(&index)?;
        uplink.users.remove(user);
        if !uplink.users.is_empty() {
            return None;
        }
        self.by_tcx.remove(&index);
        self.uplinks.remove(&index)
    }

    pub(super) fn is_in_use(&self, uplink: u32) -> bool {
        self.uplinks.contains_key(&uplink)
    }

    /// What an uplink has of clsact: whether that was made, now or for an earlier instance, and the number of the program.
    /// None = it has no filter.
    pub(super) fn clsact(&mut self, uplink: u32, made: bool) -> Option<(bool, u32)> {
        let uplink = self.uplinks.get_mut(&uplink)?;
        uplink.made_clsact |= made;
        let hooked = uplink.hooked.as_ref()?;
        match hooked.attachment() {
            Attachment::Tcx => None,
            Attachment::Clsact => Some((uplink.made_clsact, hooked.number())),
        }
    }

    /// How an uplink takes its program, where the kernel has TCX. It stays so while the uplink has its program.
    pub(super) fn attachment(&mut self, uplink: u32) -> Attachment {
        let Self { uplinks, by_tcx, .. } = self;
        if by_tcx.len() >= MANY {
            by_tcx.retain(|&index| uplinks.contains_key(&index) || if_indextoname(index).is_ok());
        }
        let is_free = by_tcx.len() < MANY && !uplinks.contains_key(&uplink);
        if is_free || by_tcx.contains(&uplink) {
            by_tcx.insert(uplink);
            return Attachment::Tcx;
        }
        Attachment::Clsact
    }

    /// The programs could not be attached to an uplink: it is not tried again.
    pub(super) fn refuse(&mut self, uplink: u32, why: String) {
        if !self.uplinks.contains_key(&uplink) {
            self.by_tcx.remove(&uplink);
        }
        self.refusals.insert(uplink, why);
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

    /// Whether there are so many instances that another one gets filters: TCX is faster for packets, but attaching it
    /// would take too long.
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
        let [out, _] = &instance.own;
        let on_uplink = self.uplinks.get(&uplink)?.hooked.as_ref();
        Some(Expected {
            loaded: programs.loaded(),
            own: out.attachment(),
            uplink: on_uplink.map(Hooked::attachment),
        })
    }

    /// Somebody took the program off an uplink, which instances share: the first of them attaches it anew.
    pub(super) fn lost(&mut self, uplink: u32) -> Option<Hooked> {
        self.uplinks.get_mut(&uplink)?.hooked.take()
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
