//! What some operations consist of.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::settings::SCRIPT_TIMEOUT;
use crate::sysctl::key;

/// A TUN device to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewTun {
    /// Device name.
    pub device: String,
    /// The ifalias that marks it as ours.
    pub alias: String,
    /// The device stays when nobody has it open. Only for TAYGA, which opens it by name.
    pub persistent: bool,
    /// Packet queues; 0 = one per core. A persistent device has one.
    pub queues: u32,
}

impl fmt::Display for NewTun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind: Cow<'_, str> = match self.queues {
            _ if self.persistent => "persistent".into(),
            0 => "a queue per core".into(),
            1 => "one queue".into(),
            several => format!("{several} queues").into(),
        };
        write!(f, "make TUN device {}, {kind}", self.device)
    }
}

/// A hold on a sysctl to be released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SysctlRelease {
    /// Key with slashes, from `net/`.
    pub key: String,
    /// Value while held.
    pub value: String,
    /// Value to restore.
    pub before: String,
    /// Sysctls that change when `before` is written (all/forwarding changes every device), and the values that
    /// they get back right after.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub give_back: BTreeMap<String, String>,
}

impl fmt::Display for SysctlRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, value, before) = (&self.key, &self.value, &self.before);
        write!(
            f,
            "release sysctl {key}: back to {before} if it is still {value} and nobody else holds it"
        )?;
        let mut others = self.give_back.iter();
        others.try_for_each(|(key, value)| write!(f, ", then {key}={value}"))
    }
}

/// One IPv6 sysctl of several devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnDevices {
    /// The devices. Plan, journal and facts of an instance share the list: with hundreds of uplinks each has hundreds.
    pub devices: Arc<[String]>,
    /// The last part of the key, such as `accept_ra`.
    pub name: String,
    /// Value while held.
    pub value: String,
    /// Value found before the first hold, and restored after the last one.
    pub before: String,
}

impl OnDevices {
    pub(super) fn held(&self) -> String {
        let (devices, name, value, before) = (self.devices.join(", "), &self.name, &self.value, &self.before);
        format!("hold sysctl {name}={value} (was {before}) on {devices}")
    }

    pub(super) fn released(&self) -> String {
        let (devices, name, value, before) = (self.devices.join(", "), &self.name, &self.value, &self.before);
        format!(
            "release sysctl {name} on {devices}: back to {before} where it is still {value} and nobody else holds it"
        )
    }

    /// The key of each device's sysctl.
    pub fn keys(&self) -> impl Iterator<Item = String> + '_ {
        self.devices.iter().map(|device| key(device, &self.name))
    }
}

/// An nft table to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewNftTable {
    /// The nft program.
    pub command: String,
    /// `ip6`, `inet`, ...
    pub family: String,
    /// Table name.
    pub table: String,
    /// The libnftables JSON commands that make it.
    pub ruleset: serde_json::Value,
}

/// An nft table to be deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NftTableDeletion {
    /// The nft program.
    pub command: String,
    /// `ip6`, `inet`, ...
    pub family: String,
    /// Table name.
    pub table: String,
    /// Only if the table has no rules: another program may use it by now.
    pub only_if_empty: bool,
}

impl fmt::Display for NftTableDeletion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let condition = if self.only_if_empty {
            " if it holds no rules"
        } else {
            ""
        };
        write!(f, "delete nft table {} {}{condition}", self.family, self.table)
    }
}

/// A rule in somebody's nft chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NftRule {
    /// `ip6` or `inet`.
    pub family: String,
    /// Table name.
    pub table: String,
    /// Chain name.
    pub chain: String,
    /// The statements, in libnftables JSON.
    pub statements: serde_json::Value,
    /// The comment names the instance and distinguishes this rule from its siblings.
    pub comment: String,
}

impl fmt::Display for NftRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} ({})", self.family, self.table, self.chain, self.comment)
    }
}

/// A run of a user's script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptRun {
    /// `script-up` or `script-down`.
    pub event: String,
    /// The shell command.
    pub command: String,
    /// Environment variables besides the daemon's own.
    pub environment: BTreeMap<String, String>,
    /// Seconds after which it is ended.
    #[serde(default = "default_script_timeout")]
    pub timeout_s: u32,
    /// Who runs it; none = the user that the daemon runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// For journals of clatds that knew no limit.
fn default_script_timeout() -> u32 {
    SCRIPT_TIMEOUT
}
