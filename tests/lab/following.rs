//! No configuration at all: what runs follows the network and repairs itself, and ends where there is nothing to do.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::bed::{DERIVED_V6, Lab, Uplink, poll};
use crate::daemon::{Daemon, clatd};
use crate::traffic;

/// Started by hand, as a newcomer does.
fn start(lab: &Lab) -> Daemon {
    std::fs::write(lab.file("clatd.conf"), "").unwrap();
    Daemon::up(lab, &[])
}

#[test]
fn a_newcomer_is_told_what_is_waited_for() {
    let lab = Lab::raise(&Uplink::new());
    let mut daemon = start(&lab);
    let output = daemon.output();
    let told = "waiting 10 s for native IPv4 connectivity (v4-conncheck-delay)";
    assert_eq!(output.matches(told).count(), 1, "{output}");
    let ran = daemon.stop(Signal::SIGTERM);
    for told in ["clat is down", "stopped, all undone"] {
        assert_eq!(ran.err.matches(told).count(), 1, "{ran}");
    }
}

#[test]
fn what_others_take_away_comes_back() {
    let lab = Lab::raise(&Uplink::new());
    let before = lab.state();
    let mut daemon = start(&lab);
    lab.host("ip -4 route del default");
    daemon.wait_for("default route", || {
        lab.host("ip -4 route show default").contains("clat")
    });
    lab.host("ip -4 rule del from 192.0.0.1 lookup 49575");
    daemon.wait_for("rule", || {
        lab.host("ip -4 rule").contains("from 192.0.0.1 lookup 49575")
    });
    lab.host("ip link delete clat");
    daemon.wait_for("device", || lab.run("host", "ip link show clat").code == Some(0));
    daemon.wait_until_running(&lab);
    traffic::works(&lab);
    daemon.stop(Signal::SIGTERM);
    lab.assert_state_is(&before, "after the stop");
}

#[test]
fn what_others_take_away_from_the_userspace_translator_comes_back() {
    let lab = Lab::raise(&Uplink::new());
    let before = lab.state();
    let mut daemon = Daemon::up(&lab, &["translator=userspace"]);
    lab.host("nft flush ruleset; ip -6 neigh del proxy $(ip -6 neigh show proxy | cut -d' ' -f1) dev up0");
    daemon.wait_for("proxy neighbour entry", || {
        !lab.host("ip -6 neigh show proxy").is_empty()
    });
    lab.host("ip link delete clat");
    daemon.wait_for("device", || lab.run("host", "ip link show clat").code == Some(0));
    daemon.wait_until_running(&lab);
    traffic::works(&lab);
    daemon.stop(Signal::SIGTERM);
    lab.assert_state_is(&before, "after the stop");
}

#[test]
fn an_uplink_that_flaps_comes_back() {
    let lab = Lab::raise(&Uplink::new());
    let mut daemon = start(&lab);
    for line in ["ip link set up0 down", "ip -6 route flush default"] {
        lab.host(line);
        daemon.wait_for("end of the CLAT", || {
            lab.run("host", "ip link show clat").code != Some(0)
        });
        lab.host("ip link set up0 up");
        lab.advertise();
        daemon.wait_until_running(&lab);
        traffic::works(&lab);
    }
    daemon.stop(Signal::SIGTERM);
}

#[test]
fn native_ipv4_that_comes_is_the_end() {
    let lab = Lab::raise(&Uplink::new().native_v4());
    lab.host("ip -4 route del default");
    let mut daemon = start(&lab);
    lab.host("ip -4 route add default via 192.168.0.1");
    let ran = daemon.wait_exit(Duration::from_secs(10));
    assert_eq!(ran.code, Some(0), "{ran}");
    assert!(ran.err.contains("already has IPv4 connectivity"), "{ran}");
    assert!(ran.err.contains("ended, all undone"), "{ran}");
}

/// What is lost may come back for a while; then it is the end.
#[test]
fn an_uplink_that_is_lost_for_good_is_the_end() {
    let lab = Lab::raise(&Uplink::new());
    let mut daemon = start(&lab);
    lab.host("ip link set up0 down");
    daemon.wait_until(&lab, "idle");
    let before = lab.state();
    let ran = daemon.wait_exit(Duration::from_secs(60));
    assert_eq!(ran.code, Some(0), "{ran}");
    for told in [
        "clat is down",
        "waiting 30 s for it to come back",
        "what was lost has not come back within 30 s",
    ] {
        assert_eq!(ran.err.matches(told).count(), 1, "{told}: {ran}");
    }
    lab.assert_state_is(&before, "after the end");
}

/// Each router advertisement is an event, and may lead to nothing.
#[test]
fn the_same_is_said_once() {
    let lab = Lab::raise(&Uplink::new().without_dns64());
    let mut daemon = Daemon::start(&lab, &["when-idle=wait"]);
    daemon.wait_until(&lab, "idle");
    let reason = "no PLAT prefix";
    for round in 0..5 {
        lab.host(&format!("ip address add 2001:db8::{}/128 dev lo", round + 1));
        std::thread::sleep(Duration::from_millis(700));
    }
    assert_eq!(daemon.output().matches(reason).count(), 1, "{}", daemon.output());
    assert!(poll(Duration::from_secs(10), || clatd(&lab, &["status"])
        .out
        .contains(reason)));
    daemon.stop(Signal::SIGTERM);
}

#[test]
fn each_step_is_said_once_and_more_debugging_says_more() {
    let lab = Lab::raise(&Uplink::new());
    let mut daemon = Daemon::up(&lab, &["-d"]);
    let ran = daemon.stop(Signal::SIGTERM);
    for step in ["bring clat up with MTU 1500", "delete TUN device clat"] {
        assert_eq!(ran.err.matches(step).count(), 1, "{step}: {ran}");
    }
    assert!(!ran.err.contains("<trace>"), "{ran}");
    // It starts programs, too: nft asks about the packet filter.
    let mut daemon = Daemon::up(&lab, &["-d", "-d", "translator=userspace"]);
    let ran = daemon.stop(Signal::SIGTERM);
    for told in [
        "observed: {",
        "plan: device: ",
        "netlink: ",
        "asking 3fff:1::53",
        "running",
    ] {
        assert!(ran.err.contains(told), "{told}: {ran}");
    }
}

/// What an idle instance shows is there: no device, no address and no route of when it ran.
#[test]
fn an_idle_status_tells_of_nothing_that_is_gone() {
    let lab = Lab::raise(&Uplink::new());
    let mut daemon = Daemon::up(&lab, &["when-idle=wait"]);
    let status = |words: &[&str]| clatd(&lab, &[&["status"], words].concat()).ok("clatd status");
    assert!(status(&[]).contains(DERIVED_V6));
    lab.host("ip link set up0 down");
    daemon.wait_until(&lab, "idle");
    lab.host("! ip link show clat");
    let document = status(&["--json"]);
    for ghost in [DERIVED_V6, "3fff:1:0:1:0:5eff"] {
        assert!(!status(&[]).contains(ghost), "{ghost}:\n{}", status(&[]));
        assert!(!document.contains(ghost), "{ghost}:\n{document}");
    }
    daemon.stop(Signal::SIGTERM);
}
