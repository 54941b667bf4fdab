//! Counters by direction, protocol and drop reason, written by one thread and readable by all, without locks.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// An IPv4 packet came in.
    V4ToV6,
    /// An IPv6 packet came in.
    V6ToV4,
}

impl Direction {
    /// Both directions, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::V4ToV6, Self::V6ToV4];

    /// A short name: `4to6` or `6to4`.
    pub fn name(self) -> &'static str {
        match self {
            Self::V4ToV6 => "4to6",
            Self::V6ToV4 => "6to4",
        }
    }
}

/// The transport protocol classes that are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMPv4 or ICMPv6.
    Icmp,
    /// Everything else.
    Other,
}

impl Protocol {
    /// All classes, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Udp, Self::Icmp, Self::Other];

    /// A short name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::Other => "other",
        }
    }
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $text:literal;)*) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum DropReason { $($(#[$doc])* #[doc = $text] $variant,)* }

        impl DropReason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// A short stable name, as counters and status show it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it means, in words.
            pub fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

drop_reasons! {
    NotIp = "not-ip", "neither IPv4 nor IPv6";
    Truncated = "truncated", "shorter than its headers say";
    BadHeader = "bad-header", "malformed IP header";
    HeaderChecksum = "header-checksum", "wrong IPv4 header checksum";
    TooLong = "too-long", "too long to be represented after translation";
    IllegalSource = "illegal-source", "illegal source address";
    IllegalDestination = "illegal-destination", "illegal destination address";
    Multicast = "multicast", "multicast destination";
    OwnAddress = "own-address", "addressed to the translator itself";
    UnmappedSource = "unmapped-source", "IPv4 source without an explicit mapping";
    UnmappedDestination = "unmapped-destination", "IPv6 destination without an explicit mapping";
    UntranslatableSource = "untranslatable-source", "source outside of all mappings and the prefix";
    UntranslatableDestination = "untranslatable-destination", "destination outside of all mappings and the prefix";
    NonGlobalWkp = "non-global-wkp", "non-global IPv4 address in the Well-Known Prefix";
    HopLimit = "hop-limit", "hop limit exceeded";
    SourceRoute = "source-route", "unexpired IPv4 source route option";
    SegmentsLeft = "segments-left", "IPv6 Routing header with segments left";
    ExtensionAfterFragment = "extension-after-fragment", "extension header behind a Fragment Header";
    FragmentedIcmp = "fragmented-icmp", "fragmented ICMP";
    Igmp = "igmp", "IGMP";
    IcmpType = "icmp-type", "ICMP type or code that has no translation";
    IcmpPointer = "icmp-pointer", "ICMP pointer that has no translation";
    IcmpChecksum = "icmp-checksum", "wrong checksum of an ICMP error";
    IcmpInner = "icmp-inner", "unusable packet inside an ICMP error";
    IcmpInnerError = "icmp-inner-error", "ICMP error about an ICMP error";
    TransportHeader = "transport-header", "transport header too short or its length wrong";
    UdpZeroChecksum = "udp-zero-checksum", "UDP without checksum";
    FragmentationNeeded = "fragmentation-needed", "too big and not to be fragmented";
    BadOffload = "bad-offload", "offload header does not match the packet";
    NoRoom = "no-room", "not enough room in the buffer";
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

const REASONS: usize = DropReason::ALL.len();

/// The counters of one [`crate::Worker`]. Only that worker writes; reading at any time is fine.
#[derive(Debug)]
pub struct Counters {
    translated: [[AtomicU64; 4]; 2],
    bytes: [AtomicU64; 2],
    dropped: [[AtomicU64; REASONS]; 2],
    answers: [AtomicU64; 2],
    suppressed: [AtomicU64; 2],
    fragments: [AtomicU64; 2],
    hairpinned: AtomicU64,
    errors: [AtomicU64; 2],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            translated: Default::default(),
            bytes: Default::default(),
            dropped: core::array::from_fn(|_| core::array::from_fn(|_| AtomicU64::new(0))),
            answers: Default::default(),
            suppressed: Default::default(),
            fragments: Default::default(),
            hairpinned: AtomicU64::new(0),
            errors: Default::default(),
        }
    }
}

/// A single writer needs no read-modify-write instruction.
fn add(counter: Option<&AtomicU64>, value: u64) {
    if let Some(counter) = counter {
        counter.store(counter.load(Relaxed).wrapping_add(value), Relaxed);
    }
}

impl Counters {
    pub(crate) fn translated(&self, direction: Direction, protocol: Protocol, bytes: usize) {
        add(
            self.translated
                .get(direction as usize)
                .and_then(|row| row.get(protocol as usize)),
            1,
        );
        add(self.bytes.get(direction as usize), bytes as u64);
    }

    pub(crate) fn dropped(&self, direction: Direction, reason: DropReason) {
        add(
            self.dropped
                .get(direction as usize)
                .and_then(|row| row.get(reason as usize)),
            1,
        );
    }

    pub(crate) fn answered(&self, direction: Direction) {
        add(self.answers.get(direction as usize), 1);
    }

    pub(crate) fn suppressed(&self, direction: Direction) {
        add(self.suppressed.get(direction as usize), 1);
    }

    pub(crate) fn fragments(&self, direction: Direction, count: u64) {
        add(self.fragments.get(direction as usize), count);
    }

    pub(crate) fn error(&self, direction: Direction) {
        add(self.errors.get(direction as usize), 1);
    }

    pub(crate) fn hairpinned(&self) {
        add(Some(&self.hairpinned), 1);
    }

    /// The present values.
    pub fn snapshot(&self) -> CountersSnapshot {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        CountersSnapshot {
            translated: core::array::from_fn(|d| core::array::from_fn(|p| read(&self.translated[d][p]))),
            bytes: core::array::from_fn(|d| read(&self.bytes[d])),
            dropped: core::array::from_fn(|d| core::array::from_fn(|r| read(&self.dropped[d][r]))),
            answers: core::array::from_fn(|d| read(&self.answers[d])),
            suppressed: core::array::from_fn(|d| read(&self.suppressed[d])),
            fragments: core::array::from_fn(|d| read(&self.fragments[d])),
            hairpinned: read(&self.hairpinned),
            errors: core::array::from_fn(|d| read(&self.errors[d])),
        }
    }
}

/// The values of [`Counters`] at one moment; those of several workers can be added up with `+=`.
///
/// Indices are `Direction as usize`, `Protocol as usize` and `DropReason as usize`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CountersSnapshot {
    /// Packets translated, by direction and protocol.
    pub translated: [[u64; 4]; 2],
    /// Octets of translated packets as they came in, by direction.
    pub bytes: [u64; 2],
    /// Packets dropped, by direction and reason.
    pub dropped: [[u64; REASONS]; 2],
    /// ICMP errors sent, by the direction of the packet that caused them.
    pub answers: [u64; 2],
    /// ICMP errors not sent because of the rate limit, likewise.
    pub suppressed: [u64; 2],
    /// Fragments made out of larger packets, by direction.
    pub fragments: [u64; 2],
    /// IPv6 packets sent back to IPv6 (RFC 7757 section 4).
    pub hairpinned: u64,
    /// ICMP errors among the packets translated, by direction.
    pub errors: [u64; 2],
}

impl Default for CountersSnapshot {
    fn default() -> Self {
        Counters::default().snapshot()
    }
}

impl CountersSnapshot {
    /// Packets translated in `direction`.
    pub fn packets(&self, direction: Direction) -> u64 {
        self.translated[direction as usize].iter().sum()
    }

    /// Packets dropped in `direction` for `reason`.
    pub fn drops(&self, direction: Direction, reason: DropReason) -> u64 {
        self.dropped[direction as usize][reason as usize]
    }

    /// The drop reasons that occurred in `direction`, with their counts.
    pub fn drops_by_reason(&self, direction: Direction) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL
            .iter()
            .map(move |&reason| (reason, self.drops(direction, reason)))
            .filter(|(_, n)| *n > 0)
    }
}

impl core::ops::AddAssign for CountersSnapshot {
    fn add_assign(&mut self, other: Self) {
        fn all<const N: usize>(to: &mut [u64; N], from: &[u64; N]) {
            for (to, from) in to.iter_mut().zip(from) {
                *to = to.wrapping_add(*from);
            }
        }
        for direction in Direction::ALL.map(|d| d as usize) {
            all(&mut self.translated[direction], &other.translated[direction]);
            all(&mut self.dropped[direction], &other.dropped[direction]);
        }
        all(&mut self.bytes, &other.bytes);
        all(&mut self.answers, &other.answers);
        all(&mut self.suppressed, &other.suppressed);
        all(&mut self.fragments, &other.fragments);
        all(&mut self.errors, &other.errors);
        self.hairpinned = self.hairpinned.wrapping_add(other.hairpinned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_several_workers_add_up() {
        let all = |unit| CountersSnapshot {
            translated: [[unit; 4]; 2],
            bytes: [2 * unit; 2],
            dropped: [[3 * unit; REASONS]; 2],
            answers: [4 * unit; 2],
            suppressed: [5 * unit; 2],
            fragments: [6 * unit; 2],
            hairpinned: 7 * unit,
            errors: [8 * unit; 2],
        };
        let mut sum = all(1);
        sum += all(10);
        assert_eq!(sum, all(11));
    }
}
