//! Addresses that instances want for themselves: each is checked for duplicates once (RFC 4862 section 5.4), and watched
//! for others that take it all the same while it is in use.
//!
//! ```text
//!            nobody within HASTE               nobody             another node persists        given back
//!  unknown ---------------------> Optimistic ---------> Ours ------------------------> Ours, disputed ------> Taken
//!     |                             |                    | given back: unknown again                            |
//!     +---- somebody has it --------+---------------------------------------> Taken ---------------------------+ after
//!                                                                                             TAKEN_FOR: unknown
//! ```
//!
//! An address may be used while its detection goes on if its algorithm hardly makes the same address twice (RFC 4429
//! section 3.1). All addresses here are made so. The kernel keeps the rules for such addresses (section 3.2) by itself:
//! its advertisements for proxied and joined addresses never override what neighbours know, and its solicitations never
//! have such an address as their source. An optimistic address is not defended.
//!
//! A disputed address is defended as long as it is in use: where there is no other one, it is kept.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clatd_stages::nd::{Conflict, ConflictSign, Defence, MOST_MOVES, Moves, Parameters, Reaction};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};

use crate::kernel::sysctl;
use crate::probe::{self, ConflictWatch, ProbeError};
use crate::util::lock;
use crate::world::OnChange;

/// The shortest and the longest time that a neighbour has for its answer, whatever a router says.
const RETRANSMIT: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How long an address is not used, so that its owner can answer. The owner may still answer later.
const HASTE: Duration = Duration::from_millis(100);
/// How long an address is not tried again after another node had it. For the same time no address is used early on a
/// link where somebody answered too late.
const TAKEN_FOR: Duration = Duration::from_secs(600);
/// How often a node that claims an address in use is asked whether it has the address.
const PROBE: Duration = Duration::from_secs(2);

/// An address on a device.
type Key = (String, Ipv6Addr);
/// Who else has an address.
type Detected = Result<Option<Conflict>, ProbeError>;

/// What is known of each address. Clones share it.
#[derive(Clone)]
pub(super) struct Detection {
    known: Arc<Mutex<BTreeMap<Key, Claim>>>,
    moves: Arc<Mutex<BTreeMap<String, Moves>>>,
    /// By device, when somebody last answered after HASTE.
    late: Arc<Mutex<BTreeMap<String, Instant>>>,
    begun: Instant,
}

enum Claim {
    /// Nobody has answered so far, and the address is used. The task waits for the end of the detection.
    Optimistic { _detection: JoinSet<()> },
    /// Nobody else has it. The watch reports if that changes.
    Ours {
        _watch: ConflictWatch,
        disputed: Option<Taken>,
    },
    /// Somebody has it.
    Taken(Taken),
}

/// Another node's claim.
#[derive(Clone)]
struct Taken {
    by: String,
    since: Instant,
}

impl Taken {
    fn now(by: String) -> Self {
        let since = Instant::now();
        Self { by, since }
    }

    fn holds(&self) -> bool {
        self.since.elapsed() < TAKEN_FOR
    }
}

impl Detection {
    pub(super) fn new() -> Self {
        Self {
            known: Arc::default(),
            moves: Arc::default(),
            late: Arc::default(),
            begun: Instant::now(),
        }
    }

    /// Who has the address; `None` = nobody else, so it may be used from now on.
    pub(super) async fn duplicate_of(
        &self,
        device: &str,
        address: Ipv6Addr,
        notify: &OnChange,
    ) -> Result<Option<String>, ProbeError> {
        let key = (device.to_owned(), address);
        match self.lock().get(&key) {
            Some(
                Claim::Taken(taken)
                | Claim::Ours {
                    disputed: Some(taken), ..
                },
            ) if taken.holds() => {
                return Ok(Some(taken.by.clone()));
            }
            Some(Claim::Ours { .. } | Claim::Optimistic { .. }) => return Ok(None),
            _ => {}
        }
        let mut detection = detect(key.clone());
        if let Ok(found) = timeout(self.patience(device), ended(&mut detection)).await {
            return self.conclude(key, found?, notify);
        }
        debug!("the CLAT uses {address} on {device} while duplicate address detection goes on");
        let mut known = self.lock();
        let mut task = JoinSet::new();
        task.spawn(self.clone().settle(key.clone(), detection, Arc::clone(notify)));
        known.insert(key, Claim::Optimistic { _detection: task });
        Ok(None)
    }

    /// How long the detection is waited for.
    fn patience(&self, device: &str) -> Duration {
        let late = lock(&self.late);
        match late.get(device) {
            Some(since) if since.elapsed() < TAKEN_FOR => Duration::MAX,
            _ => HASTE,
        }
    }

    /// Waits for the detection of an address that is used already.
    async fn settle(self, key: Key, mut detection: JoinSet<Detected>, notify: OnChange) {
        let found = ended(&mut detection).await;
        let (device, address) = (key.0.clone(), key.1);
        let concluded = found.and_then(|found| {
            if let Some(conflict) = &found {
                warn!("{conflict} on {device}, and said so late; clatd looks for another address");
                let mut late = lock(&self.late);
                late.insert(device.clone(), Instant::now());
            }
            self.conclude(key.clone(), found, &notify)
        });
        match concluded {
            Ok(None) => {}
            Ok(Some(_)) => notify(),
            Err(error) => {
                debug!(
                    "duplicate address detection of {address} on {device} begins again: {}",
                    crate::report::chain(&error)
                );
                self.lock().remove(&key);
                notify();
            }
        }
    }

    /// The detection has ended.
    fn conclude(&self, key: Key, found: Option<Conflict>, notify: &OnChange) -> Result<Option<String>, ProbeError> {
        if let Some(conflict) = found {
            let by = conflict.to_string();
            self.lock().insert(key, Claim::Taken(Taken::now(by.clone())));
            return Ok(Some(by));
        }
        debug!("no neighbour has {} on {}", key.1, key.0);
        let (reports, reported) = mpsc::channel(8);
        let watch = ConflictWatch::start(&key.0, key.1, reports)?;
        let claim = Claim::Ours {
            _watch: watch,
            disputed: None,
        };
        self.lock().insert(key.clone(), claim);
        tokio::spawn(self.clone().attend(key, reported, Arc::clone(notify)));
        Ok(None)
    }

    /// The address is not used any more.
    pub(super) fn give_back(&self, device: &str, address: Ipv6Addr) {
        let key = (device.to_owned(), address);
        let mut known = self.lock();
        match known.get(&key) {
            Some(Claim::Ours {
                disputed: Some(taken), ..
            }) => {
                let taken = taken.clone();
                known.insert(key, Claim::Taken(taken));
            }
            Some(Claim::Ours { disputed: None, .. } | Claim::Optimistic { .. }) => {
                known.remove(&key);
            }
            Some(Claim::Taken(_)) | None => {}
        }
    }

    /// The address is answered for from now on.
    pub(super) async fn announce(&self, device: &str, address: Ipv6Addr) {
        let key = (device.to_owned(), address);
        let ours = matches!(
            self.lock().get(&key),
            Some(Claim::Ours { .. } | Claim::Optimistic { .. })
        );
        if ours {
            log_failure(&key, probe::announce(device, address).await);
        }
    }

    /// Defends the address against nodes that advertise it, until it is given back. If one persists, looks for
    /// another address. Duplicate address detection by others needs no defence: the kernel answers it.
    async fn attend(self, key: Key, mut reports: mpsc::Receiver<Conflict>, notify: OnChange) {
        let (device, address) = (&key.0, key.1);
        let mut defence = Defence::default();
        let mut kept = false;
        let begun = Instant::now();
        let mut probe_at = None;
        let mut defend_at = None;
        loop {
            let due: Option<Instant> = [probe_at, defend_at].into_iter().flatten().min();
            let reported = match due {
                None => reports.recv().await,
                Some(due) => match timeout_at(due, reports.recv()).await {
                    Ok(reported) => reported,
                    Err(_) if defend_at == Some(due) => {
                        defend_at = None;
                        defence.defend(begun.elapsed());
                        log_failure(&key, probe::advertise(device, address).await);
                        continue;
                    }
                    Err(_) => {
                        // A node that has the address answers. A node that advertised it by mistake, or as a single
                        // attack, does not.
                        probe_at = defence.is_disputed(begun.elapsed()).then(|| Instant::now() + PROBE);
                        log_failure(&key, probe::solicit(device, address).await);
                        // Its earlier advertisements were not answered.
                        log_failure(&key, probe::advertise(device, address).await);
                        continue;
                    }
                },
            };
            let Some(conflict) = reported else { return };
            if conflict.how != ConflictSign::Advertisement {
                continue;
            }
            let now = begun.elapsed();
            probe_at.get_or_insert_with(|| Instant::now() + PROBE);
            let mut answer = defence.conflict(now);
            if answer == Reaction::GiveUp {
                if self.dispute(&key, &conflict, &mut kept) {
                    notify();
                }
                answer = defence.defend(now);
            }
            match answer {
                Reaction::Defend => {
                    debug!("{conflict} on {device}, but that is the CLAT's address; clatd defends it");
                    defend_at = None;
                    log_failure(&key, probe::advertise(device, address).await);
                }
                Reaction::DefendAt(at) => defend_at = Some(begun + at),
                Reaction::GiveUp => {}
            }
        }
    }

    /// Another node does not give the address up. Returns true if another address is needed.
    fn dispute(&self, key: &Key, conflict: &Conflict, kept: &mut bool) -> bool {
        let device = &key.0;
        let mut known = self.lock();
        let Some(Claim::Ours { disputed, .. }) = known.get_mut(key) else {
            return false;
        };
        if *kept || disputed.as_ref().is_some_and(Taken::holds) {
            return false;
        }
        let mut moves = lock(&self.moves);
        if moves.entry(device.clone()).or_default().allow(self.begun.elapsed()) {
            warn!(
                "{conflict} on {device}, but that is the CLAT's address; the other node does not give it up, so clatd looks \
                 for another address"
            );
            *disputed = Some(Taken::now(conflict.to_string()));
            return true;
        }
        *kept = true;
        warn!(
            "{conflict} on {device}, but that is the CLAT's address; the other node does not give it up. clatd has given up \
             {MOST_MOVES} addresses within an hour already, so it keeps this one and defends it. Find the other node, or \
             set clat-v6-addr to shared or to an address that is routed to this host"
        );
        false
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Claim>> {
        lock(&self.known)
    }
}

fn log_failure((device, address): &Key, sent: Result<(), ProbeError>) {
    if let Err(error) = sent {
        debug!(
            "{address} on {device} cannot be defended: {}",
            crate::report::chain(&error)
        );
    }
}

/// Duplicate address detection, which ends when it is dropped.
fn detect((device, address): Key) -> JoinSet<Detected> {
    let mut detection = JoinSet::new();
    detection.spawn(async move { probe::is_duplicate(&device, address, parameters(&device)).await });
    detection
}

async fn ended(detection: &mut JoinSet<Detected>) -> Detected {
    match detection.join_next().await {
        Some(Ok(found)) => found,
        Some(Err(failed)) => Err(ProbeError::System {
            doing: "duplicate address detection".into(),
            source: io::Error::other(failed),
        }),
        None => Ok(None),
    }
}

/// The values of RFC 4862 section 5.1. The kernel stores RetransTimer from routers (RFC 4861 section 6.3.4).
fn parameters(device: &str) -> Parameters {
    let usual = Parameters::default();
    let told = sysctl::read(&format!("net/ipv6/neigh/{device}/retrans_time_ms"));
    let told = told.ok().flatten().and_then(|text| text.parse().ok());
    let retransmit = told.map_or(usual.retransmit, Duration::from_millis);
    Parameters {
        retransmit: retransmit.clamp(RETRANSMIT.0, RETRANSMIT.1),
        ..usual
    }
}
