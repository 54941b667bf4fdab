//! The userspace translator: one plain thread per queue of the TUN device. None of them belongs to tokio.

use std::io::{self, PipeWriter};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use clatd_stages::translator::UserspaceSpec;
use clatd_translator::{IcmpErrors, Translator};

use super::failure::Failure;
use super::tun::Tun;

mod bell;
mod events;
mod join;
mod priority;
mod queue;
mod running;

pub use bell::Bell;
use events::EngineEvents;
pub(crate) use priority::STEPS;
use queue::{Port, Queue};
use running::EngineCounters;
pub use running::Snapshot;

/// A userspace translator at work.
#[derive(Debug)]
pub(crate) struct Engine {
    threads: Vec<JoinHandle<()>>,
    stopping: Arc<AtomicBool>,
    /// When this is dropped, its reading end becomes readable in every thread.
    wake: Option<PipeWriter>,
    counters: Arc<EngineCounters>,
    events: EngineEvents,
}

impl Engine {
    /// Starts one thread per queue. `on_exit` is told when a thread ends without having been asked to.
    pub(crate) fn start(
        spec: &UserspaceSpec,
        tun: &Tun,
        bell: &Arc<Bell>,
        on_exit: impl Fn(String) + Clone + Send + 'static,
    ) -> Result<Self, Failure> {
        let mut config = spec.config(seed());
        config.icmp_errors = share(config.icmp_errors, tun.queues.len());
        let translator = Arc::new(Translator::new(config)?);
        for warning in translator.warnings() {
            tracing::warn!(device = %spec.device, "{warning}");
        }
        let (woken, wake) = io::pipe()?;
        let mut engine = Self {
            threads: Vec::new(),
            stopping: Arc::default(),
            wake: Some(wake),
            counters: Arc::default(),
            events: EngineEvents::start(&spec.device),
        };
        for (number, device) in (0..).zip(&tun.queues) {
            let queue = Queue {
                translator: Arc::clone(&translator),
                worker: translator.worker(number),
                port: Port::new(device, tun.offload),
                teller: engine.events.teller(),
                woken: woken.try_clone()?,
                stopping: Arc::clone(&engine.stopping),
                bell: Arc::clone(bell),
            };
            engine.counters.add(
                Arc::clone(queue.worker.counters()),
                Arc::clone(queue.port.write_errors()),
            );
            let on_exit = on_exit.clone();
            let name = format!("{}-{number}", spec.device);
            engine
                .threads
                .push(thread::Builder::new().name(name).spawn(move || queue.run(&on_exit))?);
        }
        tracing::debug!(device = %spec.device, threads = engine.threads.len(), offload = tun.offload, "translating");
        Ok(engine)
    }

    /// Stops all threads and waits for their end.
    async fn end(mut self) {
        self.release();
        let threads = std::mem::take(&mut self.threads);
        let join = move || threads.into_iter().for_each(|thread| drop(thread.join()));
        if let Err(error) = tokio::task::spawn_blocking(join).await {
            tracing::warn!(%error, "waiting for the translator's threads");
        }
    }

    fn release(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.wake = None;
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.release();
    }
}

/// The share of one of `threads` in the limit of ICMP errors. Each thread alone can answer a traceroute.
fn share(errors: IcmpErrors, threads: usize) -> IcmpErrors {
    let threads = u32::try_from(threads.max(1)).unwrap_or(u32::MAX);
    match errors {
        IcmpErrors::Limited { per_second, burst } => IcmpErrors::Limited {
            per_second: (per_second / threads).max(1),
            burst: (burst / threads).max(burst.min(6)),
        },
        other => other,
    }
}

/// A restarted translator must not repeat the identifications of fragments that are still on their way.
fn seed() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.subsec_nanos().wrapping_mul(0x9e37_79b9)
}
