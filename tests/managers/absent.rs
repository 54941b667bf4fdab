//! Whoever is not there, or does not answer, or manages other links, changes nothing and costs next to no time.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bed::{Lab, Uplink};
use crate::daemon::{Daemon, clatd};
use crate::home;
use crate::service::{Service, resolvectl_dns};
use crate::{OTHER, discovered, two_prefixes};

const PREFIX: &str = "64:ff9b::/96";

/// An uplink whose resolver is known to /etc/resolv.conf alone.
fn lab() -> Lab {
    Lab::raise(&Uplink::new().without_rdnss())
}

fn told_by_the_system() -> (String, String) {
    (PREFIX.to_owned(), "DNS64 of the system's resolver".to_owned())
}

#[test]
fn without_a_bus_everything_works() {
    let lab = lab();
    assert_eq!(discovered(&lab), told_by_the_system());
    let daemon = Daemon::up(&lab, &["plat-dev=up0", "debug=1"]);
    let said = daemon.output();
    assert!(said.contains("cannot ask the system's D-Bus for DNS servers"), "{said}");
}

#[test]
fn a_bus_without_managers_is_no_error() {
    let lab = lab();
    let _bus = Service::bus(&lab);
    assert_eq!(discovered(&lab), told_by_the_system());
    let daemon = Daemon::up(&lab, &["plat-dev=up0", "debug=1"]);
    let said = daemon.output();
    for who in ["systemd-resolved", "NetworkManager"] {
        assert!(said.contains(&format!("{who} tells no DNS servers")), "{said}");
    }
}

/// The quickest of some dry runs, in each of which somebody is asked who does not answer.
fn quickest(lab: &Lab, silent: Option<&str>) -> Duration {
    let runs = (0..4).map(|_| {
        let begin = Instant::now();
        let run = clatd(lab, &["plan", "--json", "plat-dev=up0", "discovery=dns", "debug=1"]);
        let took = begin.elapsed();
        if let Some(who) = silent {
            assert!(run.err.contains(&format!("{who} does not answer")), "{}", run.err);
        }
        let plan: Value = serde_json::from_str(&run.ok("clatd plan")).unwrap();
        assert_eq!(plan["instances"][0]["facts"]["plat_prefix"]["value"], PREFIX, "{plan}");
        took
    });
    runs.min().unwrap()
}

/// A service that hangs, and then a bus that hangs: each is waited for by half a second at most. D-Bus itself would wait for
/// 25 s. A busy machine may take longer for all else.
#[test]
fn what_hangs_is_waited_for_shortly() {
    const LIMIT: Duration = Duration::from_millis(1500);
    let lab = lab();
    let alone = quickest(&lab, None);
    let bus = Service::bus(&lab);
    let resolved = Service::resolved(&lab, "host");
    resolvectl_dns(&lab, "host", "up0", &["3fff:1::66"]);
    resolved.hang();
    let waited = quickest(&lab, Some("systemd-resolved")).saturating_sub(alone);
    assert!(waited < LIMIT, "a service that hangs costs {waited:?}");
    bus.hang();
    let waited = quickest(&lab, Some("the system's D-Bus")).saturating_sub(alone);
    assert!(waited < LIMIT, "a bus that hangs costs {waited:?}");
}

/// While a manager does not answer, its last answer for an uplink stays valid; otherwise clatd would ask the resolver
/// of resolv.conf, which gives a wrong prefix here. A manager that does not answer is not waited for again and again.
#[test]
fn what_hangs_or_goes_leaves_what_was_known() {
    let lab = Lab::raise(&two_prefixes());
    let bus = Service::bus(&lab);
    let resolved = Service::resolved(&lab, "host");
    resolvectl_dns(&lab, "host", "up0", &["3fff:1::61"]);
    let mut daemon = Daemon::up(&lab, &["plat-dev=up0", "when-idle=wait", "debug=1"]);
    let said = |what: &str| lab.read("clatd.err").matches(what).count();

    resolved.hang();
    lab.host("ip address add 198.51.100.1/32 dev up0");
    // NetworkManager, which is not there, is asked at each look.
    let looks = said("NetworkManager tells no DNS servers");
    daemon.wait_for("a look in vain", || said("systemd-resolved does not answer") > 0);
    lab.host("ip address add 198.51.100.2/32 dev up0");
    daemon.wait_for("more looks", || said("NetworkManager tells no DNS servers") > looks + 1);
    assert_eq!(said("systemd-resolved does not answer"), 1, "{}", daemon.output());

    drop(bus);
    daemon.wait_for("a look without a bus", || said("cannot ask the system's D-Bus") > 0);
    assert_eq!(said("2001:db8:bad"), 0, "{}", daemon.output());
    assert_eq!(said("state Unwinding"), 0, "{}", daemon.output());

    // All of it comes back.
    drop(resolved);
    std::fs::remove_file(lab.file("bus")).unwrap();
    let _bus = Service::bus(&lab);
    let _resolved = Service::resolved(&lab, "host");
    resolvectl_dns(&lab, "host", "up0", &["3fff:1::62"]);
    lab.host("ip address del 198.51.100.2/32 dev up0");
    let now = || home::status(&lab)["instances"][0]["facts"]["plat_prefix"]["value"].clone();
    daemon.wait_for("what the new one says", || now() == OTHER);
}

/// The bus reaches over network namespaces; a link there that has the index of our uplink is another one.
#[test]
fn a_manager_of_another_network_is_not_listened_to() {
    let lab = lab();
    let _bus = Service::bus(&lab);
    let _resolved = Service::resolved(&lab, "isp0");
    let index = lab.host("ip -j link show up0");
    let index: Value = serde_json::from_str(&index).unwrap();
    let index = index[0]["ifindex"].to_string();
    lab.run(
        "isp0",
        &format!("ip link add same{index} index {index} type veth 2>/dev/null || ip -o link | grep '^{index}:'"),
    )
    .ok("a device of the same index");
    lab.run(
        "isp0",
        &format!("ip link set $(ip -o link | sed -nE 's/^{index}: ([^:@]+).*/\\1/p') up"),
    )
    .ok("it is up");
    resolvectl_dns(&lab, "isp0", &index, &["3fff:1::66"]);
    assert_eq!(discovered(&lab), told_by_the_system());
    let said = clatd(&lab, &["plan", "plat-dev=up0", "debug=1"]);
    assert!(said.err.contains("another network namespace"), "{said}");
}

/// A resolver on this host has one cache for all uplinks.
#[test]
fn a_resolver_on_this_host_is_asked_only_where_there_is_no_other() {
    let lab = lab();
    let plan = || clatd(&lab, &["plan", "plat-dev=up0", "debug=1"]);
    let asked = "asking ::1 on this host about up0";
    lab.host("echo nameserver ::1 >>/etc/resolv.conf");
    let both = plan();
    assert!(!both.err.contains(asked) && both.out.contains(PREFIX), "{both}");
    lab.host("echo nameserver ::1 >/etc/resolv.conf");
    let alone = plan();
    assert!(alone.err.contains(asked) && !alone.out.contains(PREFIX), "{alone}");
    // Without a named uplink, the resolver on this host is asked like any other.
    let unnamed = clatd(&lab, &["plan", "debug=1"]);
    assert!(!unnamed.err.contains(asked) && unnamed.out.contains("::1"), "{unnamed}");
}
