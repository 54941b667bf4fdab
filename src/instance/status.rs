//! What others may know of an instance.

use std::time::SystemTime;

use clatd_stages::facts::Facts;
pub use clatd_stages::status::State;

/// What others may know of an instance.
#[derive(Debug, Clone)]
pub struct Status {
    /// Its state.
    pub state: State,
    /// Since when.
    pub since: SystemTime,
    /// Why, in words; empty if there is nothing to say.
    pub reason: String,
    /// What it observed last.
    pub facts: Facts,
    /// When.
    pub observed: SystemTime,
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
            observed: SystemTime::now(),
            last_error: None,
        }
    }
}
