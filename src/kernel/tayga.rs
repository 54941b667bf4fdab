//! The external TAYGA.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use async_trait::async_trait;
use clatd_stages::translator::TaygaSpec;
use clatd_stages::world::WorldError;

use super::command::{self, CommandError};
use super::external;
use super::failure::Failure;
use super::helper::{self, HelperUser};
use super::ops::Look;
use super::translators::{Host, Position, Started, TranslatorKind, is_open};

/// What TAYGA opens.
const TUN: &str = "/dev/net/tun";
/// Its argument before the name of its configuration file.
const CONFIG: &str = "--config";
/// The name of a process's own standard input.
const STANDARD_INPUT: &str = "/proc/self/fd/0";

#[async_trait]
impl TranslatorKind for TaygaSpec {
    fn device(&self) -> &str {
        &self.device
    }

    fn position(&self) -> Position {
        Position::Device
    }

    async fn start(&self, host: Host<'_>) -> Result<Started, Failure> {
        let path = command::find(&self.command).ok_or_else(|| {
            let error = CommandError::NotFound {
                command: self.command.clone(),
            };
            Failure::new(error).hint("install TAYGA, set cmd-tayga, or use translator=userspace")
        })?;
        let arguments = self.arguments.clone();
        external::start("TAYGA", &self.device, move || prepare(path, &arguments), host).await
    }

    async fn stands(&self, look: &mut Look<'_>) -> Result<bool, WorldError> {
        is_open(&self.device, look).await
    }
}

fn prepare(path: PathBuf, arguments: &[String]) -> io::Result<Command> {
    let mut command = Command::new(path);
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
    Ok(command)
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
