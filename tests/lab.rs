//! The lab: clatd and real programs in network namespaces, raised by `scripts/lab`.
//!
//! Needs root and the programs that `scripts/lib.sh` lists; a test that misses one fails and says which.
//! `./scripts/test` installs them. One test = one lab of its own, so any number run side by side.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on panics; cargo shows what a failing test printed"
)]

/// Makes each `fn name(translator: &str)` into the tests `userspace::name`, `tayga::name` and `ebpf::name`.
macro_rules! with_each_translator {
    ($($name:ident),+ $(,)?) => {
        mod userspace { $(#[test] fn $name() { super::$name("userspace"); })+ }
        mod tayga { $(#[test] fn $name() { super::$name("tayga"); })+ }
        mod ebpf { $(#[test] fn $name() { super::$name("ebpf"); })+ }
    };
}

#[path = "lab/bed.rs"]
#[allow(dead_code, reason = "shared with the other labs, which use other parts of it")]
mod bed;
#[path = "lab/daemon.rs"]
mod daemon;
#[path = "lab/traffic.rs"]
mod traffic;

#[path = "lab/bypassed.rs"]
mod bypassed;
#[path = "lab/carrying.rs"]
mod carrying;
#[path = "lab/discovery.rs"]
mod discovery;
#[path = "lab/fast_path.rs"]
mod fast_path;
#[path = "lab/faults.rs"]
mod faults;
#[path = "lab/firewall.rs"]
mod firewall;
#[path = "lab/following.rs"]
mod following;
#[path = "lab/hangs.rs"]
mod hangs;
#[path = "lab/life.rs"]
mod life;
#[path = "lab/older_kernels.rs"]
mod older_kernels;
#[path = "lab/other_devices.rs"]
mod other_devices;
#[path = "support/other_kernel.rs"]
#[allow(
    dead_code,
    reason = "shared with other programs of tests, which use other parts of it"
)]
mod other_kernel;
#[path = "support/pages.rs"]
#[allow(dead_code, reason = "tests/docs.rs reads the reasons")]
mod pages;
#[path = "lab/pages.rs"]
mod pages_run;
#[path = "lab/plan.rs"]
mod plan;
#[path = "lab/recipes.rs"]
mod recipes;
#[path = "lab/rest.rs"]
mod rest;
#[path = "lab/rights.rs"]
mod rights;
#[path = "lab/room.rs"]
mod room;
#[path = "lab/routes.rs"]
mod routes;
#[path = "lab/scripts.rs"]
mod scripts;
#[path = "lab/service.rs"]
mod service;
#[path = "lab/shared.rs"]
mod shared;
#[path = "lab/sysctls.rs"]
mod sysctls;
#[path = "lab/uplinks.rs"]
mod uplinks;
