//! Nanoseconds per packet, one thread, all in the cache: the cost of translation without the device.
//!
//! Translation is done in place, so each round also puts the headers of a packet back: of one that was translated
//! some packets ago, as a processor that reads what it has just written would wait for its own store buffer.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../tests/support/build.rs"]
#[allow(dead_code)]
mod build;

use clatd_translator::{Config, Frame, HEADROOM, Kind, Offload, PacketBuf, Translator};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};

/// For `build`.
fn sum16(bytes: &[u8]) -> u16 {
    !clatd_translator::internet_checksum(bytes)
}

/// Octets that translation changes: the headers, and what lies over them afterwards.
const HEADERS: usize = 56;
const BUFFERS: usize = 8;

const GSO4: Offload = Offload {
    flags: Offload::NEEDS_CSUM,
    gso_type: Offload::GSO_TCPV4,
    hdr_len: 40,
    gso_size: 1400,
    csum_start: 20,
    csum_offset: 16,
};
const GSO6: Offload = Offload {
    gso_type: Offload::GSO_TCPV6,
    hdr_len: 60,
    csum_start: 40,
    ..GSO4
};

fn translator(prefix: &str, maps: impl IntoIterator<Item = (Ipv4Addr, Ipv6Addr)>) -> Translator {
    Translator::new(Config {
        pref64: Some(prefix.parse().unwrap()),
        maps: maps.into_iter().map(|(v4, v6)| (v4.into(), v6.into())).collect(),
        ..Config::default()
    })
    .unwrap()
}

fn packets(criterion: &mut Criterion) {
    let clat = translator(
        "64:ff9b::/96",
        [("192.0.0.1".parse().unwrap(), "2001:db8::464".parse().unwrap())],
    );
    // An edge relay with many services (RFC 7756), behind a prefix that is not the simplest.
    let services = (0..256u32).map(|n| {
        (
            Ipv4Addr::from(0xc000_0000 + n),
            Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(n)),
        )
    });
    let siit = translator("2001:db8:100::/40", services);
    let out = "ip4 192.0.0.1 > 198.51.100.7 df";
    let back = "ip6 64:ff9b::c633:6407 > 2001:db8::464";
    let mut group = criterion.benchmark_group("packet");
    for (name, spec, offload) in [
        ("udp64_4to6", format!("{out} | udp 1 > 2 | data 36"), Offload::NONE),
        ("udp64_6to4", format!("{back} | udp 1 > 2 | data 16"), Offload::NONE),
        ("tcp1400_4to6", format!("{out} | tcp 1 > 2 | data 1400"), Offload::NONE),
        ("tcp1400_6to4", format!("{back} | tcp 1 > 2 | data 1400"), Offload::NONE),
        (
            "super_packet_4to6",
            format!("{out} | tcp 1 > 2 sum=partial | data 65000"),
            GSO4,
        ),
        (
            "super_packet_6to4",
            format!("{back} | tcp 1 > 2 sum=partial | data 65000"),
            GSO6,
        ),
        (
            "echo_4to6",
            format!("{out} | icmp4 type=8 id=1 seq=1 | data 56"),
            Offload::NONE,
        ),
        (
            "echo_6to4",
            format!("{back} | icmp6 type=129 id=1 seq=1 | data 56"),
            Offload::NONE,
        ),
        ("siit_udp64_4to6", format!("{out} | udp 1 > 2 | data 36"), Offload::NONE),
        (
            "siit_udp64_6to4",
            "ip6 2001:db8:1c6:3364:7:: > 2001:db8::1 | udp 1 > 2 | data 16".to_owned(),
            Offload::NONE,
        ),
        (
            "udp_zero_1400_4to6",
            format!("{out} | udp 1 > 2 sum=0 | data 1400"),
            Offload::NONE,
        ),
        (
            "icmp_error_4to6",
            format!("{out} | icmp4 type=3 code=3 | [ ip4 198.51.100.7 > 192.0.0.1 | udp 1 > 2 | data 64 ]"),
            Offload::NONE,
        ),
        (
            "icmp_error_6to4",
            "ip6 2001:db8:5::1 > 2001:db8::464 | icmp6 type=3 \
             | [ ip6 2001:db8::464 > 64:ff9b::c633:6407 | udp 1 > 2 | data 64 ]"
                .to_owned(),
            Offload::NONE,
        ),
        (
            "fragments_3000_4to6",
            "ip4 192.0.0.1 > 198.51.100.7 | udp 1 > 2 | data 3000".to_owned(),
            Offload::NONE,
        ),
    ] {
        let packet = build::packet(&spec);
        let headers: &[u8; HEADERS] = packet.first_chunk().unwrap();
        let mut buffers: [Vec<u8>; BUFFERS] = std::array::from_fn(|_| [&[0; HEADROOM][..], &packet].concat());
        let mut at = 0;
        let translator = if name.starts_with("siit") { &siit } else { &clat };
        let mut worker = translator.worker(0);
        let mut octets = 0usize;
        group.throughput(Throughput::Elements(1));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                at = (at + 1) % BUFFERS;
                let old = &mut buffers[(at + BUFFERS / 2) % BUFFERS];
                *old[HEADROOM..].first_chunk_mut().unwrap() = *headers;
                let mut packet = PacketBuf::new(black_box(&mut buffers[at]), HEADROOM, packet.len()).unwrap();
                translator.translate(
                    &mut worker,
                    0,
                    offload,
                    &mut packet,
                    &mut |_: Kind, offload: &Offload, frame: Frame<'_>| {
                        octets += frame.bytes().len() + usize::from(offload.hdr_len);
                    },
                )
            });
            assert!(octets > 0, "{name}");
        });
    }
    group.finish();
}

criterion_group!(benches, packets);
criterion_main!(benches);
