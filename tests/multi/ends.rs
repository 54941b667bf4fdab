//! Ends: killed, stopped half-way, failed; with three instances each.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::daemon::Daemon;
use crate::home::{
    EVERY_UPLINK, device, in_state, instance, leaves_by, running, says, sorted_state, start, stop, three, tool,
};

/// `kill -9`: cleanup takes everything away, and so does the next start.
#[test]
fn killed_with_three_instances() {
    let lab = three();
    lab.host("nft 'table inet filter { chain forward { type filter hook forward priority filter; policy drop; }; }'");
    let before = lab.state();
    // It changes more than the fast path does.
    start(&lab, &[EVERY_UPLINK, "translator=userspace"], 3).kill();
    assert_ne!(
        lab.host("ip -4 rule").matches("proto 46").count(),
        0,
        "kill -9 leaves something"
    );
    assert!(
        lab.host("nft list ruleset").contains("clatd:"),
        "rules in a chain of others, too"
    );
    let said = tool(&lab, &["cleanup", "--dry-run"]).ok("cleanup --dry-run");
    for k in 0..3 {
        assert!(said.contains(&format!("clat@up{k}")), "{said}");
    }
    tool(&lab, &["cleanup"]).ok("cleanup");
    lab.assert_state_is(&before, "after kill -9 and cleanup");

    start(&lab, &[EVERY_UPLINK], 3).kill();
    let mut daemon = start(&lab, &[EVERY_UPLINK], 3);
    says(&mut daemon, "undoing what a killed clatd left");
    for k in 0..3 {
        leaves_by(&lab, Some(&device(k)), k);
    }
    daemon.stop(Signal::SIGTERM);
    lab.assert_state_is(&before, "after kill -9, a fresh start and its stop");
    lab.assert_no_process_left("after the stop");
}

/// SIGTERM at several moments of the set-up of three instances.
#[test]
fn stopped_during_the_set_up_of_three() {
    let lab = three();
    let before = lab.state();
    for delay in [30, 80, 150, 250, 400, 700] {
        let mut daemon = Daemon::start(&lab, &[EVERY_UPLINK, "script-up=sleep 0.2"]);
        daemon.wait_for("its first word", || true);
        says(&mut daemon, "clatd");
        std::thread::sleep(Duration::from_millis(delay));
        let ran = daemon.stop(Signal::SIGTERM);
        drop(daemon);
        lab.assert_state_is(&before, &format!("SIGTERM after {delay} ms:\n{ran}"));
        lab.assert_no_process_left("after the stop");
    }
}

/// One instance's script-up fails, again and again: the others do not notice.
#[test]
fn one_that_fails_leaves_the_others_alone() {
    let lab = three();
    let before = sorted_state(&lab);
    for (k, script) in ["true", "exit 7", "true"].into_iter().enumerate() {
        instance(
            &lab,
            &format!("up{k}"),
            &format!("plat-dev=up{k}\nscript-up={script}\n"),
        );
    }
    // Attempts after the first one are said at debug level.
    let mut daemon = start(&lab, &["debug=1"], 2);
    says(&mut daemon, "trying again");
    let attempts = || {
        lab.read("clatd.err").matches("trying again").count() + lab.read("clatd.out").matches("trying again").count()
    };
    let first = attempts();
    daemon.wait_for("another attempt", || attempts() > first);
    assert_eq!(in_state(&lab, "running"), ["up0", "up2"]);
    leaves_by(&lab, Some(&device(0)), 0);
    leaves_by(&lab, Some(&device(2)), 2);
    assert_eq!(
        daemon.output().matches("clat-up0 is up").count(),
        1,
        "no attempt disturbs the others:\n{}",
        daemon.output()
    );
    let error = crate::home::status_of(&lab, "up1")["last_error"].to_string();
    assert!(error.contains("script-up") && error.contains('7'), "{error}");

    // With another script it comes up.
    instance(&lab, "up1", "plat-dev=up1\nscript-up=true\n");
    tool(&lab, &["reload"]).ok("clatd reload");
    running(&lab, &mut daemon, 3);
    stop(&lab, &mut daemon, &before, &[]);
}
