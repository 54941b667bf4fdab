//! What the programs count: `struct counters` of stages/translator/bpf/layout.h.

use std::ops::AddAssign;

use clatd_stages::counters::{Counts, Fast, FastPathCounters};
use clatd_translator::Direction;

const CLASSES: [&str; 3] = ["tcp", "udp", "icmp"];
/// `enum reason`.
const REASONS: [&str; 14] = [
    "fast",
    "other-protocol",
    "fragment",
    "options",
    "no-echo",
    "no-checksum",
    "hop-limit",
    "too-big",
    "address",
    "malformed",
    "no-next-hop",
    "no-memory",
    "no-port",
    "tunnel",
];
/// `struct counters` in words of 64 bits.
pub(super) const WORDS: usize = 2 * CLASSES.len() + 2 + 2 * (2 * REASONS.len()) + 1;

/// Counters of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Packets translated in the kernel, by direction and class.
    pub fast: [[u64; CLASSES.len()]; 2],
    /// Their octets as they came in.
    pub bytes: [u64; 2],
    /// Packets left to the userspace translator, by direction and reason.
    pub slow: [[u64; REASONS.len()]; 2],
    /// Packets dropped, by direction and reason.
    pub dropped: [[u64; REASONS.len()]; 2],
    /// IPv6 packets of the userspace translator that left by the uplink.
    pub sent_for_engine: u64,
}

impl Default for Counted {
    fn default() -> Self {
        Self::from([0; WORDS])
    }
}

impl From<[u64; WORDS]> for Counted {
    fn from(words: [u64; WORDS]) -> Self {
        let mut words = words.into_iter();
        let mut next = || words.next().unwrap_or_default();
        Self {
            fast: std::array::from_fn(|_| std::array::from_fn(|_| next())),
            bytes: std::array::from_fn(|_| next()),
            slow: std::array::from_fn(|_| std::array::from_fn(|_| next())),
            dropped: std::array::from_fn(|_| std::array::from_fn(|_| next())),
            sent_for_engine: next(),
        }
    }
}

impl AddAssign for Counted {
    fn add_assign(&mut self, other: Self) {
        fn all<const N: usize>(to: &mut [u64; N], from: &[u64; N]) {
            for (to, from) in to.iter_mut().zip(from) {
                *to = to.wrapping_add(*from);
            }
        }
        for direction in 0..2 {
            all(&mut self.fast[direction], &other.fast[direction]);
            all(&mut self.slow[direction], &other.slow[direction]);
            all(&mut self.dropped[direction], &other.dropped[direction]);
        }
        all(&mut self.bytes, &other.bytes);
        self.sent_for_engine = self.sent_for_engine.wrapping_add(other.sent_for_engine);
    }
}

impl Counted {
    /// Packets translated in the kernel, and their octets as they came in; 0 = IPv4 to IPv6, 1 = IPv6 to IPv4.
    pub fn carried(&self, direction: usize) -> (u64, u64) {
        (self.fast[direction].iter().sum(), self.bytes[direction])
    }

    /// As `clatd status --json` shows it.
    pub fn document(&self) -> FastPathCounters {
        FastPathCounters {
            v4_to_v6: self.direction(Direction::V4ToV6),
            v6_to_v4: self.direction(Direction::V6ToV4),
            sent_for_userspace: self.sent_for_engine,
        }
    }

    fn direction(&self, direction: Direction) -> Fast {
        let number = direction as usize;
        let classes = CLASSES.iter().zip(self.fast[number]);
        Fast {
            packets: classes.map(|(class, count)| ((*class).to_owned(), count)).collect(),
            bytes: self.bytes[number],
            left: by_reason(&self.slow[number]),
            dropped: by_reason(&self.dropped[number]),
        }
    }
}

fn by_reason(counts: &[u64]) -> Counts {
    let named = REASONS.iter().zip(counts).skip(1);
    named
        .filter(|(_, count)| **count > 0)
        .map(|(reason, count)| ((*reason).to_owned(), *count))
        .collect()
}
