//! Reads the files and puts the layers together.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clatd_stages::settings::{ClatV6Addr, WhenIdle};
use clatd_stages::stage::Instance;

use super::errors::{ConfigErrors, ConfigProblem, Findings, Place};
use super::layer::{Layer, Merged, merge};
use super::validate::{Purpose, validate};
use super::{Configured, LoadedConfig, Template, allot, clash, conf_file, keys, toml_file};
use crate::cli::Options;
use crate::service::ServiceManager;
use crate::trusted;

/// Paths for what the command line leaves open, and who started the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The configuration file, which need not exist.
    pub config: PathBuf,
    /// The directory of instance files, which need not exist.
    pub instances_dir: PathBuf,
    /// Where run-time state lives.
    pub runtime_dir: PathBuf,
    /// Whether a service manager started this process. It expects readiness, and nobody else restarts clatd.
    pub has_service_manager: bool,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            config: "/etc/clatd.conf".into(),
            instances_dir: "/etc/clatd/instances.d".into(),
            runtime_dir: "/run/clatd".into(),
            has_service_manager: false,
        }
    }
}

impl Paths {
    /// The usual paths, except with `CLATD_RUNTIME_DIR`. `NOTIFY_SOCKET` shows a service manager.
    pub fn from_environment() -> Self {
        let usual = Self::default();
        let runtime_dir = std::env::var_os("CLATD_RUNTIME_DIR").filter(|dir| !dir.is_empty());
        // Scripts and TAYGA may have another working directory.
        let runtime_dir = runtime_dir.and_then(|dir| std::path::absolute(dir).ok());
        Self {
            runtime_dir: runtime_dir.unwrap_or(usual.runtime_dir),
            has_service_manager: ServiceManager::is_there(),
            ..usual
        }
    }
}

/// Reads the configuration that the command line asks for.
pub fn load(options: &Options) -> Result<LoadedConfig, ConfigErrors> {
    load_from(options, &Paths::from_environment())
}

/// Like [`load`], with other places than the usual ones.
pub fn load_from(options: &Options, paths: &Paths) -> Result<LoadedConfig, ConfigErrors> {
    load_for(Purpose::Run, options, paths)
}

fn load_for(purpose: Purpose, options: &Options, paths: &Paths) -> Result<LoadedConfig, ConfigErrors> {
    let mut findings = Findings::default();
    let base = base_layers(&options.config, &paths.config, &mut findings);
    let words = command_line(options, &mut findings);
    let files = match &options.instances_dir {
        Some(dir) => instance_files(dir, true, &mut findings),
        None => instance_files(&paths.instances_dir, false, &mut findings),
    };
    let over_base = |layers: &[&Layer]| {
        let all: Vec<&Layer> = base.iter().chain(layers.iter().copied()).collect();
        merge(&all)
    };
    let base_merged = over_base(&[&words]);
    let runtime_dir = runtime_dir(&paths.runtime_dir, &mut findings);
    let from_instance_files = !files.is_empty();
    let mut drafts = Vec::new();
    for (name, path) in files {
        let layer = instance_layer(&path, &mut findings);
        drafts.push(Draft::new(name, Some(path), over_base(&[&layer, &words])));
    }
    if !from_instance_files {
        let name = base_merged.settings.clat.clat_dev.clone();
        drafts.push(Draft::new(name, None, base_merged.clone()));
    }
    for draft in &mut drafts {
        let several = from_instance_files || draft.is_template();
        complete(&mut draft.merged, several, paths.has_service_manager);
        validate(&draft.merged, purpose, &mut findings);
    }
    let notes = notes(&drafts);
    let (templates, mut drafts): (Vec<Draft>, Vec<Draft>) = drafts.into_iter().partition(Draft::is_template);
    for template in &templates {
        template.check_as_template(&mut findings);
    }
    clash::find_among_templates(&templates, &mut findings);
    let unable = if from_instance_files {
        allot::allot(&mut drafts)
    } else {
        Vec::new()
    };
    clash::find(&drafts, &mut findings);
    finish(findings, |warnings| LoadedConfig {
        instances: drafts.into_iter().map(|draft| draft.configured(&runtime_dir)).collect(),
        templates: templates
            .into_iter()
            .map(|draft| Template {
                configured: draft.configured(&runtime_dir),
            })
            .collect(),
        unable,
        warnings,
        notes,
        from_instance_files,
        base: base_merged.settings,
        runtime_dir: PathBuf::from(&runtime_dir),
    })
}

/// Reads the files and settings of the command line as the only instance, for `clatd translate`. At least a PLAT
/// prefix is needed.
pub fn load_for_translating(options: &Options) -> Result<LoadedConfig, ConfigErrors> {
    let options = Options {
        instances_dir: None,
        ..options.clone()
    };
    let nowhere = Paths {
        instances_dir: PathBuf::new(),
        ..Paths::from_environment()
    };
    let mut loaded = load_for(Purpose::Translate, &options, &nowhere)?;
    let prefix = loaded
        .instances
        .iter()
        .any(|configured| configured.instance.settings.plat.plat_prefix.is_some());
    if prefix {
        return Ok(loaded);
    }
    let path = options.config.last().cloned().unwrap_or_default();
    let error =
        ConfigProblem::at(Place::file(path), "expected plat-prefix to be set").hint("such as plat-prefix=64:ff9b::/96");
    Err(ConfigErrors {
        errors: vec![error],
        warnings: std::mem::take(&mut loaded.warnings),
    })
}

/// `v4-conncheck-delay` in seconds if native IPv4 at the start makes clatd end.
const LONE_DELAY: u32 = 10;
/// `v4-defaultroute-metric` of the only instance.
const SINGLE_METRIC: u32 = 2048;

/// An instance in the making.
pub(super) struct Draft {
    pub(super) name: String,
    pub(super) file: Option<PathBuf>,
    pub(super) merged: Merged,
    pub(super) ordinal: u32,
}

impl Draft {
    fn new(name: String, file: Option<PathBuf>, merged: Merged) -> Self {
        Self {
            name,
            file,
            merged,
            ordinal: 0,
        }
    }

    /// Whether its `plat-dev` is a pattern, so that it makes an instance for each device that matches.
    fn is_template(&self) -> bool {
        self.merged
            .settings
            .plat
            .plat_dev
            .as_deref()
            .is_some_and(super::is_pattern)
    }

    /// A template cannot set what only one instance can have.
    fn check_as_template(&self, findings: &mut Findings) {
        for key in [
            "clat-dev",
            "clat-v4-addr",
            "clat-v6-addr",
            "route-table",
            "v4-defaultroute-metric",
            "tayga-conffile",
            "map",
        ] {
            let Some(origin) = self.merged.origins.get(key) else {
                continue;
            };
            let is_word =
                key == "clat-v6-addr" && !matches!(self.merged.settings.clat.clat_v6_addr, ClatV6Addr::Address(_));
            if origin.place == Place::Default || is_word || self.merged.invalid.contains(key) {
                continue;
            }
            let problem = "plat-dev is a pattern, so this cannot be the same for each instance that it makes";
            let error = ConfigProblem::of(origin.place.clone(), key, &origin.text, problem);
            findings.error(error.hint("leave it out and each gets its own"));
        }
    }

    fn configured(self, runtime_dir: &str) -> Configured {
        let instance = Instance {
            name: self.name,
            settings: self.merged.settings,
            runtime_dir: runtime_dir.to_owned(),
            ordinal: self.ordinal,
            seed: seed(),
        };
        Configured {
            instance,
            file: self.file,
            origins: self.merged.origins,
        }
    }
}

/// Random bits: the standard library draws its hash keys from the system's generator.
pub(super) fn seed() -> u128 {
    let draw = || u128::from(RandomState::new().hash_one(0));
    draw() << 64 | draw()
}

fn finish<T>(findings: Findings, value: impl FnOnce(Vec<String>) -> T) -> Result<T, ConfigErrors> {
    let Findings { errors, warnings } = findings;
    if errors.is_empty() {
        Ok(value(warnings))
    } else {
        Err(ConfigErrors { errors, warnings })
    }
}

/// The files of `-c FILE`, later ones override earlier ones; or the usual file, which may be missing. A single named
/// file must exist; of several, some may be missing.
fn base_layers(chosen: &[PathBuf], usual: &Path, findings: &mut Findings) -> Vec<Layer> {
    match chosen {
        [] => vec![base_layer(usual, |_, _| (), findings)],
        [path] => vec![base_layer(
            path,
            |findings, error| findings.error(unreadable(path, CONFIG, error)),
            findings,
        )],
        paths => paths
            .iter()
            .map(|path| {
                let missing = |findings: &mut Findings, error: &std::io::Error| {
                    findings.warn(&Place::file(path), format!("cannot read the {CONFIG}: {error}"));
                };
                base_layer(path, missing, findings)
            })
            .collect(),
    }
}

const CONFIG: &str = "configuration file";

fn base_layer(path: &Path, missing: impl Fn(&mut Findings, &std::io::Error), findings: &mut Findings) -> Layer {
    match trusted::read_foreign_bytes(path) {
        Ok(bytes) => return conf_file::read(path, &bytes, findings),
        Err(error) if error.kind() == ErrorKind::NotFound => missing(findings, &error),
        Err(error) => findings.error(unreadable(path, CONFIG, &error)),
    }
    Layer::new(Place::file(path))
}

fn command_line(options: &Options, findings: &mut Findings) -> Layer {
    let mut layer = Layer::new(Place::CommandLine);
    for (key, value) in &options.settings {
        layer.set(Place::CommandLine, key, value, findings);
    }
    layer.flag("quiet", options.quiet, |settings| &mut settings.general.quiet);
    layer.flag("debug", options.debug, |settings| &mut settings.general.debug);
    layer
}

fn instance_layer(path: &Path, findings: &mut Findings) -> Layer {
    match trusted::read_foreign_bytes(path) {
        Ok(bytes) if path.extension().is_some_and(|extension| extension == "toml") => {
            toml_file::read(path, &bytes, findings)
        }
        Ok(bytes) => conf_file::read(path, &bytes, findings),
        Err(error) => {
            findings.error(unreadable(path, "instance file", &error));
            Layer::new(Place::file(path))
        }
    }
}

fn unreadable(path: &Path, what: &str, error: &std::io::Error) -> ConfigProblem {
    ConfigProblem::at(Place::file(path), format!("cannot read the {what}: {error}"))
}

/// Names and paths of the instance files of a directory, sorted by name.
fn instance_files(dir: &Path, chosen: bool, findings: &mut Findings) -> Vec<(String, PathBuf)> {
    let place = Place::file(dir);
    let names = fs::read_dir(dir).and_then(|entries| {
        entries
            .map(|entry| Ok(entry?.file_name()))
            .collect::<Result<Vec<_>, _>>()
    });
    let mut names = match names {
        Ok(names) => names,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if chosen {
                findings.warn(&place, "there is no such directory, so no instance files");
            }
            return Vec::new();
        }
        Err(error) => {
            findings.error(unreadable(dir, "directory of instance files", &error));
            return Vec::new();
        }
    };
    names.sort();
    let mut files: Vec<(String, PathBuf)> = Vec::new();
    for name in names {
        let path = dir.join(&name);
        let is_instance = path
            .extension()
            .is_some_and(|extension| extension == "conf" || extension == "toml");
        if !is_instance || name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match (instance_name(&stem), files.iter().find(|(other, _)| *other == stem)) {
            (Err(problem), _) => findings.error(ConfigProblem::at(Place::file(&path), problem)),
            (Ok(()), Some((_, other))) => {
                let text = format!("instance \"{stem}\" has two files, this one and {}", other.display());
                findings.error(ConfigProblem::at(Place::file(&path), text).hint("remove or rename one of them"));
            }
            (Ok(()), None) => files.push((stem, path)),
        }
    }
    files
}

fn instance_name(stem: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if !stem.chars().all(allowed) || stem.starts_with('-') || stem.is_empty() {
        return Err("expected a file name of ASCII letters, digits, \"_\", \".\" and \"-\", not beginning with \"-\": it names the instance".into());
    }
    if stem.len() > 64 {
        return Err(format!(
            "expected a file name of at most 64 characters before its extension: it names the instance; this has {}",
            stem.len()
        ));
    }
    Ok(())
}

fn runtime_dir(path: &Path, findings: &mut Findings) -> String {
    match path.to_str() {
        Some(text) if path.is_absolute() => return text.to_owned(),
        _ => findings.error(ConfigProblem::at(
            Place::file("CLATD_RUNTIME_DIR"),
            format!("expected an absolute path in UTF-8, not \"{}\"", path.display()),
        )),
    }
    String::new()
}

/// Defaults that depend on more than their key.
fn complete(merged: &mut Merged, several: bool, has_service_manager: bool) {
    let unset = |merged: &Merged, key| {
        merged
            .origins
            .get(key)
            .is_some_and(|origin| origin.place == Place::Default)
    };
    let idle = if several || has_service_manager {
        WhenIdle::Wait
    } else {
        WhenIdle::Exit
    };
    let delay = match *merged.settings.general.when_idle.get_or_insert(idle) {
        // Native IPv4 that comes later is followed.
        WhenIdle::Wait => 0,
        WhenIdle::Exit => LONE_DELAY,
    };
    merged.settings.ipv4.v4_conncheck_delay.get_or_insert(delay);
    if !several {
        // A single instance has the documented default, whatever other uplinks there are.
        merged.settings.ipv4.v4_defaultroute_metric.get_or_insert(SINGLE_METRIC);
    }
    if merged.settings.clat.clat_v6_addr == ClatV6Addr::Shared && unset(merged, "proxynd-enable") {
        merged.settings.clat.proxynd_enable = false;
    }
}

/// Reports keys that no longer have an effect, at debug level.
fn notes(drafts: &[Draft]) -> Vec<String> {
    let mut notes = Vec::new();
    for key in keys::all() {
        let Some(reason) = key.unused else { continue };
        for place in drafts
            .iter()
            .filter_map(|draft| draft.merged.origins.get(key.name))
            .map(|origin| &origin.place)
        {
            let note = format!(
                "{place}: {} is given to scripts but otherwise unused: {reason}",
                key.name
            );
            if *place != Place::Default && !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
    notes
}
