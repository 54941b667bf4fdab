//! The recipes of README.md, as they stand there: each carries packets.

use nix::sys::signal::Signal;

use crate::bed::{Lab, SERVER, Uplink};
use crate::daemon::Daemon;
use crate::traffic;

/// The configuration under this heading, with the lab's uplink in the place of `eth0`.
fn recipe(heading: &str) -> String {
    let page = include_str!("../../README.md");
    let (_, rest) = page.split_once(&format!("### {heading}\n")).expect(heading);
    let (_, rest) = rest.split_once("```conf\n").expect("a configuration");
    let (text, _) = rest.split_once("```").expect("its end");
    text.replace("eth0", "up0")
}

/// The lab with this recipe as its clatd.conf.
fn raise(heading: &str, uplink: &Uplink) -> Lab {
    let lab = Lab::raise(uplink);
    let conf = lab.read("clatd.conf") + &recipe(heading);
    std::fs::write(lab.file("clatd.conf"), conf).unwrap();
    lab
}

#[test]
fn a_server_with_a_single_address() {
    let lab = raise("A server with a single IPv6 address", &Uplink::new());
    lab.host(
        "sysctl -qw net.ipv6.conf.up0.autoconf=0 && ip -6 address flush dev up0 scope global && \
         ip -6 address add 3fff:1:0:1::77/128 dev up0",
    );
    let mut daemon = Daemon::up(&lab, &[]);
    traffic::ping(&lab);
    assert!(!daemon.output().contains("WARN"), "{}", daemon.output());
    daemon.stop(Signal::SIGTERM);
}

/// A network whose resolver synthesises nothing: the fallback prefix serves.
#[test]
fn a_laptop() {
    let uplink = Uplink::new().plat("2001:db8:64::/96").without_dns64();
    let lab = raise("A laptop", &uplink);
    let mut daemon = Daemon::up(&lab, &[]);
    traffic::ping(&lab);
    daemon.stop(Signal::SIGTERM);
}

#[test]
fn two_uplinks() {
    let lab = raise("Two uplinks, or more", &Uplink::new());
    lab.add(1, &Uplink::new());
    let mut daemon = Daemon::start(&lab, &[]);
    for device in ["clat-up0", "clat-up1"] {
        daemon.wait_for(device, || {
            lab.run("host", &format!("ping -n -c 1 -W 1 -I {device} {SERVER}")).code == Some(0)
        });
    }
    lab.host("ip link set up0 down");
    daemon.wait_for("IPv4 by the other uplink", || {
        lab.run("host", &format!("ping -n -c 1 -W 1 {SERVER}")).code == Some(0)
    });
    daemon.stop(Signal::SIGTERM);
}

/// The border relay is the ISP's: it knows the service by an IPv6 address that it routes to the server.
#[test]
fn an_edge_relay() {
    let lab = raise("An edge relay", &Uplink::new().plat("2001:db8:46::/96"));
    let address = lab.host("ip -6 -o address show dev up0 scope link | sed 's/.*inet6 \\([^/]*\\).*/\\1/'");
    let device = lab
        .run("isp0", "ip -6 -o route show 3fff:1:0:1::/64")
        .ok("the link to the host");
    let device = device.split("dev ").nth(1).unwrap().split(' ').next().unwrap();
    lab.run(
        "isp0",
        &format!("ip -6 route add 2001:db8:1::10/128 via {} dev {device}", address.trim()),
    )
    .ok("the service's address is routed here");
    let mut daemon = Daemon::up(&lab, &[]);
    traffic::ping(&lab);
    assert!(lab.host("ip -4 -o address show").contains("198.51.100.10/32"));
    daemon.stop(Signal::SIGTERM);
}
