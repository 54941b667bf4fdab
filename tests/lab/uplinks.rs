//! Several uplinks, each with its own CLAT: the internet sees by source address which ISP carried what.

use nix::sys::signal::Signal;

use crate::bed::{Lab, SERVER, Uplink};
use crate::daemon::Daemon;
use crate::traffic;

/// By which ISP a connection from this device or address came.
fn carrier(lab: &Lab, from: &str) -> String {
    lab.host(&format!("curl -sSf -m 10 --interface {from} http://{SERVER}/whoami"))
        .trim()
        .to_owned()
}

/// The same prefix on both uplinks; what is bound to a CLAT's device or address leaves by that CLAT's uplink.
#[test]
fn each_clat_leaves_by_its_own_uplink() {
    let lab = Lab::raise(&Uplink::new());
    lab.add(1, &Uplink::new());
    std::fs::write(lab.file("instances.d/a.conf"), "plat-dev=up0\nclat-dev=clat-a\n").unwrap();
    std::fs::write(lab.file("instances.d/b.conf"), "plat-dev=up1\nclat-dev=clat-b\n").unwrap();
    let before = lab.state();
    let mut daemon = Daemon::start(&lab, &[]);
    for device in ["clat-a", "clat-b"] {
        daemon.wait_for(device, || {
            lab.run("host", &format!("ping -n -c 1 -W 1 -I {device} {SERVER}")).code == Some(0)
        });
    }
    let address = |device: &str| {
        lab.host(&format!(
            "ip -4 -o address show dev {device} | sed 's/.*inet \\([0-9.]*\\).*/\\1/'"
        ))
        .trim()
        .to_owned()
    };
    let (a, b) = (address("clat-a"), address("clat-b"));
    assert_ne!(a, b, "distinct addresses out of 192.0.0.0/29");
    for from in ["clat-a", &a] {
        assert_eq!(carrier(&lab, from), "192.88.99.130", "from {from}");
    }
    for from in ["clat-b", &b] {
        assert_eq!(carrier(&lab, from), "192.88.99.134", "from {from}");
    }
    traffic::download(&lab, 1_000_000);
    daemon.stop(Signal::SIGTERM);
    lab.assert_state_is(&before, "after the stop");
}
