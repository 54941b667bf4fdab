//! Devices that are renamed, and what new devices are born with.

use nix::sys::signal::Signal;

use crate::bed::{Lab, Uplink};
use crate::daemon::{Daemon, clatd};
use crate::{fact, traffic};

in_both_modes!(an_uplink_that_is_renamed_stays_the_uplink);

/// The translator that needs forwarding and a proxy neighbour entry.
const USERSPACE: &str = "translator=userspace";

/// What clatd may change of a device.
fn sysctls(lab: &Lab, device: &str) -> String {
    lab.host(&format!(
        "cd /proc/sys/net/ipv6; for key in forwarding force_forwarding accept_ra proxy_ndp; do \
         ! test -e conf/{device}/$key || echo $key $(cat conf/{device}/$key); done; cat neigh/{device}/proxy_delay"
    ))
}

/// Another device with the old name, set as clatd would set it: it is nobody's business but its owner's.
fn somebody_takes_the_name(lab: &Lab) -> String {
    lab.host(
        "ip link add up0 type bridge; cd /proc/sys/net/ipv6; echo 2 >conf/up0/accept_ra; echo 1 >conf/up0/proxy_ndp; \
         echo 1 >conf/up0/forwarding; ! test -e conf/up0/force_forwarding || echo 1 >conf/up0/force_forwarding; \
         echo 0 >neigh/up0/proxy_delay",
    );
    sysctls(lab, "up0")
}

/// The uplink is renamed while the CLAT runs on it: it goes on, and leaves the device as it was.
fn an_uplink_that_is_renamed_stays_the_uplink(when_idle: &str) {
    for (named, translator) in [("plat-dev=up0", "translator=auto"), ("discovery=dns", USERSPACE)] {
        let lab = Lab::raise(&Uplink::new());
        let before = sysctls(&lab, "up0");
        let words = [when_idle, named, translator];
        let mut daemon = Daemon::up(&lab, &words);
        assert_eq!(sysctls(&lab, "up0") != before, translator == USERSPACE);
        lab.host("ip link set up0 name enp1s0");
        let of_another = somebody_takes_the_name(&lab);
        // Where any device begins to forward the kernel drops the default routes of router advertisements.
        lab.advertise();
        daemon.wait_for("uplink of the new name", || fact(&lab, "uplink").contains("\"enp1s0\""));
        daemon.wait_until_running(&lab);
        traffic::works(&lab);
        let proxied = lab.host("ip -6 neigh show proxy");
        assert_eq!(proxied.contains("dev enp1s0"), translator == USERSPACE, "{proxied}");
        daemon.stop(Signal::SIGTERM);
        assert_eq!(sysctls(&lab, "enp1s0"), before, "{words:?}");
        assert_eq!(sysctls(&lab, "up0"), of_another, "{words:?}");
        assert_eq!(lab.host("ip -6 neigh show proxy"), "");
        assert_eq!(
            lab.host("ip route show table all proto 46; ip -6 route show table all proto 46"),
            ""
        );
    }
}

/// The same after `kill -9`: the journal knows the device, not its name alone.
#[test]
fn an_uplink_that_is_renamed_after_a_kill_is_cleaned_up() {
    let lab = Lab::raise(&Uplink::new());
    let before = sysctls(&lab, "up0");
    let rules = lab.host("ip -4 rule; ip -6 rule");
    Daemon::up(&lab, &[USERSPACE]).kill();
    assert_ne!(sysctls(&lab, "up0"), before);
    lab.host("ip link set up0 name enp1s0");
    let of_another = somebody_takes_the_name(&lab);
    clatd(&lab, &["cleanup"]).ok("clatd cleanup");
    assert_eq!(sysctls(&lab, "enp1s0"), before);
    assert_eq!(sysctls(&lab, "up0"), of_another);
    assert_eq!(lab.host("ip -4 rule; ip -6 rule"), rules);
    assert_eq!(lab.host("ip -6 neigh show proxy"), "");
    assert_eq!(lab.host("ip -6 route show table all proto 46"), "");
}

/// Defaults of the host that would leave a new device without IPv6, or drop what comes in by it.
#[test]
fn the_clat_device_depends_on_no_default() {
    let lab = Lab::raise(&Uplink::new());
    lab.host(
        "cd /proc/sys/net; for key in disable_ipv6=1 accept_ra=0 addr_gen_mode=3 accept_dad=2 mtu=1280 autoconf=0; do \
         echo ${key#*=} >ipv6/conf/default/${key%=*}; done; \
         echo 1 >ipv4/conf/default/rp_filter; echo 1 >ipv4/conf/all/rp_filter",
    );
    let before = lab.state();
    let mut daemon = Daemon::up(&lab, &[]);
    traffic::works(&lab);
    daemon.stop(Signal::SIGTERM);
    lab.assert_state_is(&before, "after the stop");
}

/// Where the uplink has no IPv6 at all, that is what is said, and what is set when it comes back.
#[test]
fn a_host_without_ipv6_is_told_so() {
    let lab = Lab::raise(&Uplink::new());
    lab.host("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
    for (words, said) in [
        (&["plan"][..], "net.ipv6.conf.all.disable_ipv6=1"),
        (&["plan", "plat-dev=up0"], "net.ipv6.conf.up0.disable_ipv6=1"),
    ] {
        let ran = clatd(&lab, words);
        assert!(ran.out.contains(said) || ran.err.contains(said), "{words:?}: {ran}");
    }
    // Only the uplink gets it back, as where IPv6 is allowed for one device.
    let mut daemon = Daemon::start(&lab, &["when-idle=wait"]);
    daemon.wait_for("word of that", || daemon_said(&lab));
    lab.host("sysctl -qw net.ipv6.conf.lo.disable_ipv6=0 net.ipv6.conf.up0.disable_ipv6=0");
    lab.advertise();
    daemon.wait_until_running(&lab);
    traffic::works(&lab);
    daemon.stop(Signal::SIGTERM);
}

fn daemon_said(lab: &Lab) -> bool {
    lab.read("clatd.err").contains("net.ipv6.conf.all.disable_ipv6=1")
}
