//! Who leaves by which uplink.

use crate::bed::{SERVER, Uplink};
use crate::home::{
    EVERY_UPLINK, assert_same, device, in_state, leaves_by, raise, says, seen, sorted_state, start, status_of, stop,
    three,
};

/// CLAT addresses in the order of the uplinks: 192.0.0.2 is the translators' own.
const ADDRESSES: [&str; 3] = ["192.0.0.1", "192.0.0.3", "192.0.0.4"];

fn each_by_its_own(lab: &crate::bed::Lab) {
    for (k, address) in ADDRESSES.into_iter().enumerate() {
        for interface in [address, &device(k)] {
            leaves_by(lab, Some(interface), k);
            lab.host(&format!("ping -n -c 2 -i 0.2 -W 3 -I {interface} {SERVER}"));
        }
        let name = format!("clat@up{k}");
        let status = status_of(lab, &name);
        assert_eq!(status["device"], device(k), "{status}");
        assert_eq!(status["uplink"], format!("up{k}"), "{status}");
        assert_eq!(status["addresses"][0], address, "{status}");
    }
}

/// Two uplinks with the same PLAT prefix and one with another. A socket that is bound to an address or a device takes
/// its uplink. Any other socket takes the uplink of the first IPv6 default route.
#[test]
fn each_instance_leaves_by_its_own_uplink() {
    let lab = three();
    let before = lab.state();
    let mut daemon = start(&lab, &[EVERY_UPLINK], 3);
    each_by_its_own(&lab);
    leaves_by(&lab, None, 0);
    let prefix = |k: usize| status_of(&lab, &format!("clat@up{k}"))["facts"]["plat_prefix"]["value"].clone();
    assert_eq!(prefix(0), "64:ff9b::/96");
    assert_eq!(prefix(1), "64:ff9b::/96");
    assert_eq!(prefix(2), "2001:db8:64::/96");
    daemon.stop(nix::sys::signal::Signal::SIGTERM);
    lab.assert_state_is(&before, "after the stop");
    lab.assert_no_process_left("after the stop");
}

/// The main table sends all IPv6 by the last uplink, and sends the PLAT prefix that two of them share there, too.
#[test]
fn the_main_table_prefers_another_uplink() {
    let lab = three();
    let gateway = lab.host("ip -6 route show default dev up2 | sed -E 's/.*via ([^ ]+).*/\\1/'");
    let gateway = gateway.trim();
    lab.host(&format!("ip -6 route add default via {gateway} dev up2 metric 5"));
    lab.host(&format!("ip -6 route add 64:ff9b::/96 via {gateway} dev up2 metric 5"));
    let before = lab.state();
    let mut daemon = start(&lab, &[EVERY_UPLINK], 3);
    each_by_its_own(&lab);
    leaves_by(&lab, None, 2);
    daemon.stop(nix::sys::signal::Signal::SIGTERM);
    lab.assert_state_is(&before, "after the stop");
}

/// `v4-conncheck-scope=uplink`: native IPv4 on one uplink idles its instance alone, also as it comes and goes.
#[test]
fn native_ipv4_on_one_uplink_only() {
    let lab = raise(&[Uplink::new(), Uplink::new(), Uplink::new().native_v4()]);
    let before = sorted_state(&lab);
    let mut daemon = start(&lab, &[EVERY_UPLINK, "v4-conncheck-scope=uplink"], 2);
    // Each event of the others makes it look again, so that it is not idle at every moment.
    daemon.wait_for("an instance that is idle for native IPv4", || {
        let status = status_of(&lab, "clat@up2");
        let reason = status["reason"].to_string();
        status["state"] == "idle" && reason.contains("already has IPv4 connectivity")
    });
    assert_ne!(lab.run("host", "ip link show clat-up2").code, Some(0));
    leaves_by(&lab, Some(ADDRESSES[0]), 0);
    leaves_by(&lab, Some(ADDRESSES[1]), 1);
    leaves_by(&lab, None, 2);

    lab.host("ip route del default dev up2");
    crate::home::running(&lab, &mut daemon, 3);
    leaves_by(&lab, Some(&device(2)), 2);
    lab.host("ip route add default via 192.168.2.1 dev up2");
    daemon.wait_for("an idle instance again", || in_state(&lab, "idle") == ["clat@up2"]);
    leaves_by(&lab, Some(&device(1)), 1);
    stop(&lab, &mut daemon, &before, &[]);
}

/// `v4-conncheck-scope=host`, the default: at the start, native IPv4 on any device keeps all instances idle. The route
/// of another instance does not count. A running instance stays when native IPv4 comes on another uplink: it may be a
/// VPN's.
#[test]
fn native_ipv4_anywhere_idles_all_by_default() {
    let lab = raise(&[Uplink::new(), Uplink::new().native_v4()]);
    let before = sorted_state(&lab);
    let mut daemon = crate::daemon::Daemon::start(&lab, &[EVERY_UPLINK]);
    daemon.wait_for("two idle instances", || in_state(&lab, "idle").len() == 2);
    assert_same(&lab, &before, &[], "while idle");
    lab.host("ip route del default dev up1");
    crate::home::running(&lab, &mut daemon, 2);
    leaves_by(&lab, Some(&device(0)), 0);
    lab.host("ip route add default via 192.168.1.1 dev up1");
    daemon.wait_for("an idle instance again", || in_state(&lab, "idle") == ["clat@up1"]);
    assert_eq!(in_state(&lab, "running"), ["clat@up0"]);
    says(&mut daemon, "already has IPv4 connectivity");
    assert_eq!(seen(&lab, None), Some(1));
    stop(&lab, &mut daemon, &before, &[]);
}
