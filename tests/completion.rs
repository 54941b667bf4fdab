//! The completions, asked by the shells themselves.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// What a shell offers for a line, one a line.
type Ask = fn(&str) -> Vec<String>;

const SHELLS: [(&str, Ask); 3] = [("bash", bash), ("zsh", zsh), ("fish", fish)];

/// A daemon that knows two instances answers `clatd status --json`.
fn with_clatd(command: &mut Command) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let clatd = dir.path().join("clatd");
    let status = concat!(
        "#!/bin/sh\n[ \"$*\" = 'status --json' ] && cat <<'JSON'\n{\n  \"version\": 1,\n  \"instances\": [\n    {\n",
        "      \"name\": \"fibre\",\n      \"facts\": {\n        \"name\": \"deeper\"\n      }\n    },\n    {\n",
        "      \"name\": \"lte@wwan0\"\n    }\n  ]\n}\nJSON\n"
    );
    fs::write(&clatd, status).unwrap();
    fs::set_permissions(&clatd, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let output = command
        .env("PATH", path)
        .env("HOME", dir.path())
        .env("XDG_CONFIG_HOME", dir.path())
        .env("TERM", "dumb")
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && errors.is_empty(), "{command:?}: {errors}");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

fn bash(line: &str) -> Vec<String> {
    let script = "source \"$1\"; COMP_LINE=$2 COMP_POINT=${#2} COMP_WORDBREAKS=${3-}; _clatd; printf '%s\\n' \"${COMPREPLY[@]}\"";
    with_clatd(
        Command::new("bash")
            .args(["--norc", "-c", script, "bash"])
            .arg(file("completions/clatd.bash"))
            .arg(line),
    )
}

fn zsh(line: &str) -> Vec<String> {
    with_clatd(
        Command::new("zsh")
            .arg("-f")
            .arg(file("tests/completion/ask.zsh"))
            .arg(file("completions"))
            .arg(line),
    )
}

fn fish(line: &str) -> Vec<String> {
    let script = "source $argv[1]; complete -C $argv[2] | string replace -r '\\t.*' ''; true";
    with_clatd(
        Command::new("fish")
            .args(["--no-config", "-c", script])
            .arg(file("completions/clatd.fish"))
            .arg(line),
    )
}

/// Each shell offers all of these and none of those.
fn offers(line: &str, all: &[&str], none: &[&str]) {
    for (shell, ask) in SHELLS {
        let mut offered = ask(line);
        offered.iter_mut().for_each(|word| word.truncate(word.trim_end().len()));
        for word in all {
            assert!(
                offered.iter().any(|offer| offer == word),
                "{shell}: {line:?} -> {offered:?}, not {word:?}"
            );
        }
        for word in none {
            assert!(
                !offered.iter().any(|offer| offer == word),
                "{shell}: {line:?} -> {offered:?} with {word:?}"
            );
        }
    }
}

#[test]
fn commands_and_keys() {
    offers("clatd sta", &["status"], &["plan", "translator="]);
    offers("clatd -d plat-", &["plat-dev=", "plat-prefix="], &["nd="]);
    offers("clatd check nd", &["nd="], &["check", "reload"]);
}

#[test]
fn the_values_of_a_key() {
    offers(
        "clatd translator=u",
        &["translator=userspace"],
        &["translator=auto", "u"],
    );
    offers(
        "clatd plan translator=",
        &["translator=userspace", "translator=auto"],
        &[],
    );
    offers(
        "clatd forwarding-enable=",
        &["forwarding-enable=yes", "forwarding-enable=no"],
        &[],
    );
    offers("clatd discovery=ra,", &["discovery=ra,dns"], &["discovery=dns"]);
}

#[test]
fn devices() {
    offers("clatd plat-dev=l", &["plat-dev=lo"], &[]);
    offers("clatd discover l", &["lo"], &[]);
}

#[test]
fn instances_of_the_running_daemon() {
    offers("clatd status ", &["fibre", "lte@wwan0"], &["deeper", "translator="]);
}

#[test]
fn options_that_go_with_the_command() {
    offers("clatd status --", &["--json"], &["--mtu4", "--dry-run"]);
    offers("clatd translate --m", &["--mtu4", "--mtu6"], &["--json"]);
}

#[test]
fn files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("one.conf");
    fs::write(&path, "").unwrap();
    let path = path.display().to_string();
    offers(&format!("clatd -c {}", &path[..path.len() - 5]), &[&path], &[]);
}

/// Where bash cuts words at `=`, which is its default, it wants what is behind it.
#[test]
fn bash_that_cuts_at_the_equals_sign() {
    let script = "source \"$1\"; COMP_LINE=$2 COMP_POINT=${#2}; COMP_WORDBREAKS=' ='; _clatd; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let ask = |line: &str| {
        with_clatd(
            Command::new("bash")
                .args(["--norc", "-c", script, "bash"])
                .arg(file("completions/clatd.bash"))
                .arg(line),
        )
    };
    assert_eq!(ask("clatd translator=u"), ["userspace"]);
    assert_eq!(ask("clatd discovery=ra,d"), ["ra,dns"]);
}

/// Names of devices are data: one like `$(touch x)` runs nothing.
#[test]
fn nothing_in_a_name_is_run() {
    let dir = tempfile::tempdir().unwrap();
    let trap = dir.path().join("ran");
    let script = format!(
        "source \"$1\"; _clatd_devices() {{ echo '$(touch {})'; }}; COMP_LINE=$2 COMP_POINT=${{#2}}; _clatd; true",
        trap.display()
    );
    with_clatd(
        Command::new("bash")
            .args(["--norc", "-c", &script, "bash"])
            .arg(file("completions/clatd.bash"))
            .arg("clatd plat-dev="),
    );
    assert!(!trap.exists());
}
