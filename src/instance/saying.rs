//! What an instance says: to the log, and to whoever asks for its status.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use clatd_stages::facts::Facts;
use clatd_stages::plan::Plan;
use tracing::{debug, error, info, warn};

use super::{Runner, State};

/// What was said, so that each thing is said once until something changes.
#[derive(Debug, Default)]
pub struct Said {
    /// Why the last observation led to no plan, if it did not.
    outcome: Option<String>,
    /// What the last observation warned of.
    notes: Vec<String>,
    /// What failed since it last came up, and what was done about it.
    since_up: VecDeque<String>,
}

impl Said {
    /// Lines that are remembered; the oldest makes room.
    const MOST: usize = 16;

    /// Whether the line is news.
    fn is_new(&mut self, line: &str) -> bool {
        if self.since_up.iter().any(|said| said == line) {
            return false;
        }
        self.since_up.truncate(Self::MOST - 1);
        self.since_up.push_front(line.to_owned());
        true
    }

    /// The CLAT is up, so a later failure is news.
    pub(super) fn forget_failures(&mut self) {
        self.since_up.clear();
    }

    /// The last observation came to a plan.
    pub(super) fn forget_outcome(&mut self) {
        self.outcome = None;
    }
}

impl Runner {
    /// Says that the CLAT is up, and how packets pass.
    pub(super) fn tell(&self, plan: &Plan) {
        let facts = &plan.facts;
        if let (Some(prefix), Some(uplink), Some(address)) = (&facts.plat_prefix, &facts.uplink, &facts.clat_v6_addr) {
            info!(
                "{} is up: IPv4 goes by {} through {}, {} becomes {} (prefix from {}, address: {}{})",
                self.instance.settings.clat.clat_dev,
                uplink.value.name,
                prefix.value,
                self.instance.settings.clat.clat_v4_addr,
                address.value,
                prefix.source,
                address.source,
                facts
                    .translator
                    .iter()
                    .map(|chosen| format!(", translator {}: {}", chosen.value, chosen.source))
                    .collect::<String>()
            );
        }
    }

    /// Says why there is nothing to do.
    pub(super) fn tell_nothing_to_do(&mut self, reason: &str) {
        if self.said.outcome.as_deref() == Some(reason) {
            debug!("{reason}");
        } else {
            info!("{reason}");
            self.said.outcome = Some(reason.to_owned());
        }
    }

    /// Says this line, but only once until the CLAT is up again.
    pub(super) fn tell_once(&mut self, line: &str) {
        if self.said.is_new(line) {
            info!("{line}");
        } else {
            debug!("{line}");
        }
    }

    /// Warns with this line, but only once until the CLAT is up again.
    pub(super) fn warn_once(&mut self, line: &str) {
        if self.said.is_new(line) {
            warn!("{line}");
        } else {
            debug!("{line}");
        }
    }

    /// Warns of what the observation found odd, unless the last observation found it, too.
    pub(super) fn tell_notes(&mut self, facts: &Facts) {
        let notes: Vec<String> = facts.all_notes().cloned().collect();
        for note in notes.iter().filter(|note| !self.said.notes.contains(note)) {
            warn!("{note}");
        }
        self.said.notes = notes;
    }

    /// Says when the instance tries again, but only once, since the pauses grow.
    pub(super) fn tell_back_off(&mut self, pause: Duration) {
        let seconds = pause.as_secs_f32();
        if self.said.is_new("trying again") {
            warn!("trying again in {seconds:.1} s, or when the network changes; later tries are logged at debug level");
        } else {
            debug!("trying again in {seconds:.1} s, or when the network changes");
        }
    }

    /// Reports that an observation failed. The same failure is reported once until an observation succeeds.
    pub(super) fn report_outcome(&mut self, failure: &str) -> String {
        if self.said.outcome.as_deref() == Some(failure) {
            debug!("{failure}");
        } else {
            error!("{failure}");
            self.said.outcome = Some(failure.to_owned());
        }
        self.remember(failure)
    }

    /// Reports a failure, but only once until the CLAT is up again.
    pub(super) fn report(&mut self, failure: &str) -> String {
        if self.said.is_new(failure) {
            error!("{failure}");
        } else {
            debug!("{failure}");
        }
        self.remember(failure)
    }

    fn remember(&self, failure: &str) -> String {
        self.status
            .send_modify(|status| status.last_error = Some(failure.to_owned()));
        failure.to_owned()
    }

    /// Enters a state.
    pub(super) fn enter(&self, state: State, reason: &str) {
        debug!("state {state:?}");
        self.status.send_modify(|status| {
            if status.state != state {
                status.since = SystemTime::now();
            }
            status.state = state;
            status.reason = reason.to_owned();
        });
    }
}
