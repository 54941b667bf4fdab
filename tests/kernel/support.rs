//! A namespace for each test, and looking at it with the system's own programs.

use std::process::Command;
use std::time::Duration;

use clatd::kernel::{Holds, Kernel, Netlink, TranslatorExit};
use clatd::world::SystemWorld;
use clatd_stages::apply::{OpError, System};
use clatd_stages::journal::Outcome;
use clatd_stages::op::Op;
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// One namespace with the two sides of clatd in it.
pub struct Bed {
    pub kernel: Kernel,
    pub world: SystemWorld,
    pub netlink: Netlink,
    pub holds: Holds,
    pub exits: UnboundedReceiver<TranslatorExit>,
}

impl Bed {
    pub fn new() -> Self {
        let netlink = Netlink::open().unwrap();
        let holds = Holds::default();
        let (sender, exits) = unbounded_channel();
        Self {
            kernel: Kernel::new("test", netlink.clone(), holds.clone(), sender),
            world: SystemWorld::new(netlink.clone(), holds.clone(), |_| {}),
            netlink,
            holds,
            exits,
        }
    }

    pub async fn apply(&mut self, op: Op) -> Outcome {
        self.kernel
            .apply(&op, None)
            .await
            .unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    pub async fn fail(&mut self, op: Op) -> OpError {
        self.kernel.apply(&op, None).await.expect_err("it should have failed")
    }

    /// Takes a step back twice: the second time everything is gone already.
    pub async fn undo(&mut self, op: Op, outcome: &Outcome) {
        for _ in 0..2 {
            self.kernel
                .apply(&op, Some(outcome))
                .await
                .unwrap_or_else(|error| panic!("{}", chain(&error)));
        }
    }
}

/// Runs a test in a new network namespace with `up0` (2001:db8:1::2/64, 192.0.2.2/24) facing `isp0`.
pub fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce(Bed) -> F) {
    assert!(nix::unistd::geteuid().is_root(), "these tests need root");
    // Only this thread, and those that it starts, move; every test has a thread of its own.
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    sh(
        "cd /proc/sys/net/ipv6/conf; echo 0 >all/accept_dad; echo 0 >default/accept_dad
        ip link set lo up
        ip link add up0 type veth peer name isp0
        ip link set isp0 up
        ip link set up0 up
        ip addr add 192.0.2.2/24 dev up0
        ip addr add 2001:db8:1::2/64 dev up0 nodad
        until [ $(ip -o -6 addr show scope link | wc -l) = 2 ]; do sleep 0.02; done
        # The kernel adds the local route of an address a moment after the carrier came.
        until ip -6 route show table local | grep -q ' 2001:db8:1::2 '; do sleep 0.02; done",
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { test(Bed::new()).await });
}

/// Runs a shell script in the namespace; its output.
pub fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{script}` failed: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

pub fn json(script: &str) -> Value {
    let text = sh(script);
    serde_json::from_str(if text.trim().is_empty() { "[]" } else { &text }).unwrap()
}

/// All that clatd could have changed, as the system's own programs tell it.
pub fn state() -> String {
    sh(
        "ip -d link; ip -d addr; ip -4 -d route show table all; ip -6 -d route show table all; ip -4 rule; ip -6 rule
        ip -6 neigh show proxy; nft list ruleset; ip6tables-save -t filter | sed '/^#/d; s/\\[.*//'
        cd /proc/sys/net/ipv6/conf; grep . */forwarding */accept_ra */proxy_ndp",
    )
}

/// The same once the kernel has done what it does a moment after a device was brought up, or lost its carrier.
pub async fn settled_state() -> String {
    let mut last = state();
    loop {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let now = state();
        if now == last {
            return now;
        }
        last = now;
    }
}

/// Fails with the lines that differ.
pub fn assert_unchanged(before: &str) {
    let after = state();
    let only = |left: &str, right: &str| {
        left.lines()
            .filter(|l| !right.lines().any(|r| r == *l))
            .collect::<Vec<_>>()
            .join("\n  ")
    };
    assert!(
        after == before,
        "the state changed\ngone:\n  {}\nnew:\n  {}",
        only(before, &after),
        only(&after, before)
    );
}

pub fn chain(error: &dyn std::error::Error) -> String {
    clatd::report::chain(error)
}
