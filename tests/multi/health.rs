//! A PLAT that does not do its work while packets are sent to it.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::bed::{Lab, SERVER, Uplink, poll};
use crate::daemon::Daemon;
use crate::home::{EVERY_UPLINK, best, device, leaves_by, raise, start, status_of, tool};

/// Half a minute of silence, the probe, and what a busy machine adds.
const NOTICED: Duration = Duration::from_secs(75);

/// Sends something every half second through instance `k` until it is dropped.
struct Traffic(std::process::Child);

impl Traffic {
    fn through(lab: &Lab, k: usize, target: &str) -> Self {
        let mut command = lab.command("host");
        command.args(["ping", "-n", "-i", "0.5", "-I", &device(k), target]);
        Self(command.stdout(std::process::Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn becomes(lab: &Lab, daemon: &Daemon, k: usize, health: &str) {
    let name = format!("clat@up{k}");
    let reached = poll(NOTICED, || status_of(lab, &name)["health"]["state"] == health);
    assert!(
        reached,
        "{name} must become {health}: {}\n{}",
        status_of(lab, &name),
        daemon.output()
    );
}

/// Nothing comes back and the PLAT does not answer: IPv4 leaves by the other uplink until it answers again.
#[test]
fn a_plat_that_falls_silent_under_traffic_is_left_and_returned_to() {
    let lab = raise(&[Uplink::new(), Uplink::new()]);
    let mut daemon = start(&lab, &[EVERY_UPLINK], 2);
    leaves_by(&lab, None, 0);
    let traffic = Traffic::through(&lab, 0, SERVER);
    becomes(&lab, &daemon, 0, "good");
    lab.run("isp0", "ip link set nat64-0 down").ok("the PLAT is gone");
    becomes(&lab, &daemon, 0, "silent");
    let left = poll(Duration::from_secs(20), || best(&lab).as_deref() == Some(&device(1)));
    assert!(left, "{}\n{}", lab.host("ip route"), daemon.output());
    leaves_by(&lab, None, 1);
    let said = tool(&lab, &["status"]).ok("status");
    assert!(said.contains("nothing came back for"), "{said}");
    assert!(said.contains(": the PLAT does not answer"), "{said}");
    // The route is there before the instance has done all that the new metric asks for.
    daemon.wait_for("the left instance to run on", || {
        status_of(&lab, "clat@up0")["state"] == "running"
    });
    daemon.wait_for("the other one to be preferred", || {
        status_of(&lab, "clat@up1")["preferred"] == true
    });
    let metrics = tool(&lab, &["metrics"]).ok("metrics");
    let silent = "clatd_instance_health{clat=\"clat@up0\",health=\"silent\"} 1";
    assert!(metrics.contains(silent), "{metrics}");

    // Nothing is sent there any more; what this host sends elsewhere is reason enough to ask.
    drop(traffic);
    lab.run("isp0", "ip link set nat64-0 up && ip route add 64:ff9b::/96 dev nat64-0 && ip route add 100.64.0.0/24 dev nat64-0 && ip route replace 3fff:1:64::1 dev nat64-0")
        .ok("the PLAT is back");
    let elsewhere = Traffic::through(&lab, 1, SERVER);
    let returned = poll(NOTICED, || best(&lab).as_deref() == Some(&device(0)));
    assert!(returned, "{}\n{}", lab.host("ip route"), daemon.output());
    leaves_by(&lab, None, 0);
    drop(elsewhere);
    let events = status_of(&lab, "clat@up0")["events"].to_string();
    assert!(events.contains("the PLAT answers again"), "{events}");
    daemon.stop(Signal::SIGTERM);
}

/// Somebody who does not answer is no fault of the PLAT's.
#[test]
fn a_host_that_is_dead_is_not_blamed_on_the_plat() {
    let lab = raise(&[Uplink::new()]);
    let mut daemon = start(&lab, &[EVERY_UPLINK], 1);
    lab.run("net", "nft 'table ip quiet { chain in { type filter hook input priority 0; ip daddr 192.88.99.10 icmp type echo-request drop; }; }'")
        .ok("the server answers no echo");
    let traffic = Traffic::through(&lab, 0, SERVER);
    becomes(&lab, &daemon, 0, "unanswered");
    let answers = poll(Duration::from_secs(20), || {
        let text = status_of(&lab, "clat@up0")["health"]["text"].to_string();
        text.contains("but the PLAT answers")
    });
    assert!(answers, "{}", status_of(&lab, "clat@up0"));
    drop(traffic);
    daemon.stop(Signal::SIGTERM);
}

/// Where nothing is sent, nobody is asked.
#[test]
fn an_idle_host_asks_nobody() {
    let lab = raise(&[Uplink::new()]);
    let mut daemon = start(&lab, &[EVERY_UPLINK], 1);
    lab.run("isp0", "nft 'table ip6 count { chain in { type filter hook prerouting priority 0; ip6 daddr 64:ff9b::/96 counter; }; }'")
        .ok("packets to the PLAT are counted");
    lab.run("isp0", "ip link set nat64-0 down").ok("the PLAT is gone");
    std::thread::sleep(Duration::from_secs(45));
    let counted = lab.run("isp0", "nft list table ip6 count").ok("the counter");
    assert!(counted.contains("packets 0 "), "{counted}");
    let health = status_of(&lab, "clat@up0")["health"]["state"].clone();
    assert!(health == "idle" || health == "good", "{health}");
    daemon.stop(Signal::SIGTERM);
}
