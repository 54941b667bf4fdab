//! The host's namespace with `up0` in it, and the routers' namespace with `isp0` at the other end.

use std::future::Future;
use std::io::Read;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clatd::kernel::Netlink;
use clatd::ra::{RaSnapshot, RaWatch};
use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Protocol, Socket, Type};

use crate::packets::{ALL_NODES, Ra};

/// Everything that is waited for comes within this time, on a busy machine too.
pub const SOON: Duration = Duration::from_secs(10);

type Work = Box<dyn FnOnce() + Send>;

/// The namespace of the routers: a thread that lives in it.
pub struct Routers {
    work: mpsc::Sender<Work>,
}

/// One end of a link, from which routers send.
pub struct Port {
    sender: Socket,
    solicitations: Socket,
    index: u32,
}

pub struct Bed {
    pub watch: RaWatch,
    pub routers: Routers,
    pub isp: Port,
    notified: Arc<AtomicU64>,
}

/// Runs a test in a namespace of its own. The host's kernel sends no solicitations, so that only ours are counted, and
/// does no duplicate address detection, so that its link-local address is there at once.
pub fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce(Bed) -> F) {
    assert!(nix::unistd::geteuid().is_root(), "these tests need root");
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    sh(
        "cd /proc/sys/net/ipv6/conf; echo 0 >all/accept_dad; echo 0 >default/accept_dad
        echo 0 >default/router_solicitations
        ip link set lo up",
    );
    let routers = Routers::start();
    let isp = routers.link("up0", "isp0");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let notified = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&notified);
        let watch = RaWatch::new(Netlink::open().unwrap(), move |_| {
            _ = count.fetch_add(1, Ordering::SeqCst)
        });
        test(Bed {
            watch,
            routers,
            isp,
            notified,
        })
        .await;
    });
}

/// A test's future takes all of it, also those parts that the test does not mention, and on which the rest depends.
impl Drop for Bed {
    fn drop(&mut self) {}
}

impl Bed {
    pub fn notified(&self) -> u64 {
        self.notified.load(Ordering::SeqCst)
    }

    /// `PREFIX ROUTER` of each PREF64, and `SERVER ROUTER` of each server.
    pub fn knows(&self, device: &str) -> Vec<String> {
        shown(&self.watch.state(device))
    }

    /// Waits until this is known, in this order; how long that took.
    pub async fn until_known(&self, device: &str, expected: &[&str]) -> Duration {
        let what = format!("{expected:?} is known of {device}");
        until(&what, || {
            (self.knows(device) == expected).then_some(()).ok_or(self.knows(device))
        })
        .await
    }

    /// Waits until somebody was asked to speak.
    pub async fn until_solicited(&self, device: &str) -> Duration {
        let what = format!("routers are asked on {device}");
        until(&what, || {
            self.watch
                .state(device)
                .solicited_since
                .ok_or("nobody was asked")
                .map(drop)
        })
        .await
    }

    /// Lets everything that is under way arrive.
    pub async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

pub fn shown(snapshot: &RaSnapshot) -> Vec<String> {
    let prefixes = snapshot
        .pref64s
        .iter()
        .map(|learned| format!("{} {}", learned.value, learned.router));
    let servers = snapshot
        .rdnss
        .iter()
        .map(|learned| format!("{} {}", learned.value, learned.router));
    prefixes.chain(servers).collect()
}

pub async fn until<E: std::fmt::Debug>(what: &str, reached: impl Fn() -> Result<(), E>) -> Duration {
    let begun = Instant::now();
    loop {
        match reached() {
            Ok(()) => return begun.elapsed(),
            Err(instead) if begun.elapsed() > SOON => panic!("waited in vain until {what}; instead: {instead:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

impl Routers {
    fn start() -> Self {
        let (work, jobs) = mpsc::channel::<Work>();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
            sh("cd /proc/sys/net/ipv6/conf; echo 0 >all/accept_dad; echo 0 >default/accept_dad");
            jobs.into_iter().for_each(|job| job());
        });
        Self { work }
    }

    /// Does something in this namespace.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, result) = mpsc::channel();
        self.work.send(Box::new(move || drop(sender.send(job())))).unwrap();
        result.recv().expect("the job in the routers' namespace to succeed")
    }

    pub fn sh(&self, script: &str) {
        let script = script.to_owned();
        self.run(move || drop(sh(&script)));
    }

    /// A link from the calling thread's namespace into this one, up at both ends.
    pub fn link(&self, host: &str, isp: &str) -> Port {
        let thread = self.run(|| nix::unistd::gettid().as_raw());
        sh(&format!(
            "ip link add {host} type veth peer name {isp} netns {thread}; ip link set {host} up"
        ));
        self.sh(&format!("ip link set {isp} up; {}", has_address(isp)));
        sh(&has_address(host));
        self.port(isp)
    }

    /// A port on a device of this namespace.
    pub fn port(&self, device: &str) -> Port {
        let device = device.to_owned();
        self.run(move || Port::open(&device))
    }
}

impl Port {
    fn open(device: &str) -> Self {
        let index = sh(&format!(
            "cat /proc/net/dev_mcast | awk '$2 == \"{device}\" {{print $1; exit}}'"
        ));
        let index: u32 = index.trim().parse().unwrap();
        // IPPROTO_RAW: whole packets, with whatever header.
        let sender = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::from(255))).unwrap();
        sender.bind_device(Some(device.as_bytes())).unwrap();
        sender.set_multicast_if_v6(index).unwrap();
        // Routers do not hear themselves.
        sender.set_multicast_loop_v6(false).unwrap();
        let solicitations = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap();
        solicitations.bind_device(Some(device.as_bytes())).unwrap();
        solicitations
            .join_multicast_v6(&"ff02::2".parse().unwrap(), index)
            .unwrap();
        solicitations.set_nonblocking(true).unwrap();
        Self {
            sender,
            solicitations,
            index,
        }
    }

    pub fn send(&self, advertisement: &Ra) {
        self.send_packet(&advertisement.packet());
    }

    pub fn send_packet(&self, packet: &[u8]) {
        let to = SocketAddrV6::new(ALL_NODES, 0, 0, self.index);
        let begun = Instant::now();
        // A device whose carrier has just come back has no address for an instant.
        while let Err(error) = self.sender.send_to(packet, &to.into()) {
            assert!(begun.elapsed() < SOON, "cannot send: {error}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The next router solicitation.
    pub async fn next_solicitation(&mut self) -> Vec<u8> {
        let begun = Instant::now();
        while begun.elapsed() < SOON {
            if let Some(solicitation) = self.solicitations().pop() {
                return solicitation;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no solicitation came");
    }

    /// The router solicitations that came since this was last asked.
    pub fn solicitations(&mut self) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let mut buffer = [0; 2048];
        while let Ok(length) = self.solicitations.read(&mut buffer) {
            if buffer[0] == 133 {
                found.push(buffer[..length].to_vec());
            }
        }
        found
    }
}

/// Runs a shell script in the calling thread's namespace; its output.
pub fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{script}` failed: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// A script that waits until a device has a link-local address that may be used.
pub fn has_address(device: &str) -> String {
    format!("until ip -o -6 addr show dev {device} scope link -tentative | grep -q inet6; do sleep 0.02; done")
}

/// The link-local address of one router of many.
pub fn router(number: u16) -> String {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, number).to_string()
}
