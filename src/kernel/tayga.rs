//! The external TAYGA as a child process that does not outlive the daemon.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, PipeReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use clatd_stages::translator::TaygaSpec;
use clatd_stages::world::WorldError;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::command::{self, CommandError};
use super::device_counters::DeviceCounters;
use super::failure::{Failure, NOTHING};
use super::helper::{self, HelperUser};
use super::netlink::Netlink;
use super::ops::Look;
use super::translators::{Counting, Host, Position, Running, Started, TranslatorKind, is_open};
use crate::sys::child::die_with_us;
use crate::util::lock;

/// How long TAYGA may take to open its device, and to end when asked to.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the device is looked at meanwhile.
const POLL: Duration = Duration::from_millis(20);
/// How many lines of its output are kept for the report of its death.
const KEPT_LINES: usize = 20;
/// How long to wait for its last output after its death.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// What TAYGA opens.
const TUN: &str = "/dev/net/tun";
/// Its argument before the name of its configuration file.
const CONFIG: &str = "--config";
/// The name of a process's own standard input.
const STANDARD_INPUT: &str = "/proc/self/fd/0";

/// A TAYGA at work.
#[derive(Debug)]
pub(crate) struct Tayga {
    shared: Arc<TaygaProcess>,
    /// How it ended, once it has.
    ended: watch::Receiver<Option<String>>,
    /// It does not tell what it does, but its device counts.
    counters: Arc<DeviceCounters>,
}

#[derive(Debug, Default)]
struct TaygaProcess {
    /// Its process number, while nobody else can have it.
    pid: Mutex<Option<Pid>>,
    /// Whether a caller that would see the end itself is gone. Only then `on_exit` is told.
    unattended: AtomicBool,
    output: Mutex<VecDeque<String>>,
}

#[async_trait]
impl TranslatorKind for TaygaSpec {
    fn device(&self) -> &str {
        &self.device
    }

    fn position(&self) -> Position {
        Position::Device
    }

    async fn start(&self, host: Host<'_>) -> Result<Started, Failure> {
        let end = host.end;
        let tayga = Tayga::start(self, host.netlink, move |detail| end.tell(detail)).await?;
        Ok(Started {
            running: Box::new(tayga),
            outcome: NOTHING,
        })
    }

    async fn stands(&self, look: &mut Look<'_>) -> Result<bool, WorldError> {
        is_open(&self.device, look).await
    }
}

#[async_trait]
impl Running for Tayga {
    fn counting(&self) -> Arc<dyn Counting> {
        Arc::<DeviceCounters>::clone(&self.counters)
    }

    async fn stop(mut self: Box<Self>) {
        self.end().await;
    }
}

impl Tayga {
    /// Starts it, and waits until it has opened its device. `on_exit` is told when it ends without having been asked
    /// to.
    async fn start(
        spec: &TaygaSpec,
        netlink: &Netlink,
        on_exit: impl Fn(String) + Send + 'static,
    ) -> Result<Self, Failure> {
        let path = command::find(&spec.command).ok_or_else(|| {
            let error = CommandError::NotFound {
                command: spec.command.clone(),
            };
            Failure::new(error).hint("install TAYGA, set cmd-tayga, or use translator=userspace")
        })?;
        let Some(link) = netlink.link(&spec.device).await? else {
            return Err(Failure::new(format!("there is no device {}", spec.device)));
        };
        let shared = Arc::new(TaygaProcess::default());
        let (started, start) = tokio::sync::oneshot::channel();
        let (end, ended) = watch::channel(None);
        let (thread_shared, arguments) = (Arc::clone(&shared), spec.arguments.clone());
        // The kernel sends the parent-death signal when the *thread* that made the child ends. So this thread stays,
        // and waits for the child.
        thread::Builder::new().name("clatd-tayga".into()).spawn(move || {
            let (mut child, output) = match spawn(path, &arguments) {
                Ok(spawned) => spawned,
                Err(error) => {
                    let _ = started.send(Err(error));
                    return;
                }
            };
            let pid = Pid::from_raw(child.id().cast_signed());
            *lock(&thread_shared.pid) = Some(pid);
            let _ = started.send(Ok(()));
            let detail = attend(&mut child, pid, &thread_shared, output);
            let _ = end.send(Some(detail.clone()));
            if thread_shared.unattended.load(Ordering::SeqCst) {
                on_exit(detail);
            }
        })?;
        start.await??;
        let tayga = Self {
            shared,
            ended,
            counters: Arc::new(DeviceCounters::from_now_on(link.index)),
        };
        tayga.ready(netlink, &spec.device).await
    }

    async fn ready(mut self, netlink: &Netlink, device: &str) -> Result<Self, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = self.ended.borrow().clone();
            if let Some(detail) = ended {
                return Err(Failure::new(format!("TAYGA ended at once: {detail}")));
            }
            let link = match netlink.link(device).await {
                Ok(link) => link,
                Err(error) => {
                    self.end().await;
                    return Err(error.into());
                }
            };
            if link.is_some_and(|link| link.carrier) {
                self.shared.unattended.store(true, Ordering::SeqCst);
                // It may have died between the two checks. Two reports are better than none.
                let ended = self.ended.borrow().clone();
                return match ended {
                    Some(detail) => Err(Failure::new(format!("TAYGA ended at once: {detail}"))),
                    None => Ok(self),
                };
            }
            if Instant::now() > deadline {
                let output = last_lines(&self.shared);
                self.end().await;
                return Err(Failure::new(format!(
                    "TAYGA did not open {device} within {} s{output}",
                    PATIENCE.as_secs()
                )));
            }
            sleep(POLL).await;
        }
    }

    /// Asks it to end, and kills it if it does not. Returns when it has ended.
    async fn end(&mut self) {
        self.shared.unattended.store(false, Ordering::SeqCst);
        self.signal(Signal::SIGTERM);
        if timeout(PATIENCE, self.ended.wait_for(Option::is_some)).await.is_err() {
            tracing::warn!("TAYGA does not end when asked to; killing it");
            self.signal(Signal::SIGKILL);
            let _ = self.ended.wait_for(Option::is_some).await;
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = *lock(&self.shared.pid)
            && let Err(error) = kill(pid, signal)
        {
            tracing::debug!(%error, %signal, "signalling TAYGA");
        }
    }
}

impl Drop for Tayga {
    /// After `stop` nobody is left to signal. Otherwise an instance that panicked ends its TAYGA here.
    fn drop(&mut self) {
        self.shared.unattended.store(false, Ordering::SeqCst);
        self.signal(Signal::SIGTERM);
    }
}

fn spawn(path: PathBuf, arguments: &[String]) -> io::Result<(Child, PipeReader)> {
    // One pipe for both streams, so that the lines keep their order.
    let (output, input) = io::pipe()?;
    let mut command = Command::new(path);
    command.stdout(input.try_clone()?).stderr(input).process_group(0);
    match helper_user() {
        Some(user) => {
            let (arguments, file) = by_standard_input(arguments)?;
            command.args(arguments).stdin(file);
            user.runs(&mut command);
        }
        None => {
            command.args(arguments).stdin(Stdio::null());
        }
    }
    die_with_us(&mut command);
    Ok((command.spawn()?, output))
}

/// The user of helper programs, if that user may open TUN devices.
fn helper_user() -> Option<HelperUser> {
    let user = helper::user()?;
    if user.may_use(Path::new(TUN)) {
        return Some(user);
    }
    tracing::warn!("TAYGA runs as clatd's own user: script-user may not open {TUN}");
    None
}

/// Only the daemon can read the file that the arguments name, so its text becomes the standard input.
fn by_standard_input(arguments: &[String]) -> io::Result<(Vec<String>, Stdio)> {
    let mut arguments = arguments.to_vec();
    let named = arguments.iter().position(|argument| argument == CONFIG);
    let Some(file) = named.and_then(|at| arguments.get_mut(at + 1)) else {
        return Ok((arguments, Stdio::null()));
    };
    let text = helper::readable(&std::fs::read(&*file)?)?;
    *file = STANDARD_INPUT.to_owned();
    Ok((arguments, text.into()))
}

/// Waits for the child's end. Returns how it ended, with its last output.
fn attend(child: &mut Child, pid: Pid, shared: &Arc<TaygaProcess>, output: PipeReader) -> String {
    let (drained, drain) = mpsc::channel::<()>();
    let reader = Arc::clone(shared);
    let reading = thread::Builder::new().name("clatd-tayga-out".into()).spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            tracing::debug!(target: "tayga", "{line}");
            let mut kept = lock(&reader.output);
            if kept.len() == KEPT_LINES {
                kept.pop_front();
            }
            kept.push_back(line);
        }
        drop(drained);
    });
    if let Err(error) = reading {
        tracing::warn!(%error, "cannot read TAYGA's output");
    }
    // Not reaped yet, so that nobody else gets its number while somebody may signal it.
    while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
    let mut pid = lock(&shared.pid);
    *pid = None;
    let status = child.wait();
    drop(pid);
    // A grandchild may keep the pipe open for ever.
    let _ = drain.recv_timeout(LAST_WORDS);
    let how = status.map_or_else(|error| error.to_string(), |status: ExitStatus| status.to_string());
    format!("{how}{}", last_lines(shared))
}

fn last_lines(shared: &TaygaProcess) -> String {
    let kept = lock(&shared.output);
    if kept.is_empty() {
        return String::new();
    }
    let lines = kept.iter().map(|line| line.trim()).collect::<Vec<_>>();
    format!("; its last output: {}", lines.join(" | "))
}
