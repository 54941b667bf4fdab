//! What the daemon says about its instances: a board with an entry for each, events, and samples of its counters.

mod events;
mod sampler;
mod table;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use clatd_stages::doctor::RunningInstance;
use clatd_stages::facts::{Fact, Facts};
use clatd_stages::route::default_route_mtu;
use clatd_stages::settings::TranslatorChoice;
use clatd_stages::stage::Instance;
use clatd_stages::status::{Event, InstanceStatus, Lifetimes, StatusDocument, TranslatorStatus};
use tokio::sync::{broadcast, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::doctor::Patient;
use crate::instance::{State, Status};
use crate::kernel::Statistics;
use crate::kernel::engine::Bell;
use crate::util::lock;

pub use events::FOLLOWERS;
pub use sampler::{SilentPlats, watch_plats};
pub use table::{View, line_of, table};

use events::Events;
use sampler::Samples;

/// One instance on the board.
#[derive(Clone)]
pub struct BoardEntry {
    /// Itself, as configured.
    pub instance: Instance,
    /// Its state, as it changes.
    pub status: watch::Receiver<Status>,
    /// Its translators' counters.
    pub statistics: Statistics,
}

/// All instances by name. Readers never wait for the instances themselves.
#[derive(Clone, Default)]
pub struct Board {
    entries: Arc<Mutex<BTreeMap<String, Followed>>>,
    stand_in: Arc<Mutex<Option<Instance>>>,
    events: Events,
    samples: Samples,
    bell: Arc<Bell>,
}

/// An entry, and the task that makes events of its changes.
struct Followed {
    entry: BoardEntry,
    _follower: AbortOnDropHandle<()>,
}

impl BoardEntry {
    fn patient(self) -> Patient {
        let status = self.status.borrow().clone();
        Patient {
            instance: self.instance,
            running: Some(RunningInstance {
                state: status.state.to_string(),
                reason: status.reason,
                last_error: status.last_error,
                facts: status.facts,
            }),
        }
    }
}

impl Board {
    /// Puts an instance on the board, or replaces it. Needs a runtime.
    pub fn put(&self, name: &str, entry: BoardEntry) {
        entry.statistics.ring(&self.bell);
        let follow = self.events.clone().follow(name.to_owned(), entry.status.clone());
        let followed = Followed {
            entry,
            _follower: AbortOnDropHandle::new(tokio::spawn(follow)),
        };
        lock(&self.entries).insert(name.to_owned(), followed);
        self.bell.ring();
    }

    /// Takes an instance from the board.
    pub fn take(&self, name: &str) {
        if lock(&self.entries).remove(name).is_some() {
            self.events.ended(name);
        }
        self.samples.forget(name);
    }

    /// An entry that stands for the instances of a template while there is no uplink.
    pub fn stand_in(&self, instance: Option<Instance>) {
        *lock(&self.stand_in) = instance;
    }

    /// Whom the doctor examines.
    pub fn patients(&self) -> Vec<Patient> {
        let mut patients: Vec<Patient> = self.entries().into_values().map(BoardEntry::patient).collect();
        if patients.is_empty() {
            let stand_in = lock(&self.stand_in).clone();
            patients.extend(stand_in.map(|instance| Patient {
                instance,
                running: None,
            }));
        }
        patients
    }

    /// The events from now on; `None` = too many clients follow already.
    pub fn events(&self) -> Option<broadcast::Receiver<Event>> {
        self.events.subscribe()
    }

    fn entries(&self) -> BTreeMap<String, BoardEntry> {
        let entries = lock(&self.entries);
        entries
            .iter()
            .map(|(name, followed)| (name.clone(), followed.entry.clone()))
            .collect()
    }

    /// The document.
    pub fn document(&self) -> StatusDocument {
        let mut instances: Vec<InstanceStatus> = self
            .entries()
            .iter()
            .map(|(name, entry)| self.describe(name, entry))
            .collect();
        let candidates = instances
            .iter_mut()
            .filter(|instance| instance.state == State::Running && instance.metric.is_some());
        if let Some(best) = candidates.min_by_key(|instance| instance.metric) {
            best.preferred = true;
        }
        StatusDocument {
            version: StatusDocument::VERSION,
            clatd: env!("CARGO_PKG_VERSION").to_owned(),
            instances,
        }
    }

    fn describe(&self, name: &str, entry: &BoardEntry) -> InstanceStatus {
        let status = entry.status.borrow().clone();
        let (settings, facts) = (&entry.instance.settings, &status.facts);
        let there = status.state.is_there();
        let mut addresses = vec![settings.clat.clat_v4_addr.to_string()];
        addresses.extend(facts.clat_v6_addr.iter().map(|fact| fact.value.to_string()));
        addresses.retain(|_| there);
        let age = status.observed.elapsed().map_or(0, |age| age.as_secs());
        let (health, rate, history) = self.samples.of(name);
        let running = status.state == State::Running;
        InstanceStatus {
            name: name.to_owned(),
            state: status.state,
            since: seconds(status.since),
            uptime_s: running
                .then(|| status.since.elapsed().map(|elapsed| elapsed.as_secs()).ok())
                .flatten(),
            reason: status.reason,
            facts: facts_shown(facts),
            device: there.then(|| settings.clat.clat_dev.clone()),
            addresses,
            uplink: match there {
                true => facts.uplink.as_ref().map(|fact| fact.value.name.clone()),
                false => settings.plat.plat_dev.clone(),
            },
            counters: entry.statistics.totals().document(),
            last_error: status.last_error,
            prefix: facts
                .plat_prefix
                .as_ref()
                .filter(|_| there)
                .map(|fact| fact.value.to_string()),
            preferred: false,
            metric: facts
                .metric
                .as_ref()
                .filter(|_| there && settings.ipv4.v4_defaultroute_enable)
                .map(|fact| fact.value),
            mtu: default_route_mtu(settings, facts).filter(|_| there),
            translator: facts.translator.as_ref().filter(|_| there).map(translator),
            lifetimes: Lifetimes {
                prefix_s: left(facts.plat_prefix.as_ref(), age).filter(|_| there),
                address_s: left(facts.clat_v6_addr.as_ref(), age).filter(|_| there),
            },
            health: if running { health } else { Default::default() },
            rate,
            history,
            history_step_s: sampler::STEP.as_secs(),
            events: self.events.of(name),
        }
    }
}

fn translator(chosen: &Fact<TranslatorChoice>) -> TranslatorStatus {
    TranslatorStatus {
        kind: chosen.value.to_string(),
        why: chosen.source.to_string(),
    }
}

fn left<T>(fact: Option<&Fact<T>>, age: u64) -> Option<u64> {
    let lifetime = fact?.lifetime_s?;
    Some(u64::from(lifetime).saturating_sub(age))
}

/// The facts without what is of other devices, which on a host with many would be most of the document.
fn facts_shown(facts: &Facts) -> serde_json::Value {
    let mut facts = facts.clone();
    facts.endangered = None;
    let uplink = facts.uplink.as_ref().map(|uplink| uplink.value.name.clone());
    facts.sysctls.retain(|key, _| {
        let rest = key.strip_prefix("net/ipv6/conf/").and_then(|rest| rest.split_once('/'));
        rest.is_none_or(|(device, _)| matches!(device, "all" | "default") || Some(device) == uplink.as_deref())
    });
    serde_json::to_value(&facts).unwrap_or_else(|error| serde_json::json!({ "error": error.to_string() }))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
