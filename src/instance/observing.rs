//! One observation of an instance, with the waits that a real run makes.

use std::time::{Duration, SystemTime};

use clatd_stages::facts::Facts;
use clatd_stages::plan::Plan;
use clatd_stages::stage::{self, ObserveError, Stage, Verdict};
use tokio::time::Instant;
use tracing::{debug, info, trace};

use super::{Runner, State, claimed_by};
use crate::report::chain;
use crate::watch::Interest;

/// How long something that will come soon (the end of duplicate address detection) is waited for.
const NOT_YET_LIMIT: Duration = Duration::from_secs(15);
/// How often it is looked at meanwhile.
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
    /// stands.
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
        for stage in stage::pipeline() {
            if at_start && self.delay(&*stage).await {
                return Observation::Stopped;
            }
            let Some(verdict) = self.observe_stage(&*stage, &mut facts).await else {
                return Observation::Stopped;
            };
            self.changes.mind(Interest::of(&self.instance, &facts));
            self.past.memory.beside.clone_from(&facts.memory.beside);
            if !matches!(verdict, Ok(Verdict::Ready))
                && let Some((uplink, address)) = claimed_by(&facts).filter(|found| self.claimed.as_ref() != Some(found))
            {
                self.world.give_back(&uplink, address).await;
            }
            match verdict {
                Ok(Verdict::Ready) => {}
                Ok(Verdict::Idle { reason }) => return self.has_nothing_to_do(facts, reason),
                Err(ObserveError::NotYet { what, .. }) if self.waits || self.past.ran => {
                    return self.has_nothing_to_do(facts, what);
                }
                Err(failure) => return Observation::Failed(self.report_outcome(&chain(&failure))),
            }
        }
        trace!("observed: {}", shown(&facts));
        self.said.forget_outcome();
        self.tell_notes(&facts);
        self.status.send_modify(|status| {
            status.facts = facts.clone();
            status.observed = SystemTime::now();
        });
        match stage::plan(&self.instance, facts) {
            Ok(plan) => Observation::Ready(Box::new(plan)),
            Err(failure) => Observation::Failed(self.report_outcome(&chain(&failure))),
        }
    }

    /// Waits for the delay of a stage. Returns true if a stop was asked for meanwhile.
    async fn delay(&mut self, stage: &dyn Stage) -> bool {
        let Some(delay) = stage.delay(&self.instance) else {
            return false;
        };
        let what = format!("waiting {} s for {}", delay.time.as_secs(), delay.what_for);
        info!("{what}");
        self.enter(State::Observing, &what);
        if self.pause(delay.time).await {
            return true;
        }
        self.enter(State::Observing, "");
        false
    }

    /// Observes one stage, again and again while it needs something that will come soon; `None` = a stop was asked
    /// for.
    async fn observe_stage(&mut self, stage: &dyn Stage, facts: &mut Facts) -> Option<Result<Verdict, ObserveError>> {
        let limit = Instant::now() + NOT_YET_LIMIT;
        loop {
            // An observation changes nothing, so it can be cancelled at any moment.
            let observed = tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                observed = stage.observe(&self.instance, &*self.world, facts) => observed,
            };
            match observed {
                Err(ObserveError::NotYet { what, .. }) if Instant::now() < limit => {
                    debug!("{}: {what}", stage.name());
                    if self.pause(NOT_YET_POLL).await {
                        return None;
                    }
                }
                verdict => return Some(verdict),
            }
        }
    }

    /// The status shows from now on what was found so far.
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
