//! A neighbour that claims the CLAT's address while it is in use: in a namespace of its own, on a bridge with the router.

use std::io::BufReader;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::bed::{DERIVED_V6, Lab, Uplink, poll};
use crate::daemon::Daemon;
use crate::meter::Meter;
use crate::{SCRIPT, advertise, begin, fact, first_line, status, traffic};

in_both_modes!(
    a_spoofed_announcement_moves_nothing,
    a_neighbour_that_persists_gets_the_address,
    a_neighbour_that_claims_everything_does_not_make_the_address_wander
);

const HOST: &str = "3fff:1:0:1:0:5eff:fe00:101";
const ROUTER: &str = "3fff:1:0:1::1";
const MAC: &str = "02:bb:bb:bb:bb:bb";

/// A lab in which the host, its router and a neighbour share the link.
fn raise() -> Lab {
    let lab = Lab::raise(&Uplink::new().silent_router());
    let namespace = lab.command("isp9").get_args().nth(2).unwrap().to_owned();
    let made = Command::new("ip")
        .args(["netns", "add"])
        .arg(&namespace)
        .status()
        .unwrap();
    assert!(made.success());
    let namespace = namespace.to_string_lossy();
    lab.run(
        "isp0",
        &format!(
            "set -e; ip addr flush dev cust; ip link set cust down; ip link set cust name port0
             ip link add cust type bridge mcast_snooping 0
             ip link add port1 type veth peer name eth0 address {MAC}
             ip link set eth0 netns {namespace}
             ip link set port0 master cust up; ip link set port1 master cust up
             ip addr add {ROUTER}/64 dev cust nodad; ip link set cust up"
        ),
    )
    .ok("the bridge");
    lab.run(
        "isp9",
        "sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1; ip link set eth0 up",
    )
    .ok("the neighbour");
    for (node, device) in [("isp0", "cust"), ("host", "up0")] {
        let line = format!(
            "ip -6 route show table local type multicast | grep -q 'dev {device}' && \
             ip -6 addr show dev {device} scope link -tentative | grep -q fe80"
        );
        assert!(
            poll(Duration::from_secs(10), || lab.run(node, &line).code == Some(0)),
            "{node} is on the link"
        );
    }
    lab
}

/// The neighbour at work; ends when dropped.
struct Neighbour(Child, BufReader<ChildStdout>);

impl Neighbour {
    /// Starts it and waits until it listens.
    fn start(lab: &Lab, words: &str) -> Self {
        let mut command = lab.command("isp9");
        command
            .arg(SCRIPT)
            .args(["neighbour", "eth0"])
            .args(words.split_whitespace());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let (said, rest) = first_line(child.stdout.take().unwrap());
        assert_eq!(said, "ready");
        Self(child, rest)
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn up(lab: &Lab, mode: &str) -> Daemon {
    let said = "--pref64 64:ff9b::/96=600 --prefix 3fff:1:0:1::/64=86400,14400";
    let daemon = begin(lab, &[mode, "debug=1"], said);
    assert_eq!(fact(lab, "clat_v6_addr"), DERIVED_V6);
    says(&daemon, &format!("no neighbour has {DERIVED_V6}"));
    daemon
}

/// Duplicate address detection takes 4 s on the uplink, so that a busy machine does nothing too late.
fn unhurried(lab: &Lab) {
    lab.host("sysctl -qw net.ipv6.neigh.up0.retrans_time_ms=4000");
}

fn says(daemon: &Daemon, words: &str) {
    let said = poll(Duration::from_secs(20), || daemon.output().contains(words));
    assert!(said, "no \"{words}\" in\n{}", daemon.output());
}

/// Three advertisements a second apart, as one announcement may be.
fn a_spoofed_announcement_moves_nothing(mode: &str) {
    let lab = raise();
    let mut daemon = up(&lab, mode);
    let mut meter = Meter::start(&lab);
    meter.wait_up();
    let mut neighbour = Neighbour::start(&lab, &format!("--advertise {DERIVED_V6} --times 3"));
    neighbour.0.wait().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(fact(&lab, "clat_v6_addr"), DERIVED_V6);
    assert!(daemon.output().contains("clatd defends it"), "{}", daemon.output());
    assert!(meter.is_up());
    let outages = meter.outages();
    eprintln!("outages: {outages:.3?}");
    assert!(outages.iter().all(|seconds| *seconds < 1.0), "{outages:?}");
    daemon.stop(Signal::SIGTERM);
}

/// It goes on and on: the address is left to it, and IPv4 works by another one.
fn a_neighbour_that_persists_gets_the_address(mode: &str) {
    let lab = raise();
    let mut daemon = up(&lab, mode);
    let mut meter = Meter::start(&lab);
    meter.wait_up();
    let neighbour = Neighbour::start(&lab, &format!("--advertise {DERIVED_V6}"));
    daemon.wait_for("it has another address", || {
        let now = fact(&lab, "clat_v6_addr");
        now != DERIVED_V6 && now != "null"
    });
    says(&daemon, &format!("192.0.0.1 becomes {}", fact(&lab, "clat_v6_addr")));
    assert!(poll(Duration::from_secs(10), || meter.is_up()), "{}", daemon.output());
    assert!(
        daemon.output().contains(&format!(
            "{MAC} has {DERIVED_V6} on up0, but that is the CLAT's address; the other node does not give it up"
        )),
        "{}",
        daemon.output()
    );
    traffic::ping(&lab);
    // The neighbour keeps what it has, and the CLAT what it took.
    let address = fact(&lab, "clat_v6_addr");
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(fact(&lab, "clat_v6_addr"), address);
    eprintln!("outages: {:.3?}", meter.outages());
    drop(neighbour);
    daemon.stop(Signal::SIGTERM);
}

/// It has the address that would be derived, and is slow to say so: the address is used meanwhile (RFC 4429), and left to
/// it then. From now on everybody on this link is given the time that RFC 4862 gives them.
#[test]
fn a_neighbour_that_answers_late_keeps_its_address() {
    let lab = raise();
    unhurried(&lab);
    let neighbour = Neighbour::start(&lab, &format!("--take {DERIVED_V6}/128 --delay 0.8"));
    let mut daemon = Daemon::start(&lab, &["when-idle=wait", "debug=1"]);
    daemon.wait_until(&lab, "idle");
    advertise(&lab, "--pref64 64:ff9b::/96=600 --prefix 3fff:1:0:1::/64=86400,14400");
    daemon.wait_until_running(&lab);
    says(
        &daemon,
        &format!("{MAC} has {DERIVED_V6} on up0, and said so late; clatd looks for another address"),
    );
    daemon.wait_for("it has another address", || {
        let now = fact(&lab, "clat_v6_addr");
        now != DERIVED_V6 && now != "null"
    });
    let address = fact(&lab, "clat_v6_addr");
    says(&daemon, &format!("no neighbour has {address} on up0"));
    says(&daemon, &format!("192.0.0.1 becomes {address}"));
    let in_haste = |address: &str| format!("the CLAT uses {address} on up0 while duplicate address detection goes on");
    assert!(daemon.output().contains(&in_haste(DERIVED_V6)), "{}", daemon.output());
    assert!(!daemon.output().contains(&in_haste(&address)), "{}", daemon.output());
    traffic::ping(&lab);
    assert!(!daemon.output().contains("clatd defends it"), "{}", daemon.output());
    drop(neighbour);
    daemon.stop(Signal::SIGTERM);
}

/// It claims whatever address anybody asks for, in use or not.
fn a_neighbour_that_claims_everything_does_not_make_the_address_wander(mode: &str) {
    let lab = raise();
    let mut daemon = up(&lab, mode);
    let mut meter = Meter::start(&lab);
    meter.wait_up();
    let words = format!("--advertise {DERIVED_V6} --take 3fff:1:0:1::/64 --spare {HOST} --spare {ROUTER}");
    let neighbour = Neighbour::start(&lab, &words);
    says(&daemon, "may be claiming every one");
    std::thread::sleep(Duration::from_secs(5));
    // Nothing better was found, so the address is kept and defended; IPv4 is not torn down.
    assert_eq!(fact(&lab, "clat_v6_addr"), DERIVED_V6);
    assert_eq!(status(&lab)["state"], "running");
    drop(neighbour);
    assert!(poll(Duration::from_secs(5), || meter.is_up()));
    traffic::ping(&lab);
    eprintln!("outages: {:.3?}", meter.outages());
    daemon.stop(Signal::SIGTERM);
}

/// The CLAT derives its address while the kernel still checks the host's own, which then turns out to be somebody's.
#[test]
fn the_hosts_own_address_may_turn_out_to_be_a_duplicate() {
    let lab = raise();
    let said = "--pref64 64:ff9b::/96=600 --prefix 3fff:1:0:1::/64=86400,14400";
    unhurried(&lab);
    let words = format!("--take 3fff:1:0:1::/64 --spare {DERIVED_V6} --spare {ROUTER} --delay 2");
    let neighbour = Neighbour::start(&lab, &words);
    let mut daemon = Daemon::start(&lab, &["when-idle=wait", "debug=1"]);
    daemon.wait_until(&lab, "idle");
    let before = lab.host("ip -4 route; ip -6 rule; ip neigh show proxy");
    advertise(&lab, said);
    let begun = poll(Duration::from_secs(5), || daemon.output().contains(" is up: "));
    assert!(begun, "{}", daemon.output());
    daemon.wait_until(&lab, "idle");
    assert_eq!(lab.host("ip -6 -o address show dev up0 scope global").trim(), "");
    assert_eq!(lab.host("ip -4 route; ip -6 rule; ip neigh show proxy"), before);
    drop(neighbour);
    advertise(&lab, said);
    daemon.wait_until_running(&lab);
    assert!(poll(Duration::from_secs(5), || lab
        .run("host", "ping -n -c 1 -W 1 192.88.99.10")
        .code
        == Some(0)));
    daemon.stop(Signal::SIGTERM);
}
