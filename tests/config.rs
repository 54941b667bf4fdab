//! The configuration from the outside: files and words in, settings, warnings and errors out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

#[path = "config/bad.rs"]
mod bad;
#[path = "config/instances.rs"]
mod instances;
#[path = "config/layers.rs"]
mod layers;
#[path = "config/robust.rs"]
mod robust;
#[path = "config/table.rs"]
mod table;
#[path = "config/values.rs"]
mod values;

use std::fs;
use std::path::Path;

use clatd::cli::{Command, Options, parse};
use clatd::config::{ConfigErrors, LoadedConfig, Paths, load_from};
use tempfile::TempDir;

/// A configuration on disk: `clatd.conf` and `instances.d`.
struct Tree {
    dir: TempDir,
}

impl Tree {
    fn new(files: &[(&str, &str)]) -> Self {
        let tree = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        for (name, text) in files {
            tree.write(name, text.as_bytes());
        }
        tree
    }

    /// Writes `clatd.conf`, or anything else as an instance file.
    fn write(&self, name: &str, bytes: &[u8]) {
        let path = if name == "clatd.conf" {
            self.path().join(name)
        } else {
            self.path().join("instances.d").join(name)
        };
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn paths(&self) -> Paths {
        Paths {
            config: self.path().join("clatd.conf"),
            instances_dir: self.path().join("instances.d"),
            runtime_dir: "/run/clatd".into(),
            has_service_manager: false,
        }
    }

    fn load(&self, words: &[&str]) -> Result<LoadedConfig, ConfigErrors> {
        load_from(&options(words), &self.paths())
    }

    /// A message with the tree's own place left out.
    fn relative(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.path().display()), "")
    }
}

fn options(words: &[&str]) -> Options {
    match parse(words).unwrap() {
        Command::Run(options) => options,
        other => panic!("{other:?}"),
    }
}

/// What one clatd.conf and some words lead to, with the only instance's settings.
fn single(conf: &str, words: &[&str]) -> clatd_stages::settings::Settings {
    let loaded = Tree::new(&[("clatd.conf", conf)]).load(words).unwrap();
    assert_eq!(loaded.instances.len(), 1);
    loaded.instances[0].instance.settings.clone()
}
