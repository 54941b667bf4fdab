//! How long it takes from the first router advertisement to the first IPv4 packet that is answered.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::bed::{Lab, Uplink, poll};
use crate::daemon::{Daemon, is_in_state};
use crate::meter::Meter;
use crate::{advertise, fact};
use nix::sys::signal::Signal;

/// What a router of an IPv6-only network says: all of it in one advertisement.
const EVERYTHING: &str = "--pref64 64:ff9b::/96=600 --prefix 3fff:1:0:1::/64=86400,14400";
/// Far more than it takes where nothing makes us wait, for the machine may be busy, but less than the second of duplicate
/// address detection.
const LIMIT: Duration = Duration::from_millis(1000);
const ROUNDS: usize = 3;

/// The moments at which the daemon writes lines with these words, in seconds after `begin`.
fn moments(daemon: &Daemon, begin: f64, words: &[&str], limit: Duration) -> Vec<(String, f64)> {
    let mut seen: Vec<(String, f64)> = Vec::new();
    let mut written = daemon.output().len();
    let end = SystemTime::now() + limit;
    while SystemTime::now() < end {
        let output = daemon.output();
        for line in output[written..]
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
        {
            written += line.len();
            let word = words.iter().find(|word| line.contains(**word));
            seen.extend(word.map(|word| ((*word).to_owned(), now() - begin)));
        }
        if seen.iter().any(|(word, _)| Some(&word.as_str()) == words.first()) {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    seen
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// Seconds from the advertisement `said` to the first answer.
fn first_packet(uplink: Uplink, said: &str) -> f64 {
    let lab = Lab::raise(&uplink.silent_router());
    let link_local = "ip -o -6 address show dev up0 scope link -tentative | grep -q fe80";
    assert!(poll(Duration::from_secs(10), || lab.run("host", link_local).code == Some(0)));
    let mut daemon = Daemon::start(&lab, &["when-idle=wait", "debug=1"]);
    daemon.wait_for("it is idle", || idle(&lab));
    let mut meter = Meter::start(&lab);
    let begin = advertise(&lab, said);
    let words = [" is up: ", "state Observing", "state Applying"];
    let phases = moments(&daemon, begin, &words, Duration::from_secs(20));
    let first = meter.wait_up() - begin;
    eprintln!("first answer after {first:.3} s; {phases:.3?}");
    let address = fact(&lab, "clat_v6_addr");
    assert!(address.starts_with("3fff:1:0:1:"), "{address}");
    // The kernel's own address has ended its duplicate address detection meanwhile: nothing may come of that.
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(fact(&lab, "clat_v6_addr"), address);
    assert_eq!(meter.outages(), [0.0; 0], "{}", daemon.output());
    daemon.stop(Signal::SIGTERM);
    first
}

fn idle(lab: &Lab) -> bool {
    is_in_state(lab, "idle")
}

fn median(uplink: &Uplink, said: &str) -> f64 {
    let mut took: Vec<f64> = (0..ROUNDS).map(|_| first_packet(uplink.clone(), said)).collect();
    took.sort_by(f64::total_cmp);
    eprintln!("median {:.3} s of {took:.3?}", took[ROUNDS / 2]);
    took[ROUNDS / 2]
}

#[test]
fn ipv4_works_soon_after_the_first_advertisement() {
    let took = median(&Uplink::new().without_dns64(), EVERYTHING);
    assert!(took < LIMIT.as_secs_f64(), "{took}");
}

/// The resolver is on the router here, so it can be asked from the link-local address while the kernel still does duplicate
/// address detection of the other one. A resolver farther away would have to wait for that, one to two seconds.
#[test]
fn a_prefix_that_only_dns_tells_takes_no_longer() {
    let said = "--prefix 3fff:1:0:1::/64=86400,14400 --rdnss 3fff:1::53=600";
    let took = median(&Uplink::new(), said);
    assert!(took < LIMIT.as_secs_f64(), "{took}");
}
