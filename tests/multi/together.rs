//! Several instances on one uplink, and several with a shared address.

use nix::sys::signal::Signal;

use crate::bed::{DERIVED_V6, SERVER, Uplink};
use crate::home::{
    EVERY_UPLINK, device, in_state, instance, leaves_by, no_instance, raise, sorted_state, start, status_of, stop, tool,
};

fn address(lab: &crate::bed::Lab, name: &str) -> String {
    let status = status_of(lab, name);
    status["facts"]["clat_v6_addr"]["value"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// Two derive their address from the same one: each gets its own, and keeps it when the other ends.
#[test]
fn two_on_one_uplink_have_addresses_of_their_own() {
    let lab = raise(&[Uplink::new().plat("64:ff9b::/96").plat("2001:db8:64::/96")]);
    instance(&lab, "one", "plat-dev=up0\n");
    instance(&lab, "two", "plat-dev=up0\nplat-prefix=2001:db8:64::/96\n");
    let before = sorted_state(&lab);
    let mut daemon = start(&lab, &[], 2);
    let addresses = ["one", "two"].map(|name| address(&lab, name));
    assert!(
        addresses.iter().all(|address| address.starts_with("3fff:1:0:1:")),
        "{addresses:?}"
    );
    assert_ne!(addresses[0], addresses[1]);
    assert!(addresses.contains(&DERIVED_V6.to_owned()), "{addresses:?}");
    for device in ["clat-one", "clat-two"] {
        lab.host(&format!("ping -n -c 2 -i 0.2 -W 2 -I {device} {SERVER}"));
        let download = format!("curl -sSf -m 20 --interface {device} http://{SERVER}/blob?size=1000000 -o /dev/null");
        lab.host(&download);
    }

    // Whoever has the derived address leaves; the other one stays what it is.
    let (leaves, stays) = if addresses[0] == DERIVED_V6 {
        ("one", "two")
    } else {
        ("two", "one")
    };
    no_instance(&lab, leaves);
    tool(&lab, &["reload"]).ok("clatd reload");
    daemon.wait_for("one instance", || in_state(&lab, "running") == [stays]);
    lab.host(&format!("ping -n -c 25 -i 0.1 -W 2 -I clat-{stays} {SERVER}"));
    assert_ne!(address(&lab, stays), DERIVED_V6);

    // The address is free for the next one.
    instance(&lab, "three", "plat-dev=up0\n");
    tool(&lab, &["reload"]).ok("clatd reload");
    daemon.wait_for("a third instance", || in_state(&lab, "running").len() == 2);
    assert_eq!(address(&lab, "three"), DERIVED_V6);
    lab.host(&format!("ping -n -c 2 -W 2 -I clat-three {SERVER}"));
    stop(&lab, &mut daemon, &before, &[]);
}

/// So it is with addresses that are joined, and after a kill.
#[test]
fn two_joined_addresses_on_one_uplink() {
    let lab = raise(&[Uplink::new()]);
    for name in ["one", "two"] {
        instance(&lab, name, "plat-dev=up0\nnd=anycast\n");
    }
    let before = sorted_state(&lab);
    start(&lab, &[], 2).kill();
    let mut daemon = start(&lab, &[], 2);
    assert_ne!(address(&lab, "one"), address(&lab, "two"));
    for device in ["clat-one", "clat-two"] {
        lab.host(&format!("ping -n -c 2 -i 0.2 -W 2 -I {device} {SERVER}"));
    }
    // The first that leaves must not move the rule of the local table back under the other.
    no_instance(&lab, "one");
    tool(&lab, &["reload"]).ok("clatd reload");
    daemon.wait_for("one instance", || in_state(&lab, "running") == ["two"]);
    lab.host(&format!("ping -n -c 2 -W 2 -I clat-two {SERVER}"));
    daemon.stop(Signal::SIGTERM);
    crate::home::assert_same(&lab, &before, &[], "after the stop");
}

/// Each uplink has one address, which the CLAT and the host share.
#[test]
fn several_share_the_addresses_of_their_uplinks() {
    let lab = raise(&[Uplink::new(), Uplink::new()]);
    let before = sorted_state(&lab);
    for translator in ["translator=ebpf", "translator=userspace"] {
        let mut daemon = start(&lab, &[EVERY_UPLINK, "clat-v6-addr=shared", translator], 2);
        leaves_by(&lab, Some(&device(0)), 0);
        leaves_by(&lab, Some(&device(1)), 1);
        stop(&lab, &mut daemon, &before, &[]);
    }
}

/// Two with different PLATs share the one address of their uplink.
#[test]
fn two_on_one_uplink_share_its_address() {
    let lab = raise(&[Uplink::new().plat("64:ff9b::/96").plat("2001:db8:64::/96")]);
    instance(&lab, "one", "plat-dev=up0\nplat-prefix=64:ff9b::/96\n");
    instance(&lab, "two", "plat-dev=up0\nplat-prefix=2001:db8:64::/96\n");
    let before = sorted_state(&lab);
    let words = ["clat-v6-addr=shared", "translator=ebpf"];
    let mut daemon = start(&lab, &words, 2);
    for name in ["one", "two"] {
        lab.host(&format!("ping -n -c 2 -i 0.2 -W 2 -I clat-{name} {SERVER}"));
    }
    no_instance(&lab, "one");
    tool(&lab, &["reload"]).ok("clatd reload");
    daemon.wait_for("one instance", || in_state(&lab, "running") == ["two"]);
    lab.host(&format!("ping -n -c 2 -i 0.2 -W 2 -I clat-two {SERVER}"));
    stop(&lab, &mut daemon, &before, &[]);
}
