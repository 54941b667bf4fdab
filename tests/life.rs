//! The life of an instance: events in, states and the state of the system out. Time is the test's, so waits take none.

#![allow(clippy::unwrap_used, reason = "test support")]

/// Makes two tests of each: a running instance does the same whatever `when-idle` says.
macro_rules! in_both_modes {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[tokio::test(start_paused = true)]
            async fn when_idle_wait() {
                super::$name(true).await;
            }
            #[tokio::test(start_paused = true)]
            async fn when_idle_exit() {
                super::$name(false).await;
            }
        }
    )+};
}

mod support;

#[path = "life/bed.rs"]
mod bed;
#[path = "life/ends.rs"]
mod ends;
#[path = "life/following.rs"]
mod following;
#[path = "life/pace.rs"]
mod pace;
#[path = "life/waiting.rs"]
mod waiting;
