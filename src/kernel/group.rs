//! A program with all processes that it starts. They end together.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long programs may take to end after they were asked to.
const ENDING: Duration = Duration::from_secs(5);

/// A running program, the first of a process group of its own. If this is dropped before its end, the whole group is
/// killed.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) child: Child,
    /// `None` = its end was seen.
    leader: Option<Pid>,
}

impl Group {
    /// Starts it. A ^C at the terminal goes to the daemon, which undoes things in order, and not to the program.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        let child = command.process_group(0).spawn()?;
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        Ok(Self { child, leader })
    }

    /// Waits for the end of the program itself. Processes that it left in the background go on.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        self.leader = None;
        Ok(status)
    }

    /// Asks all its processes to end, and then kills them.
    pub(crate) async fn end(&mut self) -> io::Result<ExitStatus> {
        let group = self.leader;
        signal(group, Signal::SIGTERM);
        let ended = timeout(ENDING, self.child.wait()).await;
        // Also those that outlive the first of them.
        signal(group, Signal::SIGKILL);
        let status = match ended {
            Ok(status) => status?,
            Err(_) => self.child.wait().await?,
        };
        self.leader = None;
        Ok(status)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        signal(self.leader, Signal::SIGKILL);
    }
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // ESRCH: all of it has just ended.
        let _ = killpg(group, signal);
    }
}
