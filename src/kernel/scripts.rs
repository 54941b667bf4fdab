//! script-up and script-down.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::failure::{Done, Failure, NOTHING};
use super::group::Group;

/// Runs a script of the user's to its end, with its output where ours goes. After `limit`, or when `stop` is asked for,
/// all its processes are asked to end (SIGTERM, later SIGKILL): the step then fails as a whole, rather than the service
/// manager losing its patience.
pub(crate) async fn run(
    event: &str,
    command: &str,
    environment: &BTreeMap<String, String>,
    limit: Duration,
    stop: Option<&CancellationToken>,
) -> Done {
    tracing::info!(event, command, "running the script");
    let mut script = Group::spawn(
        Command::new("sh")
            .args(["-c", command])
            .envs(environment)
            .stdin(Stdio::null()),
    )
    .map_err(|error| Failure::new(error).hint("`sh` must be in PATH"))?;
    let status = tokio::select! {
        biased;
        status = script.wait() => status?,
        () = sleep(limit) => {
            script.end().await?;
            let failure = Failure::new(format!(
                "the {event} command did not end within {} s and was ended",
                limit.as_secs()
            ));
            return Err(failure.hint("script-timeout sets how long it may take"));
        }
        () = asked(stop) => {
            script.end().await?;
            return Err(Failure::new(format!("the {event} command was ended, since clatd is to stop")));
        }
    };
    if status.success() {
        return Ok(NOTHING);
    }
    Err(Failure::new(match (status.code(), status.signal()) {
        (Some(code), _) => format!("the {event} command exited with status {code}"),
        (None, Some(signal)) => format!("the {event} command was killed by signal {signal}"),
        (None, None) => format!("the {event} command failed"),
    }))
}

async fn asked(stop: Option<&CancellationToken>) {
    match stop {
        Some(stop) => stop.cancelled().await,
        None => std::future::pending().await,
    }
}
