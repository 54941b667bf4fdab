//! Files (landlock(7)): read-only, but for the few places that clatd and the programs it runs write to.

use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus,
};
use tracing::debug;

use super::{Needs, runtime_is_there};
use crate::util::AnyError;

/// The newest rights that are known here; an older kernel enforces those that it knows.
const NEWEST: ABI = ABI::V5;
/// The settings of the network.
const SYSCTLS: &str = "/proc/sys/net";
const TUN: &str = "/dev/net/tun";
const NULL: &str = "/dev/null";
/// What the older kind of ip6tables locks.
const XTABLES_LOCK: &str = "/run/xtables.lock";

/// Makes all other files read-only, where no command of the administrator's would be held up.
pub(super) fn protect(needs: &Needs, runtime: &Path) -> Result<(), AnyError> {
    if needs.scripts {
        debug!("files stay writable, since scripts or programs of the administrator's may write to them");
        return Ok(());
    }
    if !runtime_is_there(runtime) {
        // The daemon says why, and ends.
        return Ok(());
    }
    if needs.xtables_lock {
        make_lock_file();
    }
    let everything = AccessFs::from_all(NEWEST);
    let written = AccessFs::WriteFile | AccessFs::Truncate | AccessFs::ReadFile;
    let mut places: Vec<(PathBuf, BitFlags<AccessFs>)> = vec![
        ("/".into(), AccessFs::from_read(NEWEST)),
        (runtime.to_owned(), everything),
        (SYSCTLS.into(), written | AccessFs::ReadDir),
        (TUN.into(), written | AccessFs::IoctlDev),
        (NULL.into(), written),
        (XTABLES_LOCK.into(), written),
    ];
    places.extend(needs.folders.iter().map(|folder| (folder.clone(), everything)));
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(everything)?
        .create()?;
    let mut held = Vec::new();
    for (path, access) in places {
        if let Ok(place) = PathFd::new(&path) {
            rules = rules.add_rule(PathBeneath::new(&place, access))?;
            held.push(place);
        }
    }
    let status = rules.restrict_self()?;
    match status.ruleset {
        RulesetStatus::NotEnforced => debug!("this kernel cannot make files read-only for a process (landlock)"),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => {
            debug!("files are read-only but for {SYSCTLS} and {}", runtime.display());
        }
    }
    // A rule is about what stands at a path now. /proc makes its folders anew when nobody has them open, so they are
    // kept open for as long as the process lives.
    std::mem::forget(held);
    Ok(())
}

/// Makes the lock file of the older ip6tables as that would, which it cannot any more.
fn make_lock_file() {
    let made = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(XTABLES_LOCK);
    match made {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => debug!("{XTABLES_LOCK}: {}", io::Error::from(error.kind())),
    }
}
