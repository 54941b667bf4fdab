//! What the translator answers itself, what passes it, and what must not harm it.

use std::net::UdpSocket;

use clatd_translator::Direction;

use crate::bed::{CLAT6, SERVER4, SERVER6, server, translated};
use crate::support::sh;

#[test]
fn traceroute_shows_the_translator_first() {
    translated(2, 1500, |over_there, _| {
        let shown = sh(&format!("traceroute -n -w 2 -q 1 -m 4 {SERVER4}"));
        let hops: Vec<_> = shown
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().nth(1).unwrap())
            .collect();
        assert_eq!(hops.first(), Some(&"192.0.0.2"), "{shown}");
        assert_eq!(hops.last(), Some(&"9.9.9.9"), "{shown}");
        // The other way it is the CLAT itself that answers: router, translator's own address, end.
        let shown = over_there.sh(&format!("traceroute -n -w 2 -q 1 -m 5 -s {SERVER6} {CLAT6}"));
        assert!(shown.lines().last().unwrap().contains(CLAT6), "{shown}");
    });
}

#[test]
fn the_path_mtu_is_learned() {
    translated(2, 1500, |over_there, _| {
        sh("ip -6 route add 64:ff9b::/96 via 2001:db8:1::1 mtu 1300");
        let ping = |size: u32| sh(&format!("ping -n -c 1 -W 2 -M do -s {size} {SERVER4} 2>&1 || true"));
        assert!(ping(1400).contains("mtu = 1280"), "{}", ping(1400));
        let ok = ping(1252);
        assert!(ok.contains("1 received"), "{ok}");
        assert!(sh(&format!("ip route get {SERVER4}")).contains("mtu 1280"));
        // The other way: the IPv4 side is too small for what comes.
        sh("ip link set clat mtu 1280");
        let shown = over_there.sh(&format!(
            "ping -n -c 3 -i 0.2 -W 2 -M do -s 1400 -I {SERVER6} {CLAT6} 2>&1 || true"
        ));
        assert!(shown.contains("too big") || shown.contains("too long"), "{shown}");
    });
}

#[test]
fn errors_are_limited_and_come_again() {
    translated(2, 1500, |_, statistics| {
        let counted = || {
            let translation = statistics.snapshot().translation;
            let way = Direction::V4ToV6 as usize;
            (translation.answers[way], translation.suppressed[way])
        };
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_ttl(1).unwrap();
        let send = || drop(socket.send_to(b"expires", server(33_434)));
        let mut sent = 0;
        while counted().1 == 0 {
            assert!(sent < 1_000_000, "never limited");
            send();
            sent += 1;
        }
        let before = counted().0;
        assert!(before > 0);
        let again = (0..1000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            send();
            counted().0 > before
        });
        assert!(again, "the limiter has no clock");
    });
}

/// Whatever the client puts on the device, the threads go on.
#[test]
fn malformed_packets_do_no_harm() {
    translated(2, 1500, |_, statistics| {
        let script = "import random, socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
r = random.Random(7)
v4 = bytes.fromhex('450000200000400040110000c000000109090909') + bytes.fromhex('00010002000c0000') + bytes(4)
v6 = bytes.fromhex('60000000000c1140') + bytes.fromhex('0064ff9b000000000000000009090909') + bytes.fromhex('20010db8c1a700000000000000000001') + bytes.fromhex('00010002000c0000') + bytes(4)
for n in range(20000):
    kind = n % 4
    packet = bytearray(r.choice((v4, v6)))
    if kind == 0: packet = bytearray(r.randbytes(r.randrange(1, 1400)))
    if kind == 1: packet = packet[:r.randrange(1, len(packet))]
    if kind >= 2:
        for _ in range(r.randrange(1, 5)): packet[r.randrange(len(packet))] = r.randrange(256)
    if kind == 3: packet += r.randbytes(r.randrange(1, 1400))
    proto = 0x86dd if packet[0] >> 4 == 6 else 0x0800
    try: s.sendto(bytes(packet), ('clat', proto))
    except OSError: pass
";
        sh(&format!("python3 - <<'PYTHON'\n{script}\nPYTHON"));
        sh(&format!("ping -n -c 3 -i 0.05 -W 2 {SERVER4}"));
        let counted = statistics.snapshot().translation;
        let dropped: u64 = counted.drops_by_reason(Direction::V4ToV6).map(|(_, count)| count).sum();
        assert!(dropped > 1000, "{dropped}");
    });
}
