//! Operations: all changes that clatd ever makes to a system, as plain data.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv6Addr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::fast_path::{Attachment, FastPathSpec};
use crate::net::{Route, Rule};
use crate::settings::SCRIPT_TIMEOUT;
use crate::sysctl::key;
use crate::translator::TranslatorSpec;

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
    fn held(&self) -> String {
        let (devices, name, value, before) = (self.devices.join(", "), &self.name, &self.value, &self.before);
        format!("hold sysctl {name}={value} (was {before}) on {devices}")
    }

    fn released(&self) -> String {
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

/// One change to the system. The set is closed: print, execution and undo are exhaustive matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Op {
    /// Makes a TUN device, down, with our ifalias. It is persistent only if another program is to open it.
    CreateTun {
        /// Device name.
        device: String,
        /// The ifalias that marks it as ours.
        alias: String,
        /// The device stays when nobody has it open. Only for TAYGA, which opens it by name.
        persistent: bool,
        /// Packet queues; 0 = one per core. A persistent device has one.
        queues: u32,
    },
    /// Deletes a device if it has this ifalias.
    DeleteTun {
        /// Device name.
        device: String,
        /// The ifalias that it must bear.
        alias: String,
    },
    /// Brings a device up with this MTU.
    SetLinkUp {
        /// Device name.
        device: String,
        /// MTU in bytes.
        mtu: u32,
    },
    /// Puts an address on a device.
    AddAddress {
        /// Device name.
        device: String,
        /// Address and prefix length.
        address: IpNet,
    },
    /// Takes an address from a device.
    RemoveAddress {
        /// Device name.
        device: String,
        /// Address and prefix length.
        address: IpNet,
    },
    /// Sets a sysctl of a device of ours. It goes with the device.
    SetDeviceSysctl {
        /// Key with slashes, from `net/`.
        key: String,
        /// New value.
        value: String,
    },
    /// Takes a counted hold on a sysctl that belongs to no single instance. The first holder writes it.
    HoldSysctl {
        /// Key with slashes, from `net/`.
        key: String,
        /// Value while held.
        value: String,
        /// Value found before the first hold.
        before: String,
    },
    /// Releases the hold. The last holder restores `before` if the sysctl still has our `value`.
    ReleaseSysctl {
        /// Key with slashes, from `net/`.
        key: String,
        /// Value while held.
        value: String,
        /// Value to restore.
        before: String,
        /// Sysctls that change when `before` is written (all/forwarding changes every device), and the values that
        /// they get back right after.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        give_back: BTreeMap<String, String>,
    },
    /// Takes counted holds on one IPv6 sysctl of several devices, where it has `before`. One step for all of them: a host
    /// may have hundreds.
    HoldOnDevices(OnDevices),
    /// Gives those holds back.
    ReleaseOnDevices(OnDevices),
    /// Answers neighbour solicitations for an address on a device (proxy-ND).
    AddProxyNeighbour {
        /// Device name.
        device: String,
        /// The address answered for.
        address: Ipv6Addr,
    },
    /// Stops answering for it.
    RemoveProxyNeighbour {
        /// Device name.
        device: String,
        /// The address answered for.
        address: Ipv6Addr,
    },
    /// Joins an address of a device's link as an anycast address. The kernel then answers neighbour solicitations for
    /// it, also those of duplicate address detection, until the address is left or the daemon ends.
    JoinAnycast {
        /// Device name.
        device: String,
        /// The address joined.
        address: Ipv6Addr,
    },
    /// Leaves it.
    LeaveAnycast {
        /// Device name.
        device: String,
        /// The address joined.
        address: Ipv6Addr,
    },
    /// Adds a route.
    AddRoute {
        /// The route.
        route: Route,
    },
    /// Removes a route.
    RemoveRoute {
        /// The route.
        route: Route,
    },
    /// Adds a policy rule.
    AddRule {
        /// The rule.
        rule: Rule,
    },
    /// Removes a policy rule.
    RemoveRule {
        /// The rule.
        rule: Rule,
    },
    /// Only in journals of older versions, which moved the rule of the IPv6 local table from priority 0 to 1. Never
    /// planned now.
    HoldLocalRule {},
    /// The undo of `HoldLocalRule`: makes the rule the first one again.
    ReleaseLocalRule {},
    /// Inserts a rule at the head of another program's nft chain.
    InsertNftRule {
        /// The nft program.
        command: String,
        /// The rule.
        rule: NftRule,
    },
    /// Removes exactly that rule, which is found by its comment and handle.
    RemoveNftRule {
        /// The nft program.
        command: String,
        /// The rule.
        rule: NftRule,
    },
    /// Makes an nft table of our own with all its contents.
    CreateNftTable {
        /// The nft program.
        command: String,
        /// `ip6`, `inet`, ...
        family: String,
        /// Table name.
        table: String,
        /// The libnftables JSON commands that make it.
        ruleset: serde_json::Value,
    },
    /// Deletes an nft table of our own.
    DeleteNftTable {
        /// The nft program.
        command: String,
        /// `ip6`, `inet`, ...
        family: String,
        /// Table name.
        table: String,
        /// Only if the table has no rules: another program may use it by now.
        only_if_empty: bool,
    },
    /// Inserts a rule at the head of an ip6tables chain.
    InsertIp6tables {
        /// The ip6tables program.
        command: String,
        /// Chain of the filter table.
        chain: String,
        /// Matches and target.
        rule: Vec<String>,
    },
    /// Deletes exactly that rule.
    DeleteIp6tables {
        /// The ip6tables program.
        command: String,
        /// Chain of the filter table.
        chain: String,
        /// Matches and target.
        rule: Vec<String>,
    },
    /// Writes a file.
    WriteFile {
        /// Where.
        path: String,
        /// What.
        contents: String,
    },
    /// Removes a file.
    RemoveFile {
        /// Where.
        path: String,
    },
    /// Runs a user's script by `sh -c`.
    RunScript {
        /// `script-up` or `script-down`.
        event: String,
        /// The shell command.
        command: String,
        /// Environment variables besides the daemon's own.
        environment: BTreeMap<String, String>,
        /// Seconds after which it is ended.
        #[serde(default = "default_script_timeout")]
        timeout_s: u32,
        /// Who runs it; none = the user that the daemon runs as.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<String>,
    },
    /// Changes nothing. It carries an undo without a counterpart on the way up.
    Nothing {
        /// What it stands for.
        what: String,
    },
    /// Starts moving packets.
    StartTranslator {
        /// Who moves them, and how.
        translator: TranslatorSpec,
    },
    /// Stops moving packets on this device.
    StopTranslator {
        /// The CLAT device.
        device: String,
    },
    /// Attaches the programs of the fast path. A second one replaces the first.
    AttachFastPath {
        /// What they are to do.
        fast_path: FastPathSpec,
    },
    /// Takes them off.
    DetachFastPath {
        /// The CLAT device.
        device: String,
        /// The uplink.
        uplink: String,
        /// How they were attached.
        attachment: Attachment,
    },
    /// Sets the next hop of the CLAT's packets in the fast path.
    SetNextHop {
        /// The CLAT device.
        device: String,
        /// The uplink.
        uplink: String,
        /// The router; none = the destinations are neighbours.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gateway: Option<Ipv6Addr>,
    },
}

/// For journals of clatds that knew no limit.
fn default_script_timeout() -> u32 {
    SCRIPT_TIMEOUT
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

/// How a step is taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Undo {
    /// By this operation.
    Op(Op),
    /// By itself, when this device goes.
    GoesWith {
        /// Device name.
        goes_with: String,
    },
    /// It needs none, because ...
    Nothing {
        /// ... of this.
        nothing: Cow<'static, str>,
    },
}

impl Undo {
    /// The kernel undoes it when the device goes.
    pub fn goes_with(device: &str) -> Self {
        Self::GoesWith {
            goes_with: device.to_owned(),
        }
    }

    /// No undo, because of `reason`.
    pub fn nothing(reason: &'static str) -> Self {
        Self::Nothing {
            nothing: Cow::Borrowed(reason),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateTun {
                device,
                persistent,
                queues,
                ..
            } => write!(f, "make TUN device {device}, {}", kind_of_tun(*persistent, *queues)),
            Self::DeleteTun { device, .. } => write!(f, "delete TUN device {device}"),
            Self::SetLinkUp { device, mtu } => write!(f, "bring {device} up with MTU {mtu}"),
            Self::AddAddress { device, address } => write!(f, "add address {address} to {device}"),
            Self::RemoveAddress { device, address } => write!(f, "remove address {address} from {device}"),
            Self::SetDeviceSysctl { key, value } => write!(f, "set sysctl {key}={value}"),
            Self::HoldSysctl { key, value, before } => write!(f, "hold sysctl {key}={value} (was {before})"),
            Self::ReleaseSysctl {
                key,
                value,
                before,
                give_back,
            } => {
                write!(
                    f,
                    "release sysctl {key}: back to {before} if it is still {value} and nobody else holds it"
                )?;
                give_back
                    .iter()
                    .try_for_each(|(key, value)| write!(f, ", then {key}={value}"))
            }
            Self::HoldOnDevices(on) => f.write_str(&on.held()),
            Self::ReleaseOnDevices(on) => f.write_str(&on.released()),
            Self::AddProxyNeighbour { device, address } => {
                write!(f, "answer neighbour solicitations for {address} on {device}")
            }
            Self::RemoveProxyNeighbour { device, address } => {
                write!(f, "stop answering neighbour solicitations for {address} on {device}")
            }
            Self::JoinAnycast { device, address } => write!(f, "join anycast address {address} on {device}"),
            Self::LeaveAnycast { device, address } => write!(f, "leave anycast address {address} on {device}"),
            Self::AddRoute { route } => write!(f, "add route {route}"),
            Self::RemoveRoute { route } => write!(f, "remove route {route}"),
            Self::AddRule { rule } => write!(f, "add rule {rule}"),
            Self::RemoveRule { rule } => write!(f, "remove rule {rule}"),
            Self::HoldLocalRule {} => f.write_str("move the IPv6 rule of table local to priority 1"),
            Self::ReleaseLocalRule {} => f.write_str("make the IPv6 rule of table local the first one again"),
            Self::InsertNftRule { rule, .. } => write!(f, "insert nft rule into {rule}"),
            Self::RemoveNftRule { rule, .. } => write!(f, "remove nft rule from {rule}"),
            Self::CreateNftTable { family, table, .. } => write!(f, "make nft table {family} {table}"),
            Self::DeleteNftTable {
                family,
                table,
                only_if_empty,
                ..
            } => {
                let condition = if *only_if_empty { " if it holds no rules" } else { "" };
                write!(f, "delete nft table {family} {table}{condition}")
            }
            Self::InsertIp6tables { command, chain, rule } => write!(f, "{command} -I {chain} {}", rule.join(" ")),
            Self::DeleteIp6tables { command, chain, rule } => write!(f, "{command} -D {chain} {}", rule.join(" ")),
            Self::WriteFile { path, .. } => write!(f, "write {path}"),
            Self::RemoveFile { path } => write!(f, "remove {path}"),
            Self::RunScript { event, command, .. } => write!(f, "run {event}: {command}"),
            Self::Nothing { what } => f.write_str(what),
            Self::StartTranslator { translator } => write!(f, "start {translator}"),
            Self::StopTranslator { device } => write!(f, "stop the translator on {device}"),
            Self::AttachFastPath { fast_path } => fast_path.fmt(f),
            Self::DetachFastPath { device, uplink, .. } => {
                write!(f, "detach the fast path from {device} and {uplink}")
            }
            Self::SetNextHop {
                device,
                uplink,
                gateway,
            } => {
                let next = gateway.map_or_else(|| "neighbours".to_owned(), |gateway| gateway.to_string());
                write!(f, "send packets of {device} to {next} by {uplink}")
            }
        }
    }
}

fn kind_of_tun(persistent: bool, queues: u32) -> Cow<'static, str> {
    match queues {
        _ if persistent => "persistent".into(),
        0 => "a queue per core".into(),
        1 => "one queue".into(),
        several => format!("{several} queues").into(),
    }
}

impl fmt::Display for NftRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} ({})", self.family, self.table, self.chain, self.comment)
    }
}

impl fmt::Display for Undo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Op(op) => op.fmt(f),
            Self::GoesWith { goes_with } => write!(f, "goes with {goes_with}"),
            Self::Nothing { nothing } => write!(f, "nothing: {nothing}"),
        }
    }
}
