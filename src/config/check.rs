//! `clatd check`.

use std::io::{self, Write};

use super::{Configured, load};
use crate::cli::Options;

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
    for warning in &loaded.warnings {
        writeln!(err, "warning: {warning}")?;
    }
    for unable in &loaded.unable {
        writeln!(err, "error: {}", unable.error)?;
    }
    if options.debug > 0 {
        for note in &loaded.notes {
            writeln!(err, "note: {note}")?;
        }
        let templates = loaded.templates.iter().map(|template| &template.configured);
        for configured in loaded.instances.iter().chain(templates) {
            settings(configured, out)?;
        }
    }
    let names: Vec<&str> = loaded
        .instances
        .iter()
        .chain(loaded.templates.iter().map(|template| &template.configured))
        .map(|configured| configured.instance.name.as_str())
        .collect();
    let ok = loaded.unable.is_empty();
    let (verdict, errors) = if ok {
        ("ok", String::new())
    } else {
        ("not ok", format!(", {}", count(loaded.unable.len(), "error")))
    };
    let warnings = count(loaded.warnings.len(), "warning");
    writeln!(
        out,
        "{verdict}: {} ({}){errors}, {warnings}",
        count(names.len(), "instance"),
        names.join(", ")
    )?;
    Ok(ok)
}

fn count(number: usize, what: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {what}{ending}")
}

/// An instance's settings, each with where it comes from.
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
