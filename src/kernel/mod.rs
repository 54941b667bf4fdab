//! All writes to the running system: carries out the operations of a plan, and their inverses.
//!
//! `ops` has one file per family of operations; the other modules are its tools. An inverse treats "already gone" as
//! success. If another program has done the work of an operation already, its outcome says so, and its undo leaves that
//! work alone.

use std::collections::BTreeMap;

use async_trait::async_trait;
use clatd_stages::apply::{OpError, System};
use clatd_stages::journal::Outcome;
use clatd_stages::net::Route;
use clatd_stages::op::Op;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

pub(crate) mod anycast;
pub mod cleanup;
pub(crate) mod command;
mod device_counters;
pub mod engine;
mod external;
mod failure;
#[cfg(feature = "ebpf")]
pub mod fastpath;
#[cfg(not(feature = "ebpf"))]
#[path = "fastpath_absent.rs"]
pub mod fastpath;
mod group;
mod helper;
pub(crate) mod ip6tables;
pub mod journal;
pub(crate) mod local_rule;
pub mod lock;
pub(crate) mod nft;
mod on_devices;
mod ops;
pub(crate) mod rules;
mod statistics;
pub(crate) mod sysctl;
mod tayga;
mod translators;
mod tun;

pub use journal::FileJournal;
pub use lock::{NamespaceLock, RuntimeLock};
pub use netlink::{Netlink, NetlinkError};
pub(crate) use netlink::{Reachability, gateways, source_prefix};
pub(crate) use ops::Look;
pub use ops::{Nature, nature};
pub use statistics::{Statistics, Totals};
pub use sysctl::Holds;
pub use translators::{Start, TranslatorExit};

use crate::netlink;
use translators::{Position, Running};
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
    translators: BTreeMap<(String, Position), (Start, Box<dyn Running>)>,
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

    /// The counters of the translators. The handle stays valid for the life of the daemon.
    pub fn statistics(&self) -> Statistics {
        self.statistics.clone()
    }
}

#[async_trait]
impl System for Kernel {
    async fn apply(&mut self, op: &Op, outcome: Option<&Outcome>) -> Result<Outcome, OpError> {
        tracing::debug!("{op}");
        let stop = self.stop.clone().unwrap_or_default();
        let done = command::stopped_by(stop, ops::carry_out(self, op, outcome)).await;
        done.map_err(|failure| failure.of(op))
    }
}
