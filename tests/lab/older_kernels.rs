//! Kernels that grant a TUN device less than this one does: clatd says what is missing, and works.

use std::process::Command;

use nix::sys::signal::Signal;

use crate::bed::{Lab, Uplink};
use crate::daemon::Daemon;
use crate::traffic;

const REFUSE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/refuse.c");

/// Carries all kinds of traffic while the kernel refuses `what`. clatd's output must have each text of `says`.
fn works_without(what: &str, says: &[&str]) {
    let lab = Lab::raise(&Uplink::new());
    let before = lab.state();
    let library = lab.file("refuse.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"])
        .args([library.as_path(), REFUSE.as_ref()])
        .output()
        .expect("cc starts");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let refusals = lab.file("refusals");
    let environment = [
        format!("LD_PRELOAD={}", library.display()),
        format!("REFUSED={what}"),
        format!("REFUSALS={}", refusals.display()),
    ];

    // What plays the older kernel notes its refusals in a file, which a hardened daemon may not write.
    let words = ["translator=userspace", "translator-queues=2", "hardening=no"];
    let mut daemon = Daemon::up_in(&lab, &environment, &words);
    assert!(refusals.exists(), "{what} was never asked for, so nothing was refused");
    for line in says {
        assert!(daemon.output().contains(line), "no {line:?}:\n{}", daemon.output());
    }
    traffic::works(&lab);
    traffic::download(&lab, 20_000_000);
    traffic::upload(&lab, 20_000_000);
    traffic::udp(&lab, &[1, 1200, 1232, 1233, 3000, 20_000]);
    traffic::traceroute(&lab, "192.0.0.2");
    daemon.stop(Signal::SIGTERM);
    lab.assert_state_is(&before, &format!("after a run without {what}"));
}

#[test]
fn one_queue_only() {
    works_without("multi-queue", &["grants the TUN device one queue only"]);
}

#[test]
fn fewer_queues_than_wanted() {
    works_without("second-queue", &["the TUN device gets fewer queues"]);
}

#[test]
fn no_offloads() {
    works_without("offloads", &["grants the TUN device no offloads"]);
}

#[test]
fn no_virtio_headers() {
    works_without("headers", &["grants the TUN device no offloads"]);
}

/// Before Linux 6.2 a TUN device takes no UDP super-packets.
#[test]
fn no_udp_offload() {
    works_without("uso", &[]);
}
