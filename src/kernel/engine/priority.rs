//! The priority of the threads that move packets.

use std::io;

use rustix::process::{getpriority_process, setpriority_process};

/// How many steps of niceness a packet thread is ahead of the daemon and, by default, of every program. If a thread
/// waits for its turn behind the programs whose packets it carries, it delays all of them: their windows run empty,
/// and they sleep while their data waits here. A larger value would take the processor away from them (both were
/// measured).
pub(crate) const STEPS: i32 = 5;

/// Puts the calling thread ahead of the others. It needs CAP_SYS_NICE, or a limit (RLIMIT_NICE) that allows it.
pub(super) fn raise() -> io::Result<()> {
    // On Linux, this is the calling thread.
    let now = getpriority_process(None)?;
    Ok(setpriority_process(None, now - STEPS)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The quick tests run without root, too. Then the thread stays where it is.
    #[test]
    fn only_the_calling_thread_is_raised_where_that_is_allowed() {
        let niceness = || getpriority_process(None).unwrap();
        let before = niceness();
        let thread = std::thread::spawn(move || (raise().is_ok(), niceness()));
        let (allowed, raised) = thread.join().unwrap();
        let may = caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_NICE).unwrap();
        assert!(allowed || !may);
        assert_eq!(raised, if allowed { (before - STEPS).max(-20) } else { before });
        assert_eq!(niceness(), before);
    }
}
