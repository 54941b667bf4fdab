//! Scripts, programs and files that hang, and other clatds: nothing is waited for without a limit, a stop is always
//! heard, and a running CLAT is torn down by nobody else.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::bed::{Lab, Ran, SERVER, Uplink, poll};
use crate::daemon::{Daemon, clatd, program};

fn says(daemon: &Daemon, words: &str) {
    let said = poll(Duration::from_secs(20), || daemon.output().contains(words));
    assert!(said, "no \"{words}\" in\n{}", daemon.output());
}

#[test]
fn a_script_down_that_hangs_is_ended_and_the_rest_is_undone() {
    let lab = Lab::raise(&Uplink::new());
    let before = lab.state();
    let script = "script-down=trap '' TERM; sleep 1000; sleep 1000";
    let mut daemon = Daemon::up(&lab, &[script, "script-timeout=2"]);
    daemon.signal(Signal::SIGTERM);
    let ran = daemon.wait_exit(Duration::from_secs(40));
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(ran.err.contains("did not end within 2 s"), "{ran}");
    lab.assert_state_is(&before, "after the stop");
    lab.assert_no_process_left("after the stop");
}

/// What a killed clatd left has a script that hangs: the next start, and cleanup, hear a stop all the same, and undo the
/// rest.
#[test]
fn a_stop_is_heard_while_leftovers_are_undone() {
    let lab = Lab::raise(&Uplink::new());
    let before = lab.state();
    for cleanup in [false, true] {
        let mut daemon = Daemon::up(&lab, &["script-down=sleep 1000"]);
        daemon.kill();
        let words: &[&str] = if cleanup { &["cleanup"] } else { &[] };
        let mut next = Daemon::start(&lab, words);
        says(&next, "running the script");
        let begun = Instant::now();
        next.signal(Signal::SIGTERM);
        let ran = next.wait_exit(Duration::from_secs(30));
        assert!(
            begun.elapsed() < Duration::from_secs(25),
            "{:?}: {ran}",
            begun.elapsed()
        );
        assert_eq!(ran.code, Some(1), "the script was cut off: {ran}");
        lab.assert_state_is(&before, &format!("after the stop of {words:?}"));
        lab.assert_no_process_left(&format!("after the stop of {words:?}"));
    }
}

#[test]
fn a_resolv_conf_that_is_a_fifo_holds_nobody() {
    let lab = Lab::raise(&Uplink::new().without_rdnss());
    let namespace = lab.command("host").get_args().nth(2).unwrap().to_owned();
    let path = format!("/etc/netns/{}/resolv.conf", namespace.to_string_lossy());
    let line = format!("rm {path} && mkfifo {path}");
    assert!(
        std::process::Command::new("sh")
            .args(["-c", &line])
            .status()
            .unwrap()
            .success()
    );
    let mut daemon = Daemon::start(&lab, &["when-idle=wait"]);
    says(&daemon, "it is a fifo");
    daemon.stop(Signal::SIGTERM);
}

#[test]
fn an_nft_that_leaves_a_child_with_its_pipes_is_no_hung_one() {
    let lab = Lab::raise(&Uplink::new());
    let nft = lab.program("nft", "#!/bin/sh\nsleep 20 &\nexec nft \"$@\"\n");
    let begun = Instant::now();
    let words = ["clat-v6-addr=shared", "translator=userspace", &format!("cmd-nft={nft}")];
    let mut daemon = Daemon::up(&lab, &words);
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}\n{}",
        begun.elapsed(),
        daemon.output()
    );
    daemon.stop(Signal::SIGTERM);
}

#[test]
fn another_clatd_in_the_same_namespace_is_refused_and_harms_nothing() {
    let lab = Lab::raise(&Uplink::new());
    let mut daemon = Daemon::up(&lab, &[]);
    let running = lab.state();
    for words in ["", "cleanup", "cleanup --dry-run"] {
        let other = lab.file("other").display().to_string();
        let line = format!("CLATD_RUNTIME_DIR={other} timeout 30 {} {words}", program());
        let ran: Ran = lab.run("host", &line);
        assert_eq!(ran.code, Some(1), "{words}: {ran}");
        let said = format!("{}{}", ran.out, ran.err);
        let pid = format!("another clatd (process {})", daemon.pid());
        let place = format!("the runtime directory {}", lab.file("run").display());
        assert!(said.contains(&pid) && said.contains(&place), "{words}: {ran}");
        lab.assert_state_is(&running, &format!("after clatd {words} beside a running one"));
    }
    assert_eq!(clatd(&lab, &["cleanup"]).code, Some(1));
    lab.host(&format!("ping -n -c 1 -W 5 {SERVER}"));
    daemon.stop(Signal::SIGTERM);
}

#[test]
fn a_flushed_ruleset_of_a_shared_address_comes_back() {
    let lab = Lab::raise(&Uplink::new());
    let mut daemon = Daemon::up(&lab, &["clat-v6-addr=shared", "translator=userspace"]);
    lab.host("nft flush ruleset");
    daemon.wait_for("IPv4 after the flush", || {
        lab.run("host", &format!("ping -n -c 1 -W 1 {SERVER}")).code == Some(0)
    });
    daemon.stop(Signal::SIGTERM);
}
