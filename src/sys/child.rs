//! Child processes.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{getpid, getppid};

/// The process of the command dies when the thread that starts it ends, and with it at the latest this process.
pub(crate) fn die_with_us(command: &mut Command) {
    let us = getpid();
    let die_with_us = move || {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // We may have died before that.
        if getppid() == us {
            Ok(())
        } else {
            Err(io::Error::from(Errno::ESRCH))
        }
    };
    // SAFETY: between fork and exec only prctl(2) and getppid(2) are called, which are async-signal-safe; the closure
    // owns nothing but a number and allocates nothing.
    unsafe { command.pre_exec(die_with_us) };
}
