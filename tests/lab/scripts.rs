//! script-up and script-down: when they run and what they are told.

use std::collections::BTreeMap;

use crate::bed::{DERIVED_V6, Lab, SERVER, Uplink};
use crate::daemon::{Daemon, clatd};
use nix::sys::signal::Signal;

/// Every key that clatd documents, as the scripts see it, with what it must hold here (`None`: anything).
const KEYS: &[(&str, Option<&str>)] = &[
    ("quiet", None),
    ("debug", None),
    ("script_up", None),
    ("script_down", None),
    ("clat_dev", Some("clat")),
    ("clat_v4_addr", Some("192.0.0.1")),
    ("clat_v6_addr", Some(DERIVED_V6)),
    ("dns64_servers", Some("")),
    ("cmd_ip", None),
    ("cmd_ip6tables", None),
    ("cmd_tayga", None),
    ("forwarding_enable", None),
    ("ip6tables_enable", None),
    ("plat_dev", Some("up0")),
    ("plat_prefix", Some("64:ff9b::/96")),
    ("proxynd_enable", None),
    ("tayga_conffile", None),
    ("tayga_v4_addr", Some("192.0.0.2")),
    ("v4_conncheck_enable", None),
    ("v4_conncheck_delay", Some("0")),
    ("v4_defaultroute_enable", None),
    ("v4_defaultroute_replace", None),
    ("v4_defaultroute_metric", Some("2048")),
    ("v4_defaultroute_mtu", Some("1480")),
    ("v4_defaultroute_advmss", Some("1440")),
    ("instance", Some("clat")),
];

fn environment(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once('=')).collect()
}

#[test]
fn scripts_get_every_setting_with_what_was_detected() {
    let lab = Lab::raise(&Uplink::new());
    let before = lab.state();
    let (up, down) = (lab.file("up.env"), lab.file("down.env"));
    // The shell is asked too: `sh -c` runs it, so that pipes and variables work.
    let script_up = format!(
        "script-up=env | sort >{}; ip -4 route show default >>{}",
        up.display(),
        up.display()
    );
    let script_down = format!(
        "script-down=env | sort >{}; ip -o link show $clat_dev >>{}",
        down.display(),
        down.display()
    );
    let mut daemon = Daemon::up(&lab, &[&script_up, &script_down]);
    assert!(!down.exists(), "script-down waits for the end");
    daemon.stop(Signal::SIGTERM);
    lab.assert_state_is(&before, "after the stop");
    for name in ["up.env", "down.env"] {
        let text = lab.read(name);
        let found = environment(&text);
        for (key, want) in KEYS {
            let got = found.get(key).unwrap_or_else(|| panic!("{key} in {name}:\n{text}"));
            assert!(
                want.is_none_or(|want| want == *got),
                "{name}: {key} is {got:?}, not {want:?}"
            );
        }
    }
    // script-up is the last step before the translator starts; script-down runs before the clean-up.
    assert!(
        lab.read("up.env").contains("default dev clat"),
        "script-up runs when the routes are there:\n{}",
        lab.read("up.env")
    );
}

#[test]
fn a_failing_script_down_exits_1_after_the_clean_up() {
    let lab = Lab::raise(&Uplink::new());
    let before = lab.state();
    let mut daemon = Daemon::up(&lab, &["script-down=echo last words of the script >&2; exit 3"]);
    daemon.signal(Signal::SIGTERM);
    let ran = daemon.wait_exit(std::time::Duration::from_secs(20));
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(
        format!("{}{}", ran.out, ran.err).contains("script-down"),
        "says which script: {ran}"
    );
    lab.assert_state_is(&before, "after the stop");
}

#[test]
fn a_failing_script_up_undoes_everything() {
    let lab = Lab::raise(&Uplink::new());
    let before = lab.state();
    let down = lab.file("down-ran");
    let ran = clatd(
        &lab,
        &["script-up=exit 3", &format!("script-down=touch {}", down.display())],
    );
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(
        format!("{}{}", ran.out, ran.err).contains("script-up"),
        "says which script: {ran}"
    );
    lab.assert_state_is(&before, "after a failed script-up");
    lab.assert_no_process_left("after a failed script-up");
    assert_ne!(lab.run("host", &format!("ping -n -c 1 -W 1 {SERVER}")).code, Some(0));
}

/// Stopped while script-up runs: the step ends, then everything is undone.
#[test]
fn a_stop_during_script_up_undoes_everything() {
    let lab = Lab::raise(&Uplink::new());
    let before = lab.state();
    let started = lab.file("started");
    let mut daemon = Daemon::start(&lab, &[&format!("script-up=touch {}; sleep 3", started.display())]);
    daemon.wait_for("script-up", || started.exists());
    daemon.stop(Signal::SIGTERM);
    lab.assert_state_is(&before, "after a stop during script-up");
    lab.assert_no_process_left("after a stop during script-up");
}
