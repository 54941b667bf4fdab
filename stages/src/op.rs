//! Operations: all changes that clatd ever makes to a system, as plain data.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::fast_path::{Attachment, FastPathSpec};
use crate::net::{Route, Rule};
use crate::translator::TranslatorSpec;

mod parts;

pub use parts::{NewNftTable, NewTun, NftRule, NftTableDeletion, OnDevices, ScriptRun, SysctlRelease};

/// One change to the system. The set is closed: print, execution and undo are exhaustive matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Op {
    /// Makes a TUN device, down, with our ifalias. It is persistent only if another program is to open it.
    CreateTun(NewTun),
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
    ReleaseSysctl(SysctlRelease),
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
    CreateNftTable(NewNftTable),
    /// Deletes an nft table of our own.
    DeleteNftTable(NftTableDeletion),
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
    RunScript(ScriptRun),
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
            Self::CreateTun(tun) => tun.fmt(f),
            Self::DeleteTun { device, .. } => write!(f, "delete TUN device {device}"),
            Self::SetLinkUp { device, mtu } => write!(f, "bring {device} up with MTU {mtu}"),
            Self::AddAddress { device, address } => write!(f, "add address {address} to {device}"),
            Self::RemoveAddress { device, address } => write!(f, "remove address {address} from {device}"),
            Self::SetDeviceSysctl { key, value } => write!(f, "set sysctl {key}={value}"),
            Self::HoldSysctl { key, value, before } => write!(f, "hold sysctl {key}={value} (was {before})"),
            Self::ReleaseSysctl(release) => release.fmt(f),
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
            Self::CreateNftTable(new) => write!(f, "make nft table {} {}", new.family, new.table),
            Self::DeleteNftTable(table) => table.fmt(f),
            Self::InsertIp6tables { command, chain, rule } => write!(f, "{command} -I {chain} {}", rule.join(" ")),
            Self::DeleteIp6tables { command, chain, rule } => write!(f, "{command} -D {chain} {}", rule.join(" ")),
            Self::WriteFile { path, .. } => write!(f, "write {path}"),
            Self::RemoveFile { path } => write!(f, "remove {path}"),
            Self::RunScript(run) => write!(f, "run {}: {}", run.event, run.command),
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

impl fmt::Display for Undo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Op(op) => op.fmt(f),
            Self::GoesWith { goes_with } => write!(f, "goes with {goes_with}"),
            Self::Nothing { nothing } => write!(f, "nothing: {nothing}"),
        }
    }
}
