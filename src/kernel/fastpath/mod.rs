//! The fast path: loads the programs of `stages/translator/bpf`, attaches them, and tells them of instances.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::programs::tc::{SchedClassifier, SchedClassifierLink};
use aya::programs::{LinkOrder, ProgramError, TcAttachType};
use clatd_stages::fast_path::{Attachment, FastPathSpec, LinkHeader, Offer, Way};
use clatd_stages::net::Link;

mod counted;
mod layout;
mod programs;

pub use counted::Counted;
pub use programs::{Devices, LoadError, Program, Programs};

use super::failure::{Done, Failure, NOTHING};
use super::netlink::Netlink;
use crate::report::chain;
pub use layout::NextHop;

/// `ARPHRD_*` of devices that the programs know.
const ETHERNET: u16 = 1;
/// Devices without link-layer addresses: RAWIP, NONE, PPP.
const WITHOUT_HEADER: [u16; 3] = [519, 0xfffe, 512];

/// The fast path of all instances of the daemon: clones share it.
#[derive(Clone, Default)]
pub struct FastPath(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    programs: Option<Result<Box<Programs>, String>>,
    /// By CLAT device.
    instances: BTreeMap<String, Instance>,
    /// By index.
    uplinks: BTreeMap<u32, Uplink>,
    /// Why the programs could not be attached to a device; by its index, as another one may have its name later.
    refusals: BTreeMap<u32, String>,
}

struct Instance {
    devices: Devices,
    spec: FastPathSpec,
    next_hop: Option<NextHop>,
    _links: [SchedClassifierLink; 2],
}

struct Uplink {
    _link: SchedClassifierLink,
    users: BTreeSet<String>,
}

impl std::fmt::Debug for FastPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.lock();
        f.debug_struct("FastPath")
            .field("instances", &state.instances.keys())
            .finish()
    }
}

impl FastPath {
    /// Whether the programs can be used on an uplink; loads them.
    pub(crate) fn offer(&self, uplink: &Link, kind: Option<u16>) -> Offer {
        let header = match kind {
            Some(ETHERNET) => LinkHeader::Ethernet,
            Some(kind) if WITHOUT_HEADER.contains(&kind) => LinkHeader::None,
            Some(kind) => return Offer::Refused(format!("{} is a device of an unknown kind ({kind})", uplink.name)),
            None => return Offer::Refused(format!("{} is gone", uplink.name)),
        };
        let mut state = self.lock();
        if let Some(refusal) = state.refusals.get(&uplink.index) {
            return Offer::Refused(refusal.clone());
        }
        match state.programs() {
            Err(why) => Offer::Refused(why),
            Ok(_) => Offer::Loads(Way {
                attachment: attachment(&uplink.name),
                header,
            }),
        }
    }

    /// Attaches the programs for an instance, in place of what was attached for it before.
    pub(super) async fn attach(&self, netlink: &Netlink, spec: &FastPathSpec) -> Done {
        let index = async |name: &str| match netlink.link(name).await {
            Ok(Some(link)) => Ok(link.index),
            Ok(None) => Err(Failure::new(format!("there is no device {name}"))),
            Err(error) => Err(error.into()),
        };
        let devices = Devices {
            clat: index(spec.device()).await?,
            uplink: index(&spec.uplink).await?,
            clat_header: LinkHeader::None,
        };
        let mut state = self.lock();
        let next_hop = state.detach(spec.device());
        let attached = state.attach(devices, spec, next_hop);
        if let Err(failure) = &attached {
            let why = format!(
                "the fast path could not be attached to {}: {}",
                spec.uplink,
                failure.told()
            );
            state.refusals.insert(devices.uplink, why);
        }
        attached.map(|()| NOTHING)
    }

    /// Takes them off; nothing there is no error: links go with the daemon that had them.
    pub(super) fn detach(&self, device: &str) {
        self.lock().detach(device);
    }

    /// Says where the packets of an instance go.
    pub(super) fn set_next_hop(&self, device: &str, gateway: Option<Ipv6Addr>) -> Done {
        let mut state = self.lock();
        let State {
            programs, instances, ..
        } = &mut *state;
        let (Some(Ok(programs)), Some(instance)) = (programs, instances.get_mut(device)) else {
            return Err(Failure::new(format!("there is no fast path for {device}")));
        };
        let next_hop = Some(NextHop(gateway));
        programs.set(instance.devices, &instance.spec, next_hop)?;
        instance.next_hop = next_hop;
        Ok(NOTHING)
    }

    /// Whether the programs of an instance are still attached where they were, to the devices of now.
    pub(crate) fn stands(&self, spec: &FastPathSpec, clat: u32, uplink: u32) -> Result<bool, ProgramError> {
        let mut state = self.lock();
        let State {
            programs, instances, ..
        } = &mut *state;
        let (Some(Ok(programs)), Some(instance)) = (programs, instances.get(spec.device())) else {
            return Ok(false);
        };
        if (instance.devices.clat, instance.devices.uplink) != (clat, uplink) {
            return Ok(false);
        }
        for (program, device) in [
            (Program::Out, spec.device()),
            (Program::Back, spec.device()),
            (Program::In, spec.uplink.as_str()),
        ] {
            let id = programs.id(program)?;
            let (_, attached) = SchedClassifier::query_tcx(device, hook(program))?;
            if !attached.iter().any(|found| found.id() == id) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What the programs counted for an instance.
    pub(super) fn counted(&self, device: &str) -> Option<Counted> {
        let state = self.lock();
        let clat = state.instances.get(device)?.devices.clat;
        match &state.programs {
            Some(Ok(programs)) => programs.counted(clat),
            Some(Err(_)) | None => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The programs, loaded at the first call.
    fn programs(&mut self) -> Result<&mut Programs, String> {
        let load = || Programs::load().map(Box::new).map_err(|error| refusal(&error));
        match self.programs.get_or_insert_with(load) {
            Ok(programs) => Ok(programs),
            Err(why) => Err(why.clone()),
        }
    }

    fn attach(&mut self, devices: Devices, spec: &FastPathSpec, next_hop: Option<NextHop>) -> Result<(), Failure> {
        let programs = self.programs().map_err(Failure::new)?;
        programs.enter(devices, spec, next_hop)?;
        let attached = self.attach_entered(devices, spec, next_hop);
        if attached.is_err() {
            self.detach_uplink(devices.uplink, spec.device());
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
        let programs = self.programs().map_err(Failure::new)?;
        let links = [
            link(programs, Program::Out, spec.device(), spec.way.attachment)?,
            link(programs, Program::Back, spec.device(), spec.way.attachment)?,
        ];
        if !self.is_attached(devices.uplink, &spec.uplink)? {
            let programs = self.programs().map_err(Failure::new)?;
            let link = link(programs, Program::In, &spec.uplink, spec.way.attachment)?;
            let before = self.uplinks.remove(&devices.uplink);
            let users = before.map(|before| before.users).unwrap_or_default();
            self.uplinks.insert(devices.uplink, Uplink { _link: link, users });
        }
        if let Some(uplink) = self.uplinks.get_mut(&devices.uplink) {
            uplink.users.insert(spec.device().to_owned());
        }
        self.programs().map_err(Failure::new)?.take_in(devices, spec)?;
        let instance = Instance {
            devices,
            spec: spec.clone(),
            next_hop,
            _links: links,
        };
        self.instances.insert(spec.device().to_owned(), instance);
        Ok(())
    }

    /// Whether the program of an uplink is there already, for other instances.
    fn is_attached(&mut self, index: u32, name: &str) -> Result<bool, Failure> {
        if !self.uplinks.contains_key(&index) {
            return Ok(false);
        }
        let id = self.programs().map_err(Failure::new)?.id(Program::In)?;
        let (_, attached) = SchedClassifier::query_tcx(name, TcAttachType::Ingress)?;
        Ok(attached.iter().any(|found| found.id() == id))
    }

    /// Returns the next hop that an instance had.
    fn detach(&mut self, device: &str) -> Option<NextHop> {
        let instance = self.instances.remove(device)?;
        self.detach_uplink(instance.devices.uplink, device);
        if let Ok(programs) = self.programs() {
            programs.forget(instance.devices, &instance.spec);
        }
        instance.next_hop
    }

    /// The program of an uplink goes with its last user.
    fn detach_uplink(&mut self, index: u32, user: &str) {
        if let Some(uplink) = self.uplinks.get_mut(&index) {
            uplink.users.remove(user);
            if uplink.users.is_empty() {
                self.uplinks.remove(&index);
            }
        }
    }
}

fn hook(program: Program) -> TcAttachType {
    match program {
        Program::Out => TcAttachType::Egress,
        Program::Back | Program::In => TcAttachType::Ingress,
    }
}

/// Kernels before 6.6 do not know how to list what is attached by TCX.
fn attachment(device: &str) -> Attachment {
    match SchedClassifier::query_tcx(device, TcAttachType::Ingress) {
        Ok(_) => Attachment::Tcx,
        Err(_) => Attachment::Clsact,
    }
}

fn link(
    programs: &mut Programs,
    program: Program,
    device: &str,
    attachment: Attachment,
) -> Result<SchedClassifierLink, Failure> {
    let options = match attachment {
        // Behind those of others, who see all packets first.
        Attachment::Tcx => aya::programs::tc::TcAttachOptions::TcxOrder(LinkOrder::default()),
        Attachment::Clsact => return Err(Failure::new("this kernel has no TCX")),
    };
    let loaded = programs.program(program)?;
    let id = loaded.attach_with_options(device, hook(program), options)?;
    Ok(loaded.take_link(id)?)
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
