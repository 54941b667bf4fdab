//! An uplink in a VRF beside one that is in none, both with the same PLAT prefix.
//!
//! Such a kernel is not everywhere: [`uplinks_in_a_vrf`] runs the others here, or in a virtual machine that has one.

use crate::bed::{Lab, SERVER, Uplink, poll};
use crate::daemon::Daemon;
use crate::home::{
    EVERY_UPLINK, PATIENCE, assert_plainly_same, device, gateway_of, isp_file, leaves_by, plain, raise, readvertise,
    running, seen, sorted_state, start, status_of, stop,
};
use crate::traffic;

/// Runs the tests below, which need a VRF.
#[test]
fn uplinks_in_a_vrf() {
    crate::other_kernel::run_ignored("vrf::");
}

/// The routing table of the VRF.
const TABLE: u32 = 100;

/// Makes the VRF, as its operator would, with the usual end of its table.
fn make_vrf(lab: &Lab) {
    lab.host(&format!(
        "ip link add blue type vrf table {TABLE} && ip link set blue up &&
         ip -6 route replace unreachable default metric 4278198272 table {TABLE} &&
         ip route replace unreachable default metric 4278198272 table {TABLE}"
    ));
}

/// Puts an uplink into the VRF and waits until it is on line there: its addresses and routes are made anew.
fn enslave(lab: &Lab, k: usize) {
    lab.host(&format!("ip link set up{k} master blue"));
    on_line(lab, k, TABLE);
}

fn on_line(lab: &Lab, k: usize, table: u32) {
    let ready = || {
        let routes = lab.run("host", &format!("ip -6 route show default dev up{k} table {table}"));
        let addresses = lab.host(&format!("ip -6 address show dev up{k} scope global"));
        routes.out.contains("via") && addresses.contains("inet6") && !addresses.contains("tentative")
    };
    assert!(
        poll(PATIENCE, ready),
        "{}",
        lab.host("ip -6 address; ip -6 route show table all")
    );
}

/// A plain uplink and one in the VRF.
fn one_in_a_vrf() -> Lab {
    let lab = raise(&[Uplink::new(), Uplink::new()]);
    make_vrf(&lab);
    enslave(&lab, 1);
    lab
}

/// The IPv4 address of the CLAT of an uplink.
const ADDRESSES: [&str; 2] = ["192.0.0.1", "192.0.0.3"];

/// Whoever names the address or the device of a CLAT leaves by its uplink, and gets an answer.
fn each_by_its_own(lab: &Lab) {
    for (k, address) in ADDRESSES.into_iter().enumerate() {
        for interface in [address, &device(k)] {
            leaves_by(lab, Some(interface), k);
            lab.host(&format!("ping -n -c 2 -i 0.2 -W 8 -I {interface} {SERVER}"));
        }
    }
}

/// The device from which the kernel takes packets of uplink 1 to come: itself, or the VRF that it is in.
fn comes_from(lab: &Lab) -> String {
    let facts = &status_of(lab, "clat@up1")["facts"];
    let device = facts["uplink_vrf"]["value"]["name"].as_str();
    let device = device.or_else(|| facts["uplink"]["value"]["name"].as_str());
    device.unwrap_or_default().to_owned()
}

/// Without the fast path there are rules of IPv6, too, and what a packet filter must let pass.
const ENGINE: &str = "translator=userspace";

#[test]
#[ignore = "run by uplinks_in_a_vrf"]
fn each_leaves_by_its_own_uplink() {
    let lab = one_in_a_vrf();
    let before = lab.state();
    let mut daemon = start(&lab, &[EVERY_UPLINK], 2);
    each_by_its_own(&lab);
    leaves_by(&lab, None, 0);
    let status = status_of(&lab, "clat@up1");
    assert_eq!(status["facts"]["uplink_vrf"]["value"]["name"], "blue", "{status}");
    assert_eq!(status["facts"]["plat_prefix"]["value"], "64:ff9b::/96", "{status}");
    let source = status["facts"]["plat_prefix"]["source"].to_string();
    assert!(source.contains("3fff:2::53"), "asked through the VRF: {source}");

    // Not only what fits into one small packet, and errors.
    lab.host("ip route add 192.88.99.10/32 dev clat-up1");
    traffic::download(&lab, 300_000);
    traffic::upload(&lab, 300_000);
    traffic::udp(&lab, &[1, 1200, 3000]);
    traffic::traceroute(&lab, "192.0.0.2");
    lab.host("ip route del 192.88.99.10/32 dev clat-up1");

    // Whoever is in the VRF uses its IPv6 as before, and finds no IPv4 there.
    for inside in [
        "ping -n -c 2 -i 0.2 -W 8 -I blue 3fff:2::53",
        "ip vrf exec blue ping -n -c 2 -i 0.2 -W 8 3fff:2::53",
    ] {
        lab.host(inside);
    }
    assert_eq!(seen(&lab, Some("blue")), None);
    // The device of the CLAT can be named there, too.
    let inside = lab.host(&format!(
        "ip vrf exec blue curl -sSf -m 20 --interface clat-up1 http://{SERVER}/whoami"
    ));
    assert_eq!(inside.trim(), crate::home::isp_v4(1));

    daemon.kill();
    let mut daemon = start(&lab, &[EVERY_UPLINK], 2);
    each_by_its_own(&lab);
    daemon.stop(nix::sys::signal::Signal::SIGTERM);
    lab.assert_state_is(&before, "after kill -9, restart and stop");
    lab.assert_no_process_left("after the stop");
}

/// Waits until packets of uplink 1 come from there, and each CLAT works.
fn serves(lab: &Lab, daemon: &mut Daemon, from: &str) {
    let mut seen = String::new();
    let reached = poll(PATIENCE, || {
        seen = comes_from(lab);
        seen == from
    });
    assert!(
        reached,
        "what comes from {from}: the facts say {seen:?}\n{}\n{}",
        lab.host("ip -6 rule; ip -br link; ip -6 route show table all; ip -6 address"),
        daemon.output()
    );
    running(lab, daemon, 2);
    each_by_its_own(lab);
}

/// The uplink goes into the VRF, gets another gateway there, goes down and up, and comes out of it.
#[test]
#[ignore = "run by uplinks_in_a_vrf"]
fn an_uplink_moves_into_a_vrf_and_out_of_it() {
    let lab = raise(&[Uplink::new(), Uplink::new()]);
    make_vrf(&lab);
    let before = plain(sorted_state(&lab));
    let mut daemon = start(&lab, &[EVERY_UPLINK], 2);
    serves(&lab, &mut daemon, "up1");

    enslave(&lab, 1);
    serves(&lab, &mut daemon, "blue");

    // Its router gets another address.
    let gateway = || gateway_of(&lab, "clat@up1");
    let old = gateway();
    lab.run(
        "isp1",
        "ip address flush dev cust scope link && ip address add fe80::99/64 dev cust nodad",
    )
    .ok("another gateway");
    let radvd = isp_file(&lab, 1, "radvd.pid");
    lab.run(
        "isp1",
        &format!(
            "kill $(cat {0}); sleep 1; radvd --config {1} --pidfile {0} --logmethod none",
            radvd.display(),
            isp_file(&lab, 1, "radvd.conf").display()
        ),
    )
    .ok("radvd again");
    lab.host("ip -6 route flush proto ra table 100");
    readvertise(&lab, 1);
    daemon.wait_for("the new gateway", || gateway().contains("fe80::99"));
    assert!(!old.contains("fe80::99"));
    each_by_its_own(&lab);

    lab.host("ip link set up1 down");
    daemon.wait_for("the other one alone", || seen(&lab, Some("clat-up1")).is_none());
    leaves_by(&lab, Some("clat-up0"), 0);
    lab.host("ip link set up1 up");
    on_line(&lab, 1, TABLE);
    serves(&lab, &mut daemon, "blue");

    lab.host("ip link set up1 nomaster");
    on_line(&lab, 1, 254);
    serves(&lab, &mut daemon, "up1");

    daemon.stop(nix::sys::signal::Signal::SIGTERM);
    assert_plainly_same(&lab, &before, "after the stop");
    lab.assert_no_process_left("after the stop");
}

/// The VRF is deleted under an uplink, and made again.
#[test]
#[ignore = "run by uplinks_in_a_vrf"]
fn a_vrf_goes_and_comes_back() {
    let lab = raise(&[Uplink::new(), Uplink::new()]);
    // The end of its table and the kernel's rule for all VRFs outlive it.
    make_vrf(&lab);
    lab.host("ip link del blue");
    let before = plain(sorted_state(&lab));
    make_vrf(&lab);
    enslave(&lab, 1);
    let mut daemon = start(&lab, &[ENGINE, EVERY_UPLINK], 2);
    serves(&lab, &mut daemon, "blue");

    lab.host("ip link del blue");
    on_line(&lab, 1, 254);
    serves(&lab, &mut daemon, "up1");
    make_vrf(&lab);
    enslave(&lab, 1);
    serves(&lab, &mut daemon, "blue");

    lab.host("ip link del blue");
    on_line(&lab, 1, 254);
    serves(&lab, &mut daemon, "up1");
    daemon.stop(nix::sys::signal::Signal::SIGTERM);
    assert_plainly_same(&lab, &before, "after the stop");
    lab.assert_no_process_left("after the stop");
}

/// What a firewall takes to come in by the VRF must pass, too. With the host's own address (`clat-v6-addr=shared`) it was
/// seen to work on Linux 6.1, too; an emulated machine takes too long for both.
#[test]
#[ignore = "run by uplinks_in_a_vrf"]
fn firewalls_see_the_vrf() {
    let lab = one_in_a_vrf();
    lab.host(
        "nft -f - <<'END'
table inet filter {
 chain forward { type filter hook forward priority filter; policy drop; }
 chain rpfilter { type filter hook prerouting priority raw; fib saddr . iif oif missing drop; }
}
END
ip6tables -P FORWARD DROP",
    );
    let before = sorted_state(&lab);
    let mut daemon = start(&lab, &[ENGINE, EVERY_UPLINK], 2);
    each_by_its_own(&lab);
    lab.host("ping -n -c 2 -i 0.2 -W 8 -I blue 3fff:2::53");
    stop(&lab, &mut daemon, &before, &[]);
}
