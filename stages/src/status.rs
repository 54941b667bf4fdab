//! What the daemon says about its instances: the document of `clatd status --json`, typed. Fields are only ever
//! added.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::counters::InstanceCounters;
use crate::health::Health;

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Reading the system.
    Observing,
    /// Nothing to do here now.
    Idle,
    /// Carrying out its plan.
    Applying,
    /// Translating.
    Running,
    /// Taking its plan back.
    Unwinding,
    /// An undo failed; its journal is kept.
    Stuck,
}

impl State {
    /// All states, in the order of the manual.
    pub const ALL: [Self; 6] = [
        Self::Observing,
        Self::Idle,
        Self::Applying,
        Self::Running,
        Self::Unwinding,
        Self::Stuck,
    ];

    /// Whether the instance has changed anything in the system that is not undone.
    pub fn is_there(self) -> bool {
        match self {
            Self::Applying | Self::Running | Self::Unwinding | Self::Stuck => true,
            Self::Observing | Self::Idle => false,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Observing => "observing",
            Self::Idle => "idle",
            Self::Applying => "applying",
            Self::Running => "running",
            Self::Unwinding => "unwinding",
            Self::Stuck => "stuck",
        })
    }
}

/// The document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusDocument {
    /// Version of this format.
    pub version: u32,
    /// The daemon's version.
    pub clatd: String,
    /// Its instances, by name.
    pub instances: Vec<InstanceStatus>,
}

impl StatusDocument {
    /// Version of the JSON format.
    pub const VERSION: u32 = 1;
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: State,
    /// Since when it has this state, in seconds since 1970.
    pub since: u64,
    /// For how many seconds it has been running.
    pub uptime_s: Option<u64>,
    /// Why it is in this state, for people.
    pub reason: String,
    /// What was observed, as in the plan.
    pub facts: Value,
    /// The CLAT's network device, while there is one.
    pub device: Option<String>,
    /// The CLAT's addresses, while it has some.
    pub addresses: Vec<String>,
    /// The uplink's network device.
    pub uplink: Option<String>,
    /// Packets, bytes and drops by direction, protocol and reason.
    pub counters: InstanceCounters,
    /// The last error.
    pub last_error: Option<String>,
    /// The PLAT prefix.
    #[serde(default)]
    pub prefix: Option<String>,
    /// Whether IPv4 leaves this host by this instance. Only instances of clatd are compared.
    #[serde(default)]
    pub preferred: bool,
    /// Metric of its IPv4 default route.
    #[serde(default)]
    pub metric: Option<u32>,
    /// MTU of that route in bytes; none = the MTU of the device.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// Who translates, and why.
    #[serde(default)]
    pub translator: Option<TranslatorStatus>,
    /// For how many seconds facts hold from now.
    #[serde(default)]
    pub lifetimes: Lifetimes,
    /// Whether answers come back.
    #[serde(default)]
    pub health: HealthStatus,
    /// How much is translated now.
    #[serde(default)]
    pub rate: Rate,
    /// Bits per second in both directions during the last minutes, the oldest first; each value stands for
    /// `history_step_s` seconds.
    #[serde(default)]
    pub history: Vec<u64>,
    /// Seconds between two values of `history`.
    #[serde(default)]
    pub history_step_s: u64,
    /// The last events, the oldest first.
    #[serde(default)]
    pub events: Vec<Event>,
}

/// Who translates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TranslatorStatus {
    /// `userspace`, `tayga` or `ebpf`.
    pub kind: String,
    /// Why this one.
    pub why: String,
}

/// How long values still hold; none = no end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifetimes {
    /// Of the PLAT prefix, in seconds.
    pub prefix_s: Option<u64>,
    /// Of the CLAT's IPv6 address, in seconds.
    pub address_s: Option<u64>,
}

/// Whether answers come back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthStatus {
    /// In a word.
    pub state: Health,
    /// The same in words; empty where there is nothing to say.
    pub text: String,
    /// Packets sent since something came back.
    pub unanswered: u64,
}

/// How much is translated.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Packets per second from IPv4 to IPv6.
    pub out_packets: u64,
    /// Bits per second from IPv4 to IPv6.
    pub out_bits: u64,
    /// Packets per second from IPv6 to IPv4.
    pub in_packets: u64,
    /// Bits per second from IPv6 to IPv4.
    pub in_bits: u64,
}

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// An instance came or went.
    Instance,
    /// It came to another state.
    State,
    /// It saw something change.
    Fact,
    /// Answers stopped coming back, or came back again.
    Health,
    /// Something failed.
    Error,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// To which instance.
    pub instance: String,
    /// What kind of thing.
    pub kind: EventKind,
    /// What, in words.
    pub text: String,
}

/// What events of an instance are made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moment {
    /// Its state and the reason.
    pub state: Option<(State, String)>,
    /// Its last error.
    pub error: Option<String>,
    /// What it observed: the name of the fact, and its value in words.
    pub facts: Vec<(&'static str, String)>,
}

/// What happened between two moments, in words.
pub fn happened(before: &Moment, after: &Moment) -> Vec<(EventKind, String)> {
    let mut events = Vec::new();
    if after.error != before.error
        && let Some(error) = &after.error
    {
        events.push((EventKind::Error, error.clone()));
    }
    for (name, value) in &after.facts {
        let old = before.facts.iter().find(|(other, _)| other == name);
        match old.map(|(_, old)| old) {
            Some(old) if old == value => {}
            Some(old) if old.is_empty() || value.is_empty() => {}
            Some(old) => events.push((EventKind::Fact, format!("{name}: {value} (was {old})"))),
            None => {}
        }
    }
    if after.state != before.state
        && let Some((state, reason)) = &after.state
    {
        // An instance observes again and again; that is no event.
        let settled = *state != State::Observing;
        if settled {
            let because = if reason.is_empty() {
                String::new()
            } else {
                format!(": {reason}")
            };
            events.push((EventKind::State, format!("{state}{because}")));
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(state: State, reason: &str, prefix: &str, error: Option<&str>) -> Moment {
        Moment {
            state: Some((state, reason.to_owned())),
            error: error.map(str::to_owned),
            facts: vec![("PLAT prefix", prefix.to_owned())],
        }
    }

    #[test]
    fn what_happened_is_told_once() {
        let up = moment(State::Running, "", "64:ff9b::/96", None);
        assert_eq!(
            happened(&Moment::default(), &up),
            [(EventKind::State, "running".to_owned())]
        );
        assert_eq!(happened(&up, &up), []);
        let moved = moment(State::Running, "", "2001:db8:64::/96", None);
        assert_eq!(
            happened(&up, &moved),
            [(
                EventKind::Fact,
                "PLAT prefix: 2001:db8:64::/96 (was 64:ff9b::/96)".to_owned()
            )]
        );
        let looking = moment(State::Observing, "", "64:ff9b::/96", None);
        assert_eq!(happened(&up, &looking), []);
        let idle = moment(State::Idle, "no uplink", "", Some("it failed"));
        assert_eq!(
            happened(&up, &idle),
            [
                (EventKind::Error, "it failed".to_owned()),
                (EventKind::State, "idle: no uplink".to_owned())
            ]
        );
    }

    /// Documents of older daemons can be read.
    #[test]
    fn fields_that_were_added_may_be_absent() {
        let old = serde_json::json!({"version": 1, "clatd": "0.1.0", "instances": [{
            "name": "clat", "state": "idle", "since": 1, "uptime_s": null, "reason": "", "facts": {}, "device": "clat",
            "addresses": ["192.0.0.1"], "uplink": null, "counters": {}, "last_error": null}]});
        let read: StatusDocument = serde_json::from_value(old).unwrap();
        assert_eq!(read.instances[0].health, HealthStatus::default());
    }
}
