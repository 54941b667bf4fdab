//! A layer of configuration: the settings of one file, or of the command line; and layers laid over each other.

use std::collections::{BTreeMap, BTreeSet};

use clatd_stages::settings::Settings;

use super::errors::{ConfigProblem, Findings, Place};
use super::keys::{self, Key, ValueKind, nearest};
use super::value::{self, Invalid};

/// The settings of one file, or of the command line.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    /// Where it is from, without line.
    pub(super) place: Place,
    /// The values of the keys that have an origin here; defaults elsewhere.
    settings: Settings,
    origins: BTreeMap<&'static str, Origin>,
    invalid: BTreeSet<&'static str>,
    /// Keys met, to notice repetitions.
    seen: BTreeMap<&'static str, Place>,
}

impl Layer {
    pub(super) fn new(place: Place) -> Self {
        Self {
            place,
            settings: Settings::default(),
            origins: BTreeMap::new(),
            invalid: BTreeSet::new(),
            seen: BTreeMap::new(),
        }
    }

    /// Takes up a setting as text.
    pub(super) fn set(&mut self, place: Place, name: &str, text: &str, findings: &mut Findings) {
        if let Some(key) = self.key(&place, name, findings) {
            self.take(place, key, text, Ok(vec![text.to_owned()]), findings);
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
                let mut error = ConfigProblem::at(place.clone(), format!("unknown key {name:?}"));
                error.hint = hint;
                findings.error(error);
            } else {
                let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
                findings.warn(place, format!("unknown key {name:?} is ignored{hint}"));
            }
        }
        key
    }

    /// Reads the texts of a setting, one after the other, into its field. `shown` is how they stand in the file.
    pub(super) fn take(
        &mut self,
        place: Place,
        key: &'static Key,
        shown: &str,
        texts: Result<Vec<String>, Invalid>,
        findings: &mut Findings,
    ) {
        let before = self.seen.insert(key.name, place.clone());
        let read = texts.and_then(|texts| {
            texts
                .iter()
                .try_for_each(|text| value::read(key, text, &mut self.settings))
        });
        if let Err(Invalid { problem, hint }) = read {
            let mut error = ConfigProblem::of(place, key.name, shown, problem);
            error.hint = hint;
            findings.error(error);
            self.invalid.insert(key.name);
            return;
        }
        let repeated = key.kind() == ValueKind::Maps;
        if let (true, Some(origin), false) = (repeated, self.origins.get_mut(key.name), shown.is_empty()) {
            origin.text = format!("{}, {shown}", origin.text);
            origin.parts.push((place, shown.to_owned()));
            return;
        }
        if let Some(before) = before.filter(|_| !repeated) {
            let before = if before == place {
                "the one before".to_owned()
            } else {
                before.to_string()
            };
            let text = format!("{} is set again: this one wins over {before}", key.name);
            findings.warn(&place, text);
        }
        self.origins.insert(key.name, Origin::of_line(place, shown));
    }

    /// Applies flags. A setting of the same layer overrides them.
    pub(super) fn flag(&mut self, key: &'static str, count: u32, field: fn(&mut Settings) -> &mut u32) {
        if count > 0 && !self.seen.contains_key(key) {
            *field(&mut self.settings) = count;
            let origin = Origin::of_line(self.place.clone(), &count.to_string());
            self.origins.insert(key, origin);
        }
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

    fn of_line(place: Place, text: &str) -> Self {
        Self {
            parts: vec![(place.clone(), text.to_owned())],
            ..Self::new(place, text)
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
pub(super) fn merge(layers: &[&Layer]) -> Merged {
    let mut settings = Settings::default();
    let mut origins = BTreeMap::new();
    for key in keys::all() {
        let from = layers
            .iter()
            .rev()
            .find_map(|layer| Some((&layer.settings, layer.origins.get(key.name)?)));
        let origin = match from {
            Some((theirs, origin)) => {
                (key.field.take_over)(theirs, &mut settings);
                origin.clone()
            }
            // Nobody has set it, so the field still has its default.
            None => Origin::new(Place::Default, &(key.field.write)(&settings)),
        };
        origins.insert(key.name, origin);
    }
    let invalid = layers.iter().flat_map(|layer| layer.invalid.iter().copied()).collect();
    Merged {
        settings,
        origins,
        invalid,
    }
}
