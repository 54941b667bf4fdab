//! Datagrams: single, in bursts, fragmented, and as super-packets.

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use clatd_translator::Direction;
use nix::sys::socket::{setsockopt, sockopt};

use crate::bed::{SERVER6, Server, dropped, pattern, server, translated};
use crate::support::sh;

/// A socket of the server and one of the client that have heard of each other, and the client's address over there.
fn pair(over_there: &Server) -> (UdpSocket, UdpSocket, SocketAddr) {
    let theirs = over_there.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap());
    // Answers must come from the address that was asked.
    let port = theirs.local_addr().unwrap().port();
    drop(theirs);
    let theirs = over_there.run(move || UdpSocket::bind((SERVER6, port)).unwrap());
    let ours = UdpSocket::bind("0.0.0.0:0").unwrap();
    ours.connect(server(port)).unwrap();
    for socket in [&theirs, &ours] {
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        setsockopt(socket, sockopt::RcvBufForce, &(4 << 20)).unwrap();
    }
    ours.send(b"hello").unwrap();
    let (_, peer) = theirs.recv_from(&mut [0; 5]).unwrap();
    theirs.connect(peer).unwrap();
    (ours, theirs, peer)
}

fn expect(socket: &UdpSocket, datagram: &[u8]) {
    let mut buffer = vec![0; datagram.len() + 1];
    let length = socket.recv(&mut buffer).unwrap();
    assert!(
        &buffer[..length] == datagram,
        "{length} octets came instead of {}",
        datagram.len()
    );
}

#[test]
fn all_lengths_and_fragments() {
    translated(2, 1500, |over_there, statistics| {
        let (ours, theirs, _) = pair(over_there);
        let data = pattern(65_000);
        for length in [
            0, 1, 2, 47, 1232, 1233, 1400, 1452, 1453, 1472, 1473, 3000, 8001, 40_000, 65_000,
        ] {
            for (from, to) in [(&ours, &theirs), (&theirs, &ours)] {
                from.send(&data[..length]).unwrap();
                expect(to, &data[..length]);
            }
        }
        assert_eq!(statistics.snapshot().write_errors, 0);
    });
}

/// What comes in bursts is joined, but whatever the mixture each datagram arrives, in order, as it was sent.
#[test]
fn bursts_of_several_flows() {
    for queues in [1, 2] {
        translated(queues, 1500, |over_there, statistics| {
            let pairs: Vec<_> = (0..3).map(|_| pair(over_there)).collect();
            let data = pattern(2000);
            let length = |flow: usize, number: usize| match flow {
                0 => 64,
                1 => 1400,
                _ => number * 7 % 1452,
            };
            for round in 0..40 {
                for (from_us, number) in [true, false].into_iter().flat_map(|way| (0..60).map(move |n| (way, n))) {
                    // Runs of one flow, and flows in turns.
                    let flow = if round % 2 == 0 { number / 20 } else { number % 3 };
                    let (ours, theirs, _) = &pairs[flow];
                    let from = if from_us { ours } else { theirs };
                    from.send(&data[number..number + length(flow, number)]).unwrap();
                }
                for (from_us, number) in [true, false].into_iter().flat_map(|way| (0..60).map(move |n| (way, n))) {
                    let flow = if round % 2 == 0 { number / 20 } else { number % 3 };
                    let (ours, theirs, _) = &pairs[flow];
                    let to = if from_us { theirs } else { ours };
                    expect(to, &data[number..number + length(flow, number)]);
                }
            }
            let counted = statistics.snapshot();
            assert_eq!(counted.write_errors, 0);
            for direction in Direction::ALL {
                assert!(counted.translation.packets(direction) >= 40 * 60);
                assert_eq!(dropped(&counted.translation, direction), 0);
            }
        });
    }
}

#[test]
fn super_packets_of_the_sender() {
    translated(2, 1500, |over_there, statistics| {
        let (ours, theirs, _) = pair(over_there);
        let data = pattern(1200 * 40 + 77);
        for (from, to) in [(&ours, &theirs), (&theirs, &ours)] {
            setsockopt(from, sockopt::UdpGsoSegment, &1200).unwrap();
            for length in [1200 * 40 + 77, 2400, 1201, 1200, 1] {
                from.send(&data[..length]).unwrap();
                data[..length].chunks(1200).for_each(|segment| expect(to, segment));
            }
        }
        assert_eq!(statistics.snapshot().write_errors, 0);
    });
}

/// The client's UDP socket asks for no checksum, which IPv6 does not allow.
#[test]
fn without_checksum() {
    translated(1, 1500, |over_there, _| {
        let (ours, theirs, _) = pair(over_there);
        let script = format!(
            "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.setsockopt(socket.SOL_SOCKET, 11, 1)
s.bind(('', {})); [s.sendto(b'no checksum', ('9.9.9.9', {})) for n in range(70)]",
            ours.local_addr().unwrap().port(),
            theirs.local_addr().unwrap().port()
        );
        drop(ours);
        sh(&format!("python3 -c \"{script}\""));
        (0..70).for_each(|_| expect(&theirs, b"no checksum"));
    });
}
