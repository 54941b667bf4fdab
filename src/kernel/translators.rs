//! What all translators have in common: how the kernel starts, stops and counts them, and learns of their end. Each has a
//! file of its own.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use clatd_stages::journal::Outcome;
use clatd_stages::translator::TranslatorSpec;
use clatd_stages::world::WorldError;
use tokio::sync::mpsc::UnboundedSender;

use super::Kernel;
use super::engine::Bell;
use super::failure::{Failure, OpResult};
#[cfg(feature = "ebpf")]
use super::fastpath::FastPath;
use super::netlink::Netlink;
use super::ops::Look;
use super::statistics::Totals;
use super::tun::Tun;

/// A translator that ended without being asked to. Each of its threads may report that.
#[derive(Debug, Clone)]
pub struct TranslatorExit {
    /// The instance that it served.
    pub instance: String,
    /// The CLAT device.
    pub device: String,
    /// How it ended, with its last words.
    pub detail: String,
    /// The start whose end this is.
    pub start: Start,
}

/// One start of a translator, until it is stopped.
#[derive(Debug, Clone, Default)]
pub struct Start {
    stopped: Arc<AtomicBool>,
}

impl Start {
    /// Whether the translator was stopped since, so that a report of its end is about a predecessor of the one that
    /// runs now.
    pub fn is_over(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// The translator is stopped.
    pub fn end(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

/// Where a translator takes the packets of a device. Each position has one translator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Position {
    /// It has the device open.
    Device,
    /// In the kernel, before packets come to the device. It can be started anew where it is.
    Before,
}

/// One kind of translator. Its specification says how it is started.
#[async_trait]
pub(super) trait TranslatorKind: Send + Sync {
    /// The CLAT device.
    fn device(&self) -> &str;

    /// Where it takes its packets.
    fn position(&self) -> Position;

    /// Starts it. Returns when packets can come.
    async fn start(&self, host: Host<'_>) -> Result<Started, Failure>;

    /// Whether it still has its packets.
    async fn stands(&self, look: &mut Look<'_>) -> Result<bool, WorldError>;
}

/// The one that is meant.
pub(super) fn of(spec: &TranslatorSpec) -> &dyn TranslatorKind {
    match spec {
        TranslatorSpec::Userspace(spec) => spec,
        TranslatorSpec::Tayga(spec) => spec,
    }
}

/// What translators are started with.
pub(super) struct Host<'a> {
    pub(super) netlink: &'a Netlink,
    /// The CLAT device, if this process has it open.
    pub(super) tun: Option<&'a Tun>,
    /// The programs in the kernel.
    #[cfg(feature = "ebpf")]
    pub(super) fast_path: &'a FastPath,
    /// Rung when packets come after a pause.
    pub(super) bell: Arc<Bell>,
    pub(super) end: ExitReport,
}

/// Tells the daemon that a translator ended without being asked to.
#[derive(Debug, Clone)]
pub(super) struct ExitReport {
    exits: UnboundedSender<TranslatorExit>,
    instance: String,
    device: String,
    start: Start,
}

impl ExitReport {
    pub(super) fn tell(&self, detail: String) {
        // Without a receiver the daemon is about to end, and needs no report.
        let _ = self.exits.send(TranslatorExit {
            instance: self.instance.clone(),
            device: self.device.clone(),
            detail,
            start: self.start.clone(),
        });
    }
}

/// A translator that was started.
pub(super) struct Started {
    pub(super) running: Box<dyn Running>,
    /// What its undo must know.
    pub(super) outcome: Outcome,
}

/// A translator at work. If it is dropped, it ends as soon as it can.
#[async_trait]
pub(super) trait Running: Debug + Send + Sync {
    /// Its counters, which can be asked for as long as somebody likes.
    fn counting(&self) -> Arc<dyn Counting>;

    /// Stops it. Returns when it has ended.
    async fn stop(self: Box<Self>);
}

/// Counters of a translator from its start on.
pub(super) trait Counting: Send + Sync {
    fn totals(&self) -> Totals;

    /// Whether it counts each direction by itself.
    fn knows_directions(&self) -> bool;
}

/// Whether a device has the carrier that it gets from whoever has it open. A device that is down has none.
pub(super) async fn is_open(device: &str, look: &mut Look<'_>) -> Result<bool, WorldError> {
    let link = look.link(device).await?;
    Ok(link.is_none_or(|link| !link.up || link.carrier))
}

impl Kernel {
    pub(super) async fn start_translator(&mut self, translator: &dyn TranslatorKind) -> OpResult {
        let (device, position) = (translator.device(), translator.position());
        let key = (device.to_owned(), position);
        match position {
            Position::Device if self.translators.contains_key(&key) => {
                return Err(Failure::new(format!("a translator runs on {device} already")));
            }
            Position::Device => {}
            Position::Before => {
                self.statistics.close(position);
                self.translators.remove(&key);
            }
        }
        let start = Start::default();
        let host = Host {
            netlink: &self.netlink,
            tun: self.tuns.get(device),
            #[cfg(feature = "ebpf")]
            fast_path: &self.holds.fast_path,
            bell: self.statistics.bell(),
            end: ExitReport {
                exits: self.exits.clone(),
                instance: self.instance.clone(),
                device: device.to_owned(),
                start: start.clone(),
            },
        };
        let Started { running, outcome } = translator.start(host).await?;
        self.statistics.open(position, running.counting());
        self.translators.insert(key, (start, running));
        Ok(outcome)
    }

    /// Stops the translator of a device. It is no error if there is none: a killed daemon's translator died with it.
    pub(super) async fn stop_translator(&mut self, device: &str, position: Position) {
        if let Some((start, running)) = self.translators.remove(&(device.to_owned(), position)) {
            running.stop().await;
            start.end();
            self.statistics.close(position);
        }
    }
}
