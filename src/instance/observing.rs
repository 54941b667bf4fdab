//! One observation of an instance, with the waits that a real run makes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use clatd_stages::facts::Facts;
use clatd_stages::fast_path;
use clatd_stages::pipeline::{self, Walk};
use clatd_stages::plan::{Plan, StageName};
use clatd_stages::stage::{Delay, ObserveError, Readiness};
use tokio::time::{Instant, sleep};
use tracing::{debug, info, trace, warn};

use super::{Runner, State, claimed_by};
use crate::report::chain;
use crate::watch::Interest;

/// How long something that will come soon (the end of duplicate address detection) is waited for.
const NOT_YET_LIMIT: Duration = Duration::from_secs(15);
/// How often it is checked meanwhile.
const NOT_YET_POLL: Duration = Duration::from_millis(250);

/// What an observation came to.
pub(super) enum Observation {
    Ready(Box<Plan>),
    Idle(Nothing),
    Failed(String),
    Stopped,
}

/// That there is nothing to do.
pub(super) struct Nothing {
    /// Why, for people.
    pub(super) reason: String,
    /// Because native IPv4 is there.
    pub(super) has_native_ipv4: bool,
}

/// Facts in one line.
fn shown(facts: &Facts) -> String {
    serde_json::to_string(facts).unwrap_or_else(|error| error.to_string())
}

impl Runner {
    /// Observes and plans. With `at_start` it also waits for the delays of the stages. `running` is the plan that
    /// stands: facts in which its changes show are taken from it.
    pub(super) async fn observe(&mut self, at_start: bool, running: Option<&Plan>) -> Observation {
        let memory = &mut self.past.memory;
        memory.running = running.is_some();
        if let Some(uplink) = running.and_then(|plan| plan.facts.uplink.as_ref()) {
            memory.uplink = Some(uplink.value.clone());
        }
        let mut facts = Facts {
            held_prefix: self.pace.held,
            memory: memory.clone(),
            ..Facts::default()
        };
        let stop = self.stop.clone();
        let (instance, world, claims) = (self.instance.clone(), Arc::clone(&self.world), Arc::clone(&self.claims));
        let mut walk = Walking {
            runner: self,
            at_start,
            patience: Instant::now(),
        };
        // An observation changes nothing, so it can be cancelled at any moment.
        let verdict = tokio::select! {
            biased;
            () = stop.cancelled() => return Observation::Stopped,
            verdict = pipeline::observe(&instance, &*world, &*claims, &mut facts, &mut walk) => verdict,
        };
        match verdict {
            Ok(Readiness::Ready) => {}
            Ok(Readiness::Idle { reason }) => return self.has_nothing_to_do(facts, reason),
            Err(ObserveError::NotYet { what, .. }) if self.waits || self.past.ran => {
                return self.has_nothing_to_do(facts, what);
            }
            Err(failure) => return Observation::Failed(self.report_outcome(&chain(&failure))),
        }
        trace!("observed: {}", shown(&facts));
        self.said.forget_outcome();
        self.tell_notes(&facts);
        self.status.send_modify(|status| {
            status.facts = facts.clone();
            status.observed = SystemTime::now();
        });
        if let Some(running) = running {
            pipeline::keep_what_we_changed(&running.facts, &mut facts);
        }
        match pipeline::plan(&self.instance, facts) {
            Ok(plan) => Observation::Ready(Box::new(plan)),
            Err(failure) => Observation::Failed(self.report_outcome(&chain(&failure))),
        }
    }

    /// Whether this plan's translator would be chosen again. What cannot be told is no reason for a change.
    pub(super) async fn translator_is_still_chosen(&mut self, plan: &Plan) -> bool {
        let still = fast_path::is_still_chosen(&self.instance.settings, &*self.world, &plan.facts).await;
        still.unwrap_or_else(|failure| {
            warn!("{}", chain(&failure));
            true
        })
    }

    /// There is nothing to do. From now on the status shows what was found so far.
    fn has_nothing_to_do(&self, facts: Facts, reason: String) -> Observation {
        trace!("observed: {}", shown(&facts));
        let native = facts.native_ipv4.as_ref();
        let has_native_ipv4 = native.is_some_and(|routes| !routes.value.is_empty());
        self.status.send_modify(|status| {
            status.facts = facts;
            status.observed = SystemTime::now();
        });
        Observation::Idle(Nothing {
            reason,
            has_native_ipv4,
        })
    }
}

/// What an instance does around the stages that observe.
struct Walking<'a> {
    runner: &'a mut Runner,
    /// Whether the delays of stages are waited for.
    at_start: bool,
    /// Until when this stage may ask for what will come soon.
    patience: Instant,
}

#[async_trait]
impl Walk for Walking<'_> {
    async fn before(&mut self, delay: Option<Delay>) {
        if let Some(delay) = delay.filter(|_| self.at_start) {
            let what = format!("waiting {} s for {}", delay.time.as_secs(), delay.what_for);
            info!("{what}");
            self.runner.enter(State::Observing, &what);
            sleep(delay.time).await;
            self.runner.enter(State::Observing, "");
        }
        self.patience = Instant::now() + NOT_YET_LIMIT;
    }

    async fn again(&mut self, stage: StageName, what: &str) -> bool {
        if Instant::now() >= self.patience {
            return false;
        }
        debug!("{stage}: {what}");
        sleep(NOT_YET_POLL).await;
        true
    }

    async fn observed(&mut self, facts: &Facts, verdict: &Result<Readiness, ObserveError>) {
        let runner = &mut *self.runner;
        runner.changes.mind(Interest::of(&runner.instance, facts));
        runner.past.memory.beside.clone_from(&facts.memory.beside);
        if matches!(verdict, Ok(Readiness::Ready)) {
            return;
        }
        if let Some((uplink, address)) = claimed_by(facts).filter(|found| runner.claimed.as_ref() != Some(found)) {
            runner.claims.give_back(&uplink, address).await;
        }
    }
}
