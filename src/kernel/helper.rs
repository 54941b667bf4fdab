//! Who runs the helper programs (nft, ip6tables, TAYGA): `script-user` with the one capability that changes the network,
//! where that user is set and clatd may become it. Otherwise the daemon's own user does, with all that the daemon may.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use caps::{CapSet, Capability};
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{User, geteuid};
use tracing::warn;

use crate::sys::child::be_network_admin;
use crate::util::lock;

/// What becoming another user takes, and ending its programs.
const NEEDED: [Capability; 3] = [Capability::CAP_SETUID, Capability::CAP_SETGID, Capability::CAP_KILL];

/// The `script-user` of now, and who that is.
static CHOSEN: Mutex<Chosen> = Mutex::new(Chosen { name: None, user: None });

struct Chosen {
    name: Option<String>,
    user: Option<HelperUser>,
}

/// A user other than the daemon's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HelperUser {
    user: libc::uid_t,
    group: libc::gid_t,
}

/// From now on this user runs helper programs.
pub(super) fn choose(name: Option<&str>) {
    let mut chosen = lock(&CHOSEN);
    if chosen.name.as_deref() == name {
        return;
    }
    let found = name.map(HelperUser::find).transpose();
    *chosen = Chosen {
        name: name.map(str::to_owned),
        user: found
            .unwrap_or_else(|why| {
                warn!("nft, ip6tables and TAYGA run as clatd's own user, not as script-user: {why}");
                None
            })
            .flatten(),
    };
}

/// Who runs helper programs; `None` = the daemon's own user.
pub(super) fn user() -> Option<HelperUser> {
    lock(&CHOSEN).user
}

impl HelperUser {
    /// `None` = the daemon itself runs as this user.
    fn find(name: &str) -> Result<Option<Self>, String> {
        let found = User::from_name(name).map_err(|error| format!("{name} cannot be looked up: {error}"))?;
        let found = found.ok_or_else(|| format!("there is no user {name}"))?;
        if found.uid == geteuid() {
            return Ok(None);
        }
        let lacks: Vec<String> = NEEDED
            .into_iter()
            .filter(|needed| !caps::has_cap(None, CapSet::Effective, *needed).unwrap_or(false))
            .map(|lacking| lacking.to_string())
            .collect();
        if !lacks.is_empty() {
            return Err(format!("becoming {name} takes {}", lacks.join(", ")));
        }
        Ok(Some(Self {
            user: found.uid.as_raw(),
            group: found.gid.as_raw(),
        }))
    }

    /// The program of the command runs as this user.
    pub(super) fn runs(self, command: &mut Command) {
        be_network_admin(command, self.user, self.group);
    }

    /// Whether it may read and write what stands at the path.
    pub(super) fn may_use(self, path: &Path) -> bool {
        path.metadata().is_ok_and(|found| {
            let bits = match (found.uid() == self.user, found.gid() == self.group) {
                (true, _) => found.mode() >> 6,
                (false, true) => found.mode() >> 3,
                (false, false) => found.mode(),
            };
            bits & 0o6 == 0o6
        })
    }
}

/// Memory with this text, which whoever is given it may also open by a name such as /dev/stdin. That fails for a pipe of
/// another user's.
pub(super) fn readable(text: &[u8]) -> io::Result<File> {
    let make = |flags| memfd_create("clatd", flags);
    // Kernels before 6.3 do not know that programs cannot be made of it. Later ones may demand it.
    let made = match make(MFdFlags::MFD_CLOEXEC | MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL)) {
        Err(Errno::EINVAL) => make(MFdFlags::MFD_CLOEXEC),
        made => made,
    };
    let mut file = File::from(made?);
    file.write_all(text)?;
    file.rewind()?;
    Ok(file)
}
