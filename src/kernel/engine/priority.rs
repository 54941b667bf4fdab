//! The priority of the threads that move packets.

#![allow(unsafe_code)]

use std::io;

/// How many steps of niceness a packet thread is ahead of the daemon and, by default, of every program. If a thread
/// waits for its turn behind the programs whose packets it carries, it delays all of them: their windows run empty,
/// and they sleep while their data waits here. A larger value would take the processor away from them (both were
/// measured).
pub(crate) const STEPS: libc::c_int = 5;

/// Puts the calling thread ahead of the others. Needs CAP_SYS_NICE, or a limit
/// (RLIMIT_NICE) that allows it.
pub(super) fn raise() -> io::Result<()> {
    // SAFETY: these two take numbers only; on Linux, 0 names the calling thread. -1 is a niceness as well as an error,
    // and stands for the former here: reading that of a thread by itself does not fail.
    let result = unsafe {
        let now = libc::getpriority(libc::PRIO_PROCESS, 0);
        libc::setpriority(libc::PRIO_PROCESS, 0, now - STEPS)
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_calling_thread_is_raised() {
        // SAFETY: as above.
        let niceness = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        let before = niceness();
        let raised = std::thread::spawn(move || {
            raise().unwrap();
            niceness()
        });
        assert_eq!(raised.join().unwrap(), (before - STEPS).max(-20));
        assert_eq!(niceness(), before);
    }
}
