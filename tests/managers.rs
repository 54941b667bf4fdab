//! The real systemd-resolved and NetworkManager on a bus of the lab's own, and clatd that asks them for the DNS servers
//! of its uplinks. Needs what tests/lab.rs needs, and the programs that `./scripts/test` unpacks.
#![cfg(feature = "dbus")]
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on panics; the lab's modules are shared with tests/lab.rs"
)]

#[path = "lab/bed.rs"]
mod bed;
#[path = "lab/daemon.rs"]
mod daemon;
#[path = "multi/home.rs"]
mod home;
#[path = "managers/service.rs"]
mod service;

#[path = "managers/absent.rs"]
mod absent;
#[path = "managers/network_manager.rs"]
mod network_manager;
#[path = "managers/resolved.rs"]
mod resolved;

use std::time::{Duration, Instant};

use bed::{Lab, Uplink};
use daemon::{Daemon, clatd};
use serde_json::Value;

/// What the resolver of /etc/resolv.conf synthesises with, though no PLAT is there.
const LIE: &str = "2001:db8:bad::/96";

/// An uplink whose routers advertise no resolver, on a host whose resolv.conf names one that lies.
fn uplink() -> Uplink {
    Uplink::new().without_rdnss().dns64(LIE)
}

/// What the resolver of an uplink that is asked first tells.
const GOOD: &str = "2001:db8:64::/96";
/// What another one tells.
const OTHER: &str = "2001:db8:65::/96";

/// Such an uplink with a resolver for each of the two: 3fff:1::61 and 3fff:1::62.
fn two_prefixes() -> Uplink {
    uplink()
        .plat(GOOD)
        .plat(OTHER)
        .resolver("3fff:1::61", Some(GOOD))
        .resolver("3fff:1::62", Some(OTHER))
}

/// The prefix of the one uplink and who told it, as `clatd discover` says.
fn discovered(lab: &Lab) -> (String, String) {
    let text = clatd(lab, &["discover", "--json", "up0"]).ok("clatd discover");
    let document: Value = serde_json::from_str(&text).unwrap();
    let prefix = &document["uplinks"][0]["prefixes"][0];
    let word = |key: &str| prefix[key].as_str().unwrap_or_default().to_owned();
    (word("prefix"), word("source"))
}

/// Does `change`, and waits for `what` to come of it. That must be sooner than anybody would look again unasked.
fn follows(daemon: &mut Daemon, what: &str, change: impl FnOnce(), answer: impl FnMut() -> bool) {
    const SOON: Duration = Duration::from_secs(8);
    let told = |daemon: &Daemon| daemon.output().matches("DNS servers of links have changed").count();
    let before = told(daemon);
    let begin = Instant::now();
    change();
    daemon.wait_for(what, answer);
    assert!(begin.elapsed() < SOON, "{what} took {:?}", begin.elapsed());
    assert!(told(daemon) > before, "{}", daemon.output());
}

/// The prefix of a running instance.
fn prefix(lab: &Lab, instance: &str) -> String {
    let status = home::status_of(lab, instance);
    status["facts"]["plat_prefix"]["value"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}
