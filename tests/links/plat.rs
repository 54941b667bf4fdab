//! Is the PLAT there, and how large may packets be?

use crate::bed::{Lab, SERVER, Uplink, poll};
use crate::daemon::{Daemon, around, clatd};
use crate::{advertise, fact, status, traffic};
use nix::sys::signal::Signal;
use std::time::Duration;

in_both_modes!(
    a_network_without_check_servers_is_used_unchecked,
    a_plat_that_dies_is_left
);

/// Two prefixes, the first of which leads nowhere: the second is used.
#[test]
fn a_prefix_that_leads_nowhere_is_passed_over() {
    let lab = Lab::raise(&Uplink::new().without_dns64());
    let before = lab.state();
    let mut daemon = Daemon::start(&lab, &["when-idle=wait", "discovery=ra", "plat-check=192.88.99.10"]);
    daemon.wait_for("it waits", || daemon_is(&lab, "idle"));
    advertise(&lab, "--pref64 2001:db8:dead::/96=600 --pref64 64:ff9b::/96=600");
    daemon.wait_until_running(&lab);
    assert_eq!(fact(&lab, "plat_prefix"), "64:ff9b::/96");
    traffic::ping(&lab);
    daemon.stop(Signal::SIGTERM);
    lab.assert_state_is(&before, "after the stop");
}

/// The operator names servers to check its NAT64s with (RFC 7050 section 3.2): the first prefix's does not answer.
#[test]
fn the_networks_own_check_server_is_asked() {
    let uplink = Uplink::new()
        .plat("2001:db8:64::/96")
        .plat("2001:db8:65::/96")
        .without_dns64();
    let lab = Lab::raise(&uplink.with(&["--check-server", "192.88.99.77", "--check-server", SERVER]));
    let before = lab.state();
    let mut daemon = Daemon::start(&lab, &["when-idle=wait", "discovery=ra", "plat-check=yes"]);
    daemon.wait_for("it waits", || daemon_is(&lab, "idle"));
    advertise(&lab, "--pref64 2001:db8:64::/96=600 --pref64 2001:db8:65::/96=600");
    daemon.wait_until_running(&lab);
    assert_eq!(fact(&lab, "plat_prefix"), "2001:db8:65::/96");
    traffic::ping(&lab);
    assert!(!daemon.output().contains("unchecked"), "{}", daemon.output());

    // The second one's dies too.
    lab.run("net", &format!("ip address del {SERVER}/32 dev lo"))
        .ok("the check server is gone");
    assert!(
        poll(Duration::from_secs(60), || daemon_is(&lab, "idle")),
        "{}",
        daemon.output()
    );
    for server in ["192.88.99.77", SERVER] {
        assert!(
            daemon.output().contains(&format!("plat-check: {server}")),
            "{}",
            daemon.output()
        );
    }
    daemon.stop(Signal::SIGTERM);
    lab.assert_state_is(&before, "after the stop");
}

/// A DNS64 makes up names for the addresses in its prefix, also for that of ipv4only.arpa, but they name no server.
fn a_network_without_check_servers_is_used_unchecked(mode: &str) {
    let lab = Lab::raise(&Uplink::new());
    around(&lab, &[mode, "plat-check=yes"], |daemon| {
        assert_eq!(fact(&lab, "plat_prefix"), "64:ff9b::/96");
        let said = "the network publishes no server to check 64:ff9b::/96 with";
        assert_eq!(daemon.output().matches(said).count(), 1, "{}", daemon.output());
    });
    let seen = clatd(&lab, &["discover", "plat-check=yes"]).ok("clatd discover");
    assert!(seen.contains("64:ff9b::/96") && seen.contains(", unchecked"), "{seen}");
}

fn daemon_is(lab: &Lab, state: &str) -> bool {
    // While the daemon starts there is no document.
    let document: serde_json::Value = serde_json::from_str(&clatd(lab, &["status", "--json"]).out).unwrap_or_default();
    document["instances"][0]["state"] == state
}

/// A resolver that synthesises with a prefix that leads to nobody: what it says is checked, and nothing is done with it.
#[test]
fn a_resolver_that_lies_is_not_believed() {
    let liar = "3fff:1::66";
    let lab = Lab::raise(&Uplink::new().resolver(liar, Some("2001:db8:bad::/96")));
    let before = lab.state();
    let servers = format!("dns64-servers={liar}");
    let mut daemon = Daemon::start(&lab, &["when-idle=wait", &servers, "plat-check=192.88.99.10"]);
    let said = poll(Duration::from_secs(20), || {
        daemon.output().contains("2001:db8:bad::/96 does not answer")
    });
    assert!(said, "{}", daemon.output());
    daemon.wait_for("it waits", || daemon_is(&lab, "idle"));
    lab.assert_state_is(&before, "while it waits");
    // A router that tells the truth goes before it.
    advertise(&lab, "--pref64 64:ff9b::/96=600");
    daemon.wait_until_running(&lab);
    traffic::ping(&lab);
    daemon.stop(Signal::SIGTERM);
}

/// The PLAT stops answering while the CLAT runs: it gives way, and comes back with it.
fn a_plat_that_dies_is_left(mode: &str) {
    let lab = Lab::raise(&Uplink::new());
    let mut daemon = Daemon::up(&lab, &[mode, "plat-check=192.88.99.10"]);
    lab.run("isp0", "ip link set nat64-0 down").ok("the PLAT is gone");
    assert!(
        poll(Duration::from_secs(60), || daemon_is(&lab, "idle")),
        "{}",
        daemon.output()
    );
    assert!(daemon.output().contains("does not answer"), "{}", daemon.output());
    daemon.stop(Signal::SIGTERM);
}

#[test]
fn the_mtu_follows_the_uplink() {
    let lab = Lab::raise(&Uplink::new());
    around(&lab, &["v4-defaultroute-mtu=auto"], |_| {
        assert!(lab.host("ip -4 route show default").contains("mtu 1480 advmss 1440"));
        traffic::works(&lab);
    });
    let lab = Lab::raise(&Uplink::new().mtu(1400));
    around(&lab, &["v4-defaultroute-mtu=auto"], |_| {
        assert!(lab.host("ip -4 route show default").contains("mtu 1380 advmss 1340"));
        traffic::works(&lab);
    });
}

/// What this host fragments goes through as it is where the translator may send packets as large as the uplink's, and in
/// smaller pieces where it may not; nobody is told to send less either way.
#[test]
fn fragments_pass_whatever_the_uplink_carries() {
    for (mtu, lowest, route) in [
        (1280, 1280, 1252),
        (1420, 1280, 1400),
        (1420, 1420, 1392),
        (1500, 1280, 1480),
        (1500, 1500, 1472),
    ] {
        let lab = Lab::raise(&Uplink::new().mtu(mtu));
        let lowest_mtu = format!("lowest-ipv6-mtu={lowest}");
        around(&lab, &["v4-defaultroute-mtu=auto", &lowest_mtu], |_| {
            assert!(lab.host("ip -4 route show default").contains(&format!("mtu {route} ")));
            traffic::udp_at_once(&lab, &[1, route - 28, route - 27, 3000, 9000]);
            traffic::works(&lab);
            let seen = &status(&lab)["counters"]["4to6"];
            assert_eq!(seen["dropped"].get("fragmentation-needed"), None, "MTU {mtu}: {seen}");
            assert_eq!(seen["fragments"] == 0, lowest == mtu, "MTU {mtu}: {seen}");
        });
    }
}

#[test]
fn discover_shows_every_way() {
    let lab = Lab::raise(&Uplink::new());
    // A router speaks while the survey listens.
    let shown = std::thread::scope(|scope| {
        let survey = scope.spawn(|| clatd(&lab, &["discover", "--json", "plat-check=192.88.99.10"]));
        for _ in 0..6 {
            std::thread::sleep(Duration::from_millis(200));
            advertise(&lab, "--pref64 2001:db8:64::/96=600");
        }
        survey.join().unwrap()
    });
    let document: serde_json::Value = serde_json::from_str(&shown.ok("clatd discover")).unwrap();
    let uplink = &document["uplinks"][0];
    assert_eq!(uplink["device"], "up0");
    let of = |prefix: &str| {
        let all = uplink["prefixes"].as_array().unwrap();
        all.iter()
            .find(|found| found["prefix"] == prefix)
            .cloned()
            .unwrap_or_default()
    };
    assert_eq!(of("64:ff9b::/96")["reachable"], true, "{document}");
    assert_eq!(of("64:ff9b::/96")["route"], true, "{document}");
    assert!(
        of("64:ff9b::/96")["source"].as_str().unwrap().contains("DNS64"),
        "{document}"
    );
}
