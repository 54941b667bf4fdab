//! Under a service manager: what it is told, and that the daemon waits where it would end otherwise.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::bed::{Lab, Uplink, poll};
use crate::daemon::{Daemon, clatd};
use crate::traffic;

/// A service manager that listens.
struct Manager {
    socket: UnixDatagram,
    path: String,
    heard: Vec<String>,
}

impl Manager {
    fn new(lab: &Lab) -> Self {
        let path = lab.file("notify").display().to_string();
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        // The defaults are what a service gets.
        std::fs::write(lab.file("clatd.conf"), "").unwrap();
        Self {
            socket,
            path,
            heard: Vec::new(),
        }
    }

    fn start(&self, lab: &Lab, environment: &[&str], words: &[&str]) -> Daemon {
        let mut environment: Vec<String> = environment.iter().map(ToString::to_string).collect();
        environment.push(format!("NOTIFY_SOCKET={}", self.path));
        Daemon::start_in(lab, &environment, words)
    }

    /// All that it was told so far, line by line.
    fn lines(&mut self) -> &[String] {
        let mut buffer = [0; 4096];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
                    self.heard.extend(text.lines().map(str::to_owned));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return &self.heard,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn count(&mut self, line: &str) -> usize {
        self.lines().iter().filter(|heard| *heard == line).count()
    }

    fn hears(&mut self, beginning: &str) {
        let heard = poll(Duration::from_secs(20), || {
            self.lines().iter().any(|line| line.starts_with(beginning))
        });
        assert!(heard, "no {beginning} in {:#?}", self.heard);
    }

    /// The last status line.
    fn status(&mut self) -> String {
        let last = self.lines().iter().rev().find_map(|line| line.strip_prefix("STATUS="));
        last.unwrap_or_default().to_owned()
    }

    fn shows(&mut self, words: &str) {
        let shown = poll(Duration::from_secs(20), || self.status().contains(words));
        assert!(shown, "no status {words}: {:#?}", self.heard);
    }
}

/// At boot nothing is there yet.
#[test]
fn started_without_a_network_it_waits_for_one() {
    let lab = Lab::raise(&Uplink::new());
    lab.host("ip link set up0 down");
    let mut manager = Manager::new(&lab);
    let begun = Instant::now();
    let mut daemon = manager.start(&lab, &[], &[]);
    manager.hears("READY=1");
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "ready at once, not after {:?}",
        begun.elapsed()
    );
    manager.shows("clat: idle (");
    lab.host("ip link set up0 up");
    lab.advertise();
    manager.shows("clat: running on up0 with 64:ff9b::/96");
    daemon.wait_until_running(&lab);
    traffic::ping(&lab);
    daemon.stop(Signal::SIGTERM);
    manager.hears("STOPPING=1");
    assert_eq!(manager.count("READY=1"), 1, "{:?}", manager.heard);
    assert_eq!(manager.count("WATCHDOG=1"), 0, "{:?}", manager.heard);
}

#[test]
fn started_beside_native_ipv4_it_takes_over_when_that_goes() {
    let lab = Lab::raise(&Uplink::new().native_v4());
    let mut manager = Manager::new(&lab);
    let mut daemon = manager.start(&lab, &[], &[]);
    manager.hears("READY=1");
    manager.shows("already has IPv4 connectivity");
    lab.host("ip -4 route del default");
    manager.shows("clat: running on up0");
    traffic::works(&lab);
    lab.host("ip -4 route add default via 192.168.0.1");
    manager.shows("already has IPv4 connectivity");
    assert_eq!(lab.run("host", "ip link show clat").code, Some(1));
    daemon.stop(Signal::SIGTERM);
}

/// What `Type=notify-reload` needs: the time of the reload, and the word that it is over.
#[test]
fn reloads_are_told() {
    let lab = Lab::raise(&Uplink::new());
    let mut manager = Manager::new(&lab);
    let mut daemon = manager.start(&lab, &[], &[]);
    manager.shows("clat: running on up0");
    daemon.signal(Signal::SIGHUP);
    manager.hears("RELOADING=1");
    manager.hears("MONOTONIC_USEC=");
    assert!(poll(Duration::from_secs(10), || manager.count("READY=1") == 2));
    clatd(&lab, &["reload"]).ok("clatd reload");
    assert!(poll(Duration::from_secs(10), || manager.count("READY=1") == 3));
    // One that is refused is over too.
    std::fs::write(lab.file("clatd.conf"), "plat-prefix=nonsense\n").unwrap();
    daemon.signal(Signal::SIGHUP);
    assert!(poll(Duration::from_secs(10), || manager.count("READY=1") == 4));
    assert_eq!(manager.count("RELOADING=1"), 3);
    daemon.stop(Signal::SIGTERM);
}

#[test]
fn what_failed_is_not_ready() {
    let lab = Lab::raise(&Uplink::new());
    let before = lab.state();
    let mut manager = Manager::new(&lab);
    let mut daemon = manager.start(
        &lab,
        &[],
        &["when-idle=exit", "v4-conncheck-delay=0", "script-up=false"],
    );
    let ran = daemon.wait_exit(Duration::from_secs(20));
    assert_eq!(ran.code, Some(1), "{ran}");
    assert_eq!(manager.count("READY=1"), 0, "{:?}", manager.heard);
    lab.assert_state_is(&before, "after the failure");
    // Nothing to do is no failure.
    let words = ["when-idle=exit", "v4-conncheck-delay=0", "plat-dev=up9"];
    let ran = manager.start(&lab, &[], &words).wait_exit(Duration::from_secs(20));
    assert_eq!(ran.code, Some(0), "{ran}");
    assert_eq!(manager.count("READY=1"), 1, "{:?}", manager.heard);
}

#[test]
fn the_watchdog_hears_of_it() {
    let lab = Lab::raise(&Uplink::new());
    let mut manager = Manager::new(&lab);
    let mut daemon = manager.start(&lab, &["WATCHDOG_USEC=1000000"], &[]);
    manager.shows("clat: running on up0");
    let begun = Instant::now();
    let before = manager.count("WATCHDOG=1");
    assert!(poll(Duration::from_secs(20), || manager.count("WATCHDOG=1") >= before + 6));
    assert!(begun.elapsed() > Duration::from_secs(2), "twice a second is enough");
    daemon.stop(Signal::SIGTERM);
}

/// A service manager that does not read holds nothing up for long.
#[test]
fn a_service_manager_that_hangs_does_not_stop_it() {
    let lab = Lab::raise(&Uplink::new());
    let mut manager = Manager::new(&lab);
    let full = UnixDatagram::unbound().unwrap();
    full.set_nonblocking(true).unwrap();
    while full.send_to(b"X=1\n", &manager.path).is_ok() {}
    let mut daemon = manager.start(&lab, &[], &[]);
    daemon.wait_until_running(&lab);
    traffic::ping(&lab);
    manager.hears("X=1");
    lab.host("ip link set up0 down");
    manager.hears("READY=1");
    daemon.stop(Signal::SIGTERM);
}
