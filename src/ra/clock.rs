//! The time of router lifetimes, in the unit of their table.

use crate::clock::since_boot;

/// Milliseconds since the computer was started.
pub(super) fn now() -> u64 {
    u64::try_from(since_boot().as_millis()).unwrap_or(u64::MAX)
}
