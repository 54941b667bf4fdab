//! The userspace translator on a live device, between an IPv4 client and an IPv6 server in two network namespaces. The
//! tests need root, and fail without.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "engine/bed.rs"]
mod bed;
#[path = "engine/icmp.rs"]
mod icmp;
#[path = "engine/soak.rs"]
mod soak;
#[allow(dead_code, reason = "it serves another test program too")]
#[path = "kernel/support.rs"]
mod support;
#[path = "engine/tcp.rs"]
mod tcp;
#[path = "engine/udp.rs"]
mod udp;
