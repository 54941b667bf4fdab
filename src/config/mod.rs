//! Configuration: from files and the command line to typed [`Settings`] of each instance, with all errors at once.
//!
//! Levels, from the lowest: default, `/etc/clatd.conf` or `-c FILE`, instance file, command line. [`keys`]
//! says which key has which values, and which field of the settings it fills.

mod allot;
mod check;
mod clash;
mod conf_file;
mod errors;
mod field;
pub mod keys;
mod layer;
mod load;
pub mod manual;
mod prefix;
mod toml_file;
mod validate;
mod value;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clatd_stages::settings::Settings;
use clatd_stages::stage::Instance;

pub use allot::{instance_for, template_for};
pub use check::check;
pub use errors::{ConfigErrors, ConfigProblem, Place};
pub use layer::Origin;
use load::seed;
pub use load::{Paths, load, load_for_translating, load_from};

/// A configuration without errors.
#[derive(Debug, Clone)]
pub struct LoadedConfig {
    /// The instances, in the order of their files.
    pub instances: Vec<Configured>,
    /// Templates, in the order of their files.
    pub templates: Vec<Template>,
    /// Instances that cannot run, while the others can.
    pub unable: Vec<Unable>,
    /// What is odd.
    pub warnings: Vec<String>,
    /// Things to say at debug level.
    pub notes: Vec<String>,
    /// Whether the instances come from instance files.
    pub from_instance_files: bool,
    /// The settings of the daemon itself (`quiet`, `debug`): `clatd.conf` and command line without instance files.
    pub base: Settings,
    /// Where run-time state lives.
    pub runtime_dir: PathBuf,
}

impl LoadedConfig {
    /// The instances, and what the templates make instances of.
    pub fn configured(&self) -> impl Iterator<Item = &Configured> {
        let templates = self.templates.iter().map(|template| &template.configured);
        self.instances.iter().chain(templates)
    }
}

/// An instance, and where its settings come from.
#[derive(Debug, Clone)]
pub struct Configured {
    /// The instance. Its `when-idle` is always set.
    pub instance: Instance,
    /// Its instance file.
    pub file: Option<PathBuf>,
    /// Where each setting comes from, by key; complete.
    pub origins: BTreeMap<&'static str, Origin>,
}

/// A file whose `plat-dev` is a pattern: it makes an instance for each uplink that matches.
#[derive(Debug, Clone)]
pub struct Template {
    /// What the instances have in common.
    pub configured: Configured,
}

impl Template {
    /// The name of the instance for `device`: `<file stem>@<device>`.
    pub fn instance_name(&self, device: &str) -> String {
        format!("{}@{device}", self.configured.instance.name)
    }

    /// Whether it makes an instance for a device of this name.
    pub fn matches(&self, device: &str) -> bool {
        self.configured
            .instance
            .settings
            .plat
            .plat_dev
            .as_deref()
            .is_some_and(|pattern| glob(pattern.as_bytes(), device.as_bytes()))
    }
}

/// Whether a `plat-dev` is a pattern: `*` stands for any characters, `?` for one.
pub(crate) fn is_pattern(device: &str) -> bool {
    device.contains(['*', '?'])
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=text.len()).any(|skipped| glob(rest, &text[skipped..])),
        (Some((b'?', rest)), Some((_, tail))) => glob(rest, tail),
        (Some((wanted, rest)), Some((found, tail))) => wanted == found && glob(rest, tail),
        _ => false,
    }
}

/// Whether there are names that both patterns match.
pub(crate) fn overlap(one: &[u8], other: &[u8]) -> bool {
    match (one.split_first(), other.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=other.len()).any(|skipped| overlap(rest, &other[skipped..])),
        (_, Some((b'*', rest))) => (0..=one.len()).any(|skipped| overlap(&one[skipped..], rest)),
        (Some((a, one)), Some((b, other))) => (a == b || *a == b'?' || *b == b'?') && overlap(one, other),
        _ => false,
    }
}

/// An instance that cannot run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unable {
    /// Its name.
    pub name: String,
    /// Why, with its file.
    pub error: ConfigProblem,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_patterns() {
        for (one, other, expected) in [
            ("*", "wwan*", true),
            ("wwan*", "wan*", false),
            ("w*0", "*n0", true),
            ("up?", "up*", true),
            ("up?", "up??", false),
            ("a*b", "b*a", false),
        ] {
            for (one, other) in [(one, other), (other, one)] {
                assert_eq!(overlap(one.as_bytes(), other.as_bytes()), expected, "{one} {other}");
            }
        }
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("wwan*", "wwan0", true),
            ("wwan*", "wwan", true),
            ("wwan*", "wan0", false),
            ("*", "eth0", true),
            ("w?an*1", "wwan11", true),
            ("w?an*1", "wan1", false),
            ("??", "e", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}
