//! The life of one instance.
//!
//! ```text
//!              change, back-off over
//!         +------------------------------+
//!         v                              |
//!     Observing --nothing to do------> Idle --when-idle=exit, see below--> end
//!         |                              ^
//!         | plan                         +-------------- all undone -----+
//!         v                                                              |
//!     Applying --a step failed, stop asked for------------------> Unwinding --stop, failed at start--> end
//!         |                                                         ^    |
//!         | all steps done                                          |    +--an undo failed--> Stuck (journal kept)
//!         v                                                         |
//!     Running --stop asked for, translator died, nothing to do -----+
//!         |
//!         +--facts changed--> Observing: common head of both plans stays, the rest is undone and done anew
//! ```
//!
//! Idle leaves nothing of the instance in the system; Stuck leaves the steps that are still in the journal.
//! The stop token is looked at between steps only, so that no step is ever cut in half.
//!
//! A running instance follows the network and repairs itself whatever `when-idle` says. With `when-idle=exit` it ends
//! where it had nothing to do from the start, and where native IPv4 has come. It fails where its first start fails.
//! What it lost while it ran (the uplink, the prefix) may come back within `GRACE` before that is the end.

mod observing;
mod pace;
mod repairs;
mod saying;
mod status;

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use clatd_stages::apply::{self, ApplyError, System};
use clatd_stages::claims::Claims;
use clatd_stages::facts::{Facts, Memory};
use clatd_stages::journal::Journal;
use clatd_stages::op::Op;
use clatd_stages::plan::{Plan, common_head};
use clatd_stages::settings::{PlatCheck, Settings};
use clatd_stages::stage::Instance;
use clatd_stages::world::World;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, trace};

use crate::kernel::{TranslatorExit, nature};
use crate::report::chain;
use crate::watch::Changes;
use observing::{Nothing, Observation};
pub use pace::Pace;
pub use repairs::Repairs;
pub use saying::Said;
pub use status::{State, Status};

/// First and longest pause after a failure.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// An idle instance observes again at least this often, since a DNS64 may appear without any event of the kernel.
const IDLE_POLL: Duration = Duration::from_secs(20);
/// With `when-idle=exit`: for so long a lost uplink or prefix may come back. A link that flaps, a router that
/// restarts and an uplink that is renumbered take seconds.
const GRACE: Duration = Duration::from_secs(30);
/// How long before its end a fact is observed again.
const REFRESH_MARGIN: Duration = Duration::from_secs(10);
/// Bounds of the time between two observations of facts that expire.
const SHORTEST_REFRESH: Duration = Duration::from_secs(5);
/// When a change that could not be recorded is tried again.
const RECORD_AGAIN: Duration = Duration::from_secs(30);
/// How often a PLAT is checked, if it is to be checked.
const CHECK_AGAIN: Duration = Duration::from_secs(30);
const LONGEST_REFRESH: Duration = Duration::from_secs(24 * 3600);

/// How the life of an instance ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was stopped, or had nothing to do.
    Clean,
    /// Something failed; it was reported.
    Failed,
}

/// One instance with all that it acts upon.
pub struct Runner {
    /// The instance.
    pub instance: Instance,
    /// Whether it waits when there is nothing to do, or ends.
    pub waits: bool,
    /// What it reads.
    pub world: Arc<dyn World>,
    /// What it takes for itself on its uplink.
    pub claims: Arc<dyn Claims>,
    /// What it changes.
    pub system: Box<dyn System>,
    /// Where it records that.
    pub journal: Box<dyn Journal>,
    /// Deaths of its translator.
    pub exits: mpsc::UnboundedReceiver<TranslatorExit>,
    /// Tells of changes that concern it.
    pub changes: Changes,
    /// Asks it to stop.
    pub stop: CancellationToken,
    /// Where it says how it is.
    pub status: watch::Sender<Status>,
    /// Limits how often it repairs what others undo.
    pub repairs: Repairs,
    /// Limits how often it changes its plan.
    pub pace: Pace,
    /// What was said and has not changed since.
    pub said: Said,
    /// What it went through so far.
    pub past: Past,
    /// The uplink and the CLAT's IPv6 address on it that this instance has claimed.
    pub claimed: Option<(String, Ipv6Addr)>,
}

/// The past of an instance. It decides when `when-idle=exit` ends it, and feeds the next observation.
#[derive(Debug, Default)]
pub struct Past {
    /// Whether it ever ran.
    ran: bool,
    /// Since when it has had nothing to do, after it ran.
    idle_since: Option<Instant>,
    /// What it knows from earlier observations.
    memory: Memory,
}

/// Why a plan was left.
enum Cause {
    Stopped,
    Idle(Nothing),
    Failed(String),
}

/// What became of a plan.
struct Ended {
    why: Cause,
    /// Whether all of it was undone without an error.
    undone: bool,
}

impl Ended {
    /// Left before anything was done.
    fn untouched(why: Cause) -> Self {
        Self { why, undone: true }
    }
}

impl Runner {
    /// Lives until it is stopped, or until `when-idle=exit` ends it.
    pub async fn run(mut self) -> End {
        let mut back_off = BACK_OFF.0;
        let mut first = true;
        loop {
            self.changes.mark_unchanged();
            let left = self.live_once(first, &mut back_off).await;
            self.claim(None).await;
            first = false;
            let undone = self.journal.pending().is_empty() && left.undone;
            let end = if undone { End::Clean } else { End::Failed };
            let pause = match left.why {
                Cause::Stopped => return self.end(end),
                Cause::Idle(nothing) if undone => {
                    let Some(patience) = self.patience(&nothing) else {
                        return self.end(End::Clean);
                    };
                    self.enter(State::Idle, &nothing.reason);
                    let rest = self.pace.rest();
                    if !rest.is_zero() {
                        self.tell_once("this comes and goes, so each start waits for some seconds");
                        if self.pause(rest).await {
                            return self.end(end);
                        }
                    }
                    patience
                }
                Cause::Failed(_) | Cause::Idle(_) if !self.waits && !self.past.ran => return self.end(End::Failed),
                Cause::Failed(reason) | Cause::Idle(Nothing { reason, .. }) => {
                    let pause = jittered(back_off, self.instance.seed);
                    back_off = (back_off * 2).min(BACK_OFF.1);
                    self.tell_back_off(pause);
                    // The events of its own unwinding must not start it again at once.
                    if self.pause(BACK_OFF.0).await {
                        return self.end(end);
                    }
                    self.changes.mark_unchanged();
                    if undone {
                        self.enter(State::Idle, &reason);
                    }
                    pause
                }
            };
            if self.wait_for_change(pause).await {
                return self.end(end);
            }
        }
    }

    /// How long it waits if there is nothing to do; `None` = it ends.
    fn patience(&mut self, nothing: &Nothing) -> Option<Duration> {
        self.tell_nothing_to_do(&nothing.reason);
        if self.waits {
            return Some(IDLE_POLL);
        }
        if !self.past.ran || nothing.has_native_ipv4 {
            return None;
        }
        let since = *self.past.idle_since.get_or_insert_with(Instant::now);
        let left = GRACE.saturating_sub(since.elapsed());
        if left.is_zero() {
            info!(
                "what was lost has not come back within {} s, so the instance ends",
                GRACE.as_secs()
            );
            return None;
        }
        self.tell_once(&format!("waiting {} s for it to come back", GRACE.as_secs()));
        Some(left.min(IDLE_POLL))
    }

    /// From observing to being unwound again.
    async fn live_once(&mut self, first: bool, back_off: &mut Duration) -> Ended {
        if !self.journal.pending().is_empty() && !self.unwind(0).await {
            return Ended {
                why: Cause::Failed("not everything could be undone".into()),
                undone: false,
            };
        }
        self.enter(State::Observing, "");
        let plan = match self.observe(first, None).await {
            Observation::Ready(plan) => *plan,
            Observation::Idle(nothing) => return Ended::untouched(Cause::Idle(nothing)),
            Observation::Stopped => return Ended::untouched(Cause::Stopped),
            Observation::Failed(reason) => return Ended::untouched(Cause::Failed(reason)),
        };
        self.claim(Some(&plan.facts)).await;
        let mut was_up = false;
        let why = match self.apply(&plan, 0).await {
            Ok(()) => {
                was_up = true;
                let begun = Instant::now();
                let why = self.live(plan).await;
                self.pace.lived(begun.elapsed());
                // A translator that dies soon after each start is no success.
                if begun.elapsed() >= BACK_OFF.1 {
                    *back_off = BACK_OFF.0;
                }
                why
            }
            Err(why) => why,
        };
        let undone = self.unwind(0).await;
        if was_up && undone {
            info!("{} is down", self.instance.settings.clat.clat_dev);
        }
        Ended { why, undone }
    }

    /// Carries out the plan from step `from` on.
    async fn apply(&mut self, plan: &Plan, from: usize) -> Result<(), Cause> {
        self.enter(State::Applying, "");
        let steps = &plan.steps[from..];
        // The kernel side logs each step at debug level. This adds the reasons.
        for step in steps {
            trace!("plan: {}: {}: {}", step.stage, step.apply, step.why);
        }
        let stop = self.stop.clone();
        match apply::apply(steps, &mut *self.system, &mut *self.journal, &|| stop.is_cancelled()).await {
            Ok(done) => {
                self.repairs.done.extend(done);
                self.tell(plan);
                if let Some((uplink, address)) = claimed_by(&plan.facts) {
                    self.claims.announce(&uplink, address).await;
                }
                Ok(())
            }
            Err(ApplyError::Stopped) => Err(Cause::Stopped),
            // The stop ended a running script-up.
            Err(failure) if self.stop.is_cancelled() => {
                debug!("{}", chain(&failure));
                Err(Cause::Stopped)
            }
            Err(failure) => Err(Cause::Failed(self.report(&chain(&failure)))),
        }
    }

    /// Runs until something ends it.
    async fn live(&mut self, mut plan: Plan) -> Cause {
        self.is_up();
        self.pace.held = plan.facts.plat_prefix.as_ref().map(|fact| fact.value);
        let mut refresh = Instant::now() + refresh_after(&plan, &self.instance.settings);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Cause::Stopped,
                Some(exit) = self.exits.recv() => {
                    if exit.start.is_over() {
                        continue;
                    }
                    return Cause::Failed(self.report(&format!("the translator on {} died: {}", exit.device, exit.detail)));
                }
                changed = self.changes.changed() => {
                    if changed.is_err() {
                        return Cause::Stopped;
                    }
                    trace!("the network has changed");
                }
                () = sleep_until(refresh) => trace!("a fact is about to end, or is to be checked"),
                () = sleep_until(repairs::next_look()) => {
                    if self.translator_is_still_chosen(&plan).await {
                        let which = if self.repairs.was_behind() { |_: &Op| true } else { |op: &Op| nature(op).untold };
                        if let Err(why) = self.put_back(&plan, which).await {
                            return why;
                        }
                        continue;
                    }
                    trace!("another translator is the right one now");
                }
            }
            match self.follow(&plan).await {
                Ok(followed) => {
                    refresh = Instant::now() + refresh_after(&followed, &self.instance.settings);
                    refresh = self.pace.look_again.take().map_or(refresh, |again| again.min(refresh));
                    plan = followed;
                }
                Err(why) => return why,
            }
        }
    }

    /// Observes again, and replaces the running plan by the new one.
    async fn follow(&mut self, old: &Plan) -> Result<Plan, Cause> {
        let new = match self.observe(false, Some(old)).await {
            Observation::Ready(plan) => *plan,
            Observation::Idle(nothing) => return Err(Cause::Idle(nothing)),
            Observation::Stopped => return Err(Cause::Stopped),
            Observation::Failed(reason) if self.uplink_is_bare(old).await => return Err(Cause::Failed(reason)),
            Observation::Failed(_) => return Ok(old.clone()),
        };
        let head = common_head(self.repairs.done.iter().map(|done| &done.step), &new.steps);
        if !self.may_change(old, &new, head).await {
            self.put_back(old, |_| true).await?;
            return Ok(old.clone());
        }
        self.claim(Some(&new.facts)).await;
        if head < old.steps.len() || head < new.steps.len() {
            info!("the network changed; doing steps {} and later again", head + 1);
            if !self.unwind(head).await {
                return Err(Cause::Failed("not everything could be undone".into()));
            }
            self.apply(&new, head).await?;
            self.is_up();
        }
        self.put_back(&new, |_| true).await?;
        Ok(new)
    }

    /// Whether the new plan may replace the running one, of which `head` steps stay. A reason against it is logged
    /// once, and the plan is looked at again later.
    async fn may_change(&mut self, old: &Plan, new: &Plan, head: usize) -> bool {
        let steps = new.steps.get(head..).unwrap_or_default();
        let kept_because = if head == old.steps.len() && steps.is_empty() {
            None
        } else if !self.pace.allows(&old.facts, &new.facts) {
            Some("the prefix or the address changes too often; clatd keeps those in use for some seconds".to_owned())
        } else {
            let room = self.journal.make_room(head, steps).await;
            room.err().map(|failure| {
                self.pace.look_again = Some(Instant::now() + RECORD_AGAIN);
                format!(
                    "{}; the network changed, but clatd changes nothing until it can record it",
                    chain(&failure)
                )
            })
        };
        let Some(why) = kept_because else {
            self.pace.held = new.facts.plat_prefix.as_ref().map(|fact| fact.value);
            return true;
        };
        self.warn_once(&why);
        // The observation may have reserved another address.
        let seen = claimed_by(&new.facts);
        if let Some((uplink, address)) = seen.filter(|seen| self.claimed.as_ref() != Some(seen)) {
            self.claims.give_back(&uplink, address).await;
        }
        false
    }

    /// Takes the address of these facts for itself, and gives back its earlier one.
    async fn claim(&mut self, facts: Option<&Facts>) {
        let claimed = facts.and_then(claimed_by);
        if self.claimed != claimed
            && let Some((uplink, address)) = std::mem::replace(&mut self.claimed, claimed)
        {
            self.claims.give_back(&uplink, address).await;
        }
    }

    /// Whether the uplink has lost all its addresses, so that nothing can leave by it.
    async fn uplink_is_bare(&mut self, plan: &Plan) -> bool {
        let Some(uplink) = &plan.facts.uplink else { return false };
        let addresses = self.world.addresses6(&uplink.value.name).await;
        addresses.is_ok_and(|addresses| !addresses.iter().any(|address| address.global))
    }

    /// Undoes all steps but the first `keep`. Returns false if not all of them could be undone.
    async fn unwind(&mut self, keep: usize) -> bool {
        self.enter(State::Unwinding, "");
        self.repairs.done.truncate(keep);
        let keep: Vec<u64> = self.repairs.done.iter().map(|done| done.seq).collect();
        let failures = apply::unwind(&mut *self.system, &mut *self.journal, &keep).await;
        for failure in &failures {
            self.report(&chain(failure));
        }
        if self
            .journal
            .pending()
            .iter()
            .any(|pending| !keep.contains(&pending.seq))
        {
            self.enter(
                State::Stuck,
                "not everything could be undone; `clatd cleanup` tries again",
            );
        }
        failures.is_empty()
    }

    /// It runs. Later losses and failures are news again.
    fn is_up(&mut self) {
        self.past.ran = true;
        self.past.idle_since = None;
        self.said.forget_failures();
        self.enter(State::Running, "");
    }

    fn end(&self, end: End) -> End {
        debug!("ended: {end:?}");
        end
    }

    /// Sleeps. Returns true if a stop was asked for meanwhile.
    async fn pause(&mut self, duration: Duration) -> bool {
        tokio::select! {
            () = self.stop.cancelled() => true,
            () = sleep(duration) => false,
        }
    }

    /// Waits for a change of the network, `longest` at most. Returns true if a stop was asked for meanwhile.
    async fn wait_for_change(&mut self, longest: Duration) -> bool {
        tokio::select! {
            () = self.stop.cancelled() => true,
            changed = self.changes.changed() => changed.is_err(),
            () = sleep(longest) => false,
        }
    }
}

/// The uplink and the address on it in these facts.
fn claimed_by(facts: &Facts) -> Option<(String, Ipv6Addr)> {
    let uplink = facts.uplink.as_ref()?.value.name.clone();
    Some((uplink, facts.clat_v6_addr.as_ref()?.value))
}

/// When facts that expire are observed again: ten seconds before the first one ends (RFC 7050 section 3).
fn refresh_after(plan: &Plan, settings: &Settings) -> Duration {
    if !matches!(settings.plat.plat_check, PlatCheck::No | PlatCheck::Auto) {
        return CHECK_AGAIN;
    }
    let facts = &plan.facts;
    let lifetimes = [
        facts.plat_prefix.as_ref().and_then(|fact| fact.lifetime_s),
        facts.clat_v6_addr.as_ref().and_then(|fact| fact.lifetime_s),
    ];
    let first = lifetimes
        .into_iter()
        .flatten()
        .min()
        .map_or(LONGEST_REFRESH, |seconds| Duration::from_secs(seconds.into()));
    first
        .saturating_sub(REFRESH_MARGIN)
        .clamp(SHORTEST_REFRESH, LONGEST_REFRESH)
}

/// Between half of `pause` and all of it, so that instances that failed together do not retry together.
fn jittered(pause: Duration, seed: u128) -> Duration {
    let share = u32::try_from(seed % 1000).unwrap_or(0) as f32 / 1000.0;
    pause.mul_f32(0.5 + share / 2.0)
}
