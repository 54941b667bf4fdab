//! Signals at any moment, `kill -9`, and what takes its leftovers away.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::bed::{Lab, Ran, State, Uplink, poll};
use crate::daemon::{Daemon, clatd, program};
use crate::traffic;

with_each_translator!(
    stops_at_any_moment_of_the_set_up,
    killed_at_any_moment_leaves_nothing_behind_cleanup,
    cleanup_undoes_what_a_killed_daemon_left,
    next_start_undoes_what_a_killed_daemon_left,
);

/// How many moments of the set-up are tried.
const MOMENTS: u32 = 12;

/// A host where every kind of step has something to do.
fn busy_lab() -> Lab {
    let lab = Lab::raise(&Uplink::new().native_v4());
    lab.host("ip route add default via 192.168.0.3 metric 50 mtu 1400");
    lab.host("ip6tables -P FORWARD DROP");
    lab.host("nft 'table inet filter { chain forward { type filter hook forward priority filter; policy drop; }; }'");
    lab
}

fn busy_words(translator: &str) -> Vec<String> {
    [
        &format!("translator={translator}"),
        "v4-defaultroute-replace=yes",
        "script-up=sleep 0.1",
        "script-down=true",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn borrow(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// Until clatd itself runs and has set up its handling of signals, there is nothing of it to stop.
fn wait_for_handlers(daemon: &mut Daemon) {
    let status = format!("/proc/{}/status", daemon.pid());
    daemon.wait_for("signal handling", || {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let mask = text
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .unwrap_or(0);
        text.starts_with("Name:\tclatd") && mask & (1 << (Signal::SIGTERM as u32 - 1)) != 0
    });
}

/// How long a whole set-up takes here, measured.
fn set_up_time(lab: &Lab, words: &[&str], before: &State) -> Duration {
    let begin = Instant::now();
    let mut daemon = Daemon::up(lab, words);
    let took = begin.elapsed();
    daemon.stop(Signal::SIGTERM);
    lab.assert_state_is(before, "after an undisturbed run");
    took
}

fn stops_at_any_moment_of_the_set_up(translator: &str) {
    let lab = busy_lab();
    let (words, before) = (busy_words(translator), lab.state());
    let words = borrow(&words);
    let whole = set_up_time(&lab, &words, &before);
    for moment in 0..MOMENTS {
        let signal = if moment % 2 == 0 {
            Signal::SIGTERM
        } else {
            Signal::SIGINT
        };
        let delay = whole * moment / (MOMENTS - 2);
        let mut daemon = Daemon::start(&lab, &words);
        wait_for_handlers(&mut daemon);
        std::thread::sleep(delay);
        let ran = daemon.stop(signal);
        drop(daemon);
        eprintln!("{signal} after {delay:?}");
        lab.assert_state_is(&before, &format!("{signal} after {delay:?}:\n{ran}"));
        lab.assert_no_process_left(&format!("{signal} after {delay:?}"));
    }
}

/// The delay of the connectivity check is long; a signal ends it at once.
#[test]
fn stops_during_the_conncheck_delay() {
    let lab = Lab::raise(&Uplink::new());
    let before = lab.state();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut daemon = Daemon::start(&lab, &["v4-conncheck-delay=300"]);
        wait_for_handlers(&mut daemon);
        std::thread::sleep(Duration::from_millis(700));
        let begin = Instant::now();
        daemon.stop(signal);
        assert!(
            begin.elapsed() < Duration::from_secs(3),
            "stopped at once, not after {:?}",
            begin.elapsed()
        );
        lab.assert_state_is(&before, &format!("{signal} during the delay"));
    }
}

/// A delay that ends by itself: native IPv4 that comes in the meantime is seen.
#[test]
fn the_conncheck_delay_gives_ipv4_time_to_come() {
    let lab = Lab::raise(&Uplink::new());
    let mut daemon = Daemon::start(&lab, &["v4-conncheck-delay=2"]);
    wait_for_handlers(&mut daemon);
    lab.host("ip address add 192.168.0.2/24 dev up0 && ip route add default via 192.168.0.1");
    let before = lab.state();
    let ran = daemon.wait_exit(Duration::from_secs(20));
    assert_eq!(ran.code, Some(0), "{ran}");
    lab.assert_state_is(&before, "after native IPv4 came");
}

/// A child that the daemon was just starting has its lock until it executes: that moment is waited for.
fn cleanup_once_all_is_dead(lab: &Lab) -> Ran {
    let mut ran = clatd(lab, &["cleanup"]);
    poll(Duration::from_secs(2), || {
        let locked = ran.code == Some(1) && ran.err.contains("another clatd");
        if locked {
            ran = clatd(lab, &["cleanup"]);
        }
        !locked
    });
    ran
}

/// `kill -9` where a write-ahead record is worth most: in the middle of a step.
fn killed_at_any_moment_leaves_nothing_behind_cleanup(translator: &str) {
    let lab = busy_lab();
    let (words, before) = (busy_words(translator), lab.state());
    let words = borrow(&words);
    let whole = set_up_time(&lab, &words, &before);
    for moment in 0..MOMENTS {
        let delay = whole * moment / (MOMENTS - 2);
        let mut daemon = Daemon::start(&lab, &words);
        std::thread::sleep(delay);
        daemon.kill();
        drop(daemon);
        let ran = cleanup_once_all_is_dead(&lab);
        assert_eq!(ran.code, Some(0), "cleanup after a kill at {delay:?}: {ran}");
        eprintln!("kill -9 after {delay:?}");
        lab.assert_state_is(&before, &format!("cleanup after kill -9 at {delay:?}:\n{ran}"));
        lab.assert_no_process_left(&format!("cleanup after kill -9 at {delay:?}"));
    }
}

fn cleanup_undoes_what_a_killed_daemon_left(translator: &str) {
    let lab = busy_lab();
    let (words, before) = (busy_words(translator), lab.state());
    let mut daemon = Daemon::up(&lab, &borrow(&words));
    daemon.kill();
    drop(daemon);

    // The dry run says what would be done, and does nothing. (A TAYGA that dies with its parent takes a moment to.)
    lab.assert_no_process_left("after kill -9");
    lab.run(
        "host",
        "for i in $(seq 20); do sleep 0.1; ip -o link show clat | grep -q LOWER_UP || break; done",
    );
    let left = lab.state();
    let said = clatd(&lab, &["cleanup", "--dry-run"]).ok("cleanup --dry-run");
    assert!(!said.trim().is_empty(), "cleanup --dry-run says what it would undo");
    lab.assert_state_is(&left, "after cleanup --dry-run");

    clatd(&lab, &["cleanup"]).ok("cleanup");
    lab.assert_state_is(&before, "after cleanup");
    lab.assert_no_process_left("after cleanup");

    // Nothing is left to do, which is no error.
    clatd(&lab, &["cleanup"]).ok("a second cleanup");
    lab.assert_state_is(&before, "after a second cleanup");
}

fn next_start_undoes_what_a_killed_daemon_left(translator: &str) {
    let lab = busy_lab();
    let (words, before) = (busy_words(translator), lab.state());
    for _ in 0..2 {
        let mut daemon = Daemon::up(&lab, &borrow(&words));
        daemon.kill();
    }
    // The settings may have changed in between: it is the journal that tells what is to be undone.
    let other = format!("translator={translator}");
    let mut daemon = Daemon::up(
        &lab,
        &[
            &other,
            "clat-dev=other",
            "v4-conncheck-enable=no",
            "v4-defaultroute-replace=yes",
        ],
    );
    traffic::works(&lab);
    daemon.stop(Signal::SIGTERM);
    lab.assert_state_is(&before, "after kill -9, a fresh start and its stop");
    lab.assert_no_process_left("after the stop");
}

/// The tags are enough: no journal, and yet no device, rule or table of ours stays.
#[test]
fn cleanup_works_without_a_journal() {
    let lab = Lab::raise(&Uplink::new());
    lab.host("nft 'table inet filter { chain forward { type filter hook forward priority filter; policy drop; }; }'");
    let mut daemon = Daemon::up(&lab, &["translator=tayga"]);
    daemon.kill();
    drop(daemon);
    std::fs::remove_dir_all(lab.file("run")).unwrap();
    clatd(&lab, &["cleanup"]).ok("cleanup");
    assert_ne!(lab.run("host", "ip link show clat").code, Some(0));
    let rules = lab.host("nft list ruleset");
    assert!(!rules.contains("clat"), "{rules}");
    assert_eq!(lab.host("ip -4 route show default; ip -6 neigh show proxy"), "");
}

/// A second daemon for the same run-time directory is refused; the first goes on.
#[test]
fn only_one_at_a_time() {
    let lab = Lab::raise(&Uplink::new());
    let before = lab.state();
    let mut daemon = Daemon::up(&lab, &[]);
    let running = lab.state();
    let output = lab
        .command("host")
        .args([
            "env",
            &format!("CLATD_RUNTIME_DIR={}", lab.file("run").display()),
            &program(),
            "-c",
            "/dev/null",
            "v4-conncheck-enable=no",
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(!output.stderr.is_empty(), "says that another runs");
    lab.assert_state_is(&running, "after a second daemon was refused");
    traffic::works(&lab);
    daemon.stop(Signal::SIGTERM);
    lab.assert_state_is(&before, "after the stop");
}

/// Several starts and stops: nothing adds up.
#[test]
fn starts_and_stops_many_times() {
    let lab = busy_lab();
    let (words, before) = (busy_words("userspace"), lab.state());
    for round in 0..8 {
        let mut daemon = Daemon::up(&lab, &borrow(&words));
        daemon.stop(Signal::SIGTERM);
        drop(daemon);
        lab.assert_state_is(&before, &format!("round {round}"));
    }
}

/// `when-idle=wait`: beside native IPv4 it waits, and takes over when that goes.
#[test]
fn waits_for_native_ipv4_to_go() {
    let lab = Lab::raise(&Uplink::new().native_v4());
    lab.host("ip route del default");
    let without = lab.state();
    lab.host("ip route add default via 192.168.0.1");
    let before = lab.state();
    let mut daemon = Daemon::start(&lab, &["when-idle=wait"]);
    wait_for_handlers(&mut daemon);
    std::thread::sleep(Duration::from_secs(2));
    lab.assert_state_is(&before, "while waiting");
    lab.host("ip route del default");
    daemon.wait_for("takeover", || lab.host("ip -4 route show default").contains("dev clat"));
    traffic::works(&lab);
    daemon.stop(Signal::SIGTERM);
    lab.assert_state_is(&without, "after the stop");
}

/// An instance file gives the instance its name; the instance waits where clatd would end.
#[test]
fn an_instance_file_is_an_instance() {
    let lab = Lab::raise(&Uplink::new());
    let env = lab.file("up.env");
    for (file, text) in [
        (
            "home.conf",
            format!(
                "; a comment\nclat-dev = v4-home\nplat-dev=up0\nscript-up=echo $instance $clat_dev >{}\n",
                env.display()
            ),
        ),
        (
            "home.toml",
            format!(
                "clat-dev = \"v4-home\"\nv4-defaultroute-mtu = 1400\nscript-up = \"echo $instance $clat_dev >{}\"\n",
                env.display()
            ),
        ),
    ] {
        let path = lab.file("instances.d").join(file);
        std::fs::write(&path, text).unwrap();
        crate::daemon::around(&lab, &[], |_| {
            traffic::works(&lab);
            assert_eq!(lab.read("up.env"), "home v4-home\n");
            assert_eq!(
                lab.host("ip -4 route show default").contains("mtu 1400"),
                file.ends_with("toml")
            );
        });
        std::fs::remove_file(path).unwrap();
        std::fs::remove_file(&env).unwrap();
    }
}
