//! Configuration: from files and the command line to typed [`Settings`] of each instance, with all errors at once.
//!
//! Levels, the later on top: default, `/etc/clatd.conf` or `-c FILE`, instance file, command line. The levels are laid
//! over each other by figment, which stays inside this module; which key has which values is in [`keys`].

mod allot;
mod check;
mod clash;
mod conf_file;
mod errors;
pub mod keys;
mod layer;
mod load;
pub mod manual;
mod prefix;
mod toml_file;
mod validate;
mod value;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clatd_stages::settings::Settings;
use clatd_stages::stage::Instance;

pub use check::check;
pub use errors::{ConfigError, ConfigErrors, Place};
pub use layer::Origin;
pub use load::{Paths, load, load_file, load_from};

/// A configuration without errors.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The instances, in the order of their files.
    pub instances: Vec<Configured>,
    /// Instances that cannot run, while the others can.
    pub unable: Vec<Unable>,
    /// What is odd.
    pub warnings: Vec<String>,
    /// Things to say at debug level.
    pub notes: Vec<String>,
    /// Whether the instances come from instance files.
    pub from_instance_files: bool,
    /// The settings of the daemon as such (`quiet`, `debug`): `clatd.conf` and command line without instance files.
    pub base: Settings,
    /// Where run-time state lives.
    pub runtime_dir: PathBuf,
}

/// An instance, and where its settings come from.
#[derive(Debug, Clone)]
pub struct Configured {
    /// The instance. Its `when-idle` is set, also where the user said nothing.
    pub instance: Instance,
    /// Its instance file.
    pub file: Option<PathBuf>,
    /// Where each setting comes from, by key; complete.
    pub origins: BTreeMap<&'static str, Origin>,
}

/// An instance that cannot run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unable {
    /// Its name.
    pub name: String,
    /// Why, with its file.
    pub error: ConfigError,
}
