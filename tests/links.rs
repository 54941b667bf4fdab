//! Links that other CLATs fail on, in the lab: the prefix in router advertisements only, single addresses, neighbours
//! that have the address, prefixes that change. Needs what tests/lab.rs needs.
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
#[path = "lab/traffic.rs"]
mod traffic;

#[macro_use]
#[path = "support/both_modes.rs"]
mod both_modes;
#[path = "links/addresses.rs"]
mod addresses;
#[path = "links/advertisements.rs"]
mod advertisements;
#[path = "links/doctor.rs"]
mod doctor;
#[path = "links/first_packet.rs"]
mod first_packet;
#[path = "links/hostile.rs"]
mod hostile;
#[path = "links/meter.rs"]
mod meter;
#[path = "links/neighbours.rs"]
mod neighbours;
#[path = "links/pd.rs"]
mod pd;
#[path = "links/plat.rs"]
mod plat;
#[path = "links/renaming.rs"]
mod renaming;
#[path = "links/renumbering.rs"]
mod renumbering;

use bed::Lab;
use serde_json::Value;

/// The only instance, as `clatd status --json` tells of it.
fn status(lab: &Lab) -> Value {
    let text = daemon::clatd(lab, &["status", "--json"]).ok("clatd status --json");
    let document: Value = serde_json::from_str(&text).unwrap();
    document["instances"][0].clone()
}

/// A fact's value.
fn fact(lab: &Lab, name: &str) -> String {
    match &status(lab)["facts"][name]["value"] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The ISP's router says something that radvd cannot say; returns when, in seconds since 1970.
fn advertise(lab: &Lab, words: &str) -> f64 {
    let ran = lab.run("isp0", &format!("{SCRIPT} advertise cust {words}"));
    let time = ran.ok("the advertisement is sent");
    time.trim().parse().expect("the time of sending")
}

/// The ISP's router, ready to say something at once: it has 3 s in [`begin`], and Python takes long to start on a busy
/// machine.
struct Ready(std::process::Child, std::io::BufReader<std::process::ChildStdout>);

impl Ready {
    fn start(lab: &Lab, said: &str) -> Self {
        use std::process::Stdio;
        let mut command = lab.command("isp0");
        command.arg(SCRIPT).args(["advertise", "cust", "--when-told"]);
        command.args(said.split_whitespace());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (said, rest) = first_line(child.stdout.take().unwrap());
        assert_eq!(said, "ready");
        Self(child, rest)
    }

    fn advertise(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success(), "the advertisement is sent");
    }
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lab-net.py");

/// The first line that a program of ours writes, and the rest.
fn first_line<T: std::io::Read>(from: T) -> (String, std::io::BufReader<T>) {
    use std::io::BufRead;
    let (mut from, mut line) = (std::io::BufReader::new(from), String::new());
    from.read_line(&mut line).unwrap();
    (line.trim_end().to_owned(), from)
}

/// Starts a daemon that learns all it needs from this advertisement. With `when-idle=exit` the router speaks before
/// the daemon looks: it would end otherwise.
fn begin(lab: &Lab, words: &[&str], said: &str) -> daemon::Daemon {
    let exits = words.contains(&"when-idle=exit");
    let delay: &[&str] = if exits { &["v4-conncheck-delay=3"] } else { &[] };
    let words: Vec<&str> = words.iter().chain(delay).copied().collect();
    let router = Ready::start(lab, said);
    let mut daemon = daemon::Daemon::start(lab, &words);
    let waits = bed::poll(std::time::Duration::from_secs(20), || {
        daemon.output().contains("waiting 3 s") || daemon::is_in_state(lab, "idle")
    });
    assert!(waits, "{}", daemon.output());
    router.advertise();
    daemon.wait_until_running(lab);
    daemon
}
