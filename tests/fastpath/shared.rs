//! The CLAT shares the host's address: the map of flows says whose a packet is, and which port it has on the wire. Each
//! test has a network namespace of its own, where the sockets of "the host" are.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::process::Command;

use clatd::kernel::fastpath::{Devices, NextHop, Program, Programs};
use clatd_stages::fast_path::{FastPathSpec, LinkHeader, Sharing};
use clatd_translator::Config;
use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::compare::{NEXT, REDIRECT, spec, without_identification};
use crate::support::{build, hex};

const DEVICE: u32 = 1;
const ETHERNET: usize = 14;
/// The host's address, and the CLAT's.
const OURS: &str = "2001:db8::464";
const CLAT: &str = "192.0.0.1";
/// A server, by its own address and behind the prefix.
const SERVER: &str = "198.51.100.7";
const SERVER6: &str = "64:ff9b::c633:6407";

struct Bed(Programs);

impl Bed {
    fn new(shared: Sharing) -> Self {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let config = Config {
            pref64: Some("64:ff9b::/96".parse().unwrap()),
            maps: vec![(
                format!("{CLAT}/32").parse().unwrap(),
                format!("{OURS}/128").parse().unwrap(),
            )],
            ..Config::default()
        };
        let spec = FastPathSpec {
            shared: Some(shared),
            ..spec(&config).unwrap()
        };
        let mut programs = Programs::load().unwrap_or_else(|error| panic!("{}", clatd::report::chain(&error)));
        let devices = Devices {
            clat: DEVICE,
            uplink: DEVICE,
            clat_header: LinkHeader::Ethernet,
        };
        programs
            .enter(devices, &spec, Some(NextHop(Some("fe80::1".parse().unwrap()))))
            .unwrap();
        programs.take_in(devices, &spec).unwrap();
        Self(programs)
    }

    /// Its verdict, and what has become of the packet.
    fn run(&mut self, program: Program, packet: &[u8]) -> (i32, Vec<u8>) {
        let kind = match packet[0] >> 4 {
            4 => [0x08, 0x00],
            _ => [0x86, 0xdd],
        };
        let frame = [&[0; 12], &kind[..], packet].concat();
        let (verdict, out) = self.0.try_on(program, &frame).unwrap();
        (verdict, out[ETHERNET..].to_vec())
    }

    /// It must become this one.
    fn becomes(&mut self, program: Program, packet: &str, expected: &str) {
        let (verdict, got) = self.run(program, &build::packet(packet));
        let want = build::packet(expected);
        assert!(
            verdict == REDIRECT && without_identification(&got) == without_identification(&want),
            "{packet}\nverdict {verdict}\nexpected {}\ngot{}",
            hex(&want),
            hex(&got)
        );
    }

    /// The CLAT sends it; returns the port that it has on the wire.
    fn sends(&mut self, layer: &str) -> u16 {
        let (verdict, got) = self.run(
            Program::Out,
            &build::packet(&format!("ip4 {CLAT} > {SERVER} | {layer}")),
        );
        assert_eq!(verdict, REDIRECT, "{layer}");
        u16::from_be_bytes([got[40], got[41]])
    }

    /// It is the host's own, and stays as it is.
    fn is_the_hosts(&mut self, packet: &str) {
        let packet = build::packet(packet);
        assert_eq!(
            self.run(Program::In, &packet),
            (NEXT, packet.clone()),
            "{}",
            hex(&packet)
        );
    }

    /// It goes to the engine as this packet.
    fn goes_to_the_engine(&mut self, packet: &str, expected: &str) {
        self.becomes(Program::In, packet, expected);
    }
}

fn from_server(layers: &str) -> String {
    format!("ip6 {SERVER6} > {OURS} | {layers}")
}

fn to_clat(layers: &str) -> String {
    format!("ip4 {SERVER} > {CLAT} ttl=63 | {layers}")
}

#[test]
fn the_clats_flows_come_in_and_all_others_are_the_hosts() {
    let mut bed = Bed::new(Sharing::Flows);
    for protocol in ["tcp", "udp"] {
        let answer = from_server(&format!("{protocol} 443 > 5000 | data 16"));
        bed.is_the_hosts(&answer);
        assert_eq!(bed.sends(&format!("{protocol} 5000 > 443 | data 4")), 5000);
        let translated = to_clat(&format!("{protocol} 443 > 5000 | data 16"));
        bed.becomes(Program::In, &answer, &translated);
        for other in ["443 > 5001", "444 > 5000"] {
            bed.is_the_hosts(&from_server(&format!("{protocol} {other} | data 16")));
        }
        bed.is_the_hosts(&format!("ip6 64:ff9b::1.2.3.4 > {OURS} | {protocol} 443 > 5000"));
        bed.is_the_hosts(&format!("ip6 2001:db8:1::1 > {OURS} | {protocol} 443 > 5000"));
    }
    bed.is_the_hosts(&from_server("icmp6 type=129 id=77 seq=1 | data 8"));
    bed.becomes(
        Program::Out,
        &format!("ip4 {CLAT} > {SERVER} | icmp4 type=8 id=77 seq=1 | data 8"),
        &format!("ip6 {OURS} > {SERVER6} hop=63 | icmp6 type=128 id=77 seq=1 | data 8"),
    );
    bed.becomes(
        Program::In,
        &from_server("icmp6 type=129 id=77 seq=1 | data 8"),
        &to_clat("icmp4 type=0 id=77 seq=1 | data 8"),
    );
    // Who asks the shared address asks the host.
    bed.is_the_hosts(&from_server("icmp6 type=128 id=77 seq=1 | data 8"));
    bed.is_the_hosts(&from_server("icmp6 type=129 id=78 seq=1 | data 8"));
    bed.is_the_hosts(&from_server("sctp 01bb1388 00000000 00000000"));
}

#[test]
fn with_a_prefix_alone_all_that_comes_from_there_is_the_clats() {
    let mut bed = Bed::new(Sharing::Prefix);
    bed.becomes(Program::In, &from_server("tcp 443 > 5000"), &to_clat("tcp 443 > 5000"));
    bed.becomes(
        Program::In,
        &from_server("icmp6 type=128 id=77 seq=1 | data 8"),
        &to_clat("icmp4 type=8 id=77 seq=1 | data 8"),
    );
    bed.is_the_hosts(&format!("ip6 2001:db8:1::1 > {OURS} | tcp 443 > 5000"));
}

/// The packet is translated with another port, and its answers get the old one back.
fn is_moved(bed: &mut Bed, protocol: &str) {
    let port = bed.sends(&format!("{protocol} 5000 > 443 | data 4"));
    assert!(port >= 61000, "{protocol} {port}");
    // Once more, and checked whole.
    bed.becomes(
        Program::Out,
        &format!("ip4 {CLAT} > {SERVER} | {protocol} 5000 > 443 | data 32"),
        &format!("ip6 {OURS} > {SERVER6} hop=63 | {protocol} {port} > 443 | data 32"),
    );
    bed.becomes(
        Program::In,
        &from_server(&format!("{protocol} 443 > {port} | data 16")),
        &to_clat(&format!("{protocol} 443 > 5000 | data 16")),
    );
    bed.is_the_hosts(&from_server(&format!("{protocol} 443 > 5000 | data 16")));
    // What the engine made.
    bed.becomes(
        Program::Back,
        &format!("ip6 {OURS} > {SERVER6} | {protocol} 5000 > 443 | data 32"),
        &format!("ip6 {OURS} > {SERVER6} | {protocol} {port} > 443 | data 32"),
    );
    // A fragment has the checksum of the whole.
    let whole = |ports: &str| format!("{protocol} {ports} | data 64");
    bed.becomes(
        Program::Back,
        &format!(
            "ip6 {OURS} > {SERVER6} | frag id=7 m | of [ {} ] 0..24",
            whole("5000 > 443")
        ),
        &format!(
            "ip6 {OURS} > {SERVER6} | frag id=7 m | of [ {} ] 0..24",
            whole(&format!("{port} > 443"))
        ),
    );
    bed.goes_to_the_engine(
        &from_server(&format!(
            "frag id=8 m | of [ {} ] 0..24",
            whole(&format!("443 > {port}"))
        )),
        &from_server(&format!("frag id=8 m | of [ {} ] 0..24", whole("443 > 5000"))),
    );
    // An error has a packet of ours in it; its checksum is that of the packet as we know it.
    let error = |ports: &str, sum: &str| {
        format!(
            "ip6 2001:db8:1::1 > {OURS} | icmp6 type=2 mtu=1280 | [ ip6 {OURS} > {SERVER6} | {protocol} {ports} {sum} | data 32 ] cut=48"
        )
    };
    bed.goes_to_the_engine(
        &error(&format!("{port} > 443"), "sum=1234"),
        &error("5000 > 443", "sum=1234"),
    );
    let refused = |ports: &str| {
        format!(
            "ip6 {OURS} > {SERVER6} | icmp6 type=1 code=4 | [ ip6 {SERVER6} > {OURS} | {protocol} {ports} sum=1234 | data 32 ] cut=48"
        )
    };
    bed.becomes(
        Program::Back,
        &refused("443 > 5000"),
        &refused(&format!("443 > {port}")),
    );
}

#[test]
fn a_port_that_the_host_uses_is_changed_for_udp() {
    let mut bed = Bed::new(Sharing::Flows);
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP)).unwrap();
    socket.set_only_v6(true).unwrap();
    let any = |port| SockAddr::from(std::net::SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
    socket.bind(&any(5000)).unwrap();
    is_moved(&mut bed, "udp");
}

#[test]
fn a_port_that_the_host_uses_is_changed_for_tcp() {
    let mut bed = Bed::new(Sharing::Flows);
    let _socket = connecting();
    is_moved(&mut bed, "tcp");
}

/// A connection of the host's from port 5000 to the server.
fn connecting() -> Socket {
    let made = Command::new("sh")
        .args([
            "-c",
            &format!("ip link set lo up && ip -6 address add {OURS}/128 dev lo nodad && ip -6 route add 64:ff9b::/96 dev lo src {OURS}"),
        ])
        .status()
        .unwrap();
    assert!(made.success());
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.set_nonblocking(true).unwrap();
    let address =
        |address: &str, port| SockAddr::from(std::net::SocketAddr::from((address.parse::<Ipv6Addr>().unwrap(), port)));
    socket.bind(&address(OURS, 5000)).unwrap();
    let error = socket.connect(&address(SERVER6, 443)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(nix::libc::EINPROGRESS));
    socket
}

/// A socket of both families speaks IPv4 by the CLAT, and who listens has no flow.
#[test]
fn a_port_of_the_same_program_is_kept() {
    let mut bed = Bed::new(Sharing::Flows);
    let _both = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 5000)).unwrap();
    assert_eq!(bed.sends("udp 5000 > 443"), 5000);
    let _listener = std::net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, 5000)).unwrap();
    assert_eq!(bed.sends("tcp 5000 > 443"), 5000);
    let _four = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5001)).unwrap();
    assert_eq!(bed.sends("udp 5001 > 443"), 5001);
}

/// The CLAT's connection ended, and the host uses the port for one of its own.
#[test]
fn the_host_may_take_a_port_after_the_clat() {
    let mut bed = Bed::new(Sharing::Flows);
    assert_eq!(bed.sends("tcp 5000 > 443"), 5000);
    let _socket = connecting();
    let mut accepted = build::packet(&from_server("tcp 443 > 5000"));
    accepted[40 + 13] = 0x12; // SYN, ACK
    assert_eq!(bed.run(Program::In, &accepted), (NEXT, accepted.clone()));
    bed.is_the_hosts(&from_server("tcp 443 > 5000 | data 16"));
}

#[test]
fn fragments_go_where_the_first_one_went() {
    let mut bed = Bed::new(Sharing::Flows);
    bed.sends("udp 5000 > 443");
    let piece = |id: u32, port: u16, from: u32, more: &str| {
        from_server(&format!(
            "frag id={id} off={from} {more} | of [ udp 443 > {port} | data 64 ] {from}..{}",
            from + 24
        ))
    };
    for (id, port, ours) in [(1, 5000, true), (2, 5001, false)] {
        // Before the first one nobody knows, so both sides get it.
        bed.is_the_hosts(&piece(id, port, 48, ""));
        for (from, more) in [(0, "m"), (24, "m"), (48, "")] {
            let piece = piece(id, port, from, more);
            match ours {
                true => bed.goes_to_the_engine(&piece, &piece),
                false => bed.is_the_hosts(&piece),
            }
        }
    }
    // A header in front of the fragment.
    let behind = from_server("dst | frag id=3 m | of [ udp 443 > 5000 | data 64 ] 0..24");
    bed.goes_to_the_engine(&behind, &behind);
}

#[test]
fn errors_go_to_whose_packet_they_are_about() {
    let mut bed = Bed::new(Sharing::Flows);
    bed.sends("udp 5000 > 443");
    bed.sends("icmp4 type=8 id=77 seq=1");
    let about =
        |inner: &str| format!("ip6 2001:db8:1::1 > {OURS} | icmp6 type=2 mtu=1280 | [ {inner} | data 1400 ] cut=1200");
    for (inner, ours) in [
        (format!("ip6 {OURS} > {SERVER6} | udp 5000 > 443"), true),
        (format!("ip6 {OURS} > {SERVER6} | icmp6 type=128 id=77 seq=1"), true),
        (format!("ip6 {OURS} > {SERVER6} | frag id=1 m | udp 5000 > 443"), true),
        (format!("ip6 {OURS} > {SERVER6} | udp 5001 > 443"), false),
        (format!("ip6 {OURS} > {SERVER6} | icmp6 type=129 id=77 seq=1"), false),
        (format!("ip6 {OURS} > {SERVER6} | tcp 5000 > 443"), false),
        (format!("ip6 {OURS} > 2001:db8:1::1 | udp 5000 > 443"), false),
        (format!("ip6 {SERVER6} > {OURS} | udp 443 > 5000"), false),
    ] {
        let error = about(&inner);
        match ours {
            true => bed.goes_to_the_engine(&error, &error),
            false => bed.is_the_hosts(&error),
        }
    }
}
