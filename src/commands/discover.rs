//! `clatd discover`: the PLAT prefixes of each uplink, in every way.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use clatd_stages::discovery::{self, Checked};
use clatd_stages::stage::Instance;
use clatd_stages::world::World;
use serde_json::{Value, json};

use super::{load, print, runtime};
use crate::cli::Options;
use crate::kernel::Netlink;
use crate::uplinks;
use crate::util::AnyError;
use crate::world::SystemWorld;

/// Version of the JSON document; fields are only ever added.
const VERSION: u32 = 1;

/// Examines one device or all uplinks. Returns false if there is no uplink.
pub fn run(options: &Options, json: bool, device: Option<&str>) -> Result<bool, AnyError> {
    let Some(loaded) = load(options)? else { return Ok(false) };
    let configured = loaded
        .instances
        .first()
        .or(loaded.templates.first().map(|template| &template.configured));
    let instance = &configured.ok_or("no instance can run")?.instance;
    let uplinks = runtime()?.block_on(survey(instance, device))?;
    let text = if json {
        serde_json::to_string_pretty(&json!({ "version": VERSION, "uplinks": uplinks }))? + "\n"
    } else {
        table(&uplinks)
    };
    Ok(print(&text)? && !uplinks.is_empty())
}

async fn survey(instance: &Instance, device: Option<&str>) -> Result<Vec<Value>, AnyError> {
    let world = SystemWorld::for_command(Netlink::open()?);
    let devices: BTreeSet<String> = match device {
        Some(device) if world.link(device).await?.is_none() => {
            return Err(format!("there is no device {device}").into());
        }
        Some(device) => BTreeSet::from([device.to_owned()]),
        None => uplinks::find(&world).await?,
    };
    let mut surveyed = Vec::new();
    for device in devices {
        let mut instance = instance.clone();
        instance.settings.plat.plat_dev = Some(device.clone());
        let (facts, failures) = discovery::survey(&instance, &device, &world).await?;
        let mut prefixes = Vec::new();
        for fact in facts {
            let checked = discovery::check(&instance, &fact, &device, &world).await?;
            prefixes.push(json!({
                "prefix": fact.value.to_string(),
                "source": fact.source,
                "lifetime_s": fact.lifetime_s,
                "route": discovery::is_reached(fact.value, &device, &world).await?,
                "reachable": match &checked {
                    Some(Checked::Answers(_)) => Some(true),
                    Some(Checked::Silent(_)) => Some(false),
                    Some(Checked::Unverified(_)) | None => None,
                },
                "checked_with": match &checked {
                    Some(Checked::Answers(server) | Checked::Silent(server)) => Some(server),
                    Some(Checked::Unverified(_)) | None => None,
                },
                "unchecked": match checked {
                    Some(Checked::Unverified(why)) => Some(why),
                    Some(Checked::Answers(_) | Checked::Silent(_)) | None => None,
                },
            }));
        }
        surveyed.push(json!({ "device": device, "prefixes": prefixes, "failures": failures }));
    }
    Ok(surveyed)
}

fn table(uplinks: &[Value]) -> String {
    let mut text = String::new();
    for uplink in uplinks {
        let _ = writeln!(text, "{}:", uplink["device"].as_str().unwrap_or_default());
        for prefix in uplink["prefixes"].as_array().into_iter().flatten() {
            let word = |key: &str| prefix[key].as_str().unwrap_or_default();
            let lifetime = prefix["lifetime_s"]
                .as_u64()
                .map(|seconds| format!(", for {seconds} s"))
                .unwrap_or_default();
            let route = if prefix["route"] == true {
                ""
            } else {
                ", no route to it"
            };
            let reachable = match prefix["reachable"].as_bool() {
                Some(true) => ", answers",
                Some(false) => ", does not answer",
                None if prefix["unchecked"].is_string() => ", unchecked",
                None => "",
            };
            let _ = writeln!(
                text,
                "  {} ({}{lifetime}){route}{reachable}",
                word("prefix"),
                word("source")
            );
        }
        if uplink["prefixes"].as_array().is_none_or(Vec::is_empty) {
            let _ = writeln!(text, "  no PLAT prefix; {}", discovery::NEXT_STEP);
        }
        for failure in uplink["failures"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            let _ = writeln!(text, "  - {failure}");
        }
    }
    if text.is_empty() {
        text.push_str("no uplink: no device has an IPv6 default route\n");
    }
    text
}
