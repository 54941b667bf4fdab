//! Sysctls, and the table of holds on those that belong to no single instance.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clatd_stages::journal::{Left, Outcome};
use clatd_stages::op::SysctlRelease;
use nix::net::if_::if_nametoindex;

use super::failure::{Failure, NOTHING, OpResult};
use super::fastpath::FastPath;
use crate::util::lock;

const ROOT: &str = "/proc/sys";

/// This is no sysctl that clatd may touch.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no sysctl key below net/")]
pub struct BadKey(String);

/// Reads a sysctl; `None` = this kernel has no such key, or its device is gone.
pub(crate) fn read(key: &str) -> io::Result<Option<String>> {
    match read_whole(&path(key).map_err(io::Error::other)?) {
        Ok(text) => Ok(Some(text.trim_end_matches('\n').to_owned())),
        Err(error) if vanished(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The kernel gives the whole value at the first read. One read is enough, and it matters: hundreds of uplinks read
/// hundreds of thousands of sysctls.
fn read_whole(path: &Path) -> io::Result<String> {
    let mut buffer = [0; 256];
    let length = File::open(path)?.read(&mut buffer)?;
    match buffer.get(..length) {
        Some(text) if length < buffer.len() => Ok(String::from_utf8_lossy(text).into_owned()),
        Some(_) | None => std::fs::read_to_string(path),
    }
}

/// Sets a sysctl of a device of ours. Part of a [`Holds::change`].
pub(crate) fn set(key: &str, value: &str) -> OpResult {
    write(key, value)?;
    Ok(NOTHING)
}

fn write(key: &str, value: &str) -> Result<(), Failure> {
    match std::fs::write(path(key)?, value) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied || error.raw_os_error() == Some(libc::EROFS) => {
            Err(Failure::new(error).hint("clatd must run as root with /proc/sys writable"))
        }
        Err(error) if vanished(&error) => {
            Err(Failure::new(error).hint("this kernel has no such sysctl, or the device is gone"))
        }
        Err(error) => Err(error.into()),
    }
}

/// Writes a sysctl unless it has the value, or its device is gone.
fn restore(key: &str, value: &str) -> Result<(), Failure> {
    match read(key)? {
        Some(found) if found != value => match write(key, value) {
            // Its device went between the two.
            Err(_) if read(key)?.is_none() => Ok(()),
            other => other,
        },
        _ => Ok(()),
    }
}

fn path(key: &str) -> Result<PathBuf, BadKey> {
    let safe = key.starts_with("net/") && !key.split('/').any(|part| matches!(part, "" | "." | ".."));
    if safe {
        Ok(Path::new(ROOT).join(key))
    } else {
        Err(BadKey(key.to_owned()))
    }
}

/// Whether the error means that the device is gone. Then the file is gone, too, at once or after it was opened.
fn vanished(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO | libc::ENOTDIR)
    )
}

/// Who holds the sysctls that belong to no single instance. All instances share one table: clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Holds {
    /// Locked only to look at the table or to change it, never while a sysctl is read or written.
    table: Arc<Mutex<BTreeMap<SysctlId, Hold>>>,
    /// Only one change runs at a time. It may wait for the kernel, so [`Holds::change`] alone locks this.
    changing: Arc<Mutex<()>>,
    lately: Arc<Mutex<Lately>>,
    pub(crate) fast_path: FastPath,
}

/// Values of sysctls that were read a moment ago. For a held sysctl it is the value from before the hold, so a new hold
/// does not make these values wrong.
#[derive(Debug, Default)]
struct Lately {
    /// When the first of them was read.
    since: Option<Instant>,
    values: BTreeMap<String, Option<String>>,
}

/// How long that is good for. With hundreds of uplinks each instance reads sysctls of all of them.
const LATELY: Duration = Duration::from_millis(100);

/// Writing it sets every device's `forwarding`.
const ALL_FORWARDING: &str = "net/ipv6/conf/all/forwarding";

/// A sysctl, whatever its device is called now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SysctlId {
    /// The key, where it is of a device without the name. It comes first, so that the same sysctl of all devices stands
    /// together in the table.
    key: String,
    /// The index of its device, if it is of one.
    device: Option<u32>,
}

impl SysctlId {
    /// The sysctl that has this key now; `None` = it is of a device, which is not there.
    fn now(key: &str) -> Option<Self> {
        match device_of(key) {
            None => Some(Self::of(key, None)),
            Some(device) => Some(Self::of(key, Some(if_nametoindex(device).ok()?))),
        }
    }

    pub(super) fn of(key: &str, device: Option<u32>) -> Self {
        let key = match device {
            None => key.to_owned(),
            Some(_) => of_device(key, ""),
        };
        Self { key, device }
    }
}

/// Every device's `forwarding`, and that of devices to come.
fn forwarding_of_devices() -> BTreeMap<String, String> {
    let devices = std::fs::read_dir("/proc/sys/net/ipv6/conf")
        .into_iter()
        .flatten()
        .flatten();
    let keys = devices.filter_map(|device| Some(format!("net/ipv6/conf/{}/forwarding", device.file_name().to_str()?)));
    keys.filter(|key| key != ALL_FORWARDING)
        .filter_map(|key| Some((key.clone(), read(&key).ok()??)))
        .collect()
}

#[derive(Debug)]
struct Hold {
    value: String,
    before: String,
    /// Other sysctls that the kernel reset when this one was written, with their values from before.
    reset: BTreeMap<SysctlId, String>,
    /// What the journal has of it, for its undo.
    outcome: Outcome,
    holders: BTreeSet<String>,
}

impl Holds {
    /// Makes a change on a thread of its own: the kernel makes writers of sysctls wait while devices change, and the
    /// runtime's threads must not wait.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let holds = self.clone();
        let changed = tokio::task::spawn_blocking(move || {
            let _one_at_a_time = lock(&holds.changing);
            work(&holds)
        });
        changed.await.map_err(Failure::new)?
    }

    /// The value that a held sysctl had before its first holder; `None` = nobody holds it.
    pub fn before(&self, key: &str) -> Option<String> {
        if !self.may_be_held(key) {
            return None;
        }
        self.before_at(&SysctlId::now(key)?)
    }

    /// The value that a sysctl has, or had before its first holder; read for all instances at once.
    pub(crate) fn lately(&self, key: &str) -> io::Result<Option<String>> {
        {
            let mut lately = lock(&self.lately);
            if lately.since.is_none_or(|since| since.elapsed() > LATELY) {
                lately.since = Some(Instant::now());
                lately.values.clear();
            }
            if let Some(value) = lately.values.get(key) {
                return Ok(value.clone());
            }
        }
        // A hold is in the table before its value is written: if that was read here, its value from before is found.
        let found = read(key)?;
        let value = self.before(key).or(found);
        lock(&self.lately).values.insert(key.to_owned(), value.clone());
        Ok(value)
    }

    /// False = this sysctl is held on no device, so the index of its device need not be looked up.
    fn may_be_held(&self, key: &str) -> bool {
        let table = self.lock();
        let all = SysctlId::of(ALL_FORWARDING, None);
        let first = SysctlId::of(key, device_of(key).map(|_| 0));
        let mut same = table.range(&first..).take_while(|(id, _)| id.key == first.key);
        same.next().is_some() || table.get(&all).is_some_and(|hold| !hold.reset.is_empty())
    }

    pub(super) fn before_at(&self, id: &SysctlId) -> Option<String> {
        let table = self.lock();
        let reset = || table.get(&SysctlId::of(ALL_FORWARDING, None))?.reset.get(id).cloned();
        table.get(id).map(|hold| hold.before.clone()).or_else(reset)
    }

    /// Adds a holder to a hold that others have on the same value already; false = nobody has, or this holder has it, and
    /// does it again. The first holder sees to it that the value stays.
    pub(super) fn share(&self, holder: &str, id: &SysctlId, value: &str) -> bool {
        match self.lock().get_mut(id) {
            Some(hold) if hold.value == value && !hold.holders.is_empty() => hold.holders.insert(holder.to_owned()),
            Some(_) | None => false,
        }
    }

    /// Takes a holder away who is not the last one; false = he is, or there is no such hold.
    pub(super) fn leave_to_others(&self, holder: &str, id: &SysctlId) -> bool {
        match self.lock().get_mut(id) {
            Some(hold) if !hold.holders.contains(holder) || hold.holders.len() > 1 => {
                hold.holders.remove(holder);
                true
            }
            Some(_) | None => false,
        }
    }

    /// The first of those who hold a sysctl.
    pub(crate) fn first_holder(&self, key: &str) -> Option<String> {
        let id = SysctlId::now(key)?;
        self.lock().get(&id)?.holders.first().cloned()
    }

    /// Adds a holder; the first writes the value. Part of a [`Self::change`].
    pub(crate) fn acquire(&self, holder: &str, key: &str, value: &str, before: &str) -> OpResult {
        let Some(id) = SysctlId::now(key) else {
            return Err(Failure::new(io::Error::from_raw_os_error(libc::ENODEV)).hint("the device is gone"));
        };
        if let Some(outcome) = self.held_already(&id, value)? {
            // Somebody else may have changed it since the first holder wrote it.
            if read(key)?.as_deref() != Some(value) {
                write(key, value)?;
            }
            if let Some(hold) = self.lock().get_mut(&id) {
                hold.holders.insert(holder.to_owned());
            }
            return Ok(outcome);
        }
        // What counts is the value found now; the one in the plan is from a moment ago.
        let before = read(key)?.unwrap_or_else(|| before.to_owned());
        let reset = if key == ALL_FORWARDING {
            forwarding_of_devices()
        } else {
            BTreeMap::new()
        };
        let left = Left::Hold {
            before: before.clone(),
            devices: forwarding(&reset),
        };
        let outcome = Outcome::from(left).on(id.device);
        let reset = reset
            .into_iter()
            .filter_map(|(key, value)| Some((SysctlId::now(&key)?, value)));
        let hold = Hold {
            value: value.to_owned(),
            before: before.clone(),
            reset: reset.collect(),
            outcome: outcome.clone(),
            holders: BTreeSet::from([holder.to_owned()]),
        };
        // Before the write, so that nobody takes our value for the one from before.
        self.lock().insert(id.clone(), hold);
        if before != value
            && let Err(failure) = write(key, value)
        {
            self.lock().remove(&id);
            return Err(failure);
        }
        Ok(outcome)
    }

    /// What the first holder left, if there is one; an error if it holds another value.
    fn held_already(&self, id: &SysctlId, value: &str) -> Result<Option<Outcome>, Failure> {
        let table = self.lock();
        let Some(hold) = table.get(id) else {
            return Ok(None);
        };
        if hold.value == value {
            return Ok(Some(hold.outcome.clone()));
        }
        let holders = hold.holders.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        Err(
            Failure::new(format!("instance {holders} holds this sysctl at {}", hold.value))
                .hint("the two instances need different values; stop one, or switch off what needs the value"),
        )
    }

    /// Takes a holder away; the last restores the value from before, if the sysctl still has ours. A hold that is not
    /// in the table is one of a killed daemon, or one that failed. `release` has the present names of devices. Part of a
    /// [`Self::change`].
    pub(crate) fn release(&self, holder: &str, release: &SysctlRelease, outcome: Option<&Outcome>) -> OpResult {
        let SysctlRelease {
            key,
            value,
            before,
            give_back,
        } = release;
        let Some(id) = SysctlId::now(key) else {
            return Ok(NOTHING);
        };
        if self.leave_to_others(holder, &id) {
            return Ok(NOTHING);
        }
        let in_table = self.lock().get(&id).map(|hold| hold.before.clone());
        let before = match in_table {
            Some(before) => before,
            None => match outcome.map(|outcome| &outcome.left) {
                Some(Left::Hold { before, .. }) => before.clone(),
                Some(_) | None => before.to_owned(),
            },
        };
        if before != *value && read(key)?.as_deref() == Some(value) {
            restore(key, &before)?;
            for (key, value) in give_back {
                restore(key, value)?;
            }
        }
        self.lock().remove(&id);
        Ok(NOTHING)
    }

    /// Takes a holder away from a sysctl that went with its device.
    pub(crate) fn forget(&self, holder: &str, key: &str, device: u32) {
        let id = SysctlId::of(key, Some(device));
        let mut table = self.lock();
        if let Some(hold) = table.get_mut(&id) {
            hold.holders.remove(holder);
            if hold.holders.is_empty() {
                table.remove(&id);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<SysctlId, Hold>> {
        lock(&self.table)
    }
}

/// The devices that forward, with their indexes.
fn forwarding(reset: &BTreeMap<String, String>) -> BTreeMap<String, u32> {
    let on = reset.iter().filter(|(_, value)| *value == "1");
    on.filter_map(|(key, _)| {
        let device = device_of(key)?;
        Some((device.to_owned(), if_nametoindex(device).ok()?))
    })
    .collect()
}

/// The device whose sysctl it is; `None` = it is of all devices, of those to come, or of none.
pub(crate) fn device_of(key: &str) -> Option<&str> {
    let parts: Vec<&str> = key.split('/').collect();
    match parts[..] {
        ["net", "ipv4" | "ipv6", "conf" | "neigh", device, _] if !matches!(device, "all" | "default") => Some(device),
        _ => None,
    }
}

/// The same sysctl of another device.
pub(crate) fn of_device(key: &str, device: &str) -> String {
    let mut parts: Vec<&str> = key.split('/').collect();
    if let (Some(part), Some(_)) = (parts.get_mut(3), device_of(key)) {
        *part = device;
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_below_net() {
        assert!(path("net/ipv6/conf/all/forwarding").is_ok());
        for bad in ["kernel/panic", "net/../kernel/panic", "/net/ipv6", "net//x", ""] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sysctls_of_devices_are_known() {
        for (key, device) in [
            ("net/ipv6/conf/up0/accept_ra", Some("up0")),
            ("net/ipv6/neigh/eth0.7/proxy_delay", Some("eth0.7")),
            ("net/ipv6/conf/all/forwarding", None),
            ("net/ipv6/conf/default/accept_ra", None),
            ("net/ipv4/ip_forward", None),
        ] {
            assert_eq!(device_of(key), device, "{key}");
        }
        let key = "net/ipv6/conf/up0/accept_ra";
        assert_eq!(of_device(key, "enp1s0"), "net/ipv6/conf/enp1s0/accept_ra");
        assert_eq!(of_device("net/ipv4/ip_forward", "enp1s0"), "net/ipv4/ip_forward");
    }
}
