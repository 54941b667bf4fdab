//! Runs programs that have only a command line. They are looked up as `execvp` does, their time is limited, and
//! errors contain their own words.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clatd_stages::settings::General;
use nix::unistd::{AccessFlags, access};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::group::Group;
use super::helper::{self, HelperUser};
use crate::util::lock;

/// The default limit for a program, in seconds.
static LIMIT: AtomicU64 = AtomicU64::new(60);
/// How long a program may take once a stop was asked for.
const WHILE_STOPPING: Duration = Duration::from_secs(10);
/// The limit after another program did not end in time: the next one probably hangs, too.
const AFTER_A_HANG: Duration = Duration::from_secs(3);
/// How long that limit applies.
const HANGS_AGAIN: Duration = Duration::from_secs(120);
/// When a program last failed to end in time.
static HUNG: Mutex<Option<Instant>> = Mutex::new(None);
/// How long to wait for the rest of the output of a program that has ended. A process that it left running may keep
/// the pipes open for ever.
const LAST_WORDS: Duration = Duration::from_millis(300);
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
    #[error("`{line}` did not end within {limit_s} s and was ended")]
    Timeout {
        /// The command line.
        line: String,
        /// How long it had.
        limit_s: u64,
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
pub(crate) struct ProgramOutput {
    line: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl ProgramOutput {
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
    // An empty entry means the working directory, which joining it to the name gives.
    env::split_paths(&path)
        .map(|directory| directory.join(command))
        .find(|path| executable(path))
}

fn executable(path: &Path) -> bool {
    !path.as_os_str().as_bytes().is_empty() && path.is_file() && access(path, AccessFlags::X_OK).is_ok()
}

tokio::task_local! {
    /// Whether the instance for which a program runs has to stop.
    static STOP: CancellationToken;
}

/// How long programs may take from now on, and who runs them.
pub(crate) fn follow(general: &General) {
    LIMIT.store(general.script_timeout.into(), Ordering::Relaxed);
    helper::choose(general.script_user.as_deref());
}

/// After `stop` was asked for, programs that `work` runs have less time.
pub(crate) async fn stopped_by<T>(stop: CancellationToken, work: impl Future<Output = T>) -> T {
    STOP.scope(stop, work).await
}

/// Runs a program to its end, as the user of helper programs.
pub(crate) async fn run(command: &str, arguments: &[&str], input: Option<&str>) -> Result<ProgramOutput, CommandError> {
    run_by(helper::user(), command, arguments, input).await
}

/// Runs a program to its end, as the daemon's own user.
pub(crate) async fn run_as_we_are(command: &str, arguments: &[&str]) -> Result<ProgramOutput, CommandError> {
    run_by(None, command, arguments, None).await
}

async fn run_by(
    user: Option<HelperUser>,
    command: &str,
    arguments: &[&str],
    input: Option<&str>,
) -> Result<ProgramOutput, CommandError> {
    let line = std::iter::once(command)
        .chain(arguments.iter().copied())
        .collect::<Vec<_>>()
        .join(" ");
    let path = find(command).ok_or_else(|| CommandError::NotFound {
        command: command.to_owned(),
    })?;
    tracing::trace!(command = %line, "running");
    let failed = |source| CommandError::Run {
        line: line.clone(),
        source,
    };
    let input = input.map(|text| helper::readable(text.as_bytes())).transpose();
    let mut program = Command::new(path);
    program
        .args(arguments)
        // Some answers can only be told apart by their words.
        .env("LC_ALL", "C")
        .stdin(input.map_err(failed)?.map_or_else(Stdio::null, Stdio::from))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if let Some(user) = user {
        user.runs(program.as_std_mut());
    }
    let mut group = Group::spawn(&mut program).map_err(failed)?;
    let begun = Instant::now();
    let communicated = tokio::select! {
        biased;
        communicated = communicate(&mut group) => Some(communicated),
        () = too_long() => None,
    };
    match communicated {
        Some(Ok((status, stdout, stderr))) => Ok(ProgramOutput {
            line,
            status,
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }),
        Some(Err(source)) => Err(failed(source)),
        None => {
            let limit_s = begun.elapsed().as_secs();
            *lock(&HUNG) = Some(Instant::now());
            group.end().await.map_err(failed)?;
            Err(CommandError::Timeout { line, limit_s })
        }
    }
}

/// Returns when a program's time is over.
async fn too_long() {
    let hung = *lock(&HUNG);
    let hangs = hung.is_some_and(|at| at.elapsed() < HANGS_AGAIN);
    let most = if hangs { AFTER_A_HANG } else { Duration::MAX };
    let usual = Duration::from_secs(LIMIT.load(Ordering::Relaxed));
    let stopping = async {
        match STOP.try_with(CancellationToken::clone) {
            Ok(stop) => stop.cancelled().await,
            Err(_) => std::future::pending().await,
        }
        sleep(WHILE_STOPPING.min(most)).await;
    };
    tokio::select! {
        () = sleep(usual.min(most)) => {}
        () = stopping => {}
    }
}

/// Reads the output and waits for the end at the same time, so that no side waits for a full pipe.
async fn communicate(group: &mut Group) -> io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let child = &mut group.child;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let pipes = async {
        let (heard, heard_errors) = tokio::join!(drain(stdout, &mut output), drain(stderr, &mut errors));
        heard.and(heard_errors)
    };
    let (status, piped) = {
        tokio::pin!(pipes);
        let mut piped = None;
        let status = loop {
            tokio::select! {
                status = group.wait() => break status?,
                done = &mut pipes, if piped.is_none() => piped = Some(done),
            }
        };
        if piped.is_none() {
            piped = timeout(LAST_WORDS, pipes).await.ok();
        }
        (status, piped)
    };
    piped.unwrap_or(Ok(()))?;
    Ok((status, output, errors))
}

/// Reads to the end. If the read is cancelled, its result so far stays.
async fn drain(pipe: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) -> io::Result<()> {
    let Some(mut pipe) = pipe else { return Ok(()) };
    while pipe.read_buf(into).await? > 0 {}
    Ok(())
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

    #[tokio::test]
    async fn a_child_that_holds_the_pipes_does_not_hold_us() {
        let begun = Instant::now();
        let ended = run("sh", &["-c", "sleep 30 & echo done; cat >/dev/null"], Some("x")).await;
        assert_eq!(ended.unwrap().output().unwrap(), "done\n");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_program_that_does_not_end_is_ended_with_all_that_it_started() {
        let directory = tempfile::tempdir().unwrap();
        let pid = directory.path().join("pid");
        let script = format!(
            "trap '' TERM; sleep 1000 & echo $! >{}; wait; sleep 1000",
            pid.display()
        );
        let stop = CancellationToken::new();
        stop.cancel();
        let begun = Instant::now();
        // Nothing else of this process tells it that something hung.
        *HUNG.lock().unwrap() = Some(Instant::now());
        let error = stopped_by(stop, run("sh", &["-c", &script], None)).await.unwrap_err();
        *HUNG.lock().unwrap() = None;
        assert!(matches!(error, CommandError::Timeout { .. }), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
        let sleeping = std::fs::read_to_string(pid).unwrap();
        let path = format!("/proc/{}/stat", sleeping.trim());
        let state = |text: String| text.rsplit(')').next().map(|rest| rest.trim().starts_with('Z'));
        let gone = || std::fs::read_to_string(&path).map_or(Some(true), state) == Some(true);
        while !gone() {
            assert!(begun.elapsed() < Duration::from_secs(60), "what it started lives on");
            sleep(Duration::from_millis(20)).await;
        }
    }
}
