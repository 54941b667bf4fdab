//! Sysctls, and the table of holds on those that belong to no single instance.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use clatd_stages::journal::Outcome;
use serde_json::json;

use super::failure::{Done, Failure, NOTHING};
use super::fastpath::FastPath;

const ROOT: &str = "/proc/sys";

/// A key that clatd does not touch.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no sysctl key below net/")]
pub struct BadKey(String);

/// Reads a sysctl; `None` = this kernel has no such key, or its device is gone.
pub(crate) fn read(key: &str) -> io::Result<Option<String>> {
    match std::fs::read_to_string(path(key).map_err(io::Error::other)?) {
        Ok(text) => Ok(Some(text.trim_end_matches('\n').to_owned())),
        Err(error) if vanished(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sets a sysctl of a device of ours.
pub(crate) fn set(key: &str, value: &str) -> Done {
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

/// How a sysctl answers whose device went: the file is not there, or went between opening and reading it.
fn vanished(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO | libc::ENOTDIR)
    )
}

/// Who holds sysctls, which belong to no single instance. One table for all instances of the daemon: clones share it.
#[derive(Debug, Clone, Default)]
pub struct Holds {
    table: Arc<Mutex<BTreeMap<String, Hold>>>,
    pub(crate) fast_path: FastPath,
}

/// Writing it sets every device's `forwarding`.
const ALL_FORWARDING: &str = "net/ipv6/conf/all/forwarding";

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

/// What giving a hold back restores.
pub(crate) struct Release<'a> {
    pub(crate) key: &'a str,
    pub(crate) value: &'a str,
    pub(crate) before: &'a str,
    /// What writing `before` resets, and what it is set to right after.
    pub(crate) give_back: &'a BTreeMap<String, String>,
}

#[derive(Debug)]
struct Hold {
    value: String,
    before: String,
    /// What else writing it changed, with the values from before.
    reset: BTreeMap<String, String>,
    holders: BTreeSet<String>,
}

impl Holds {
    /// The value that a held sysctl had before its first holder; `None` = nobody holds it.
    pub fn before(&self, key: &str) -> Option<String> {
        let table = self.lock();
        let reset = || table.values().find_map(|hold| hold.reset.get(key).cloned());
        table.get(key).map(|hold| hold.before.clone()).or_else(reset)
    }

    /// Adds a holder; the first writes the value.
    pub(crate) fn acquire(&self, holder: &str, key: &str, value: &str, before: &str) -> Done {
        let mut table = self.lock();
        if let Some(hold) = table.get_mut(key) {
            if hold.value != value {
                let holders = hold.holders.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                return Err(Failure::new(format!("instance {holders} holds it at {}", hold.value))
                    .hint("the two instances need different values; stop one, or switch off what needs the value"));
            }
            // Somebody else may have changed it since the first holder wrote it.
            if read(key)?.as_deref() != Some(value) {
                write(key, value)?;
            }
            hold.holders.insert(holder.to_owned());
            return Ok(json!({ "before": hold.before }));
        }
        // What counts is the value found now; the one in the plan is from a moment ago.
        let before = read(key)?.unwrap_or_else(|| before.to_owned());
        let reset = if key == ALL_FORWARDING {
            forwarding_of_devices()
        } else {
            BTreeMap::new()
        };
        if before != value {
            write(key, value)?;
        }
        let outcome = json!({ "before": before });
        let holders = BTreeSet::from([holder.to_owned()]);
        table.insert(
            key.to_owned(),
            Hold {
                value: value.to_owned(),
                before,
                reset,
                holders,
            },
        );
        Ok(outcome)
    }

    /// Takes a holder away; the last restores the value from before, if the sysctl still has ours. A hold that is not
    /// in the table is one of a killed daemon, or one that failed.
    pub(crate) fn release(&self, holder: &str, release: &Release<'_>, outcome: Option<&Outcome>) -> Done {
        let Release {
            key,
            value,
            before,
            give_back,
        } = *release;
        let mut table = self.lock();
        let before = match table.get_mut(key) {
            Some(hold) => {
                if !hold.holders.contains(holder) || hold.holders.len() > 1 {
                    hold.holders.remove(holder);
                    return Ok(NOTHING);
                }
                hold.before.clone()
            }
            None => outcome
                .and_then(|outcome| outcome["before"].as_str())
                .unwrap_or(before)
                .to_owned(),
        };
        if before != value && read(key)?.as_deref() == Some(value) {
            restore(key, &before)?;
            for (key, value) in give_back {
                restore(key, value)?;
            }
        }
        table.remove(key);
        Ok(NOTHING)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Hold>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
}
