//! Reading the configuration again while instances run.

use std::collections::BTreeMap;

use clatd_stages::stage::Instance;
use tracing::{error, info, warn};

use super::{Supervisor, allotments, same_uplink};
use crate::config::{self, Configured, LoadedConfig};
use crate::hardening;
use crate::kernel::command;

impl Supervisor {
    /// Applies added, changed and removed instances; unchanged ones keep running. An error in the configuration
    /// leaves everything as it is.
    pub(super) async fn reload(&mut self) -> Result<(), String> {
        let mut loaded = match config::load(&self.options) {
            Ok(loaded) => loaded,
            Err(errors) => {
                let text = format!("the configuration has errors, so everything stays as it is:\n{errors}");
                error!("{text}");
                return Err(text);
            }
        };
        tell_what_was_read(&loaded);
        let (of_templates, of_files): (Vec<_>, Vec<_>) =
            self.started.values().partition(|started| started.template.is_some());
        let [of_templates, of_files] = [of_templates, of_files].map(|started| {
            started
                .into_iter()
                .map(|started| &started.configured)
                .collect::<Vec<_>>()
        });
        // A template leaves an uplink to the instance that a file makes for it, with all that was allotted there.
        let leaves = |template: &Configured| {
            let new = loaded.instances.iter().map(|new| &new.instance.settings);
            new.into_iter().any(|new| same_uplink(new, &template.instance.settings))
        };
        let of_templates: Vec<_> = of_templates.into_iter().filter(|template| !leaves(template)).collect();
        let (instances, unable) = allotments::keep(loaded.instances, &of_files, &of_templates);
        loaded.instances = instances;
        loaded.unable.extend(unable);
        self.refuse(&loaded);
        self.waiting.clear();
        self.stop_changed(&loaded);
        self.use_templates(loaded.templates);
        self.serve_metrics(loaded.base.general.metrics_listen);
        for configured in loaded.instances {
            let name = &configured.instance.name;
            let runs_on = self
                .started
                .get(name)
                .is_some_and(|started| !started.stop.is_cancelled());
            if !runs_on {
                self.start_when_free(configured);
            }
        }
        self.follow_uplinks().await;
        Ok(())
    }

    /// Ends the instances that the configuration has no more, or has otherwise.
    fn stop_changed(&self, loaded: &LoadedConfig) {
        let mut wanted: BTreeMap<&str, &Instance> = BTreeMap::new();
        for configured in loaded.configured() {
            wanted.insert(&configured.instance.name, &configured.instance);
        }
        let before: BTreeMap<&str, &Instance> = self
            .templates
            .iter()
            .map(|template| {
                (
                    template.configured.instance.name.as_str(),
                    &template.configured.instance,
                )
            })
            .collect();
        for (name, started) in &self.started {
            let (source, is) = match &started.template {
                Some(template) => (template.as_str(), before.get(template.as_str()).copied()),
                None => (name.as_str(), Some(&started.configured.instance)),
            };
            let stays = match (wanted.get(source), is) {
                (Some(wanted), Some(is)) => same(wanted, is),
                _ => false,
            };
            if !stays {
                info!(
                    "instance {name} was {}",
                    if wanted.contains_key(source) {
                        "changed"
                    } else {
                        "removed"
                    }
                );
                started.stop.cancel();
            }
        }
    }
}

fn tell_what_was_read(loaded: &LoadedConfig) {
    command::follow(&loaded.base.general);
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    let lacking = hardening::lacking(loaded);
    if !lacking.is_empty() {
        warn!(
            "the new configuration needs rights that were given up at the start ({}): restart clatd, or set hardening=no",
            lacking.join(", ")
        );
    }
}

/// Whether two readings of the configuration mean the same instance. The seed is drawn anew each time.
fn same(a: &Instance, b: &Instance) -> bool {
    a.name == b.name && a.settings == b.settings
}
