//! The daemon under test, as a child in the host's namespace.

use std::fs::File;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bed::{Lab, Ran, SERVER, poll};

/// The program under test: the one cargo built for this test, or what `CLATD_UNDER_TEST` names (a release build, say).
pub fn program() -> String {
    std::env::var("CLATD_UNDER_TEST").unwrap_or_else(|_| env!("CARGO_BIN_EXE_clatd").to_owned())
}

/// A clatd command line in the host: files of its own, the time-out of the connectivity check at 0 unless `words` say otherwise.
fn command(lab: &Lab, environment: &[String], words: &[&str]) -> Command {
    let mut command = lab.command("host");
    command
        .arg("env")
        .args(environment)
        .arg(format!("CLATD_RUNTIME_DIR={}", lab.file("run").display()))
        // Whoever manages the links of this machine knows nothing of those in the lab.
        .arg(format!("DBUS_SYSTEM_BUS_ADDRESS={}", lab.bus()))
        .arg(program())
        .arg("-c")
        .arg(lab.file("clatd.conf"))
        .arg("--instances-dir")
        .arg(lab.file("instances.d"))
        .args(words);
    command
}

/// Runs a clatd command that ends by itself.
pub fn clatd(lab: &Lab, words: &[&str]) -> Ran {
    // In files of its own: a running daemon writes to the usual ones.
    let mut tool = Daemon::start_writing(lab, &[], words, "tool");
    tool.wait_exit(Duration::from_secs(60))
}

/// Whether the one instance is in this state.
pub fn is_in_state(lab: &Lab, state: &str) -> bool {
    let status = command(lab, &[], &["status", "--json"])
        .output()
        .expect("clatd status starts");
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
    status["instances"][0]["state"] == state
}

/// A running clatd.
pub struct Daemon {
    child: Child,
    words: String,
    out: std::path::PathBuf,
    err: std::path::PathBuf,
}

impl Daemon {
    pub fn start(lab: &Lab, words: &[&str]) -> Self {
        Self::start_writing(lab, &[], words, "clatd")
    }

    /// With these variables in its environment.
    pub fn start_in(lab: &Lab, environment: &[String], words: &[&str]) -> Self {
        Self::start_writing(lab, environment, words, "clatd")
    }

    fn start_writing(lab: &Lab, environment: &[String], words: &[&str], file: &str) -> Self {
        let (out, err) = (lab.file(&format!("{file}.out")), lab.file(&format!("{file}.err")));
        let child = command(lab, environment, words)
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&err).unwrap())
            .spawn()
            .expect("clatd starts");
        Self {
            child,
            words: words.join(" "),
            out,
            err,
        }
    }

    /// Starts and waits until the instance runs and IPv4 works.
    pub fn up(lab: &Lab, words: &[&str]) -> Self {
        Self::up_in(lab, &[], words)
    }

    /// The same with these variables in its environment.
    pub fn up_in(lab: &Lab, environment: &[String], words: &[&str]) -> Self {
        let mut daemon = Self::start_in(lab, environment, words);
        daemon.wait_until_running(lab);
        daemon.wait_for("IPv4 over the CLAT", || {
            lab.run("host", &format!("ping -n -c 1 -W 1 {SERVER}")).code == Some(0)
        });
        daemon
    }

    /// Waits until its status says that the one instance runs.
    pub fn wait_until_running(&mut self, lab: &Lab) {
        self.wait_until(lab, "running");
    }

    /// Waits until the one instance is in this state. The table of `clatd status` has the same words for its health.
    pub fn wait_until(&mut self, lab: &Lab, state: &str) {
        self.wait_for(&format!("{state} instance"), || is_in_state(lab, state));
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far, both streams.
    pub fn output(&self) -> String {
        let text = |path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
        format!("{}{}", text(&self.out), text(&self.err))
    }

    /// Waits for something while the daemon lives.
    pub fn wait_for(&mut self, what: &str, mut answer: impl FnMut() -> bool) {
        let mut ended = None;
        let reached = poll(Duration::from_secs(30), || {
            ended = self.child.try_wait().unwrap();
            ended.is_some() || answer()
        });
        assert!(
            reached && ended.is_none(),
            "no {what}; clatd {} ended: {ended:?}\n{}",
            self.words,
            self.output()
        );
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).expect("clatd can be signalled");
    }

    /// Waits until it ends by itself.
    pub fn wait_exit(&mut self, limit: Duration) -> Ran {
        let begin = Instant::now();
        let mut status = None;
        poll(limit, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let Some(status) = status else {
            panic!(
                "clatd {} still runs after {:?}\n{}",
                self.words,
                begin.elapsed(),
                self.output()
            );
        };
        Ran {
            code: status.code(),
            out: std::fs::read_to_string(&self.out).unwrap_or_default(),
            err: std::fs::read_to_string(&self.err).unwrap_or_default(),
        }
    }

    /// Signals it and waits for the end, which must be clean.
    pub fn stop(&mut self, signal: Signal) -> Ran {
        self.signal(signal);
        let ran = self.wait_exit(Duration::from_secs(20));
        assert!(ran.code == Some(0), "clatd {} stopped by {signal}: {ran}", self.words);
        ran
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.child.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- clatd {}\n{}", self.words, self.output());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Does `body` while clatd runs with `words`, then stops it: the host must be as it was.
pub fn around(lab: &Lab, words: &[&str], body: impl FnOnce(&mut Daemon)) {
    let before = lab.state();
    let mut daemon = Daemon::up(lab, words);
    body(&mut daemon);
    daemon.stop(Signal::SIGTERM);
    lab.assert_state_is(&before, &format!("after clatd {} was stopped", words.join(" ")));
    lab.assert_no_process_left("after the stop");
}
