//! Commands that ask the running daemon.

use std::io;
use std::path::PathBuf;

use clatd_stages::doctor::DoctorDocument;
use serde_json::Value;

use super::{Failure, print};
use crate::cli::Options;
use crate::config::Paths;
use crate::{control, status as board};

/// `clatd status`.
pub fn status(_options: &Options, json: bool, wanted: Option<&str>) -> Result<bool, Failure> {
    let mut document = ask("status")?;
    if let (Some(name), Some(Value::Array(instances))) = (wanted, document.get_mut("instances")) {
        instances.retain(|instance| instance["name"] == name);
        if instances.is_empty() {
            return Err(format!("there is no instance {name}").into());
        }
    }
    let text = if json {
        serde_json::to_string_pretty(&document)? + "\n"
    } else {
        board::table(&document)
    };
    print(&text)
}

/// The daemon's own diagnosis; `None` = no daemon is running.
pub fn diagnosis() -> Result<Option<DoctorDocument>, Failure> {
    let runtime_dir = Paths::from_environment().runtime_dir;
    match control::ask(&runtime_dir, "doctor") {
        Ok(answer) => match answer.get("error").and_then(Value::as_str) {
            Some(error) => Err(error.to_owned().into()),
            None => Ok(Some(serde_json::from_value(answer)?)),
        },
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(format!(
            "cannot ask the daemon by {}: {error}",
            runtime_dir.join(control::SOCKET).display()
        )
        .into()),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// `clatd reload`.
pub fn reload(_options: &Options) -> Result<bool, Failure> {
    ask("reload").map(|_| true)
}

fn ask(request: &str) -> Result<Value, Failure> {
    let runtime_dir: PathBuf = Paths::from_environment().runtime_dir;
    let answer = control::ask(&runtime_dir, request).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            format!(
                "no clatd is running with the runtime directory {}",
                runtime_dir.display()
            )
        }
        _ => format!(
            "cannot ask the daemon by {}: {error}",
            runtime_dir.join(control::SOCKET).display()
        ),
    })?;
    match answer.get("error").and_then(Value::as_str) {
        Some(error) => Err(error.to_owned().into()),
        None => Ok(answer),
    }
}
