//! The CLAT's IPv6 address where the usual one cannot be had.

use crate::bed::{DERIVED_V6, Lab, Uplink};
use crate::daemon::{Daemon, around};
use crate::{fact, status, traffic};
use nix::sys::signal::Signal;

in_both_modes!(an_address_that_a_neighbour_takes_is_given_up);

/// DHCPv6 without a prefix, many virtual servers: one address, nothing beside it.
fn single_address(lab: &Lab) {
    lab.host(
        "address=$(ip -6 -j addr show dev up0 scope global | jq -r '.[0].addr_info[0].local'); \
         gateway=$(ip -6 -j route show default | jq -r '.[0].gateway'); sysctl -qw net.ipv6.conf.up0.accept_ra=0; \
         ip -6 addr flush dev up0 scope global; ip -6 addr add $address/128 dev up0 nodad; \
         ip -6 route replace default via $gateway dev up0",
    );
}

#[test]
fn a_single_address_is_shared_with_the_host() {
    let lab = Lab::raise(&Uplink::new());
    single_address(&lab);
    for translator in ["translator=auto", "translator=userspace"] {
        around(&lab, &[translator], |daemon| {
            assert!(
                daemon.output().contains("the host's own is shared"),
                "{}",
                daemon.output()
            );
            assert_eq!(status(&lab)["facts"]["shared"], true);
            traffic::works(&lab);
            // The host's own IPv6 traffic to the same NAT64 goes on beside it.
            lab.host("ping -6 -n -c 2 -W 2 64:ff9b::192.88.99.10");
            lab.host("curl -g -sSf -m 20 -o /dev/null 'http://[64:ff9b::c058:630a]/blob?size=1000000'");
            lab.host("curl -sSf -m 20 -o /dev/null 'http://192.88.99.10/blob?size=1000000'");
        });
    }
}

#[test]
fn a_shared_address_passes_strict_firewalls() {
    let lab = Lab::raise(&Uplink::new());
    lab.host(
        "nft add table inet fw; \
         nft add chain inet fw forward '{ type filter hook forward priority 0; policy drop; }'; \
         nft add chain inet fw rpf '{ type filter hook prerouting priority -145; }'; \
         nft add rule inet fw rpf meta nfproto ipv6 fib saddr . mark . iif oif missing drop",
    );
    for translator in ["translator=ebpf", "translator=userspace"] {
        around(&lab, &["clat-v6-addr=shared", translator], |_| traffic::works(&lab));
    }
}

#[test]
fn a_stable_address_is_the_same_after_a_restart() {
    let lab = Lab::raise(&Uplink::new().stable_privacy());
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut daemon = Daemon::up(&lab, &["clat-v6-addr=stable"]);
        seen.push(fact(&lab, "clat_v6_addr"));
        traffic::ping(&lab);
        daemon.stop(Signal::SIGTERM);
    }
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn a_checksum_neutral_address_carries_traffic() {
    let lab = Lab::raise(&Uplink::new());
    around(&lab, &["clat-v6-addr=checksum-neutral"], |_| traffic::works(&lab));
}

/// A neighbour has the address that would be derived: it keeps it, and we take another one.
#[test]
fn an_address_that_a_neighbour_has_is_left_to_it() {
    let lab = Lab::raise(&Uplink::new());
    lab.run("isp0", &format!("ip -6 addr add {DERIVED_V6}/128 dev cust nodad"))
        .ok("the neighbour has the address");
    around(&lab, &[], |daemon| {
        assert_ne!(fact(&lab, "clat_v6_addr"), DERIVED_V6);
        assert!(
            daemon.output().contains(&format!("{DERIVED_V6} on up0 belongs to")),
            "{}",
            daemon.output()
        );
        traffic::ping(&lab);
    });
}

/// A neighbour takes the address while it is in use: the instance moves to another one.
fn an_address_that_a_neighbour_takes_is_given_up(mode: &str) {
    let lab = Lab::raise(&Uplink::new());
    let before = lab.state();
    let mut daemon = Daemon::up(&lab, &[mode]);
    assert_eq!(fact(&lab, "clat_v6_addr"), DERIVED_V6);
    lab.run(
        "isp0",
        &format!("ip -6 addr add {DERIVED_V6}/128 dev cust nodad; sysctl -qw net.ipv6.conf.cust.ndisc_notify=1"),
    )
    .ok("the neighbour takes the address");
    // It says so, as after a change of its link-layer address (RFC 4861 section 7.2.6).
    lab.run("isp0", "ip link set cust address 02:00:5e:00:00:99")
        .ok("the neighbour advertises itself");
    daemon.wait_for("it has another address", || {
        let now = fact(&lab, "clat_v6_addr");
        now != DERIVED_V6 && now != "null"
    });
    daemon.stop(Signal::SIGTERM);
    lab.assert_state_is(&before, "after the stop");
}
