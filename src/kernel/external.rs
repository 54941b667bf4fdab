//! A translator that is a program of others: a child process in the foreground, which opens the CLAT device by name and
//! does not outlive the daemon. What is special to one such program is in that program's file.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, PipeReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::device_counters::DeviceCounters;
use super::failure::{Failure, NOTHING};
use super::netlink::Netlink;
use super::translators::{Counting, Host, Running, Started};
use crate::sys::child::die_with_us;
use crate::util::lock;

/// How long the program may take to open its device, and to end when asked to.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the device is looked at meanwhile.
const POLL: Duration = Duration::from_millis(20);
/// How many lines of its output are kept for the report of its death.
const KEPT_LINES: usize = 20;
/// How long to wait for its last output after its death.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// The program at work.
#[derive(Debug)]
struct External {
    /// What people call it.
    name: &'static str,
    shared: Arc<ExternalProcess>,
    /// How it ended, once it has.
    ended: watch::Receiver<Option<String>>,
    /// It does not tell what it does, but its device counts.
    counters: Arc<DeviceCounters>,
}

/// What the thread that waits for the program needs, too.
#[derive(Debug, Default)]
struct ExternalProcess {
    /// Its process number, while nobody else can have it.
    pid: Mutex<Option<Pid>>,
    /// Whether a caller that would see the end itself is gone. Only then the daemon is told.
    unattended: AtomicBool,
    output: Mutex<VecDeque<String>>,
}

/// Starts the program called `name`, and waits until it has opened its device. `prepare` makes its command line, user and
/// input. The daemon is told when the program ends without having been asked to.
pub(super) async fn start(
    name: &'static str,
    device: &str,
    prepare: impl FnOnce() -> io::Result<Command> + Send + 'static,
    host: Host<'_>,
) -> Result<Started, Failure> {
    let Some(link) = host.netlink.link(device).await? else {
        return Err(Failure::new(format!("there is no device {device}")));
    };
    let shared = Arc::new(ExternalProcess::default());
    let (started, start) = tokio::sync::oneshot::channel();
    let (ending, ended) = watch::channel(None);
    let (thread_shared, report) = (Arc::clone(&shared), host.end);
    // The kernel sends the parent-death signal when the *thread* that made the child ends. So this thread stays,
    // and waits for the child.
    thread::Builder::new().name("clatd-external".into()).spawn(move || {
        let (mut child, output) = match prepare().and_then(spawn) {
            Ok(spawned) => spawned,
            Err(error) => {
                let _ = started.send(Err(error));
                return;
            }
        };
        let pid = Pid::from_raw(child.id().cast_signed());
        *lock(&thread_shared.pid) = Some(pid);
        let _ = started.send(Ok(()));
        let detail = attend(name, &mut child, pid, &thread_shared, output);
        let _ = ending.send(Some(detail.clone()));
        if thread_shared.unattended.load(Ordering::SeqCst) {
            report.tell(detail);
        }
    })?;
    start.await??;
    let external = External {
        name,
        shared,
        ended,
        counters: Arc::new(DeviceCounters::from_now_on(link.index)),
    };
    Ok(Started {
        running: Box::new(external.ready(host.netlink, device).await?),
        outcome: NOTHING,
    })
}

#[async_trait]
impl Running for External {
    fn counting(&self) -> Arc<dyn Counting> {
        Arc::<DeviceCounters>::clone(&self.counters)
    }

    async fn stop(mut self: Box<Self>) {
        self.end().await;
    }
}

impl External {
    async fn ready(mut self, netlink: &Netlink, device: &str) -> Result<Self, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = self.ended.borrow().clone();
            if let Some(detail) = ended {
                return Err(Failure::new(format!("{} ended at once: {detail}", self.name)));
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
                    Some(detail) => Err(Failure::new(format!("{} ended at once: {detail}", self.name))),
                    None => Ok(self),
                };
            }
            if Instant::now() > deadline {
                let output = last_lines(&self.shared);
                self.end().await;
                return Err(Failure::new(format!(
                    "{} did not open {device} within {} s{output}",
                    self.name,
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
            tracing::warn!("{} does not end when asked to; killing it", self.name);
            self.signal(Signal::SIGKILL);
            let _ = self.ended.wait_for(Option::is_some).await;
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = *lock(&self.shared.pid)
            && let Err(error) = kill(pid, signal)
        {
            tracing::debug!(%error, %signal, "signalling {}", self.name);
        }
    }
}

impl Drop for External {
    /// After `stop` nobody is left to signal. Otherwise an instance that panicked ends its program here.
    fn drop(&mut self) {
        self.shared.unattended.store(false, Ordering::SeqCst);
        self.signal(Signal::SIGTERM);
    }
}

fn spawn(mut command: Command) -> io::Result<(Child, PipeReader)> {
    // One pipe for both streams, so that the lines keep their order.
    let (output, input) = io::pipe()?;
    command.stdout(input.try_clone()?).stderr(input).process_group(0);
    die_with_us(&mut command);
    Ok((command.spawn()?, output))
}

/// Waits for the child's end. Returns how it ended, with its last output.
fn attend(
    name: &'static str,
    child: &mut Child,
    pid: Pid,
    shared: &Arc<ExternalProcess>,
    output: PipeReader,
) -> String {
    let (drained, drain) = mpsc::channel::<()>();
    let reader = Arc::clone(shared);
    let reading = thread::Builder::new().name("clatd-output".into()).spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            tracing::debug!("{name}: {line}");
            let mut kept = lock(&reader.output);
            if kept.len() == KEPT_LINES {
                kept.pop_front();
            }
            kept.push_back(line);
        }
        drop(drained);
    });
    if let Err(error) = reading {
        tracing::warn!(%error, "cannot read the output of {name}");
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

fn last_lines(shared: &ExternalProcess) -> String {
    let kept = lock(&shared.output);
    if kept.is_empty() {
        return String::new();
    }
    let lines = kept.iter().map(|line| line.trim()).collect::<Vec<_>>();
    format!("; its last output: {}", lines.join(" | "))
}
