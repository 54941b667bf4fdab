//! The counters of an instance's translators, for status.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;
use std::sync::{Arc, Mutex, MutexGuard};

use clatd_stages::counters::{ClatDeviceCounters, InstanceCounters, Translated};
use clatd_translator::{Direction, Protocol};

use super::engine::{Bell, Snapshot};
use super::fastpath::Counted;
use super::translators::{Counting, Position};
use crate::util::lock;

/// Counters over the life of an instance, for every translator that it uses. Each counts by itself. The lock here is
/// taken when a translator starts or stops, and when somebody asks.
#[derive(Clone, Default)]
pub struct Statistics {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    past: Totals,
    live: BTreeMap<Position, Arc<dyn Counting>>,
    bell: Arc<Bell>,
}

/// What translators counted; `None` = one of this kind was never used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// The userspace translator.
    pub userspace: Option<Snapshot>,
    /// The fast path.
    pub fast_path: Option<Counted>,
    /// The CLAT device, for a translator that does not count.
    pub device: Option<ClatDeviceCounters>,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        fn add<T: AddAssign>(to: &mut Option<T>, from: Option<T>) {
            match (to.as_mut(), from) {
                (Some(to), Some(from)) => *to += from,
                (None, from) => *to = from,
                (Some(_), None) => {}
            }
        }
        add(&mut self.userspace, other.userspace);
        add(&mut self.fast_path, other.fast_path);
        add(&mut self.device, other.device);
    }
}

impl Totals {
    /// Packets translated in one direction, and their octets as they came in; by all who can tell.
    pub fn carried(&self, direction: Direction) -> (u64, u64) {
        let place = direction as usize;
        let fast = self.fast_path.map_or((0, 0), |counted| counted.carried(place));
        let slow = self.userspace.map_or((0, 0), |Snapshot { translation, .. }| {
            (translation.packets(direction), translation.bytes[place])
        });
        (fast.0 + slow.0, fast.1 + slow.1)
    }

    /// As `clatd status --json` shows them.
    pub fn document(&self) -> InstanceCounters {
        // Before anything translates, zero is what the userspace translator has counted.
        let nothing_yet = self.fast_path.is_none() && self.device.is_none();
        let userspace = self.userspace.or_else(|| nothing_yet.then(Snapshot::default));
        let direction = |direction| userspace.map(|counted| translated(&counted, direction));
        InstanceCounters {
            v4_to_v6: direction(Direction::V4ToV6),
            v6_to_v4: direction(Direction::V6ToV4),
            hairpinned: userspace.map(|counted| counted.translation.hairpinned),
            write_errors: userspace.map(|counted| counted.write_errors),
            fast_path: self.fast_path.map(|counted| counted.document()),
            device: self.device,
        }
    }
}

fn translated(counted: &Snapshot, direction: Direction) -> Translated {
    let (translation, place) = (&counted.translation, direction as usize);
    let packets = Protocol::ALL.iter().zip(translation.translated[place]);
    // There are dozens of reasons, most of which nobody ever sees.
    let dropped = translation.drops_by_reason(direction);
    Translated {
        packets: packets
            .map(|(protocol, count)| (protocol.name().to_owned(), count))
            .collect(),
        bytes: translation.bytes[place],
        fragments: translation.fragments[place],
        dropped: dropped
            .map(|(reason, count)| (reason.name().to_owned(), count))
            .collect(),
        errors_sent: translation.answers[place],
        errors_suppressed: translation.suppressed[place],
    }
}

impl Statistics {
    /// What the counters stand at.
    pub fn totals(&self) -> Totals {
        self.sum(|_| true)
    }

    /// The same, without asking translators that do not know one direction from the other.
    pub fn totals_by_direction(&self) -> Totals {
        self.sum(|counting| counting.knows_directions())
    }

    fn sum(&self, is_wanted: fn(&dyn Counting) -> bool) -> Totals {
        let inner = self.lock();
        let mut totals = inner.past;
        for counting in inner.live.values().filter(|counting| is_wanted(counting.as_ref())) {
            totals += counting.totals();
        }
        totals
    }

    /// The counters of the userspace translator.
    pub fn snapshot(&self) -> Snapshot {
        self.totals().userspace.unwrap_or_default()
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
        self.lock().live.contains_key(&Position::Before)
    }

    /// A translator has started.
    pub(super) fn open(&self, position: Position, counting: Arc<dyn Counting>) {
        self.lock().live.insert(position, counting);
    }

    /// It has stopped: what it counted stays.
    pub(super) fn close(&self, position: Position) {
        let mut inner = self.lock();
        if let Some(counting) = inner.live.remove(&position) {
            inner.past += counting.totals();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

impl fmt::Debug for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.totals().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct CountsNoDirection;

    impl Counting for CountsNoDirection {
        fn totals(&self) -> Totals {
            Totals {
                device: Some(ClatDeviceCounters::default()),
                ..Totals::default()
            }
        }

        fn knows_directions(&self) -> bool {
            false
        }
    }

    #[test]
    fn who_wants_directions_asks_only_those_that_know_them() {
        let statistics = Statistics::default();
        statistics.open(Position::Device, Arc::new(CountsNoDirection));
        assert!(statistics.totals().device.is_some());
        assert_eq!(statistics.totals_by_direction(), Totals::default());
    }
}
