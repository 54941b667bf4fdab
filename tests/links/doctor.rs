//! Planted faults, and what the doctor says of each.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::bed::{Lab, Uplink, poll};
use crate::daemon::{Daemon, clatd};

/// What the doctor finds, and with which exit status.
fn examine(lab: &Lab, words: &[&str]) -> (Option<i32>, Value, String) {
    let words: Vec<&str> = ["doctor", "--json"].iter().chain(words).copied().collect();
    let ran = clatd(lab, &words);
    let document: Value = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran}"));
    assert_eq!(document["version"], 1);
    assert_eq!(ran.code, Some(i32::from(document["wrong"] == true)), "{ran}");
    let text = serde_json::to_string_pretty(&document).unwrap();
    (ran.code, document, text)
}

/// The words of what is wrong with this check, and the advice.
fn wrong(document: &Value, check: &str) -> String {
    let findings = document["instances"][0]["findings"].as_array().unwrap();
    let of_check = findings
        .iter()
        .filter(|finding| finding["check"] == check && finding["verdict"] == "wrong");
    let words = of_check.map(|finding| {
        let advice = finding["advice"].as_str().expect("advice goes with what is wrong");
        format!("{}: {advice}", finding["what"].as_str().unwrap())
    });
    words.collect::<Vec<_>>().join("\n")
}

/// Plants a fault and waits until the doctor tells of it by each of these words, and of nothing else as wrong.
fn plant(lab: &Lab, check: &str, words: &[&str], also: &[&str]) {
    let mut last = String::new();
    let found = poll(Duration::from_secs(60), || {
        let (code, document, text) = examine(lab, &[]);
        last = text;
        let said = wrong(&document, check);
        code == Some(1) && words.iter().all(|word| said.contains(word))
    });
    assert!(found, "{check} must be said to be wrong with {words:?}:\n{last}");
    let document: Value = serde_json::from_str(&last).unwrap();
    for finding in document["instances"][0]["findings"].as_array().unwrap() {
        let check_of = finding["check"].as_str().unwrap();
        assert!(
            finding["verdict"] != "wrong" || check_of == check || also.contains(&check_of),
            "{check} is the only fault:\n{last}"
        );
    }
}

#[test]
fn nothing_is_wrong_where_nothing_is() {
    let lab = Lab::raise(&Uplink::new());
    let before = lab.state();
    let (code, document, text) = examine(&lab, &[]);
    assert_eq!(code, Some(0), "without a daemon:\n{text}");
    assert!(text.contains("no clatd runs"), "{text}");
    lab.assert_state_is(&before, "after clatd doctor");
    assert!(
        document["instances"][0]["findings"].as_array().unwrap().len() > 6,
        "{text}"
    );

    let mut daemon = Daemon::up(&lab, &[]);
    let (code, document, text) = examine(&lab, &[]);
    assert_eq!(code, Some(0), "{text}");
    for check in [
        "daemon",
        "uplink",
        "carrier",
        "address",
        "gateway",
        "dns64",
        "prefix",
        "plat",
        "claim",
        "device",
        "forwarding",
        "filter",
        "route",
        "mtu",
        "ipv4",
    ] {
        let findings = document["instances"][0]["findings"].as_array().unwrap();
        let good = findings
            .iter()
            .any(|finding| finding["check"] == check && finding["verdict"] == "good");
        assert!(good, "{check} is good:\n{text}");
    }
    let ran = clatd(&lab, &["doctor"]);
    assert!(ran.out.starts_with("clat: nothing is wrong\n"), "{ran}");
    assert!(!ran.out.contains('\x1b'), "{ran}");
    // A host that the user names.
    let named = clatd(&lab, &["doctor", "plat-check=192.88.99.10"]);
    assert!(named.out.contains("192.88.99.10 answers through the PLAT"), "{named}");
    let named = clatd(&lab, &["doctor", "plat-check=192.88.99.11"]);
    assert_eq!(named.code, Some(1), "{named}");
    assert!(named.out.contains("192.88.99.11 does not answer"), "{named}");
    daemon.stop(Signal::SIGTERM);
    lab.assert_state_is(&before, "after the stop");
}

#[test]
fn carrier_down() {
    let lab = Lab::raise(&Uplink::new());
    let mut daemon = Daemon::up(&lab, &["when-idle=wait"]);
    lab.run("isp0", "ip link set cust down").ok("the other end is off");
    plant(&lab, "carrier", &["up0 has no carrier", "cable"], &["route"]);
    lab.run("isp0", "ip link set cust up").ok("the other end is on");
    lab.host("ip link set up0 down");
    plant(
        &lab,
        "carrier",
        &["up0 is switched off", "ip link set up0 up"],
        &["route"],
    );
    daemon.stop(Signal::SIGTERM);
    // The same without a daemon.
    let (code, document, text) = examine(&lab, &["plat-dev=up0"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(wrong(&document, "carrier").contains("up0 is switched off"), "{text}");
}

#[test]
fn gateway_silent() {
    let lab = Lab::raise(&Uplink::new());
    let mut daemon = Daemon::up(&lab, &["when-idle=wait"]);
    lab.run(
        "isp0",
        "nft 'table netdev silent { chain in { type filter hook ingress device cust priority 0; drop; }; }'",
    )
    .ok("the router falls silent");
    plant(
        &lab,
        "gateway",
        &["does not answer", "before the first hop", "check the router"],
        &[],
    );
    daemon.stop(Signal::SIGTERM);
}

#[test]
fn plat_dead() {
    let lab = Lab::raise(&Uplink::new());
    let mut daemon = Daemon::up(&lab, &["when-idle=wait"]);
    lab.run("isp0", "ip link set nat64-0 down").ok("the PLAT is gone");
    plant(
        &lab,
        "plat",
        &[
            "the PLAT of 64:ff9b::/96 does not answer",
            "as far as 3fff:1:0:1::1",
            "NAT64",
        ],
        &[],
    );
    daemon.stop(Signal::SIGTERM);
}

#[test]
fn forward_chain_drops() {
    let lab = Lab::raise(&Uplink::new());
    lab.host("nft 'table ip6 fence { chain between { type filter hook forward priority filter; policy drop; }; }'");
    const ENGINE: &str = "translator=userspace";
    let mut daemon = Daemon::start(&lab, &["firewall=none", ENGINE]);
    daemon.wait_until_running(&lab);
    plant(
        &lab,
        "filter",
        &[
            "ip6 fence between",
            "policy drop",
            "packets stop in this host",
            "firewall=auto",
        ],
        &["ipv4"],
    );
    daemon.stop(Signal::SIGTERM);
    // With the default nothing is wrong, and it is said why.
    for (words, why) in [
        (&[ENGINE][..], "clatd's rules in it let them pass"),
        (&[], "which does not matter: the fast path forwards none"),
    ] {
        let mut daemon = Daemon::up(&lab, words);
        let (code, _, text) = examine(&lab, &[]);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains(why), "{text}");
        daemon.stop(Signal::SIGTERM);
    }
}

#[test]
fn foreign_default_route_wins() {
    let lab = Lab::raise(&Uplink::new());
    let mut daemon = Daemon::up(&lab, &["v4-conncheck-enable=no"]);
    lab.host("ip link add stray type veth peer name stray2 && ip link set stray up && ip link set stray2 up");
    lab.host("ip address add 10.9.0.1/24 dev stray && ip route add default via 10.9.0.2 metric 50");
    plant(
        &lab,
        "route",
        &[
            "IPv4 leaves this host by stray, not by clat",
            "default via 10.9.0.2 dev stray metric 50",
            "50 is lower than",
            "v4-defaultroute-metric",
            "leads to a router that does not answer",
        ],
        &[],
    );
    daemon.stop(Signal::SIGTERM);
}

#[test]
fn large_packets_vanish() {
    let lab = Lab::raise(&Uplink::new());
    let mut daemon = Daemon::up(&lab, &["v4-defaultroute-mtu=auto"]);
    lab.run(
        "isp0",
        "nft 'table netdev hole { chain in { type filter hook ingress device cust priority 0; meta length > 1450 drop; }; }'",
    )
    .ok("a black hole");
    plant(
        &lab,
        "mtu",
        &[
            "packets of 1500 bytes are lost",
            "black hole",
            "1420 bytes pass",
            "ip link set up0 mtu 1420",
        ],
        &[],
    );
    daemon.stop(Signal::SIGTERM);
    // What stays below it is not harmed.
    let mut daemon = Daemon::up(&lab, &["v4-defaultroute-mtu=1260"]);
    let (code, _, text) = examine(&lab, &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("so IPv4 passes"), "{text}");
    daemon.stop(Signal::SIGTERM);
}

/// A filter that may stop IPv4 is named only where nothing comes back.
#[test]
fn replies_are_dropped_in_this_host() {
    let lab = Lab::raise(&Uplink::new());
    let mut daemon = Daemon::up(&lab, &[]);
    lab.host("nft 'table inet wall { chain in { type filter hook input priority filter; iifname clat drop; }; }'");
    plant(
        &lab,
        "ipv4",
        &[
            "nothing comes back through clat",
            "packets stop in this host",
            "the nft chain inet wall in (hook input, rule with drop)",
        ],
        &[],
    );
    // A filter that only looks dangerous is not blamed.
    lab.host("nft delete table inet wall");
    lab.host("nft 'table inet paths { chain before { type filter hook prerouting priority raw; iifname clat fib saddr . iif oif missing drop; }; }'");
    let (code, _, text) = examine(&lab, &[]);
    assert_eq!(code, Some(0), "{text}");
    daemon.stop(Signal::SIGTERM);
}

#[test]
fn dns64_lies() {
    let liar = "3fff:1::66";
    let lab = Lab::raise(&Uplink::new().resolver(liar, Some("2001:db8:bad::/96")));
    let servers = format!("dns64-servers={liar}");
    let mut daemon = Daemon::start(&lab, &["when-idle=wait", &servers]);
    daemon.wait_until_running(&lab);
    plant(
        &lab,
        "plat",
        &["the PLAT of 2001:db8:bad::/96 does not answer"],
        &["dns64"],
    );
    daemon.stop(Signal::SIGTERM);
    // Where the truth is known, too, the liar is named.
    let mut daemon = Daemon::up(&lab, &["when-idle=wait", &servers, "plat-prefix=64:ff9b::/96"]);
    plant(
        &lab,
        "dns64",
        &[
            "DNS64 server 3fff:1::66 synthesises with 2001:db8:bad::/96, where nothing answers",
            "64:ff9b::/96 answers",
        ],
        &[],
    );
    daemon.stop(Signal::SIGTERM);
}
