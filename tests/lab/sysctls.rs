//! Forwarding, accept_ra and proxy-ND: set where needed, restored to what they were.

use crate::bed::{DERIVED_V6, Lab, Uplink};
use crate::daemon::around;
use crate::traffic;

/// The fast path leaves all these sysctls alone, so nothing would be seen with it.
const USERSPACE: &str = "translator=userspace";

/// Whether packets to the CLAT are forwarded. Since Linux 6.17 clatd asks for that on the uplink alone.
fn forwards(lab: &Lab) -> bool {
    let shown = lab.host("cat /proc/sys/net/ipv6/conf/all/forwarding /proc/sys/net/ipv6/conf/up0/*forwarding");
    shown.lines().any(|line| line == "1")
}

/// The host stays an end system to its uplink: address, default route and RA acceptance survive.
#[test]
fn uplink_keeps_its_address_and_routes() {
    let lab = Lab::raise(&Uplink::new());
    let look =
        "ip -6 -o address show dev up0 scope global | cut -d' ' -f2-7; ip -6 route show default | sed 's/expires.*//'";
    let before = lab.host(look);
    around(&lab, &[USERSPACE], |_| {
        traffic::works(&lab);
        assert_eq!(lab.host(look), before);
        // A router that forwards must be told to go on accepting RAs.
        assert_eq!(lab.host("sysctl -n net.ipv6.conf.up0.accept_ra").trim(), "2");
        assert!(forwards(&lab), "nothing forwards");
    });
}

/// Whatever forwarding was before: traffic works, and it is so again afterwards.
#[test]
fn forwarding_as_found() {
    for setup in [
        "sysctl -qw net.ipv6.conf.up0.accept_ra=2 net.ipv6.conf.all.forwarding=1",
        "sysctl -qw net.ipv6.conf.up0.accept_ra=2 net.ipv6.conf.up0.forwarding=1",
        "sysctl -qw net.ipv6.conf.up0.accept_ra=2 net.ipv6.conf.default.forwarding=1",
        // RAs handled by a program, which adds the default route itself.
        "sysctl -qw net.ipv6.conf.up0.accept_ra=0 && set -- $(ip -6 route show default) && ip -6 route del default && ip -6 route add default via $3 dev up0 proto ra metric 512",
        "ip link add br9 type bridge && ip link set br9 up && sysctl -qw net.ipv6.conf.up0.accept_ra=2 net.ipv6.conf.br9.accept_ra=1 net.ipv6.conf.br9.forwarding=1",
        "! test -e /proc/sys/net/ipv6/conf/up0/force_forwarding || sysctl -qw net.ipv6.conf.up0.accept_ra=2 net.ipv6.conf.up0.force_forwarding=1",
    ] {
        let lab = Lab::raise(&Uplink::new());
        lab.host(setup);
        // Detection of duplicate addresses on a device made just now must not fall into the comparison.
        assert!(crate::bed::poll(std::time::Duration::from_secs(5), || !lab
            .host("ip -6 address")
            .contains("tentative")));
        eprintln!("{setup}");
        around(&lab, &[USERSPACE], |_| {
            traffic::works(&lab);
            assert!(forwards(&lab), "{setup}: nothing forwards");
        });
    }
}

/// `forwarding-enable=no`: the sysctls of forwarding are left alone, the rest is done.
#[test]
fn forwarding_may_be_left_out() {
    let lab = Lab::raise(&Uplink::new());
    let look = "grep . /proc/sys/net/ipv6/conf/all/*forwarding /proc/sys/net/ipv6/conf/up0/*forwarding /proc/sys/net/ipv6/conf/up0/accept_ra";
    let before = lab.host(look);
    let state = lab.state();
    let mut daemon = crate::daemon::Daemon::start(&lab, &[USERSPACE, "forwarding-enable=no"]);
    daemon.wait_until_running(&lab);
    assert_eq!(lab.host(look), before);
    daemon.stop(nix::sys::signal::Signal::SIGTERM);
    lab.assert_state_is(&state, "after the stop");

    // With forwarding set up by the administrator it works so, too.
    lab.host("sysctl -qw net.ipv6.conf.up0.accept_ra=2 net.ipv6.conf.all.forwarding=1");
    around(&lab, &[USERSPACE, "forwarding-enable=no"], |_| traffic::works(&lab));
}

#[test]
fn proxy_nd_claims_the_address() {
    let lab = Lab::raise(&Uplink::new());
    let words = ["proxynd-enable=yes", USERSPACE];
    around(&lab, &words, |_| {
        traffic::works(&lab);
        assert!(
            lab.host("ip -6 neigh show proxy")
                .contains(&format!("{DERIVED_V6} dev up0"))
        );
        assert_eq!(lab.host("sysctl -n net.ipv6.conf.up0.proxy_ndp").trim(), "1");
    });
    // Another's entry and the sysctl as another set it stay.
    lab.host("sysctl -qw net.ipv6.conf.up0.proxy_ndp=1 && ip -6 neigh add proxy 3fff:1:0:1::77 dev up0");
    around(&lab, &words, |_| traffic::ping(&lab));
}

/// Without it nobody answers for the address, unless the ISP routes it here.
#[test]
fn proxy_nd_may_be_left_out() {
    let lab = Lab::raise(&Uplink::new());
    lab.run(
        "isp0",
        &format!("ip -6 route add {DERIVED_V6}/128 via fe80::5eff:fe00:101 dev cust"),
    )
    .ok("a route to the CLAT");
    around(&lab, &[USERSPACE, "proxynd-enable=no"], |_| {
        traffic::works(&lab);
        assert_eq!(lab.host("ip -6 neigh show proxy"), "");
        assert_eq!(lab.host("sysctl -n net.ipv6.conf.up0.proxy_ndp").trim(), "0");
    });
}

/// Although the uplink forwards now, advertisements of its router still count.
#[test]
fn router_advertisements_still_count() {
    let lab = Lab::raise(&Uplink::new());
    let remaining = || {
        let route = lab.host("ip -6 route show default");
        let seconds = route
            .split_once("expires ")
            .and_then(|(_, rest)| rest.split_once("sec"));
        seconds
            .and_then(|(seconds, _)| seconds.parse::<u32>().ok())
            .expect("a default route that expires")
    };
    around(&lab, &[USERSPACE], |_| {
        assert!(forwards(&lab), "nothing forwards");
        std::thread::sleep(std::time::Duration::from_secs(3));
        assert!(remaining() < 3599);
        lab.advertise();
        assert!(
            crate::bed::poll(std::time::Duration::from_secs(10), || remaining() >= 3599),
            "the lifetime is renewed"
        );
        traffic::works(&lab);
    });
}

/// Reverse path filtering as distributions set it: loose, strict, and strict for new devices too.
#[test]
fn reverse_path_filter_of_the_host() {
    for setup in [
        "net.ipv4.conf.all.rp_filter=2",
        "net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1",
    ] {
        let lab = Lab::raise(&Uplink::new());
        lab.host(&format!("sysctl -qw {setup}"));
        around(&lab, &[USERSPACE], |_| traffic::works(&lab));
    }
}
