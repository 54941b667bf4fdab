//! Child processes.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

use libc::{c_int, c_ulong, gid_t, uid_t};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{getpid, getppid};

/// `CAP_NET_ADMIN` of `linux/capability.h`.
const NET_ADMIN: c_int = 12;
/// `_LINUX_CAPABILITY_VERSION_3` of the same file.
const VERSION: u32 = 0x2008_0522;

/// What capset(2) takes: whose capabilities.
#[repr(C)]
struct Header {
    version: u32,
    /// 0 = the calling thread.
    pid: c_int,
}

/// What capset(2) takes: 32 capabilities.
#[repr(C)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The process of the command dies when the thread that starts it ends, so at the latest when this process ends.
///
/// Call this after what changes the command's user: that change makes the kernel forget this setting.
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

/// The program of the command runs as this user, in this group and no other, with CAP_NET_ADMIN and no other capability.
pub(crate) fn be_network_admin(command: &mut Command, user: uid_t, group: gid_t) {
    let become_it = move || {
        // Without this, a change of the user takes all capabilities away.
        prctl::set_keepcaps(true)?;
        // SAFETY: the list of groups is empty, so the pointer is not read.
        Errno::result(unsafe { libc::setgroups(0, ptr::null()) })?;
        // SAFETY: plain numbers.
        Errno::result(unsafe { libc::setgid(group) })?;
        // SAFETY: plain numbers.
        Errno::result(unsafe { libc::setuid(user) })?;
        keep_net_admin()
    };
    // SAFETY: between fork and exec only prctl(2), setgroups(2), setgid(2), setuid(2) and capset(2) are called. The first
    // and the last are bare system calls, and the standard library itself makes the others at this place
    // (`Command::uid`). The closure owns nothing but numbers and allocates nothing.
    unsafe { command.pre_exec(become_it) };
}

/// Leaves the calling thread, and the program that it executes next, this one capability.
fn keep_net_admin() -> io::Result<()> {
    let header = Header {
        version: VERSION,
        pid: 0,
    };
    let net_admin = 1 << NET_ADMIN;
    let halves = [
        Half {
            effective: net_admin,
            permitted: net_admin,
            inheritable: net_admin,
        },
        Half {
            effective: 0,
            permitted: 0,
            inheritable: 0,
        },
    ];
    // SAFETY: both structures are those of the kernel for this version, and live until the call has returned.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw const header, halves.as_ptr()) })?;
    // The kernel reads whole registers.
    let (raise, capability, none): (c_ulong, c_ulong, c_ulong) =
        (libc::PR_CAP_AMBIENT_RAISE as c_ulong, NET_ADMIN as c_ulong, 0);
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, raise, capability, none, none) })?;
    Ok(())
}
