//! An instance keeps what it was allotted when the configuration is read again. A new file in front of others shifts
//! what each would get, and must not restart those that run.

use clatd_stages::settings::Settings;
use clatd_stages::stage::Instance;

use super::collide;
use crate::config::{self, ConfigProblem, Configured, Place, Template, Unable};

/// The keys whose values are allotted if nobody sets them.
const ALLOTTED: [&str; 4] = ["clat-v4-addr", "clat-dev", "route-table", "ctmark"];

/// Gives each instance of the new configuration what its namesake in `running` was allotted. A new instance that
/// would get the same as one of these, or of `others`, which templates made, gets something else. Returns the
/// instances for which nothing is left separately.
pub(super) fn keep(
    loaded: Vec<Configured>,
    running: &[&Configured],
    others: &[&Configured],
) -> (Vec<Configured>, Vec<Unable>) {
    let mut taken_over: Vec<bool> = Vec::new();
    let mut instances = loaded.clone();
    for (index, instance) in instances.iter_mut().enumerate() {
        let namesake = running.iter().find(|one| one.instance.name == instance.instance.name);
        let candidate = namesake.map(|namesake| taking_over(instance, namesake));
        let mut elsewhere = loaded.iter().enumerate().filter(|(other, _)| *other != index);
        // What the user sets for one instance wins over what another was allotted.
        let is_free = |candidate: &Configured| !elsewhere.any(|(_, other)| sets_allotted_value_of(other, candidate));
        let kept = candidate.filter(is_free);
        taken_over.push(kept.is_some());
        if let Some(kept) = kept {
            *instance = kept;
        }
    }
    let mut unable = Vec::new();
    let mut result: Vec<Configured> = Vec::new();
    for (index, instance) in instances.iter().enumerate() {
        let kept = instances
            .iter()
            .zip(&taken_over)
            .filter(|(_, kept)| **kept)
            .map(|(kept, _)| kept);
        let in_the_way = kept.chain(others.iter().copied()).chain(&result);
        let free = taken_over[index]
            || !in_the_way
                .into_iter()
                .any(|there| meet(&there.instance, &instance.instance));
        if free {
            result.push(instance.clone());
            continue;
        }
        let all = instances[index + 1..]
            .iter()
            .chain(others.iter().copied())
            .chain(&result);
        match allotted_anew(instance, all.map(|configured| &configured.instance)) {
            Ok(configured) => result.push(configured),
            Err(error) => unable.push(Unable {
                name: instance.instance.name.clone(),
                error: *error,
            }),
        }
    }
    (result, unable)
}

fn is_allotted(configured: &Configured, key: &str) -> bool {
    configured
        .origins
        .get(key)
        .is_some_and(|origin| origin.place == Place::Allotted)
}

fn value(settings: &Settings, key: &str) -> String {
    match key {
        "clat-v4-addr" => settings.clat.clat_v4_addr.to_string(),
        "clat-dev" => settings.clat.clat_dev.clone(),
        "route-table" => settings.clat.route_table.to_string(),
        _ => settings.clat.ctmark.map(|mark| mark.to_string()).unwrap_or_default(),
    }
}

fn taking_over(instance: &Configured, from: &Configured) -> Configured {
    let mut result = instance.clone();
    let (settings, theirs) = (&mut result.instance.settings, &from.instance.settings);
    for key in ALLOTTED
        .into_iter()
        .filter(|key| is_allotted(instance, key) && is_allotted(from, key))
    {
        match key {
            "clat-v4-addr" => settings.clat.clat_v4_addr = theirs.clat.clat_v4_addr,
            "clat-dev" => settings.clat.clat_dev.clone_from(&theirs.clat.clat_dev),
            "route-table" => settings.clat.route_table = theirs.clat.route_table,
            _ => settings.clat.ctmark = theirs.clat.ctmark,
        }
        if let (Some(origin), Some(origins)) = (from.origins.get(key), result.origins.get_mut(key)) {
            origins.clone_from(origin);
        }
    }
    result.instance.ordinal = from.instance.ordinal;
    result
}

fn sets_allotted_value_of(other: &Configured, candidate: &Configured) -> bool {
    ALLOTTED.into_iter().any(|key| {
        let wanted = value(&other.instance.settings, key);
        is_allotted(candidate, key)
            && !is_allotted(other, key)
            && !wanted.is_empty()
            && wanted == value(&candidate.instance.settings, key)
    })
}

fn meet(there: &Instance, new: &Instance) -> bool {
    let same_mark = there.settings.clat.ctmark.is_some() && there.settings.clat.ctmark == new.settings.clat.ctmark;
    collide(&there.settings, &new.settings) || same_mark || there.ordinal == new.ordinal
}

/// The instance with other values for all that it was allotted.
fn allotted_anew<'a>(
    instance: &Configured,
    others: impl IntoIterator<Item = &'a Instance>,
) -> Result<Configured, Box<ConfigProblem>> {
    let mut unset = instance.clone();
    for key in ALLOTTED.into_iter().filter(|key| is_allotted(instance, key)) {
        if let Some(origin) = unset.origins.get_mut(key) {
            origin.place = Place::Default;
        }
        if key == "ctmark" {
            unset.instance.settings.clat.ctmark = None;
        }
    }
    // A template that has one uplink: allotting needs nothing else of it.
    let name = &instance.instance.name;
    let mut again = config::instance_for(&Template { configured: unset }, name, others)?;
    again.instance.name.clone_from(name);
    again.instance.seed = instance.instance.seed;
    again
        .instance
        .settings
        .plat
        .plat_dev
        .clone_from(&instance.instance.settings.plat.plat_dev);
    Ok(again)
}
