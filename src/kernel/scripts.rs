//! script-up and script-down.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use tokio::process::Command;

use super::failure::{Done, Failure, NOTHING};

/// Runs a script of the user's to its end, however long it takes, with its output where ours goes.
pub(crate) async fn run(event: &str, command: &str, environment: &BTreeMap<String, String>) -> Done {
    tracing::info!(event, command, "running the script");
    let status = Command::new("sh")
        .args(["-c", command])
        .envs(environment)
        .stdin(Stdio::null())
        // A ^C at the terminal stops the daemon between steps; it must not cut a step in half.
        .process_group(0)
        .status()
        .await
        .map_err(|error| Failure::new(error).hint("`sh` must be in PATH"))?;
    if status.success() {
        return Ok(NOTHING);
    }
    Err(Failure::new(match (status.code(), status.signal()) {
        (Some(code), _) => format!("the {event} command exited with status {code}"),
        (None, Some(signal)) => format!("the {event} command was killed by signal {signal}"),
        (None, None) => format!("the {event} command failed"),
    }))
}
