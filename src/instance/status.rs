//! What others may know of an instance.

use std::fmt;
use std::time::SystemTime;

use clatd_stages::facts::Facts;

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Reading the system.
    Observing,
    /// Nothing to do here now.
    Idle,
    /// Carrying out its plan.
    Applying,
    /// Translating.
    Running,
    /// Taking its plan back.
    Unwinding,
    /// An undo failed; its journal is kept.
    Stuck,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Observing => "observing",
            Self::Idle => "idle",
            Self::Applying => "applying",
            Self::Running => "running",
            Self::Unwinding => "unwinding",
            Self::Stuck => "stuck",
        })
    }
}

/// What others may know of an instance.
#[derive(Debug, Clone)]
pub struct Status {
    /// Its state.
    pub state: State,
    /// Since when.
    pub since: SystemTime,
    /// Why, for people; empty where there is nothing to say.
    pub reason: String,
    /// What it observed last.
    pub facts: Facts,
    /// Its last error, if there ever was one.
    pub last_error: Option<String>,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            state: State::Observing,
            since: SystemTime::now(),
            reason: String::new(),
            facts: Facts::default(),
            last_error: None,
        }
    }
}
