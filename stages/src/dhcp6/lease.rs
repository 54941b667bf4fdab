//! What a server delegated, and for how long.

use std::time::Duration;

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};

use super::duid::Duid;
use super::message::{IaPd, IaPrefix};

/// The lifetime that has no end (RFC 8415 section 7.7).
pub const FOREVER: u32 = u32::MAX;
/// Longer prefixes leave no room to choose an address from.
const LONGEST_PREFIX: u8 = 120;
/// More prefixes than any server delegates to one IA; further ones are ignored.
const MOST_PREFIXES: usize = 16;

/// One delegated prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegated {
    /// The prefix.
    pub prefix: Ipv6Net,
    /// For how many seconds it is preferred, from `obtained`; [`FOREVER`] has no end.
    pub preferred_s: u32,
    /// For how many seconds it is valid, from `obtained`; [`FOREVER`] has no end.
    pub valid_s: u32,
    /// When the server last confirmed it.
    #[serde(rename = "obtained_ms", with = "milliseconds")]
    pub obtained: Duration,
}

impl Delegated {
    /// Seconds for which it is still preferred.
    pub fn preferred_left(&self, now: Duration) -> u32 {
        left(self.preferred_s, self.obtained, now)
    }

    /// Seconds for which it is still valid.
    pub fn valid_left(&self, now: Duration) -> u32 {
        left(self.valid_s, self.obtained, now)
    }
}

/// The prefixes of our IA_PD, as the server last gave them. There is at least one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Who delegated it.
    pub server: Duid,
    /// Our IAID.
    pub iaid: u32,
    /// Seconds from `obtained` until Renew; [`FOREVER`] = never.
    pub t1_s: u32,
    /// Seconds from `obtained` until Rebind; [`FOREVER`] = never.
    pub t2_s: u32,
    /// When the server last confirmed it.
    #[serde(rename = "obtained_ms", with = "milliseconds")]
    pub obtained: Duration,
    /// The prefixes, that in use first.
    pub prefixes: Vec<Delegated>,
}

impl Lease {
    /// The prefix in use.
    pub fn in_use(&self) -> Option<&Delegated> {
        self.prefixes.first()
    }

    /// The lease of a server's first answer; `None` = no usable prefix in it.
    pub(super) fn new(server: Duid, ia: &IaPd, now: Duration) -> Option<Self> {
        let mut lease = Self {
            server,
            iaid: ia.iaid,
            t1_s: 0,
            t2_s: 0,
            obtained: now,
            prefixes: Vec::new(),
        };
        lease.update(ia, now).then_some(lease)
    }

    /// Merges what a server said about the IA (section 18.2.10.1): new prefixes are added, known ones get new
    /// lifetimes, those with valid lifetime 0 are removed, those not mentioned stay. Returns false if none is left.
    pub(super) fn update(&mut self, ia: &IaPd, now: Duration) -> bool {
        for said in usable(ia) {
            self.prefixes
                .retain(|known| known.prefix != said.prefix || said.valid != 0);
            let said = Delegated {
                prefix: said.prefix,
                preferred_s: said.preferred,
                valid_s: said.valid,
                obtained: now,
            };
            let room = self.prefixes.len() < MOST_PREFIXES;
            match self.prefixes.iter_mut().find(|known| known.prefix == said.prefix) {
                Some(known) => *known = said,
                None if said.valid_s != 0 && room => self.prefixes.push(said),
                None => {}
            }
        }
        self.obtained = now;
        (self.t1_s, self.t2_s) = self.times(ia, now);
        self.settle(now)
    }

    /// Removes what has expired, and puts the prefix to use first. Preferred prefixes come first, then those that
    /// were confirmed last, since another server's answer may mean that the older ones lead nowhere. Of equal ones,
    /// the one in use stays. Returns false if none is left.
    pub(super) fn settle(&mut self, now: Duration) -> bool {
        self.prefixes.retain(|prefix| prefix.valid_left(now) > 0);
        self.prefixes.sort_by_key(|prefix| {
            let preferred = prefix.preferred_left(now) > 0;
            std::cmp::Reverse((preferred, prefix.obtained))
        });
        !self.prefixes.is_empty()
    }

    /// Whether a lease from a file can be ours and has not expired.
    pub fn is_sound(&self, iaid: u32, now: Duration) -> bool {
        let sound = |prefix: &Delegated| could_be_ours(&prefix.prefix) && prefix.obtained <= now;
        self.iaid == iaid
            && self.obtained <= now
            && self.prefixes.len() <= MOST_PREFIXES
            && self.prefixes.iter().all(sound)
            && self.in_use().is_some_and(|prefix| prefix.valid_left(now) > 0)
    }

    /// When to Renew; `None` = never.
    pub(super) fn renew_at(&self) -> Option<Duration> {
        end(self.t1_s, self.obtained)
    }

    /// When to Rebind; `None` = never.
    pub(super) fn rebind_at(&self) -> Option<Duration> {
        end(self.t2_s, self.obtained)
    }

    /// When a lifetime ends next; `None` = never.
    pub(super) fn changes_at(&self, now: Duration) -> Option<Duration> {
        let ends = |prefix: &Delegated| {
            [
                end(prefix.valid_s, prefix.obtained),
                end(prefix.preferred_s, prefix.obtained),
            ]
        };
        let ends = self.prefixes.iter().flat_map(ends).flatten();
        ends.filter(|end| *end > now).min()
    }

    /// T1 and T2 from now on: the server's values, or 0.5 and 0.8 of the shortest preferred lifetime (section 14.2);
    /// of the shortest valid lifetime if no prefix is preferred.
    fn times(&self, ia: &IaPd, now: Duration) -> (u32, u32) {
        let lifetimes = |of: fn(&Delegated, Duration) -> u32| {
            let fresh = self.prefixes.iter().filter(|prefix| prefix.obtained == now);
            fresh.map(|prefix| of(prefix, now)).filter(|seconds| *seconds > 0).min()
        };
        let shortest = lifetimes(Delegated::preferred_left)
            .or_else(|| lifetimes(Delegated::valid_left))
            .unwrap_or(FOREVER);
        let share = |tenths: u64| match shortest {
            FOREVER => FOREVER,
            seconds => u32::try_from(u64::from(seconds) * tenths / 10)
                .unwrap_or(FOREVER)
                .max(1),
        };
        match (ia.t1, ia.t2) {
            (0, 0) => (share(5), share(8)),
            (0, t2) => (share(5).min(t2), t2),
            (t1, 0) => (t1, share(8).max(t1)),
            given => given,
        }
    }
}

/// The usable and the withdrawn prefixes of an IA: those with valid lifetimes (section 21.22), without an error
/// status, and of a kind that can be delegated.
pub(super) fn usable(ia: &IaPd) -> impl Iterator<Item = &IaPrefix> {
    let sound = |prefix: &&IaPrefix| {
        prefix.preferred <= prefix.valid
            && prefix.status.as_ref().is_none_or(|status| status.code.0 == 0)
            && could_be_ours(&prefix.prefix)
    };
    ia.prefixes.iter().filter(sound)
}

/// Global unicast or unique local; not shorter than any provider's prefix, and short enough for an address of the
/// CLAT.
fn could_be_ours(prefix: &Ipv6Net) -> bool {
    let first = prefix.addr().segments()[0];
    let unicast = (0x0100..0xfe00).contains(&first);
    unicast && (16..=LONGEST_PREFIX).contains(&prefix.prefix_len())
}

fn end(seconds: u32, from: Duration) -> Option<Duration> {
    (seconds != FOREVER).then(|| from.saturating_add(Duration::from_secs(seconds.into())))
}

/// Whole seconds left, rounded up so that 0 means that it is over.
fn left(seconds: u32, from: Duration, now: Duration) -> u32 {
    let Some(end) = end(seconds, from) else {
        return FOREVER;
    };
    let left = end.saturating_sub(now);
    let up = u64::from(left.subsec_nanos() > 0);
    u32::try_from(left.as_secs() + up).unwrap_or(FOREVER - 1)
}

mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}
