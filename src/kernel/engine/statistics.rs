//! The translator's counters, for status.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use clatd_translator::{Counters, CountersSnapshot, Direction, DropReason, Protocol};
use serde_json::{Value, json};

use super::bell::Bell;
use crate::kernel::fastpath::{Counted, FastPath};

/// Counters over the life of an instance, for every translator that it uses. The threads write their own counters
/// without a lock. The lock here is taken when a translator starts or stops, and when somebody asks.
#[derive(Clone, Default)]
pub struct Statistics {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    past: Snapshot,
    live: Vec<(Arc<Counters>, Arc<AtomicU64>)>,
    fast_past: Option<Counted>,
    /// The fast path, and the CLAT device for which it counts.
    fast: Option<(FastPath, String)>,
    bell: Arc<Bell>,
}

/// What the counters stood at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Of the translation.
    pub translation: CountersSnapshot,
    /// Translated packets that the kernel did not take.
    pub write_errors: u64,
}

impl Statistics {
    /// What the counters stand at.
    pub fn snapshot(&self) -> Snapshot {
        let inner = self.lock();
        let mut sum = inner.past;
        for (counters, write_errors) in &inner.live {
            sum.translation += counters.snapshot();
            sum.write_errors += write_errors.load(Ordering::Relaxed);
        }
        sum
    }

    /// The counters as `clatd status --json` shows them: by direction, protocol and drop reason.
    pub fn document(&self) -> Value {
        let Snapshot {
            translation,
            write_errors,
        } = self.snapshot();
        let mut document = serde_json::Map::new();
        for direction in Direction::ALL {
            let number = direction as usize;
            let by_protocol = Protocol::ALL.iter().zip(&translation.translated[number]);
            let packets: serde_json::Map<_, _> = by_protocol
                .map(|(protocol, count)| (protocol.name().to_owned(), json!(count)))
                .collect();
            let by_reason = DropReason::ALL
                .iter()
                .map(|&reason| (reason, translation.drops(direction, reason)));
            // There are dozens of reasons, most of which nobody ever sees.
            let dropped: serde_json::Map<_, _> = by_reason
                .filter(|(_, count)| *count > 0)
                .map(|(reason, count)| (reason.name().to_owned(), json!(count)))
                .collect();
            let counters = json!({
                "packets": packets,
                "bytes": translation.bytes[number],
                "fragments": translation.fragments[number],
                "dropped": dropped,
                "errors_sent": translation.answers[number],
                "errors_suppressed": translation.suppressed[number],
            });
            document.insert(direction.name().to_owned(), counters);
        }
        document.insert("hairpinned".to_owned(), json!(translation.hairpinned));
        document.insert("write_errors".to_owned(), json!(write_errors));
        if let Some(counted) = self.fast_path() {
            document.insert("fast_path".to_owned(), counted.document());
        }
        document.into()
    }

    /// The counts of the fast path; `None` = it was never used.
    pub fn fast_path(&self) -> Option<Counted> {
        let inner = self.lock();
        let live = inner
            .fast
            .as_ref()
            .and_then(|(fast_path, device)| fast_path.counted(device));
        match (inner.fast_past, live) {
            (Some(mut past), Some(live)) => {
                past += live;
                Some(past)
            }
            (past, live) => past.or(live),
        }
    }

    /// Rings this bell when packets come after a pause, from the next start of a translator on.
    pub fn ring(&self, bell: &Arc<Bell>) {
        self.lock().bell = Arc::clone(bell);
    }

    pub(super) fn bell(&self) -> Arc<Bell> {
        Arc::clone(&self.lock().bell)
    }

    /// Whether packets may pass without a thread of ours, so that nobody rings.
    pub fn passes_in_silence(&self) -> bool {
        self.lock().fast.is_some()
    }

    /// Counts what the fast path does for this device.
    pub(in crate::kernel) fn take_fast_path(&self, fast_path: &FastPath, device: &str) {
        self.lock().fast = Some((fast_path.clone(), device.to_owned()));
    }

    /// The fast path is about to be detached. Its counts stay.
    pub(in crate::kernel) fn leave_fast_path(&self) {
        let counted = self.fast_path();
        let mut inner = self.lock();
        (inner.fast_past, inner.fast) = (counted, None);
    }

    pub(super) fn add(&self, counters: Arc<Counters>, write_errors: Arc<AtomicU64>) {
        self.lock().live.push((counters, write_errors));
    }

    /// The translator has stopped: what it counted stays.
    pub(super) fn close(&self) {
        let sum = self.snapshot();
        let mut inner = self.lock();
        (inner.past, inner.live) = (sum, Vec::new());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.snapshot().fmt(f)
    }
}
