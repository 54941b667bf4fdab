//! Many uplinks from one line: sixteen of them, which cost nothing but a device each.

use std::fmt::Write as _;

use nix::sys::signal::Signal;

use crate::bed::{Lab, Uplink, poll};
use crate::daemon::Daemon;
use crate::home::{PATIENCE, running, says};

/// A host with sixteen more devices that look like uplinks.
fn sixteen() -> Lab {
    let lab = Lab::raise(&Uplink::new());
    let mut line = String::from("set -e;");
    for k in 0..16 {
        let _ = write!(
            line,
            "ip link add wwan{k} type veth peer name far{k}; ip link set far{k} addrgenmode none up;
             ip link set wwan{k} addrgenmode none up; ip address add 2001:db8:{k}::2/64 dev wwan{k} nodad;
             ip -6 route add default via 2001:db8:{k}::1 dev wwan{k} metric {};",
            2000 + k
        );
    }
    lab.host(&line);
    assert!(poll(PATIENCE, || !lab.host("ip -6 address").contains("tentative")));
    lab
}

/// RFC 7335 has eight addresses, of which one is the translators' own: seven instances run, each of the others says
/// what it lacks.
#[test]
fn sixteen_uplinks_are_more_than_the_rfc_7335_block_has_addresses() {
    let lab = sixteen();
    let mut daemon = Daemon::start(&lab, &["plat-dev=wwan*", "plat-prefix=64:ff9b::/96"]);
    running(&lab, &mut daemon, 7);
    says(&mut daemon, "no address of 192.0.0.0/29 (clat-v4-pool) is left");
    let said = daemon.output();
    let refused = said.lines().filter(|line| line.contains("cannot run")).count();
    assert_eq!(refused, 9, "each once:\n{said}");
    assert!(said.contains("clat-v4-pool to a larger prefix"), "{said}");

    // One that leaves makes room for one of those that had to wait.
    lab.host("ip link set wwan0 down");
    daemon.wait_for("its successor", || {
        lab.host("ip -o link").matches("clat-wwan").count() == 7
    });
    let ran = daemon.stop(Signal::SIGTERM);
    assert!(ran.out.len() + ran.err.len() < 100_000, "it does not flood the log");
    let after = crate::home::sorted_state(&lab);
    assert!(!after.iter().any(|line| line.contains("clat-wwan")), "{after:#?}");
    lab.assert_no_process_left("after the stop");
}

#[test]
fn sixteen_uplinks_run_with_a_larger_pool() {
    let lab = sixteen();
    let before = lab.state();
    let words = [
        "plat-dev=wwan*",
        "plat-prefix=64:ff9b::/96",
        "clat-v4-pool=100.64.46.0/24",
    ];
    let mut daemon = Daemon::start(&lab, &words);
    running(&lab, &mut daemon, 16);
    let rules = lab.host("ip -4 rule");
    for k in 0..16 {
        let address = format!("from 100.64.46.{} lookup", k + 1);
        assert!(rules.contains(&address), "{address}:\n{rules}");
    }
    // The best IPv6 default route's CLAT has the best IPv4 default route.
    let metrics: Vec<u32> = (0..16).map(|k| metric(&lab, &format!("clat-wwan{k}"))).collect();
    assert!(metrics.is_sorted(), "{metrics:?}");
    daemon.stop(Signal::SIGTERM);
    lab.assert_state_is(&before, "after the stop");
    lab.assert_no_process_left("after the stop");
}

fn metric(lab: &Lab, device: &str) -> u32 {
    let route = lab.host(&format!("ip -4 route show default dev {device}"));
    let mut words = route.split_whitespace().skip_while(|word| *word != "metric");
    words.nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}
