//! Commands that ask the running daemon.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clatd_stages::doctor::DoctorDocument;
use clatd_stages::status::{Event, StatusDocument};
use serde_json::Value;
use terminal_size::{Height, Width};

use super::print;
use crate::cli::Options;
use crate::config::Paths;
use crate::control;
use crate::status::{View, line_of, table};
use crate::util::AnyError;

/// Between two pictures of `clatd status --watch`.
const AGAIN: Duration = Duration::from_secs(2);
/// Clears the terminal from its upper left corner on (ISO 6429).
const CLEAR: &str = "\x1b[H\x1b[J";

/// `clatd status`.
pub fn status(_options: &Options, json: bool, watch: bool, wanted: Option<&str>) -> Result<bool, AnyError> {
    loop {
        let document = document(wanted)?;
        let view = view(watch);
        let mut text = if json {
            let pretty = if watch {
                serde_json::to_string(&document)
            } else {
                serde_json::to_string_pretty(&document)
            };
            pretty? + "\n"
        } else {
            table(&document, &view)
        };
        if watch && !json && view.height.is_some() {
            text.insert_str(0, CLEAR);
        }
        if !watch {
            return print(&text);
        }
        if !show(&text)? {
            return Ok(true);
        }
        std::thread::sleep(AGAIN);
    }
}

fn document(wanted: Option<&str>) -> Result<StatusDocument, AnyError> {
    let mut document: StatusDocument = serde_json::from_value(ask("status")?)?;
    if let Some(name) = wanted {
        document.instances.retain(|instance| instance.name == name);
        if document.instances.is_empty() {
            return Err(format!("there is no instance {name}").into());
        }
    }
    Ok(document)
}

/// The size of the terminal, if standard output is one.
fn view(graphs: bool) -> View {
    match terminal_size::terminal_size_of(io::stdout()) {
        Some((Width(width), Height(height))) => View {
            width: width.into(),
            height: Some(height.into()),
            colour: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            graphs,
        },
        None => View { graphs, ..View::PLAIN },
    }
}

/// Prints something at once. Returns false if nobody reads it any more.
fn show(text: &str) -> Result<bool, AnyError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(true),
    }
}

/// `clatd metrics`.
pub fn metrics(_options: &Options) -> Result<bool, AnyError> {
    print(&clatd_stages::metrics::text(&document(None)?))
}

/// `clatd events`.
pub fn events(_options: &Options, json: bool) -> Result<bool, AnyError> {
    let runtime_dir = Paths::from_environment().runtime_dir;
    for line in control::events(&runtime_dir).map_err(|error| unanswered(&error, &runtime_dir))? {
        let line = line.map_err(|error| unanswered(&error, &runtime_dir))?;
        if let Some(error) = line.get("error").and_then(Value::as_str) {
            return Err(error.to_owned().into());
        }
        let text = match serde_json::from_value::<Event>(line.clone()) {
            Ok(event) if !json => line_of(&event),
            Ok(_) | Err(_) => line.to_string(),
        };
        if !show(&(text + "\n"))? {
            return Ok(true);
        }
    }
    // The daemon has stopped.
    Ok(true)
}

/// The daemon's own diagnosis; `None` = no daemon is running.
pub fn diagnosis() -> Result<Option<DoctorDocument>, AnyError> {
    let runtime_dir = Paths::from_environment().runtime_dir;
    match control::ask(&runtime_dir, "doctor") {
        Ok(answer) => match answer.get("error").and_then(Value::as_str) {
            Some(error) => Err(error.to_owned().into()),
            None => Ok(Some(serde_json::from_value(answer)?)),
        },
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(unanswered(&error, &runtime_dir).into()),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// `clatd reload`.
pub fn reload(_options: &Options) -> Result<bool, AnyError> {
    ask("reload").map(|_| true)
}

fn ask(request: &str) -> Result<Value, AnyError> {
    let runtime_dir: PathBuf = Paths::from_environment().runtime_dir;
    let answer = control::ask(&runtime_dir, request).map_err(|error| unanswered(&error, &runtime_dir))?;
    match answer.get("error").and_then(Value::as_str) {
        Some(error) => Err(error.to_owned().into()),
        None => Ok(answer),
    }
}

/// Why the daemon could not be asked.
fn unanswered(error: &io::Error, runtime_dir: &Path) -> String {
    let socket = runtime_dir.join(control::SOCKET);
    match error.kind() {
        _ if is_absent(error) => format!(
            "no clatd is running with the runtime directory {}",
            runtime_dir.display()
        ),
        io::ErrorKind::PermissionDenied => format!(
            "you may not ask the daemon by {}: become root, or a member of its control-group",
            socket.display()
        ),
        _ => format!("cannot ask the daemon by {}: {error}", socket.display()),
    }
}
