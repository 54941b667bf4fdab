//! What `clatd check` says of instances that cannot live together. Needs no lab.

use std::process::Command;

use crate::bed::Ran;
use crate::daemon::program;

fn check(files: &[(&str, &str)]) -> (Ran, String) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let output = Command::new(program())
        .args(["-c", "/dev/null", "check", "--instances-dir"])
        .arg(dir.path())
        .env("CLATD_RUNTIME_DIR", dir.path().join("run"))
        .output()
        .unwrap();
    (Ran::from(output), dir.path().display().to_string())
}

#[test]
fn a_clash_names_both_files() {
    for (key, value) in [
        ("clat-dev", "v4"),
        ("clat-v4-addr", "192.0.0.5"),
        ("clat-v6-addr", "2001:db8::46"),
        ("route-table", "4711"),
        ("v4-defaultroute-metric", "77"),
        ("ctmark", "0x46"),
    ] {
        let first = format!("plat-dev=wan0\n{key}={value}\n");
        let second = format!("# a comment\nplat-dev=wan1\n{key}={value}\n");
        let (ran, dir) = check(&[("fibre.conf", &first), ("lte.conf", &second)]);
        assert_eq!(ran.code, Some(1), "{key}: {ran}");
        let said = format!("{}{}", ran.out, ran.err);
        assert!(said.contains(&format!("{dir}/fibre.conf")), "{key}: {said}");
        assert!(said.contains(&format!("{dir}/lte.conf")), "{key}: {said}");
        assert!(said.contains(key) && said.contains(value), "{key}: {said}");
    }
}

/// Two templates for one uplink, two files for one uplink: allowed, but not in silence.
#[test]
fn an_uplink_that_two_files_want_is_warned_of() {
    for (first, second, warned) in [
        ("wwan*", "*", true),
        ("wwan*", "wwan?", true),
        ("wwan*", "wwan*", true),
        ("wwan*", "wlan*", false),
        ("wan0", "wan0", true),
        ("wan0", "wan1", false),
        ("wan0", "wan*", false),
    ] {
        let (ran, dir) = check(&[
            ("fibre.conf", &format!("plat-dev={first}\n")),
            ("lte.conf", &format!("plat-dev={second}\n")),
        ]);
        assert_eq!(ran.code, Some(0), "{first} {second}: {ran}");
        let warnings: Vec<_> = ran.err.lines().filter(|line| line.starts_with("warning:")).collect();
        assert_eq!(warnings.len(), usize::from(warned), "{first} {second}: {ran}");
        for warning in warnings {
            for word in [
                format!("{dir}/fibre.conf"),
                format!("{dir}/lte.conf"),
                first.to_owned(),
                second.to_owned(),
            ] {
                assert!(warning.contains(&word), "{word}: {warning}");
            }
        }
    }
}

/// Names that are the same up to where a device name ends: each instance still has a device of its own.
#[test]
fn long_names_never_clash() {
    let (ran, _) = check(&[
        ("a-very-long-name-one.conf", "plat-dev=wan0\n"),
        ("a-very-long-name-two.conf", "plat-dev=wan1\n"),
        ("a-very-long-name-three.conf", "plat-dev=wan2\n"),
    ]);
    assert_eq!(ran.code, Some(0), "{ran}");
    // One that is set counts for more than one that is made of a name.
    let (ran, _) = check(&[
        ("a-very-long-name-one.conf", "plat-dev=wan0\n"),
        ("b.conf", "plat-dev=wan1\nclat-dev=clat-a-very-lon\n"),
    ]);
    assert_eq!(ran.code, Some(0), "{ran}");
}

#[test]
fn what_is_left_out_never_clashes() {
    let files: Vec<(String, String)> = (0..6)
        .map(|k| (format!("wan{k}.conf"), format!("plat-dev=wan{k}\n")))
        .collect();
    let files: Vec<_> = files
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    let (ran, _) = check(&files);
    assert_eq!(ran.code, Some(0), "{ran}");
}

#[test]
fn all_clashes_are_reported_at_once() {
    let text = "clat-dev=v4\nroute-table=99\n";
    let (ran, dir) = check(&[
        ("a.conf", &format!("plat-dev=a\n{text}")),
        ("b.conf", &format!("plat-dev=b\n{text}")),
        ("c.conf", &format!("plat-dev=c\n{text}")),
    ]);
    assert_eq!(ran.code, Some(1), "{ran}");
    let said = format!("{}{}", ran.out, ran.err);
    for word in ["a.conf", "b.conf", "c.conf"] {
        assert!(said.contains(&format!("{dir}/{word}")), "{said}");
    }
    assert!(
        said.matches("clat-dev").count() >= 2 && said.matches("route-table").count() >= 2,
        "{said}"
    );
}
