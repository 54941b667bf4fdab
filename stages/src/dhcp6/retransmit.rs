//! When a message is sent again (RFC 8415 section 15), and how many packets are sent at most (section 14.1).

use std::time::Duration;

/// The parameters of section 15 for one kind of message (the values are those of section 7.6).
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    /// IRT: the first time-out.
    pub(super) initial: Duration,
    /// MRT: the longest time-out; zero = they only grow.
    pub(super) longest: Duration,
    /// MRC: transmissions in all; 0 = no limit.
    pub(super) count: u32,
    /// The first time-out is longer than IRT, never shorter (section 18.2.1).
    pub(super) first_longer: bool,
}

const fn schedule(initial_ms: u64, longest_s: u64, count: u32) -> Schedule {
    Schedule {
        initial: Duration::from_millis(initial_ms),
        longest: Duration::from_secs(longest_s),
        count,
        first_longer: false,
    }
}

/// SOL_TIMEOUT; SOL_MAX_RT may come from a server.
pub(super) const SOLICIT: Schedule = Schedule {
    first_longer: true,
    ..schedule(1000, 3600, 0)
};
/// REQ_TIMEOUT, REQ_MAX_RT, REQ_MAX_RC.
pub(super) const REQUEST: Schedule = schedule(1000, 30, 10);
/// REN_TIMEOUT, REN_MAX_RT.
pub(super) const RENEW: Schedule = schedule(10_000, 600, 0);
/// REB_TIMEOUT, REB_MAX_RT.
pub(super) const REBIND: Schedule = schedule(10_000, 600, 0);
/// Rebind in place of Confirm (section 18.2.12). The times lie between those of the two: a whole REB_TIMEOUT is as
/// long as this exchange may take, and Confirm has CNF_TIMEOUT and CNF_MAX_RT.
pub(super) const CONFIRM: Schedule = schedule(1000, 4, 0);
/// Shorter than REL_TIMEOUT and REL_MAX_RC: the daemon is about to exit and gives this one second in all.
pub(super) const RELEASE: Schedule = schedule(400, 0, 2);

/// Where the retransmission of one message stands.
#[derive(Debug, Clone)]
pub(super) struct Retransmission {
    schedule: Schedule,
    timeout: Duration,
    sent: u32,
}

impl Retransmission {
    pub(super) fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            timeout: Duration::ZERO,
            sent: 0,
        }
    }

    /// How often the message was sent.
    pub(super) fn sent(&self) -> u32 {
        self.sent
    }

    /// Whether it has been sent as often as allowed.
    pub(super) fn exhausted(&self) -> bool {
        self.schedule.count != 0 && self.sent >= self.schedule.count
    }

    /// A server gives the longest time-out (SOL_MAX_RT, section 21.24).
    pub(super) fn set_longest(&mut self, longest: Duration) {
        self.schedule.longest = longest;
    }

    /// The message goes out now. Returns how long to wait for the answer.
    pub(super) fn next(&mut self, random: &mut Random) -> Duration {
        let Schedule {
            initial,
            longest,
            first_longer,
            ..
        } = self.schedule;
        self.sent = self.sent.saturating_add(1);
        self.timeout = if self.sent == 1 {
            let share = if first_longer {
                random.between(0.001, 0.1)
            } else {
                random.between(-0.1, 0.1)
            };
            initial.mul_f64(1.0 + share)
        } else {
            self.timeout.mul_f64(2.0 + random.between(-0.1, 0.1))
        };
        if !longest.is_zero() && self.timeout > longest {
            self.timeout = longest.mul_f64(1.0 + random.between(-0.1, 0.1));
        }
        self.timeout
    }
}

/// SplitMix64: RAND and transaction ids, the same for the same seed.
#[derive(Debug, Clone)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// At most this many packets at once, and one a second in the long run, whatever servers do.
const BURST: u32 = 20;

/// The rate limit of section 14.1.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    left: u32,
    since: Duration,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self {
            left: BURST,
            since: Duration::ZERO,
        }
    }

    /// Takes one packet out of the budget, or says when there will be one.
    pub(super) fn take(&mut self, now: Duration) -> Result<(), Duration> {
        let earned = now.saturating_sub(self.since).as_secs();
        if earned > 0 {
            self.left = BURST.min(self.left.saturating_add(u32::try_from(earned).unwrap_or(BURST)));
            self.since = now;
        }
        if self.left == 0 {
            return Err(self.since.saturating_add(Duration::from_secs(1)));
        }
        self.left -= 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_double_up_to_the_longest() {
        for seed in 0..200 {
            let (mut random, mut solicit) = (Random(seed), Retransmission::new(SOLICIT));
            let first = solicit.next(&mut random).as_secs_f64();
            assert!(first > 1.0 && first <= 1.1, "{first}");
            let mut before = first;
            for _ in 0..30 {
                let timeout = solicit.next(&mut random).as_secs_f64();
                let doubled = (before * 1.9..=before * 2.1).contains(&timeout);
                assert!(doubled || (3240.0..=3960.0).contains(&timeout), "{before} {timeout}");
                before = timeout;
            }
            assert!(before >= 3240.0);
        }
    }

    /// RAND is between -0.1 and 0.1 (section 15), but that of the first Solicit is above 0 (section 18.2.1).
    #[test]
    fn the_first_timeout_is_shorter_or_longer_than_the_initial_one() {
        let first = |seed| Retransmission::new(REQUEST).next(&mut Random(seed)).as_secs_f64();
        let timeouts: Vec<f64> = (0..200).map(first).collect();
        assert!(
            timeouts.iter().all(|timeout| (0.9..=1.1).contains(timeout)),
            "{timeouts:?}"
        );
        assert!(timeouts.iter().any(|timeout| *timeout < 0.95));
        assert!(timeouts.iter().any(|timeout| *timeout > 1.05));
    }

    #[test]
    fn the_number_of_requests_is_limited() {
        let (mut random, mut request) = (Random(1), Retransmission::new(REQUEST));
        let times: Vec<_> = std::iter::from_fn(|| (!request.exhausted()).then(|| request.next(&mut random))).collect();
        assert_eq!(times.len(), 10);
        assert!(times[9].as_secs_f64() <= 33.0);
    }

    #[test]
    fn bursts_are_followed_by_one_a_second() {
        let mut budget = Budget::new();
        let now = Duration::from_millis(5_500);
        assert_eq!((0..100).filter(|_| budget.take(now).is_ok()).count(), 20);
        let later = budget.take(now).unwrap_err();
        assert!(later > now && budget.take(later).is_ok() && budget.take(later).is_err());
        assert_eq!(
            (0..100)
                .filter(|_| budget.take(Duration::from_secs(1000)).is_ok())
                .count(),
            20
        );
    }
}
