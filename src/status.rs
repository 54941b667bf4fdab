//! What the daemon says of its instances: the document of `clatd status --json`, and the table for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::instance::{State, Status};
use crate::kernel::Statistics;

/// Version of the document; fields are only ever added.
const VERSION: u32 = 1;

/// One instance on the board.
#[derive(Clone)]
pub struct Entry {
    /// Its CLAT device.
    pub device: String,
    /// Its CLAT IPv4 address.
    pub clat_v4: std::net::Ipv4Addr,
    /// Its state, as it changes.
    pub status: watch::Receiver<Status>,
    /// Its translator's counters.
    pub statistics: Statistics,
}

/// All instances by name; readers never wait for the instances themselves.
#[derive(Clone, Default)]
pub struct Board(Arc<Mutex<BTreeMap<String, Entry>>>);

impl Board {
    /// Puts an instance on the board, or replaces it.
    pub fn put(&self, name: &str, entry: Entry) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned(), entry);
    }

    /// Takes an instance from the board.
    pub fn take(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// The document.
    pub fn document(&self) -> Value {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let instances: Vec<Value> = entries.iter().map(|(name, entry)| describe(name, entry)).collect();
        json!({ "version": VERSION, "clatd": env!("CARGO_PKG_VERSION"), "instances": instances })
    }
}

fn describe(name: &str, entry: &Entry) -> Value {
    let status = entry.status.borrow().clone();
    let up = matches!(status.state, State::Running);
    // What an idle instance had, or will have, is not there now.
    let there = match status.state {
        State::Applying | State::Running | State::Unwinding | State::Stuck => true,
        State::Observing | State::Idle => false,
    };
    let mut addresses = vec![entry.clat_v4.to_string()];
    addresses.extend(status.facts.clat_v6_addr.iter().map(|fact| fact.value.to_string()));
    addresses.retain(|_| there);
    json!({
        "name": name,
        "state": status.state,
        "since": seconds(status.since),
        "uptime_s": if up { status.since.elapsed().map(|elapsed| elapsed.as_secs()).ok() } else { None },
        "reason": status.reason,
        "facts": status.facts,
        "device": there.then_some(&entry.device),
        "addresses": addresses,
        "uplink": status.facts.uplink.as_ref().map(|fact| fact.value.name.clone()),
        "counters": entry.statistics.document(),
        "last_error": status.last_error,
    })
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map(|since| since.as_secs())
        .unwrap_or(0)
}

/// The document as a person reads it.
pub fn table(document: &Value) -> String {
    let mut text = String::new();
    for instance in document["instances"].as_array().into_iter().flatten() {
        let word = |key: &str| instance[key].as_str().unwrap_or_default();
        let _ = writeln!(text, "{}: {}", word("name"), word("state"));
        let addresses = instance["addresses"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        let rows = [
            ("reason", word("reason").to_owned()),
            ("device", word("device").to_owned()),
            ("addresses", addresses.collect::<Vec<_>>().join(", ")),
            ("uplink", word("uplink").to_owned()),
            ("PLAT prefix", fact(&instance["facts"]["plat_prefix"])),
            (
                "uptime",
                instance["uptime_s"]
                    .as_u64()
                    .map(|seconds| format!("{seconds} s"))
                    .unwrap_or_default(),
            ),
            ("last error", word("last_error").to_owned()),
        ];
        for (label, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
            let _ = writeln!(text, "  {label:<12} {value}");
        }
        for (counter, value) in counters(&instance["counters"]) {
            let _ = writeln!(text, "  {counter:<32} {value}");
        }
    }
    if text.is_empty() {
        text.push_str("no instances\n");
    }
    text
}

fn fact(fact: &Value) -> String {
    match (fact["value"].as_str(), fact["source"].as_str()) {
        (Some(value), Some(source)) => format!("{value} ({source})"),
        _ => String::new(),
    }
}

/// Counters that counted something, nested ones joined by dots.
fn counters(value: &Value) -> Vec<(String, u64)> {
    let mut rows = Vec::new();
    for (key, value) in value.as_object().into_iter().flatten() {
        match value {
            Value::Number(number) => rows.extend(
                number
                    .as_u64()
                    .filter(|&count| count > 0)
                    .map(|count| (key.clone(), count)),
            ),
            nested => rows.extend(
                counters(nested)
                    .into_iter()
                    .map(|(inner, count)| (format!("{key}.{inner}"), count)),
            ),
        }
    }
    rows
}
