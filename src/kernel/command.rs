//! Runs the programs that have no interface but a command line: looked up like `execvp` does, with an end to their
//! time, and with their own words in the error.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::unistd::{AccessFlags, access};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How long a program may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Where `execvp` looks without `PATH`.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// A program that could not be run, or that failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// No such program.
    #[error("the program `{command}` was not found")]
    NotFound {
        /// As it was asked for.
        command: String,
    },
    /// It could not be started or spoken to.
    #[error("running `{line}`")]
    Run {
        /// The command line.
        line: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It took too long and was killed.
    #[error("`{line}` did not end within {} s", TIMEOUT.as_secs())]
    Timeout {
        /// The command line.
        line: String,
    },
    /// It said that it failed.
    #[error("`{line}` failed ({status}){}", said(.stderr))]
    Failed {
        /// The command line.
        line: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to its standard error.
        stderr: String,
    },
}

fn said(stderr: &str) -> String {
    let text = stderr
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ");
    if text.is_empty() { text } else { format!(": {text}") }
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    line: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Its output if it was successful.
    pub(crate) fn output(self) -> Result<String, CommandError> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        Err(CommandError::Failed {
            line: self.line,
            status: self.status,
            stderr: self.stderr,
        })
    }
}

/// The path of a program, looked up as `execvp` does.
pub(crate) fn find(command: &str) -> Option<PathBuf> {
    if command.is_empty() {
        return None;
    }
    if command.contains('/') {
        return Some(PathBuf::from(command)).filter(|path| executable(path));
    }
    let path = env::var_os("PATH").unwrap_or_else(|| OsString::from(DEFAULT_PATH));
    // An empty entry means the working directory; joining it to the name gives just that.
    env::split_paths(&path)
        .map(|directory| directory.join(command))
        .find(|path| executable(path))
}

fn executable(path: &Path) -> bool {
    !path.as_os_str().as_bytes().is_empty() && path.is_file() && access(path, AccessFlags::X_OK).is_ok()
}

/// Runs a program to its end.
pub(crate) async fn run(command: &str, arguments: &[&str], input: Option<&str>) -> Result<Ended, CommandError> {
    let line = std::iter::once(command)
        .chain(arguments.iter().copied())
        .collect::<Vec<_>>()
        .join(" ");
    let path = find(command).ok_or_else(|| CommandError::NotFound {
        command: command.to_owned(),
    })?;
    tracing::trace!(command = %line, "running");
    match tokio::time::timeout(TIMEOUT, run_path(&path, arguments, input)).await {
        Err(_) => Err(CommandError::Timeout { line }),
        Ok(Err(source)) => Err(CommandError::Run { line, source }),
        Ok(Ok((status, stdout, stderr))) => Ok(Ended {
            line,
            status,
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }),
    }
}

async fn run_path(path: &Path, arguments: &[&str], input: Option<&str>) -> io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let mut child = Command::new(path)
        .args(arguments)
        // Some answers can only be told apart by their words.
        .env("LC_ALL", "C")
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A ^C at the terminal is for the daemon, which undoes things in order; not for the program in the middle of one.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let stdin = child.stdin.take();
    let write = async {
        if let (Some(mut stdin), Some(input)) = (stdin, input)
            && let Err(error) = stdin.write_all(input.as_bytes()).await
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            return Err(error);
        }
        Ok(())
    };
    // Both at once, so that neither side waits on a full pipe.
    let (written, output) = tokio::join!(write, child.wait_with_output());
    let output = output?;
    written?;
    Ok((output.status, output.stdout, output.stderr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_execvp_finds_them() {
        assert!(find("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(find("/bin/sh"), Some(PathBuf::from("/bin/sh")));
        assert_eq!(find("/etc/passwd"), None, "not executable");
        assert_eq!(find("/bin"), None, "a directory");
        assert_eq!(find("no-such-program-here"), None);
        assert_eq!(find(""), None);
    }

    #[tokio::test]
    async fn a_failure_says_what_was_run_and_what_it_said() {
        let ended = run("sh", &["-c", "echo oops >&2; exit 3"], None).await.unwrap();
        assert_eq!(ended.status.code(), Some(3));
        let error = ended.output().unwrap_err();
        assert_eq!(
            error.to_string(),
            "`sh -c echo oops >&2; exit 3` failed (exit status: 3): oops"
        );
    }

    #[tokio::test]
    async fn input_larger_than_a_pipe_passes_both_ways() {
        let text = "x".repeat(1 << 20);
        let ended = run("cat", &[], Some(&text)).await.unwrap();
        assert_eq!(ended.stdout.len(), text.len());
    }
}
