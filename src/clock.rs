//! The clock for lifetimes. It also runs while the computer sleeps; tokio's clock does not.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time since the computer was started, including sleep.
pub(crate) fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}
