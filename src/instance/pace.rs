//! How often an instance may change its plan. Others can send any number of changes at no cost, but each switch
//! breaks connections. So what works is kept while it holds, and beyond a few switches in a short time they are
//! spaced.

use std::collections::VecDeque;
use std::net::Ipv6Addr;
use std::time::Duration;

use clatd_stages::facts::Facts;
use clatd_translator::Pref64;
use tokio::time::Instant;

/// The pace of one instance.
#[derive(Debug, Default)]
pub struct Pace {
    /// The PLAT prefix that works now.
    pub(super) held: Option<Pref64>,
    /// When prefix or address changed lately.
    switches: VecDeque<Instant>,
    /// How many lives in a row were short.
    short_lives: u32,
    /// When to look again at a switch that was put off.
    pub(super) look_again: Option<Instant>,
}

impl Pace {
    /// How many switches of prefix or address in [`Pace::WINDOW`] are made at once.
    const MOST: usize = 4;
    const WINDOW: Duration = Duration::from_secs(30);
    /// A life of an instance is short if the instance was up for less than this.
    const SHORT: Duration = Duration::from_secs(10);
    /// How many short lives in a row cause no wait.
    const FREE: u32 = 2;
    /// The longest pause between short lives.
    const LONGEST_REST: Duration = Duration::from_secs(8);

    /// Whether a running instance may switch from these facts to those. If not, `look_again` says when. A switch to
    /// another uplink is always allowed, since the earlier uplink is lost or worse.
    pub(super) fn allows(&mut self, from: &Facts, to: &Facts) -> bool {
        if uplink(from) != uplink(to) || what_switches(from) == what_switches(to) {
            return true;
        }
        let now = Instant::now();
        self.switches.retain(|at| now.duration_since(*at) < Self::WINDOW);
        if let Some(first) = self.switches.front().filter(|_| self.switches.len() >= Self::MOST) {
            self.look_again = Some(*first + Self::WINDOW);
            return false;
        }
        self.switches.push_back(now);
        true
    }

    /// It was up for so long.
    pub(super) fn lived(&mut self, time: Duration) {
        self.short_lives = if time < Self::SHORT { self.short_lives + 1 } else { 0 };
    }

    /// How long it rests before it is set up again, whatever changes meanwhile.
    pub(super) fn rest(&self) -> Duration {
        match self.short_lives.checked_sub(Self::FREE) {
            None | Some(0) => Duration::ZERO,
            Some(more) => Duration::from_secs(1 << (more - 1).min(3)).min(Self::LONGEST_REST),
        }
    }
}

fn uplink(facts: &Facts) -> Option<u32> {
    facts.uplink.as_ref().map(|uplink| uplink.value.index)
}

fn what_switches(facts: &Facts) -> (Option<Pref64>, Option<Ipv6Addr>) {
    (
        facts.plat_prefix.as_ref().map(|fact| fact.value),
        facts.clat_v6_addr.as_ref().map(|fact| fact.value),
    )
}

#[cfg(test)]
mod tests {
    use clatd_stages::facts::{Fact, Source};

    use super::*;

    fn facts(prefix: &str) -> Facts {
        Facts {
            plat_prefix: Some(Fact::new(prefix.parse().unwrap(), Source::Configuration)),
            ..Facts::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_switches_are_made_at_once_and_more_are_spaced() {
        let (mut pace, one, other) = (Pace::default(), facts("64:ff9b::/96"), facts("2001:db8::/96"));
        for _ in 0..100 {
            assert!(pace.allows(&one, &one), "no switch at all");
        }
        for _ in 0..Pace::MOST {
            assert!(pace.allows(&one, &other));
        }
        assert!(!pace.allows(&one, &other));
        let again = pace.look_again.unwrap();
        tokio::time::advance(again - Instant::now()).await;
        assert!(pace.allows(&one, &other));
    }

    #[test]
    fn short_lives_make_it_rest_ever_longer() {
        let mut pace = Pace::default();
        let rests: Vec<u64> = (0..9)
            .map(|_| {
                pace.lived(Duration::from_secs(1));
                pace.rest().as_secs()
            })
            .collect();
        assert_eq!(rests, [0, 0, 1, 2, 4, 8, 8, 8, 8]);
        pace.lived(Duration::from_secs(10));
        assert_eq!(pace.rest(), Duration::ZERO);
    }
}
