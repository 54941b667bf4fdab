//! `clatd check`.

use std::io::{self, Write};

use super::{Configured, Place, load};
use crate::cli::Options;
use clatd_stages::settings::RouteMtu;

/// Reads the configuration, writes all errors and warnings to `err` and a summary to `out`; with `-d` also each
/// setting with its origin. Returns whether it is free of errors.
pub fn check(options: &Options, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<bool> {
    let loaded = match load(options) {
        Ok(loaded) => loaded,
        Err(errors) => {
            for warning in &errors.warnings {
                writeln!(err, "warning: {warning}")?;
            }
            for error in &errors.errors {
                writeln!(err, "error: {error}")?;
            }
            let counts = (
                count(errors.errors.len(), "error"),
                count(errors.warnings.len(), "warning"),
            );
            writeln!(out, "not ok: {}, {}", counts.0, counts.1)?;
            return Ok(false);
        }
    };
    let mut warnings = loaded.warnings.clone();
    warnings.extend(loaded.instances.iter().filter_map(too_large_an_mtu));
    for warning in &warnings {
        writeln!(err, "warning: {warning}")?;
    }
    for unable in &loaded.unable {
        writeln!(err, "error: {}", unable.error)?;
    }
    if options.debug > 0 {
        for note in &loaded.notes {
            writeln!(err, "note: {note}")?;
        }
        for configured in loaded.configured() {
            settings(configured, out)?;
        }
    }
    let names: Vec<&str> = loaded
        .configured()
        .map(|configured| configured.instance.name.as_str())
        .collect();
    let ok = loaded.unable.is_empty();
    let (verdict, errors) = if ok {
        ("ok", String::new())
    } else {
        ("not ok", format!(", {}", count(loaded.unable.len(), "error")))
    };
    let warnings = count(warnings.len(), "warning");
    writeln!(
        out,
        "{verdict}: {} ({}){errors}, {warnings}",
        count(names.len(), "instance"),
        names.join(", ")
    )?;
    Ok(ok)
}

/// An IPv6 header is larger than an IPv4 header by this many bytes.
const HEADER_DIFFERENCE: u32 = 20;
/// The usual MTU of an uplink, in bytes.
const USUAL_MTU: u32 = 1500;

/// A default route whose packets the uplink will not carry. If the uplink is not known or absent, the usual MTU is
/// assumed. `clatd plan` knows the real one, and warns too.
fn too_large_an_mtu(configured: &Configured) -> Option<String> {
    let settings = &configured.instance.settings;
    let RouteMtu::Bytes(bytes) = settings.ipv4.v4_defaultroute_mtu else {
        return None;
    };
    let there = settings.plat.plat_dev.as_ref().and_then(|device| mtu_of(device));
    let fits = there.unwrap_or(USUAL_MTU).saturating_sub(HEADER_DIFFERENCE);
    let origin = configured.origins.get("v4-defaultroute-mtu")?;
    if bytes <= fits || origin.place == Place::Default {
        return None;
    }
    let why = match (&settings.plat.plat_dev, there) {
        (Some(device), Some(mtu)) => format!("is more than {device} carries: {fits} fit its MTU of {mtu}"),
        _ => format!("is more than most uplinks carry: {fits} fit an MTU of {USUAL_MTU}"),
    };
    let place = &origin.place;
    Some(format!(
        "{place}: v4-defaultroute-mtu={bytes}: {why} (auto fits the uplink)"
    ))
}

fn mtu_of(device: &str) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{device}/mtu")).ok()?;
    text.trim().parse().ok()
}

fn count(number: usize, what: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {what}{ending}")
}

/// An instance's settings, each with its origin.
fn settings(configured: &Configured, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "instance {}", configured.instance.name)?;
    for (key, value) in configured.instance.settings.to_text() {
        match configured.origins.get(key.as_str()) {
            Some(origin) => writeln!(out, "  {key}={value}  [{}]", origin.place)?,
            None => writeln!(out, "  {key}={value}")?,
        }
    }
    Ok(())
}
