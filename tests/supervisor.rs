//! Events in, transitions out, without root: instances on a model of the system, in the test's own time.
//!
//! * `cases/*.txt`: recorded events and what follows each. `CLATD_BLESS=1` writes down what follows now.
//! * `plans/`: what several instances plan together, as snapshots.
//! * `any_order`: random events over one to three instances that share a system; all of it is undone in the end.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

#[path = "supervisor/any_order.rs"]
mod any_order;
#[path = "supervisor/events.rs"]
mod events;
#[path = "supervisor/plans.rs"]
mod plans;
#[path = "supervisor/recorded.rs"]
mod recorded;
#[path = "supervisor/shared.rs"]
mod shared;
