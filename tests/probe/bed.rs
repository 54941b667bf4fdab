//! Hosts, each a thread in a network namespace of its own, and links between them.

use std::io::Read;
use std::net::Ipv6Addr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use clatd_stages::nd::LinkAddress;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{geteuid, gettid};
use socket2::{Domain, Protocol, Socket, Type};

type Job = Box<dyn FnOnce() + Send>;

/// A host.
pub struct Host {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    namespace: String,
}

/// Something that a host is doing.
pub struct Doing<T>(Receiver<T>);

impl<T> Doing<T> {
    /// Waits for its end.
    pub fn end(self) -> T {
        self.0.recv().expect("the host failed")
    }
}

impl Host {
    /// A new host with nothing but a loopback device. Its IPv6 sends at once: no duplicate address detection of the
    /// kernel's own, no router solicitations.
    pub fn new() -> Self {
        assert!(geteuid().is_root(), "these tests need root");
        let (jobs, work) = channel::<Job>();
        let (ready, started) = channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
            ready
                .send(format!("/proc/{}/task/{}/ns/net", std::process::id(), gettid()))
                .unwrap();
            for job in work {
                job();
            }
        });
        let host = Self {
            jobs: Some(jobs),
            thread: Some(thread),
            namespace: started.recv().unwrap(),
        };
        host.sh("ip link set lo up; cd /proc/sys/net/ipv6/conf
            for c in all default; do echo 0 >$c/accept_dad; echo 0 >$c/accept_ra; done");
        host
    }

    /// Starts something in the host, in the thread whose namespace it has.
    pub fn start<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Doing<T> {
        let (done, result) = channel();
        let job = Box::new(move || drop(done.send(work())));
        self.jobs.as_ref().unwrap().send(job).unwrap();
        Doing(result)
    }

    /// Starts something asynchronous in the host.
    pub fn start_async<F: Future>(&self, work: impl FnOnce() -> F + Send + 'static) -> Doing<F::Output>
    where
        F::Output: Send + 'static,
    {
        self.start(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_all().build().unwrap().block_on(work())
        })
    }

    /// Runs a shell script in the host; its output.
    pub fn sh(&self, script: &str) -> String {
        let script = script.to_owned();
        self.start(move || sh(&script)).end()
    }

    /// The same, also while the host is doing something.
    pub fn sh_beside(&self, script: &str) -> String {
        let within = format!("--net={}", self.namespace);
        output(Command::new("nsenter").args([&within, "sh", "-ec", script]), script)
    }

    /// Sends back what the other side of its link sends, until it is dropped.
    pub fn mirror(&self) -> Mirror {
        let socket = self.start(|| {
            let ipv6 = Protocol::from(i32::from(0x86dd_u16.to_be()));
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(ipv6)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            socket
        });
        let (socket, stop, count) = (
            socket.end(),
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (ended, counter) = (Arc::clone(&stop), Arc::clone(&count));
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !ended.load(Ordering::Relaxed) {
                // The address of a packet socket says by which device; nothing else of it counts for a whole frame.
                let Ok(from) = socket.peek_sender() else { continue };
                let length = (&socket).read(&mut buffer).unwrap();
                socket.send_to(&buffer[..length], &from).unwrap();
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        Mirror {
            stop,
            count,
            thread: Some(thread),
        }
    }

    /// A link between two hosts: `ours` with 02::…:01, `theirs` in the other one with 02::…:02.
    pub fn link(&self, ours: &str, other: &Host, theirs: &str) {
        self.sh(&format!(
            "ip link add {ours} address 02:00:00:00:00:01 type veth \
                peer name {theirs} address 02:00:00:00:00:02 netns {}
            ip link set {ours} up",
            other.namespace
        ));
        other.sh(&format!("ip link set {theirs} up"));
        for (host, device) in [(self, ours), (other, theirs)] {
            host.sh(&format!(
                "until ip -o -6 addr show dev {device} scope link -tentative | grep -q fe80; do sleep 0.02; done"
            ));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // A failed test must not wait for a host that is still doing something.
            if !std::thread::panicking() {
                drop(thread.join());
            }
        }
    }
}

/// Reflects packets.
pub struct Mirror {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Mirror {
    /// How many it has sent back.
    pub fn reflected(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Runs a shell script in this thread's namespace.
pub fn sh(script: &str) -> String {
    output(Command::new("sh").args(["-ec", script]), script)
}

fn output(command: &mut Command, script: &str) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{script}` failed: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// The link-layer address of the other side of a link.
pub fn theirs() -> LinkAddress {
    LinkAddress::new(&[2, 0, 0, 0, 0, 2])
}

/// The address that the tests are about.
pub const ADDRESS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0xc1a7, 0x12, 0x3456);
