//! One lab: raised by `scripts/lab up`, taken away when dropped, also by a panic.

use std::fmt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The IPv4-only server of the lab's internet.
pub const SERVER: &str = "192.88.99.10";
/// The IPv4 address by which the internet knows what came through the ISP of uplink 0.
pub const ISP_V4: &str = "192.88.99.130";
/// What the modified EUI-64 address of `up0` becomes when clatd derives the CLAT's from it.
pub const DERIVED_V6: &str = "3fff:1:0:1:0:5ec1:a700:101";

const LAB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lab");

/// The options of one uplink, as `scripts/lab` takes them.
#[derive(Clone, Default)]
pub struct Uplink(Vec<String>);

impl Uplink {
    pub fn new() -> Self {
        Self::default()
    }
    /// More options, word by word.
    pub fn with(mut self, words: &[&str]) -> Self {
        self.0.extend(words.iter().map(ToString::to_string));
        self
    }
    /// One more NAT64 prefix of the ISP; the first is also what its resolver synthesises with.
    pub fn plat(self, prefix: &str) -> Self {
        self.with(&["--plat", prefix])
    }
    /// A resolver that synthesises nothing.
    pub fn without_dns64(self) -> Self {
        self.with(&["--dns64", "none"])
    }
    /// One more resolver of the ISP, on an address of its own.
    pub fn resolver(self, address: &str, prefix: Option<&str>) -> Self {
        self.with(&["--resolver", &format!("{address}={}", prefix.unwrap_or("none"))])
    }
    /// What the ISP's resolver, which is the one of resolv.conf, synthesises with.
    pub fn dns64(self, prefix: &str) -> Self {
        self.with(&["--dns64", prefix])
    }
    /// The router does not advertise the ISP's resolver.
    pub fn without_rdnss(self) -> Self {
        self.with(&["--rdnss", "no"])
    }
    /// The router advertises nothing by itself: the host has no address before the test says so.
    #[allow(dead_code, reason = "used by tests/links.rs only")]
    pub fn silent_router(self) -> Self {
        self.with(&["--silent-router"])
    }
    pub fn native_v4(self) -> Self {
        self.with(&["--native-v4"])
    }
    /// Interface identifiers after RFC 7217 in place of modified EUI-64.
    pub fn stable_privacy(self) -> Self {
        self.with(&["--addressing", "stable"])
    }
    pub fn mtu(self, mtu: u32) -> Self {
        self.with(&["--mtu", &mtu.to_string()])
    }
    pub fn wan_mtu(self, mtu: u32) -> Self {
        self.with(&["--wan-mtu", &mtu.to_string()])
    }
}

/// A raised lab.
pub struct Lab {
    name: String,
    files: tempfile::TempDir,
}

impl Lab {
    /// Host, one ISP with `uplink`, and the internet; the host is on line.
    pub fn raise(uplink: &Uplink) -> Self {
        static SWEEP: Once = Once::new();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        SWEEP.call_once(|| drop(Command::new(LAB).arg("sweep").output()));
        let name = format!(
            "clatlab-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let files = tempfile::tempdir().expect("a directory for the files of the lab");
        let lab = Self { name, files };
        lab.script(&["up"], &uplink.0);
        std::fs::create_dir_all(lab.file("instances.d")).unwrap();
        // The suite can be run with each translator: what a test says itself has more weight.
        let translator = std::env::var("CLATD_LAB_TRANSLATOR").unwrap_or_else(|_| "auto".to_owned());
        let conf = format!("v4-conncheck-delay=0\ntranslator={translator}\n");
        std::fs::write(lab.file("clatd.conf"), conf).unwrap();
        lab
    }

    /// One more uplink `upK` with an ISP of its own.
    pub fn add(&self, k: u32, uplink: &Uplink) {
        self.script(&["add", &k.to_string()], &uplink.0);
    }

    fn script(&self, words: &[&str], options: &[String]) -> String {
        let output = Command::new(LAB)
            .args(["-n", &self.name])
            .args(words)
            .args(options)
            .stdin(Stdio::null())
            .output()
            .expect("scripts/lab starts");
        Ran::from(output).ok(&format!("scripts/lab {words:?} {options:?}"))
    }

    /// A file of this lab's own folder, which vanishes with it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Writes a program into the lab's folder and returns its path.
    pub fn program(&self, name: &str, text: &str) -> String {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.file(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    }

    pub fn read(&self, name: &str) -> String {
        let path = self.file(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Where the system bus of the lab is, if one is started.
    pub fn bus(&self) -> String {
        format!("unix:path={}", self.file("bus").display())
    }

    /// The network namespace of a node.
    pub fn netns(&self, node: &str) -> String {
        format!("{}-{node}", self.name)
    }

    /// A command that will run in a node: `host`, `net`, `isp0`.
    pub fn command(&self, node: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns(node)]).stdin(Stdio::null());
        command
    }

    /// Runs a line of shell in a node and waits for it.
    pub fn run(&self, node: &str, line: &str) -> Ran {
        Ran::from(
            self.command(node)
                .args(["sh", "-c", line])
                .output()
                .expect("ip netns exec starts"),
        )
    }

    /// The same in the host, and it must succeed; returns its output.
    pub fn host(&self, line: &str) -> String {
        self.run("host", line).ok(line)
    }

    /// Makes the router of uplink 0 advertise itself now.
    pub fn advertise(&self) {
        self.run(
            "isp0",
            &format!("kill -HUP $(cat /run/clatd-lab/{}/isp0/radvd.pid)", self.name),
        )
        .ok("radvd is told");
    }

    /// Everything that clatd must leave as it was.
    pub fn state(&self) -> State {
        State(self.script(&["state"], &[]))
    }

    /// Fails with the difference if the host is not as it was.
    pub fn assert_state_is(&self, before: &State, when: &str) {
        let after = self.state();
        if after.0 == before.0 {
            return;
        }
        let (old, new) = (self.file("before"), self.file("after"));
        std::fs::write(&old, &before.0).unwrap();
        std::fs::write(&new, &after.0).unwrap();
        let diff = Command::new("diff").arg("-U0").arg(&old).arg(&new).output().unwrap();
        panic!(
            "{when}: the host is not as it was\n{}",
            String::from_utf8_lossy(&diff.stdout)
        );
    }

    /// Fails if a process is left in the host.
    pub fn assert_no_process_left(&self, when: &str) {
        let look = || {
            let pids = Ran::from(
                Command::new("ip")
                    .args(["netns", "pids", &format!("{}-host", self.name)])
                    .output()
                    .unwrap(),
            );
            pids.out
                .split_whitespace()
                .map(|pid| {
                    std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
                        .unwrap_or_default()
                        .replace('\0', " ")
                })
                .collect::<Vec<_>>()
        };
        let gone = poll(Duration::from_secs(2), || look().is_empty());
        assert!(gone, "{when}: still running in the host: {:?}", look());
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = Command::new(LAB)
            .args(["-n", &self.name, "down"])
            .stdin(Stdio::null())
            .status();
    }
}

/// A snapshot of the host.
pub struct State(String);

/// A command that has ended.
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    /// Standard output, or a panic that shows all there is.
    pub fn ok(self, what: &str) -> String {
        assert!(self.code == Some(0), "{what}: {self}");
        self.out
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "exit {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.code, self.out, self.err
        )
    }
}

/// Asks until the answer is yes or the time is up; on an emulated processor (`scripts/vm`) there is more of it.
pub fn poll(limit: Duration, mut answer: impl FnMut() -> bool) -> bool {
    let slowness = std::env::var("CLATD_LAB_SLOWNESS").map_or(1, |times| times.parse().expect("a number"));
    let end = Instant::now() + limit * slowness;
    loop {
        if answer() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
