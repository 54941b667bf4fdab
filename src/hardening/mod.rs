//! Gives up every right that the daemon does not need, before its first thread begins: so all threads and all programs
//! that they start are held to it.
//!
//! | wall | who is behind it | module |
//! |---|---|---|
//! | capabilities: the few that the configuration needs | all threads and programs | `capabilities` |
//! | no new privileges: set-user-ID programs give none | all threads and programs | here |
//! | files: read-only but for a few places (landlock) | all threads and programs, unless scripts are configured | `files` |
//! | system calls: what nobody here needs is refused (seccomp) | all threads and programs | `calls` |
//! | no capability at all, and a short list of system calls | threads that move packets | `packet_thread` |
//!
//! What cannot be given up is said, and the daemon runs: a host without IPv4 is the worse outcome. `hardening=no` leaves
//! all of it out. `SECURITY.md` says why each right is kept.

use std::collections::BTreeSet;
#[cfg(feature = "ebpf")]
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use clatd_stages::fast_path;
use clatd_stages::settings::{ClatV6Addr, Settings, TranslatorChoice};
use nix::sys::prctl;
use tracing::{debug, warn};

use crate::config::LoadedConfig;
use crate::kernel::ip6tables::locks_a_file;
use crate::kernel::{FileJournal, command};
use crate::trusted;
use crate::util::AnyError;

#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "riscv64", target_endian = "little")
))]
mod calls;
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "riscv64", target_endian = "little")
)))]
#[path = "calls_absent.rs"]
mod calls;
mod capabilities;
mod files;

/// What was kept; unset = nothing was given up.
static KEPT: OnceLock<Needs> = OnceLock::new();

/// What a configuration needs besides what every clatd needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Needs {
    /// The fast path in the kernel.
    bpf: bool,
    /// UDP port 546 (DHCPv6), or a port below 1024 for metrics.
    low_ports: bool,
    /// Gives the control socket to a group.
    control_group: bool,
    /// Commands of the administrator's, which may do what nobody can foresee.
    scripts: bool,
    /// Scripts and helper programs that run as another user.
    script_user: bool,
    /// The lock file of the older kind of ip6tables.
    xtables_lock: bool,
    /// Folders in which files are made, besides the runtime directory.
    folders: BTreeSet<PathBuf>,
}

/// Gives up what `loaded` does not need. Called once, while the process has one thread.
pub fn enter(loaded: &LoadedConfig) {
    if !loaded.base.general.hardening {
        debug!("hardening=no: nothing is given up");
        return;
    }
    let mut needs = Needs::of(loaded);
    if FileJournal::list(&loaded.runtime_dir).is_ok_and(|left| !left.is_empty()) {
        debug!("what a killed clatd left behind is undone first, so more rights are kept until the next start");
        needs.scripts = true;
        needs.bpf = cfg!(feature = "ebpf");
    }
    if let Err(failure) = prctl::set_no_new_privs() {
        warn!("hardening: set-user-ID programs still work for programs that clatd runs: {failure}");
    }
    report("files stay writable", files::protect(&needs, &loaded.runtime_dir));
    report("capabilities are kept", capabilities::keep(&needs));
    report("no system call is refused", calls::refuse(&needs));
    let _ = KEPT.set(needs);
}

/// What a configuration that is read later lacks, in words: it can be had by a restart only.
pub fn lacking(loaded: &LoadedConfig) -> Vec<&'static str> {
    match KEPT.get() {
        Some(kept) => kept.lacks(&Needs::of(loaded)),
        None => Vec::new(),
    }
}

/// Leaves the calling thread what moving packets takes: reading, writing, waiting.
pub(crate) fn packet_thread() {
    if KEPT.get().is_none() {
        return;
    }
    let given_up = capabilities::give_up_all().and_then(|()| calls::allow_packets_only());
    if let Err(failure) = given_up {
        debug!("a thread that moves packets keeps rights that it does not need: {failure}");
    }
}

/// Does `work` on a thread of its own that can open no file.
#[cfg(feature = "ebpf")]
pub(crate) fn without_files<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, || {
            if let Err(failure) = calls::refuse_files() {
                debug!("a thread that needs no file can open some: {failure}");
            }
            work()
        })?;
        thread.join().or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn report(consequence: &str, done: Result<(), AnyError>) {
    if let Err(failure) = done {
        warn!("hardening: {consequence}: {failure}; set hardening=no to run without hardening");
    }
}

impl Needs {
    fn of(loaded: &LoadedConfig) -> Self {
        let mut needs = Self {
            control_group: loaded.base.general.control_group.is_some(),
            script_user: loaded.base.general.script_user.is_some(),
            low_ports: loaded
                .base
                .general
                .metrics_listen
                .is_some_and(|address| address.port() < 1024),
            ..Self::default()
        };
        for configured in loaded.configured() {
            needs.add(&configured.instance.settings);
        }
        needs
    }

    fn add(&mut self, settings: &Settings) {
        let has_script = settings.general.script_up.is_some() || settings.general.script_down.is_some();
        let programs = [
            &settings.programs.cmd_nft,
            &settings.programs.cmd_ip6tables,
            &settings.programs.cmd_tayga,
        ];
        // A program that is named by its path may be anything, such as a wrapper that keeps a log.
        let is_special = programs.iter().any(|program| program.contains('/'));
        self.xtables_lock |= command::find(&settings.programs.cmd_ip6tables).is_some_and(|path| locks_a_file(&path));
        self.scripts |= is_special || has_script;
        self.script_user |= has_script && settings.general.script_user.is_some();
        self.low_ports |= settings.clat.clat_v6_addr == ClatV6Addr::Pd;
        self.bpf |= cfg!(feature = "ebpf") && fast_path::may_run(settings, TranslatorChoice::Ebpf);
        let file = settings.translator.tayga_conffile.as_deref().map(Path::new);
        if let Some(folder) = file
            .and_then(Path::parent)
            .filter(|_| fast_path::may_run(settings, TranslatorChoice::Tayga))
        {
            self.folders.insert(folder.to_owned());
        }
    }

    fn lacks(&self, wanted: &Self) -> Vec<&'static str> {
        [
            (wanted.bpf && !self.bpf, "the fast path (translator)"),
            (
                wanted.low_ports && !self.low_ports,
                "a port below 1024 (clat-v6-addr=pd, metrics-listen)",
            ),
            (
                wanted.scripts && !self.scripts,
                "scripts or programs with a path of their own",
            ),
            (wanted.script_user && !self.script_user, "another script-user"),
            (
                wanted.xtables_lock && !self.xtables_lock && !self.scripts,
                "an ip6tables of the older kind (cmd-ip6tables)",
            ),
            (
                !self.scripts && !wanted.folders.is_subset(&self.folders),
                "another folder to write in (tayga-conffile)",
            ),
        ]
        .into_iter()
        .filter_map(|(lacks, what)| lacks.then_some(what))
        .collect()
    }
}

/// Whether the runtime directory is there and ours, so that it can be named.
fn runtime_is_there(runtime: &Path) -> bool {
    trusted::create_directory(runtime).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(all(feature = "ebpf", target_arch = "x86_64"))]
    #[test]
    fn a_thread_without_files_opens_none_and_others_do() {
        let read = || std::fs::read("/proc/self/status");
        let there = without_files(read).expect("a thread");
        assert_eq!(
            there.map_err(|error| error.kind()),
            Err(io::ErrorKind::PermissionDenied)
        );
        read().expect("this thread opens files as before");
    }

    fn needs(change: impl FnOnce(&mut Settings)) -> Needs {
        let mut settings = Settings::default();
        settings.translator.translator = TranslatorChoice::Userspace;
        settings.programs.cmd_ip6tables = "no-such-program".into();
        change(&mut settings);
        let mut needs = Needs::default();
        needs.add(&settings);
        needs
    }

    #[test]
    fn each_setting_keeps_what_it_needs_and_no_more() {
        assert_eq!(needs(|_| {}), Needs::default());
        assert_eq!(
            needs(|settings| settings.clat.clat_v6_addr = ClatV6Addr::Pd),
            Needs {
                low_ports: true,
                ..Needs::default()
            }
        );
        let scripts = Needs {
            scripts: true,
            ..Needs::default()
        };
        assert_eq!(
            needs(|settings| settings.general.script_down = Some("true".into())),
            scripts
        );
        assert_eq!(needs(|settings| settings.programs.cmd_nft = "/opt/nft".into()), scripts);
        let users = needs(|settings| {
            settings.general.script_up = Some("true".into());
            settings.general.script_user = Some("nobody".into());
        });
        assert!(users.script_user && users.scripts);
        let tayga = needs(|settings| {
            settings.translator.translator = TranslatorChoice::Tayga;
            settings.translator.tayga_conffile = Some("/etc/tayga/one.conf".into());
        });
        assert!(tayga.folders.contains(Path::new("/etc/tayga")), "{tayga:?}");
        assert_eq!(
            needs(|settings| settings.translator.translator = TranslatorChoice::Auto).bpf,
            cfg!(feature = "ebpf")
        );
    }

    #[test]
    fn what_is_wanted_later_is_compared_with_what_was_kept() {
        let (plain, scripts) = (
            needs(|_| {}),
            needs(|settings| settings.general.script_up = Some("true".into())),
        );
        assert_eq!(plain.lacks(&plain), Vec::<&str>::new());
        assert_eq!(scripts.lacks(&plain), Vec::<&str>::new());
        assert_eq!(plain.lacks(&scripts), ["scripts or programs with a path of their own"]);
    }
}
