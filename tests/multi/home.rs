//! A host with several uplinks, and its daemon.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::bed::{Lab, Ran, SERVER, Uplink, poll};
use crate::daemon::{Daemon, program};

/// How long anything may take on a slow, busy machine that has no time limit of its own.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// One line that makes an instance of every uplink of the lab.
pub const EVERY_UPLINK: &str = "plat-dev=up*";

/// The IPv4 address by which the internet knows what came through the ISP of uplink `k`.
pub fn isp_v4(k: usize) -> String {
    format!("192.88.99.{}", 130 + 4 * k)
}

/// The CLAT device that a template or an instance file `upK` gets.
pub fn device(k: usize) -> String {
    format!("clat-up{k}")
}

/// Raises a lab with these uplinks.
pub fn raise(uplinks: &[Uplink]) -> Lab {
    let lab = Lab::raise(&uplinks[0]);
    for (k, uplink) in (0..).zip(uplinks).skip(1) {
        lab.add(k, uplink);
    }
    lab
}

/// Three uplinks without IPv4: two with the well-known prefix, the third with one of its own.
pub fn three() -> Lab {
    raise(&[Uplink::new(), Uplink::new(), Uplink::new().plat("2001:db8:64::/96")])
}

/// Writes an instance file.
pub fn instance(lab: &Lab, name: &str, text: &str) {
    std::fs::write(lab.file("instances.d").join(format!("{name}.conf")), text).unwrap();
}

/// Takes an instance file away.
pub fn no_instance(lab: &Lab, name: &str) {
    std::fs::remove_file(lab.file("instances.d").join(format!("{name}.conf"))).unwrap();
}

/// Runs a clatd command beside the daemon: files and runtime directory are the same.
pub fn tool(lab: &Lab, words: &[&str]) -> Ran {
    let output = lab
        .command("host")
        .arg("env")
        .arg(format!("CLATD_RUNTIME_DIR={}", lab.file("run").display()))
        .arg(format!("DBUS_SYSTEM_BUS_ADDRESS={}", lab.bus()))
        .arg(program())
        .arg("-c")
        .arg(lab.file("clatd.conf"))
        .arg("--instances-dir")
        .arg(lab.file("instances.d"))
        .args(words)
        .output()
        .expect("clatd starts");
    Ran::from(output)
}

/// `clatd status --json`; null while there is no answer.
pub fn status(lab: &Lab) -> Value {
    serde_json::from_str(&tool(lab, &["status", "--json"]).out).unwrap_or_default()
}

/// The status of one instance; null if there is none of this name.
pub fn status_of(lab: &Lab, name: &str) -> Value {
    let status = status(lab);
    let instances = status["instances"].as_array().cloned().unwrap_or_default();
    instances
        .into_iter()
        .find(|instance| instance["name"] == name)
        .unwrap_or_default()
}

/// By which gateway the packets of an instance leave; empty while that is not known.
pub fn gateway_of(lab: &Lab, name: &str) -> String {
    let status = status_of(lab, name);
    let gateway = status.pointer("/facts/plat_gateway/value").and_then(Value::as_str);
    gateway.unwrap_or_default().to_owned()
}

/// The names of the instances in this state.
pub fn in_state(lab: &Lab, state: &str) -> Vec<String> {
    let status = status(lab);
    let instances = status["instances"].as_array().cloned().unwrap_or_default();
    instances
        .iter()
        .filter(|instance| instance["state"] == state)
        .filter_map(|instance| instance["name"].as_str().map(str::to_owned))
        .collect()
}

/// Starts a daemon and waits until `count` instances run.
pub fn start(lab: &Lab, words: &[&str], count: usize) -> Daemon {
    let mut daemon = Daemon::start(lab, words);
    running(lab, &mut daemon, count);
    daemon
}

/// Waits until exactly `count` instances run.
pub fn running(lab: &Lab, daemon: &mut Daemon, count: usize) {
    daemon.wait_for(&format!("{count} running instances"), || {
        in_state(lab, "running").len() == count
    });
}

/// Waits until the daemon has written this.
pub fn says(daemon: &mut Daemon, text: &str) {
    let path = daemon.output();
    if path.contains(text) {
        return;
    }
    let said = poll(PATIENCE, || daemon.output().contains(text));
    assert!(said, "it never says {text:?}:\n{}", daemon.output());
}

/// Which uplink the internet sees when curl is told to use this address or device; `None` = no connection.
pub fn seen(lab: &Lab, interface: Option<&str>) -> Option<usize> {
    let interface = interface.map(|name| format!("--interface {name}")).unwrap_or_default();
    let ran = lab.run("host", &format!("curl -sSf -m 3 {interface} http://{SERVER}/whoami"));
    let from = ran.out.trim().to_owned();
    (0..16).find(|&k| ran.code == Some(0) && from == isp_v4(k))
}

/// Waits until a connection from this address or device is seen by uplink `k`.
pub fn leaves_by(lab: &Lab, interface: Option<&str>, k: usize) {
    let mut last = None;
    let reached = poll(PATIENCE, || {
        last = seen(lab, interface);
        last == Some(k)
    });
    assert!(
        reached,
        "{interface:?} must leave by uplink {k}, leaves by {last:?}\n{}",
        lab.host("ip -4 rule; ip -4 route show table all; ip -6 rule; ip -6 route show table all")
    );
}

/// The device of the best IPv4 default route.
pub fn best(lab: &Lab) -> Option<String> {
    let routes: Value = serde_json::from_str(&lab.host("ip -j -4 route show default")).unwrap();
    let routes = routes.as_array().cloned().unwrap_or_default();
    routes
        .iter()
        .min_by_key(|route| route["metric"].as_u64().unwrap_or(0))
        .and_then(|route| route["dev"].as_str().map(str::to_owned))
}

/// Waits until the best IPv4 default route leads to `device`; returns how long that took.
pub fn fails_over(lab: &Lab, device: &str, limit: Duration) -> Duration {
    let begin = Instant::now();
    let moved = poll(limit.max(PATIENCE), || best(lab).as_deref() == Some(device));
    assert!(moved, "{device} never becomes the best:\n{}", lab.host("ip route"));
    let took = begin.elapsed();
    assert!(took <= limit, "{device} becomes the best after {took:?}");
    took
}

/// The lines of the host's state, in an order of their own: an uplink that went and came again stands elsewhere in
/// the kernel's lists.
pub fn sorted_state(lab: &Lab) -> Vec<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lab");
    let output = std::process::Command::new(script)
        .args(["-n", &name(lab), "state"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let mut lines: Vec<String> = Ran::from(output)
        .ok("scripts/lab state")
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines
}

/// Fails with the difference if the host is not as it was, order aside; lines with one of these words may differ.
pub fn assert_same(lab: &Lab, before: &[String], may_differ: &[&str], when: &str) {
    let after = sorted_state(lab);
    let counts = |line: &&String| !may_differ.iter().any(|word| line.contains(word));
    let gone: Vec<_> = before
        .iter()
        .filter(|line| !after.contains(line))
        .filter(counts)
        .collect();
    let new: Vec<_> = after
        .iter()
        .filter(|line| !before.contains(line))
        .filter(counts)
        .collect();
    assert!(
        gone.is_empty() && new.is_empty(),
        "{when}: the host is not as it was\ngone: {gone:#?}\nnew: {new:#?}"
    );
}

/// The host's state without the numbers of devices, since one that was unplugged gets another, and without the addresses
/// of routers, which are replaced.
pub fn plain(lines: Vec<String>) -> BTreeSet<String> {
    let without_numbers = |line: String| match serde_json::from_str::<Value>(&line) {
        Ok(Value::Object(mut object)) => {
            for key in ["ifindex", "link_index"] {
                object.remove(key);
            }
            if object.get("dst").is_some_and(|dst| dst == "default")
                && object.get("protocol").is_some_and(|by| by == "ra")
            {
                object.remove("gateway");
            }
            Value::Object(object).to_string()
        }
        _ => line,
    };
    lines.into_iter().map(without_numbers).collect()
}

/// Fails with the difference if the host is not plainly as it was.
pub fn assert_plainly_same(lab: &Lab, before: &BTreeSet<String>, when: &str) {
    let after = plain(sorted_state(lab));
    let gone: Vec<_> = before.difference(&after).collect();
    let new: Vec<_> = after.difference(before).collect();
    assert!(
        gone.is_empty() && new.is_empty(),
        "the host is not as it was\ngone: {gone:#?}\nnew: {new:#?}\n{when}"
    );
}

/// Stops the daemon: its end must be clean and the host as it was, order aside.
pub fn stop(lab: &Lab, daemon: &mut Daemon, before: &[String], may_differ: &[&str]) {
    let ran = daemon.stop(Signal::SIGTERM);
    assert_same(lab, before, may_differ, &format!("after the stop:\n{ran}"));
    lab.assert_no_process_left("after the stop");
}

/// The folder in which `scripts/lab` keeps the files of the ISP of uplink `k`.
pub fn isp_file(lab: &Lab, k: usize, file: &str) -> std::path::PathBuf {
    format!("/run/clatd-lab/{}/isp{k}/{file}", name(lab)).into()
}

/// The ISP's radvd reads its configuration again, and advertises.
pub fn readvertise(lab: &Lab, k: usize) {
    let pid = isp_file(lab, k, "radvd.pid");
    lab.run(&format!("isp{k}"), &format!("kill -HUP $(cat {})", pid.display()))
        .ok("radvd reloads");
}

/// The lab's name, which it keeps to itself, out of a command that it makes.
pub fn name(lab: &Lab) -> String {
    let command = lab.command("host");
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
    words[2].strip_suffix("-host").expect("NAME-host").to_owned()
}
