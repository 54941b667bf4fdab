//! What listens on an uplink: not one uplink after the other, and no longer than somebody reads there.

use std::net::{Ipv6Addr, UdpSocket};
use std::time::{Duration, Instant};

use clatd::claims::AllClaims;
use clatd::kernel::Netlink;
use clatd_stages::claims::Claims;
use clatd_stages::world::World;
use socket2::{Domain, Socket, Type};

use crate::support::{in_namespace, sh};

/// The port of DHCPv6 servers, and the group that clients send to (RFC 8415 sections 7.1 and 7.2).
const SERVER_PORT: u16 = 547;
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// Waits on a device for the first word of a client there.
fn first_word(device: &str, index: u32) -> std::thread::JoinHandle<Option<Instant>> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, None).unwrap();
    socket.set_only_v6(true).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind_device(Some(device.as_bytes())).unwrap();
    let any = std::net::SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, SERVER_PORT, 0, 0);
    socket.bind(&any.into()).unwrap();
    socket.join_multicast_v6(&SERVERS, index).unwrap();
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    std::thread::spawn(move || socket.recv(&mut [0; 1500]).ok().map(|_| Instant::now()))
}

fn index(device: &str) -> u32 {
    sh(&format!(
        "cat /sys/class/net/{device}/ifindex 2>/dev/null || ip -o link show dev {device} | cut -d: -f1"
    ))
    .trim()
    .parse()
    .unwrap()
}

/// The sockets of this namespace that hear ICMPv6, DHCPv6 and frames.
fn sockets() -> usize {
    let lines = |file: &str| {
        std::fs::read_to_string(format!("/proc/thread-self/net/{file}"))
            .unwrap()
            .lines()
            .count()
    };
    lines("raw6") + lines("udp6") + lines("packet")
}

/// Three uplinks without any server: none waits until the one before it has given up.
#[test]
fn clients_of_several_uplinks_do_not_wait_for_each_other() {
    in_namespace(|_bed| async move {
        for k in 1..3 {
            sh(&format!(
                "ip link add up{k} type veth peer name isp{k}; ip link set isp{k} up; ip link set up{k} up
                until ip -6 addr show dev up{k} scope link | grep -q fe80; do sleep 0.02; done"
            ));
        }
        let words: Vec<_> = (0..3)
            .map(|k| first_word(&format!("isp{k}"), index(&format!("isp{k}"))))
            .collect();
        let begun = Instant::now();
        let leases = tempfile::tempdir().unwrap();
        let claims = AllClaims::new(Netlink::open().unwrap(), leases.path(), |_| {});
        let claims = ["one", "two", "three"].map(|name| claims.of(name));
        let (a, b, c) = tokio::join!(
            claims[0].delegated_prefix("up0"),
            claims[1].delegated_prefix("up1"),
            claims[2].delegated_prefix("up2")
        );
        let took = begun.elapsed();
        assert!([a, b, c].iter().all(|found| matches!(found, Ok(None))));
        // One after the other they take 9 s. A client waits for a second at most before its first word.
        assert!(took < Duration::from_secs(6), "{took:?}");
        for word in words {
            let word = word.join().unwrap().expect("a word of the client");
            assert!(
                word.duration_since(begun) < Duration::from_secs(3),
                "{:?}",
                word.duration_since(begun)
            );
        }
    });
}

/// With the last instance on an uplink the listeners there end, also those for a prefix to be delegated.
#[test]
fn what_listened_ends_with_the_last_who_reads_there() {
    in_namespace(|bed| async move {
        sh(
            "ip link add up1 type veth peer name isp1; ip link set isp1 up; ip link set up1 up
            until ip -6 addr show dev up1 scope link | grep -q fe80; do sleep 0.02; done",
        );
        let before = sockets();
        let leases = tempfile::tempdir().unwrap();
        let claims = AllClaims::new(Netlink::open().unwrap(), leases.path(), |_| {});
        let [one, other] = ["one", "other"].map(|name| (bed.world.for_instance(name), claims.of(name)));
        for ((world, claims), uplink) in [(&one, "up0"), (&other, "up0"), (&other, "up1")] {
            world.advertised_prefixes(uplink).await.unwrap();
            claims.delegated_prefix(uplink).await.unwrap();
        }
        assert_eq!(bed.world.listening(), ["up0", "up1"]);
        let both = sockets();
        assert!(both > before);
        // From here on time is short: what is waited for comes at once.
        tokio::time::pause();
        sh("ip link del up1");
        drop(other);
        bed.world.instance_ended("other");
        tokio::time::sleep(Duration::from_secs(70)).await;
        assert_eq!(bed.world.listening(), ["up0"]);
        drop(one);
        bed.world.instance_ended("one");
        tokio::time::sleep(Duration::from_secs(70)).await;
        assert_eq!(bed.world.listening(), [""; 0]);
        tokio::time::resume();
        for _ in 0..100 {
            if sockets() == before {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!(
            "{before} sockets before, {both} while they were used, {} left\n{}",
            sockets(),
            sh("ss -anp6 || true")
        );
    });
}
