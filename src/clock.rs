//! The clock for lifetimes. It also runs while the computer sleeps; tokio's clock does not.

#![allow(unsafe_code)]

use std::time::Duration;

/// Time since the computer was started, including sleep.
pub(crate) fn since_boot() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a `timespec` of ours. Linux has had this clock since 2.6.39, so it cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    #[allow(clippy::useless_conversion, reason = "both are 32 bits long on some targets")]
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}
