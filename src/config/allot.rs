//! Gives each instance of several what its file leaves out: the same for the same files, in their order.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use clatd_stages::settings::{ClatV6Addr, Settings};

use super::Unable;
use super::errors::{ConfigError, Place};
use super::load::Draft;

/// The addresses of RFC 7335 that CLATs get, in order; 192.0.0.2 is the translators' own.
const ADDRESSES: [Ipv4Addr; 7] = [
    Ipv4Addr::new(192, 0, 0, 1),
    Ipv4Addr::new(192, 0, 0, 3),
    Ipv4Addr::new(192, 0, 0, 4),
    Ipv4Addr::new(192, 0, 0, 5),
    Ipv4Addr::new(192, 0, 0, 6),
    Ipv4Addr::new(192, 0, 0, 7),
    Ipv4Addr::new(192, 0, 0, 0),
];

/// The connection mark of the first instance with a shared address.
const FIRST_MARK: u32 = 0xc1a7;

/// A Linux device name has at most so many characters.
const DEVICE_LENGTH: usize = 15;

/// Fills in what is unset. Instances for which no IPv4 address is left are taken out.
pub(super) fn allot(drafts: &mut Vec<Draft>) -> Vec<Unable> {
    let unable = addresses(drafts);
    devices(drafts);
    let defaults = Settings::default();
    numbers(drafts, "route-table", defaults.route_table, |settings| {
        &mut settings.route_table
    });
    numbers(
        drafts,
        "v4-defaultroute-metric",
        defaults.v4_defaultroute_metric,
        |settings| &mut settings.v4_defaultroute_metric,
    );
    marks(drafts);
    unable
}

fn is_unset(draft: &Draft, key: &str) -> bool {
    draft
        .merged
        .origins
        .get(key)
        .is_some_and(|origin| origin.place == Place::Default)
}

fn mark_allotted(draft: &mut Draft, key: &str, text: String) {
    if let Some(origin) = draft.merged.origins.get_mut(key) {
        origin.place = Place::Allotted;
        origin.text = text;
    }
}

fn addresses(drafts: &mut Vec<Draft>) -> Vec<Unable> {
    let mut taken: BTreeSet<Ipv4Addr> = drafts.iter().map(|draft| draft.merged.settings.tayga_v4_addr).collect();
    taken.extend(
        drafts
            .iter()
            .filter(|draft| !is_unset(draft, "clat-v4-addr"))
            .map(|draft| draft.merged.settings.clat_v4_addr),
    );
    let mut unable = Vec::new();
    drafts.retain_mut(|draft| {
        if !is_unset(draft, "clat-v4-addr") {
            return true;
        }
        match ADDRESSES.into_iter().find(|address| !taken.contains(address)) {
            Some(address) => {
                taken.insert(address);
                draft.merged.settings.clat_v4_addr = address;
                mark_allotted(draft, "clat-v4-addr", address.to_string());
                true
            }
            None => {
                let place = draft.file.clone().map_or(Place::Allotted, Place::file);
                let text = format!(
                    "no address of 192.0.0.0/29 (RFC 7335) is left for instance {}",
                    draft.name
                );
                let error =
                    ConfigError::at(place, text).hint("set clat-v4-addr in its file, or remove other instances");
                unable.push(Unable {
                    name: draft.name.clone(),
                    error,
                });
                false
            }
        }
    });
    unable
}

fn devices(drafts: &mut [Draft]) {
    let mut taken: BTreeSet<String> = drafts
        .iter()
        .filter_map(|draft| draft.merged.settings.plat_dev.clone())
        .collect();
    taken.extend(
        drafts
            .iter()
            .filter(|draft| !is_unset(draft, "clat-dev"))
            .map(|draft| draft.merged.settings.clat_dev.clone()),
    );
    for draft in drafts.iter_mut().filter(|draft| is_unset(draft, "clat-dev")) {
        let device = device_name(&draft.name, &taken);
        taken.insert(device.clone());
        draft.merged.settings.clat_dev.clone_from(&device);
        mark_allotted(draft, "clat-dev", device);
    }
}

/// `clat-` and the instance's name, cut to fit, with a number where the cut name is taken.
fn device_name(instance: &str, taken: &BTreeSet<String>) -> String {
    let full: String = format!("clat-{instance}").chars().take(DEVICE_LENGTH).collect();
    let numbered = (2_u32..).map(|number| {
        let number = number.to_string();
        let kept: String = full.chars().take(DEVICE_LENGTH - number.len()).collect();
        kept + &number
    });
    std::iter::once(full.clone())
        .chain(numbered)
        .find(|name| !taken.contains(name))
        .unwrap_or_else(|| full.clone())
}

/// Distinct numbers from `first` upwards.
fn numbers(drafts: &mut [Draft], key: &'static str, first: u32, field: impl Fn(&mut Settings) -> &mut u32) {
    let mut taken = BTreeSet::new();
    for draft in drafts.iter_mut().filter(|draft| !is_unset(draft, key)) {
        taken.insert(*field(&mut draft.merged.settings));
    }
    for draft in drafts.iter_mut().filter(|draft| is_unset(draft, key)) {
        let number = (first..).find(|number| !taken.contains(number)).unwrap_or(first);
        taken.insert(number);
        *field(&mut draft.merged.settings) = number;
        mark_allotted(draft, key, number.to_string());
    }
}

fn marks(drafts: &mut [Draft]) {
    let mut taken: BTreeSet<u32> = drafts.iter().filter_map(|draft| draft.merged.settings.ctmark).collect();
    for draft in drafts {
        let settings = &mut draft.merged.settings;
        if settings.clat_v6_addr == ClatV6Addr::Shared && settings.ctmark.is_none() {
            let mark = (FIRST_MARK..).find(|mark| !taken.contains(mark)).unwrap_or(FIRST_MARK);
            taken.insert(mark);
            settings.ctmark = Some(mark);
            mark_allotted(draft, "ctmark", format!("{mark:#x}"));
        }
    }
}
