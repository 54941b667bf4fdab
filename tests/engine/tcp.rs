//! Super-packets of TCP.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::thread;

use clatd_translator::Direction;

use crate::bed::{Server, dropped, pattern, server, translated};
use crate::support::sh;

/// Sends this many octets either way, both at the same time, and compares them.
pub fn exchange(over_there: &Server, octets: usize) {
    let listener = over_there.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 5000)).unwrap());
    let echoes = thread::spawn(move || both_ways(&listener.accept().unwrap().0, octets));
    both_ways(&TcpStream::connect(server(5000)).unwrap(), octets);
    echoes.join().unwrap();
}

fn both_ways(stream: &TcpStream, octets: usize) {
    let block = pattern(1_000_003);
    let pieces = || {
        let blocks = octets.div_ceil(block.len());
        (0..blocks).map(|n| &block[..block.len().min(octets - n * block.len())])
    };
    thread::scope(|scope| {
        let mut writer = stream;
        scope.spawn(move || pieces().for_each(|piece| writer.write_all(piece).unwrap()));
        let (mut reader, mut buffer) = (stream, vec![0; block.len()]);
        for piece in pieces() {
            reader.read_exact(&mut buffer[..piece.len()]).unwrap();
            assert!(&buffer[..piece.len()] == piece, "other octets than were sent");
        }
    });
}

#[test]
fn a_hundred_megabytes_pass_whole() {
    translated(2, 1500, |over_there, statistics| {
        exchange(over_there, 100_000_000);
        let counted = statistics.snapshot();
        assert_eq!(counted.write_errors, 0);
        for direction in Direction::ALL {
            let (packets, octets) = (
                counted.translation.packets(direction),
                counted.translation.bytes[direction as usize],
            );
            // Pure acknowledgements count as packets, too.
            assert!(
                octets / packets > 3000,
                "{direction:?}: {octets} octets in {packets} packets"
            );
            assert_eq!(dropped(&counted.translation, direction), 0);
        }
    });
}

#[test]
fn any_number_of_queues() {
    for queues in [1, 4] {
        translated(queues, 1500, |over_there, _| exchange(over_there, 20_000_000));
    }
}

#[test]
fn small_and_large_mtus() {
    for mtu in [1280, 9000] {
        translated(2, mtu, |over_there, _| exchange(over_there, 20_000_000));
    }
}

#[test]
fn without_super_packets_on_the_uplink() {
    translated(2, 1500, |over_there, _| {
        sh("ip link set up0 gso_max_segs 1");
        over_there.sh("ip link set isp0 gso_max_segs 1");
        exchange(over_there, 20_000_000);
    });
}

#[test]
fn without_super_packets_from_the_client() {
    translated(1, 1500, |over_there, _| {
        sh("ip link set clat gso_max_segs 1");
        exchange(over_there, 20_000_000);
    });
}
