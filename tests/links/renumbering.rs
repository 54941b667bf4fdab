//! How long IPv4 is out when the network changes its prefixes while traffic runs.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::bed::{Lab, Uplink, poll};
use crate::meter::Meter;
use crate::{advertise, begin, fact, traffic};

in_both_modes!(
    a_deprecated_prefix_gives_way_to_a_new_one,
    a_stable_address_moves_with_its_prefix,
    a_withdrawn_plat_prefix_gives_way_to_a_new_one,
    a_further_prefix_moves_nothing
);

/// Far more than it takes, for the machine may be busy.
const LIMIT: f64 = 1.0;
const BEGIN: &str = "--pref64 64:ff9b::/96=600 --prefix 3fff:1:0:1::/64=86400,14400";

/// Runs with `before` advertised, then hears `after`, until `fact_name` begins with `then`; IPv4 is out only shortly.
fn changes(lab: &Lab, mode: &str, words: &[&str], after: &str, fact_name: &str, then: &str) {
    let words: Vec<&str> = [mode].iter().chain(words).copied().collect();
    let mut daemon = begin(lab, &words, BEGIN);
    let mut meter = Meter::start(lab);
    meter.wait_up();
    advertise(lab, after);
    daemon.wait_for(&format!("{fact_name} {then}"), || {
        fact(lab, fact_name).starts_with(then)
    });
    std::thread::sleep(Duration::from_secs(2));
    let gap = meter.longest_gap();
    eprintln!("{fact_name} becomes {then}: IPv4 is out for {gap:.3} s at most");
    assert!(meter.is_up(), "{}", daemon.output());
    assert!(gap > 0.0 && gap < LIMIT, "{gap}\n{}", daemon.output());
    traffic::works(lab);
    daemon.stop(Signal::SIGTERM);
}

fn lab() -> Lab {
    let uplink = Uplink::new().plat("64:ff9b::/96").plat("2001:db8:64::/96");
    let lab = Lab::raise(&uplink.without_dns64().silent_router());
    lab.run("isp0", "ip -6 addr add 3fff:1:0:2::1/64 dev cust nodad")
        .ok("the second prefix");
    lab
}

/// The new prefix comes with the word that the old one is deprecated (RFC 4862 section 5.5.4).
fn a_deprecated_prefix_gives_way_to_a_new_one(mode: &str) {
    let after = "--pref64 64:ff9b::/96=600 --prefix 3fff:1:0:1::/64=86400,0 --prefix 3fff:1:0:2::/64=86400,14400";
    changes(&lab(), mode, &[], after, "clat_v6_addr", "3fff:1:0:2:");
}

/// Nothing takes longer with an identifier that depends on the prefix.
fn a_stable_address_moves_with_its_prefix(mode: &str) {
    let after = "--pref64 64:ff9b::/96=600 --prefix 3fff:1:0:1::/64=86400,0 --prefix 3fff:1:0:2::/64=86400,14400";
    changes(
        &lab(),
        mode,
        &["clat-v6-addr=stable"],
        after,
        "clat_v6_addr",
        "3fff:1:0:2:",
    );
}

fn a_withdrawn_plat_prefix_gives_way_to_a_new_one(mode: &str) {
    let after = "--pref64 64:ff9b::/96=0 --pref64 2001:db8:64::/96=600 --prefix 3fff:1:0:1::/64=86400,14400";
    changes(&lab(), mode, &[], after, "plat_prefix", "2001:db8:64:");
}

/// One that is as good as the first: connections live on.
fn a_further_prefix_moves_nothing(mode: &str) {
    let lab = lab();
    let mut daemon = begin(&lab, &[mode], BEGIN);
    let address = fact(&lab, "clat_v6_addr");
    advertise(&lab, &format!("{BEGIN} --prefix 3fff:1:0:2::/64=86400,14400"));
    let both = "ip -6 -o address show dev up0 scope global -tentative | wc -l";
    assert!(poll(Duration::from_secs(10), || lab.host(both).trim() == "2"));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(fact(&lab, "clat_v6_addr"), address);
    daemon.stop(Signal::SIGTERM);
}
