//! What happens to instances: the last ten events of each, and all events for those who follow.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use clatd_stages::status::{Event, EventKind, Moment, happened};
use tokio::sync::{broadcast, watch};

use crate::instance::Status;
use crate::util::lock;

/// Events of an instance that are remembered.
const REMEMBERED: usize = 10;
/// How many events a slow reader may lag behind.
const BACKLOG: usize = 256;
/// Who may follow at once.
pub const FOLLOWERS: usize = 16;

/// Everything that happened lately. Clones share it.
#[derive(Clone)]
pub(super) struct Events {
    last: Arc<Mutex<BTreeMap<String, VecDeque<Event>>>>,
    sender: broadcast::Sender<Event>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            last: Arc::default(),
            sender: broadcast::channel(BACKLOG).0,
        }
    }
}

impl Events {
    /// Reports events of an instance as long as it exists.
    pub(super) async fn follow(self, name: String, mut status: watch::Receiver<Status>) {
        self.tell(&name, EventKind::Instance, "started".into());
        let mut before = Moment::default();
        loop {
            let after = moment(&status.borrow_and_update());
            for (kind, text) in happened(&before, &after) {
                self.tell(&name, kind, text);
            }
            before = after;
            if status.changed().await.is_err() {
                return;
            }
        }
    }

    pub(super) fn tell(&self, instance: &str, kind: EventKind, text: String) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let event = Event {
            time_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            instance: instance.to_owned(),
            kind,
            text,
        };
        {
            let mut last = lock(&self.last);
            let of_instance = last.entry(instance.to_owned()).or_default();
            if of_instance.len() == REMEMBERED {
                of_instance.pop_front();
            }
            of_instance.push_back(event.clone());
        }
        // Nobody may be following.
        let _ = self.sender.send(event);
    }

    pub(super) fn ended(&self, name: &str) {
        self.tell(name, EventKind::Instance, "ended".into());
        lock(&self.last).remove(name);
    }

    pub(super) fn of(&self, name: &str) -> Vec<Event> {
        let last = lock(&self.last);
        last.get(name).into_iter().flatten().cloned().collect()
    }

    pub(super) fn subscribe(&self) -> Option<broadcast::Receiver<Event>> {
        (self.sender.receiver_count() < FOLLOWERS).then(|| self.sender.subscribe())
    }
}

fn moment(status: &Status) -> Moment {
    let facts = &status.facts;
    let text = |value: Option<String>| value.unwrap_or_default();
    Moment {
        state: Some((status.state, status.reason.clone())),
        error: status.last_error.clone(),
        facts: vec![
            (
                "PLAT prefix",
                text(facts.plat_prefix.as_ref().map(|fact| fact.value.to_string())),
            ),
            (
                "uplink",
                text(facts.uplink.as_ref().map(|fact| fact.value.name.clone())),
            ),
            (
                "router",
                text(facts.plat_gateway.as_ref().map(|fact| fact.value.to_string())),
            ),
            (
                "address",
                text(facts.clat_v6_addr.as_ref().map(|fact| fact.value.to_string())),
            ),
            ("metric", text(facts.metric.as_ref().map(|fact| fact.value.to_string()))),
        ],
    }
}
