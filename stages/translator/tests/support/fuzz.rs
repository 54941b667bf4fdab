//! The bodies of the fuzz targets, as plain functions: `fuzz/` runs them on made-up input, a test on the corpus.
//!
//! Besides not panicking, every result must agree with its own length fields, a right transport checksum must come
//! out right, and the short way of plain packets must do what the long way does.

use clatd_translator::{
    Config, Frame, HEADROOM, IcmpErrors, Kind, Offload, PacketBuf, Translator, UdpZeroChecksum, UnmappedSource,
    Verdict, internet_checksum, offline, pcap,
};
use std::sync::OnceLock;

/// The first octet chooses the configuration (low bits) and whether the header checksum is made right (0x80).
pub fn v4to6(input: &[u8]) {
    let Some((&choice, packet)) = input.split_first() else {
        return;
    };
    let mut packet = packet.to_vec();
    set_version(&mut packet, 4);
    if choice & 0x80 != 0 {
        fix_header(&mut packet);
    }
    translate(choice, Offload::NONE, &packet);
}

/// The first octet chooses the configuration.
pub fn v6to4(input: &[u8]) {
    let Some((&choice, packet)) = input.split_first() else {
        return;
    };
    let mut packet = packet.to_vec();
    set_version(&mut packet, 6);
    translate(choice, Offload::NONE, &packet);
}

/// The first octet chooses the configuration, ten are the `virtio_net_hdr`.
pub fn gso(input: &[u8]) {
    let Some((&choice, rest)) = input.split_first() else {
        return;
    };
    let Some((header, packet)) = rest.split_first_chunk() else {
        return;
    };
    let mut packet = packet.to_vec();
    if choice & 0x80 != 0 && packet.first().is_some_and(|octet| octet >> 4 == 4) {
        fix_header(&mut packet);
    }
    translate(choice, Offload::decode(header), &packet);
}

/// The first octet chooses the configuration, the rest is a file.
pub fn pcap(input: &[u8]) {
    let Some((&choice, file)) = input.split_first() else {
        return;
    };
    let (mut output, mut lines) = (Vec::new(), 0);
    let result = offline::run(translator(choice), file, &mut output, &mut |_| lines += 1);
    if let Ok(summary) = result {
        assert_eq!(summary.dropped, lines);
        assert_eq!(summary.packets, summary.translated + summary.dropped);
    }
    if !output.is_empty() {
        let records = pcap::Reader::new(&output)
            .expect("the header")
            .map(|record| record.expect("a record"));
        for record in records {
            check_lengths(record.data);
        }
    }
}

fn translator(choice: u8) -> &'static Translator {
    static ALL: OnceLock<Vec<Translator>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let prefix = |text: &str| Some(text.parse().expect("a prefix"));
        let map = |v4: &str, v6: &str| (v4.parse().expect("IPv4"), v6.parse().expect("IPv6"));
        let base = Config {
            icmp_errors: IcmpErrors::Unlimited,
            ..Config::default()
        };
        let clat = Config {
            pref64: prefix("64:ff9b::/96"),
            maps: vec![map("192.0.0.1/32", "2001:db8::464/128")],
            ..base.clone()
        };
        let siit = Config {
            pref64: prefix("2001:db8:100::/40"),
            maps: vec![
                map("1.0.0.0/24", "2001:db8:3::/120"),
                map("10.0.0.0/8", "2001:db8:200::/40"),
            ],
            unmapped_source: UnmappedSource::Prefix,
            mtu4: 576,
            ..base.clone()
        };
        let everything = Config {
            maps: vec![map("0.0.0.0/0", "::/0")],
            udp_zero_checksum: UdpZeroChecksum::Pass,
            mtu4: 68,
            mtu6: 1280,
            ..base.clone()
        };
        let wide = Config {
            pref64: prefix("2001:db8::/32"),
            unmapped_source: UnmappedSource::Prefix,
            udp_zero_checksum: UdpZeroChecksum::Drop,
            mtu4: 65535,
            mtu6: 70000,
            lowest_ipv6_mtu: 70000,
            ..base
        };
        [clat, siit, everything, wide]
            .map(|config| Translator::new(config).expect("a configuration"))
            .into()
    });
    &all[usize::from(choice) % all.len()]
}

fn translate(choice: u8, offload: Offload, packet: &[u8]) {
    let translator = translator(choice);
    let right = offload == Offload::NONE && checksum(packet) == Some(true);
    let (verdict, frames) = both_ways(translator, offload, packet);
    let (mut translated, mut answers) = (0, 0);
    for (kind, _, frame) in &frames {
        check_lengths(frame);
        match kind {
            Kind::Translated => translated += 1,
            Kind::Answer => answers += 1,
        }
        if *kind == Kind::Answer || right {
            assert_ne!(checksum(frame), Some(false), "transport checksum: {frame:02x?}");
        }
    }
    match verdict {
        Verdict::Translated => assert!(translated > 0 && answers == 0),
        Verdict::Dropped { answered, .. } => assert_eq!((translated, answers), (0, i32::from(answered))),
    }
}

/// What came out: kind, device header, packet.
pub type Frames = Vec<(Kind, Offload, Vec<u8>)>;

/// Translates a packet twice by each way, the second time to see the identification go on, and asserts that nothing
/// tells the two ways apart.
pub fn both_ways(translator: &Translator, offload: Offload, packet: &[u8]) -> (Verdict, Frames) {
    let mut workers = [translator.worker(0), translator.worker(0)];
    let mut go = |long: bool| {
        let worker = &mut workers[usize::from(long)];
        let mut buffer = [&[0xa5; HEADROOM][..], packet].concat();
        let mut packet = PacketBuf::new(&mut buffer, HEADROOM, packet.len()).expect("a packet");
        let mut frames = Frames::new();
        let mut out = |kind: Kind, offload: &Offload, frame: Frame<'_>| {
            frames.push((kind, *offload, frame.bytes().to_vec()));
        };
        let verdict = if long {
            translator.translate_the_long_way(worker, 0, offload, &mut packet, &mut out)
        } else {
            translator.translate(worker, 0, offload, &mut packet, &mut out)
        };
        (verdict, frames, worker.counters().snapshot())
    };
    let result = go(false);
    assert_eq!(result, go(true), "the two ways differ");
    assert_eq!(go(false), go(true), "the two ways differ at the second packet");
    (result.0, result.1)
}

fn set_version(packet: &mut [u8], version: u8) {
    if let Some(first) = packet.first_mut() {
        *first = version << 4 | (*first & 15);
    }
}

fn fix_header(packet: &mut [u8]) {
    let end = packet.first().map_or(0, |octet| usize::from(octet & 15) * 4);
    if end >= 20 && packet.len() >= end {
        packet[10..12].fill(0);
        let sum = internet_checksum(&packet[..end]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

fn check_lengths(packet: &[u8]) {
    let word = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    match packet[0] >> 4 {
        4 => {
            assert_eq!(packet[0], 0x45);
            assert_eq!(word(2), packet.len());
            assert_eq!(internet_checksum(&packet[..20]), 0);
        }
        6 => assert_eq!(word(4) + 40, packet.len()),
        version => panic!("version {version}"),
    }
}

/// Whether the transport checksum is right; `None` if there is none, or the packet is a fragment or has extension
/// headers.
fn checksum(packet: &[u8]) -> Option<bool> {
    let version = packet.first()? >> 4;
    let (mut covered, protocol, rest) = match version {
        4 => {
            let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
            let rest = packet.get(usize::from(packet[0] & 15) * 4..total)?;
            if packet.get(6)? & 0x3f != 0 || *packet.get(7)? != 0 {
                return None;
            }
            (packet.get(12..20)?.to_vec(), *packet.get(9)?, rest)
        }
        6 => {
            let total = 40 + usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]));
            (packet.get(8..40)?.to_vec(), *packet.get(6)?, packet.get(40..total)?)
        }
        _ => return None,
    };
    let at = match (version, protocol) {
        // Each ICMP has its own version of IP. What the other one carries is data like any other (RFC 7915 section 4.1).
        (4, 1) | (6, 58) => 2,
        (_, 6) => 16,
        (_, 17) => 6,
        _ => return None,
    };
    if rest.len() < 8 || protocol == 17 && rest[6..8] == [0, 0] {
        return None;
    }
    rest.get(at..at + 2)?;
    covered.extend((rest.len() as u32).to_be_bytes());
    covered.extend([0, 0, 0, protocol]);
    if protocol == 1 {
        covered.clear();
    }
    covered.extend(rest);
    Some(internet_checksum(&covered) == 0)
}
