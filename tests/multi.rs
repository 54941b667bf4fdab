//! The multi-homed lab: one daemon, three uplinks, an internet that sees which uplink a connection came by.
//!
//! `up0` and `up1` have the same PLAT prefix 64:ff9b::/96 unless a test says otherwise, `up2` is the odd one (native
//! IPv4, or another prefix). Each ISP masquerades to an IPv4 address of its own, which the server's /whoami tells.
//! Needs root and the programs that `scripts/lib.sh` lists; a test that misses one fails and says which.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on panics; cargo shows what a failing test printed"
)]

#[path = "lab/bed.rs"]
#[allow(
    dead_code,
    unfulfilled_lint_expectations,
    reason = "shared with the lab of one uplink, which uses other parts of it"
)]
mod bed;
#[path = "lab/daemon.rs"]
#[allow(
    dead_code,
    reason = "shared with the lab of one uplink, which uses other parts of it"
)]
mod daemon;

#[macro_use]
#[path = "support/both_modes.rs"]
mod both_modes;
#[path = "multi/home.rs"]
mod home;
#[path = "support/other_kernel.rs"]
mod other_kernel;
#[path = "lab/traffic.rs"]
#[allow(
    dead_code,
    reason = "shared with the lab of one uplink, which uses other parts of it"
)]
mod traffic;

#[path = "multi/clashes.rs"]
mod clashes;
#[path = "multi/control.rs"]
mod control;
#[path = "multi/ends.rs"]
mod ends;
#[path = "multi/events.rs"]
mod events;
#[path = "multi/fast_path.rs"]
mod fast_path;
#[path = "multi/health.rs"]
mod health;
#[path = "multi/meddlers.rs"]
mod meddlers;
#[path = "multi/paths.rs"]
mod paths;
#[path = "multi/pool.rs"]
mod pool;
#[path = "multi/quiet.rs"]
mod quiet;
#[path = "multi/reload.rs"]
mod reload;
#[path = "multi/routers.rs"]
mod routers;
#[path = "multi/storm.rs"]
mod storm;
#[path = "multi/together.rs"]
mod together;
#[path = "multi/told.rs"]
mod told;
#[path = "multi/vpn.rs"]
mod vpn;
#[path = "multi/vrf.rs"]
mod vrf;
