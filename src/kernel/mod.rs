//! All writes to the running system: carries out the operations of a plan, and their inverses.
//!
//! One file per family of operations. An inverse treats "already gone" as success. If another program has done the
//! work of an operation already, its outcome says so, and its undo leaves that work alone.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use clatd_stages::apply::{OpError, System};
use clatd_stages::journal::Outcome;
use clatd_stages::net::Route;
use clatd_stages::op::Op;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

mod addresses;
pub(crate) mod anycast;
pub mod cleanup;
pub(crate) mod command;
pub mod engine;
mod failure;
#[cfg(feature = "ebpf")]
pub mod fastpath;
#[cfg(not(feature = "ebpf"))]
#[path = "fastpath_absent.rs"]
pub mod fastpath;
pub(crate) mod files;
mod group;
pub(crate) mod ip6tables;
pub mod journal;
pub(crate) mod local_rule;
pub mod lock;
mod neighbours;
pub(crate) mod nft;
mod on_devices;
mod ops;
mod present;
mod routes;
pub(crate) mod rules;
mod scripts;
pub(crate) mod sysctl;
mod tayga;
mod translators;
mod tun;

pub use engine::Statistics;
pub use journal::FileJournal;
pub use lock::{NamespaceLock, RuntimeLock};
pub(crate) use netlink::same as netlink_same;
pub(crate) use netlink::{FoundRule, Reachability, gateways, source_prefix};
pub use netlink::{Netlink, NetlinkError};
pub(crate) use ops::nature;
pub use sysctl::Holds;
use sysctl::Release;
pub use translators::TranslatorExit;

use crate::netlink;
use failure::{Done, NOTHING};
use scripts::Script;
use translators::Running;
use tun::Tun;

/// Carries out the operations of one instance.
#[derive(Debug)]
pub struct Kernel {
    instance: String,
    netlink: Netlink,
    holds: Holds,
    exits: UnboundedSender<TranslatorExit>,
    stop: Option<CancellationToken>,
    /// Whether a stop ends a script-down, too.
    hurried: bool,
    statistics: Statistics,
    tuns: BTreeMap<String, Tun>,
    translators: BTreeMap<String, Running>,
    anycast: anycast::Anycast,
    /// Routes whose next hop needs another route that is not restored yet.
    waiting: Vec<Route>,
}

impl Kernel {
    /// The kernel for this instance. `holds` is one table for all instances of the daemon. Deaths of the translator
    /// are sent to `exits`.
    pub fn new(
        instance: impl Into<String>,
        netlink: Netlink,
        holds: Holds,
        exits: UnboundedSender<TranslatorExit>,
    ) -> Self {
        Self {
            instance: instance.into(),
            netlink,
            holds,
            exits,
            stop: None,
            hurried: false,
            statistics: Statistics::default(),
            tuns: BTreeMap::new(),
            translators: BTreeMap::new(),
            anycast: anycast::Anycast::default(),
            waiting: Vec::new(),
        }
    }

    /// When `stop` is asked for, ends a running script-up, and gives programs less time.
    pub fn stopped_by(mut self, stop: CancellationToken) -> Self {
        self.stop = Some(stop);
        self
    }

    /// The same when only undoing is left: script-down is ended, too.
    pub fn hurried_by(self, stop: CancellationToken) -> Self {
        Self {
            hurried: true,
            ..self.stopped_by(stop)
        }
    }

    /// The counters of the userspace translator. The handle stays valid for the life of the daemon.
    pub fn statistics(&self) -> Statistics {
        self.statistics.clone()
    }

    /// Carries out an operation. What it does to a device is recorded with the device's index, by which its undo finds it.
    async fn carry_out_by_index(&mut self, op: &Op, outcome: Option<&Outcome>) -> Done {
        if let Some(outcome) = outcome {
            if let Some(op) = present::renamed(&self.netlink, op, outcome).await? {
                return self.carry_out(&op, Some(outcome)).await;
            }
            match (op, outcome.device) {
                (Op::ReleaseSysctl { key, .. }, Some(device)) => self.holds.forget(&self.instance, key, device),
                (Op::DetachFastPath { .. }, _) => return self.carry_out(op, Some(outcome)).await,
                _ => {}
            }
            return Ok(NOTHING);
        }
        let done = self.carry_out(op, None).await?;
        let link = match nature(op).device {
            Some(device) => self.netlink.link(device).await?,
            None => None,
        };
        Ok(done.on(link.map(|link| link.index)))
    }

    async fn carry_out(&mut self, op: &Op, outcome: Option<&Outcome>) -> Done {
        let netlink = &self.netlink;
        match op {
            Op::CreateTun {
                device,
                alias,
                persistent,
                queues,
            } => {
                let (tun, outcome) = tun::create(netlink, device, alias, *persistent, *queues).await?;
                self.tuns.extend(tun.map(|tun| (device.clone(), tun)));
                Ok(outcome)
            }
            Op::DeleteTun { device, alias } => {
                // A translator that could not be stopped keeps the device open.
                self.stop_translator(device).await;
                self.tuns.remove(device);
                tun::delete(&self.netlink, device, alias, outcome).await
            }
            Op::SetLinkUp { device, mtu } => addresses::set_up(netlink, device, *mtu).await,
            Op::AddAddress { device, address } => addresses::add(netlink, device, *address).await,
            Op::RemoveAddress { device, address } => addresses::remove(netlink, device, *address, outcome).await,
            Op::SetDeviceSysctl { key, value } => sysctl::set(key, value),
            Op::HoldSysctl { key, value, before } => self.holds.acquire(&self.instance, key, value, before),
            Op::ReleaseSysctl {
                key,
                value,
                before,
                give_back,
            } => {
                let release = Release {
                    key,
                    value,
                    before,
                    give_back,
                };
                self.holds.release(&self.instance, &release, outcome)
            }
            Op::HoldOnDevices(on) => self.holds.acquire_on(&self.instance, on),
            Op::ReleaseOnDevices(on) => self.holds.release_on(&self.instance, on, outcome),
            Op::AddProxyNeighbour { device, address } => neighbours::add(netlink, device, *address).await,
            Op::RemoveProxyNeighbour { device, address } => {
                neighbours::remove(netlink, device, *address, outcome).await
            }
            Op::JoinAnycast { device, address } => self.anycast.join(netlink, device, *address).await,
            Op::LeaveAnycast { device, address } => self.anycast.leave(device, *address),
            Op::AddRoute { route } => routes::add(netlink, route, outcome, &mut self.waiting).await,
            Op::RemoveRoute { route } => routes::remove(netlink, route, outcome).await,
            Op::AddRule { rule } => rules::add(netlink, rule, outcome).await,
            Op::RemoveRule { rule } => rules::remove(netlink, rule, outcome).await,
            Op::InsertNftRule { command, rule } => nft::insert(command, rule).await,
            Op::RemoveNftRule { command, rule } => nft::remove(command, rule, outcome).await,
            Op::CreateNftTable {
                command,
                family,
                table,
                ruleset,
            } => nft::create_table(command, family, table, ruleset).await,
            Op::DeleteNftTable {
                command,
                family,
                table,
                only_if_empty,
            } => nft::delete_table(command, family, table, *only_if_empty).await,
            Op::InsertIp6tables { command, chain, rule } => ip6tables::insert(command, chain, rule).await,
            Op::DeleteIp6tables { command, chain, rule } => ip6tables::delete(command, chain, rule).await,
            Op::WriteFile { path, contents } => files::write(path, contents),
            Op::RemoveFile { path } => files::remove(path, outcome),
            Op::RunScript {
                event,
                command,
                environment,
                timeout_s,
                user,
            } => {
                // A script-down is part of stopping.
                let stop = self.stop.as_ref().filter(|_| self.hurried || event == "script-up");
                let limit = Duration::from_secs((*timeout_s).into());
                let script = Script {
                    event,
                    command,
                    environment,
                    user: user.as_deref(),
                };
                script.run(limit, stop).await
            }
            // Only journals of older versions have it, and operations of journals are only undone.
            Op::HoldLocalRule {} => Ok(NOTHING),
            Op::ReleaseLocalRule {} => local_rule::restore(netlink).await,
            Op::Nothing { .. } => Ok(NOTHING),
            Op::StartTranslator { translator } => self.start_translator(translator).await,
            Op::StopTranslator { device } => {
                self.stop_translator(device).await;
                Ok(NOTHING)
            }
            Op::AttachFastPath { fast_path } => {
                self.statistics.leave_fast_path();
                let done = self.holds.fast_path.attach(netlink, fast_path).await;
                self.statistics
                    .take_fast_path(&self.holds.fast_path, fast_path.device());
                done
            }
            Op::DetachFastPath {
                device,
                uplink,
                attachment,
            } => {
                self.statistics.leave_fast_path();
                let fast_path = self.holds.fast_path.clone();
                fast_path.detach(netlink, device, uplink, *attachment, outcome).await
            }
            Op::SetNextHop { device, gateway, .. } => self.holds.fast_path.set_next_hop(device, *gateway),
        }
    }
}

#[async_trait]
impl System for Kernel {
    async fn apply(&mut self, op: &Op, outcome: Option<&Outcome>) -> Result<Outcome, OpError> {
        tracing::debug!("{op}");
        let stop = self.stop.clone().unwrap_or_default();
        let done = command::stopped_by(stop, self.carry_out_by_index(op, outcome)).await;
        done.map_err(|failure| failure.of(op))
    }
}
