//! Conflicts about an address in use.

use std::time::Duration;

use clatd::probe::ConflictWatch;
use clatd_stages::nd::{Conflict, ConflictSign};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::bed::{ADDRESS, Doing, Host, sh, theirs};

/// Our host has the address as a CLAT has it: by proxy.
fn pair() -> (Host, Host) {
    let (us, them) = (Host::new(), Host::new());
    us.link("up0", &them, "isp0");
    us.sh(&format!(
        "echo 1 >/proc/sys/net/ipv6/conf/up0/proxy_ndp; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
        echo 0 >/proc/sys/net/ipv6/neigh/up0/proxy_delay
        ip -6 neigh add proxy {ADDRESS} dev up0; ip addr add 2001:db8:1::2/64 dev up0 nodad"
    ));
    (us, them)
}

/// Watches until the first conflict, `longest` at most. Returns when the watch has begun.
fn watching(us: &Host, longest: Duration) -> Doing<Option<Conflict>> {
    let (begun, has_begun) = std::sync::mpsc::channel();
    let doing = us.start_async(move || async move {
        let (sender, mut reports) = mpsc::channel(4);
        let watch = ConflictWatch::start("up0", ADDRESS, sender).unwrap();
        assert!(watch.is_listening());
        begun.send(()).unwrap();
        timeout(longest, reports.recv()).await.ok().flatten()
    });
    has_begun.recv().unwrap();
    doing
}

#[test]
fn a_neighbour_that_takes_the_address_is_reported() {
    let (us, them) = pair();
    let watch = watching(&us, Duration::from_secs(20));
    // It advertises what it has, without asking first.
    them.sh(&format!(
        "echo 1 >/proc/sys/net/ipv6/conf/isp0/ndisc_notify
        ip link set isp0 down; ip addr add {ADDRESS}/64 dev isp0 nodad; ip link set isp0 up"
    ));
    let conflict = watch.end().expect("a report");
    assert_eq!((conflict.address, conflict.by), (ADDRESS, Some(theirs())));
    assert_eq!(conflict.how, ConflictSign::Advertisement);
}

#[test]
fn a_neighbour_that_wants_the_address_is_reported_and_the_kernel_defends_it() {
    let (us, them) = pair();
    let watch = watching(&us, Duration::from_secs(20));
    let failed = them.start(|| {
        sh(&format!(
            "echo 1 >/proc/sys/net/ipv6/conf/all/accept_dad; echo 1 >/proc/sys/net/ipv6/conf/isp0/accept_dad
            ip addr add {ADDRESS}/64 dev isp0
            for i in $(seq 200); do
                ip -6 addr show dev isp0 | grep -q dadfailed && exit 0; sleep 0.02
            done; exit 1"
        ))
    });
    let conflict = watch.end().expect("a report");
    assert_eq!((conflict.by, conflict.how), (Some(theirs()), ConflictSign::Detection));
    failed.end();
}

#[test]
fn our_own_kernels_answers_are_not_reported_even_if_they_come_back() {
    let (us, them) = pair();
    them.sh("ip addr add 2001:db8:1::1/64 dev isp0 nodad
        until ip -6 route get 2001:db8:1::1 2>&1 | grep -q ^local; do sleep 0.02; done");
    let mirror = them.mirror();
    let watch = watching(&us, Duration::from_secs(3));
    // It looks for the owner, and finds it.
    them.sh(&format!(
        "ping -6 -c1 -W1 {ADDRESS} >/dev/null || true
        ip -6 neigh show {ADDRESS} dev isp0 | grep -q 02:00:00:00:00:01"
    ));
    assert_eq!(watch.end(), None);
    assert!(mirror.reflected() > 0);
}

#[test]
fn it_goes_on_after_the_device_was_down() {
    let (us, them) = pair();
    let watch = watching(&us, Duration::from_secs(30));
    us.sh_beside("ip link set up0 down; sleep 0.1; ip link set up0 up");
    // Heard again once it has looked at the socket after the error; so several times.
    them.sh(&format!(
        "echo 1 >/proc/sys/net/ipv6/conf/isp0/ndisc_notify
        for i in 1 2 3 4; do
            ip link set isp0 down; ip addr add {ADDRESS}/64 dev isp0 nodad; ip link set isp0 up; sleep 0.7
        done"
    ));
    assert_eq!(watch.end().expect("a report").by, Some(theirs()));
}

#[test]
fn it_ends_when_it_is_dropped_and_when_nobody_listens() {
    let (us, _them) = pair();
    us.start_async(|| async {
        let (sender, reports) = mpsc::channel(4);
        let (one, two) = (sender.clone(), sender);
        let dropped = ConflictWatch::start("up0", ADDRESS, one).unwrap();
        let deaf = ConflictWatch::start("up0", ADDRESS, two).unwrap();
        drop(dropped);
        drop(reports);
        while deaf.is_listening() {
            tokio::task::yield_now().await;
        }
    })
    .end();
    // A thread of its own closes them: see `src/probe/closing.rs`.
    us.sh("timeout 10 sh -c 'while [ $(wc -l </proc/net/packet) != 1 ]; do sleep 0.05; done'");
}

#[test]
fn a_device_without_neighbours_is_not_listened_to() {
    let us = Host::new();
    us.sh("ip tuntap add tun0 mode tun; ip link set tun0 up");
    let listening = us.start_async(|| async {
        let (sender, _reports) = mpsc::channel(4);
        ConflictWatch::start("tun0", ADDRESS, sender).unwrap().is_listening()
    });
    assert!(!listening.end());
}
