//! Router advertisements against a real kernel: a host and its routers, each in a network namespace of its own. These
//! tests need root, and fail without.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a panic is how a test fails; cargo shows what a failing test printed"
)]

#[path = "ra/bed.rs"]
mod bed;
#[path = "support/other_kernel.rs"]
mod other_kernel;
#[path = "ra/packets.rs"]
mod packets;

#[path = "ra/hearing.rs"]
mod hearing;
#[path = "ra/links.rs"]
mod links;
#[path = "ra/soliciting.rs"]
mod soliciting;
