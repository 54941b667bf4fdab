//! `clatd doctor`: the daemon examines what it runs. If no daemon runs, this process examines what it would run.

use clatd_stages::doctor::DoctorDocument;
use clatd_stages::stage::Instance;

use super::{daemon, load, print, runtime, with_templates};
use crate::cli::Options;
use crate::config::LoadedConfig;
use crate::doctor::{Patient, diagnose};
use crate::kernel::Netlink;
use crate::util::AnyError;
use crate::world::SystemWorld;

/// Examines one instance or all. Returns false if something is wrong.
pub fn run(options: &Options, json: bool, wanted: Option<&str>) -> Result<bool, AnyError> {
    // Settings on the command line are about what could run, not about what the daemon runs.
    let by_daemon = match options.settings.is_empty() {
        true => daemon::diagnosis()?,
        false => None,
    };
    let mut document = match by_daemon {
        Some(document) => document,
        None => match examine_here(options)? {
            Some(document) => document,
            None => return Ok(false),
        },
    };
    if let Some(name) = wanted {
        let named = |diagnosis: &clatd_stages::doctor::Diagnosis| diagnosis.name == name;
        document.instances.retain(named);
        if document.instances.is_empty() {
            return Err(format!("there is no instance {name}").into());
        }
        document = DoctorDocument::new(document.instances);
    }
    let text = if json {
        serde_json::to_string_pretty(&document)? + "\n"
    } else {
        document.to_string()
    };
    Ok(print(&text)? && !document.wrong)
}

fn examine_here(options: &Options) -> Result<Option<DoctorDocument>, AnyError> {
    let Some(loaded) = load(options)? else { return Ok(None) };
    let document = runtime()?.block_on(async {
        let world = SystemWorld::for_command(Netlink::open()?);
        let (mut instances, _) = with_templates(&loaded, &world).await?;
        if instances.is_empty() {
            instances.extend(without_uplink(&loaded));
        }
        let patients = instances.into_iter().map(|instance| Patient {
            instance,
            running: None,
        });
        Ok::<_, AnyError>(diagnose(patients.collect(), &world).await)
    })?;
    Ok(Some(document))
}

/// The name for the instances of templates while there is no uplink for one.
fn without_uplink(loaded: &LoadedConfig) -> Option<Instance> {
    let mut instance = loaded.templates.first()?.configured.instance.clone();
    instance.settings.plat.plat_dev = None;
    Some(instance)
}
