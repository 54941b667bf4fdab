//! VPNs: their rules and routes beside ours.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::bed::{Lab, SERVER, Uplink, poll};
use crate::daemon::{Daemon, clatd};
use crate::home::{PATIENCE, status};
use crate::traffic;

/// What runs does the same in both: tests that go through several cases take turns.
const WHEN_IDLE: [&str; 2] = ["when-idle=wait", "when-idle=exit"];

in_both_modes!(default_routes_of_a_vpn_leave_the_clat_under_it_alone);

/// What wg-quick does, and most scripts: rules without a priority.
const VPN_UP: &str = "ip link add vpn0 type veth peer name vpn1 && ip link set vpn1 up && ip link set vpn0 up && \
    ip -6 route add default dev vpn0 table 51820 && \
    ip -6 rule add not fwmark 51820 table 51820 && ip -6 rule add table main suppress_prefixlength 0 && \
    ip -4 route add default dev vpn0 table 51820 && \
    ip -4 rule add not fwmark 51820 table 51820 && ip -4 rule add table main suppress_prefixlength 0";
const VPN_DOWN: &str = "for v in -4 -6; do ip $v rule del not fwmark 51820 table 51820; \
    ip $v rule del table main suppress_prefixlength 0; done; ip link del vpn0";

/// The ways of `IPv6 in`.
const MODES: [&[&str]; 4] = [
    &[],
    &["translator=userspace"],
    &["clat-v6-addr=shared"],
    &["translator=userspace", "nd=anycast"],
];

/// The host's own addresses are reached, from itself and from outside.
fn is_reachable(lab: &Lab, when: &str) {
    let rules = lab.host("ip -6 rule");
    assert!(rules.starts_with("0:\tfrom all lookup local\n"), "{when}:\n{rules}");
    let address = lab.host("ip -6 -j addr show dev up0 scope global | jq -r '.[0].addr_info[0].local'");
    let router = lab.host("ip -6 -j route show default dev up0 | jq -r '.[0].gateway'");
    for (node, line) in [
        ("host", "ping -6 -n -c 1 -W 2 ::1".to_owned()),
        ("host", format!("ping -6 -n -c 1 -W 2 {}%up0", router.trim())),
        ("host", format!("ping -6 -n -c 1 -W 2 {}", address.trim())),
        ("isp0", format!("ping -6 -n -c 1 -W 2 {}", address.trim())),
    ] {
        let ran = lab.run(node, &line);
        assert!(ran.code == Some(0), "{when}: {node}: {line}: {ran}\n{rules}");
    }
}

/// Whatever a VPN adds, table local comes first: while we run, after the stop, after kill -9 and the clean-up.
#[test]
fn table_local_is_the_first() {
    let lab = Lab::raise(&Uplink::new());
    let before = lab.state();
    for words in MODES {
        let when = words.join(" ");
        let mut daemon = Daemon::up(&lab, words);
        is_reachable(&lab, &when);
        lab.host(VPN_UP);
        is_reachable(&lab, &format!("{when}, a VPN up"));
        daemon.stop(Signal::SIGTERM);
        is_reachable(&lab, &format!("{when}, a VPN up, stopped"));
        lab.host(VPN_DOWN);
        lab.assert_state_is(&before, &format!("{when}: after both"));

        let mut daemon = Daemon::up(&lab, words);
        lab.host(VPN_UP);
        daemon.kill();
        is_reachable(&lab, &format!("{when}, killed"));
        clatd(&lab, &["cleanup"]).ok("clatd cleanup");
        is_reachable(&lab, &format!("{when}, killed, cleaned up"));
        lab.host(VPN_DOWN);
        lab.assert_state_is(&before, &format!("{when}: after the clean-up"));
    }
}

/// Another program's filter on hook output: with a shared address the replies are sent to the CLAT by this host.
#[test]
fn a_shared_address_passes_filters_of_output() {
    let lab = Lab::raise(&Uplink::new());
    lab.host(
        "nft add table inet fw; \
         nft add chain inet fw output '{ type filter hook output priority 0; policy drop; }'; \
         nft add rule inet fw output oifname up0 accept; nft add rule inet fw output oifname lo accept; \
         nft add rule inet fw output meta nfproto ipv4 accept; \
         ip6tables -P OUTPUT DROP; ip6tables -A OUTPUT ! -o clat -j ACCEPT",
    );
    let before = lab.state();
    for words in [
        &["clat-v6-addr=shared"][..],
        &["clat-v6-addr=shared", "translator=tayga"],
    ] {
        let mut daemon = Daemon::up(&lab, words);
        traffic::works(&lab);
        daemon.stop(Signal::SIGTERM);
        lab.assert_state_is(&before, &words.join(" "));
    }
}

/// The rules of one IP version, in the kernel's order: priority, and whether it is ours.
fn rules(lab: &Lab, v: &str) -> Vec<(u64, bool)> {
    let rules: Value = serde_json::from_str(&lab.host(&format!("ip {v} -j -d rule"))).unwrap();
    let rules = rules.as_array().cloned().unwrap_or_default();
    rules
        .iter()
        .map(|rule| (rule["priority"].as_u64().unwrap(), rule["protocol"] == "46"))
        .collect()
}

/// Whether our rules stand right behind the first rule, in both IP versions. With the fast path there are none of IPv6.
fn ours_come_first(lab: &Lab) -> bool {
    ["-4", "-6"].iter().all(|v| {
        let ours: Vec<bool> = rules(lab, v).iter().skip(1).map(|(_, ours)| *ours).collect();
        let none = *v == "-6" && !ours.contains(&true);
        none || ours.first() == Some(&true) && ours.is_sorted_by(|before, after| *before || !*after)
    })
}

/// A socket that is bound to the CLAT's address reaches the internet.
fn reaches(lab: &Lab) -> bool {
    lab.run("host", &format!("ping -n -c 1 -W 1 -I 192.0.0.1 {SERVER}"))
        .code
        == Some(0)
}

fn state(lab: &Lab) -> String {
    status(lab)["instances"][0]["state"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn uplink(lab: &Lab) -> String {
    let status = status(lab);
    let name = &status["instances"][0]["facts"]["uplink"]["value"]["name"];
    name.as_str().unwrap_or_default().to_owned()
}

/// Rules that come later take nothing of the CLAT's, in both IP versions, in every way of `IPv6 in`.
#[test]
fn rules_of_vpns_stay_behind_ours() {
    let lab = Lab::raise(&Uplink::new());
    let before = lab.state();
    for (words, when_idle) in MODES.into_iter().zip(WHEN_IDLE.into_iter().cycle()) {
        let mut daemon = Daemon::up(&lab, &[words, &[when_idle]].concat());
        for round in 0..6 {
            lab.host(VPN_UP);
            daemon.wait_for("place before the VPN's rules", || ours_come_first(&lab));
            daemon.wait_for("way through the CLAT", || reaches(&lab));
            assert_eq!(uplink(&lab), "up0");
            // Rules with a number of their own, too.
            if round == 0 {
                lab.host("ip -6 rule add pref 100 table 51820; ip -4 rule add pref 100 table 51820");
                daemon.wait_for("place before rule 100", || ours_come_first(&lab));
                daemon.wait_for("way through the CLAT", || reaches(&lab));
                lab.host("ip -6 rule del pref 100; ip -4 rule del pref 100");
            }
            lab.host(VPN_DOWN);
        }
        assert_eq!(state(&lab), "running");
        daemon.stop(Signal::SIGTERM);
        lab.assert_state_is(&before, &words.join(" "));
    }
}

/// `rule-priority`: what an administrator puts before our rules stays there.
#[test]
fn a_rule_can_be_put_before_ours_on_purpose() {
    let lab = Lab::raise(&Uplink::new());
    let before = lab.state();
    let mut daemon = Daemon::up(&lab, &["rule-priority=1000"]);
    lab.host("ip -6 rule add pref 900 table 51820; ip -4 rule add pref 900 table 51820");
    std::thread::sleep(Duration::from_secs(1));
    for v in ["-4", "-6"] {
        let rules = rules(&lab, v);
        let ours: Vec<u64> = rules
            .iter()
            .filter(|(_, ours)| *ours)
            .map(|(priority, _)| *priority)
            .collect();
        assert!(ours.iter().all(|priority| (1000..1004).contains(priority)), "{rules:?}");
    }
    lab.host("ip -6 rule del pref 900; ip -4 rule del pref 900");
    daemon.stop(Signal::SIGTERM);
    lab.assert_state_is(&before, "after the stop");
}

/// A VPN over the CLAT: its default routes, in table main, stop nothing, also when the uplink comes back beside them.
fn default_routes_of_a_vpn_leave_the_clat_under_it_alone(when_idle: &str) {
    let lab = Lab::raise(&Uplink::new());
    let mut daemon = Daemon::up(&lab, &[when_idle]);
    lab.host(
        "ip link add vpn0 type veth peer name vpn1 && ip link set vpn1 up && ip link set vpn0 up && ip addr add 10.8.0.2/24 dev vpn0 && \
         ip route add default dev vpn0 metric 50 && \
         ip -6 addr add fd00:8::2/64 dev vpn0 nodad && ip -6 route add default via fd00:8::1 dev vpn0 metric 1",
    );
    let stays = || {
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!((state(&lab).as_str(), uplink(&lab).as_str()), ("running", "up0"));
        assert!(
            poll(PATIENCE, || reaches(&lab)),
            "{}",
            lab.host("ip rule; ip route; ip -6 route")
        );
    };
    stays();
    lab.host("ip link set up0 down");
    daemon.wait_for("notice", || state(&lab) != "running");
    lab.host("ip link set up0 up; ip -6 route del default dev vpn0 metric 1");
    daemon.wait_until_running(&lab);
    stays();
    // Native IPv4 of the uplink itself does stop it.
    lab.host("ip addr add 192.0.2.2/24 dev up0; ip route add default via 192.0.2.1 dev up0 metric 100");
    if when_idle == "when-idle=exit" {
        let ran = daemon.wait_exit(PATIENCE);
        assert_eq!(ran.code, Some(0), "{ran}");
        return;
    }
    daemon.wait_for("end beside native IPv4", || state(&lab) == "idle");
    lab.host("ip route del default dev up0 metric 100; ip addr del 192.0.2.2/24 dev up0");
    daemon.wait_until_running(&lab);
    lab.host("ip link del vpn0");
    stays();
    daemon.stop(Signal::SIGTERM);
}

/// With `v4-conncheck-scope=host`, the default, an IPv4 default route on any device keeps clatd from starting a CLAT.
#[test]
fn at_the_start_a_default_route_elsewhere_counts() {
    let lab = Lab::raise(&Uplink::new());
    lab.host("ip link add vpn0 type veth peer name vpn1 && ip link set vpn1 up && ip link set vpn0 up && ip route add default dev vpn0 metric 50");
    let ran = clatd(&lab, &[]);
    assert!(
        ran.code == Some(0) && ran.to_string().contains("already has IPv4"),
        "{ran}"
    );
}

/// What dhcpcd and avahi-autoipd make where there is no DHCPv4: it is no IPv4 connectivity, and does not come first.
#[test]
fn link_local_ipv4_is_no_native_ipv4() {
    let lab = Lab::raise(&Uplink::new());
    lab.host("ip addr add 169.254.7.7/16 dev up0 scope link");
    let routes = [
        "default dev up0 scope link src 169.254.7.7 metric 202",
        "default dev up0 scope link metric 1002",
    ];
    for (route, when_idle) in routes.into_iter().zip(WHEN_IDLE) {
        // There at the start, and coming later.
        lab.host(&format!("ip route add {route}"));
        let mut daemon = Daemon::up(&lab, &[when_idle]);
        traffic::whoami(&lab);
        lab.host(&format!("ip route del {route}"));
        std::thread::sleep(Duration::from_millis(500));
        lab.host(&format!("ip route add {route}"));
        daemon.wait_for("way through the CLAT", || {
            lab.run("host", &format!("ping -n -c 1 -W 1 {SERVER}")).code == Some(0)
        });
        assert_eq!(state(&lab), "running");
        daemon.stop(Signal::SIGTERM);
        lab.host(&format!("ip route del {route}"));
    }
}

/// RFC 8028: routes for sources of one prefix only, by the router that serves it.
#[test]
fn source_specific_default_routes_lead_to_the_plat() {
    let lab = Lab::raise(&Uplink::new());
    lab.host(
        "gateway=$(ip -6 -j route show default dev up0 | jq -r '.[0].gateway'); \
         prefix=$(ip -6 -j route show dev up0 proto kernel | jq -r '.[].dst' | grep ^3fff); \
         sysctl -qw net.ipv6.conf.up0.accept_ra=0; ip -6 route flush default; \
         ip -6 route add default from $prefix via $gateway dev up0; \
         ip -6 route add default from fd00:9::/64 via fe80::dead dev up0 metric 1",
    );
    let cases: [&[&str]; 3] = [&[], &["plat-dev=up0"], &["clat-v6-addr=shared"]];
    for (words, when_idle) in cases.into_iter().zip(WHEN_IDLE.into_iter().cycle()) {
        let before = lab.state();
        let mut daemon = Daemon::up(&lab, &[words, &[when_idle]].concat());
        traffic::whoami(&lab);
        lab.host(VPN_UP);
        daemon.wait_for("way through the CLAT", || reaches(&lab));
        lab.host(VPN_DOWN);
        daemon.stop(Signal::SIGTERM);
        lab.assert_state_is(&before, &words.join(" "));
    }
}
