//! The dry run: changes nothing, and its steps are the steps that are executed.

use std::fs::File;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::bed::{Lab, Ran, Uplink, poll};
use crate::daemon::{Daemon, clatd, program};
use crate::traffic;

with_each_translator!(plan_is_what_is_done);

/// `clatd plan --json` with these words: its one instance.
fn plan(lab: &Lab, words: &[&str]) -> Value {
    let words: Vec<_> = ["plan", "--json"].iter().chain(words).copied().collect();
    let text = clatd(lab, &words).ok("clatd plan --json");
    let plan: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("plan --json is JSON: {error}\n{text}"));
    assert_eq!(plan["version"], 1);
    assert_eq!(plan["instances"].as_array().map(Vec::len), Some(1), "{text}");
    plan["instances"][0].clone()
}

/// The steps that the running daemon's journal says were begun, in order.
fn journalled(lab: &Lab) -> Vec<Value> {
    let listed = lab.host(&format!("find {} -type f -size +0 | sort", lab.file("run").display()));
    let mut steps = Vec::new();
    for path in listed.lines() {
        for line in std::fs::read_to_string(path).unwrap_or_default().lines() {
            let Ok(line) = serde_json::from_str::<Value>(line) else {
                continue;
            };
            if line["event"] == "intend" {
                steps.push(line["step"].clone());
            }
        }
    }
    steps
}

fn plan_is_what_is_done(translator: &str) {
    let lab = Lab::raise(&Uplink::new().native_v4());
    lab.host("ip route add default via 192.168.0.3 metric 50 mtu 1400 && ip6tables -P FORWARD DROP");
    lab.host("nft 'table inet filter { chain forward { type filter hook forward priority filter; policy drop; }; }'");
    let translator = format!("translator={translator}");
    for more in [
        &[][..],
        &["v4-defaultroute-enable=no"],
        &["proxynd-enable=no", "forwarding-enable=no"],
        &["script-up=true", "script-down=true"],
        &["firewall=ip6tables"],
    ] {
        let words: Vec<_> = [translator.as_str(), "v4-defaultroute-replace=yes"]
            .iter()
            .chain(more)
            .copied()
            .collect();
        let before = lab.state();
        let planned = plan(&lab, &words);
        lab.assert_state_is(&before, &format!("after clatd plan {words:?}"));

        let mut daemon = Daemon::start(&lab, &words);
        let planned = planned["steps"].as_array().expect("steps").clone();
        daemon.wait_until_running(&lab);
        let done = journalled(&lab);
        daemon.stop(Signal::SIGTERM);
        for (number, (planned, done)) in planned.iter().zip(&done).enumerate() {
            assert_eq!(
                planned,
                done,
                "step {} of {words:?}: planned (left) and done (right)",
                number + 1
            );
        }
        assert_eq!(planned.len(), done.len(), "steps of {words:?}");
        lab.assert_state_is(&before, &format!("after clatd {words:?}"));
    }
}

/// Neither the state nor a single netlink event tells that a plan was made.
#[test]
fn a_plan_changes_nothing() {
    let lab = Lab::raise(&Uplink::new());
    lab.host("nft 'table inet filter { chain forward { type filter hook forward priority filter; policy drop; }; }'");
    let before = lab.state();
    let log = lab.file("monitor");
    let mut monitor = lab
        .command("host")
        .args(["ip", "monitor", "link", "address", "route", "rule"])
        .stdout(File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let nft_log = lab.file("nft-monitor");
    let mut nft_monitor = lab
        .command("host")
        .args(["nft", "monitor"])
        .stdout(File::create(&nft_log).unwrap())
        .spawn()
        .unwrap();
    wait_until_both_listen(&lab);
    let told = (lab.read("monitor").len(), lab.read("nft-monitor").len());

    let text = clatd(&lab, &["plan"]).ok("clatd plan");
    assert!(
        text.contains("64:ff9b::/96") && text.contains("up0"),
        "the text tells the facts:\n{text}"
    );
    assert_eq!(clatd(&lab, &["--dry-run"]).ok("clatd --dry-run"), text);
    clatd(&lab, &["plan", "--json"]).ok("clatd plan --json");
    clatd(
        &lab,
        &[
            "plan",
            "translator=tayga",
            "firewall=ip6tables",
            "v4-defaultroute-replace=yes",
        ],
    )
    .ok("clatd plan");
    clatd(&lab, &["check"]).ok("clatd check");
    std::thread::sleep(std::time::Duration::from_millis(200));

    for child in [&mut monitor, &mut nft_monitor] {
        kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        child.wait().unwrap();
    }
    // An RA may refresh lifetimes at any time; that is the kernel's doing.
    let events = lab.read("monitor")[told.0..]
        .lines()
        .filter(|line| !line.contains("proto ra") && !line.contains("dynamic") && !line.contains("valid_lft"))
        .collect::<Vec<_>>()
        .join("\n");
    assert_eq!(events, "", "ip monitor");
    let nft_events = lab.read("nft-monitor");
    let nft_events = nft_events[told.1..]
        .lines()
        .filter(|line| !line.starts_with("# new generation"))
        .collect::<Vec<_>>()
        .join("\n");
    assert_eq!(nft_events, "", "nft monitor");
    lab.assert_state_is(&before, "after plans");
    traffic_does_not_flow(&lab);
}

/// Waits until `ip monitor` and `nft monitor` have told of changes of our own. Those made before they listened are told by
/// nobody, so each attempt has a change of its own.
fn wait_until_both_listen(lab: &Lab) {
    let mut attempt = 0;
    assert!(poll(std::time::Duration::from_secs(10), || {
        attempt += 1;
        lab.host(&format!(
            "ip rule add prio 5000 from 10.9.9.{attempt} table 99 && ip rule del prio 5000
             nft add table ip listens{attempt} && nft delete table ip listens{attempt}"
        ));
        let told = |log: &str, begin: &str, what: &str| {
            let text = lab.read(log);
            text.lines().any(|line| line.starts_with(begin) && line.contains(what))
        };
        poll(std::time::Duration::from_millis(500), || {
            told("monitor", "Deleted", &format!("10.9.9.{attempt} "))
                && told("nft-monitor", "delete table", &format!("listens{attempt}"))
        })
    }));
}

fn traffic_does_not_flow(lab: &Lab) {
    assert_ne!(lab.run("host", "ping -n -c 1 -W 1 192.88.99.10").code, Some(0));
}

/// Native IPv4: the plan says that there is nothing to do, and why.
#[test]
fn an_idle_plan_says_why() {
    let lab = Lab::raise(&Uplink::new().native_v4());
    let text = clatd(&lab, &["plan", "--json"]).ok("clatd plan --json");
    let plan: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(plan["instances"], serde_json::json!([]), "{text}");
    assert!(
        plan["idle"][0]["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("IPv4")),
        "{text}"
    );
    traffic::ping(&lab);
}

/// As in many containers: what cannot work is said before it is tried.
#[test]
fn a_read_only_proc_sys_is_seen() {
    let lab = Lab::raise(&Uplink::new());
    let read_only = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys";
    let plan = |mounts: &str| {
        let script = format!("{mounts} && exec \"$@\"");
        let output = lab
            .command("host")
            .args(["unshare", "-m", "sh", "-c", &script, "sh", "env"])
            .arg(format!("CLATD_RUNTIME_DIR={}", lab.file("run").display()))
            .args([&program(), "plan"])
            .output()
            .unwrap();
        Ran::from(output)
    };
    let ran = plan(read_only);
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(ran.err.contains("/proc/sys is read-only"), "{ran}");
    assert!(ran.out.contains("clat"), "the plan is shown all the same: {ran}");

    // systemd-nspawn leaves this part writable.
    let writable = "mount --bind /proc/sys/net /proc/sys/net && mount -o remount,bind,rw /proc/sys/net";
    let ran = plan(&format!("{read_only} && {writable}"));
    assert_eq!(ran.code, Some(0), "{ran}");
}

#[test]
fn a_route_larger_than_the_uplink_carries_is_warned_of() {
    let lab = Lab::raise(&Uplink::new());
    let ran = clatd(&lab, &["plan", "v4-defaultroute-mtu=9000"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert!(ran.err.contains("1480 fit the MTU of 1500 of up0"), "{ran}");
    let ran = clatd(&lab, &["check", "v4-defaultroute-mtu=9000", "plat-dev=up0"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert!(
        ran.err.contains("is more than up0 carries: 1480 fit its MTU of 1500"),
        "{ran}"
    );
    assert!(ran.out.contains("1 warning"), "{ran}");
    for fits in [
        "v4-defaultroute-mtu=1480",
        "v4-defaultroute-mtu=auto",
        "v4-defaultroute-mtu=0",
    ] {
        let ran = clatd(&lab, &["plan", fits]);
        assert!(!ran.err.contains("v4-defaultroute-mtu"), "{ran}");
    }
}
