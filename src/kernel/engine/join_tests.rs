#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;

const PARTIAL: u8 = Offload::NEEDS_CSUM;

/// IPv4 or IPv6 UDP packets side by side in a buffer, all alike but for payload length, changed by `change`.
fn packets(v6: bool, payloads: &[usize], change: impl Fn(usize, &mut [u8])) -> (Vec<u8>, Vec<Waiting>) {
    let ip = if v6 { 40 } else { 20 };
    let (mut buffer, mut waiting) = (Vec::new(), Vec::new());
    for (number, &payload) in payloads.iter().enumerate() {
        let start = buffer.len() + 10;
        buffer.resize(start + ip + 8, 0);
        buffer.resize(start + ip + 8 + payload, number as u8);
        let packet = &mut buffer[start..];
        let length = ((8 + payload) as u16).to_be_bytes();
        if v6 {
            packet[..8].copy_from_slice(&[0x60, 1, 2, 3, length[0], length[1], UDP, 63]);
            packet[8..40].copy_from_slice(&[7; 32]);
        } else {
            let total = ((28 + payload) as u16).to_be_bytes();
            packet[..10].copy_from_slice(&[0x45, 0, total[0], total[1], 0xff, 0xff - number as u8, 0x40, 0, 63, UDP]);
            packet[12..20].copy_from_slice(&[7; 8]);
        }
        packet[ip..ip + 8].copy_from_slice(&[1, 1, 2, 2, length[0], length[1], 5, 5]);
        change(number, packet);
        let offload = Offload {
            flags: PARTIAL,
            csum_start: ip as u16,
            csum_offset: 6,
            ..Offload::NONE
        };
        let range = start..buffer.len();
        waiting.push(Waiting::new(range, offload));
    }
    (buffer, waiting)
}

fn runs(v6: bool, payloads: &[usize], change: impl Fn(usize, &mut [u8])) -> usize {
    let (buffer, waiting) = packets(v6, payloads, change);
    run(&buffer, &waiting)
}

#[test]
fn equal_ones_and_a_shorter_last_are_joined() {
    for v6 in [false, true] {
        assert_eq!(runs(v6, &[100], |_, _| ()), 1);
        assert_eq!(runs(v6, &[100, 100, 100], |_, _| ()), 3);
        assert_eq!(runs(v6, &[100, 100, 99, 99], |_, _| ()), 3);
        assert_eq!(runs(v6, &[100, 101], |_, _| ()), 1);
        assert_eq!(runs(v6, &[100, 0, 100], |_, _| ()), 1, "an empty one is no segment");
        assert_eq!(runs(v6, &[1; 100], |_, _| ()), MOST);
        assert_eq!(runs(v6, &[1472; 60], |_, _| ()), 44, "64 KiB at most");
    }
    assert_eq!(run(&[], &[]), 1);
}

#[test]
fn every_difference_that_a_receiver_could_see_keeps_them_apart() {
    // Version and traffic class, flow label, hop limit, addresses, ports.
    for at in [0, 1, 3, 7, 8, 23, 24, 39, 40, 42] {
        assert_eq!(
            runs(true, &[9, 9], |number, packet| packet[at] ^= number as u8),
            1,
            "octet {at}"
        );
    }
    // TOS, fragmentation, TTL, protocol, addresses, ports.
    for at in [0, 1, 6, 7, 8, 9, 12, 19, 20, 22] {
        assert_eq!(
            runs(false, &[9, 9], |number, packet| packet[at] ^= number as u8),
            1,
            "octet {at}"
        );
    }
    // Identifications matter where a router may fragment.
    let id = |step: u16| {
        move |number: usize, packet: &mut [u8]| {
            packet[6] = 0;
            packet[4..6].copy_from_slice(&0xffff_u16.wrapping_add(step * number as u16).to_be_bytes());
        }
    };
    assert_eq!(runs(false, &[9, 9, 9], id(1)), 3);
    assert_eq!(runs(false, &[9, 9, 9], id(2)), 1);
}

#[test]
fn the_unusual_and_the_unverified_go_alone() {
    for v6 in [false, true] {
        let ip = if v6 { 40 } else { 20 };
        assert_eq!(
            runs(v6, &[9, 9], |_, packet| packet[ip + 5] += 1),
            1,
            "wrong UDP length"
        );
        assert_eq!(
            runs(v6, &[9, 9], |_, packet| packet[if v6 { 5 } else { 3 }] += 1),
            1,
            "wrong IP length"
        );
        for (flags, gso_type, csum_start, joined) in [
            (Offload::DATA_VALID, 0, 0, 2),
            (0, 0, 0, 1),
            (PARTIAL, 0, ip + 8, 1),
            (PARTIAL, Offload::GSO_UDP_L4, ip, 1),
        ] {
            let (buffer, mut waiting) = packets(v6, &[9, 9], |_, _| ());
            for packet in &mut waiting {
                packet.offload.flags = flags;
                packet.offload.gso_type = gso_type;
                packet.offload.csum_start = csum_start as u16;
            }
            assert_eq!(run(&buffer, &waiting), joined, "{flags} {gso_type} {csum_start}");
        }
        let (mut buffer, mut waiting) = packets(v6, &[9, 9], |_, packet| packet[ip + 6..ip + 8].fill(0));
        for packet in &mut waiting {
            packet.offload.flags = Offload::DATA_VALID;
        }
        assert_eq!(
            run(&buffer, &waiting),
            1,
            "without a checksum there is nothing that could be right"
        );
        // Lies about lengths.
        for cut in 0..ip + 9 {
            let waiting = [Waiting::new(10..10 + cut, waiting[0].offload), waiting[1].clone()];
            assert_eq!(run(&buffer, &waiting), 1);
            assert!(join(&mut buffer, &waiting).is_none());
        }
    }
}

#[test]
fn the_head_speaks_for_all() {
    for v6 in [false, true] {
        let ip: usize = if v6 { 40 } else { 20 };
        let (mut buffer, waiting) = packets(v6, &[100, 100, 50], |_, _| ());
        let offload = join(&mut buffer, &waiting).unwrap();
        assert_eq!(
            (offload.flags, offload.gso_type, offload.gso_size),
            (PARTIAL, Offload::GSO_UDP_L4, 100)
        );
        assert_eq!(
            (offload.hdr_len, offload.csum_start, offload.csum_offset),
            (ip as u16 + 8, ip as u16, 6)
        );
        let head = &buffer[waiting[0].range.clone()];
        let word = |at: usize| usize::from(u16::from_be_bytes([head[at], head[at + 1]]));
        assert_eq!(word(ip + 4), 258);
        assert_eq!(word(if v6 { 4 } else { 2 }), if v6 { 258 } else { 278 });
        if !v6 {
            assert_eq!(internet_checksum(&head[..20]), 0);
        }
        let pseudo = [&head[if v6 { 8..40 } else { 12..20 }], &[0, UDP, 1, 2]].concat();
        assert_eq!(word(ip + 6) as u16, !internet_checksum(&pseudo));
    }
}

/// The payloads, which number the packets, in the order in which they would be written.
fn gathered(v6: bool, count: usize, change: impl Fn(usize, &mut [u8])) -> Vec<u8> {
    let (buffer, mut waiting) = packets(v6, &vec![9; count], change);
    gather(&buffer, &mut waiting);
    waiting.iter().map(|packet| buffer[packet.range.end - 1]).collect()
}

#[test]
fn interleaved_flows_are_gathered_each_in_its_order() {
    for (v6, destination, port) in [(false, 19, 23), (true, 39, 43)] {
        for at in [destination, port] {
            let by_turns = |number: usize, packet: &mut [u8]| packet[at] = number as u8 % 3;
            assert_eq!(gathered(v6, 7, by_turns), [0, 3, 6, 1, 4, 2, 5], "octet {at}");
        }
        assert_eq!(gathered(v6, 5, |_, _| ()), [0, 1, 2, 3, 4]);
        // Each a flow of its own, and as many as ever wait together.
        let all_different = |number: usize, packet: &mut [u8]| packet[destination] = number as u8;
        assert_eq!(gathered(v6, MOST, all_different), (0..MOST as u8).collect::<Vec<_>>());
        assert_eq!(
            gathered(v6, MOST + 5, all_different),
            (0..MOST as u8 + 5).collect::<Vec<_>>()
        );
    }
}

#[test]
fn other_protocols_keep_their_order_for_each_pair_of_hosts() {
    // Ports of TCP, types of ICMP.
    let tcp = |number: usize, packet: &mut [u8]| (packet[9], packet[23]) = (6, number as u8 % 2);
    assert_eq!(gathered(false, 4, tcp), [0, 1, 2, 3]);
    let mixed = |number: usize, packet: &mut [u8]| packet[9] = [UDP, 6][number % 2];
    assert_eq!(gathered(false, 4, mixed), [0, 2, 1, 3]);
}

#[test]
fn a_batch_with_a_fragment_stays_as_it_is() {
    let by_turns = |at: usize| move |number: usize, packet: &mut [u8]| packet[at] = number as u8 % 2;
    for word in [[0x20, 0], [0, 7], [0x20, 7]] {
        let fragment = |number: usize, packet: &mut [u8]| {
            by_turns(19)(number, packet);
            if number == 2 {
                packet[6..8].copy_from_slice(&word);
            }
        };
        assert_eq!(gathered(false, 4, fragment), [0, 1, 2, 3], "{word:?}");
    }
    let fragment = |number: usize, packet: &mut [u8]| {
        by_turns(39)(number, packet);
        if number == 3 {
            packet[6] = FRAGMENT;
        }
    };
    assert_eq!(gathered(true, 4, fragment), [0, 1, 2, 3]);
}

#[test]
fn nothing_too_short_is_read() {
    let (buffer, waiting) = packets(true, &[9, 9, 9], |_, _| ());
    for length in 0..44 {
        let mut cut = waiting.clone();
        for packet in &mut cut {
            packet.range.end = packet.range.start + length;
        }
        gather(&buffer, &mut cut);
        assert!(cut.iter().map(|packet| packet.range.start).is_sorted());
    }
}
