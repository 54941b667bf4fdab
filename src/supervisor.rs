//! One daemon, many instances. It starts, stops and reloads them, and prevents that they harm each other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clatd_stages::facts::Facts;
use clatd_stages::fast_path;
use clatd_stages::settings::{TranslatorChoice, WhenIdle};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info, info_span};

use crate::claims::{AllClaims, InstanceClaims};
use crate::cli::Options;
use crate::config::{Configured, LoadedConfig, Template};
use crate::control::{self, Control, Reload, Sources};
use crate::instance::{End, Past, Repairs, Runner, Said, Status};
use crate::kernel::command;
use crate::kernel::lock::LockError;
use crate::kernel::{FileJournal, Holds, Kernel, NamespaceLock, Netlink, RuntimeLock, TranslatorExit};
use crate::metrics;
use crate::report::chain;
use crate::service::ServiceManager;
use crate::status::{Board, BoardEntry, SilentPlats, watch_plats};
use crate::util::AnyError;
use crate::watch::{Interest, Watch};
use crate::world::{SilentRouters, SystemWorld};
use coming::{collide, same_uplink};

mod allotments;
mod coming;
mod leftovers;
mod reload;
#[cfg(test)]
mod tests;
mod told;

/// Why the daemon could not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The runtime directory could not be used, or another clatd uses it.
    #[error("cannot use the runtime directory {}", path.display())]
    Runtime {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: AnyError,
    },
    /// Another clatd runs in this network namespace.
    #[error(transparent)]
    Other(#[from] LockError),
    /// Something that the whole daemon needs is missing.
    #[error("cannot {doing}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

fn system(doing: &'static str) -> impl FnOnce(std::io::Error) -> StartError {
    move |source| StartError::System { doing, source }
}

/// How long instances may take to stop. Service managers wait for 90 s.
const STOP_DEADLINE: Duration = Duration::from_secs(75);
/// How much of that time is for everything but a script-down.
const BESIDE_SCRIPTS: Duration = Duration::from_secs(15);

/// An instance that was started.
struct StartedInstance {
    configured: Configured,
    /// The name of the template that made it.
    template: Option<String>,
    stop: CancellationToken,
    status: watch::Receiver<Status>,
    /// Held until all is undone, also after a panic.
    _claims: Arc<InstanceClaims>,
    /// The status as the service manager has it.
    told: String,
    task: Id,
    /// It panicked. The task only undoes what it did.
    panicked: bool,
}

/// The daemon.
pub struct Supervisor {
    options: Options,
    runtime_dir: PathBuf,
    netlink: Netlink,
    holds: Holds,
    world: Arc<SystemWorld>,
    claims: AllClaims,
    watch: Watch,
    stop: CancellationToken,
    started: BTreeMap<String, StartedInstance>,
    tasks: JoinSet<End>,
    /// Instances that wait until those with the same resources have ended.
    waiting: Vec<Configured>,
    templates: Vec<Template>,
    /// Instances of templates that could not be made, so that this is reported once.
    refused: BTreeSet<String>,
    failed: bool,
    manager: ServiceManager,
    /// Rings when the status of an instance changes.
    bell: Arc<Notify>,
    board: Board,
    reloads: mpsc::Receiver<Reload>,
    metrics: Option<metrics::MetricsServer>,
    _control: Control,
    _lock: RuntimeLock,
    _alone: NamespaceLock,
}

/// Runs all instances until they have ended, or until SIGINT or SIGTERM comes. Returns true if nothing failed.
pub async fn run(options: Options, loaded: LoadedConfig) -> Result<bool, StartError> {
    // Before anything is changed, since a signal during set-up must undo, not kill.
    let mut signals = Signals::new().map_err(system("catch signals"))?;
    let mut supervisor = Supervisor::new(options, &loaded).await?;
    if !supervisor.undo_leftovers(&mut signals).await {
        return Ok(!supervisor.failed);
    }
    supervisor.start_all(loaded).await;
    let clean = supervisor.supervise(signals).await;
    supervisor.claims.release_delegations().await;
    supervisor.tell_the_end();
    Ok(clean)
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits until a stop is asked for. Returns the signal.
    async fn stop(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

impl Supervisor {
    async fn new(options: Options, loaded: &LoadedConfig) -> Result<Self, StartError> {
        let runtime_dir = loaded.runtime_dir.clone();
        command::follow(&loaded.base.general);
        let unusable = |source: AnyError| StartError::Runtime {
            path: runtime_dir.clone(),
            source,
        };
        let lock = RuntimeLock::acquire(&runtime_dir).map_err(|source| unusable(source.into()))?;
        let alone = NamespaceLock::acquire(&runtime_dir).await?;
        let netlink = Netlink::open().map_err(system("open a netlink socket"))?;
        let holds = Holds::default();
        let board = Board::default();
        let (reload_sender, reloads) = mpsc::channel(1);
        let silent = SilentRouters::default();
        let watch = Watch::start(&netlink, silent.clone());
        let (teller, tell, claims_teller) = (watch.clone(), watch.clone(), watch.clone());
        let plats = SilentPlats::default();
        let world = SystemWorld::new(netlink.clone(), holds.clone(), move |device| teller.tell(device));
        let world = Arc::new(world.avoiding(silent).avoiding_plats(plats.clone()));
        let claims = AllClaims::new(netlink.clone(), &runtime_dir, move |device| claims_teller.tell(device));
        tokio::spawn(watch_plats(board.clone(), world.clone(), plats, move || {
            tell.tell(None)
        }));
        let sources = Sources::new(board.clone(), world.clone(), reload_sender);
        let control = control::open(&runtime_dir, sources, loaded.base.general.control_group.as_deref())
            .map_err(|source| unusable(source.into()))?;
        Ok(Self {
            options,
            runtime_dir,
            netlink,
            holds,
            world,
            claims,
            watch,
            stop: CancellationToken::new(),
            started: BTreeMap::new(),
            tasks: JoinSet::new(),
            waiting: Vec::new(),
            templates: Vec::new(),
            refused: BTreeSet::new(),
            failed: false,
            manager: ServiceManager::default(),
            bell: Arc::default(),
            board,
            reloads,
            metrics: None,
            _control: control,
            _lock: lock,
            _alone: alone,
        })
    }

    async fn start_all(&mut self, loaded: LoadedConfig) {
        self.refuse(&loaded);
        let wants_fast_path =
            |configured: &Configured| fast_path::may_run(&configured.instance.settings, TranslatorChoice::Ebpf);
        if loaded.configured().any(wants_fast_path) {
            self.holds.fast_path.load_ahead();
        }
        self.serve_metrics(loaded.base.general.metrics_listen);
        for configured in loaded.instances {
            self.start(configured, None);
        }
        self.use_templates(loaded.templates);
        self.follow_uplinks().await;
    }

    /// Serves metrics where the settings say so. A server that is right already stays.
    fn serve_metrics(&mut self, wanted: Option<SocketAddr>) {
        if self.metrics.as_ref().map(metrics::MetricsServer::address) == wanted {
            return;
        }
        self.metrics = None;
        let Some(address) = wanted else { return };
        match metrics::serve(address, self.board.clone()) {
            Ok(server) => self.metrics = Some(server),
            Err(failure) => {
                error!("metrics cannot be served on {address} (metrics-listen): {failure}");
                self.failed = true;
            }
        }
    }

    fn use_templates(&mut self, templates: Vec<Template>) {
        let stand_in = templates.first().map(|template| {
            let mut instance = template.configured.instance.clone();
            instance.settings.plat.plat_dev = None;
            instance
        });
        self.board.stand_in(stand_in);
        self.templates = templates;
    }

    fn refuse(&mut self, loaded: &LoadedConfig) {
        for unable in &loaded.unable {
            error!("instance {} cannot run: {}", unable.name, unable.error);
            self.failed = true;
        }
    }

    fn start(&mut self, configured: Configured, template: Option<String>) {
        let name = configured.instance.name.clone();
        let journal = match FileJournal::open(&self.runtime_dir, &name) {
            Ok(journal) => journal,
            Err(failure) => {
                error!("instance {name} cannot run: {}", chain(&failure));
                self.failed = true;
                return;
            }
        };
        let (exit_sender, exits) = mpsc::unbounded_channel::<TranslatorExit>();
        let (status_sender, status) = watch::channel(Status::default());
        let kernel = self.kernel(&name, exit_sender);
        let entry = BoardEntry {
            instance: configured.instance.clone(),
            status: status.clone(),
            statistics: kernel.statistics(),
        };
        self.board.put(&name, entry);
        let stop = self.stop.child_token();
        let claims = Arc::new(self.claims.of(&name));
        let runner = Runner {
            instance: configured.instance.clone(),
            waits: configured.instance.settings.general.when_idle == Some(WhenIdle::Wait),
            world: Arc::new(self.world.for_instance(&name)),
            claims: claims.clone(),
            system: Box::new(kernel.stopped_by(stop.clone())),
            journal: Box::new(journal),
            exits,
            changes: self
                .watch
                .subscribe(Interest::of(&configured.instance, &Facts::default())),
            stop: stop.clone(),
            status: status_sender,
            repairs: Repairs::default(),
            pace: Default::default(),
            said: Said::default(),
            past: Past::default(),
            claimed: None,
        };
        told::ring_at_changes(status.clone(), self.bell.clone());
        let task = self
            .tasks
            .spawn(runner.run().instrument(info_span!("instance", name = %name)))
            .id();
        let started = StartedInstance {
            configured,
            template,
            stop,
            status,
            _claims: claims,
            told: String::new(),
            task,
            panicked: false,
        };
        self.started.insert(name, started);
    }

    fn kernel(&self, instance: &str, exits: mpsc::UnboundedSender<TranslatorExit>) -> Kernel {
        Kernel::new(instance, self.netlink.clone(), self.holds.clone(), exits)
    }

    async fn supervise(&mut self, mut signals: Signals) -> bool {
        let mut changes = self.watch.subscribe(Interest::Uplinks);
        let mut deadline = None;
        let mut watchdog = told::watchdog();
        loop {
            self.tell_manager();
            if self.is_over() {
                break;
            }
            if self.stop.is_cancelled() {
                deadline.get_or_insert_with(|| Instant::now() + self.stop_deadline());
            }
            tokio::select! {
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended).await,
                _ = signals.interrupt.recv() => self.stop_all("SIGINT"),
                _ = signals.terminate.recv() => self.stop_all("SIGTERM"),
                _ = signals.hangup.recv() => {
                    info!("SIGHUP: reading the configuration again");
                    self.manager.reloading();
                    let _ = self.reload().await;
                }
                Some(reply) = self.reloads.recv() => {
                    info!("reload: reading the configuration again");
                    self.manager.reloading();
                    let _ = reply.send(self.reload().await);
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    let late: Vec<&str> = self.started.keys().map(String::as_str).collect();
                    error!("these instances did not stop in {} s: {}; run `clatd cleanup` to undo what is left", self.stop_deadline().as_secs(), late.join(", "));
                    return false;
                }
                Ok(()) = changes.changed(), if !self.templates.is_empty() => self.follow_uplinks().await,
                () = self.bell.notified() => {}
                () = told::tick(&mut watchdog) => self.manager.alive(),
            }
        }
        self.manager.stopping();
        !self.failed
    }

    /// How long instances may take to stop. A script-down with a longer limit gets that time.
    fn stop_deadline(&self) -> Duration {
        let scripts = self.started.values().map(|started| {
            let settings = &started.configured.instance.settings;
            let limit = settings
                .general
                .script_down
                .as_ref()
                .map_or(0, |_| settings.general.script_timeout);
            Duration::from_secs(limit.into()) + BESIDE_SCRIPTS
        });
        scripts.max().unwrap_or_default().max(STOP_DEADLINE)
    }

    /// Whether there is nothing left to wait for.
    fn is_over(&self) -> bool {
        self.tasks.is_empty() && (self.stop.is_cancelled() || (self.templates.is_empty() && self.waiting.is_empty()))
    }

    fn stop_all(&mut self, signal: &str) {
        info!("{signal}: stopping");
        self.manager.stopping();
        self.stop.cancel();
    }

    /// Logs what is not undone, or that everything is.
    fn tell_the_end(&self) {
        let how = if self.stop.is_cancelled() { "stopped" } else { "ended" };
        match FileJournal::list(&self.runtime_dir) {
            Ok(left) if left.is_empty() => info!("{how}, all undone"),
            Ok(left) => error!(
                "{how}, but not everything of {} is undone; run `clatd cleanup` to try again",
                left.join(", ")
            ),
            Err(failure) => error!("{how}; {}", chain(&failure)),
        }
    }

    /// A task has ended. If it panicked, it could not undo what it did, so that is done here.
    async fn ended(&mut self, ended: Result<(Id, End), JoinError>) {
        let (task, end) = match ended {
            Ok((task, end)) => (task, Some(end)),
            Err(panic) => {
                error!("an instance panicked: {panic}");
                (panic.id(), None)
            }
        };
        let name = self
            .started
            .iter()
            .find(|(_, started)| started.task == task)
            .map(|(name, _)| name.clone());
        if end != Some(End::Clean) {
            self.failed = true;
        }
        let Some(name) = name else { return };
        // In a task of its own, so that signals are handled meanwhile.
        if end.is_none()
            && let Some(started) = self.started.get(&name).filter(|started| !started.panicked)
        {
            info!("instance {name}: undoing what it did");
            let span = info_span!("instance", name = %name);
            let stop = started.stop.clone();
            let undoing = self.undoing().one(name.clone()).instrument(span);
            let task = self.tasks.spawn(undoing).id();
            stop.cancel();
            if let Some(started) = self.started.get_mut(&name) {
                (started.task, started.panicked) = (task, true);
            }
            return;
        }
        self.started.remove(&name);
        self.board.take(&name);
        self.world.instance_ended(&name);
        if !self.stop.is_cancelled() {
            self.start_waiting();
            self.follow_uplinks().await;
        }
    }
}
