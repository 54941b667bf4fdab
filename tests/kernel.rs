//! The read and write sides against a real kernel. Each test has a network namespace of its own, which goes with the
//! test's threads. They need root, and fail without.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "kernel/support.rs"]
mod support;

#[cfg(feature = "ebpf")]
#[path = "kernel/bypassed.rs"]
mod bypassed;
#[path = "kernel/cleanup.rs"]
mod cleanup;
#[path = "kernel/devices.rs"]
mod devices;
#[path = "kernel/every_op.rs"]
mod every_op;
#[path = "kernel/fast_path.rs"]
mod fast_path;
#[path = "kernel/firewalls.rs"]
mod firewalls;
#[path = "kernel/journals.rs"]
mod journals;
#[path = "kernel/listening.rs"]
mod listening;
#[path = "kernel/mirror.rs"]
mod mirror;
#[path = "kernel/renamed.rs"]
mod renamed;
#[path = "kernel/routing.rs"]
mod routing;
#[path = "kernel/shared.rs"]
mod shared;
#[path = "kernel/translators.rs"]
mod translators;
#[path = "kernel/trust.rs"]
mod trust;
#[path = "kernel/world.rs"]
mod world;
