//! Two namespaces with a link between them: `up0` on our side, `isp0` on the server's. Both go with the test.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clatd::dhcp6::{PdClient, PdLease, PdState};
use clatd::kernel::Netlink;
use nix::sched::{CloneFlags, setns, unshare};
use tempfile::TempDir;

pub struct Bed {
    pub runtime: TempDir,
    /// Its namespace is the server's.
    holder: Child,
}

/// A client with its calls of `notify` counted.
pub struct Asking {
    pub client: PdClient,
    pub notified: Arc<AtomicUsize>,
}

/// Runs a test with the link up and nothing on the server's side.
pub fn in_namespaces<F: Future<Output = ()>>(test: impl FnOnce(Bed) -> F) {
    assert!(nix::unistd::geteuid().is_root(), "these tests need root");
    // Only this thread, and those that it starts, move; every test has a thread of its own.
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    let holder = Command::new("unshare").args(["--net", "sleep", "600"]).spawn().unwrap();
    let bed = Bed {
        runtime: tempfile::tempdir().unwrap(),
        holder,
    };
    let ours = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let theirs = || std::fs::read_link(format!("/proc/{}/ns/net", bed.holder.id())).ok();
    let init = std::fs::read_link("/proc/1/ns/net").ok();
    wait_until("the server's namespace", || {
        theirs().is_some_and(|ns| ns != ours && Some(ns) != init)
    });
    sh("cd /proc/sys/net/ipv6/conf; echo 0 >all/accept_dad; echo 0 >default/accept_dad; ip link set lo up");
    bed.there("cd /proc/sys/net/ipv6/conf; echo 0 >all/accept_dad; echo 0 >default/accept_dad; ip link set lo up");
    sh(&format!(
        "ip link add up0 type veth peer name isp0 netns {}; ip link set up0 up",
        bed.holder.id()
    ));
    bed.there("ip addr add 2001:db8:0:1::1/64 dev isp0 nodad; ip link set isp0 up");
    sh("until ip -6 addr show dev up0 scope link | grep -q fe80; do sleep 0.02; done");
    bed.there("until ip -6 addr show dev isp0 scope link | grep -q fe80; do sleep 0.02; done");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { test(bed).await });
}

impl Bed {
    /// Runs a script on the server's side.
    pub fn there(&self, script: &str) -> String {
        let target = self.holder.id().to_string();
        run(Command::new("nsenter").args(["-t", &target, "-n", "sh", "-ec", script]))
    }

    /// A command to be run on the server's side.
    pub fn command_there(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.holder.id().to_string(), "-n", program]);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a function in a thread on the server's side.
    pub fn thread_there<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let namespace = File::open(format!("/proc/{}/ns/net", self.holder.id())).unwrap();
        std::thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        })
    }

    pub fn ask(&self) -> Asking {
        let notified = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&notified);
        let notify = move || _ = count.fetch_add(1, Ordering::Relaxed);
        Asking {
            client: PdClient::start("up0", self.runtime.path(), Netlink::open().unwrap(), notify),
            notified,
        }
    }

    /// What the file of the lease says; `None` = there is no such file.
    pub fn kept(&self) -> Option<String> {
        std::fs::read_to_string(self.runtime.path().join("pd-up0.json")).ok()
    }

    pub fn path(&self) -> &Path {
        self.runtime.path()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

impl Asking {
    /// Waits for a state that fits.
    pub async fn until(&self, what: &str, seconds: u64, fits: impl Fn(&PdState) -> bool) -> PdState {
        let limit = Instant::now() + Duration::from_secs(seconds);
        loop {
            let state = self.client.state();
            if fits(&state) {
                return state;
            }
            assert!(Instant::now() < limit, "{what}: not within {seconds} s; {state:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for a lease.
    pub async fn lease(&self, seconds: u64) -> PdLease {
        self.until("a lease", seconds, |state| state.lease.is_some())
            .await
            .lease
            .unwrap()
    }

    pub fn notified(&self) -> usize {
        self.notified.load(Ordering::Relaxed)
    }
}

pub fn wait_until(what: &str, mut fits: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(10);
    while !fits() {
        assert!(Instant::now() < limit, "{what}: not within 10 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a script on our side.
pub fn sh(script: &str) -> String {
    run(Command::new("sh").args(["-ec", script]))
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Index of a device in the namespace of this thread.
pub fn index(device: &str) -> u32 {
    let indices = sh(&format!("ip -o link show dev {device}"));
    indices.split(':').next().unwrap().parse().unwrap()
}
