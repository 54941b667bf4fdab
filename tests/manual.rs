//! The manual, the sample configuration and the shell completion against the tables that they come from.
//! When they are stale: scripts/bless

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clatd::cli::{COMMANDS, OPTIONS, Options, completion};
use clatd::config::{Paths, keys, load_from, manual};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(file(name)).unwrap_or_default()
}

/// Compares a file with what it should be. `scripts/bless` makes it so.
fn assert_fresh(name: &str, expected: &str) {
    let bless = std::env::var_os("INSTA_UPDATE").is_some_and(|update| update == "always");
    if bless {
        fs::create_dir_all(file(name).parent().unwrap()).unwrap();
        fs::write(file(name), expected).unwrap();
    }
    assert!(
        read(name) == expected,
        "{name} is stale; bring it up to date by: scripts/bless"
    );
}

#[test]
fn the_pages_are_fresh() {
    for name in ["man/clatd.8", "man/clatd.conf.5"] {
        assert_fresh(name, &manual::refresh(&read(name)));
    }
}

#[test]
fn every_generated_part_is_in_a_page() {
    let pages = read("man/clatd.8") + &read("man/clatd.conf.5");
    for (name, _) in manual::parts() {
        assert!(pages.contains(&format!("{}{name}\n", manual::BEGIN)), "{name}");
    }
    assert_eq!(pages.matches(manual::BEGIN).count(), pages.matches(manual::END).count());
}

#[test]
fn the_synopsis_has_all_commands_and_options() {
    let page = read("man/clatd.8");
    let synopsis = page
        .split(".Sh SYNOPSIS")
        .nth(1)
        .unwrap()
        .split(".Sh DESCRIPTION")
        .next()
        .unwrap();
    for command in COMMANDS.iter().filter(|command| command.name != "run") {
        assert!(
            synopsis.contains(&format!(".Cm {}\n", command.name)),
            "{}",
            command.name
        );
    }
    for option in OPTIONS {
        let short = option.short.map(|short| format!("Fl {short}"));
        let long = option.long.map(|long| format!("Fl \\-{}", long.replace('-', "\\-")));
        assert!(
            short.iter().chain(&long).any(|name| synopsis.contains(name.as_str())),
            "{}",
            option.spelling()
        );
    }
}

#[test]
fn the_sample_is_fresh_and_says_nothing_but_defaults() {
    let sample = manual::sample();
    assert_fresh("man/clatd.conf.sample", &sample);
    let defaults: String = sample
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| line.split_once('=').is_some_and(|(key, _)| keys::find(key).is_some()))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(defaults.lines().count(), keys::all().count());
    let load = |text: &str| {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("clatd.conf");
        fs::write(&config, text).unwrap();
        let paths = Paths {
            config,
            instances_dir: dir.path().join("instances.d"),
            ..Paths::default()
        };
        let loaded = load_from(&Options::default(), &paths).unwrap();
        assert_eq!(loaded.warnings, Vec::<String>::new());
        loaded.instances[0].instance.settings.clone()
    };
    assert_eq!(load(&sample), load(""));
    assert_eq!(load(&defaults), load(""));
}

#[test]
fn the_completions_are_fresh() {
    assert_fresh("completions/clatd.bash", &completion::bash());
    assert_fresh("completions/_clatd", &completion::zsh());
    assert_fresh("completions/clatd.fish", &completion::fish());
}

#[test]
fn mandoc_finds_no_fault() {
    for name in ["man/clatd.8", "man/clatd.conf.5"] {
        let output = Command::new("mandoc")
            .args(["-T", "lint", "-W", "warning"])
            .arg(file(name))
            .output();
        let output = output.expect("mandoc is needed to check the manual: apt-get install mandoc");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{said}");
    }
}
