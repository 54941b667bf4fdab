//! A layer of configuration: the settings of one file, or of the command line, as a figment provider.

use std::collections::{BTreeMap, BTreeSet};

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider, providers::Serialized};

use clatd_stages::settings::Settings;

use super::errors::{ConfigError, Findings, Place};
use super::keys::{self, Key, Kind, nearest};
use super::value::{self, Invalid};

/// A setting as it was read.
#[derive(Debug, Clone)]
struct Entry {
    origin: Origin,
    value: Value,
}

impl Entry {
    fn new(place: Place, text: &str, value: Value) -> Self {
        let origin = Origin {
            parts: vec![(place.clone(), text.to_owned())],
            ..Origin::new(place, text)
        };
        Self { origin, value }
    }
}

/// The settings of one file, or of the command line.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    /// Where it is from, without line.
    pub(super) place: Place,
    entries: BTreeMap<&'static str, Entry>,
    invalid: BTreeSet<&'static str>,
    /// Keys met, to notice repetitions.
    seen: BTreeMap<&'static str, Place>,
}

impl Layer {
    pub(super) fn new(place: Place) -> Self {
        Self {
            place,
            entries: BTreeMap::new(),
            invalid: BTreeSet::new(),
            seen: BTreeMap::new(),
        }
    }

    /// Takes up a setting as text.
    pub(super) fn set(&mut self, place: Place, name: &str, text: &str, findings: &mut Findings) {
        if let Some(key) = self.key(&place, name, findings) {
            let parsed = value::parse(key, text);
            self.take(place, key, text, parsed, findings);
        }
    }

    /// The key of a setting that is about to be stored. An unknown key is reported: in a file as a warning, as the
    /// 2016 clatd does, on the command line as an error.
    pub(super) fn key(&self, place: &Place, name: &str, findings: &mut Findings) -> Option<&'static Key> {
        let key = keys::find(name);
        if key.is_none() {
            let meant = nearest(name, keys::all().map(|key| key.name));
            let hint = meant.map(|key| format!("did you mean {key}?"));
            if *place == Place::CommandLine {
                let mut error = ConfigError::at(place.clone(), format!("unknown key {name:?}"));
                error.hint = hint;
                findings.error(error);
            } else {
                let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
                findings.warn(place, format!("unknown key {name:?} is ignored{hint}"));
            }
        }
        key
    }

    /// Stores a setting whose value has been read.
    pub(super) fn take(
        &mut self,
        place: Place,
        key: &'static Key,
        text: &str,
        parsed: Result<Value, Invalid>,
        findings: &mut Findings,
    ) {
        let before = self.seen.insert(key.name, place.clone());
        let value = match parsed {
            Ok(value) => value,
            Err(Invalid { problem, hint }) => {
                let mut error = ConfigError::of(place, key.name, text, problem);
                error.hint = hint;
                findings.error(error);
                self.invalid.insert(key.name);
                return;
            }
        };
        if let (Kind::Maps, Some(entry), false) = (key.kind, self.entries.get_mut(key.name), text.is_empty()) {
            entry.origin.text = format!("{}, {text}", entry.origin.text);
            entry.origin.parts.push((place, text.to_owned()));
            entry.value = joined(&entry.value, &value);
            return;
        }
        if let Some(before) = before.filter(|_| key.kind != Kind::Maps) {
            let before = if before == place {
                "the one before".to_owned()
            } else {
                before.to_string()
            };
            let text = format!("{} is set again, which takes the place of {before}", key.name);
            findings.warn(&place, text);
        }
        self.entries.insert(key.name, Entry::new(place, text, value));
    }

    /// Applies flags. A setting of the same layer overrides them.
    pub(super) fn flag(&mut self, key: &'static str, count: u32) {
        if count > 0 && !self.seen.contains_key(key) {
            let entry = Entry::new(self.place.clone(), &count.to_string(), Value::from(count));
            self.entries.insert(key, entry);
        }
    }
}

fn joined(first: &Value, second: &Value) -> Value {
    let items = |value: &Value| value.as_array().map(<[Value]>::to_vec).unwrap_or_default();
    Value::from([items(first), items(second)].concat())
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.place.to_string())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let values = self
            .entries
            .iter()
            .map(|(key, entry)| ((*key).to_owned(), entry.value.clone()));
        Ok(Map::from([(Profile::Default, values.collect())]))
    }
}

/// Where an effective setting comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Where it stands.
    pub place: Place,
    /// The value as it stands there.
    pub text: String,
    /// The lines of a repeated key, each with its value; empty for values that stand in no file.
    pub parts: Vec<(Place, String)>,
}

impl Origin {
    pub(super) fn new(place: Place, text: &str) -> Self {
        Self {
            place,
            text: text.to_owned(),
            parts: Vec::new(),
        }
    }
}

/// Layers laid over each other.
#[derive(Debug, Clone)]
pub(super) struct Merged {
    pub(super) settings: Settings,
    pub(super) origins: BTreeMap<&'static str, Origin>,
    /// Keys with an invalid value somewhere. Their other values do not show what the user wants.
    pub(super) invalid: BTreeSet<&'static str>,
}

/// Merges layers; later ones override earlier ones.
pub(super) fn merge(layers: &[&Layer], findings: &mut Findings) -> Merged {
    let mut figment = Figment::from(Serialized::defaults(Settings::default()));
    for layer in layers {
        figment = figment.merge(*layer);
    }
    let mut origins = BTreeMap::new();
    for key in keys::all() {
        let name = figment
            .find_metadata(key.name)
            .map(|metadata| metadata.name.to_string());
        let entry = layers
            .iter()
            .rev()
            .filter(|layer| name.as_deref() == Some(&layer.place.to_string()))
            .find_map(|layer| layer.entries.get(key.name));
        let default = || Origin::new(Place::Default, key.default);
        let origin = entry.map_or_else(default, |entry| entry.origin.clone());
        origins.insert(key.name, origin);
    }
    let settings = figment.extract().unwrap_or_else(|error| {
        for error in error {
            findings.error(refused(&error, &origins));
        }
        Settings::default()
    });
    let invalid = layers.iter().flat_map(|layer| layer.invalid.iter().copied()).collect();
    Merged {
        settings,
        origins,
        invalid,
    }
}

/// A value that the kind of its key accepted and the type of the setting did not.
fn refused(error: &figment::Error, origins: &BTreeMap<&'static str, Origin>) -> ConfigError {
    let key = error.path.first().map(String::as_str).unwrap_or_default();
    match origins.get(key) {
        Some(origin) => ConfigError::of(origin.place.clone(), key, &origin.text, error.kind.to_string()),
        None => ConfigError::at(Place::Default, error.kind.to_string()),
    }
}
