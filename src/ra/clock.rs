//! The clock by which lifetimes end: it also runs while the computer sleeps, which tokio's does not.

#![allow(unsafe_code)]

/// Milliseconds since the computer was started.
pub(super) fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a `timespec` of ours. Linux has had this clock since 2.6.39, so it cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    let (seconds, nanoseconds) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    #[allow(clippy::useless_conversion, reason = "both are 32 bits long on some targets")]
    {
        u64::from(seconds) * 1000 + u64::from(nanoseconds) / 1_000_000
    }
}
