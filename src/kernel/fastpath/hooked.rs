//! Programs on devices: put there, and taken off again.

use std::os::fd::AsFd;

use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, TcAttachType};
use clatd_stages::fast_path::Attachment;

use super::super::failure::Failure;
use super::super::netlink::{Hook, IN_FRONT, Netlink, NetlinkError};
use super::attached;
use super::programs::{Loaded, Program};

/// A program on a device.
#[derive(Debug)]
pub(super) struct Hooked {
    program: Program,
    number: u32,
    /// The index of the device.
    device: u32,
    by: By,
}

#[derive(Debug)]
enum By {
    /// It is detached when this is dropped.
    Tcx(SchedClassifierLink),
    /// Of clsact, which may have been made for it.
    Filter { made_clsact: bool },
}

impl Hooked {
    pub(super) fn attachment(&self) -> Attachment {
        match self.by {
            By::Tcx(_) => Attachment::Tcx,
            By::Filter { .. } => Attachment::Clsact,
        }
    }

    /// The kernel's number of the program.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Whether clsact was made for it.
    pub(super) fn made_clsact(&self) -> bool {
        match self.by {
            By::Tcx(_) => false,
            By::Filter { made_clsact } => made_clsact,
        }
    }
}

/// What is attached for an instance.
pub(super) struct Links {
    /// To the CLAT device.
    pub(super) own: [Hooked; 2],
    /// To the uplink, if it was wanted.
    pub(super) uplink: Option<Hooked>,
}

/// A device to attach to.
pub(super) struct HookTarget {
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) attachment: Attachment,
}

/// Attaches the programs of an instance. All of them or, where one fails, none.
pub(super) async fn attach(
    netlink: &Netlink,
    loaded: &Loaded,
    own: &HookTarget,
    uplink: Option<&HookTarget>,
) -> Result<Links, Failure> {
    let uplink = match uplink {
        Some(uplink) => Some(hook(netlink, loaded, Program::In, uplink).await?),
        None => None,
    };
    match attach_own(netlink, loaded, own).await {
        Ok(own) => Ok(Links { own, uplink }),
        Err(failure) => {
            take_off(netlink, uplink.into_iter().collect()).await?;
            Err(failure)
        }
    }
}

async fn attach_own(netlink: &Netlink, loaded: &Loaded, own: &HookTarget) -> Result<[Hooked; 2], Failure> {
    let out = hook(netlink, loaded, Program::Out, own).await?;
    match hook(netlink, loaded, Program::Back, own).await {
        Ok(back) => Ok([out, back]),
        Err(failure) => {
            take_off(netlink, vec![out]).await?;
            Err(failure)
        }
    }
}

/// A kernel may have TCX, and not the modules of clsact or of its filters.
async fn hook(netlink: &Netlink, loaded: &Loaded, program: Program, place: &HookTarget) -> Result<Hooked, Failure> {
    match place.attachment {
        Attachment::Tcx => by_tcx(loaded, program, place).await,
        Attachment::Clsact => match by_filter(netlink, loaded, program, place).await {
            Err(failure) if attached::how() == Attachment::Tcx => {
                tracing::debug!("{} takes no filter: {}", place.name, failure.told());
                by_tcx(loaded, program, place).await
            }
            hooked => hooked,
        },
    }
}

/// For each attachment by TCX the kernel waits until no packet uses the device's earlier list of programs (15 ms), and
/// nobody else can change devices meanwhile. The program stands behind those of others, who see all packets first.
async fn by_tcx(loaded: &Loaded, program: Program, place: &HookTarget) -> Result<Hooked, Failure> {
    let (on, name) = (loaded.clone(), place.name.clone());
    let attach = move || {
        on.with(program, |loaded| {
            let options = TcAttachOptions::TcxOrder(LinkOrder::default());
            let id = loaded.attach_with_options(&name, hook_of(program), options)?;
            loaded.take_link(id)
        })
    };
    let link = tokio::task::spawn_blocking(attach).await??;
    Ok(Hooked {
        program,
        number: loaded.number(program),
        device: place.index,
        by: By::Tcx(link),
    })
}

/// A filter waits less: 2 to 4 ms on a device that is up. It stands in front of those of others, as programs of TCX do: a
/// filter that hands packets to another device, as for shaping, would take them away from it.
async fn by_filter(
    netlink: &Netlink,
    loaded: &Loaded,
    program: Program,
    place: &HookTarget,
) -> Result<Hooked, Failure> {
    let descriptor = loaded.descriptor(program)?;
    let (hook, name) = (program.hook(), program.name());
    let made_clsact = netlink.add_clsact(place.index).await?;
    // Only an uplink may have filters of others already. Each look waits while anybody changes devices.
    let priority = match program {
        Program::In if !made_clsact => netlink.priority_in_front(place.index, hook).await?,
        Program::In | Program::Out | Program::Back => Some(IN_FRONT),
    };
    let Some(priority) = priority else {
        return Err(Failure::new(format!(
            "another program's filter has priority 1 (tc filter show dev {} {hook}), so none can stand in front of it",
            place.name
        )));
    };
    let added = netlink
        .add_filter(place.index, hook, priority, name, descriptor.as_fd())
        .await;
    if added.is_err() && made_clsact {
        netlink.delete_clsact_if_empty(place.index).await?;
    }
    added?;
    Ok(Hooked {
        program,
        number: loaded.number(program),
        device: place.index,
        by: By::Filter { made_clsact },
    })
}

/// Takes programs off. The kernel may need some time for that. A filter is found by its program, not by its priority and
/// handle: if somebody took our filter away, another filter may have these now.
pub(super) async fn take_off(netlink: &Netlink, hooked: Vec<Hooked>) -> Result<(), Failure> {
    let mut links = Vec::new();
    for hooked in hooked {
        match hooked.by {
            By::Tcx(link) => links.push(link),
            By::Filter { .. } => remove_filters(netlink, hooked.device, hooked.program, Some(hooked.number)).await?,
        }
    }
    if !links.is_empty() {
        tokio::task::spawn_blocking(move || drop(links)).await?;
    }
    Ok(())
}

/// Removes the filters that run this program; without a number, those that have its name.
pub(super) async fn remove_filters(
    netlink: &Netlink,
    device: u32,
    program: Program,
    number: Option<u32>,
) -> Result<(), NetlinkError> {
    for filter in netlink.filters(device, program.hook()).await? {
        let is_ours = number.is_none_or(|number| number == filter.program);
        if is_ours && filter.name == program.name() {
            netlink.delete_filter(device, program.hook(), &filter).await?;
        }
    }
    Ok(())
}

fn hook_of(program: Program) -> TcAttachType {
    match program.hook() {
        Hook::Egress => TcAttachType::Egress,
        Hook::Ingress => TcAttachType::Ingress,
    }
}
