//! Duplicate address detection and reachability on real links. Each host of a test is a network namespace of one of its
//! threads, so nothing is left when the test ends, however it ends. They need root, and fail without.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "probe/bed.rs"]
mod bed;

#[path = "probe/dad.rs"]
mod dad;
#[path = "probe/reach.rs"]
mod reach;
#[path = "probe/watch.rs"]
mod watch;
