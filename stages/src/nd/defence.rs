//! What to do when another node advertises an address of ours that is in use: RFC 5227 section 2.4 (b) in terms of
//! neighbour discovery, for which no RFC says it.
//!
//! ```text
//!               advertised                 advertised again after PATIENCE
//!  at peace ---------------> disputed -------------------------------------> given up
//!     ^                         |  ^ |
//!     +---- PEACE of silence ---+  +-+ advertised: ours is advertised too, at once or a second after the last time
//! ```
//!
//! One announcement, which may come three times a second apart (RFC 4861 section 7.2.6), so moves nothing.

use std::collections::VecDeque;
use std::time::Duration;

/// For so long clatd defends the address against another node before it gives the address up.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// A dispute ends after this much silence.
pub const PEACE: Duration = Duration::from_secs(30);
/// How many addresses are given up in `MOVES_WITHIN` (IDGEN_RETRIES of RFC 7217 section 7). Later ones are kept.
pub const MOST_MOVES: usize = 3;
/// See [`MOST_MOVES`].
pub const MOVES_WITHIN: Duration = Duration::from_secs(3600);
/// Between two advertisements of ours (RFC 4861 section 7.2.6).
const APART: Duration = Duration::from_secs(1);

/// What to do about a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    /// The address is to be advertised as ours.
    Defend,
    /// The same at this time, since it was advertised less than a second ago.
    DefendAt(Duration),
    /// The other node persists.
    GiveUp,
}

/// The defence of one address. Times are counted from any fixed moment.
#[derive(Debug, Clone, Default)]
pub struct Defence {
    begun: Option<Duration>,
    last: Duration,
    defended: Option<Duration>,
}

impl Defence {
    /// Another node advertised the address.
    pub fn conflict(&mut self, now: Duration) -> Reaction {
        if now.saturating_sub(self.last) >= PEACE {
            self.begun = None;
        }
        self.last = now;
        let begun = *self.begun.get_or_insert(now);
        if now.saturating_sub(begun) >= PATIENCE {
            return Reaction::GiveUp;
        }
        self.defend(now)
    }

    /// Whether the other node may still be there: it sent something within `PATIENCE`.
    pub fn is_disputed(&self, now: Duration) -> bool {
        self.begun.is_some() && now.saturating_sub(self.last) < PATIENCE
    }

    /// The same for an address that is kept whatever happens.
    pub fn defend(&mut self, now: Duration) -> Reaction {
        let due = self.defended.map(|defended| defended + APART);
        if let Some(due) = due.filter(|due| now < *due) {
            return Reaction::DefendAt(due);
        }
        self.defended = Some(now);
        Reaction::Defend
    }
}

/// The addresses that were given up on one link.
#[derive(Debug, Clone, Default)]
pub struct Moves(VecDeque<Duration>);

impl Moves {
    /// Whether one more address may be given up. If so, it is counted.
    pub fn allow(&mut self, now: Duration) -> bool {
        self.0.retain(|at| now.saturating_sub(*at) < MOVES_WITHIN);
        let allowed = self.0.len() < MOST_MOVES;
        if allowed {
            self.0.push_back(now);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(at: &[u64]) -> Vec<Reaction> {
        let mut defence = Defence::default();
        at.iter()
            .map(|ms| defence.conflict(Duration::from_millis(*ms)))
            .collect()
    }

    use Reaction::{Defend, DefendAt, GiveUp};

    #[test]
    fn an_announcement_is_answered_and_moves_nothing() {
        assert_eq!(answers(&[7_000, 8_000, 9_000]), [Defend; 3]);
        let later = DefendAt(Duration::from_secs(8));
        assert_eq!(answers(&[7_000, 7_010, 7_999, 8_100]), [Defend, later, later, Defend]);
    }

    #[test]
    fn a_node_that_persists_gets_the_address() {
        assert_eq!(answers(&[0, 4_999, 5_000]), [Defend, Defend, GiveUp]);
        assert_eq!(answers(&[0, 29_000]), [Defend, GiveUp]);
    }

    #[test]
    fn the_other_node_is_asked_until_it_is_silent() {
        let mut defence = Defence::default();
        assert!(!defence.is_disputed(Duration::ZERO));
        defence.conflict(Duration::from_secs(1));
        assert!(defence.is_disputed(Duration::from_secs(5)));
        assert!(!defence.is_disputed(Duration::from_secs(6)));
    }

    #[test]
    fn silence_ends_the_dispute() {
        assert_eq!(answers(&[0, 30_000, 60_000, 61_000]), [Defend; 4]);
    }

    #[test]
    fn moves_are_few() {
        let mut moves = Moves::default();
        let allowed: Vec<bool> = (0..6)
            .map(|minute| moves.allow(Duration::from_secs(60 * minute)))
            .collect();
        assert_eq!(allowed, [true, true, true, false, false, false]);
        assert!(moves.allow(MOVES_WITHIN));
        assert!(!moves.allow(MOVES_WITHIN));
    }
}
