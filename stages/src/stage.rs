//! What a stage is: it observes facts, and plans steps out of them. [`crate::pipeline`] has them in order.

use std::time::Duration;

use async_trait::async_trait;

use crate::claims::Claims;
use crate::facts::Facts;
use crate::net::ALIAS_PREFIX;
use crate::plan::{StageName, Step};
use crate::settings::Settings;
use crate::world::{World, WorldError};

/// One CLAT on one uplink, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its name: the file stem in `instances.d`, else the name of its device.
    pub name: String,
    /// Its settings.
    pub settings: Settings,
    /// Where files of this run go.
    pub runtime_dir: String,
    /// Its place among the instances of the daemon, from 0.
    pub ordinal: u32,
    /// Random bits, drawn once, so that an address that is derived again from the same base is the same.
    pub seed: u128,
}

impl Instance {
    /// The ifalias of its device.
    pub fn alias(&self) -> String {
        format!("{ALIAS_PREFIX}{}", self.name)
    }
}

/// What an observation leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Go on with the next stage.
    Ready,
    /// Nothing to do here now; no error.
    Idle {
        /// Why, for people.
        reason: String,
    },
}

impl Readiness {
    /// Nothing to do, because of `reason`.
    pub fn idle(reason: impl Into<String>) -> Self {
        Self::Idle { reason: reason.into() }
    }
}

/// An observation that failed.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The system could not be read.
    #[error("{stage}: cannot observe")]
    World {
        /// The stage.
        stage: StageName,
        /// The read that failed.
        #[source]
        source: WorldError,
    },
    /// What is needed will come soon; another look is worth it.
    #[error("{stage}: {what}")]
    NotYet {
        /// The stage.
        stage: StageName,
        /// What is waited for.
        what: String,
    },
    /// What was found does not do.
    #[error("{stage}: {what}")]
    Unusable {
        /// The stage.
        stage: StageName,
        /// What is wrong, and what the user can do about it.
        what: String,
    },
}

/// Facts from which no plan can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{stage}: {what}")]
pub struct PlanError {
    /// The stage.
    pub stage: StageName,
    /// What is wrong, and what the user can do about it.
    pub what: String,
}

/// A wait before an observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delay {
    /// How long.
    pub time: Duration,
    /// What for, for people.
    pub what_for: &'static str,
}

/// One step family of the pipeline: observes facts and plans operations, never changes anything itself.
#[async_trait]
pub trait Stage: Send + Sync {
    /// Which stage it is.
    fn name(&self) -> StageName;

    /// What to wait for before the observation. A dry run does not wait.
    fn delay(&self, instance: &Instance) -> Option<Delay>;

    /// Reads the system into `facts`. Later stages see what earlier ones found.
    async fn observe(
        &self,
        instance: &Instance,
        world: &dyn World,
        claims: &dyn Claims,
        facts: &mut Facts,
    ) -> Result<Readiness, ObserveError>;

    /// Takes those facts from `old` in which our own changes show: what was there before these changes counts. Both are
    /// of the same uplink, which may have another name by now.
    fn keep(&self, old: &Facts, new: &mut Facts);

    /// Makes steps out of facts: pure, no I/O, no clock.
    fn plan(&self, instance: &Instance, facts: &Facts) -> Result<Vec<Step>, PlanError>;
}

/// Shorthand for stages: a world error of this stage.
pub(crate) fn world_error(stage: StageName) -> impl FnOnce(WorldError) -> ObserveError {
    move |source| ObserveError::World { stage, source }
}
