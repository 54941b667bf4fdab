//! Files of `key=value` lines, read as the clatd of 2016 reads them.

use std::path::Path;

use super::errors::{ConfigProblem, Findings, Place};
use super::layer::Layer;

/// Reads the settings of such a file.
pub(super) fn read(path: &Path, bytes: &[u8], findings: &mut Findings) -> Layer {
    let mut layer = Layer::new(Place::file(path));
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let place = Place::line(path, number + 1);
        if is_comment(line) {
            continue;
        }
        let Ok(line) = std::str::from_utf8(line) else {
            findings.error(ConfigProblem::at(place, "expected text in UTF-8"));
            continue;
        };
        match split(line) {
            Some((key, value)) => layer.set(place, key, value, findings),
            None => findings.error(malformed(place, line)),
        }
    }
    layer
}

/// `^\s*(;|#|//|$)`, on bytes, since comments may be in any encoding.
fn is_comment(line: &[u8]) -> bool {
    let line = line.trim_ascii_start();
    line.is_empty() || line.starts_with(b";") || line.starts_with(b"#") || line.starts_with(b"//")
}

/// `^\s*([\w-]+)\s*=\s*(.*)\s*$`. The blanks at the end are not part of the value.
pub(crate) fn split(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once('=')?;
    let key = key.trim();
    let is_key = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    is_key.then_some((key, value.trim()))
}

fn malformed(place: Place, line: &str) -> ConfigProblem {
    let line = line.trim();
    let shown: String = line
        .chars()
        .take(60)
        .flat_map(|c| if c.is_control() { '?'.into() } else { Some(c) })
        .collect();
    let error = ConfigProblem::at(place, format!("expected key=value or a comment, not \"{shown}\""));
    let first = line
        .split(|c: char| c.is_whitespace() || c == ':')
        .next()
        .unwrap_or_default();
    if line.starts_with('[') {
        error.hint("there are no sections; for an instance of its own write a file in the directory of instance files")
    } else if line.starts_with('=') {
        error.hint("the key is missing")
    } else if super::keys::find(first).is_some() {
        error.hint(format!("write {first}=VALUE"))
    } else {
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_as_clatd_does() {
        assert_eq!(split("clat-dev=clat0"), Some(("clat-dev", "clat0")));
        assert_eq!(split("\t clat-dev \t=  clat0 \t\r"), Some(("clat-dev", "clat0")));
        assert_eq!(
            split("script-up=ip route add x=y"),
            Some(("script-up", "ip route add x=y"))
        );
        assert_eq!(split("plat-dev="), Some(("plat-dev", "")));
        assert_eq!(split("clat dev=x"), None);
        assert_eq!(split("=x"), None);
        assert_eq!(split("clat-dev clat0"), None);
    }

    #[test]
    fn comments_are_whole_lines() {
        for comment in ["", "  ", "# x", " ; x=y", "//x=y", "\r"] {
            assert!(is_comment(comment.as_bytes()), "{comment:?}");
        }
        assert!(!is_comment(b"/ x"));
        assert!(!is_comment(b"clat-dev=x # y"));
    }
}
