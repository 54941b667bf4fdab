//! The priority of the threads that move packets.

use std::io;

use rustix::process::{getpriority_process, setpriority_process};

/// How many steps of niceness a packet thread is ahead of the daemon and, by default, of every program. If a thread
/// waits for its turn behind the programs whose packets it carries, it delays all of them: their windows run empty,
/// and they sleep while their data waits here. A larger value would take the processor away from them (both were
/// measured).
pub(crate) const STEPS: i32 = 5;

/// Puts the calling thread ahead of the others. Needs CAP_SYS_NICE, or a limit
/// (RLIMIT_NICE) that allows it.
pub(super) fn raise() -> io::Result<()> {
    // On Linux, this is the calling thread.
    let now = getpriority_process(None)?;
    Ok(setpriority_process(None, now - STEPS)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_calling_thread_is_raised() {
        let niceness = || getpriority_process(None).unwrap();
        let before = niceness();
        let raised = std::thread::spawn(move || {
            raise().unwrap();
            niceness()
        });
        assert_eq!(raised.join().unwrap(), (before - STEPS).max(-20));
        assert_eq!(niceness(), before);
    }
}
