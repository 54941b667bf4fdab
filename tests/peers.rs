//! PEERS.md against the tests that it names: each must be there, so that the table cannot drift.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::fs;
use std::path::{Path, PathBuf};

/// One row: the limit, what clatd does about it, and what shows it.
struct Row {
    limit: String,
    here: String,
    shown_by: Vec<String>,
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> Option<String> {
    fs::read_to_string(file(name)).ok()
}

/// The page without what scripts/peers writes into it, and that.
fn page() -> (String, String) {
    let page = read("PEERS.md").unwrap();
    let (before, rest) = page.split_once("<!-- measured: begin -->").unwrap();
    let (measured, after) = rest.split_once("<!-- measured: end -->").unwrap();
    (format!("{before}{after}"), measured.to_owned())
}

fn rows() -> Vec<Row> {
    let (page, _) = page();
    let tables = page.lines().filter(|line| line.starts_with('|'));
    let content = tables.filter(|line| !line.starts_with("| limit ") && !line.starts_with("|---"));
    content
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [limit, _, here, shown_by] = cells[..] else {
                panic!("four cells expected: {line}");
            };
            Row {
                limit: limit.to_owned(),
                here: here.to_owned(),
                // What stands between back-quotes.
                shown_by: shown_by.split('`').skip(1).step_by(2).map(str::to_owned).collect(),
            }
        })
        .collect()
}

/// The text of all cases of plans.
fn cases() -> String {
    let files = fs::read_dir(file("stages/tests/support/cases"))
        .unwrap()
        .map(|file| file.unwrap().path());
    files.map(|file| fs::read_to_string(file).unwrap()).collect()
}

/// Why nothing of this name shows anything; `None` = it is there.
fn missing(name: &str) -> Option<String> {
    if let Some(case) = name.strip_prefix("vector ") {
        let Some((vectors, case)) = case.split_once(": ") else {
            return Some(format!("no case is named: {name}"));
        };
        let text = read(&format!("stages/translator/vectors/{vectors}"));
        let there = text.is_some_and(|text| text.lines().any(|line| line == format!("case: {case}")));
        return (!there).then(|| format!("no such case in {vectors}: {case}"));
    }
    if let Some(plan) = name.strip_prefix("plan ") {
        let named = cases().contains(&format!("\"{plan}\""));
        let there = named && read(&format!("stages/tests/plans/{plan}.snap")).is_some();
        return (!there).then(|| format!("no such case of a plan: {plan}"));
    }
    let parts: Vec<&str> = name.split("::").collect();
    let Some((test, modules)) = parts.split_last() else {
        return Some("no name".into());
    };
    let (path, each_translator) = source(modules);
    let Some(text) = read(&path) else {
        return Some(format!("no file {path} for {name}"));
    };
    let there = if each_translator {
        is_for_each_translator(&text, test)
    } else {
        is_test(&text, test) || is_in_both_modes(&text, test)
    };
    (!there).then(|| format!("no test {test} in {path}"))
}

/// The file of a test, and whether the test is made for each translator by a macro.
fn source(modules: &[&str]) -> (String, bool) {
    match modules {
        ["clatd-stages", inside @ .., "tests"] => {
            let module = format!("stages/src/{}", inside.join("/"));
            let apart = format!("{module}/tests.rs");
            let path = if read(&apart).is_some() {
                apart
            } else {
                format!("{module}.rs")
            };
            (path, false)
        }
        ["clatd-translator", binary] => (format!("stages/translator/tests/{binary}.rs"), false),
        [binary, module, "userspace" | "tayga"] => (format!("tests/{binary}/{module}.rs"), true),
        _ => (format!("tests/{}.rs", modules.join("/")), false),
    }
}

fn is_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let begins = |line: &str| {
        let line = line.strip_prefix("async ").unwrap_or(line);
        line.starts_with(&format!("fn {name}("))
    };
    let marked = |before: &&str| before.starts_with("#[test]") || before.starts_with("#[tokio::test");
    lines.iter().enumerate().any(|(at, line)| {
        // Attributes and comments may stand between.
        let above = lines[..at].iter().rev();
        begins(line)
            && above
                .take_while(|line| line.starts_with("#[") || line.starts_with("//"))
                .any(marked)
    })
}

fn is_for_each_translator(text: &str, name: &str) -> bool {
    is_listed("with_each_translator", text, name) && text.contains(&format!("fn {name}(translator: &str"))
}

/// Whether it is a test with `when-idle=wait` and one with `exit`.
fn is_in_both_modes(text: &str, name: &str) -> bool {
    let takes = |argument: &str| text.contains(&format!("fn {name}({argument})"));
    is_listed("in_both_modes", text, name) && (takes("mode: &str") || takes("waits: bool"))
}

/// Whether a macro makes tests of this function.
fn is_listed(name_of_macro: &str, text: &str, name: &str) -> bool {
    let list = text.split(&format!("{name_of_macro}!(")).nth(1);
    let list = list.and_then(|rest| rest.split(')').next()).unwrap_or_default();
    list.split(',').any(|listed| listed.trim() == name)
}

#[test]
fn each_row_is_shown_by_what_exists() {
    let rows = rows();
    assert!(rows.len() >= 60, "only {} rows", rows.len());
    let mut problems = Vec::new();
    for row in &rows {
        problems.extend(row.shown_by.iter().filter_map(|name| missing(name)));
        if row.here.starts_with("works") && row.shown_by.is_empty() {
            problems.push(format!("nothing shows: {}", row.limit));
        }
        let known = ["works", "partly", "does not", "not tested"];
        if !known.iter().any(|word| row.here.starts_with(word)) {
            problems.push(format!(
                "says neither that it works nor that it does not: {}",
                row.limit
            ));
        }
    }
    assert!(problems.is_empty(), "PEERS.md:\n{}", problems.join("\n"));
}

/// What `scripts/peers --write` puts there: for each row what each contender did.
#[test]
fn each_measurement_is_of_every_contender() {
    let (_, measured) = page();
    for version in ["Linux ", "clatd ", "TAYGA ", "NetworkManager "] {
        assert!(measured.contains(version), "measured with which {version}?");
    }
    let rows: Vec<&str> = measured.lines().filter(|line| line.starts_with("| ")).collect();
    assert!(rows.len() >= 60, "only {} rows", rows.len());
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 5, "{row}");
        assert!(cells[1..].iter().all(|cell| !cell.is_empty()), "{row}");
    }
}

#[test]
fn what_does_not_exist_is_missed() {
    for name in [
        "links::plat::no_such_test",
        "links::no_such_module::the_mtu_follows_the_uplink",
        "no_such_binary::the_mtu_follows_the_uplink",
        // A function of the file, but no test.
        "links::plat::daemon_is",
        "lab::carrying::answers_traceroute",
        "lab::carrying::userspace::bed_carries_a_clat_made_by_hand",
        "clatd-stages::address::tests::chosen",
        "clatd-stages::no_such_module::tests::x",
        "clatd-translator::behaviour::clat",
        "vector rfc6052.txt: no such case",
        "vector no-such-file.txt: 4 to 6 by {p}",
        "vector rfc6052.txt",
        "plan no-such-plan",
    ] {
        assert!(missing(name).is_some(), "{name}");
    }
    assert_eq!(missing("links::plat::the_mtu_follows_the_uplink"), None);
    assert_eq!(missing("lab::carrying::userspace::answers_traceroute"), None);
}
