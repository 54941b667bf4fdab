//! What the service manager is told about all instances: whether they are ready, and one line of status.

use std::sync::Arc;

use clatd_stages::facts::Facts;
use clatd_stages::settings::WhenIdle;
use tokio::sync::{Notify, watch};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{StartedInstance, Supervisor};
use crate::instance::{State, Status};
use crate::service::ServiceManager;

/// So many instances are named one by one. Of more, only the number is told.
const NAMED: usize = 6;

/// A clock that ticks as often as the service manager expects a sign of life; `None` = it expects none.
pub(super) fn watchdog() -> Option<Interval> {
    let mut interval = interval(ServiceManager::watchdog()?);
    // A late tick is not followed by another one at once.
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Some(interval)
}

/// The next tick, if there is a clock.
pub(super) async fn tick(watchdog: &mut Option<Interval>) {
    match watchdog {
        Some(interval) => _ = interval.tick().await,
        None => std::future::pending().await,
    }
}

/// Rings whenever the status changes, for as long as the instance lives.
pub(super) fn ring_at_changes(mut status: watch::Receiver<Status>, bell: Arc<Notify>) {
    if !ServiceManager::is_there() {
        return;
    }
    tokio::spawn(async move {
        while status.changed().await.is_ok() {
            bell.notify_one();
        }
    });
}

impl Supervisor {
    /// Tells the service manager what has changed.
    pub(super) fn tell_manager(&mut self) {
        if !ServiceManager::is_there() {
            return;
        }
        for started in self.started.values_mut() {
            let status = started.status.borrow();
            // An idle instance observes again and again, which is no news.
            if !(status.state == State::Observing && status.reason.is_empty()) || started.told.is_empty() {
                started.told = line(&status);
            }
        }
        let text = self.text();
        self.manager.update(self.is_ready(), &text);
    }

    /// Whether every instance waits, or knows whether there is something to do. One that failed and ended is not
    /// ready; this matters when it was the last.
    fn is_ready(&self) -> bool {
        if self.started.is_empty() && self.templates.is_empty() {
            return !self.failed;
        }
        self.started.values().all(is_settled)
    }

    fn text(&self) -> String {
        if self.started.is_empty() {
            let stops = self.stop.is_cancelled();
            return if stops { "stopping" } else { "no instances" }.into();
        }
        if self.started.len() <= NAMED {
            let named = self.started.iter().map(|(name, one)| format!("{name}: {}", one.told));
            return named.collect::<Vec<_>>().join("; ");
        }
        let running = |one: &&StartedInstance| one.status.borrow().state == State::Running;
        let running = self.started.values().filter(running).count();
        format!("{running} of {} instances run", self.started.len())
    }
}

fn is_settled(started: &StartedInstance) -> bool {
    let waits = started.configured.instance.settings.general.when_idle == Some(WhenIdle::Wait);
    waits
        || matches!(
            started.status.borrow().state,
            State::Idle | State::Running | State::Stuck
        )
}

fn line(status: &Status) -> String {
    let (what, why) = match status.state {
        State::Running => return running(&status.facts),
        State::Observing => ("looking", &status.reason),
        State::Idle => ("idle", &status.reason),
        State::Applying => ("starting", &status.reason),
        State::Unwinding => ("stopping", &status.reason),
        State::Stuck => ("stuck", &status.reason),
    };
    if why.is_empty() {
        what.into()
    } else {
        format!("{what} ({why})")
    }
}

fn running(facts: &Facts) -> String {
    match (&facts.uplink, &facts.plat_prefix) {
        (Some(uplink), Some(prefix)) => format!("running on {} with {}", uplink.value.name, prefix.value),
        _ => "running".into(),
    }
}
