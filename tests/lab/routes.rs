//! IPv4 default routes: ours, and those of others.

use crate::bed::{Lab, SERVER, Uplink};
use crate::daemon::{around, clatd};
use crate::traffic;

with_each_translator!(replaced_routes_come_back_exactly);

/// IPv4 is there already: said, exit 0, nothing touched.
#[test]
fn native_ipv4_means_no_clat() {
    let lab = Lab::raise(&Uplink::new().native_v4());
    let before = lab.state();
    let ran = clatd(&lab, &[]);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert!(format!("{}{}", ran.out, ran.err).contains("IPv4"), "says why: {ran}");
    lab.assert_state_is(&before, "after a start beside native IPv4");
    traffic::ping(&lab);
}

/// The check may be turned off; the CLAT's route then stands behind the native one.
#[test]
fn without_the_check_the_clat_stands_behind() {
    let lab = Lab::raise(&Uplink::new().native_v4());
    around(&lab, &["v4-conncheck-enable=no"], |daemon| {
        daemon.wait_for("a second default route", || {
            lab.host("ip -4 route show default").contains("dev clat")
        });
        assert!(lab.host(&format!("ip -4 route get {SERVER}")).contains("dev up0"));
        lab.host(&format!("ping -n -c 1 -W 2 -I clat {SERVER}"));
    });
}

/// Default routes with every attribute that may be set by hand: away while clatd runs, back in the same order after.
fn replaced_routes_come_back_exactly(translator: &str) {
    let lab = Lab::raise(&Uplink::new().native_v4());
    for route in [
        "add default via 192.168.0.3 dev up0 metric 100 mtu 1400 src 192.168.0.2",
        // The same metric twice: the order tells which is used.
        "append default via 192.168.0.5 dev up0 metric 100 advmss 1300",
        "append default via 192.168.0.4 dev up0 metric 100 mtu lock 1450",
        "add default dev up0 scope link metric 300 proto static initcwnd 20 initrwnd 30",
        "add default metric 400 proto 55 nexthop via 192.168.0.7 dev up0 weight 3 nexthop via 192.168.0.8 dev up0 weight 1",
        "add default via 10.9.9.9 dev up0 onlink metric 500 rtt 100ms rto_min 200ms quickack 1 congctl reno",
        "add default via inet6 fe80::1 dev up0 metric 600",
        "add default via 192.168.0.6 dev up0 metric 700 tos 0x10 realm 7",
        "add unreachable default metric 4000",
        // Not of the main table: none of clatd's business.
        "add default via 192.168.0.1 dev up0 table 77",
    ] {
        let ran = lab.run("host", &format!("ip -4 route {route}"));
        // A kernel may be built without an attribute; the route must not be lost for the others.
        assert!(
            ran.code == Some(0) || route.contains("realm") || route.contains("congctl"),
            "{route}: {ran}"
        );
    }
    around(
        &lab,
        &[&format!("translator={translator}"), "v4-defaultroute-replace=yes"],
        |_| {
            traffic::works(&lab);
            let shown = lab.host("ip -4 route show default");
            assert!(
                shown
                    .lines()
                    .filter(|line| line.starts_with("default"))
                    .all(|line| line.contains("dev clat")),
                "only ours:\n{shown}"
            );
            assert!(
                lab.host("ip -4 route show table 77").contains("192.168.0.1"),
                "other tables stay"
            );
        },
    );
    traffic::ping(&lab);
}

#[test]
fn route_attributes_are_settings() {
    let lab = Lab::raise(&Uplink::new());
    for (words, want) in [
        (
            &["v4-defaultroute-metric=77", "v4-defaultroute-mtu=1400"][..],
            &["metric 77 ", "mtu 1400 ", "advmss 1360"][..],
        ),
        (
            &["v4-defaultroute-advmss=1000"],
            &["metric 2048 ", "mtu 1480 ", "advmss 1000"],
        ),
        (
            &[
                "v4-defaultroute-mtu=0",
                "v4-defaultroute-advmss=0",
                "v4-defaultroute-metric=0",
            ],
            &["default dev clat"],
        ),
    ] {
        around(&lab, words, |_| {
            traffic::ping(&lab);
            let route = lab.host("ip -4 route show default");
            for part in want {
                assert!(
                    format!("{} ", route.trim()).contains(part),
                    "{words:?}: {part:?} in {route:?}"
                );
            }
            if words.contains(&"v4-defaultroute-mtu=0") {
                assert!(
                    !route.contains("mtu") && !route.contains("advmss") && !route.contains("metric"),
                    "{route:?}"
                );
            }
        });
    }
}

/// `v4-defaultroute-enable=no`: no default route; the administrator's own route into the device works.
#[test]
fn default_route_may_be_left_out() {
    let lab = Lab::raise(&Uplink::new());
    let before = lab.state();
    let mut daemon = crate::daemon::Daemon::start(&lab, &["v4-defaultroute-enable=no"]);
    daemon.wait_until_running(&lab);
    assert_eq!(lab.host("ip -4 route show default"), "");
    lab.host(&format!("ip -4 route add {SERVER} dev clat"));
    traffic::ping(&lab);
    daemon.stop(nix::sys::signal::Signal::SIGINT);
    lab.assert_state_is(&before, "after the stop");
}
