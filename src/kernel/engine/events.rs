//! Dropped packets in the log: the management events of RFC 7915 sections 4.5 and 5.1.1, and all others at debug
//! level.
//!
//! A packet thread neither waits nor allocates for them. It puts them into a ring of fixed size, at most one a minute
//! for each reason, and a task of the runtime logs them.

use std::sync::{Arc, Mutex, TryLockError};

use clatd_translator::{Direction, DropEvent, DropReason, Flow};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use crate::util::lock;

/// For how long a thread is silent about a reason that it has reported.
const SILENCE_MS: u64 = 60_000;
/// How many events can wait. Those that do not fit are counted in the next one of their kind.
const ROOM: usize = 64;

/// One event: a packet, and how many others were dropped for the same reason since the last event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LoggedDrop {
    direction: Direction,
    reason: DropReason,
    flow: Option<Flow>,
    others: u64,
}

#[derive(Debug)]
struct Ring {
    waiting: Mutex<Vec<LoggedDrop>>,
    filled: Notify,
}

/// The task that logs.
#[derive(Debug)]
pub(super) struct EngineEvents {
    ring: Arc<Ring>,
    _task: AbortOnDropHandle<()>,
}

impl EngineEvents {
    /// Starts to log for a device.
    pub(super) fn start(device: &str) -> Self {
        let ring = Arc::new(Ring {
            waiting: Mutex::new(Vec::with_capacity(ROOM)),
            filled: Notify::new(),
        });
        let task = tokio::spawn(log(Arc::clone(&ring), device.to_owned()));
        Self {
            ring,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// What a packet thread tells of.
    pub(super) fn teller(&self) -> Teller {
        Teller {
            ring: Arc::clone(&self.ring),
            kinds: [[Throttle::default(); DropReason::ALL.len()]; 2],
        }
    }
}

async fn log(ring: Arc<Ring>, device: String) {
    loop {
        ring.filled.notified().await;
        // The packet threads keep their room.
        let events: Vec<LoggedDrop> = lock(&ring.waiting).drain(..).collect();
        for event in events {
            let text = event.text();
            if is_management(event.reason) {
                tracing::info!(%device, reason = event.reason.name(), "{text}");
            } else {
                tracing::debug!(%device, reason = event.reason.name(), "{text}");
            }
        }
    }
}

/// Whether RFC 7915 wants a system management event.
fn is_management(reason: DropReason) -> bool {
    matches!(reason, DropReason::UdpZeroChecksum | DropReason::ExtensionAfterFragment)
}

impl LoggedDrop {
    fn text(&self) -> String {
        let mut text = format!("dropped a packet {}: {}", self.direction.name(), self.reason.text());
        if let Some(flow) = self.flow {
            text += &format!(": {flow}");
        }
        if self.others > 0 {
            text += &format!("; {} others since the last such message", self.others);
        }
        text
    }
}

/// The state of one thread for one kind of event.
#[derive(Debug, Clone, Copy, Default)]
struct Throttle {
    /// When it was told last.
    told_ms: Option<u64>,
    /// How many were not told since.
    untold: u64,
}

/// The packet thread's end.
#[derive(Debug)]
pub(super) struct Teller {
    ring: Arc<Ring>,
    kinds: [[Throttle; DropReason::ALL.len()]; 2],
}

impl Teller {
    /// Reports a dropped packet, unless one was reported a short time ago.
    pub(super) fn tell(&mut self, now_ms: u64, event: &DropEvent<'_>) {
        if !is_management(event.reason) && !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let row = self.kinds.get_mut(event.direction as usize);
        let Some(kind) = row.and_then(|row| row.get_mut(event.reason as usize)) else {
            return;
        };
        let silent = kind
            .told_ms
            .is_some_and(|told| now_ms.saturating_sub(told) < SILENCE_MS);
        if silent || !self.ring.put(event, kind.untold) {
            kind.untold += 1;
            return;
        }
        *kind = Throttle {
            told_ms: Some(now_ms),
            untold: 0,
        };
    }
}

impl Ring {
    /// Whether there was room at once.
    fn put(&self, event: &DropEvent<'_>, others: u64) -> bool {
        let mut waiting = match self.waiting.try_lock() {
            Ok(waiting) => waiting,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        if waiting.len() >= ROOM {
            return false;
        }
        waiting.push(LoggedDrop {
            direction: event.direction,
            reason: event.reason,
            flow: event.flow(),
            others,
        });
        drop(waiting);
        self.filled.notify_one();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// UDP 5 -> 7 from 192.0.0.1 to 198.51.100.7.
    const PACKET: [u8; 28] = [
        0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 0, 1, 198, 51, 100, 7, 0, 5, 0, 7, 0, 8, 0, 0,
    ];

    fn event(reason: DropReason) -> DropEvent<'static> {
        DropEvent {
            direction: Direction::V4ToV6,
            reason,
            packet: &PACKET,
        }
    }

    #[tokio::test]
    async fn one_a_minute_with_addresses_and_ports() {
        let events = EngineEvents::start("clat");
        events._task.abort();
        let mut teller = events.teller();
        let texts = || {
            let waiting = events.ring.waiting.lock().unwrap();
            waiting.iter().map(LoggedDrop::text).collect::<Vec<_>>()
        };
        let zero = event(DropReason::UdpZeroChecksum);
        for now in [0, 1, 59_999, 60_000, 60_001] {
            teller.tell(now, &zero);
        }
        let line = "dropped a packet 4to6: UDP without checksum: 192.0.0.1 -> 198.51.100.7 protocol 17 ports 5 -> 7";
        assert_eq!(
            texts(),
            [line.to_owned(), format!("{line}; 2 others since the last such message")]
        );
        // Another reason has a minute of its own.
        teller.tell(60_001, &event(DropReason::ExtensionAfterFragment));
        assert_eq!(texts().len(), 3);
    }

    #[tokio::test]
    async fn a_full_ring_makes_nobody_wait() {
        let events = EngineEvents::start("clat");
        events._task.abort();
        let mut teller = events.teller();
        let zero = event(DropReason::UdpZeroChecksum);
        for minute in 0..ROOM as u64 + 5 {
            teller.tell(minute * SILENCE_MS, &zero);
        }
        let mut waiting = events.ring.waiting.lock().unwrap();
        assert_eq!((waiting.len(), waiting.capacity()), (ROOM, ROOM));
        // While somebody looks there is no waiting either.
        teller.tell(u64::MAX, &zero);
        waiting.clear();
        drop(waiting);
        teller.tell(u64::MAX, &zero);
        let waiting = events.ring.waiting.lock().unwrap();
        assert_eq!(waiting.iter().map(|event| event.others).collect::<Vec<_>>(), [6]);
    }
}
