//! The fast path on uplinks of kinds that this machine's kernel may lack, in a virtual machine (`scripts/vm`).

use std::process::Command;

use crate::bed::{Lab, Uplink};
use crate::fast_path::works_on;

/// Runs the tests below.
#[test]
fn uplinks_of_other_kinds() {
    crate::other_kernel::run_ignored_elsewhere("other_devices::");
}

/// Makes the router tag what it sends, and take off the tag of what it receives.
fn tag(lab: &Lab) {
    lab.run(
        "isp0",
        "tc qdisc add dev cust clsact &&
         tc filter add dev cust egress matchall action vlan push id 7 &&
         tc filter add dev cust ingress protocol 802.1q matchall action vlan pop",
    )
    .ok("a VLAN at the router");
}

const BOND: &str = "ip link add bond0 type bond mode active-backup miimon 100 &&
    ip link set up0 down && ip link set up0 master bond0 && ip link set bond0 up";

#[test]
#[ignore = "run by uplinks_of_other_kinds"]
fn a_bond() {
    works_on(&Lab::raise(&Uplink::new()), "bond0", BOND);
}

#[test]
#[ignore = "run by uplinks_of_other_kinds"]
fn a_vlan_of_a_bond() {
    let lab = Lab::raise(&Uplink::new());
    tag(&lab);
    let make = format!("{BOND} && ip link add bond0.7 link bond0 type vlan id 7");
    works_on(&lab, "bond0.7", &make);
}

/// A card that computes checksums and cuts large packets itself, or leaves both to the other end. A veth pair does that,
/// too, but never with a driver between.
#[test]
#[ignore = "run by uplinks_of_other_kinds"]
fn a_virtio_card() {
    let lab = Lab::raise(&Uplink::new());
    // eth0 takes the place of up0. eth1, at the other end of its cable and in a node of its own, leads on to the router.
    let [host, wire] = ["host", "isp9"].map(|node| lab.netns(node));
    let mut made = Command::new("sh");
    made.arg("-ec").arg(format!(
        "modprobe virtio_net; ip netns add {wire}; ip link set eth1 netns {wire}; ip -n {host} link set up0 netns {wire}
         ip -n {wire} link add wire type bridge; ip -n {wire} link set wire up
         for end in eth1 up0; do ip -n {wire} link set $end master wire; ip -n {wire} link set $end up; done
         ip link set eth0 netns {host}"
    ));
    assert!(made.status().unwrap().success());
    let features = lab.host("ethtool -k eth0");
    for feature in ["tx-checksumming: on", "tcp-segmentation-offload: on"] {
        assert!(features.contains(feature), "no {feature}: {features}");
    }
    works_on(&lab, "eth0", "true");
}
