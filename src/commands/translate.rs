//! `clatd translate`: packets of a capture file through the translator. It needs no root, since it touches only
//! files.

use std::io::{self, Write};
use std::path::Path;

use clatd_stages::settings::{ClatV6Addr, Settings};
use clatd_stages::translator::UserspaceSpec;
use clatd_translator::{Config, Translator, offline};

use super::print;
use crate::cli::Options;
use crate::config;
use crate::trusted;
use crate::util::AnyError;

/// The default MTU of each side, in bytes.
const MTU: u32 = 1500;

/// MTUs from the command line, in bytes.
pub struct MtuOptions {
    /// Of the IPv4 side.
    pub mtu4: Option<u32>,
    /// Of the IPv6 side.
    pub mtu6: Option<u32>,
}

/// Translates `input` into `output`; a line for each dropped packet goes to stdout.
pub fn run(options: &Options, mtus: MtuOptions, input: &Path, output: &Path) -> Result<bool, AnyError> {
    let loaded = match config::load_for_translating(options) {
        Ok(loaded) => loaded,
        Err(errors) => {
            write!(io::stderr(), "{errors}")?;
            return Ok(false);
        }
    };
    let settings = &loaded
        .instances
        .first()
        .ok_or("the configuration has no instance")?
        .instance
        .settings;
    let translator = Translator::new(translator_config(settings, &mtus)?)?;
    let packets =
        trusted::read_foreign_bytes(input).map_err(|error| format!("cannot read {}: {error}", input.display()))?;
    let (mut translated, mut drops) = (Vec::new(), String::new());
    let run = offline::run(&translator, &packets, &mut translated, &mut |line| {
        drops.push_str(&line);
        drops.push('\n');
    });
    let summary = run.map_err(|error| format!("cannot read {}: {error}", input.display()))?;
    std::fs::write(output, translated).map_err(|error| format!("cannot write {}: {error}", output.display()))?;
    drops.push_str(&format!(
        "{} packets read, {} translated, {} dropped, {} written\n",
        summary.packets, summary.translated, summary.dropped, summary.written
    ));
    print(&drops)
}

fn translator_config(settings: &Settings, mtus: &MtuOptions) -> Result<Config, AnyError> {
    let prefix = settings.plat.plat_prefix.ok_or("plat-prefix is not set")?.0;
    let clat_v6 = match settings.clat.clat_v6_addr {
        ClatV6Addr::Address(address) => Some(address),
        _ => None,
    };
    let mtus = (mtus.mtu4.unwrap_or(MTU), mtus.mtu6.unwrap_or(MTU));
    // Seed 0: the same input gives the same output.
    Ok(UserspaceSpec::of(settings, prefix, clat_v6, mtus).config(0))
}
