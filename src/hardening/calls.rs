//! System calls (seccomp(2)). The daemon's programs (nft, ip6tables, scripts) inherit its filter, so that refuses what
//! none of them needs. Threads that move packets run nothing, and are told what they may call.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use libc::c_long;
use nix::errno::Errno;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch};

use super::Needs;
use crate::util::AnyError;

/// Other processes, the running kernel, the clock, keys, and parts of the kernel that attacks like.
const NEVER: &[c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];
/// What only this kind of machine has.
#[cfg(target_arch = "x86_64")]
const NEVER_HERE: &[c_long] = &[
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_kexec_file_load,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
];
#[cfg(not(target_arch = "x86_64"))]
const NEVER_HERE: &[c_long] = &[];
/// Mounts and namespaces, which a script may want.
const BUT_FOR_SCRIPTS: &[c_long] = &[
    libc::SYS_chroot,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_mount,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_umount2,
    libc::SYS_unshare,
];

/// What opens a file.
#[cfg(feature = "ebpf")]
const FILES: &[c_long] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
];

/// What a thread needs to read, translate and write packets, to use memory and locks, to log its end, and to end.
const PACKETS: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_write,
    libc::SYS_writev,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
];

/// Refuses what is not needed, with "operation not permitted".
pub(super) fn refuse(needs: &Needs) -> Result<(), AnyError> {
    let mut refused = [NEVER, NEVER_HERE].concat();
    if !needs.bpf {
        refused.push(libc::SYS_bpf);
    }
    if !needs.scripts {
        refused.extend(BUT_FOR_SCRIPTS);
    }
    let program = program(refused, SeccompAction::Allow, not_permitted())?;
    Ok(seccompiler::apply_filter(&program)?)
}

/// Allows the calling thread only what moving packets takes.
pub(super) fn allow_packets_only() -> Result<(), AnyError> {
    // Made once: made in each thread, it would take hundreds of threads time, and leave pieces in their caches of memory.
    static ALLOWED: OnceLock<BpfProgram> = OnceLock::new();
    let allowed = match ALLOWED.get() {
        Some(allowed) => allowed,
        None => {
            let made = program(PACKETS.to_vec(), not_permitted(), SeccompAction::Allow)?;
            ALLOWED.get_or_init(|| made)
        }
    };
    Ok(seccompiler::apply_filter(allowed)?)
}

/// Lets the calling thread open no file.
#[cfg(feature = "ebpf")]
pub(super) fn refuse_files() -> Result<(), AnyError> {
    let program = program(FILES.to_vec(), SeccompAction::Allow, not_permitted())?;
    Ok(seccompiler::apply_filter(&program)?)
}

/// An error rather than an end: where a kernel or a C library is newer than this list, packets shall pass.
fn not_permitted() -> SeccompAction {
    SeccompAction::Errno(Errno::EPERM as u32)
}

fn program(calls: Vec<c_long>, others: SeccompAction, listed: SeccompAction) -> Result<BpfProgram, AnyError> {
    let rules: BTreeMap<i64, Vec<SeccompRule>> =
        calls.into_iter().flat_map(numbers).map(|call| (call, vec![])).collect();
    let machine = TargetArch::try_from(std::env::consts::ARCH)?;
    Ok(SeccompFilter::new(rules, others, listed, machine)?.try_into()?)
}

/// A call's number, and on x86-64 the one of its other way in, x32.
fn numbers(call: c_long) -> impl Iterator<Item = i64> {
    const X32: i64 = 0x4000_0000;
    let other = cfg!(target_arch = "x86_64").then_some(call | X32);
    [call].into_iter().chain(other)
}
