//! PREF64 in router advertisements (RFC 8781).

use crate::bed::{Lab, Uplink, poll};
use crate::daemon::{Daemon, around};
use crate::{advertise, begin, fact, status, traffic};
use nix::sys::signal::Signal;
use std::time::Duration;

in_both_modes!(a_prefix_that_only_routers_tell, routers_go_before_dns);

const LIMIT: Duration = Duration::from_secs(20);

/// No DNS64 anywhere; the prefix comes, goes and changes.
fn a_prefix_that_only_routers_tell(mode: &str) {
    let lab = Lab::raise(
        &Uplink::new()
            .plat("64:ff9b::/96")
            .plat("2001:db8:64::/96")
            .without_dns64(),
    );
    let before = lab.state();
    let mut daemon = begin(&lab, &[mode, "discovery=ra"], "--pref64 64:ff9b::/96=600");
    let facts = status(&lab)["facts"].clone();
    assert!(
        facts["plat_prefix"]["source"]
            .as_str()
            .unwrap()
            .starts_with("advertisement of router fe80:"),
        "{facts}"
    );
    assert!(facts["plat_prefix"]["lifetime_s"].as_u64().unwrap() <= 600, "{facts}");
    traffic::works(&lab);

    // Another prefix, the old one withdrawn in the same breath.
    advertise(&lab, "--pref64 64:ff9b::/96=0 --pref64 2001:db8:64::/96=600");
    daemon.wait_for("the new prefix is used", || {
        fact(&lab, "plat_prefix") == "2001:db8:64::/96"
    });
    daemon.wait_for("it runs again", || status_or_null(&lab) == "running");
    traffic::works(&lab);

    advertise(&lab, "--pref64 2001:db8:64::/96=0");
    daemon.wait_for("it is idle again", || status_or_null(&lab) == "idle");
    lab.assert_state_is(&before, "while idle");
    advertise(&lab, "--pref64 64:ff9b::/96=600");
    daemon.wait_until_running(&lab);
    traffic::works(&lab);
    daemon.stop(Signal::SIGTERM);
    lab.assert_state_is(&before, "after the stop");
}

fn status_or_null(lab: &Lab) -> String {
    let ran = crate::daemon::clatd(lab, &["status", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&ran.out).unwrap_or_default();
    document["instances"][0]["state"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// A prefix whose lifetime ends is not used any longer, without any event.
#[test]
fn a_prefix_that_is_not_repeated_expires() {
    let lab = Lab::raise(&Uplink::new().without_dns64());
    let before = lab.state();
    let mut daemon = Daemon::start(&lab, &["when-idle=wait", "discovery=ra"]);
    daemon.wait_for("it is idle", || status_or_null(&lab) == "idle");
    advertise(&lab, "--pref64 64:ff9b::/96=16");
    daemon.wait_until_running(&lab);
    assert!(
        poll(Duration::from_secs(40), || status_or_null(&lab) == "idle"),
        "it expires:\n{}",
        daemon.output()
    );
    daemon.stop(Signal::SIGTERM);
    lab.assert_state_is(&before, "after the stop");
}

/// RFC 8781 section 5.1: what a router says goes before what DNS says, and `discovery` turns that round.
fn routers_go_before_dns(mode: &str) {
    let lab = Lab::raise(&Uplink::new().plat("64:ff9b::/96").plat("2001:db8:64::/96"));
    let mut daemon = Daemon::up(&lab, &[mode]);
    assert_eq!(fact(&lab, "plat_prefix"), "64:ff9b::/96");
    advertise(&lab, "--pref64 2001:db8:64::/96=600");
    assert!(
        poll(LIMIT, || fact(&lab, "plat_prefix") == "2001:db8:64::/96"),
        "{}",
        daemon.output()
    );
    daemon.stop(Signal::SIGTERM);

    let mut daemon = Daemon::up(&lab, &[mode, "discovery=dns,ra"]);
    advertise(&lab, "--pref64 2001:db8:64::/96=600");
    assert_eq!(fact(&lab, "plat_prefix"), "64:ff9b::/96");
    daemon.stop(Signal::SIGTERM);
}

/// The kernel does not accept advertisements, as where networkd or NetworkManager do that: we hear them all the same.
#[test]
fn advertisements_are_heard_whatever_accept_ra_says() {
    let lab = Lab::raise(&Uplink::new().without_dns64());
    lab.host(
        "gateway=$(ip -6 -j route show default | jq -r '.[0].gateway'); sysctl -qw net.ipv6.conf.up0.accept_ra=0; \
         ip -6 route flush default; ip -6 route add default via $gateway dev up0 proto static",
    );
    let before = lab.state();
    let mut daemon = Daemon::start(&lab, &["when-idle=wait", "discovery=ra"]);
    daemon.wait_for("it is idle", || status_or_null(&lab) == "idle");
    advertise(&lab, "--pref64 64:ff9b::/96=600");
    daemon.wait_until_running(&lab);
    traffic::ping(&lab);
    daemon.stop(Signal::SIGTERM);
    lab.assert_state_is(&before, "after the stop");
}

/// RDNSS of the uplink is asked, whatever /etc/resolv.conf says (RFC 8880 section 7.1).
#[test]
fn the_uplinks_own_resolver_is_asked() {
    let lab = Lab::raise(&Uplink::new());
    let name = lab.host("ip netns identify").trim().to_owned();
    std::fs::write(format!("/etc/netns/{name}/resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
    around(&lab, &["plat-dev=up0"], |_| {
        let source = status(&lab)["facts"]["plat_prefix"]["source"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(source.contains("DNS64 server 3fff:"), "{source}");
        traffic::ping(&lab);
    });
}
