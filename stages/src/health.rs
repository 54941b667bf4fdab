//! Whether a PLAT works, judged by what comes back. The watch is passive: it advises a probe only where packets go
//! out and nothing comes back. Where nothing is sent, nothing is probed. Pure: time and counts come in, advice goes
//! out.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The PLAT is doubted when nothing has come back for this many seconds.
pub const PATIENCE: u64 = 30;
/// So many packets must have been sent by then. A single lost packet says nothing.
const FEW: u64 = 3;
/// A packet that was sent longer ago does not count as traffic, in seconds.
const RECENT: u64 = 15;
/// After so many seconds a PLAT that does not answer is probed again.
const ASK_AGAIN: u64 = 30;
/// After so many seconds a PLAT that answers, but brings nothing back, is probed again: perhaps the destinations do
/// not answer.
const ASK_SELDOM: u64 = 300;
/// A PLAT that never answered a probe may be one that answers none. It gets another chance after so many seconds,
/// then after twice the time, up to the second value.
const CHANCES: (u64, u64) = (600, 7200);

/// How it looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Nobody counts the packets of this translator, it does not run, or what was just sent has not been answered yet.
    #[default]
    Unknown,
    /// Nothing was sent lately.
    Idle,
    /// What is sent brings something back.
    Good,
    /// Packets are sent and nothing comes back.
    Unanswered,
    /// The PLAT does not answer either.
    Silent,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unknown => "unknown",
            Self::Idle => "idle",
            Self::Good => "good",
            Self::Unanswered => "unanswered",
            Self::Silent => "silent",
        })
    }
}

/// What is known of one PLAT through one uplink.
#[derive(Debug, Clone, Default)]
pub struct PlatWatch {
    sent: u64,
    back: u64,
    begun: bool,
    /// Packets sent since something came back, and the times of the first and the last of them.
    unanswered: u64,
    first: u64,
    last: u64,
    heard: bool,
    silent_since: Option<u64>,
    answered_probe: bool,
    ever_answered: bool,
    ask_at: u64,
    chances: u32,
}

impl PlatWatch {
    /// Takes the counts at `now` (seconds of any steady clock): packets sent to the PLAT, and packets that came from
    /// it. `wanted` = this host sends IPv4, by any uplink. Returns true when the PLAT is to be probed now.
    pub fn sample(&mut self, now: u64, sent: u64, back: u64, wanted: bool) -> bool {
        if !std::mem::replace(&mut self.begun, true) {
            (self.sent, self.back, self.last) = (sent, back, now);
            return false;
        }
        if back > self.back {
            *self = Self {
                heard: true,
                ever_answered: self.ever_answered,
                ..Self::default()
            };
            (self.begun, self.last) = (true, now);
        } else if sent > self.sent {
            if self.unanswered == 0 {
                self.first = now;
            }
            self.unanswered += sent - self.sent;
            self.last = now;
        }
        (self.sent, self.back) = (sent, back);
        match self.silent_since {
            Some(since) => {
                let chance = (CHANCES.0 << self.chances.min(8)).min(CHANCES.1);
                if !self.ever_answered && now.saturating_sub(since) >= chance {
                    self.chances += 1;
                    self.begin_anew();
                    return false;
                }
                wanted && now >= self.ask_at
            }
            None => self.is_doubtful(now) && now.saturating_sub(self.last) <= RECENT && now >= self.ask_at,
        }
    }

    /// Takes the result of a probe. Returns true if the verdict has changed.
    pub fn probed(&mut self, now: u64, answers: bool) -> bool {
        let before = self.is_silent();
        self.answered_probe = answers;
        self.ever_answered |= answers;
        if answers {
            if before {
                self.begin_anew();
            }
            self.ask_at = now + ASK_SELDOM;
        } else {
            self.silent_since.get_or_insert(now);
            self.ask_at = now + ASK_AGAIN;
        }
        before != self.is_silent()
    }

    fn begin_anew(&mut self) {
        self.silent_since = None;
        self.unanswered = 0;
        self.heard = false;
    }

    fn is_doubtful(&self, now: u64) -> bool {
        self.unanswered >= FEW && now.saturating_sub(self.first) >= PATIENCE
    }

    /// Whether the PLAT does not answer.
    pub fn is_silent(&self) -> bool {
        self.silent_since.is_some()
    }

    /// How it looks at `now`.
    pub fn health(&self, now: u64) -> Health {
        if self.is_silent() {
            Health::Silent
        } else if self.is_doubtful(now) {
            Health::Unanswered
        } else if self.heard && now.saturating_sub(self.last) <= PATIENCE {
            Health::Good
        } else if self.begun && (self.unanswered == 0 || now.saturating_sub(self.last) > RECENT) {
            Health::Idle
        } else {
            Health::Unknown
        }
    }

    /// The same in words; empty where there is nothing to say.
    pub fn words(&self, now: u64) -> String {
        let nothing = format!(
            "sent {}, nothing came back for {} s",
            self.unanswered,
            now.saturating_sub(self.first)
        );
        match self.health(now) {
            Health::Silent if self.unanswered == 0 => "the PLAT does not answer".into(),
            Health::Silent => format!("{nothing}: the PLAT does not answer"),
            Health::Unanswered if self.answered_probe => format!("{nothing}, but the PLAT answers"),
            Health::Unanswered => nothing,
            Health::Unknown | Health::Idle | Health::Good => String::new(),
        }
    }

    /// Packets sent since something came back.
    pub fn unanswered(&self) -> u64 {
        self.unanswered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every five seconds so much is sent and so much comes back; returns when it is to be asked.
    fn run(watch: &mut PlatWatch, from: u64, rounds: u64, sent: u64, back: u64) -> Vec<u64> {
        let mut asked = Vec::new();
        for round in 0..rounds {
            let now = from + round * 5;
            let (sent, back) = (watch.sent + sent, watch.back + back);
            if watch.sample(now, sent, back, sent > watch.sent) {
                asked.push(now);
            }
        }
        asked
    }

    #[test]
    fn an_idle_host_never_asks() {
        let mut watch = PlatWatch::default();
        assert_eq!(run(&mut watch, 0, 1000, 0, 0), [0; 0]);
        assert_eq!(watch.health(5000), Health::Idle);
        // One packet that was lost, or a few long ago, is no reason.
        watch.sample(5005, 2, 0, true);
        assert_eq!(
            watch.health(5010),
            Health::Unknown,
            "who has just sent something is not idle"
        );
        assert_eq!(watch.health(5025), Health::Idle);
        assert_eq!(run(&mut watch, 5010, 100, 0, 0), [0; 0]);
        watch.sample(6000, 100, 0, true);
        assert_eq!(run(&mut watch, 6100, 100, 0, 0), [0; 0]);
    }

    #[test]
    fn traffic_that_is_answered_never_asks() {
        let mut watch = PlatWatch::default();
        assert_eq!(run(&mut watch, 0, 1000, 10, 1), [0; 0]);
        assert_eq!(watch.health(5000), Health::Good);
        assert_eq!(watch.words(5000), "");
    }

    #[test]
    fn what_nobody_answers_is_doubted_after_thirty_seconds() {
        let mut watch = PlatWatch::default();
        run(&mut watch, 0, 2, 20, 5);
        let asked = run(&mut watch, 10, 7, 20, 0);
        assert_eq!(asked, [40], "the first was sent at 10");
        assert_eq!(watch.health(40), Health::Unanswered);
        assert_eq!(watch.words(40), "sent 140, nothing came back for 30 s");
        assert!(watch.probed(40, false));
        assert_eq!(watch.health(40), Health::Silent);
        assert_eq!(
            watch.words(40),
            "sent 140, nothing came back for 30 s: the PLAT does not answer"
        );
        // Asked again while somebody sends, and believed in again when it answers ...
        assert_eq!(run(&mut watch, 45, 12, 1, 0), [70, 75, 80, 85, 90, 95, 100]);
        assert!(watch.probed(100, true));
        assert!(!watch.is_silent());
        // ... or when something comes back.
        watch.probed(105, false);
        assert!(watch.is_silent());
        run(&mut watch, 110, 1, 1, 1);
        assert_eq!(watch.health(110), Health::Good);
    }

    #[test]
    fn a_plat_that_answers_is_asked_seldom() {
        let mut watch = PlatWatch::default();
        run(&mut watch, 0, 1, 0, 0);
        assert_eq!(run(&mut watch, 5, 7, 2, 0), [35]);
        assert!(!watch.probed(35, true));
        assert_eq!(watch.health(35), Health::Unanswered);
        assert!(watch.words(35).ends_with(", but the PLAT answers"));
        assert_eq!(run(&mut watch, 40, 60, 2, 0), [335]);
    }

    #[test]
    fn one_that_never_answered_gets_another_chance_and_a_known_one_does_not() {
        for (known, silent_after) in [(false, false), (true, true)] {
            let mut watch = PlatWatch::default();
            run(&mut watch, 0, 1, 0, 0);
            run(&mut watch, 5, 7, 2, 0);
            if known {
                watch.probed(35, true);
            }
            // It stays known when something comes back, and another probe without an answer changes nothing of that.
            run(&mut watch, 40, 1, 1, 1);
            run(&mut watch, 45, 7, 2, 0);
            watch.probed(80, false);
            run(&mut watch, 85, 120, 0, 0);
            assert_eq!(watch.is_silent(), silent_after, "known {known}");
        }
    }
}
