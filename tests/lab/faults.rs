//! Faults as they happen in life: each is reported in words and leaves the host as it was.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::bed::{Lab, Ran, Uplink};
use crate::daemon::{Daemon, clatd};
use crate::traffic;

with_each_translator!(device_name_is_taken, route_is_taken);

/// A start that must fail: exit 1, each of `words` said, the host as it was.
fn fails(lab: &Lab, settings: &[&str], words: &[&str]) -> Ran {
    let before = lab.state();
    let ran = clatd(lab, settings);
    assert_eq!(ran.code, Some(1), "{settings:?}: {ran}");
    let said = format!("{}{}", ran.out, ran.err);
    for word in words {
        assert!(said.contains(word), "{settings:?} must say {word:?}: {ran}");
    }
    lab.assert_state_is(&before, &format!("after the failed start with {settings:?}"));
    lab.assert_no_process_left(&format!("after the failed start with {settings:?}"));
    ran
}

fn device_name_is_taken(translator: &str) {
    let lab = Lab::raise(&Uplink::new());
    lab.host("ip link add clat type bridge && ip link set clat up");
    assert!(crate::bed::poll(Duration::from_secs(5), || !lab
        .host("ip -6 address")
        .contains("tentative")));
    fails(&lab, &[&format!("translator={translator}")], &["clat"]);
    // Somebody's persistent TUN device of that name is not ours either.
    lab.host("ip link delete clat && ip tuntap add clat mode tun");
    fails(&lab, &[&format!("translator={translator}")], &["clat"]);
}

/// The route that is to be added is there already, another's.
fn route_is_taken(translator: &str) {
    let lab = Lab::raise(&Uplink::new());
    let translator = format!("translator={translator}");
    lab.host("ip address add 10.0.0.1/24 dev up0 && ip route add default via 10.0.0.2 metric 2048");
    fails(&lab, &[&translator, "v4-conncheck-enable=no"], &[]);
}

/// No uplink is no error: there may be one later.
#[test]
fn no_such_uplink_is_nothing_to_do() {
    let lab = Lab::raise(&Uplink::new());
    let before = lab.state();
    let ran = clatd(&lab, &["plat-dev=nosuch0", "plat-prefix=64:ff9b::/96"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert!(format!("{}{}", ran.out, ran.err).contains("nosuch0"), "{ran}");
    lab.assert_state_is(&before, "after a start without the uplink");
}

#[test]
fn tayga_is_not_installed() {
    let lab = Lab::raise(&Uplink::new());
    fails(
        &lab,
        &["translator=tayga", "cmd-tayga=/nonexistent/tayga"],
        &["/nonexistent/tayga"],
    );
}

#[test]
fn tayga_dies_at_once() {
    let lab = Lab::raise(&Uplink::new());
    let tayga = lab.program(
        "tayga",
        "#!/bin/sh\necho 'first words of the translator'\necho 'it does not like this machine' >&2\nexit 7\n",
    );
    fails(
        &lab,
        &["translator=tayga", &format!("cmd-tayga={tayga}")],
        &["it does not like this machine"],
    );
}

#[test]
fn tayga_dies_later() {
    let lab = Lab::raise(&Uplink::new());
    let before = lab.state();
    let tayga = lab.program(
        "tayga",
        "#!/bin/sh\ncase \"$*\" in *tun*) exec tayga \"$@\" ;; esac\n\
         tayga \"$@\" & child=$!\ntrap 'kill $child; exit 0' TERM INT\n\
         while [ ! -e \"$0.die\" ]; do sleep 0.1; done\nkill -9 $child\necho 'last words of the translator' >&2\nexit 9\n",
    );
    let down = lab.file("down");
    let script = format!("script-down=touch {}", down.display());
    let mut daemon = Daemon::up(&lab, &["translator=tayga", &format!("cmd-tayga={tayga}"), &script]);
    assert!(!down.exists());
    std::fs::write(format!("{tayga}.die"), "").unwrap();
    daemon.wait_for("script-down", || down.exists());
    std::fs::remove_file(format!("{tayga}.die")).unwrap();
    daemon.wait_until_running(&lab);
    traffic::ping(&lab);
    let ran = daemon.stop(Signal::SIGTERM);
    assert!(
        format!("{}{}", ran.out, ran.err).contains("last words of the translator"),
        "its last output is told: {ran}"
    );
    lab.assert_state_is(&before, "after the stop");
    lab.assert_no_process_left("after the stop");
}

/// Killed from outside, without a word.
#[test]
fn tayga_is_killed() {
    let lab = Lab::raise(&Uplink::new());
    let before = lab.state();
    let mut daemon = Daemon::up(&lab, &["translator=tayga"]);
    lab.host(&format!("kill -9 $(pgrep -x -P {} tayga)", daemon.pid()));
    daemon.wait_for("word of it", || daemon_says(&lab, "the translator on clat died"));
    daemon.wait_until_running(&lab);
    traffic::works(&lab);
    daemon.stop(Signal::SIGTERM);
    lab.assert_state_is(&before, "after the stop");
}

/// Its last error, which stays when it runs again.
fn daemon_says(lab: &Lab, words: &str) -> bool {
    clatd(lab, &["status"]).out.contains(words)
}

/// Configuration and command line: refused before anything is touched.
#[test]
fn bad_settings() {
    let lab = Lab::raise(&Uplink::new());
    for settings in [
        &["clat-v4-addr=192.0.0.300"][..],
        &["plat-prefix=64:ff9b::/95"],
        &["plat-prefix=64:ff9b::/97"],
        &["no-such-key=1"],
        &["v4-defaultroute-metric=many"],
        &["translator=perl"],
        &["clat-dev=a-name-that-is-too-long"],
        &["--no-such-option"],
    ] {
        fails(&lab, settings, &[]);
    }
}

/// The device vanishes under a running daemon: it is made again.
#[test]
fn the_device_is_taken_away() {
    let lab = Lab::raise(&Uplink::new());
    let before = lab.state();
    let mut daemon = Daemon::up(&lab, &["translator=userspace"]);
    lab.host("ip link delete clat");
    daemon.wait_for("word of it", || {
        daemon_says(&lab, "somebody deleted the CLAT device clat") || daemon_says(&lab, "the translator on clat died")
    });
    daemon.wait_until_running(&lab);
    traffic::works(&lab);
    daemon.stop(Signal::SIGTERM);
    lab.assert_state_is(&before, "after the stop");
}

/// What others take away while clatd runs is no reason to fail at the stop.
#[test]
fn already_gone_is_fine() {
    let lab = Lab::raise(&Uplink::new());
    let before = lab.state();
    lab.host("ip6tables -P FORWARD DROP");
    let mut daemon = Daemon::up(&lab, &["translator=userspace"]);
    lab.host("nft flush ruleset; ip -4 route flush default; ip -6 neigh del proxy $(ip -6 neigh show proxy | cut -d' ' -f1) dev up0");
    daemon.stop(Signal::SIGTERM);
    lab.assert_state_is(&before, "after others had taken things away");
}

/// A sysctl that somebody set to something else meanwhile is theirs.
#[test]
fn others_sysctls_are_not_overwritten() {
    let lab = Lab::raise(&Uplink::new());
    // The fast path would leave it alone anyway.
    let mut daemon = Daemon::up(&lab, &["translator=userspace"]);
    assert_eq!(lab.host("sysctl -n net.ipv6.conf.up0.accept_ra").trim(), "2");
    lab.host("sysctl -qw net.ipv6.conf.up0.accept_ra=0");
    daemon.stop(Signal::SIGTERM);
    assert_eq!(lab.host("sysctl -n net.ipv6.conf.up0.accept_ra").trim(), "0");
}
