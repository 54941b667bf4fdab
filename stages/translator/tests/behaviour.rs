//! What a single packet does not show: limits, counters, frames, warnings, offline runs.

#![allow(clippy::unwrap_used)]

mod support;

use clatd_translator::{
    Config, ConfigError, Direction, DropEvent, DropReason, EamTable, Flow, Frame, HEADROOM, IcmpErrors, Kind, Offload,
    Output, PacketBuf, Protocol, Translator, Verdict, offline, pcap,
};
use support::{build, run, run_with, vector};

fn clat() -> Config {
    vector::config("clat")
}

const OUT: &str = "ip4 192.0.0.1 > 198.51.100.7 | udp 1 > 2 | data 16";
const EXPIRED: &str = "ip4 192.0.0.1 > 198.51.100.7 ttl=1 | udp 1 > 2 | data 16";

#[test]
fn errors_are_rate_limited() {
    let config = Config {
        icmp_errors: IcmpErrors::Limited {
            per_second: 10,
            burst: 5,
        },
        ..clat()
    };
    let translator = Translator::new(config).unwrap();
    let mut worker = translator.worker(0);
    let packet = build::packet(EXPIRED);
    let answered = (0..20).filter(|_| {
        let (verdict, got) = run_with(&translator, &mut worker, Offload::NONE, &packet);
        assert_eq!(
            verdict,
            Verdict::Dropped {
                reason: DropReason::HopLimit,
                answered: !got.is_empty()
            }
        );
        !got.is_empty()
    });
    assert_eq!(answered.count(), 5);
    let counters = worker.counters().snapshot();
    assert_eq!(counters.drops(Direction::V4ToV6, DropReason::HopLimit), 20);
    assert_eq!((counters.answers[0], counters.suppressed[0]), (5, 15));
}

#[test]
fn counters_tell_direction_and_protocol() {
    let translator = Translator::new(clat()).unwrap();
    let mut worker = translator.worker(0);
    for spec in [
        OUT,
        "ip4 192.0.0.1 > 198.51.100.7 | tcp 1 > 2",
        "ip4 192.0.0.1 > 198.51.100.7 | icmp4 type=8",
        "ip4 192.0.0.1 > 198.51.100.7 proto=50 | data 9",
        "ip4 10.0.0.1 > 198.51.100.7 | tcp 1 > 2",
        "ip6 64:ff9b::c633:6407 > 2001:db8::464 | udp 1 > 2",
        "ip6 64:ff9b::c633:6407 > 2001:db8::465 | udp 1 > 2",
        "ip4 192.0.0.1 > 198.51.100.7 | udp 1 > 2 | data 3000",
    ] {
        run_with(&translator, &mut worker, Offload::NONE, &build::packet(spec));
    }
    let mut counters = worker.counters().snapshot();
    assert_eq!(counters.translated, [[1, 2, 1, 1], [0, 1, 0, 0]]);
    assert_eq!(counters.packets(Direction::V4ToV6), 5);
    assert_eq!(counters.bytes, [44 + 40 + 28 + 29 + 3028, 48]);
    assert_eq!(counters.fragments, [3, 0]);
    let drops: Vec<_> = counters.drops_by_reason(Direction::V6ToV4).collect();
    assert_eq!(drops, [(DropReason::UnmappedDestination, 1)]);
    counters += counters;
    assert_eq!(counters.translated[0][Protocol::Udp as usize], 4);
}

#[test]
fn drop_reasons_have_unique_names() {
    let mut names: Vec<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), DropReason::ALL.len());
}

#[test]
fn a_device_header_goes_in_front_of_every_frame() {
    let translator = Translator::new(clat()).unwrap();
    for spec in [OUT, EXPIRED, "ip4 192.0.0.1 > 198.51.100.7 | udp 1 > 2 | data 3000"] {
        let packet = build::packet(spec);
        let mut buffer = vec![0; HEADROOM + packet.len()];
        buffer[HEADROOM..].copy_from_slice(&packet);
        let mut packet = PacketBuf::new(&mut buffer, HEADROOM, packet.len()).unwrap();
        let mut places = Vec::new();
        translator.translate(
            &mut translator.worker(0),
            0,
            Offload::NONE,
            &mut packet,
            &mut |_: Kind, _: &Offload, mut frame: Frame<'_>| {
                let bytes = frame.bytes().to_vec();
                let whole = frame.with_header(&[7; 12]).unwrap();
                assert_eq!((&whole[..12], &whole[12..]), (&[7; 12][..], &bytes[..]));
                assert!(frame.with_header(&[7; 17]).is_none());
                places.push((frame.in_place(), bytes));
            },
        );
        for (place, bytes) in places {
            assert_eq!(place.is_some(), spec == OUT);
            if let Some(range) = place {
                assert_eq!(buffer[range], bytes);
            }
        }
    }
}

#[test]
fn without_headroom_a_packet_is_dropped() {
    let translator = Translator::new(clat()).unwrap();
    let mut bytes = build::packet(OUT);
    let length = bytes.len();
    let mut packet = PacketBuf::new(&mut bytes, 0, length).unwrap();
    let verdict = translator.translate(
        &mut translator.worker(0),
        0,
        Offload::NONE,
        &mut packet,
        &mut |_: Kind, _: &Offload, _: Frame<'_>| panic!("nothing can come out"),
    );
    assert_eq!(
        verdict,
        Verdict::Dropped {
            reason: DropReason::NoRoom,
            answered: false
        }
    );
    assert!(PacketBuf::new(&mut bytes, 1, length).is_none());
    assert!(PacketBuf::new(&mut bytes, usize::MAX, 2).is_none());
}

#[test]
fn bad_configurations_are_refused() {
    let error = |config: Config| Translator::new(config).unwrap_err().to_string();
    assert_eq!(Translator::new(Config::default()).unwrap_err(), ConfigError::NoMapping);
    let prefix_only = Config {
        pref64: clat().pref64,
        ..Config::default()
    };
    // Everything is dropped then, counted, as unmapped-source=drop says.
    assert!(Translator::new(prefix_only).is_ok());
    assert_eq!(error(Config { mtu6: 1279, ..clat() }), "IPv6 MTU 1279 is below 1280");
    assert_eq!(error(Config { mtu4: 67, ..clat() }), "IPv4 MTU 67 is below 68");
    assert_eq!(
        error(Config {
            lowest_ipv6_mtu: 0,
            ..clat()
        }),
        "lowest-ipv6-mtu 0 is below 1280"
    );
    let twice = clat().with_clat("192.0.0.1".parse().unwrap(), "2001:db8::5".parse().unwrap());
    assert_eq!(
        error(twice),
        "map 192.0.0.1/32 2001:db8::5/128: 192.0.0.1/32 is already mapped to 2001:db8::464/128"
    );
    let mut wide = clat();
    wide.maps
        .push(("10.0.0.0/24".parse().unwrap(), "2001:db8::/126".parse().unwrap()));
    assert_eq!(
        error(wide),
        "map 10.0.0.0/24 2001:db8::/126: the IPv4 prefix leaves 8 suffix bits but the IPv6 prefix only 2 (RFC 7757 section 3.2)"
    );
    let nested = vector::config("siit map=1.0.0.7/32,2001:db8:9::7/128");
    assert_eq!(Translator::new(nested).unwrap().warnings().len(), 1);
}

#[test]
fn identification_is_seeded_and_counts_on() {
    let translator = Translator::new(Config {
        identification_seed: 0xffff,
        ..clat()
    })
    .unwrap();
    let mut worker = translator.worker(0);
    let packet = build::packet("ip6 64:ff9b::c633:6407 > 2001:db8::464 | tcp 1 > 2 | data 3000");
    let mut id = |offload| {
        let (_, got) = run_with(&translator, &mut worker, offload, &packet);
        u16::from_be_bytes([got[0].bytes[4], got[0].bytes[5]])
    };
    let gso = Offload {
        gso_type: Offload::GSO_TCPV6,
        gso_size: 1000,
        hdr_len: 60,
        ..Offload::NONE
    };
    assert_eq!([id(gso), id(gso), id(gso)], [0xffff, 2, 5]);
}

fn identification(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[4], packet[5]])
}

#[test]
fn workers_do_not_repeat_each_others_identifications() {
    let translator = Translator::new(clat()).unwrap();
    let packet = build::packet("ip6 64:ff9b::c633:6407 > 2001:db8::464 | tcp 1 > 2 | data 3");
    let mut seen = std::collections::BTreeSet::new();
    for index in 0..8 {
        let mut worker = translator.worker(index);
        for _ in 0..1000 {
            let (_, got) = run_with(&translator, &mut worker, Offload::NONE, &packet);
            assert!(seen.insert(identification(&got[0].bytes)), "worker {index}");
        }
    }
}

#[test]
fn an_answer_takes_an_identification() {
    let translator = Translator::new(clat()).unwrap();
    let mut worker = translator.worker(0);
    let mut next = |spec: &str| {
        let (_, got) = run_with(&translator, &mut worker, Offload::NONE, &build::packet(spec));
        identification(&got[0].bytes)
    };
    let translated = "ip6 64:ff9b::c633:6407 > 2001:db8::464 | tcp 1 > 2 | data 3";
    let ping = "ip4 192.0.0.1 > 192.0.0.2 | icmp4 type=8 id=1 seq=2 | data 8";
    let first = next(translated);
    for (n, spec) in [EXPIRED, ping, EXPIRED, translated].into_iter().enumerate() {
        assert_eq!(next(spec), first + 1 + n as u16, "{spec}");
    }
}

/// What an output hears of dropped packets.
#[derive(Default)]
struct Heard {
    events: Vec<(Direction, DropReason, String)>,
    packets: usize,
}

impl Output for Heard {
    fn packet(&mut self, _: Kind, _: &Offload, _: Frame<'_>) {
        self.packets += 1;
    }

    fn dropped(&mut self, event: DropEvent<'_>) {
        assert_eq!(self.packets, 0, "before the answer");
        let flow = event.flow().map_or("-".into(), |flow| flow.to_string());
        self.events.push((event.direction, event.reason, flow));
    }
}

#[test]
fn each_dropped_packet_is_an_event_with_addresses_and_ports() {
    use Direction::{V4ToV6, V6ToV4};
    let translator = Translator::new(vector::config("clat udp-zero=drop")).unwrap();
    for (spec, direction, reason, flow) in [
        (
            "ip4 192.0.0.1 > 198.51.100.7 | udp 5000 > 6000 sum=0 | data 8",
            V4ToV6,
            DropReason::UdpZeroChecksum,
            "192.0.0.1 -> 198.51.100.7 protocol 17 ports 5000 -> 6000",
        ),
        (
            "ip4 192.0.0.1 > 198.51.100.7 mf opts=01 | of [ udp 5000 > 6000 sum=0 | data 100 ] 0..64",
            V4ToV6,
            DropReason::UdpZeroChecksum,
            "192.0.0.1 -> 198.51.100.7 protocol 17 ports 5000 -> 6000",
        ),
        (
            "ip6 64:ff9b::c633:6407 > 2001:db8::464 | frag id=1 | dst | udp 1 > 2",
            V6ToV4,
            DropReason::ExtensionAfterFragment,
            "64:ff9b::c633:6407 -> 2001:db8::464 next header 60",
        ),
        (
            "ip6 2001:db8:5::1 > 2001:db8::464 | hbh | sctp 00010002 11223344 55667788",
            V6ToV4,
            DropReason::UntranslatableSource,
            "2001:db8:5::1 -> 2001:db8::464 next header 132 ports 1 -> 2",
        ),
        (
            "ip4 192.0.0.1 > 198.51.100.7 | icmp4 type=13 code=1 | data 12",
            V4ToV6,
            DropReason::IcmpType,
            "192.0.0.1 -> 198.51.100.7 protocol 1 type 13 code 1",
        ),
        ("hex 7500", V4ToV6, DropReason::NotIp, "-"),
    ] {
        let packet = build::packet(spec);
        let mut buffer = [&[0; HEADROOM], &packet[..]].concat();
        let mut packet = PacketBuf::new(&mut buffer, HEADROOM, packet.len()).unwrap();
        let mut heard = Heard::default();
        translator.translate(&mut translator.worker(0), 0, Offload::NONE, &mut packet, &mut heard);
        assert_eq!(heard.events, [(direction, reason, flow.to_owned())], "{spec}");
    }
}

#[test]
fn a_later_fragment_has_no_ports() {
    let flow = |spec| Flow::read(&build::packet(spec)).unwrap().to_string();
    assert_eq!(
        flow("ip4 1.2.3.4 > 5.6.7.8 off=8 proto=17 | data 8"),
        "1.2.3.4 -> 5.6.7.8 protocol 17"
    );
    assert_eq!(
        flow("ip6 2001:db8::1 > 2001:db8::2 | frag off=8 nh=17 | data 8"),
        "2001:db8::1 -> 2001:db8::2 next header 17"
    );
    assert_eq!(
        flow("ip6 2001:db8::1 > 2001:db8::2 | frag m nh=17 | udp 7 > 8"),
        "2001:db8::1 -> 2001:db8::2 next header 17 ports 7 -> 8"
    );
    assert_eq!(
        flow("ip4 1.2.3.4 > 5.6.7.8 proto=6 | hex 0001"),
        "1.2.3.4 -> 5.6.7.8 protocol 6"
    );
}

#[test]
fn offline_run() {
    let mut input = Vec::new();
    pcap::write_header(&mut input, true);
    let specs = [
        OUT,
        EXPIRED,
        "ip4 10.0.0.1 > 198.51.100.7 | udp 53 > 4000 | data 5",
        "ip6 64:ff9b::c633:6407 > 2001:db8::464 | udp 1 > 2 | data 5",
        "ip6 2001:db8:5::1 > 2001:db8::464 | tcp 80 > 4000",
    ];
    for (n, spec) in specs.iter().enumerate() {
        let data = build::packet(spec);
        pcap::write_record(
            &mut input,
            &pcap::Record {
                seconds: n as u32,
                fraction: 5,
                data: &data,
            },
        );
    }
    let config = Config {
        icmp_errors: IcmpErrors::Limited {
            per_second: 0,
            burst: 0,
        },
        ..clat()
    };
    let translator = Translator::new(config).unwrap();
    let run_once = || {
        let (mut output, mut lines) = (Vec::new(), Vec::new());
        let summary = offline::run(&translator, &input, &mut output, &mut |line| lines.push(line)).unwrap();
        (output, lines, summary)
    };
    let (output, lines, summary) = run_once();
    assert_eq!(
        lines,
        [
            "packet 2: dropped hop-limit (hop limit exceeded): 192.0.0.1 -> 198.51.100.7 protocol 17 ports 1 -> 2; answered",
            "packet 3: dropped unmapped-source (IPv4 source without an explicit mapping): 10.0.0.1 -> 198.51.100.7 protocol 17 ports 53 -> 4000",
            "packet 5: dropped untranslatable-source (source outside of all mappings and the prefix): 2001:db8:5::1 -> 2001:db8::464 next header 6 ports 80 -> 4000; answered",
        ]
    );
    assert_eq!((summary.packets, summary.translated, summary.dropped), (5, 2, 3));
    assert_eq!((summary.answered, summary.written), (2, 4));
    let reader = pcap::Reader::new(&output).unwrap();
    assert!(reader.is_nanoseconds());
    let records: Vec<_> = reader.map(Result::unwrap).collect();
    assert_eq!(
        records.iter().map(|r| (r.seconds, r.data[0] >> 4)).collect::<Vec<_>>(),
        [(0, 6), (1, 4), (3, 4), (4, 6)]
    );
    assert_eq!(run_once(), (output, lines, summary));

    let mut cut = Vec::new();
    let error = offline::run(&translator, &input[..input.len() - 1], &mut cut, &mut |_| {}).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("packet 5 at byte {} is cut off", input.len() - 76)
    );
}

#[test]
fn a_clat_never_sends_as_anybody_else() {
    let translator = Translator::new(clat()).unwrap();
    for last in 0..=255u8 {
        for source in [format!("192.0.0.{last}"), format!("10.0.0.{last}")] {
            let (_, got) = run(
                &translator,
                &build::packet(&format!("ip4 {source} > 9.9.9.9 | udp 1 > 2")),
            );
            assert_eq!(got.len(), usize::from(source == "192.0.0.1"), "{source}");
        }
    }
}

#[test]
fn names_and_sums_of_counters() {
    assert_eq!(Protocol::ALL.map(Protocol::name), ["tcp", "udp", "icmp", "other"]);
    assert_eq!(Direction::ALL.map(Direction::name), ["4to6", "6to4"]);
    let translator = Translator::new(vector::config("eam")).unwrap();
    let mut worker = translator.worker(0);
    let packet = build::packet("ip6 2001:db8:aaaa:: > 64:ff9b::192.0.2.2 | udp 1 > 2 | data 5");
    run_with(&translator, &mut worker, Offload::NONE, &packet);
    let mut sum = worker.counters().snapshot();
    assert_eq!(sum.hairpinned, 1);
    sum += worker.counters().snapshot();
    assert_eq!((sum.hairpinned, sum.packets(Direction::V6ToV4)), (2, 2));
}

#[test]
fn a_device_header_is_read_as_it_is_written() {
    let offload = Offload {
        flags: 1,
        gso_type: 4,
        hdr_len: 0x0203,
        gso_size: 0x0405,
        csum_start: 0x0607,
        csum_offset: 0x0809,
    };
    assert_eq!(Offload::decode(&offload.encode()), offload);
    let two = |at: usize| u16::from_ne_bytes([offload.encode()[at], offload.encode()[at + 1]]);
    assert_eq!([two(2), two(4), two(6), two(8)], [0x0203, 0x0405, 0x0607, 0x0809]);
}

#[test]
fn an_offline_run_answers_nothing_where_errors_are_off() {
    let mut input = Vec::new();
    pcap::write_header(&mut input, false);
    let data = build::packet(EXPIRED);
    let record = pcap::Record {
        seconds: 1,
        fraction: 2,
        data: &data,
    };
    pcap::write_record(&mut input, &record);
    let config = Config {
        icmp_errors: IcmpErrors::Off,
        ..clat()
    };
    let summary = offline::run(&Translator::new(config).unwrap(), &input, &mut Vec::new(), &mut |_| ()).unwrap();
    assert_eq!((summary.dropped, summary.answered, summary.written), (1, 0, 0));
}

#[test]
fn icmp_errors_take_identifications_too() {
    let translator = Translator::new(clat()).unwrap();
    let mut worker = translator.worker(0);
    let packet = build::packet(
        "ip6 64:ff9b::c633:6407 > 2001:db8::464 | icmp6 type=1 code=4 | [ ip6 2001:db8::464 > 64:ff9b::c633:6407 | udp 1 > 2 ]",
    );
    let mut id = || {
        let (_, got) = run_with(&translator, &mut worker, Offload::NONE, &packet);
        identification(&got[0].bytes)
    };
    let first = id();
    assert_eq!([id(), id()], [first + 1, first + 2]);
}

#[test]
fn the_translators_own_address_is_found_by_the_mappings_first() {
    let own = |text| {
        Translator::new(vector::config(text))
            .unwrap()
            .own_v6()
            .unwrap()
            .to_string()
    };
    assert_eq!(own("clat"), "64:ff9b::c000:2");
    assert_eq!(own("clat map=192.0.0.2/32,2001:db8::99/128"), "2001:db8::99");
    assert_eq!(own("clat own6=2001:db8::77"), "2001:db8::77");
}

#[test]
fn a_single_mapping_may_be_wider_in_ipv6() {
    let map = ("192.0.2.1/32".parse().unwrap(), "2001:db8::/64".parse().unwrap());
    let table = EamTable::new(&[map]).unwrap();
    let v4 = "192.0.2.1".parse().unwrap();
    assert_eq!(table.to_v6(v4), Some("2001:db8::".parse().unwrap()));
    assert_eq!(table.to_v4("2001:db8::5".parse().unwrap()), Some(v4));
    assert_eq!(table.to_v4("2001:db8:0:1::".parse().unwrap()), None);
}
