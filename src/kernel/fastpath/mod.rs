//! The fast path: loads the programs of `stages/translator/bpf`, attaches them, and tells them of instances.

use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, MutexGuard};

use aya::programs::tc::SchedClassifierLink;
use clatd_stages::fast_path::{Attachment, FastPathSpec, LinkHeader, Offer, Way};
use clatd_stages::journal::{Left, Outcome};
use clatd_stages::net::Link;

mod attached;
mod counted;
mod flows;
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
use attached::Place;
use registry::Registry;

/// `ARPHRD_*` of devices that the programs know.
const ETHERNET: u16 = 1;
/// Devices without link-layer addresses: RAWIP, NONE, PPP.
const WITHOUT_HEADER: [u16; 3] = [519, 0xfffe, 512];

/// The fast path of all instances of the daemon: clones share it.
#[derive(Clone, Default)]
pub struct FastPath {
    registry: Arc<Mutex<Registry>>,
    /// Whoever attaches or detaches has it: the kernel lets only one do so at a time, and they shall not wait for that on
    /// the runtime's threads.
    turn: Arc<tokio::sync::Mutex<()>>,
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
        match registry.programs() {
            Err(why) => Offer::Refused(why),
            Ok(_) => Offer::Loads(Way {
                attachment: attached::how(),
                header,
            }),
        }
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
            self.lock().refusals.insert(devices.uplink, why);
        }
        attached
    }

    async fn attach_to(&self, netlink: &Netlink, devices: Devices, spec: &FastPathSpec) -> OpResult {
        let _turn = self.turn.lock().await;
        let detached = self.lock().detach(spec.device());
        let next_hop = detached.next_hop;
        drop_links(detached.links).await?;
        if spec.way.attachment == Attachment::Tcx {
            let has_clsact = self.lock().serves_many() && netlink.add_clsact(devices.clat).await.is_ok();
            self.attach_all(devices, spec, next_hop, has_clsact).await?;
            return Ok(NOTHING);
        }
        netlink.add_clsact(devices.clat).await?;
        let made = netlink.add_clsact(devices.uplink).await?;
        let attached = self.attach_all(devices, spec, next_hop, true).await;
        if attached.is_err() && made {
            netlink.delete_clsact_if_empty(devices.uplink).await?;
        }
        attached?;
        let mut registry = self.lock();
        let [_, _, program] = registry.programs().map_err(Failure::new)?.numbers();
        // Whoever is the last on this uplink has to know.
        let made = registry.made_clsact(devices.uplink, made);
        // By which a later process knows the filter, if this one is killed.
        Ok(Left::Clsact {
            made,
            program: Some(program.into()),
        }
        .into())
    }

    async fn attach_all(
        &self,
        devices: Devices,
        spec: &FastPathSpec,
        next_hop: Option<NextHop>,
        has_clsact: bool,
    ) -> Result<(), Failure> {
        let (loaded, uplink_lacks) = self.lock().enter(devices, spec, next_hop)?;
        let place = Place {
            device: spec.device().to_owned(),
            has_clsact,
            uplink: uplink_lacks.then(|| spec.uplink.clone()),
            attachment: spec.way.attachment,
        };
        let attached = tokio::task::spawn_blocking(move || place.attach(&loaded)).await;
        let links = match attached.map_err(Failure::from) {
            Ok(Ok(links)) => links,
            Ok(Err(error)) => {
                self.lock().give_up(devices, spec);
                return Err(error.into());
            }
            Err(failure) => {
                self.lock().give_up(devices, spec);
                return Err(failure);
            }
        };
        let taken = self.lock().take_in(devices, spec, next_hop, links);
        if let Err((failure, detached)) = taken {
            drop_links(detached.links).await?;
            return Err(failure);
        }
        Ok(())
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
        drop_links(detached.links).await?;
        let Some(uplink) = netlink.link(uplink).await? else {
            return Ok(NOTHING);
        };
        let is_in_use = self.lock().is_in_use(uplink.index);
        if attachment == Attachment::Tcx || is_in_use {
            return Ok(NOTHING);
        }
        let (made, program) = match outcome.map(|outcome| &outcome.left) {
            Some(Left::Clsact { made, program }) => (*made, *program),
            Some(_) | None => (false, None),
        };
        for filter in netlink.filters(uplink.index, Hook::Ingress).await? {
            // A daemon that was killed while it attached told no number.
            let is_ours = program.is_none_or(|program| program == u64::from(filter.program));
            if is_ours && filter.name == Program::In.name() {
                netlink.delete_filter(uplink.index, Hook::Ingress, &filter).await?;
            }
        }
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
        let [out, back, into] = expected.numbers;
        let [leaving, coming] = attached::to_own(netlink, clat, expected.own).await?;
        if !leaving.contains(&out) || !coming.contains(&back) {
            return Ok(false);
        }
        let on_uplink = attached::to_uplink(netlink, uplink, spec.way.attachment).await?;
        if !on_uplink.contains(&into) {
            self.lock().lost(uplink);
            return Ok(false);
        }
        Ok(true)
    }

    /// What the programs counted for an instance.
    fn counted(&self, device: &str) -> Option<Counted> {
        self.lock().counted(device)
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        lock(&self.registry)
    }
}

/// The kernel may take its time to take programs off.
async fn drop_links(links: Vec<SchedClassifierLink>) -> Result<(), Failure> {
    if !links.is_empty() {
        tokio::task::spawn_blocking(move || drop(links)).await?;
    }
    Ok(())
}

/// Filters of killed daemons, with the devices that they are on.
pub(super) async fn left_behind(netlink: &Netlink) -> Result<Vec<(Link, Filter)>, NetlinkError> {
    let mut left = Vec::new();
    for link in netlink.links().await?.into_iter().filter(|link| !link.is_clat()) {
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
