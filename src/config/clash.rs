//! What several instances cannot share.

use clatd_stages::settings::{ClatV6Addr, MapEntry, Settings};

use super::errors::{ConfigProblem, Findings, Place};
use super::load::Draft;

/// A setting that each instance needs for itself: the key, its value if the instance uses it, and a hint.
struct Own {
    key: &'static str,
    value: fn(&Settings) -> Option<String>,
    hint: &'static str,
}

const OWN: &[Own] = &[
    Own {
        key: "clat-dev",
        value: |s| Some(s.clat.clat_dev.clone()),
        hint: "leave it out and each gets its own",
    },
    Own {
        key: "clat-v4-addr",
        value: |s| Some(s.clat.clat_v4_addr.to_string()),
        hint: "leave it out and each gets its own",
    },
    Own {
        key: "clat-v6-addr",
        value: |s| matches!(s.clat.clat_v6_addr, ClatV6Addr::Address(_)).then(|| s.clat.clat_v6_addr.to_string()),
        hint: "give each instance its own",
    },
    Own {
        key: "route-table",
        value: |s| Some(s.clat.route_table.to_string()),
        hint: "leave it out and each gets its own",
    },
    Own {
        key: "v4-defaultroute-metric",
        value: |s| {
            s.ipv4
                .v4_defaultroute_metric
                .filter(|_| s.ipv4.v4_defaultroute_enable)
                .map(|metric| metric.to_string())
        },
        hint: "the kernel takes one default route of each metric; leave it out and each gets its own",
    },
    Own {
        key: "ctmark",
        value: |s| s.clat.ctmark.filter(|mark| *mark != 0).map(|mark| format!("{mark:#x}")),
        hint: "leave it out and each gets its own",
    },
    Own {
        key: "tayga-conffile",
        value: |s| s.translator.tayga_conffile.clone(),
        hint: "leave it out and each gets a temporary one",
    },
];

/// Reports what instances share and cannot.
pub(super) fn find(drafts: &[Draft], findings: &mut Findings) {
    for (index, later) in drafts.iter().enumerate() {
        for earlier in &drafts[..index] {
            for own in OWN {
                same(own, earlier, later, findings);
            }
            maps(earlier, later, findings);
            uplinks(earlier, later, findings);
        }
    }
    for maker in drafts {
        for user in drafts.iter().filter(|user| user.name != maker.name) {
            if user.merged.settings.plat.plat_dev.as_deref() == Some(&maker.merged.settings.clat.clat_dev) {
                let problem = format!(
                    "expected an uplink; this is the clat-dev of instance {}",
                    whose(maker, "clat-dev")
                );
                report(user, "plat-dev", problem, None, findings);
            }
        }
    }
}

fn same(own: &Own, earlier: &Draft, later: &Draft, findings: &mut Findings) {
    let invalid = |draft: &Draft| draft.merged.invalid.contains(own.key);
    let (Some(one), Some(other)) = (
        (own.value)(&earlier.merged.settings),
        (own.value)(&later.merged.settings),
    ) else {
        return;
    };
    if one != other || invalid(earlier) || invalid(later) {
        return;
    }
    let problem = format!(
        "instances {} and {} cannot share it",
        whose(earlier, own.key),
        whose(later, own.key)
    );
    report(later, own.key, problem, Some(own.hint), findings);
}

/// A mapped address is reached through one CLAT only.
fn maps(earlier: &Draft, later: &Draft, findings: &mut Findings) {
    let overlap = |one: &MapEntry, other: &MapEntry| {
        one.v4.contains(&other.v4)
            || other.v4.contains(&one.v4)
            || one.v6.contains(&other.v6)
            || other.v6.contains(&one.v6)
    };
    let (ours, theirs) = (&later.merged.settings, &earlier.merged.settings);
    let shared = ours
        .translator
        .map
        .iter()
        .find(|map| theirs.translator.map.iter().any(|other| overlap(map, other)));
    if let Some(shared) = shared {
        let both = format!("{} and {}", whose(earlier, "map"), whose(later, "map"));
        let problem = format!("instances {both} cannot both map {shared}, or a part of it");
        report(
            later,
            "map",
            problem,
            Some("a mapped address is reached through one CLAT only"),
            findings,
        );
    }
    for (mapper, other) in [(earlier, later), (later, earlier)] {
        let address = other.merged.settings.clat.clat_v4_addr;
        if mapper
            .merged
            .settings
            .translator
            .map
            .iter()
            .any(|map| map.v4.contains(&address))
        {
            let problem = format!(
                "expected prefixes without {address}, the clat-v4-addr of instance {}",
                whose(other, "clat-v4-addr")
            );
            report(mapper, "map", problem, None, findings);
        }
    }
}

/// Two instances on one uplink are useful with different prefixes only.
fn uplinks(earlier: &Draft, later: &Draft, findings: &mut Findings) {
    let (one, other) = (&earlier.merged.settings, &later.merged.settings);
    if one.plat.plat_dev != other.plat.plat_dev
        || one.plat.plat_prefix != other.plat.plat_prefix
        || earlier.merged.invalid.contains("plat-dev")
    {
        return;
    }
    let place = later.file.clone().map_or(Place::CommandLine, Place::file);
    let text = match (&one.plat.plat_dev, &one.plat.plat_prefix) {
        (Some(device), _) => format!(
            "instances {} and {} serve the same uplink {device}",
            whose(earlier, ""),
            whose(later, "")
        ),
        (None, None) => format!(
            "instances {} and {} set neither plat-dev nor plat-prefix, so they will find the same uplink",
            whose(earlier, ""),
            whose(later, "")
        ),
        (None, Some(_)) => return,
    };
    findings.warn(&place, text);
}

/// Warns of uplinks that several templates match, since only one of them makes the instance.
pub(super) fn find_among_templates(templates: &[Draft], findings: &mut Findings) {
    for (index, later) in templates.iter().enumerate() {
        for earlier in &templates[..index] {
            let [Some(first), Some(second)] =
                [earlier, later].map(|draft| draft.merged.settings.plat.plat_dev.as_deref())
            else {
                continue;
            };
            if super::overlap(first.as_bytes(), second.as_bytes()) {
                let place = later.file.clone().map_or(Place::CommandLine, Place::file);
                let text = format!(
                    "uplinks that match both plat-dev={first} of {} and plat-dev={second} of {} get an instance of {} only",
                    whose(earlier, "plat-dev"),
                    whose(later, "plat-dev"),
                    earlier.name
                );
                findings.warn(&place, text);
            }
        }
    }
}

/// An instance and the line of its file that says so, or its file.
fn whose(draft: &Draft, key: &str) -> String {
    let place = draft.merged.origins.get(key).map(|origin| &origin.place);
    match (place, &draft.file) {
        (Some(place @ Place::File { path, .. }), Some(file)) if path == file => format!("{} ({place})", draft.name),
        (_, Some(file)) => format!("{} ({})", draft.name, file.display()),
        (_, None) => draft.name.clone(),
    }
}

fn report(draft: &Draft, key: &'static str, problem: String, hint: Option<&str>, findings: &mut Findings) {
    let Some(origin) = draft.merged.origins.get(key) else {
        return;
    };
    let place = match &origin.place {
        Place::Default | Place::Allotted => draft.file.clone().map_or(Place::CommandLine, Place::file),
        place => place.clone(),
    };
    let mut error = ConfigProblem::of(place, key, &origin.text, problem);
    error.hint = hint.map(str::to_owned);
    findings.error(error);
}
