//! The command line: what words mean, and what is said of those that mean nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::path::PathBuf;

use clatd::cli::{COMMANDS, Command, OPTIONS, Options, help_text, parse, topic_text, version_text};
use clatd::config::keys;

fn run(words: &[&str]) -> Options {
    match parse(words) {
        Ok(Command::Run(options)) => options,
        other => panic!("{words:?}: {other:?}"),
    }
}

fn error(words: &[&str]) -> String {
    let text = parse(words).expect_err(&words.join(" ")).to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[test]
fn nothing_means_run() {
    assert_eq!(run(&[]), Options::default());
    assert_eq!(run(&["run"]), Options::default());
}

#[test]
fn flags_add_up_together_or_apart() {
    for words in [&["-q", "-d", "-d"][..], &["-qdd"], &["-dqd"], &["-dd", "-q"]] {
        let options = run(words);
        assert_eq!((options.quiet, options.debug), (1, 2), "{words:?}");
    }
}

#[test]
fn the_configuration_file_in_all_spellings() {
    let spellings = [
        &["-c", "/etc/x.conf"][..],
        &["-c/etc/x.conf"],
        &["-qc", "/etc/x.conf"],
        &["-dqc/etc/x.conf"],
        &["--config", "/etc/x.conf"],
        &["--config=/etc/x.conf"],
    ];
    for words in spellings {
        assert_eq!(run(words).config, [PathBuf::from("/etc/x.conf")], "{words:?}");
    }
    assert_eq!(run(&["-c", "-q"]).config, [PathBuf::from("-q")]);
    // As Debian's clatd@.service does.
    let several = run(&["-c", "a", "-qcb", "--config=c"]).config;
    assert_eq!(several, ["a", "b", "c"].map(PathBuf::from));
    assert_eq!(run(&["--instances-dir", "d"]).instances_dir, Some(PathBuf::from("d")));
    assert_eq!(run(&["--instances-dir=d"]).instances_dir, Some(PathBuf::from("d")));
}

#[test]
fn flags_and_words_in_any_order() {
    let expected = parse(["plan", "-d", "-c", "f", "--json", "wan0", "plat-dev=wan0"]).unwrap();
    for words in [
        ["plat-dev=wan0", "plan", "wan0", "--json", "-c", "f", "-d"],
        ["--json", "-d", "plan", "plat-dev=wan0", "-c", "f", "wan0"],
    ] {
        assert_eq!(parse(words).unwrap(), expected);
    }
    match expected {
        Command::Plan {
            options,
            json,
            instance,
        } => {
            assert!(json);
            assert_eq!(instance.as_deref(), Some("wan0"));
            assert_eq!(options.settings, [("plat-dev".to_owned(), "wan0".to_owned())]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn settings_keep_their_order_and_their_equals_signs() {
    let options = run(&["script-up=ip route add x=y", "plat-prefix=", "clat-dev = x "]);
    let settings: Vec<(&str, &str)> = options
        .settings
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    assert_eq!(
        settings,
        [
            ("script-up", "ip route add x=y"),
            ("plat-prefix", ""),
            ("clat-dev", "x")
        ]
    );
}

#[test]
fn a_dry_run_is_a_plan() {
    let plan = |words: &[&str]| matches!(parse(words), Ok(Command::Plan { .. }));
    assert!(plan(&["--dry-run"]) && plan(&["plan"]) && plan(&["plan", "--dry-run"]) && plan(&["run", "--dry-run"]));
    assert!(plan(&["--dry-run", "--json"]));
    assert_eq!(parse(["--dry-run", "wan0"]).unwrap(), parse(["plan", "wan0"]).unwrap());
    assert_eq!(parse(["plan", "plan"]).unwrap(), parse(["plan", "--", "plan"]).unwrap());
    assert!(matches!(
        parse(["cleanup", "--dry-run"]),
        Ok(Command::Cleanup { dry_run: true, .. })
    ));
    assert!(matches!(
        parse(["cleanup"]),
        Ok(Command::Cleanup { dry_run: false, .. })
    ));
}

#[test]
fn every_command() {
    assert!(matches!(parse(["check", "-c", "f", "quiet=1"]), Ok(Command::Check(_))));
    assert!(matches!(parse(["reload"]), Ok(Command::Reload(_))));
    assert!(matches!(
        parse(["discover", "--json", "wan0"]),
        Ok(Command::Discover {
            json: true,
            device: Some(_),
            ..
        })
    ));
    assert!(matches!(
        parse(["status"]),
        Ok(Command::Status {
            json: false,
            instance: None,
            ..
        })
    ));
    assert!(matches!(
        parse(["status", "--json", "wan0"]),
        Ok(Command::Status {
            json: true,
            instance: Some(_),
            ..
        })
    ));
    match parse([
        "translate",
        "--mtu4=1500",
        "--config",
        "f",
        "in.pcap",
        "--mtu6",
        "1280",
        "out.pcap",
    ])
    .unwrap()
    {
        Command::Translate {
            options,
            mtu4,
            mtu6,
            input,
            output,
        } => {
            assert_eq!((mtu4, mtu6), (Some(1500), Some(1280)));
            assert_eq!((input, output), (PathBuf::from("in.pcap"), PathBuf::from("out.pcap")));
            assert_eq!(options.config, [PathBuf::from("f")]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn all_commands_of_the_table_are_known() {
    for command in COMMANDS {
        let words: &[&str] = match command.name {
            "translate" => &["-c", "f", "in.pcap", "out.pcap"],
            _ => &[],
        };
        let parsed = parse([&[command.name], words].concat()).unwrap();
        let shown = format!("{parsed:?}").to_lowercase();
        assert!(shown.starts_with(command.name), "{}: {shown}", command.name);
    }
}

#[test]
fn help_and_version_answer_at_once() {
    for words in [
        &["-h"][..],
        &["--help"],
        &["-qh"],
        &["nonsense", "--help"],
        &["plan", "-h", "--nonsense"],
    ] {
        assert_eq!(parse(words), Ok(Command::Help { topic: None }), "{words:?}");
    }
    assert_eq!(parse(["-V"]), Ok(Command::Version));
    assert_eq!(parse(["--version"]), Ok(Command::Version));
    assert!(parse(["--", "-h"]).is_err());
    assert_eq!(version_text(), format!("clatd {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn help_and_version_are_commands_too() {
    assert_eq!(parse(["help"]), Ok(Command::Help { topic: None }));
    assert_eq!(parse(["version"]), Ok(Command::Version));
    let topics = COMMANDS
        .iter()
        .map(|command| command.name)
        .chain(keys::all().map(|key| key.name));
    for topic in topics {
        let parsed = parse(["help", topic]).unwrap();
        let expected = Some(topic.to_owned());
        assert_eq!(parsed, Command::Help { topic: expected });
        let text = topic_text(topic);
        assert!(text.lines().next().unwrap().contains(topic), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }
    let plan = topic_text("plan");
    assert!(
        plan.contains("Usage: clatd plan [INSTANCE] [OPTIONS] [KEY=VALUE ...]"),
        "{plan}"
    );
    assert!(plan.contains("--json") && !plan.contains("--mtu4"), "{plan}");
    let key = topic_text("when-idle");
    assert!(
        key.starts_with("when-idle=exit|wait\n") && key.contains("follows the network"),
        "{key}"
    );
}

#[test]
fn each_mistake_is_named() {
    let cases: &[(&[&str], &str)] = &[
        (&["-x"], "unknown option -x (try: clatd --help)"),
        (&["-qx"], "unknown option -x in \"-qx\" (try: clatd --help)"),
        (&["--dryrun"], "unknown option --dryrun (did you mean --dry-run?)"),
        (
            &["--plat-dev=wan0"],
            "unknown option --plat-dev (a setting has no dashes: plat-dev=VALUE)",
        ),
        (&["--json=yes", "plan"], "--json takes no argument (try: clatd --help)"),
        (&["-c"], "-c needs an argument (write -c FILE)"),
        (
            &["--instances-dir"],
            "--instances-dir needs an argument (write --instances-dir DIR)",
        ),
        (&["--config="], "--config needs an argument (write --config FILE)"),
        (
            &["--instances-dir=a", "--instances-dir", "b"],
            "--instances-dir is given twice (once is enough)",
        ),
        (&["wan0"], "unknown command \"wan0\" (try: clatd --help)"),
        (&["statsu"], "unknown command \"statsu\" (did you mean status?)"),
        (
            &["clat-dev", "x"],
            "unknown command \"clat-dev\" (write clat-dev=VALUE)",
        ),
        (
            &["plat-prefxi=x"],
            "unknown key \"plat-prefxi\" in \"plat-prefxi=x\" (did you mean plat-prefix?)",
        ),
        (
            &["colour=blue"],
            "unknown key \"colour\" in \"colour=blue\" (clatd --help lists the keys)",
        ),
        (
            &["=x"],
            "no key in front of the \"=\" in \"=x\" (write KEY=x, without blanks)",
        ),
        (
            &["clat-dev", "=", "x"],
            "no key in front of the \"=\" in \"=\" (write clat-dev=VALUE, without blanks)",
        ),
        (
            &["plan", "clat-dev", "=x"],
            "no key in front of the \"=\" in \"=x\" (write clat-dev=x, without blanks)",
        ),
        (
            &["clat-dev=", "x"],
            "unknown command \"x\" (write clat-dev=x, without blanks)",
        ),
        (
            &["help", "statsu"],
            "there is no command and no key \"statsu\" (did you mean status?)",
        ),
        (
            &["help", "plat-prefxi"],
            "there is no command and no key \"plat-prefxi\" (did you mean plat-prefix?)",
        ),
        (
            &["version", "clat-dev=x"],
            "version takes no settings, such as \"clat-dev=x\" (try: clatd --help)",
        ),
        (
            &["check", "wan0"],
            "unexpected word \"wan0\" after check (try: clatd --help)",
        ),
        (
            &["plan", "wan0", "wan1"],
            "unexpected word \"wan1\" after plan (try: clatd --help)",
        ),
        (
            &["status", "plat-dev=x"],
            "status takes no settings, such as \"plat-dev=x\" (try: clatd --help)",
        ),
        (
            &["--json"],
            "--json does not go with run (it goes with plan, discover, status, doctor, events)",
        ),
        (
            &["check", "--dry-run"],
            "--dry-run does not go with check (it goes with run, plan, cleanup)",
        ),
        (
            &["translate", "a", "b"],
            "translate needs --config FILE (a clatd.conf with at least plat-prefix)",
        ),
        (
            &["translate", "--config=f", "a"],
            "translate needs IN.pcap and OUT.pcap (try: clatd --help)",
        ),
        (
            &["translate", "--mtu6=1000"],
            "--mtu6 1000: expected a number of bytes from 1280 to 65535 (try: clatd --help)",
        ),
        (
            &["plan", "--mtu4=1500"],
            "--mtu4 does not go with plan (it goes with translate)",
        ),
        (&["-"], "unknown command \"-\" (try: clatd --help)"),
        (&[""], "unknown command \"\" (try: clatd --help)"),
    ];
    for (words, expected) in cases {
        assert_eq!(error(words), *expected, "{words:?}");
    }
}

#[test]
fn words_that_are_not_utf8_are_refused() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    let word = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    assert!(parse([word(b"plat-dev=\xff")]).is_err());
    assert!(parse([word(b"-\xff")]).is_err());
    // A file may be called anything.
    let parsed = parse([word(b"-c\xff.conf")]).unwrap();
    assert_eq!(
        parsed,
        Command::Run(Options {
            config: vec![word(b"\xff.conf").into()],
            ..Options::default()
        })
    );
}

#[test]
fn the_help_lists_all_there_is() {
    let help = help_text();
    for command in COMMANDS {
        assert!(help.contains(&format!("\n  {}", command.name)), "{}", command.name);
    }
    for option in OPTIONS {
        assert!(help.contains(&option.spelling()), "{}", option.spelling());
    }
    for key in keys::all() {
        let line = help
            .lines()
            .find(|line| line.trim_start().starts_with(&format!("{} ", key.name)));
        assert!(line.is_some(), "{}", key.name);
    }
    assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false, snapshot_path => "cli" }, {
        insta::assert_snapshot!("help", help);
    });
}

/// The program itself: exit status, standard output, standard error.
fn clatd(dir: &std::path::Path, words: &[&str]) -> (Option<i32>, String, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_clatd"))
        .current_dir(dir)
        .env("CLATD_RUNTIME_DIR", dir.join("run"))
        .args(words)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_program_answers_on_the_right_stream_with_the_right_status() {
    let dir = tempfile::tempdir().unwrap();
    let help = clatd(dir.path(), &["--help"]);
    assert_eq!(help, (Some(0), help_text(), String::new()));
    assert_eq!(clatd(dir.path(), &["-V"]), (Some(0), version_text(), String::new()));
    for words in [
        &["--nonsense"][..],
        &["nonsense"],
        &["colour=blue"],
        &["--instances-dir", "a", "--instances-dir", "b"],
    ] {
        let (status, out, err) = clatd(dir.path(), words);
        assert_eq!(
            (status, out.as_str(), err.lines().count()),
            (Some(1), "", 1),
            "{words:?}: {err}"
        );
        assert!(words.iter().any(|word| err.contains(word)), "{err}");
    }
}

#[test]
fn check_prints_all_that_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    std::fs::create_dir(path.join("i")).unwrap();
    std::fs::write(path.join("good.conf"), "clat-dev=clat0\ncolour=blue\ncmd-ip=/sbin/ip\n").unwrap();
    std::fs::write(path.join("bad.conf"), "clat-dev=a/b\n\nplat-prefix=x\n").unwrap();
    let (status, out, err) = clatd(path, &["check", "-c", "good.conf", "--instances-dir", "i"]);
    assert_eq!(
        (status, out.as_str(), err.as_str()),
        (
            Some(0),
            "ok: 1 instance (clat0), 1 warning\n",
            "warning: good.conf:2: unknown key \"colour\" is ignored\n"
        )
    );
    let (status, out, err) = clatd(path, &["check", "-d", "-c", "good.conf", "--instances-dir", "i"]);
    assert_eq!(status, Some(0));
    assert!(
        out.contains("instance clat0\n") && out.contains("\n  clat-dev=clat0  [good.conf:1]\n"),
        "{out}"
    );
    assert!(
        err.contains("note: good.conf:3: cmd-ip is given to scripts but otherwise unused"),
        "{err}"
    );
    let (status, out, err) = clatd(path, &["check", "-c", "bad.conf", "--instances-dir", "i", "quiet=x"]);
    assert_eq!((status, out.as_str()), (Some(1), "not ok: 3 errors, 0 warnings\n"));
    let places: Vec<&str> = err.lines().map(|line| line.split(": ").nth(1).unwrap()).collect();
    assert_eq!(places, ["bad.conf:1", "bad.conf:3", "command line"], "{err}");
}

#[test]
fn check_warns_of_a_route_that_few_uplinks_carry() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("i")).unwrap();
    let check = |word: &str| clatd(dir.path(), &["check", "-c", "/dev/null", "--instances-dir", "i", word]);
    let (status, out, err) = check("v4-defaultroute-mtu=9000");
    assert_eq!((status, out.as_str()), (Some(0), "ok: 1 instance (clat), 1 warning\n"));
    assert_eq!(
        err,
        "warning: command line: v4-defaultroute-mtu=9000: is more than most uplinks carry: 1480 fit an MTU of 1500 \
         (auto fits the uplink)\n"
    );
    assert_eq!(check("v4-defaultroute-mtu=1480").2, "");
}

/// A capture is read from a regular file: a fifo that nobody writes holds nobody up.
#[test]
fn translate_waits_for_no_writer() {
    let bed = tempfile::tempdir().unwrap();
    let (config, fifo) = (bed.path().join("clatd.conf"), bed.path().join("in.pcap"));
    std::fs::write(&config, "plat-prefix=64:ff9b::/96\nclat-v6-addr=2001:db8::1\n").unwrap();
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_clatd"))
        .arg("translate")
        .arg("-c")
        .arg(&config)
        .arg(&fifo)
        .arg(bed.path().join("out.pcap"))
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let ended = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        child.try_wait().unwrap().is_some()
    });
    if !ended {
        child.kill().unwrap();
    }
    let said = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
    assert!(ended, "it waits for somebody to write");
    let file = fifo.display().to_string();
    assert!(
        said.contains(&file) && said.contains("it is a fifo, expected a regular file"),
        "{said}"
    );
    assert!(!bed.path().join("out.pcap").exists());
}
