//! The fast path: loads the programs of `stages/translator/bpf`, attaches them, and tells them of instances.

use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, MutexGuard};

use clatd_stages::fast_path::{Attachment, FastPathSpec, LinkHeader, Offer, Placement};
use clatd_stages::journal::{Left, Outcome};
use clatd_stages::net::Link;

mod attached;
mod bypassed;
mod counted;
mod flows;
mod hooked;
mod layout;
mod programs;
mod registry;
mod running;

pub use attached::AttachedError;
pub use counted::Counted;
pub use layout::NextHop;
pub use programs::{Devices, LoadError, Program, Programs};

use super::failure::{Failure, NOTHING, OpResult};
use super::netlink::{Filter, Hook, Netlink, NetlinkError};
use crate::util::lock;
use attached::Standing;
use bypassed::LastLook;
use hooked::HookTarget;
use registry::Registry;

/// `ARPHRD_*` of devices that the programs know.
const ETHERNET: u16 = 1;
/// Devices without link-layer addresses: RAWIP, NONE, PPP.
const WITHOUT_HEADER: [u16; 3] = [519, 0xfffe, 512];

/// The fast path of all instances of the daemon: clones share it.
#[derive(Clone, Default)]
pub struct FastPath {
    registry: Arc<Mutex<Registry>>,
    /// Locked while programs are attached or detached. The kernel does that for one caller at a time; the others wait
    /// here, without blocking a thread of the runtime.
    turn: Arc<tokio::sync::Mutex<()>>,
    last_look: Arc<LastLook>,
}

impl std::fmt::Debug for FastPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let registry = self.lock();
        f.debug_struct("FastPath")
            .field("instances", &registry.instances.keys())
            .finish()
    }
}

impl FastPath {
    /// Loads the programs while nobody waits for them, so that the first packet does not.
    pub(crate) fn load_ahead(&self) {
        let shared = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(why) = shared.lock().programs() {
                tracing::debug!("no fast path: {why}");
            }
        });
    }

    /// Whether the programs can be used on an uplink; loads them if that was not done yet.
    pub(crate) fn offer(&self, uplink: &Link, kind: Option<u16>) -> Offer {
        let header = match kind {
            Some(ETHERNET) => LinkHeader::Ethernet,
            Some(kind) if WITHOUT_HEADER.contains(&kind) => LinkHeader::None,
            Some(kind) => return Offer::Refused(format!("{} is a device of an unknown kind ({kind})", uplink.name)),
            None => return Offer::Refused(format!("{} is gone", uplink.name)),
        };
        let mut registry = self.lock();
        if let Some(refusal) = registry.refusals.get(&uplink.index) {
            return Offer::Refused(refusal.clone());
        }
        if let Err(why) = registry.programs() {
            return Offer::Refused(why);
        }
        let attachment = match attached::how() {
            Attachment::Tcx => registry.attachment(uplink.index),
            Attachment::Clsact => Attachment::Clsact,
        };
        Offer::Loads(Placement { attachment, header })
    }

    /// Attaches the programs for an instance, in place of what was attached for it before.
    async fn attach(&self, netlink: &Netlink, spec: &FastPathSpec) -> OpResult {
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
        let attached = self.attach_to(netlink, devices, spec).await;
        if let Err(failure) = &attached {
            let why = failure.told();
            let why = format!("the fast path could not be attached to {}: {why}", spec.uplink);
            self.lock().refuse(devices.uplink, why);
        }
        attached
    }

    async fn attach_to(&self, netlink: &Netlink, devices: Devices, spec: &FastPathSpec) -> OpResult {
        let _turn = self.turn.lock().await;
        let detached = self.lock().detach(spec.device());
        hooked::take_off(netlink, detached.hooked).await?;
        let (loaded, uplink_lacks) = self.lock().enter(devices, spec, detached.next_hop)?;
        let own = if self.lock().serves_many() {
            Attachment::Clsact
        } else {
            spec.placement.attachment
        };
        let place = |name: &str, index, attachment| HookTarget {
            name: name.to_owned(),
            index,
            attachment,
        };
        let uplink = uplink_lacks.then(|| place(&spec.uplink, devices.uplink, spec.placement.attachment));
        let own = place(spec.device(), devices.clat, own);
        let links = match hooked::attach(netlink, &loaded, &own, uplink.as_ref()).await {
            Ok(links) => links,
            Err(failure) => {
                self.lock().give_up(devices, spec);
                return Err(failure);
            }
        };
        let taken = self.lock().take_in(devices, spec, detached.next_hop, links);
        if let Err((failure, detached)) = taken {
            hooked::take_off(netlink, detached.hooked).await?;
            if let Some(uplink) = detached.made_clsact {
                netlink.delete_clsact_if_empty(uplink).await?;
            }
            return Err(failure);
        }
        let made = detached.made_clsact == Some(devices.uplink);
        Ok(match self.lock().clsact(devices.uplink, made) {
            None => NOTHING,
            // By the number a later process knows the filter, if this one is killed.
            Some((made, program)) => Outcome::from(Left::Clsact {
                made,
                program: Some(program.into()),
            }),
        })
    }

    /// Takes them off; nothing there is no error: links go with the daemon that had them. Filters of clsact stay, and
    /// `outcome` tells which.
    pub(super) async fn detach(
        &self,
        netlink: &Netlink,
        device: &str,
        uplink: &str,
        attachment: Attachment,
        outcome: Option<&Outcome>,
    ) -> OpResult {
        let _turn = self.turn.lock().await;
        let detached = self.lock().detach(device);
        hooked::take_off(netlink, detached.hooked).await?;
        let Some(uplink) = netlink.link(uplink).await? else {
            return Ok(NOTHING);
        };
        if attachment == Attachment::Tcx || self.lock().is_in_use(uplink.index) {
            return Ok(NOTHING);
        }
        let (made, program) = match outcome.map(|outcome| &outcome.left) {
            Some(Left::Clsact { made, program }) => (*made, *program),
            Some(_) | None => (false, None),
        };
        // A daemon that was killed while it attached told no number.
        let program = program.and_then(|program| u32::try_from(program).ok());
        hooked::remove_filters(netlink, uplink.index, Program::In, program).await?;
        if made {
            netlink.delete_clsact_if_empty(uplink.index).await?;
        }
        Ok(NOTHING)
    }

    /// Says where the packets of an instance go.
    pub(super) fn set_next_hop(&self, device: &str, gateway: Option<Ipv6Addr>) -> OpResult {
        self.lock().set_next_hop(device, NextHop(gateway))?;
        Ok(NOTHING)
    }

    /// Whether the programs of an instance are still attached where they were, to the devices of now.
    async fn stands(
        &self,
        netlink: &Netlink,
        spec: &FastPathSpec,
        clat: u32,
        uplink: u32,
    ) -> Result<bool, AttachedError> {
        let Some(expected) = self.lock().expected(spec.device(), clat, uplink) else {
            return Ok(false);
        };
        let [out, back, into] = Program::ALL.map(|program| expected.loaded.number(program));
        let [leaving, coming] = attached::to_own(netlink, clat, expected.own).await?;
        if !leaving.contains(&out) || !coming.contains(&back) {
            return Ok(false);
        }
        let Some(by) = expected.uplink else {
            return Ok(false);
        };
        match attached::to_uplink(netlink, uplink, by, into).await? {
            Standing::InPlace => return Ok(true),
            Standing::Behind => self.leave_place(netlink, uplink, into).await?,
            // Somebody took it off already, so the kernel waits for nothing here.
            Standing::Gone => drop(self.lock().lost(uplink)),
        }
        Ok(false)
    }

    /// Filters of others stand in front of the program of an uplink. They may take packets away, so the program is taken off,
    /// to be attached in front anew.
    async fn leave_place(&self, netlink: &Netlink, uplink: u32, program: u32) -> Result<(), NetlinkError> {
        let _turn = self.turn.lock().await;
        // Another instance of this uplink may have been faster.
        if netlink.is_in_front(uplink, Hook::Ingress, program).await? == Some(false) {
            drop(self.lock().lost(uplink));
            hooked::remove_filters(netlink, uplink, Program::In, Some(program)).await?;
        }
        Ok(())
    }

    /// What the programs counted for an instance.
    fn counted(&self, device: &str) -> Option<Counted> {
        self.lock().counted(device)
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        lock(&self.registry)
    }
}

/// Filters of killed daemons, with the devices that they are on.
pub(super) async fn left_behind(netlink: &Netlink) -> Result<Vec<(Link, Filter)>, NetlinkError> {
    let mut left = Vec::new();
    for link in netlink.links().await?.iter().filter(|link| !link.is_clat()) {
        for filter in netlink.filters(link.index, Hook::Ingress).await? {
            if filter.name == Program::In.name() {
                left.push((link.clone(), filter));
            }
        }
    }
    Ok(left)
}

/// Takes one of them away.
pub(super) async fn take_away(netlink: &Netlink, link: &Link, filter: &Filter) -> Result<(), NetlinkError> {
    netlink.delete_filter(link.index, Hook::Ingress, filter).await
}
