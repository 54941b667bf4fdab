//! All operations, one file per family. Each file says how its operations are done, what their nature is, whether they
//! still stand, and what a cleanup without a journal looks for.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use clatd_stages::journal::Outcome;
use clatd_stages::net::Link;
use clatd_stages::op::Op;
use clatd_stages::world::{World, WorldError};

mod address;
mod device;
mod fast_path;
mod file;
mod firewall;
mod neighbour;
mod route;
mod rule;
mod script;
mod sweep;
mod sysctl;
mod translator;

pub(super) use sweep::Sweep;

use super::failure::{Failure, NOTHING, OpResult};
use super::netlink::{FoundRule, Netlink, ProxyNeighbour};
use super::{Holds, Kernel};
use crate::util::AnyError;

/// What is known of an operation before it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nature {
    /// No event tells the instance when somebody undoes it. So clatd looks at it now and then. The kernel sends no events of
    /// proxy neighbour entries, of most sysctls, of files and of the fast path's programs. The mirror drops those of others'
    /// routes, except default routes.
    pub untold: bool,
    /// If it fails, it has changed nothing. Others make several changes, start something that runs, or count holders.
    pub atomic: bool,
    /// It leaves something with our label that outlives the daemon, so a cleanup finds it without a journal.
    pub swept: bool,
    /// It must be undone even if its device is gone. Most of what is done to a device goes with the device.
    pub outlives_device: bool,
}

/// The nature of an operation that undoes another. No plan has such an operation, so nobody looks after it.
const UNDOING: Nature = Nature {
    untold: false,
    atomic: true,
    swept: false,
    outlives_device: false,
};

/// What each family says of its operations. Each answer is one exhaustive match.
trait Operation<'a> {
    /// What is known of it before it is done.
    fn nature(&self) -> Nature;

    /// The device that it changes, by name. The device's index is recorded, so that the undo finds the device under another
    /// name. `None` for those that need no index: holds on sysctls record it by themselves, rules and packet filters know
    /// devices by name only, and our own devices are recorded otherwise.
    fn device(&mut self) -> Option<&mut &'a str>;

    /// Does it. If it undoes a step, `outcome` is what that step left. `None` = the daemon was killed before it wrote that.
    async fn carry_out(&self, kernel: &mut Kernel, outcome: Option<&Outcome>) -> OpResult;

    /// Whether its effect is still there. It is true for an operation that undoes another: nobody asks.
    async fn stands(&self, look: &mut Look<'_>) -> Result<bool, WorldError>;
}

/// An operation, by its family.
enum Family<'a> {
    Device(device::Change<'a>),
    Address(address::Change<'a>),
    Sysctl(sysctl::Change<'a>),
    Neighbour(neighbour::Change<'a>),
    Route(route::Change<'a>),
    Rule(rule::Change<'a>),
    Firewall(firewall::Change<'a>),
    File(file::Change<'a>),
    Script(script::Change<'a>),
    Translator(translator::Change<'a>),
    FastPath(fast_path::Change<'a>),
}

/// Asks the family.
macro_rules! ask {
    ($family:expr, $operation:ident => $answer:expr) => {
        match $family {
            Family::Device($operation) => $answer,
            Family::Address($operation) => $answer,
            Family::Sysctl($operation) => $answer,
            Family::Neighbour($operation) => $answer,
            Family::Route($operation) => $answer,
            Family::Rule($operation) => $answer,
            Family::Firewall($operation) => $answer,
            Family::File($operation) => $answer,
            Family::Script($operation) => $answer,
            Family::Translator($operation) => $answer,
            Family::FastPath($operation) => $answer,
        }
    };
}

impl<'a> From<&'a Op> for Family<'a> {
    fn from(op: &'a Op) -> Self {
        use firewall::Change as Filter;
        use neighbour::Change as Neighbour;
        use sysctl::Change as Sysctl;
        match op {
            Op::CreateTun(new) => Self::Device(device::Change::CreateTun(new)),
            Op::DeleteTun { device, alias } => Self::Device(device::Change::DeleteTun { device, alias }),
            Op::SetLinkUp { device, mtu } => Self::Device(device::Change::SetUp { device, mtu: *mtu }),
            Op::AddAddress { device, address } => Self::Address(address::Change::Add(device, *address)),
            Op::RemoveAddress { device, address } => Self::Address(address::Change::Remove(device, *address)),
            Op::SetDeviceSysctl { key, value } => Self::Sysctl(Sysctl::Set { key, value }),
            Op::HoldSysctl { key, value, before } => Self::Sysctl(Sysctl::Hold { key, value, before }),
            Op::ReleaseSysctl(release) => Self::Sysctl(Sysctl::Release(release)),
            Op::HoldOnDevices(on) => Self::Sysctl(Sysctl::HoldOn(on)),
            Op::ReleaseOnDevices(on) => Self::Sysctl(Sysctl::ReleaseOn(on)),
            Op::AddProxyNeighbour { device, address } => Self::Neighbour(Neighbour::AddProxy(device, *address)),
            Op::RemoveProxyNeighbour { device, address } => Self::Neighbour(Neighbour::RemoveProxy(device, *address)),
            Op::JoinAnycast { device, address } => Self::Neighbour(Neighbour::JoinAnycast(device, *address)),
            Op::LeaveAnycast { device, address } => Self::Neighbour(Neighbour::LeaveAnycast(device, *address)),
            Op::AddRoute { route } => Self::Route(route::Change::Add(route::Of::from(route))),
            Op::RemoveRoute { route } => Self::Route(route::Change::Remove(route::Of::from(route))),
            Op::AddRule { rule } => Self::Rule(rule::Change::Add(rule)),
            Op::RemoveRule { rule } => Self::Rule(rule::Change::Remove(rule)),
            Op::HoldLocalRule {} => Self::Rule(rule::Change::HoldLocal),
            Op::ReleaseLocalRule {} => Self::Rule(rule::Change::ReleaseLocal),
            Op::InsertNftRule { command, rule } => Self::Firewall(Filter::InsertNft { command, rule }),
            Op::RemoveNftRule { command, rule } => Self::Firewall(Filter::RemoveNft { command, rule }),
            Op::CreateNftTable(new) => Self::Firewall(Filter::CreateTable(new)),
            Op::DeleteNftTable(table) => Self::Firewall(Filter::DeleteTable(table)),
            Op::InsertIp6tables { command, chain, rule } => Self::Firewall(Filter::InsertIp6 { command, chain, rule }),
            Op::DeleteIp6tables { command, chain, rule } => Self::Firewall(Filter::DeleteIp6 { command, chain, rule }),
            Op::WriteFile { path, contents } => Self::File(file::Change::Write { path, contents }),
            Op::RemoveFile { path } => Self::File(file::Change::Remove { path }),
            Op::RunScript(run) => Self::Script(script::Change::Run(run)),
            Op::Nothing { what: _ } => Self::Script(script::Change::Nothing),
            Op::StartTranslator { translator } => Self::Translator(translator::Change::Start(translator)),
            Op::StopTranslator { device } => Self::Translator(translator::Change::Stop { device }),
            Op::AttachFastPath { fast_path } => Self::FastPath(fast_path::Change::attach(fast_path)),
            Op::DetachFastPath {
                device,
                uplink,
                attachment,
            } => Self::FastPath(fast_path::Change::Detach {
                device,
                uplink,
                attachment: *attachment,
            }),
            Op::SetNextHop {
                device,
                uplink: _,
                gateway,
            } => Self::FastPath(fast_path::Change::SetNextHop {
                device,
                gateway: *gateway,
            }),
        }
    }
}

/// The nature of this operation.
pub fn nature(op: &Op) -> Nature {
    ask!(Family::from(op), operation => operation.nature())
}

/// Carries out an operation. What it does to a device is recorded with the device's index. The undo finds the device by
/// this index, whatever its name is now. It leaves another device alone that has the old name.
pub(super) async fn carry_out(kernel: &mut Kernel, op: &Op, outcome: Option<&Outcome>) -> OpResult {
    let mut family = Family::from(op);
    let name;
    let named = ask!(&mut family, operation => operation.device());
    let Some(outcome) = outcome else {
        let named = named.map(|device| *device);
        let done = ask!(&family, operation => operation.carry_out(kernel, None).await)?;
        let link = match named {
            Some(device) => kernel.netlink.link(device).await?,
            None => None,
        };
        return Ok(done.on(link.map(|link| link.index)));
    };
    if let (Some(device), Some(index)) = (named, outcome.device) {
        name = kernel.netlink.name(index).await?;
        match &name {
            Some(name) => *device = name,
            None if nature(op).outlives_device => {}
            None => return Ok(NOTHING),
        }
    }
    ask!(&family, operation => operation.carry_out(kernel, Some(outcome)).await)
}

/// A device that must be there.
pub(super) async fn link(netlink: &Netlink, device: &str) -> Result<Link, Failure> {
    netlink
        .link(device)
        .await?
        .ok_or_else(|| Failure::new(format!("there is no device {device}")))
}

/// Looks whether operations still stand. Each thing is read from the system once.
pub(crate) struct Look<'a> {
    pub(super) netlink: &'a Netlink,
    pub(super) holds: &'a Holds,
    /// The instance that looks; `None` = no particular one.
    holder: Option<&'a str>,
    world: &'a dyn World,
    links: BTreeMap<String, Option<Link>>,
    proxies: Option<Vec<ProxyNeighbour>>,
    rules: BTreeMap<bool, Vec<Arc<FoundRule>>>,
}

impl<'a> Look<'a> {
    pub(crate) fn new(netlink: &'a Netlink, holds: &'a Holds, holder: Option<&'a str>, world: &'a dyn World) -> Self {
        Self {
            netlink,
            holds,
            holder,
            world,
            links: BTreeMap::new(),
            proxies: None,
            rules: BTreeMap::new(),
        }
    }

    /// The numbers of the operations that somebody undid.
    pub(crate) async fn undone(mut self, done: &[(u64, &Op)]) -> Result<Vec<u64>, WorldError> {
        let mut undone = Vec::new();
        for (number, op) in done {
            let stands = ask!(Family::from(*op), operation => operation.stands(&mut self).await)?;
            if !stands {
                undone.push(*number);
            }
        }
        Ok(undone)
    }

    pub(super) async fn link(&mut self, device: &str) -> Result<Option<Link>, WorldError> {
        if let Some(known) = self.links.get(device) {
            return Ok(known.clone());
        }
        let found = self.world.link(device).await?;
        self.links.insert(device.to_owned(), found.clone());
        Ok(found)
    }

    async fn proxies(&mut self) -> Result<&[ProxyNeighbour], WorldError> {
        if self.proxies.is_none() {
            let read = self.netlink.proxy_neighbours().await;
            self.proxies = Some(read.map_err(|error| failed("a proxy neighbour entry", error))?);
        }
        Ok(self.proxies.as_deref().unwrap_or_default())
    }

    async fn rules(&mut self, v6: bool) -> Result<&[Arc<FoundRule>], WorldError> {
        Ok(match self.rules.entry(v6) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let read = self.netlink.rules(v6).await;
                unknown.insert(read.map_err(|error| failed("a rule", error))?)
            }
        })
    }
}

/// Why it could not be told whether something still stands.
pub(super) fn failed(what: &str, source: impl Into<AnyError>) -> WorldError {
    WorldError::new(format!("looking whether {what} still stands"), source)
}
