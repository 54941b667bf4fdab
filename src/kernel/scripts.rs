//! script-up and script-down.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::failure::{Done, Failure, NOTHING};

/// How long a script that was asked to end may take for it.
const ENDING: Duration = Duration::from_secs(10);

/// Runs a script of the user's to its end, however long it takes, with its output where ours goes. When `stop` is
/// asked for meanwhile, the script is asked to end (SIGTERM, later SIGKILL, to all its processes): the step then fails
/// as a whole and is undone, rather than the service manager losing its patience.
pub(crate) async fn run(
    event: &str,
    command: &str,
    environment: &BTreeMap<String, String>,
    stop: Option<&CancellationToken>,
) -> Done {
    tracing::info!(event, command, "running the script");
    let mut child = Command::new("sh")
        .args(["-c", command])
        .envs(environment)
        .stdin(Stdio::null())
        // A ^C at the terminal stops the daemon between steps; it must not cut a step in half.
        .process_group(0)
        .spawn()
        .map_err(|error| Failure::new(error).hint("`sh` must be in PATH"))?;
    let status = match stop {
        Some(stop) => tokio::select! {
            status = child.wait() => status,
            () = stop.cancelled() => end(&mut child).await,
        },
        None => child.wait().await,
    };
    let status = status.map_err(Failure::new)?;
    if status.success() {
        return Ok(NOTHING);
    }
    Err(Failure::new(match (status.code(), status.signal()) {
        (Some(code), _) => format!("the {event} command exited with status {code}"),
        (None, Some(signal)) => format!("the {event} command was killed by signal {signal}"),
        (None, None) => format!("the {event} command failed"),
    }))
}

/// Asks all processes of the script to end, and makes them if they do not.
async fn end(child: &mut Child) -> io::Result<ExitStatus> {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        if let Some(group) = group {
            // ESRCH: it has just ended.
            let _ = killpg(group, signal);
        }
        if let Ok(status) = timeout(ENDING, child.wait()).await {
            return status;
        }
    }
    child.wait().await
}
