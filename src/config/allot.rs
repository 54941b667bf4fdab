//! Gives each of several instances the settings that its file leaves out. The same files in the same order give the
//! same settings.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use clatd_stages::settings::{ClatV6Addr, Settings};
use clatd_stages::stage::Instance;
use ipnet::Ipv4Net;

use super::errors::{ConfigProblem, Place};
use super::layer::Origin;
use super::load::Draft;
use super::{Configured, Template, Unable, seed};

/// The connection mark of the first instance with a shared address.
const FIRST_MARK: u32 = 0xc1a7;

/// The longest name of a Linux device, in characters.
const DEVICE_LENGTH: usize = 15;

/// Fills in what is unset. Instances for which no IPv4 address is left are removed and reported.
pub(super) fn allot(drafts: &mut Vec<Draft>) -> Vec<Unable> {
    let mut taken = Allotted::default();
    for draft in drafts.iter() {
        taken.add(&draft.merged.settings, |key| !is_unset(&draft.merged.origins, key));
    }
    let mut unable = Vec::new();
    drafts.retain_mut(|draft| {
        let place = draft.file.clone().map_or(Place::Allotted, Place::file);
        match taken.fill(
            &draft.name,
            &draft.name,
            place,
            &mut draft.merged.settings,
            &mut draft.merged.origins,
        ) {
            Ok(ordinal) => {
                draft.ordinal = ordinal;
                true
            }
            Err(error) => {
                unable.push(Unable {
                    name: draft.name.clone(),
                    error: *error,
                });
                false
            }
        }
    });
    unable
}

/// The template that makes an instance for `device`: the first that matches, unless one of the `others` serves it.
pub fn template_for<'t, 'a>(
    templates: &'t [Template],
    device: &str,
    others: impl IntoIterator<Item = &'a Instance>,
) -> Option<&'t Template> {
    let mut others = others.into_iter();
    if others.any(|other| other.settings.plat.plat_dev.as_deref() == Some(device)) {
        return None;
    }
    templates.iter().find(|template| template.matches(device))
}

/// The instance that a template makes for `device`, with settings that the existing instances do not use.
pub fn instance_for<'a>(
    template: &Template,
    device: &str,
    others: impl IntoIterator<Item = &'a Instance>,
) -> Result<Configured, Box<ConfigProblem>> {
    let mut taken = Allotted::default();
    for other in others {
        taken.add(&other.settings, |_| true);
        taken.ordinals.insert(other.ordinal);
    }
    let mut configured = template.configured.clone();
    let name = template.instance_name(device);
    let place = configured.file.clone().map_or(Place::Allotted, Place::file);
    let instance = &mut configured.instance;
    instance.settings.plat.plat_dev = Some(device.to_owned());
    instance.ordinal = taken.fill(&name, device, place, &mut instance.settings, &mut configured.origins)?;
    instance.name = name;
    instance.seed = seed();
    Ok(configured)
}

fn is_unset(origins: &BTreeMap<&'static str, Origin>, key: &str) -> bool {
    origins.get(key).is_some_and(|origin| origin.place == Place::Default)
}

/// What instances have for themselves.
#[derive(Default)]
struct Allotted {
    addresses: BTreeSet<Ipv4Addr>,
    devices: BTreeSet<String>,
    tables: BTreeSet<u32>,
    marks: BTreeSet<u32>,
    ordinals: BTreeSet<u32>,
}

impl Allotted {
    /// Notes the settings of an instance as used, for the keys for which `counts` returns true.
    fn add(&mut self, settings: &Settings, counts: impl Fn(&str) -> bool) {
        self.addresses.insert(settings.translator.tayga_v4_addr);
        self.addresses
            .extend(Some(settings.clat.clat_v4_addr).filter(|_| counts("clat-v4-addr")));
        self.devices.extend(settings.plat.plat_dev.clone());
        self.devices
            .extend(Some(settings.clat.clat_dev.clone()).filter(|_| counts("clat-dev")));
        self.tables
            .extend(Some(settings.clat.route_table).filter(|_| counts("route-table")));
        self.marks.extend(settings.clat.ctmark);
    }

    /// Fills in what is unset, and notes it as used. Returns the number of the instance among those with the same
    /// metric. The device's name is made from `label`.
    fn fill(
        &mut self,
        name: &str,
        label: &str,
        place: Place,
        settings: &mut Settings,
        origins: &mut BTreeMap<&'static str, Origin>,
    ) -> Result<u32, Box<ConfigProblem>> {
        let unset: BTreeSet<&str> = ["clat-v4-addr", "clat-dev", "route-table"]
            .into_iter()
            .filter(|key| is_unset(origins, key))
            .collect();
        let mut allotted = |key: &'static str, text: String| {
            if let Some(origin) = origins.get_mut(key) {
                origin.place = Place::Allotted;
                origin.text = text;
            }
        };
        if unset.contains("clat-v4-addr") {
            let address = self.free_address(name, place, settings)?;
            self.addresses.insert(address);
            settings.clat.clat_v4_addr = address;
            allotted("clat-v4-addr", address.to_string());
        }
        if unset.contains("clat-dev") {
            settings.clat.clat_dev = device_name(label, &self.devices);
            self.devices.insert(settings.clat.clat_dev.clone());
            allotted("clat-dev", settings.clat.clat_dev.clone());
        }
        if unset.contains("route-table") {
            settings.clat.route_table = free(Settings::default().clat.route_table, &self.tables);
            self.tables.insert(settings.clat.route_table);
            allotted("route-table", settings.clat.route_table.to_string());
        }
        if settings.clat.clat_v6_addr == ClatV6Addr::Shared && settings.clat.ctmark.is_none() {
            let mark = free(FIRST_MARK, &self.marks);
            self.marks.insert(mark);
            settings.clat.ctmark = Some(mark);
            allotted("ctmark", format!("{mark:#x}"));
        }
        let ordinal = free(0, &self.ordinals);
        self.ordinals.insert(ordinal);
        Ok(ordinal)
    }

    fn free_address(&self, name: &str, place: Place, settings: &Settings) -> Result<Ipv4Addr, Box<ConfigProblem>> {
        let pool = settings.clat.clat_v4_pool;
        addresses_of(pool)
            .find(|address| !self.addresses.contains(address))
            .ok_or_else(|| {
                Box::new(
                    ConfigProblem::at(
                        place,
                        format!("no address of {pool} (clat-v4-pool) is left for instance {name}"),
                    )
                    .hint("set clat-v4-addr in its file, or clat-v4-pool to a larger prefix that is used nowhere else"),
                )
            })
    }
}

/// The addresses of a pool in the order in which instances get them. The zeroth comes last: some programs cannot
/// handle it, although a /32 may have any address.
fn addresses_of(pool: Ipv4Net) -> impl Iterator<Item = Ipv4Addr> {
    let (first, last) = (u32::from(pool.network()), u32::from(pool.broadcast()));
    (first.saturating_add(1)..=last)
        .chain(std::iter::once(first))
        .filter(move |address| *address <= last)
        .map(Ipv4Addr::from)
}

fn free(first: u32, taken: &BTreeSet<u32>) -> u32 {
    (first..).find(|number| !taken.contains(number)).unwrap_or(first)
}

/// `clat-` and the label, cut to fit, with a number where the cut name is taken.
fn device_name(label: &str, taken: &BTreeSet<String>) -> String {
    let full: String = format!("clat-{label}").chars().take(DEVICE_LENGTH).collect();
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
