//! The userspace translator as one of the translators.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use clatd_stages::translator::UserspaceSpec;
use clatd_stages::world::WorldError;
use clatd_translator::{Counters, CountersSnapshot};

use super::super::failure::{Failure, NOTHING};
use super::super::ops::Look;
use super::super::statistics::Totals;
use super::super::translators::{Counting, Host, Position, Running, Started, TranslatorKind, is_open};
use super::Engine;
use crate::util::lock;

/// What the counters stood at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Of the translation.
    pub translation: CountersSnapshot,
    /// Translated packets that the kernel did not take.
    pub write_errors: u64,
}

impl AddAssign for Snapshot {
    fn add_assign(&mut self, other: Self) {
        self.translation += other.translation;
        self.write_errors += other.write_errors;
    }
}

#[async_trait]
impl TranslatorKind for UserspaceSpec {
    fn device(&self) -> &str {
        &self.device
    }

    fn position(&self) -> Position {
        Position::Device
    }

    async fn start(&self, host: Host<'_>) -> Result<Started, Failure> {
        let Some(tun) = host.tun else {
            return Err(Failure::new(format!("this process does not have {} open", self.device)));
        };
        let end = host.end;
        let engine = Engine::start(self, tun, &host.bell, move |detail| end.tell(detail))?;
        Ok(Started {
            running: Box::new(engine),
            outcome: NOTHING,
        })
    }

    async fn stands(&self, look: &mut Look<'_>) -> Result<bool, WorldError> {
        is_open(&self.device, look).await
    }
}

#[async_trait]
impl Running for Engine {
    fn counting(&self) -> Arc<dyn Counting> {
        Arc::<EngineCounters>::clone(&self.counters)
    }

    async fn stop(self: Box<Self>) {
        self.end().await;
    }
}

/// The counters of all threads, which write them without a lock.
#[derive(Debug, Default)]
pub(super) struct EngineCounters(Mutex<Vec<(Arc<Counters>, Arc<AtomicU64>)>>);

impl EngineCounters {
    /// One more thread.
    pub(super) fn add(&self, counters: Arc<Counters>, write_errors: Arc<AtomicU64>) {
        lock(&self.0).push((counters, write_errors));
    }
}

impl Counting for EngineCounters {
    fn knows_directions(&self) -> bool {
        true
    }

    fn totals(&self) -> Totals {
        let mut sum = Snapshot::default();
        for (counters, write_errors) in lock(&self.0).iter() {
            sum += Snapshot {
                translation: counters.snapshot(),
                write_errors: write_errors.load(Ordering::Relaxed),
            };
        }
        Totals {
            userspace: Some(sum),
            ..Totals::default()
        }
    }
}
