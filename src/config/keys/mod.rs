//! The key table: everything that is known about each configuration key, in one place. Parsing, `clatd --help`,
//! clatd.conf(5), the sample configuration, shell completion and the scripts' environment are made from it.

mod clat;
mod general;
mod ipv4;
mod kind;
mod plat;
mod programs;
mod translator;

use clatd_stages::settings::Settings;

use super::field::Field;
pub use kind::{Number, Text, ValueKind};

/// One configuration key.
#[derive(Debug)]
pub struct Key {
    /// The name, as it stands in files and on the command line.
    pub name: &'static str,
    /// The field of the settings that it fills. Its default is that of the field.
    pub(super) field: Field,
    /// What happens when it is unset, for people; empty where the default says it.
    pub unset: &'static str,
    /// One line.
    pub brief: &'static str,
    /// The manual's text: a sentence per line, literals in backticks, paragraphs separated by an empty line.
    pub full: &'static str,
    /// Who introduced it.
    pub origin: FirstIn,
    /// Why the key has no job any more: accepted, given to scripts, otherwise without effect.
    pub unused: Option<&'static str>,
}

/// Who introduced a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstIn {
    /// The clatd of 2016.
    Clatd2016,
    /// clatd 2.x.
    Clatd2,
    /// This program.
    Ours,
}

/// Keys that belong together in the manual.
#[derive(Debug)]
pub struct Section {
    /// Heading.
    pub title: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

/// The table.
pub const SECTIONS: &[Section] = &[
    Section {
        title: "General",
        keys: general::KEYS,
    },
    Section {
        title: "CLAT",
        keys: clat::KEYS,
    },
    Section {
        title: "PLAT",
        keys: plat::KEYS,
    },
    Section {
        title: "IPv4 connectivity",
        keys: ipv4::KEYS,
    },
    Section {
        title: "Translator",
        keys: translator::KEYS,
    },
    Section {
        title: "Programs",
        keys: programs::KEYS,
    },
];

/// All keys, in the order of the manual.
pub fn all() -> impl Iterator<Item = &'static Key> {
    SECTIONS.iter().flat_map(|section| section.keys)
}

/// The key of this name.
pub fn find(name: &str) -> Option<&'static Key> {
    all().find(|key| key.name == name)
}

impl Key {
    /// Its name in the scripts' environment.
    pub fn variable(&self) -> String {
        self.name.replace('-', "_")
    }

    /// What its values look like.
    pub fn kind(&self) -> ValueKind {
        (self.field.kind)()
    }

    /// The default as one would write it; empty = unset.
    pub fn default(&self) -> String {
        (self.field.write)(&Settings::default())
    }

    /// The default for people.
    pub fn default_text(&self) -> String {
        Some(self.default())
            .filter(|default| !default.is_empty())
            .unwrap_or_else(|| self.unset.to_owned())
    }
}

/// The most similar of `candidates`, if one is similar enough to be meant.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase().replace('_', "-");
    candidates
        .map(|candidate| (edits(&word, candidate), candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().min(word.len()) / 4)
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, change, swap neighbours) that make `b` out of `a`.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let change = rows[i][j] + usize::from(x != y);
            let mut best = change.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// What most keys have in common; the tables override the rest.
const PLAIN: Key = Key {
    name: "",
    field: Field::NONE,
    unset: "",
    brief: "",
    full: "",
    origin: FirstIn::Clatd2016,
    unused: None,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_the_one_meant() {
        let names = || all().map(|key| key.name);
        assert_eq!(nearest("plat-prefxi", names()), Some("plat-prefix"));
        assert_eq!(nearest("clat_dev", names()), Some("clat-dev"));
        assert_eq!(nearest("v4-defaultroute-mut", names()), Some("v4-defaultroute-mtu"));
        assert_eq!(nearest("zzz", names()), None);
    }

    #[test]
    fn every_key_is_documented_once() {
        let mut names: Vec<_> = all().map(|key| key.name).collect();
        names.sort_unstable();
        names.windows(2).for_each(|pair| assert_ne!(pair[0], pair[1]));
        for key in all() {
            assert!(
                !key.brief.is_empty() && key.brief.len() <= 72 && !key.brief.ends_with('.'),
                "brief of {}",
                key.name
            );
            assert!(
                key.full.lines().all(|line| line.is_empty() || line.ends_with('.')),
                "full text of {}",
                key.name
            );
            assert!(!key.full.is_empty(), "full text of {}", key.name);
            assert!(!key.default_text().is_empty(), "default of {}", key.name);
            assert!(
                !key.default().is_empty() || key.field.may_be_empty(),
                "{} is unset by default but not optional",
                key.name
            );
        }
    }
}
