//! What each command of the command line does.

mod daemon;
mod discover;
mod doctor;
mod translate;

use std::io::{self, Write};
use std::time::Duration;

use clatd_stages::facts::Facts;
use clatd_stages::op::Op;
use clatd_stages::pipeline::{self, WithoutWaiting};
use clatd_stages::plan::{Idle, Plan, PlanDocument, Step};
use clatd_stages::reservations::Reservations;
use clatd_stages::stage::{Instance, Readiness};
use nix::sys::statvfs::{FsFlags, statvfs};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::claims::DryRun;
use crate::cli::{self, Command, Options};
use crate::config::{self, ConfigErrors, ConfigProblem, LoadedConfig};
use crate::hardening;
use crate::kernel::{Netlink, cleanup as leftovers};
use crate::logging::{self, Verbosity};
use crate::report::chain;
use crate::supervisor;
use crate::sys::memory;
use crate::uplinks;
use crate::util::AnyError;
use crate::world::SystemWorld;

/// Executes a command; `Ok(false)` = it failed and said why.
pub fn execute(command: Command) -> Result<bool, AnyError> {
    match command {
        Command::Help { topic: None } => print(&cli::help_text()),
        Command::Help { topic: Some(topic) } => print(&cli::topic_text(&topic)),
        Command::Version => print(&cli::version_text()),
        Command::Check(options) => Ok(config::check(&options, &mut io::stdout(), &mut io::stderr())?),
        Command::Run(options) => run(options),
        Command::Plan {
            options,
            json,
            instance,
        } => plan(&options, json, instance.as_deref()),
        Command::Cleanup { options, dry_run } => cleanup(&options, dry_run),
        Command::Reload(options) => daemon::reload(&options),
        Command::Status {
            options,
            json,
            watch,
            instance,
        } => daemon::status(&options, json, watch, instance.as_deref()),
        Command::Events { options, json } => daemon::events(&options, json),
        Command::Metrics(options) => daemon::metrics(&options),
        Command::Doctor {
            options,
            json,
            instance,
        } => doctor::run(&options, json, instance.as_deref()),
        Command::Translate {
            options,
            mtu4,
            mtu6,
            input,
            output,
        } => translate::run(&options, translate::MtuOptions { mtu4, mtu6 }, &input, &output),
        Command::Discover { options, json, device } => discover::run(&options, json, device.as_deref()),
    }
}

fn print(text: &str) -> Result<bool, AnyError> {
    let mut out = io::stdout().lock();
    // A reader that stops early (`clatd --help | head`) is no failure.
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(true),
    }
}

/// The configuration, or its errors on stderr. Sets logging up by it.
fn load(options: &Options) -> Result<Option<LoadedConfig>, AnyError> {
    match config::load(options) {
        Ok(loaded) => {
            logging::init(Verbosity {
                quiet: loaded.base.general.quiet,
                debug: loaded.base.general.debug,
            })?;
            loaded.warnings.iter().for_each(|warning| warn!("{warning}"));
            loaded.notes.iter().for_each(|note| debug!("{note}"));
            Ok(Some(loaded))
        }
        Err(errors) => {
            show(&errors, options)?;
            Ok(None)
        }
    }
}

fn show(errors: &ConfigErrors, options: &Options) -> Result<(), AnyError> {
    logging::init(Verbosity {
        quiet: options.quiet,
        debug: options.debug,
    })?;
    errors.warnings.iter().for_each(|warning| warn!("{warning}"));
    errors.errors.iter().for_each(|problem| error!("{problem}"));
    Ok(())
}

fn runtime() -> io::Result<Runtime> {
    // Packets have threads of their own; two threads are enough for the rest.
    Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

fn run(options: Options) -> Result<bool, AnyError> {
    let Some(loaded) = load(&options)? else {
        return Ok(false);
    };
    info!("starting clatd {}", env!("CARGO_PKG_VERSION"));
    memory::keep_small();
    // Before the runtime: its threads have what this one has.
    hardening::enter(&loaded);
    Ok(runtime()?.block_on(supervisor::run(options, loaded))?)
}

fn plan(options: &Options, json: bool, wanted: Option<&str>) -> Result<bool, AnyError> {
    let Some(mut loaded) = load(options)? else {
        return Ok(false);
    };
    if let Some(name) = wanted {
        let stem = name.split('@').next().unwrap_or(name);
        loaded.instances.retain(|configured| configured.instance.name == name);
        loaded
            .templates
            .retain(|template| template.configured.instance.name == stem);
        loaded.unable.retain(|unable| unable.name == name);
        if loaded.instances.is_empty() && loaded.templates.is_empty() && loaded.unable.is_empty() {
            return Err(format!("there is no instance {name}").into());
        }
    }
    let (document, clean) = runtime()?.block_on(observe_all(&loaded, wanted))?;
    let text = if json {
        serde_json::to_string_pretty(&document)? + "\n"
    } else {
        document.to_string()
    };
    Ok(print(&text)? && clean)
}

/// The plans of all instances. Returns false if some could not be made, which was reported.
async fn observe_all(loaded: &LoadedConfig, wanted: Option<&str>) -> Result<(PlanDocument, bool), AnyError> {
    let world = SystemWorld::for_command(Netlink::open()?);
    let reservations = Reservations::default();
    let mut document = PlanDocument {
        version: PlanDocument::VERSION,
        instances: Vec::new(),
        idle: Vec::new(),
    };
    let mut clean = loaded.unable.is_empty();
    for unable in &loaded.unable {
        error!("instance {}: {}", unable.name, unable.error);
    }
    let (instances, refused) = with_templates(loaded, &world).await?;
    clean &= refused.is_empty();
    refused.iter().for_each(|problem| error!("{problem}"));
    // A template's own name stands for all its instances.
    let is_wanted = |instance: &&Instance| match wanted {
        Some(name) => instance.name == name || instance.name.starts_with(&format!("{name}@")),
        None => true,
    };
    for instance in instances.iter().filter(is_wanted) {
        let claims = DryRun::new(&reservations, &loaded.runtime_dir, &instance.name);
        let mut facts = Facts::default();
        let planned = match pipeline::observe(instance, &world, &claims, &mut facts, &mut WithoutWaiting).await {
            Ok(Readiness::Idle { reason }) => {
                document.idle.push(Idle {
                    instance: instance.name.clone(),
                    reason,
                });
                continue;
            }
            Ok(Readiness::Ready) => pipeline::plan(instance, facts).map_err(|failure| chain(&failure)),
            Err(failure) => Err(chain(&failure)),
        };
        match planned {
            Ok(plan) => {
                for note in plan.facts.all_notes() {
                    warn!("instance {}: {note}", instance.name);
                }
                clean &= can_write_sysctls(&plan);
                document.instances.push(plan);
            }
            Err(failure) => {
                error!("instance {}: {failure}", instance.name);
                clean = false;
            }
        }
    }
    Ok((document, clean))
}

/// Whether the kernel would accept the sysctls of the plan; if not, reports why. In many
/// containers /proc/sys is read-only; in some of these /proc/sys/net is writable.
fn can_write_sysctls(plan: &Plan) -> bool {
    let sets = |step: &&Step| {
        matches!(
            step.apply,
            Op::SetDeviceSysctl { .. } | Op::HoldSysctl { .. } | Op::HoldOnDevices(_)
        )
    };
    let Some(first) = plan.steps.iter().find(sets) else {
        return true;
    };
    let is_read_only = statvfs("/proc/sys/net").is_ok_and(|filesystem| filesystem.flags().contains(FsFlags::ST_RDONLY));
    if is_read_only {
        error!(
            "instance {}: /proc/sys is read-only, so clatd could not \"{}\"; mount it read-write in the container, or \
             set the values from outside",
            plan.instance, first.apply
        );
    }
    !is_read_only
}

/// The instances, with those that templates make for the present uplinks.
async fn with_templates(
    loaded: &LoadedConfig,
    world: &SystemWorld,
) -> Result<(Vec<Instance>, Vec<Box<ConfigProblem>>), AnyError> {
    let mut instances: Vec<Instance> = loaded
        .instances
        .iter()
        .map(|configured| configured.instance.clone())
        .collect();
    let mut refused = Vec::new();
    if loaded.templates.is_empty() {
        return Ok((instances, refused));
    }
    for uplink in uplinks::find(world).await? {
        let Some(template) = config::template_for(&loaded.templates, &uplink, &instances) else {
            continue;
        };
        match config::instance_for(template, &uplink, &instances) {
            Ok(configured) => instances.push(configured.instance),
            Err(problem) => refused.push(problem),
        }
    }
    Ok((instances, refused))
}

fn cleanup(options: &Options, dry_run: bool) -> Result<bool, AnyError> {
    let Some(loaded) = load(options)? else { return Ok(false) };
    let report = runtime()?.block_on(clean_up(&loaded, dry_run))?;
    let mut text = String::new();
    for line in &report.done {
        text.push_str(if dry_run { "would " } else { "" });
        text.push_str(line);
        text.push('\n');
    }
    if report.done.is_empty() && report.errors.is_empty() {
        text.push_str("nothing to clean up\n");
    }
    report.errors.iter().for_each(|failure| error!("{failure}"));
    Ok(print(&text)? && report.errors.is_empty())
}

/// How long the clean-up may go on after a stop was asked for.
const GRACE: Duration = Duration::from_secs(20);

/// Cleans up until it is done. The first SIGINT or SIGTERM ends scripts that run; the rest keeps its time.
async fn clean_up(loaded: &LoadedConfig, dry_run: bool) -> Result<leftovers::Report, AnyError> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stop = CancellationToken::new();
    let work = leftovers::run_until(&loaded.runtime_dir, &loaded.base, dry_run, stop.clone());
    tokio::pin!(work);
    tokio::select! {
        report = &mut work => return Ok(report?),
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    stop.cancel();
    match tokio::time::timeout(GRACE, work).await {
        Ok(report) => {
            let mut report = report?;
            report.errors.push("a stop was asked for, so scripts were ended".into());
            Ok(report)
        }
        Err(_) => Err(format!(
            "a stop was asked for, and not all was undone within {} s",
            GRACE.as_secs()
        )
        .into()),
    }
}
