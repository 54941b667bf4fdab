//! script-up and script-down, and what changes nothing.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use clatd_stages::journal::Outcome;
use clatd_stages::op::ScriptRun;
use clatd_stages::world::WorldError;
use nix::unistd::{User, geteuid};
use tokio::process::Command;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::super::Kernel;
use super::super::failure::{Failure, NOTHING, OpResult};
use super::super::group::Group;
use super::{Look, Nature, Operation};

pub(super) enum Change<'a> {
    Run(&'a ScriptRun),
    Nothing,
}

impl<'a> Operation<'a> for Change<'a> {
    fn nature(&self) -> Nature {
        match self {
            Self::Run(_) => Nature {
                untold: false,
                atomic: false,
                swept: false,
                outlives_device: false,
            },
            Self::Nothing => Nature {
                untold: false,
                atomic: true,
                swept: false,
                outlives_device: false,
            },
        }
    }

    fn device(&mut self) -> Option<&mut &'a str> {
        match self {
            Self::Run(_) | Self::Nothing => None,
        }
    }

    async fn carry_out(&self, kernel: &mut Kernel, _: Option<&Outcome>) -> OpResult {
        match self {
            Self::Run(script) => {
                // A script-down is part of stopping.
                let is_stopped = kernel.hurried || script.event == "script-up";
                run(script, kernel.stop.as_ref().filter(|_| is_stopped)).await
            }
            Self::Nothing => Ok(NOTHING),
        }
    }

    async fn stands(&self, _: &mut Look<'_>) -> Result<bool, WorldError> {
        match self {
            // Only the user knows what a script did.
            Self::Run(_) | Self::Nothing => Ok(true),
        }
    }
}

/// Runs it to its end, with its output where ours goes. After the limit, or when `stop` is asked for, all its processes
/// are asked to end (SIGTERM, later SIGKILL): the step then fails as a whole, rather than the service manager losing
/// its patience.
async fn run(script: &ScriptRun, stop: Option<&CancellationToken>) -> OpResult {
    let ScriptRun { event, command, .. } = script;
    let limit = Duration::from_secs(script.timeout_s.into());
    tracing::info!(event, command, "running the script");
    let mut group = start(script)?;
    let status = tokio::select! {
        biased;
        status = group.wait() => status?,
        () = sleep(limit) => {
            group.end().await?;
            let failure = Failure::new(format!(
                "the {event} command did not end within {} s and was ended",
                script.timeout_s
            ));
            return Err(failure.hint("script-timeout sets how long it may take"));
        }
        () = asked(stop) => {
            group.end().await?;
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

fn start(script: &ScriptRun) -> Result<Group, Failure> {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &script.command])
        .envs(&script.environment)
        .stdin(Stdio::null());
    if let Some(name) = &script.user {
        become_user(&mut shell, name)?;
    }
    Group::spawn(&mut shell).map_err(|error| {
        let hint = match (&script.user, error.kind()) {
            (Some(name), io::ErrorKind::PermissionDenied) => {
                format!("clatd may not become {name} (script-user): only root with CAP_SETUID and CAP_SETGID may")
            }
            (Some(_) | None, _) => "`sh` must be in PATH".to_owned(),
        };
        Failure::new(error).hint(hint)
    })
}

/// Has a program run as another user, in that user's own group. It has no others, and none of our capabilities.
fn become_user(command: &mut Command, name: &str) -> Result<(), Failure> {
    let user = User::from_name(name)
        .map_err(io::Error::from)?
        .ok_or_else(|| Failure::new(format!("there is no user {name} (script-user)")))?;
    if user.uid == geteuid() {
        return Ok(());
    }
    command
        .uid(user.uid.as_raw())
        .gid(user.gid.as_raw())
        .env("USER", &user.name)
        .env("LOGNAME", &user.name)
        .env("HOME", &user.dir);
    Ok(())
}

async fn asked(stop: Option<&CancellationToken>) {
    match stop {
        Some(stop) => stop.cancelled().await,
        None => std::future::pending().await,
    }
}
