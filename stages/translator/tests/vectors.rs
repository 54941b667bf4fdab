//! Runs the vector files: packets in, expected packets out, by RFC section.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use support::vector;

#[test]
fn vectors() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let (mut count, mut failures) = (0, Vec::new());
    for path in files.iter().filter(|path| path.extension().is_some_and(|e| e == "txt")) {
        let name = path.file_name().unwrap().to_string_lossy();
        let cases = vector::parse(&name, &std::fs::read_to_string(path).unwrap());
        assert!(!cases.is_empty(), "{name}");
        for case in cases {
            count += 1;
            if let Err(text) = vector::check(&case) {
                failures.push(format!("{}\n  in  {}\n  {text}", case.name, case.input));
            }
        }
    }
    println!("{count} cases in {} files", files.len());
    assert!(
        failures.is_empty(),
        "{} of {count} cases fail\n\n{}",
        failures.len(),
        failures.join("\n\n")
    );
    assert!(count >= 250, "only {count} cases");
}
