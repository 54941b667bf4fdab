//! VPNs: their rules and routes beside ours.

use nix::sys::signal::Signal;

use crate::bed::{Lab, Uplink};
use crate::daemon::{Daemon, clatd};
use crate::traffic;

/// What wg-quick does, and most scripts: rules without a priority.
const VPN_UP: &str = "ip tuntap add vpn0 mode tun && ip link set vpn0 up && \
    ip -6 route add default dev vpn0 table 51820 && \
    ip -6 rule add not fwmark 51820 table 51820 && ip -6 rule add table main suppress_prefixlength 0 && \
    ip -4 route add default dev vpn0 table 51820 && \
    ip -4 rule add not fwmark 51820 table 51820 && ip -4 rule add table main suppress_prefixlength 0";
const VPN_DOWN: &str = "for v in -4 -6; do ip $v rule del not fwmark 51820 table 51820; \
    ip $v rule del table main suppress_prefixlength 0; done; ip link del vpn0";

/// The ways of `IPv6 in`.
const MODES: [&[&str]; 3] = [&[], &["clat-v6-addr=shared"], &["nd=anycast"]];

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
