//! Connections and fragmented datagrams that must arrive whole while both sides send all kinds of damaged packets.
//! `CLATD_SOAK_SECONDS` makes it last longer, `CLATD_SEED` makes other packets.

use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use clatd_translator::{Direction, DropReason};
use nix::sys::socket::{setsockopt, sockopt};

use crate::bed::{CLAT6, SERVER4, SERVER6, Server, translated};
use crate::support::sh;
use crate::tcp::exchange;

const DAMAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engine/damage.py");
const CLAT4: &str = "192.0.0.1";
/// Whom the noise is about: nobody whose fragments must come whole.
const OTHER4: &str = "9.9.9.10";
const OTHER6: &str = "64:ff9b::909:90a";

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().expect(variable))
}

#[test]
fn what_is_whole_stays_whole_among_damage() {
    let (seconds, seed) = (number("CLATD_SOAK_SECONDS", 5), number("CLATD_SEED", 1));
    translated(2, 1500, move |over_there, statistics| {
        let mac = over_there.sh("ip -6 neigh show 2001:db8:1::2 dev isp0 | grep -o '..:..:..:..:..:..'");
        // Fragments of the noise, which never become whole, must not take the room of the others.
        let room = "cd /proc/sys/net; echo 500000000 | tee ipv4/ipfrag_high_thresh ipv6/ip6frag_high_thresh
            echo 3 | tee ipv4/ipfrag_time ipv6/ip6frag_time";
        sh(room);
        over_there.sh(room);
        let ours = format!("python3 {DAMAGE} noise clat - {CLAT4} {OTHER4} {seed} {seconds}");
        let theirs = format!(
            "python3 {DAMAGE} noise isp0 {} {OTHER6} {CLAT6} {seed} {seconds}",
            mac.trim()
        );
        let sent = thread::scope(|scope| {
            let noise = [
                scope.spawn(|| sh(&ours)),
                // From the server's namespace, beside what the server itself does.
                scope.spawn(|| over_there.beside(&theirs)),
            ];
            let end = Instant::now() + Duration::from_secs(seconds);
            let mut round = 0;
            while round < 2 || Instant::now() < end {
                exchange(over_there, 3_000_000);
                fragments_come_whole(over_there, mac.trim(), seed + round);
                round += 1;
            }
            noise.map(|noise| noise.join().unwrap().trim().parse::<u64>().unwrap())
        });

        let counted = statistics.snapshot().translation;
        for (direction, sent) in [Direction::V4ToV6, Direction::V6ToV4].into_iter().zip(sent) {
            let reasons: Vec<DropReason> = counted
                .drops_by_reason(direction)
                .filter(|(_, count)| *count > 0)
                .map(|(reason, _)| reason)
                .collect();
            assert!(sent > 1000, "{direction:?}: only {sent} packets of noise");
            assert!(reasons.len() > 5, "{direction:?}: dropped for no more than {reasons:?}");
        }
        let pong = sh(&format!("ping -n -c 1 -W 2 {SERVER4}"));
        assert!(pong.contains("1 received"), "{pong}");
    });
}

/// Datagrams whose fragments come in any order, some of them twice, in both directions.
fn fragments_come_whole(over_there: &Server, mac: &str, seed: u64) {
    const COUNT: u32 = 40;
    for to_server in [true, false] {
        let open = move || {
            let any = if to_server { SERVER6 } else { CLAT4 };
            let socket = UdpSocket::bind((any, 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20)).unwrap();
            socket
        };
        let socket = if to_server { over_there.run(open) } else { open() };
        let port = socket.local_addr().unwrap().port();
        let tail = format!("{seed} {port} {COUNT}");
        if to_server {
            sh(&format!("python3 {DAMAGE} pieces clat - {CLAT4} {SERVER4} {tail}"));
        } else {
            over_there.beside(&format!("python3 {DAMAGE} pieces isp0 {mac} {SERVER6} {CLAT6} {tail}"));
        }
        let mut come = Vec::new();
        let mut buffer = [0; 4096];
        while come.len() < COUNT as usize {
            let length = socket.recv(&mut buffer).expect("every datagram comes");
            // A datagram in one piece may have been sent twice; noise to this port has no number of ours.
            let (number, data) = buffer[..length].split_first_chunk().expect("a number");
            let number = u32::from_be_bytes(*number);
            if come.contains(&number) {
                continue;
            }
            let same = data
                .iter()
                .enumerate()
                .all(|(place, octet)| usize::from(*octet) == (number as usize * 7 + place) % 251);
            assert!(
                number < COUNT && same,
                "datagram {number} of {length} octets was changed"
            );
            come.push(number);
        }
    }
}
