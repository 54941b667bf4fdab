//! How the uplink's neighbours find the CLAT's address.

use crate::bed::{DERIVED_V6, Lab, Uplink, poll};
use crate::daemon::{Daemon, around, clatd};
use crate::{fact, status, traffic};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::time::Duration;

in_both_modes!(
    an_anycast_address_needs_no_sysctl,
    a_proxied_address_is_defended,
    a_default_route_that_cannot_be_learned_again_is_kept,
    what_others_switch_off_is_switched_on_again,
    an_anycast_address_outlives_its_uplinks_pause
);

/// The fast path has no proxy entries, and forwards nothing.
const ENGINE: &str = "translator=userspace";

const FORWARDING: &str =
    "sysctl -n net.ipv6.conf.up0.forwarding net.ipv6.conf.up0.proxy_ndp net.ipv6.conf.up0.accept_ra";

/// The router forgets the CLAT, and must find it anew.
fn found_anew(lab: &Lab) {
    lab.run("isp0", "ip -6 neigh flush dev cust")
        .ok("the router forgets its neighbours");
    traffic::ping(lab);
}

/// Another node does duplicate address detection for the CLAT's address. False = it learned that the address is in use.
fn may_have_it(lab: &Lab) -> bool {
    lab.run(
        "isp0",
        &format!("sysctl -qw net.ipv6.conf.all.accept_dad=1 net.ipv6.conf.cust.accept_dad=1; ip -6 addr add {DERIVED_V6}/64 dev cust"),
    )
    .ok("the neighbour wants the address");
    let seen = || {
        lab.run("isp0", &format!("ip -6 -o addr show dev cust to {DERIVED_V6}"))
            .ok("it is looked at")
    };
    assert!(poll(Duration::from_secs(5), || {
        let seen = seen();
        seen.contains("dadfailed") || !seen.contains("tentative")
    }));
    let taken = !seen().contains("dadfailed");
    lab.run("isp0", &format!("ip -6 addr del {DERIVED_V6}/64 dev cust"))
        .ok("it gives up");
    taken
}

fn an_anycast_address_needs_no_sysctl(mode: &str) {
    let lab = Lab::raise(&Uplink::new());
    let before = lab.host(FORWARDING);
    around(&lab, &["nd=anycast", mode], |daemon| {
        traffic::works(&lab);
        assert_eq!(lab.host(FORWARDING), before, "the uplink stays an end system's");
        assert_eq!(lab.host("ip -6 neigh show proxy"), "");
        found_anew(&lab);
        // Others learn that the address is in use, and our own answers are no conflict.
        assert!(!may_have_it(&lab));
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(fact(&lab, "clat_v6_addr"), DERIVED_V6);
        assert!(!daemon.output().contains(" has 3fff:"), "{}", daemon.output());
        // The host's own address works beside it.
        lab.host("ping -6 -n -c 2 -W 2 64:ff9b::192.88.99.10");
    });
}

/// A proxy entry answers them, too.
fn a_proxied_address_is_defended(mode: &str) {
    let lab = Lab::raise(&Uplink::new());
    around(&lab, &[ENGINE, mode], |_| {
        found_anew(&lab);
        assert!(!may_have_it(&lab));
        assert_eq!(status(&lab)["facts"]["anycast"], Value::Null);
    });
}

/// `accept_ra=0` after the kernel learned its default route: switching forwarding on would take that away.
fn a_default_route_that_cannot_be_learned_again_is_kept(mode: &str) {
    let lab = Lab::raise(&Uplink::new());
    lab.host("sysctl -qw net.ipv6.conf.up0.accept_ra=0");
    let look = "ip -6 route show default | sed 's/ expires.*//'";
    let before = lab.host(look);
    assert!(before.contains("proto ra"), "{before}");
    around(&lab, &[ENGINE, mode], |_| {
        assert_eq!(lab.host(look), before);
        let why = status(&lab)["facts"]["anycast"].to_string();
        assert!(why.contains("accept_ra=0"), "{why}");
        traffic::works(&lab);
        found_anew(&lab);
    });
    assert_eq!(lab.host(look), before);
}

/// `forwarding-enable=no`, where the administrator lets these devices forward and no others.
#[test]
fn forwarding_by_hand_needs_none_on_the_uplink() {
    let lab = Lab::raise(&Uplink::new());
    lab.host("sysctl -qw net.ipv6.conf.up0.force_forwarding=1 net.ipv6.conf.default.force_forwarding=1");
    let before = lab.host(FORWARDING);
    around(&lab, &["forwarding-enable=no"], |_| {
        traffic::works(&lab);
        found_anew(&lab);
        assert_eq!(lab.host(FORWARDING), before);
    });
}

/// Network managers switch forwarding of their devices off when they (re)configure them.
fn what_others_switch_off_is_switched_on_again(mode: &str) {
    let lab = Lab::raise(&Uplink::new());
    around(&lab, &[ENGINE, mode], |_| {
        let meant = lab.host(FORWARDING);
        assert!(meant.starts_with("1\n1\n"), "{meant}");
        lab.host(
            "sysctl -qw net.ipv6.conf.up0.forwarding=0 net.ipv6.conf.up0.proxy_ndp=0 net.ipv6.conf.up0.accept_ra=1",
        );
        // Not every kernel tells of it; the next event does.
        lab.host("ip link add other type bridge && ip link del other");
        assert!(
            poll(Duration::from_secs(10), || lab.host(FORWARDING) == meant),
            "{}",
            lab.host(FORWARDING)
        );
        found_anew(&lab);
    });
}

/// Its routes go, the join stays; the CLAT comes back with the uplink.
fn an_anycast_address_outlives_its_uplinks_pause(mode: &str) {
    let lab = Lab::raise(&Uplink::new());
    let mut daemon = Daemon::up(&lab, &["nd=anycast", mode]);
    lab.host("ip link set up0 down");
    std::thread::sleep(Duration::from_secs(1));
    lab.host("ip link set up0 up");
    let works = || lab.run("host", "ping -n -c 1 -W 1 192.88.99.10").code == Some(0);
    assert!(poll(Duration::from_secs(30), works), "{}", daemon.output());
    found_anew(&lab);
    assert_eq!(fact(&lab, "clat_v6_addr"), DERIVED_V6);
    daemon.stop(Signal::SIGTERM);
    assert_eq!(lab.host("cat /proc/net/anycast6").matches("05ec1a7000101").count(), 0);
}

/// The kernel leaves the address by itself; the rest is cleaned up.
#[test]
fn nothing_is_left_of_a_killed_daemon() {
    let lab = Lab::raise(&Uplink::new());
    let before = lab.state();
    let joined = "cat /proc/net/anycast6";
    let addresses = lab.host(joined);
    let mut daemon = Daemon::up(&lab, &["nd=anycast"]);
    assert_ne!(lab.host(joined), addresses);
    daemon.kill();
    assert!(poll(Duration::from_secs(2), || lab.host(joined) == addresses));
    clatd(&lab, &["cleanup"]).ok("clatd cleanup");
    lab.assert_state_is(&before, "after cleanup");

    // The next start cleans up, too.
    Daemon::up(&lab, &["nd=anycast"]).kill();
    let mut daemon = Daemon::up(&lab, &["nd=anycast"]);
    assert_eq!(fact(&lab, "clat_v6_addr"), DERIVED_V6);
    daemon.stop(Signal::SIGTERM);
    lab.assert_state_is(&before, "after the stop");
}
