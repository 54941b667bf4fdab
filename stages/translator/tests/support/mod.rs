//! What the tests share: a packet builder that reads a short notation, and a runner.
//!
//! The builder computes every checksum from scratch, so it is an oracle for the incremental updates of the crate.

#![allow(dead_code, missing_docs, clippy::unwrap_used)]

pub mod build;
pub mod fuzz;
pub mod vector;

use clatd_translator::{Frame, HEADROOM, Kind, Offload, PacketBuf, Translator, Verdict, Worker};

/// One result of a translation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    pub kind: Kind,
    pub offload: Offload,
    pub bytes: Vec<u8>,
}

pub fn run_with(translator: &Translator, worker: &mut Worker, offload: Offload, packet: &[u8]) -> (Verdict, Vec<Got>) {
    let mut buffer = vec![0xa5; HEADROOM + packet.len() + 7];
    buffer[HEADROOM..HEADROOM + packet.len()].copy_from_slice(packet);
    let mut packet = PacketBuf::new(&mut buffer, HEADROOM, packet.len()).unwrap();
    let mut got = Vec::new();
    let mut out = |kind: Kind, offload: &Offload, frame: Frame<'_>| {
        got.push(Got {
            kind,
            offload: *offload,
            bytes: frame.bytes().to_vec(),
        });
    };
    let verdict = translator.translate(worker, 0, offload, &mut packet, &mut out);
    (verdict, got)
}

pub fn run(translator: &Translator, packet: &[u8]) -> (Verdict, Vec<Got>) {
    fuzz::both_ways(translator, Offload::NONE, packet);
    run_with(translator, &mut translator.worker(0), Offload::NONE, packet)
}

pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (n, byte) in bytes.iter().enumerate() {
        if n % 16 == 0 {
            text += &format!("\n    {n:04x} ");
        }
        text += &format!(" {byte:02x}");
    }
    text
}

/// The naive ones' complement sum.
pub fn sum16(bytes: &[u8]) -> u16 {
    let mut total = 0u32;
    for pair in bytes.chunks(2) {
        total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// Where the transport header of an unfragmented packet starts, its protocol, and the bytes of its pseudo-header.
pub fn transport(packet: &[u8]) -> Option<(usize, u8, Vec<u8>)> {
    match packet[0] >> 4 {
        4 => {
            let at = usize::from(packet[0] & 15) * 4;
            let mut pseudo = packet[12..20].to_vec();
            pseudo.extend([0, packet[9]]);
            pseudo.extend(((packet.len() - at) as u16).to_be_bytes());
            (packet[6] & 0x3f == 0 && packet[7] == 0).then_some((at, packet[9], pseudo))
        }
        6 => {
            if packet[6] == 44 {
                return None;
            }
            let mut pseudo = packet[8..40].to_vec();
            pseudo.extend(((packet.len() - 40) as u32).to_be_bytes());
            pseudo.extend([0, 0, 0, packet[6]]);
            Some((40, packet[6], pseudo))
        }
        _ => None,
    }
}

/// Panics unless all checksums of a translated packet are right and its lengths agree with it.
pub fn assert_sound(packet: &[u8], what: &str) {
    match packet[0] >> 4 {
        4 => {
            assert_eq!(packet[0], 0x45, "{what}: options");
            assert_eq!(
                usize::from(u16::from_be_bytes([packet[2], packet[3]])),
                packet.len(),
                "{what}: length"
            );
            assert_eq!(sum16(&packet[..20]), 0xffff, "{what}: header checksum");
        }
        6 => {
            let length = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
            assert_eq!(length + 40, packet.len(), "{what}: length");
        }
        other => panic!("{what}: version {other}"),
    }
    let Some((at, protocol, mut covered)) = transport(packet) else {
        return;
    };
    let rest = &packet[at..];
    match protocol {
        1 => covered.clear(),
        17 if rest[6..8] == [0, 0] => return,
        136 => assert_ne!(rest[6..8], [0, 0], "{what}: UDP-Lite without a checksum"),
        6 | 17 | 58 | 33 => {}
        _ => return,
    }
    let cover = match usize::from(u16::from_be_bytes([rest[4], rest[5]])) {
        cover if protocol == 136 && cover > 0 => cover,
        _ => rest.len(),
    };
    covered.extend(&rest[..cover]);
    assert_eq!(
        sum16(&covered),
        0xffff,
        "{what}: checksum of protocol {protocol}{}",
        hex(packet)
    );
    let parsed = etherparse::SlicedPacket::from_ip(packet);
    assert!(parsed.is_ok(), "{what}: etherparse says {parsed:?}{}", hex(packet));
}
