//! Prefixes delegated by DHCPv6: the client in a network namespace, Kea or a server of ours in another.
//!
//! Needs root and `kea-dhcp6` (package kea-dhcp6-server), and fails without.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a panic is how a test fails; cargo shows what it printed"
)]

#[path = "dhcp6/bed.rs"]
mod bed;
#[path = "dhcp6/kea.rs"]
mod kea;
#[path = "dhcp6/server.rs"]
mod server;

#[path = "dhcp6/leasing.rs"]
mod leasing;
#[path = "dhcp6/links.rs"]
mod links;
#[path = "dhcp6/refusing.rs"]
mod refusing;
