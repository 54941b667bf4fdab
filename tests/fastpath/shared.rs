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
    fragments_are_moved(bed, protocol, port);
    errors_are_moved(bed, protocol, port);
}

/// A fragment has the checksum of the whole.
fn fragments_are_moved(bed: &mut Bed, protocol: &str, port: u16) {
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
    let incoming = whole(&format!("443 > {port}"));
    bed.becomes(
        Program::In,
        &from_server(&format!("frag id=8 m | of [ {incoming} ] 0..24")),
        &format!(
            "ip4 {SERVER} > {CLAT} ttl=63 id=8 mf | of [ {} ] 0..24",
            whole("443 > 5000")
        ),
    );
    // A header in front: the engine's, with the port that it knows.
    bed.goes_to_the_engine(
        &from_server(&format!("dst | frag id=9 m | of [ {incoming} ] 0..24")),
        &from_server(&format!("dst | frag id=9 m | of [ {} ] 0..24", whole("443 > 5000"))),
    );
    bed.becomes(
        Program::Out,
        &format!("ip4 {CLAT} > {SERVER} id=7 mf | of [ {} ] 0..24", whole("5000 > 443")),
        &format!(
            "ip6 {OURS} > {SERVER6} hop=63 | frag id=7 m | of [ {} ] 0..24",
            whole(&format!("{port} > 443"))
        ),
    );
}

/// An error has a packet of ours in it, with a right checksum before and after, unless that is cut off.
fn errors_are_moved(bed: &mut Bed, protocol: &str, port: u16) {
    for cut in [48, 60, 80] {
        let error = |ports: &str| {
            format!(
                "ip6 2001:db8:1::1 > {OURS} | icmp6 type=2 mtu=1280 | [ ip6 {OURS} > {SERVER6} | {protocol} {ports} | data 32 ] cut={cut}"
            )
        };
        bed.goes_to_the_engine(&error(&format!("{port} > 443")), &error("5000 > 443"));
    }
    let refused = |ports: &str, cut: u32| {
        format!(
            "ip6 {OURS} > {SERVER6} | icmp6 type=1 code=4 | [ ip6 {SERVER6} > {OURS} | {protocol} {ports} | data 32 ] cut={cut}"
        )
    };
    for cut in [48, 60, 80] {
        let expected = refused(&format!("443 > {port}"), cut);
        bed.becomes(Program::Back, &refused("443 > 5000", cut), &expected);
    }
}

#[test]
fn a_port_that_the_host_uses_is_changed_for_udp() {
    let mut bed = Bed::new(Sharing::Flows);
    let _socket = udp_socket_of_the_host();
    is_moved(&mut bed, "udp");
}

#[test]
fn a_port_that_the_host_uses_is_changed_for_tcp() {
    let mut bed = Bed::new(Sharing::Flows);
    let _socket = connecting();
    is_moved(&mut bed, "tcp");
}

/// A connection of the host's own, by IPv6, from port 5000 to the server.
fn connecting() -> Socket {
    connecting_by(
        Domain::IPV6,
        [OURS, SERVER6],
        &format!("ip -6 address add {OURS}/128 dev lo nodad && ip -6 route add 64:ff9b::/96 dev lo src {OURS}"),
    )
}

/// A connection of the host's by the CLAT.
fn connecting_by_clat() -> Socket {
    connecting_by(
        Domain::IPV4,
        [CLAT, SERVER],
        &format!("ip address add {CLAT}/32 dev lo && ip route add {SERVER}/32 dev lo src {CLAT}"),
    )
}

/// Nobody answers it.
fn connecting_by(domain: Domain, [from, to]: [&str; 2], way: &str) -> Socket {
    let made = Command::new("sh")
        .args(["-c", &format!("ip link set lo up && {way}")])
        .status()
        .unwrap();
    assert!(made.success());
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = |address: &str, port| SockAddr::from(std::net::SocketAddr::new(address.parse().unwrap(), port));
    socket.bind(&address(from, 5000)).unwrap();
    let error = socket.connect(&address(to, 443)).unwrap_err();
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

/// The CLAT's connection ended, and the host uses the port for one of its own, which is accepted or refused.
#[test]
fn the_host_may_take_a_port_after_the_clat() {
    for flags in [0x12, 0x14] {
        let mut bed = Bed::new(Sharing::Flows);
        assert_eq!(bed.sends("tcp 5000 > 443"), 5000);
        let _socket = connecting();
        let mut answer = build::packet(&from_server("tcp 443 > 5000"));
        answer[40 + 13] = flags;
        assert_eq!(bed.run(Program::In, &answer), (NEXT, answer.clone()), "{flags:#x}");
        bed.is_the_hosts(&from_server("tcp 443 > 5000 | data 16"));
    }
}

fn udp_socket_of_the_host() -> Socket {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP)).unwrap();
    socket.set_only_v6(true).unwrap();
    socket
        .bind(&SockAddr::from(std::net::SocketAddr::from((
            Ipv6Addr::UNSPECIFIED,
            5000,
        ))))
        .unwrap();
    socket
}

/// A flow that is idle stays as long as a NAT keeps it, even if the host takes its port meanwhile.
#[test]
fn an_idle_flow_stays_as_long_as_a_nat_keeps_it() {
    for (protocol, short, long) in [("tcp", 7000, 7500), ("udp", 240, 320)] {
        let mut bed = Bed::new(Sharing::Flows);
        assert_eq!(bed.sends(&format!("{protocol} 5000 > 443 | data 4")), 5000);
        let answer = from_server(&format!("{protocol} 443 > 5000 | data 16"));
        let translated = to_clat(&format!("{protocol} 443 > 5000 | data 16"));
        // Nobody else wants the port: it stays for any time, in both directions.
        bed.0.age_flows(100_000).unwrap();
        bed.becomes(Program::In, &answer, &translated);
        bed.0.age_flows(100_000).unwrap();
        assert_eq!(bed.sends(&format!("{protocol} 5000 > 443 | data 4")), 5000);

        let _socket = match protocol {
            "tcp" => connecting(),
            _ => udp_socket_of_the_host(),
        };
        bed.0.age_flows(short).unwrap();
        bed.becomes(Program::In, &answer, &translated);
        bed.0.age_flows(short).unwrap();
        assert_eq!(bed.sends(&format!("{protocol} 5000 > 443 | data 4")), 5000);
        bed.0.age_flows(long).unwrap();
        bed.is_the_hosts(&answer);
        assert!(bed.sends(&format!("{protocol} 5000 > 443 | data 4")) >= 61000);
    }
}

/// Other flows drove out that of a connection that was idle for long, or the daemon began anew.
#[test]
fn a_connection_of_the_host_is_known_by_its_socket() {
    let mut bed = Bed::new(Sharing::Flows);
    let answer = from_server("tcp 443 > 5000 | data 16");
    let translated = to_clat("tcp 443 > 5000 | data 16");
    let _socket = connecting_by_clat();
    bed.becomes(Program::In, &answer, &translated);
    assert_eq!(bed.sends("tcp 5000 > 443 | data 4"), 5000);
    bed.0.drive_flows_out().unwrap();
    bed.becomes(Program::In, &answer, &translated);
    bed.is_the_hosts(&from_server("tcp 443 > 5001 | data 16"));
    bed.is_the_hosts(&from_server("udp 443 > 5000 | data 16"));
    // Who listens has no connection.
    let _listener = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 5002)).unwrap();
    bed.is_the_hosts(&from_server("tcp 443 > 5002 | data 16"));
    // The host's own IPv6 has it, too: that one was first, or the flow would have got another port.
    bed.0.drive_flows_out().unwrap();
    let _socket = connecting();
    bed.is_the_hosts(&answer);
}

#[test]
fn fragments_go_where_the_first_one_went() {
    let mut bed = Bed::new(Sharing::Flows);
    bed.sends("udp 5000 > 443");
    let cut = |port: u16, from: u32| format!("of [ udp 443 > {port} | data 64 ] {from}..{}", from + 24);
    let piece = |id: u32, port: u16, from: u32, more: &str| {
        from_server(&format!("frag id={id} off={from} {more} | {}", cut(port, from)))
    };
    for (id, port, ours) in [(1, 5000, true), (2, 5001, false)] {
        // Before the first one nobody knows, so both sides get it.
        bed.is_the_hosts(&piece(id, port, 48, ""));
        for (from, more, more4) in [(0, "m", "mf"), (24, "m", "mf"), (48, "", "")] {
            let piece = piece(id, port, from, more);
            let piece4 = format!(
                "ip4 {SERVER} > {CLAT} ttl=63 id={id} off={from} {more4} | {}",
                cut(port, from)
            );
            match ours {
                true => bed.becomes(Program::In, &piece, &piece4),
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
