//! Duplicate address detection.

use std::time::{Duration, Instant};

use clatd::probe::{DadResult, ProbeError, detect, is_duplicate};
use clatd_stages::nd::{Conflict, ConflictSign, Parameters};

use super::bed::{ADDRESS, Host, theirs};

fn pair() -> (Host, Host) {
    let (us, them) = (Host::new(), Host::new());
    us.link("up0", &them, "isp0");
    (us, them)
}

fn check(us: &Host, device: &'static str) -> (Option<Conflict>, Duration) {
    us.start_async(move || async move {
        let began = Instant::now();
        let found = is_duplicate(device, ADDRESS, Parameters::default()).await.unwrap();
        (found, began.elapsed())
    })
    .end()
}

#[test]
fn an_address_that_nobody_has_is_free_after_a_second() {
    let (us, them) = pair();
    them.sh("ip addr add 2001:db8:1::1/64 dev isp0 nodad");
    let (found, took) = check(&us, "up0");
    assert_eq!(found, None);
    assert!(
        took >= Duration::from_secs(1) && took < Duration::from_secs(5),
        "{took:?}"
    );
}

#[test]
fn an_address_that_a_neighbour_has_is_a_duplicate() {
    let (us, them) = pair();
    them.sh(&format!(
        "ip addr add {ADDRESS}/64 dev isp0 nodad; until ip -6 route get {ADDRESS} 2>&1 | grep -q ^local; do sleep 0.02; done"
    ));
    let (found, _) = check(&us, "up0");
    let found = found.expect("a conflict");
    assert_eq!(
        (found.address, found.by, found.how),
        (ADDRESS, Some(theirs()), ConflictSign::Advertisement)
    );
}

#[test]
fn so_is_one_behind_a_packet_filter_and_one_that_a_proxy_answers_for_late() {
    let (us, them) = pair();
    us.sh("nft 'add table inet t; add chain inet t c { type filter hook input priority 0; policy drop; }'");
    // The kernel's proxies wait for a random part of their delay.
    them.sh(&format!(
        "echo 1 >/proc/sys/net/ipv6/conf/isp0/proxy_ndp; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
        echo 70 >/proc/sys/net/ipv6/neigh/isp0/proxy_delay
        ip -6 neigh add proxy {ADDRESS} dev isp0"
    ));
    let (found, _) = check(&us, "up0");
    assert_eq!(found.expect("a conflict").by, Some(theirs()));
}

#[test]
fn a_neighbour_that_takes_it_meanwhile_is_seen() {
    let (us, them) = pair();
    let parameters = Parameters {
        transmits: 3,
        ..Parameters::default()
    };
    let ours = us.start_async(move || async move { detect("up0", ADDRESS, parameters).await.unwrap() });
    them.sh(&format!("sleep 0.4; ip addr add {ADDRESS}/64 dev isp0 nodad"));
    let DadResult::Duplicate(conflict) = ours.end() else {
        panic!("no conflict");
    };
    assert_eq!(conflict.by, Some(theirs()));
}

#[test]
fn of_two_that_detect_at_once_at_least_one_sees_the_other() {
    let (us, them) = pair();
    let there = them.start_async(|| async { is_duplicate("isp0", ADDRESS, Parameters::default()).await.unwrap() });
    let here = us.start_async(|| async { is_duplicate("up0", ADDRESS, Parameters::default()).await.unwrap() });
    let (here, there) = (here.end(), there.end());
    assert!(here.is_some() || there.is_some());
    for conflict in [&here, &there].into_iter().flatten() {
        assert_eq!(conflict.how, ConflictSign::Detection);
    }
}

#[test]
fn the_kernels_detection_for_the_same_address_is_seen() {
    let (us, them) = pair();
    // One solicitation and a long wait: a second one would make the other kernel give up before it sends anything.
    let parameters = Parameters {
        transmits: 1,
        retransmit: Duration::from_secs(8),
    };
    let ours = us.start_async(move || async move { detect("up0", ADDRESS, parameters).await.unwrap() });
    them.sh(&format!(
        "echo 1 >/proc/sys/net/ipv6/conf/all/accept_dad; echo 1 >/proc/sys/net/ipv6/conf/isp0/accept_dad
        sleep 0.3; ip addr add {ADDRESS}/64 dev isp0"
    ));
    let DadResult::Duplicate(conflict) = ours.end() else {
        panic!("no conflict");
    };
    assert_eq!((conflict.by, conflict.how), (Some(theirs()), ConflictSign::Detection));
}

#[test]
fn our_own_solicitations_sent_back_to_us_are_no_conflict() {
    let (us, them) = pair();
    let mirror = them.mirror();
    assert_eq!(check(&us, "up0").0, None);
    assert!(mirror.reflected() > 0);
}

#[test]
fn a_device_without_neighbours_is_passed_over() {
    let us = Host::new();
    us.sh(
        "ip tuntap add tun0 mode tun; ip link set tun0 up; ip link add quiet0 arp off type veth; ip link set quiet0 up",
    );
    for device in ["tun0", "quiet0", "lo"] {
        let outcome = us
            .start_async(move || detect(device, ADDRESS, Parameters::default()))
            .end();
        let outcome = outcome.unwrap();
        assert!(
            matches!(outcome, DadResult::Skipped(why) if !why.is_empty()),
            "{device}: {outcome:?}"
        );
        assert_eq!(check(&us, device).0, None);
    }
}

#[test]
fn a_device_that_cannot_hear_is_an_error() {
    let (us, them) = pair();
    let problem = |device: &'static str| {
        let error = us
            .start_async(move || is_duplicate(device, ADDRESS, Parameters::default()))
            .end()
            .unwrap_err();
        assert!(matches!(error, ProbeError::Device { .. }), "{error:?}");
        error.to_string()
    };
    assert_eq!(problem("absent0"), "absent0 does not exist");
    assert_eq!(
        problem("a-name-that-is-too-long"),
        "a-name-that-is-too-long does not exist"
    );
    them.sh("ip link set isp0 down");
    us.sh("until ip link show up0 | grep -q NO-CARRIER; do sleep 0.02; done");
    assert_eq!(problem("up0"), "up0 has no carrier");
    us.sh("ip link set up0 down");
    assert_eq!(problem("up0"), "up0 is down");
}
