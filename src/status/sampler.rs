//! Looks at the counters of all instances now and then: for rates, and for what comes back. Asks a PLAT only where nothing
//! does. Where nothing was sent for minutes it sleeps until a packet comes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clatd_stages::discovery::plat_translates;
use clatd_stages::health::{Health, PlatWatch};
use clatd_stages::settings::PlatCheck;
use clatd_stages::status::{EventKind, HealthStatus, Rate};
use clatd_stages::world::World;
use clatd_translator::{Direction, Pref64};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{Instrument, debug, info_span};

use super::{Board, BoardEntry};
use crate::instance::State;
use crate::kernel::Totals;
use crate::report::chain;
use crate::util::lock;

/// Between two looks.
pub(super) const STEP: Duration = Duration::from_secs(5);
/// While a PLAT is being asked.
const STEP_WHILE_ASKING: Duration = Duration::from_millis(500);
/// Samples that are kept: five minutes.
const KEPT: usize = 60;
/// Between two looks when nothing was sent for long, but the fast path may carry packets: no thread of ours sees these.
const SELDOM: Duration = Duration::from_secs(30);
/// How long a PLAT may take to answer.
const ANSWER: Duration = Duration::from_secs(15);

/// A PLAT as one uplink reaches it.
type PlatKey = (String, Option<IpAddr>, String);

/// The PLATs that do not answer. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct SilentPlats(Arc<Mutex<BTreeMap<String, PlatKey>>>);

impl SilentPlats {
    /// Whether an instance found this one silent.
    pub fn contains(&self, device: &str, gateway: Option<IpAddr>, prefix: Pref64) -> bool {
        let plat = (device.to_owned(), gateway, prefix.to_string());
        lock(&self.0).values().any(|silent| *silent == plat)
    }

    fn set(&self, instance: &str, plat: Option<PlatKey>) -> bool {
        let mut silent = lock(&self.0);
        match plat {
            Some(plat) => silent.insert(instance.to_owned(), plat.clone()) != Some(plat),
            None => silent.remove(instance).is_some(),
        }
    }

    fn keep(&self, instances: &BTreeSet<String>) {
        lock(&self.0).retain(|instance, _| instances.contains(instance));
    }
}

/// What was sampled, by instance. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Samples(Arc<Mutex<BTreeMap<String, Sampled>>>);

#[derive(Default)]
struct Sampled {
    counts: Option<CountsAt>,
    rate: Rate,
    history: VecDeque<u64>,
    health: HealthStatus,
}

impl Samples {
    pub(super) fn of(&self, name: &str) -> (HealthStatus, Rate, Vec<u64>) {
        let samples = lock(&self.0);
        let Some(sampled) = samples.get(name) else {
            return Default::default();
        };
        let history = sampled.history.iter().copied().collect();
        (sampled.health.clone(), sampled.rate.clone(), history)
    }

    pub(super) fn forget(&self, name: &str) {
        lock(&self.0).remove(name);
    }
}

/// Counters at one moment.
#[derive(Debug, Clone, Copy)]
struct CountsAt {
    at: Instant,
    out_packets: u64,
    out_bytes: u64,
    in_packets: u64,
    in_bytes: u64,
    /// Packets that came from a PLAT, without errors of routers on the way.
    back: u64,
}

impl CountsAt {
    fn new(totals: &Totals) -> Self {
        let (out_packets, out_bytes) = totals.carried(Direction::V4ToV6);
        let (in_packets, in_bytes) = totals.carried(Direction::V6ToV4);
        let counters = totals.userspace.unwrap_or_default().translation;
        Self {
            at: Instant::now(),
            out_packets,
            out_bytes,
            in_packets,
            in_bytes,
            back: in_packets.saturating_sub(counters.errors[Direction::V6ToV4 as usize]),
        }
    }

    fn rate_since(&self, before: &Self) -> Rate {
        let elapsed = self.at.duration_since(before.at).as_secs_f64().max(0.001);
        let per_second = |now: u64, before: u64, unit: f64| (now.saturating_sub(before) as f64 * unit / elapsed) as u64;
        Rate {
            out_packets: per_second(self.out_packets, before.out_packets, 1.0),
            out_bits: per_second(self.out_bytes, before.out_bytes, 8.0),
            in_packets: per_second(self.in_packets, before.in_packets, 1.0),
            in_bits: per_second(self.in_bytes, before.in_bytes, 8.0),
        }
    }
}

/// What is known of an instance's PLAT.
#[derive(Default)]
struct Watched {
    plat: Option<PlatKey>,
    watch: PlatWatch,
    asking: Option<JoinHandle<bool>>,
}

/// Samples the instances of the board for ever. `notify` is called when a PLAT falls silent or answers again.
pub async fn watch_plats(board: Board, world: Arc<dyn World>, silent: SilentPlats, notify: impl Fn() + Send) {
    let begun = Instant::now();
    let mut watched: BTreeMap<String, Watched> = BTreeMap::new();
    let mut next = Instant::now();
    loop {
        if is_quiet(&board, &watched) {
            sleep_until_packets_come(&board).await;
        }
        let asking = watched.values().any(|watched| watched.asking.is_some());
        sleep(if asking { STEP_WHILE_ASKING } else { STEP }).await;
        let now = begun.elapsed().as_secs();
        if Instant::now() >= next {
            next = Instant::now() + STEP - STEP_WHILE_ASKING / 2;
            let entries = board.entries();
            watched.retain(|name, _| entries.contains_key(name));
            silent.keep(&entries.keys().cloned().collect());
            let wanted = sample(&board, &entries);
            for (name, entry) in &entries {
                look(
                    entry,
                    watched.entry(name.clone()).or_default(),
                    &board,
                    now,
                    wanted,
                    &world,
                );
            }
        }
        for (name, watched) in &mut watched {
            hear(watched, now).await;
            let plat = watched.plat.clone().filter(|_| watched.watch.is_silent());
            if silent.set(name, plat) {
                notify();
            }
            tell(&board, name, watched, now);
        }
    }
}

/// Whether there is nothing to be learned: no packet in all the samples that are kept, and no PLAT in doubt.
fn is_quiet(board: &Board, watched: &BTreeMap<String, Watched>) -> bool {
    let samples = lock(&board.samples.0);
    let quiet = |sampled: &Sampled| {
        let silent = sampled.history.len() == KEPT && sampled.history.iter().all(|bits| *bits == 0);
        silent && matches!(sampled.health.state, Health::Unknown | Health::Idle | Health::Good)
    };
    samples.values().all(quiet)
        && watched.values().all(|watched| watched.asking.is_none())
        && board.entries().keys().all(|name| samples.contains_key(name))
}

async fn sleep_until_packets_come(board: &Board) {
    let unheard = |entry: &BoardEntry| entry.statistics.passes_in_silence();
    if board.entries().values().any(unheard) {
        // A packet that was not heard of is found in the counters, which the next look compares.
        let _ = timeout(SELDOM, board.bell.wait()).await;
    } else {
        board.bell.wait().await;
    }
    let now = Instant::now();
    let mut samples = lock(&board.samples.0);
    let counts = samples.values_mut().filter_map(|sampled| sampled.counts.as_mut());
    counts.for_each(|counts| counts.at = now);
}

/// Takes all counters down; true = this host sent IPv4 by some instance since the last time.
fn sample(board: &Board, entries: &BTreeMap<String, BoardEntry>) -> bool {
    let mut wanted = false;
    let mut samples = lock(&board.samples.0);
    for (name, entry) in entries {
        let counts = CountsAt::new(&entry.statistics.totals_by_direction());
        let sampled = samples.entry(name.clone()).or_default();
        if let Some(before) = sampled.counts {
            wanted |= counts.out_packets > before.out_packets;
            sampled.rate = counts.rate_since(&before);
            if sampled.history.len() == KEPT {
                sampled.history.pop_front();
            }
            sampled.history.push_back(sampled.rate.out_bits + sampled.rate.in_bits);
        }
        sampled.counts = Some(counts);
    }
    wanted
}

/// Judges one instance by its counters, and begins to probe its PLAT if nothing comes back.
fn look(entry: &BoardEntry, watched: &mut Watched, board: &Board, now: u64, wanted: bool, world: &Arc<dyn World>) {
    let status = entry.status.borrow().clone();
    let facts = &status.facts;
    let plat = match (&facts.uplink, &facts.plat_prefix) {
        (Some(uplink), Some(prefix)) if status.state.is_there() => Some((
            uplink.value.name.clone(),
            facts.plat_gateway.as_ref().map(|gateway| gateway.value),
            prefix.value.to_string(),
        )),
        _ => None,
    };
    // Another network or another PLAT begins without a history. A prefix that is only being looked for again keeps
    // it.
    if plat != watched.plat && status.state != State::Observing {
        *watched = Watched {
            plat,
            ..Watched::default()
        };
    }
    if status.state != State::Running || facts.chosen_translator().is_external() {
        return;
    }
    let counts = lock(&board.samples.0)
        .get(&entry.instance.name)
        .and_then(|sampled| sampled.counts);
    let (Some(counts), Some(prefix), Some(uplink)) = (counts, facts.plat_prefix.clone(), &facts.uplink) else {
        return;
    };
    let ask = watched.watch.sample(now, counts.out_packets, counts.back, wanted);
    let may_ask = entry.instance.settings.plat.plat_check == PlatCheck::Auto;
    if !ask || !may_ask || watched.asking.is_some() {
        return;
    }
    let (instance, device, world) = (entry.instance.clone(), uplink.value.name.clone(), Arc::clone(world));
    let span = info_span!("instance", name = %instance.name);
    let question = async move {
        debug!(
            "nothing comes back; probing the PLAT of {} through {device}",
            prefix.value
        );
        match timeout(ANSWER, plat_translates(&instance, &prefix, &device, &*world)).await {
            Ok(Ok(answers)) => answers,
            // If the probe cannot be sent, the PLAT is not to blame.
            Ok(Err(failure)) => {
                debug!("{}", chain(&failure));
                true
            }
            Err(_) => false,
        }
    };
    watched.asking = Some(tokio::spawn(question.instrument(span)));
}

/// Takes up an answer that has come.
async fn hear(watched: &mut Watched, now: u64) {
    if let Some(asking) = watched.asking.take_if(|asking| asking.is_finished()) {
        watched.watch.probed(now, asking.await.unwrap_or(true));
    }
}

/// Writes the health to the board, and reports when it becomes worse or better.
fn tell(board: &Board, name: &str, watched: &Watched, now: u64) {
    let health = HealthStatus {
        state: watched.watch.health(now),
        text: watched.watch.words(now),
        unanswered: watched.watch.unanswered(),
    };
    let before = {
        let mut samples = lock(&board.samples.0);
        let Some(sampled) = samples.get_mut(name) else { return };
        std::mem::replace(&mut sampled.health, health.clone())
    };
    let bad = |state: Health| matches!(state, Health::Unanswered | Health::Silent);
    if before.state == health.state || (!bad(before.state) && !bad(health.state)) {
        return;
    }
    let text = match (health.text.as_str(), bad(health.state)) {
        ("", false) => "the PLAT answers again".to_owned(),
        (text, _) => text.to_owned(),
    };
    board.events.tell(name, EventKind::Health, text);
}
