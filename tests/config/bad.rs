//! Bad configurations, each with exactly what clatd says of it.

use super::*;

struct Case {
    title: String,
    lines: Vec<(String, String)>,
}

fn cases() -> Vec<Case> {
    let text = include_str!("bad.txt");
    let blocks = text.split("\n\n").skip(1);
    blocks
        .map(|block| {
            let mut lines = block.trim_end().lines();
            let title = lines.next().unwrap().to_owned();
            let lines = lines.map(|line| {
                let (file, text) = line.split_once(':').unwrap_or_else(|| panic!("{line}"));
                (file.to_owned(), text.strip_prefix(' ').unwrap_or(text).to_owned())
            });
            Case {
                title,
                lines: lines.collect(),
            }
        })
        .collect()
}

/// `\xNN` as the byte of that number.
fn unescape(text: &str) -> Vec<u8> {
    let mut parts = text.split("\\x");
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend(part[2..].bytes());
    }
    bytes
}

fn said(case: &Case) -> (usize, String) {
    let tree = Tree::new(&[]);
    let mut files: Vec<(&str, Vec<u8>)> = Vec::new();
    let mut words: Vec<String> = Vec::new();
    for (file, text) in &case.lines {
        if file == "args" {
            let path = ["missing.conf", "missing.d", "clatd.conf"].contains(&text.as_str());
            words.push(if path {
                tree.path().join(text).display().to_string()
            } else {
                text.clone()
            });
            continue;
        }
        if files.iter().all(|(name, _)| name != file) {
            files.push((file, Vec::new()));
        }
        let (_, bytes) = files.iter_mut().find(|(name, _)| name == file).unwrap();
        bytes.extend(unescape(text));
        bytes.push(b'\n');
    }
    files.iter().for_each(|(name, bytes)| tree.write(name, bytes));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (errors, warnings, unable) = match tree.load(&words) {
        Ok(loaded) => (vec![], loaded.warnings, loaded.unable),
        Err(errors) => (errors.errors, errors.warnings, vec![]),
    };
    let mut text = String::new();
    for error in &errors {
        text += &format!("  error: {}\n", tree.relative(&error.to_string()));
    }
    for warning in &warnings {
        text += &format!("  warning: {}\n", tree.relative(warning));
    }
    for unable in &unable {
        text += &format!(
            "  unable: {}: {}\n",
            unable.name,
            tree.relative(&unable.error.to_string())
        );
    }
    (errors.len(), text)
}

#[test]
fn each_is_reported_in_these_words() {
    let mut all = String::new();
    for case in cases() {
        let (errors, text) = said(&case);
        assert!(!text.is_empty(), "nothing is said of: {}", case.title);
        assert_eq!(errors == 0, case.title.starts_with("odd"), "{}: {text}", case.title);
        assert!(text.lines().all(|line| !line.contains(char::is_control)), "{text}");
        all += &case.title;
        all += "\n";
        for (file, text) in &case.lines {
            all += &format!("  {file}: {text}\n");
        }
        all += "=>\n";
        all += &text;
        all += "\n";
    }
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false, snapshot_path => "." }, {
        insta::assert_snapshot!("bad", all);
    });
}

#[test]
fn there_are_more_than_forty_kinds() {
    let mut problems: Vec<String> = cases()
        .iter()
        .flat_map(|case| {
            said(case)
                .1
                .lines()
                .map(|line| line.split(": ").last().unwrap().to_owned())
                .collect::<Vec<_>>()
        })
        .collect();
    problems.sort();
    problems.dedup();
    assert!(problems.len() > 80, "{}", problems.len());
}
