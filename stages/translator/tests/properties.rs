//! Properties that hold for all packets: there and back again, checksums by full recomputation, no panic.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use clatd_translator::{Config, IcmpErrors, Offload, Pref64, Translator, UdpZeroChecksum, UnmappedSource, Verdict};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, Ipv6Addr};
use support::{Got, assert_sound, build, run, run_with};

/// Runs `cases` cases, or as many as PROPTEST_CASES says, and tells the seed: with it in PROPTEST_RNG_SEED a run is
/// repeated.
fn config(cases: u32) -> ProptestConfig {
    let mut config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => std::hash::RandomState::new().build_hasher().finish(),
    };
    println!("PROPTEST_RNG_SEED={seed} repeats this run");
    config.rng_seed = RngSeed::Fixed(seed);
    config
}

/// Addresses that are forwarded.
fn v4() -> impl Strategy<Value = Ipv4Addr> {
    any::<u32>().prop_map(Ipv4Addr::from).prop_filter("not forwarded", |a| {
        let o = a.octets();
        !(o[0] == 0 || o[0] == 127 || o[0] >= 224 || a.is_link_local())
    })
}

fn pref64() -> impl Strategy<Value = Pref64> {
    (any::<u128>(), prop::sample::select(&Pref64::LENGTHS[..])).prop_map(|(bits, length)| {
        let bits = (bits | 1 << 125) & !(0xc0 << 120) & !(0xff << 56); // 2000::/3, "u" zero
        Pref64::new(Ipv6Addr::from(bits & !(u128::MAX >> length)), length).unwrap()
    })
}

fn translator(prefix: Pref64) -> Translator {
    Translator::new(Config {
        pref64: Some(prefix),
        unmapped_source: UnmappedSource::Prefix,
        udp_zero_checksum: UdpZeroChecksum::Pass,
        mtu4: 65535,
        mtu6: 65575,
        lowest_ipv6_mtu: 65575,
        ..Config::default()
    })
    .unwrap()
}

/// The notation of a transport packet.
fn transport(icmp: &'static str, echo: [u8; 2]) -> impl Strategy<Value = String> {
    let data = 0..1300usize;
    let layer = prop_oneof![
        (any::<u16>(), any::<u16>()).prop_map(|(a, b)| format!("tcp {a} > {b}")),
        (any::<u16>(), any::<u16>()).prop_map(|(a, b)| format!("udp {a} > {b}")),
        (any::<u16>(), any::<u16>()).prop_map(|(a, b)| format!("udplite {a} > {b}")),
        (any::<u16>(), any::<u16>()).prop_map(|(a, b)| format!("dccp {a} > {b}")),
        (any::<u16>(), any::<u16>(), prop::sample::select(echo.to_vec()))
            .prop_map(move |(a, b, t)| format!("{icmp} type={t} id={a} seq={b}")),
        Just("sctp 00010002 11223344 55667788".to_owned()),
    ];
    (layer, data, 0..1000usize).prop_map(|(layer, n, from)| format!("{layer} | data {n}@{from}"))
}

/// Where the checksum field of a transport header lies.
fn checksum_at(protocol: u8) -> Option<usize> {
    match protocol {
        6 => Some(16),
        17 | 33 | 136 => Some(6),
        1 | 58 => Some(2),
        _ => None,
    }
}

/// Changes the last word of the data so that the checksum of an unfragmented packet comes to `wanted`, if it has one
/// and data enough: random packets meet the edges once in 65536 times.
fn with_sum(mut packet: Vec<u8>, wanted: Option<u16>) -> Vec<u8> {
    let Some(wanted) = wanted else { return packet };
    let Some((at, protocol, mut covered)) = support::transport(&packet) else {
        return packet;
    };
    let Some(field) = checksum_at(protocol).map(|field| at + field) else {
        return packet;
    };
    let word = at + (packet.len() - at) / 2 * 2 - 2;
    if word < at + 20 {
        return packet;
    }
    // The two zeros mean the same sum; each protocol sends one of them only.
    let wanted = match (protocol, wanted) {
        (17 | 136, 0) => 0xffff,
        (1 | 6 | 33 | 58, 0xffff) => 0,
        (_, wanted) => wanted,
    };
    packet[word..word + 2].fill(0);
    packet[field..field + 2].copy_from_slice(&wanted.to_be_bytes());
    if protocol == 1 {
        covered.clear();
    }
    covered.extend(&packet[at..]);
    // What is missing to ffff.
    let missing = !support::sum16(&covered);
    packet[word..word + 2].copy_from_slice(&missing.to_be_bytes());
    packet
}

/// A checksum at the edge, now and then.
fn edge() -> impl Strategy<Value = Option<u16>> {
    prop::option::weighted(0.2, prop::sample::select(vec![0, 1, 0xfffe, 0xffff]))
}

fn one(got: Vec<Got>) -> Vec<u8> {
    assert_eq!(got.len(), 1);
    got.into_iter().next().unwrap().bytes
}

proptest! {
    #![proptest_config(config(5000))]

    #[test]
    fn prefix_embeds_and_extracts(prefix in pref64(), address in any::<u32>(), noise in any::<u128>()) {
        let address = Ipv4Addr::from(address);
        let embedded = prefix.embed(address);
        prop_assert!(prefix.contains(embedded));
        prop_assert_eq!(prefix.extract(embedded), Some(address));
        prop_assert_eq!(embedded.octets()[8], 0);
        // The suffix does not matter.
        let suffix = [96, 104, 112, 120, 128, 128][Pref64::LENGTHS.iter().position(|l| *l == prefix.length()).unwrap()];
        let used = if prefix.length() == 96 { 128 } else { suffix - 24 };
        let mask = u128::MAX.checked_shr(used).unwrap_or(0);
        let noisy = u128::from(embedded) | (noise & mask);
        prop_assert_eq!(prefix.extract(Ipv6Addr::from(noisy)), Some(address));
        prop_assert_eq!(prefix.to_string().parse::<Pref64>().unwrap(), prefix);
    }

    #[test]
    fn there_and_back_from_ipv4(
        prefix in pref64(), source in v4(), destination in v4(), rest in transport("icmp4", [0, 8]),
        ttl in 3u8.., tos in any::<u8>(), fragment in prop::option::of((0..8000usize, any::<bool>(), any::<u16>())),
        edge in edge(),
    ) {
        let translator = translator(prefix);
        let fragment = fragment.filter(|_| !rest.starts_with("icmp"));
        let (flags, id) = match fragment {
            Some((offset, more, id)) if offset > 0 || more => {
                (format!("off={} {} proto=17", offset * 8, if more { "mf" } else { "" }), id)
            }
            _ => (String::new(), 7),
        };
        let spec = format!("ip4 {source} > {destination} ttl={ttl} tos={tos} {flags} id={id} | {rest}");
        let packet = with_sum(build::packet(&spec), edge);
        let (verdict, got) = run(&translator, &packet);
        prop_assume!(verdict == Verdict::Translated);
        let there = one(got);
        assert_sound(&there, "there");
        prop_assert_eq!(Ipv6Addr::from(<[u8; 16]>::try_from(&there[8..24]).unwrap()), prefix.embed(source));
        let (_, got) = run(&translator, &there);
        let mut back = one(got);
        assert_sound(&back, "back");
        let mut packet = packet;
        // What cannot survive: TTL, the identification of whole packets, DF.
        for bytes in [&mut packet, &mut back] {
            bytes[8] = 0;
            bytes[6] &= !0x40;
            bytes[10..12].fill(0);
            if flags.is_empty() {
                bytes[4..6].fill(0);
            }
        }
        prop_assert_eq!(support::hex(&packet), support::hex(&back));
    }

    #[test]
    fn there_and_back_from_ipv6(
        prefix in pref64(), source in v4(), destination in v4(), rest in transport("icmp6", [128, 129]),
        hop in 3u8.., class in any::<u8>(), extension in prop::sample::select(vec!["", "| hbh ", "| dst units=3 ", "| rt | dst "]),
        edge in edge(),
    ) {
        let translator = translator(prefix);
        let (source, destination) = (prefix.embed(source), prefix.embed(destination));
        let bare = with_sum(build::packet(&format!("ip6 {source} > {destination} hop={hop} tc={class} | {rest}")), edge);
        let packet = build::packet(&format!("ip6 {source} > {destination} hop={hop} tc={class} {extension}| {rest}"));
        let packet = [&packet[..packet.len() - (bare.len() - 40)], &bare[40..]].concat();
        let there = one(run(&translator, &packet).1);
        assert_sound(&there, "there");
        let mut back = one(run(&translator, &there).1);
        assert_sound(&back, "back");
        back[7] = hop;
        prop_assert_eq!(support::hex(&bare), support::hex(&back));
    }

    #[test]
    fn fragments_put_together_are_the_whole(
        size in 1300usize..9000, lowest in 1280u32..4000, mtu4 in 68u32..1260, v6 in any::<bool>(),
    ) {
        let config = |fragment: bool| Config {
            pref64: Some("2001:db8:100::/40".parse().unwrap()),
            unmapped_source: UnmappedSource::Prefix,
            mtu4: if fragment { mtu4 } else { 65535 },
            mtu6: 65575,
            lowest_ipv6_mtu: if fragment { lowest } else { 65575 },
            ..Config::default()
        };
        let (cut, whole) = (Translator::new(config(true)).unwrap(), Translator::new(config(false)).unwrap());
        let packet = if v6 {
            build::packet(&format!("ip6 2001:db8:1c6:3364:2:: > 2001:db8:1c0:2:21:: | udp 1 > 2 | data {}", size % 1233))
        } else {
            build::packet(&format!("ip4 198.51.100.2 > 192.0.2.33 | udp 1 > 2 | data {size}"))
        };
        let (header, limit) = if v6 { (20, mtu4 as usize) } else { (48, lowest as usize) };
        let expected = one(run(&whole, &packet).1);
        let (_, got) = run(&cut, &packet);
        if let [piece] = &got[..] {
            let limit = if v6 { mtu4 } else { lowest };
            prop_assert!(piece.bytes.len() <= limit as usize);
            prop_assert_eq!(&piece.bytes[if v6 { 20 } else { 40 }..], &expected[if v6 { 20 } else { 40 }..]);
            return Ok(());
        }
        let mut joined = Vec::<u8>::new();
        for (n, piece) in got.iter().enumerate() {
            prop_assert!(piece.bytes.len() <= limit);
            let field = if v6 { 6 } else { 42 };
            let value = u16::from_be_bytes([piece.bytes[field], piece.bytes[field + 1]]);
            let (offset, more) = if v6 { (value & 0x1fff, value & 0x2000 != 0) } else { (value >> 3, value & 1 != 0) };
            prop_assert_eq!(usize::from(offset) * 8, joined.len());
            prop_assert_eq!(more, n + 1 < got.len());
            joined.extend(&piece.bytes[header..]);
        }
        prop_assert_eq!(&joined[..], &expected[if v6 { 20 } else { 40 }..]);
    }

    #[test]
    fn damaged_packets_do_no_harm(
        spec in prop::sample::select(vec![
            "ip4 192.0.0.1 > 198.51.100.7 | udp 1 > 2 | data 100",
            "ip4 192.0.0.1 > 198.51.100.7 opts=8307040a000001 mf | tcp 1 > 2 | data 100",
            "ip4 192.0.0.1 > 198.51.100.7 | icmp4 type=3 code=4 mtu=1300 len=32 | [ ip4 198.51.100.7 > 192.0.0.1 | tcp 1 > 2 | data 88 ] | extension mpls",
            "ip6 64:ff9b::c633:6407 > 2001:db8::464 | hbh | rt | dst | frag id=9 m | udp 1 > 2 | data 64",
            "ip6 64:ff9b::c633:6407 > 2001:db8::464 | icmp6 type=1 code=4 len=16 | [ ip6 2001:db8::464 > 64:ff9b::c633:6407 | tcp 1 > 2 | data 68 ] | extension mpls",
            "ip6 2001:db8:5::1 > 2001:db8::464 | icmp6 type=3 | [ ip6 2001:db8::464 > 64:ff9b::c633:6407 | hbh | udp 1 > 2 | data 68 ]",
        ]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        length in prop::option::of(any::<prop::sample::Index>()), fix in any::<bool>(),
        offload in prop::option::of(any::<[u8; 10]>()),
    ) {
        let config = Config { icmp_errors: IcmpErrors::Unlimited, ..support::vector::config("clat") };
        let translator = Translator::new(config).unwrap();
        let mut packet = build::packet(spec);
        for (at, value) in damage {
            let at = at.index(packet.len());
            packet[at] = value;
        }
        if let Some(length) = length {
            packet.truncate(length.index(packet.len()));
        }
        if fix && packet.len() >= 20 && packet[0] >> 4 == 4 {
            packet[10..12].fill(0);
            let end = (usize::from(packet[0] & 15) * 4).min(packet.len());
            let sum = !support::sum16(&packet[..end]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        let offload = offload.map_or(Offload::NONE, |bytes| Offload::decode(&bytes));
        let mut worker = translator.worker(0);
        let (verdict, got) = run_with(&translator, &mut worker, offload, &packet);
        match verdict {
            Verdict::Translated => prop_assert!(!got.is_empty()),
            Verdict::Dropped { answered, .. } => prop_assert_eq!(got.len(), usize::from(answered)),
        }
        for got in got {
            let version = got.bytes[0] >> 4;
            let length = if version == 4 { 0 } else { 40 } + usize::from(u16::from_be_bytes(
                if version == 4 { [got.bytes[2], got.bytes[3]] } else { [got.bytes[4], got.bytes[5]] }));
            prop_assert_eq!(length, got.bytes.len());
        }
    }
}

/// Cuts a TCP super-packet over IPv4 or IPv6 as a device would, identification aside.
fn segments(packet: &[u8], size: usize) -> Vec<Vec<u8>> {
    let v6 = packet[0] >> 4 == 6;
    let headers = if v6 { 60 } else { 40 };
    let payload = &packet[headers..];
    payload
        .chunks(size)
        .enumerate()
        .map(|(n, piece)| {
            let mut segment = [&packet[..headers], piece].concat();
            let at = headers - 20;
            let sequence = u32::from_be_bytes(segment[at + 4..at + 8].try_into().unwrap()) + (n * size) as u32;
            segment[at + 4..at + 8].copy_from_slice(&sequence.to_be_bytes());
            let length = (segment.len() - if v6 { 40 } else { 0 }) as u16;
            let length_at = if v6 { 4 } else { 2 };
            segment[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
            segment[at + 16..at + 18].fill(0);
            if !v6 {
                segment[4..6].fill(0);
                segment[10..12].fill(0);
                let sum = !support::sum16(&segment[..20]);
                segment[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            let (_, _, mut covered) = support::transport(&segment).unwrap();
            covered.extend(&segment[at..]);
            let sum = !support::sum16(&covered);
            segment[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
            segment
        })
        .collect()
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn a_super_packet_cut_afterwards_is_its_segments_translated(
        prefix in pref64(), source in v4(), destination in v4(), v6 in any::<bool>(),
        size in 500usize..9000, length in 1usize..60000,
    ) {
        let translator = translator(prefix);
        let header = if v6 {
            format!("ip6 {} > {}", prefix.embed(source), prefix.embed(destination))
        } else {
            format!("ip4 {source} > {destination} df")
        };
        let packet = build::packet(&format!("{header} | tcp 7 > 9 sum=partial | data {length}"));
        let start = if v6 { 40 } else { 20 };
        let gso_type = if v6 { Offload::GSO_TCPV6 } else { Offload::GSO_TCPV4 };
        let offload = Offload {
            flags: Offload::NEEDS_CSUM, gso_type, hdr_len: start + 20, gso_size: size as u16,
            csum_start: start, csum_offset: 16,
        };
        let whole = one(run_with(&translator, &mut translator.worker(0), offload, &packet).1);
        let after = segments(&whole, size);
        for (before, after) in segments(&packet, size).into_iter().zip(after) {
            let mut before = one(run(&translator, &before).1);
            assert_sound(&before, "before");
            assert_sound(&after, "after");
            let mut after = after;
            if v6 {
                // The last segment may be small enough to go without DF; identifications differ.
                for bytes in [&mut before, &mut after] {
                    bytes[4..8].fill(0);
                    bytes[10..12].fill(0);
                }
            }
            prop_assert_eq!(support::hex(&before), support::hex(&after));
        }
    }
}

#[test]
fn an_incremental_checksum_is_the_full_one_for_every_value() {
    let translator = translator("2001:db8::/96".parse().unwrap());
    let mut worker = translator.worker(0);
    for value in 0..=0xffffu32 {
        let packet = build::packet(&format!("ip4 10.1.2.3 > 10.4.5.6 | udp 1 > 2 | hex {value:04x}"));
        assert_sound(
            &one(run_with(&translator, &mut worker, Offload::NONE, &packet).1),
            "udp",
        );
    }
}
