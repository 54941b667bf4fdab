//! `up0` of this namespace faces `isp0` of the server's, which owns every address of the PLAT's prefix.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use clatd::kernel::Statistics;
use clatd_stages::net::Route;
use clatd_stages::op::{NewTun, Op};
use clatd_stages::settings::{Pref64Setting, Settings};
use clatd_stages::translator::{TranslatorSpec, UserspaceSpec};
use clatd_translator::{CountersSnapshot, Direction, DropReason};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;

use crate::support::{Bed, in_namespace, sh};

/// The CLAT's IPv6 address.
pub const CLAT6: &str = "2001:db8:c1a7::1";
/// What the client calls the server.
pub const SERVER4: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 9);

/// The same in its own address family.
pub const SERVER6: &str = "64:ff9b::909:909";

/// A thread in the server's namespace that does what it is told to, in turn.
#[derive(Clone)]
pub struct Server {
    jobs: Sender<Box<dyn FnOnce() + Send>>,
    namespace: String,
}

impl Server {
    fn new() -> Self {
        let (sender, jobs) = channel::<Box<dyn FnOnce() + Send>>();
        let (named, name) = channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
            named.send(gettid()).unwrap();
            jobs.into_iter().for_each(|job| job());
        });
        let namespace = format!("/proc/{}/task/{}/ns/net", std::process::id(), name.recv().unwrap());
        sh(&format!("ip link set isp0 netns {namespace}"));
        let server = Self {
            jobs: sender,
            namespace,
        };
        server.sh(&format!(
            "echo 0 >/proc/sys/net/ipv6/conf/isp0/accept_dad
            ip link set lo up
            ip link set isp0 up
            ip addr add 2001:db8:1::1/64 dev isp0 nodad
            ip -6 route add {CLAT6}/128 via 2001:db8:1::2
            ip -6 route add local 64:ff9b::/96 dev lo
            ip addr add {SERVER6}/128 dev lo nodad"
        ));
        server
    }

    /// Runs this over there and waits for what it returns.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = channel();
        self.jobs.send(Box::new(move || drop(done.send(job())))).unwrap();
        result.recv().expect("the server panicked")
    }

    /// Runs a command over there beside the jobs; its output.
    pub fn beside(&self, command: &str) -> String {
        sh(&format!("nsenter --net={} {command}", self.namespace))
    }

    /// Runs a shell script over there.
    pub fn sh(&self, script: &str) -> String {
        let script = script.to_owned();
        self.run(move || sh(&script))
    }
}

/// Runs `test` on the IPv4 side of a translator with so many queues.
pub fn translated(queues: u32, mtu: u32, test: impl FnOnce(&Server, &Statistics) + Send + 'static) {
    in_namespace(|mut bed| async move {
        let server = Server::new();
        sh(&format!(
            "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
            ip link set up0 mtu {mtu}
            ip -6 route add default via 2001:db8:1::1"
        ));
        server.sh(&format!("ip link set isp0 mtu {mtu}"));
        raise(&mut bed, queues, mtu).await;
        let statistics = bed.kernel.statistics().clone();
        // Thread names: what an operator sees in `top -H`. They, and the carrier of `up0`, may take a moment.
        sh(&format!(
            "until ping -n -c 1 -W 1 2001:db8:1::1 >/dev/null; do sleep 0.05; done
            until [ $(cat /proc/{}/task/*/comm | grep -c '^clat-[0-9]') -ge {queues} ]; do sleep 0.05; done",
            std::process::id()
        ));
        // A thread that the runtime starts is in this namespace, too.
        tokio::task::spawn_blocking(move || test(&server, &statistics))
            .await
            .unwrap();
        assert!(bed.exits.try_recv().is_err(), "a thread ended");
        bed.apply(Op::StopTranslator { device: "clat".into() }).await;
    });
}

async fn raise(bed: &mut Bed, queues: u32, mtu: u32) {
    let device = || "clat".to_owned();
    let mut default = Route::ours("0.0.0.0/0".parse().unwrap(), "clat");
    default.mtu = Some(mtu - 20);
    let Pref64Setting(prefix) = "64:ff9b::/96".parse().unwrap();
    let spec = UserspaceSpec::of(&Settings::default(), prefix, Some(CLAT6.parse().unwrap()), (mtu, mtu));
    for op in [
        Op::CreateTun(NewTun {
            device: device(),
            alias: "clatd:test".into(),
            persistent: false,
            queues,
        }),
        Op::SetDeviceSysctl {
            key: "net/ipv6/conf/clat/addr_gen_mode".into(),
            value: "1".into(),
        },
        Op::SetLinkUp { device: device(), mtu },
        Op::AddAddress {
            device: device(),
            address: "192.0.0.1/32".parse().unwrap(),
        },
        Op::AddRoute { route: default },
        Op::AddRoute {
            route: Route::ours(format!("{CLAT6}/128").parse().unwrap(), "clat"),
        },
        Op::StartTranslator {
            translator: TranslatorSpec::Userspace(spec),
        },
    ] {
        bed.apply(op).await;
    }
}

/// An address of the server as the client knows it.
pub fn server(port: u16) -> SocketAddr {
    (SERVER4, port).into()
}

/// Packets dropped, but for what the kernel itself says on a new device (multicast listener reports).
pub fn dropped(counted: &CountersSnapshot, direction: Direction) -> u64 {
    let drops = counted.drops_by_reason(direction);
    drops
        .filter(|(reason, _)| *reason != DropReason::IllegalSource)
        .map(|(_, count)| count)
        .sum()
}

/// Octets that differ from place to place, without a period that segments could have.
pub fn pattern(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}
