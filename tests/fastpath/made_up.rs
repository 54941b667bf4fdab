//! Packets made up by chance, near what is plain: most of them are, and the others differ from it in one or two places.

use std::net::{Ipv4Addr, Ipv6Addr};

use clatd_translator::{Config, IcmpErrors, Tos, UnmappedSource, internet_checksum};

use crate::compare::{Pair, Took};

/// The lengths of RFC 6052, a CLAT and a relay with explicit mappings, all rules for sizes and classes of traffic.
pub fn configs() -> Vec<Config> {
    let base = || Config {
        icmp_errors: IcmpErrors::Unlimited,
        ..Config::default()
    };
    let clat = || ("192.0.0.1/32".parse().unwrap(), "2001:db8::464/128".parse().unwrap());
    let mut configs: Vec<Config> = [
        "64:ff9b::/96",
        "2001:db8:64::/96",
        "2001:db8:122:344::/64",
        "2001:db8:122:300::/56",
        "2001:db8:122::/48",
        "2001:db8:100::/40",
        "2001:db9::/32",
    ]
    .iter()
    .map(|prefix| Config {
        pref64: Some(prefix.parse().unwrap()),
        maps: vec![clat()],
        ..base()
    })
    .collect();
    let relay = [
        ("198.51.100.8/32", "2001:db8:aaaa::8/128"),
        ("198.51.100.16/28", "2001:db8:cccc::/124"),
        ("198.51.100.24/29", "2001:db8:cccd::/64"),
        ("203.0.113.0/24", "2001:db8:dddd::/56"),
        ("203.0.113.128/31", "2001:db8:eeee::/127"),
    ];
    configs.push(Config {
        pref64: Some("64:ff9b::/96".parse().unwrap()),
        maps: std::iter::once(clat())
            .chain(relay.iter().map(|(v4, v6)| (v4.parse().unwrap(), v6.parse().unwrap())))
            .collect(),
        unmapped_source: UnmappedSource::Prefix,
        mtu4: 1400,
        ..base()
    });
    for (traffic_class, tos) in [(Tos::Fixed(0), Tos::Fixed(0xb8)), (Tos::Fixed(0x2e), Tos::Copy)] {
        configs.push(Config {
            pref64: Some("64:ff9b::/96".parse().unwrap()),
            maps: vec![clat()],
            traffic_class,
            tos,
            ..base()
        });
    }
    configs.push(Config {
        pref64: Some("64:ff9b::/96".parse().unwrap()),
        maps: vec![clat()],
        wkp_strict: true,
        lowest_ipv6_mtu: 1500,
        mtu6: 1400,
        ..base()
    });
    configs
}

/// A TCP segment and a datagram of 100 octets each way, for the first of the configurations.
pub fn plain() -> [(&'static str, Vec<u8>); 4] {
    let [tcp, udp] = [6, 17].map(|protocol| {
        let chance = &mut Chance(1);
        [true, false].map(|is_v4| transport(chance, protocol, is_v4, 100))
    });
    let v4 = |protocol: u8, payload: &[u8]| {
        let mut packet = vec![
            0x45, 0, 0, 120, 0, 0, 0x40, 0, 64, protocol, 0, 0, 192, 0, 0, 1, 8, 8, 8, 8,
        ];
        packet.extend(payload);
        with_version(packet, 4)
    };
    let v6 = |next: u8, payload: &[u8]| {
        let mut packet = vec![0x60, 0, 0, 0, 0, 100, next, 64];
        packet.extend("64:ff9b::8.8.8.8".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend("2001:db8::464".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend(payload);
        packet
    };
    [
        ("TCP to IPv6", v4(6, &tcp[0])),
        ("TCP to IPv4", v6(6, &tcp[1])),
        ("UDP to IPv6", v4(17, &udp[0])),
        ("UDP to IPv4", v6(17, &udp[1])),
    ]
}

/// Compares `count` packets.
pub fn run(count: u32, seed: u64) {
    let mut pairs: Vec<(Config, Pair)> = configs()
        .into_iter()
        .map(|config| (config.clone(), Pair::new(config).unwrap()))
        .collect();
    let mut chance = Chance(seed | 1);
    let (mut fast, mut left) = (0, 0);
    for number in 0..count {
        let which = chance.below(pairs.len());
        let (config, pair) = &mut pairs[which];
        let packet = packet(&mut chance, config);
        match pair.compare(&packet) {
            Ok(Took::Fast) => fast += 1,
            Ok(Took::Left) => left += 1,
            Ok(Took::NotRun) => {}
            Err(why) => panic!(
                "packet {number} of seed {seed}, configuration {which}:{}\n  {why}",
                crate::support::hex(&packet)
            ),
        }
    }
    println!("{fast} fast, {left} left of {count}");
    assert!(
        fast > count / 4 && left > count / 10,
        "{fast} fast, {left} left of {count}"
    );
}

/// The packet with this IP version, whatever it says, and a right header checksum.
pub fn with_version(mut packet: Vec<u8>, version: u8) -> Vec<u8> {
    if let Some(first) = packet.first_mut() {
        *first = version << 4 | (*first & 15);
    }
    fix_header(&mut packet);
    packet
}

fn fix_header(packet: &mut [u8]) {
    let length = packet.first().map_or(0, |octet| usize::from(octet & 15) * 4);
    if packet.first().is_some_and(|octet| octet >> 4 == 4) && length >= 20 && packet.len() >= length {
        packet[10..12].fill(0);
        let sum = internet_checksum(&packet[..length]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// xorshift64*: the same packets for the same seed, everywhere.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 32) as usize % limit
    }

    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.below(among.len())]
    }
}

/// The offset in units of 8 octets, and whether more fragments follow.
type Fragment = (u16, bool);

fn packet(chance: &mut Chance, config: &Config) -> Vec<u8> {
    let length = match chance.below(4) {
        0 => chance.below(64),
        1 => 1180 + chance.below(330),
        _ => chance.below(1500),
    };
    let protocol = chance.pick(&[6, 6, 17, 17, 1, 132]);
    let is_v4 = chance.once_in(2);
    let ours = ours(chance, config);
    let theirs = Ipv4Addr::from(match chance.below(8) {
        0 => chance.next() as u32,
        1 => u32::from_be_bytes(chance.pick(&[
            [10, 0, 0, 1],
            [192, 0, 0, 1],
            [198, 51, 100, 8],
            [192, 0, 0, 2],
            [127, 0, 0, 1],
        ])),
        _ => 0x0808_0000 | (chance.next() as u32 & 0xffff),
    });
    let fragment = chance.once_in(4).then(|| fragment(chance));
    let (mut packet, mut payload) = if is_v4 {
        let payload = transport(chance, protocol, is_v4, length);
        (
            header4(chance, (ours.0, theirs), protocol, payload.len(), fragment),
            payload,
        )
    } else {
        let next = if protocol == 1 { 58 } else { protocol };
        let payload = transport(chance, protocol, is_v4, length);
        let (next, payload) = with_fragment_header(chance, next, payload, fragment);
        let theirs = config.pref64.unwrap().embed(theirs);
        (header6(chance, (theirs, ours.1), next, payload.len()), payload)
    };
    packet.append(&mut payload);
    if chance.once_in(4) {
        spoil(chance, &mut packet);
    }
    if !chance.once_in(50) {
        fix_header(&mut packet);
    }
    packet
}

fn header4(
    chance: &mut Chance,
    (source, destination): (Ipv4Addr, Ipv4Addr),
    protocol: u8,
    payload: usize,
    fragment: Option<Fragment>,
) -> Vec<u8> {
    let (offset, more) = fragment.unwrap_or_default();
    let field = offset | u16::from(more) << 13 | chance.pick(&[0x4000, 0x4000, 0]);
    let mut header = vec![0x45, chance.next() as u8];
    header.extend((20 + payload as u16).to_be_bytes());
    header.extend((chance.next() as u16).to_be_bytes());
    header.extend(field.to_be_bytes());
    header.extend([chance.pick(&[64, 64, 255, 2, 1]), protocol, 0, 0]);
    header.extend(source.octets());
    header.extend(destination.octets());
    header
}

fn header6(chance: &mut Chance, (source, destination): (Ipv6Addr, Ipv6Addr), next: u8, payload: usize) -> Vec<u8> {
    let first = 6u32 << 28 | (chance.next() as u32 & 0x0fff_ffff);
    let mut header = first.to_be_bytes().to_vec();
    header.extend((payload as u16).to_be_bytes());
    header.extend([next, chance.pick(&[64, 64, 255, 2, 1])]);
    header.extend(source.octets());
    header.extend(destination.octets());
    header
}

/// The Next Header value, and what is behind the header of IPv6.
fn with_fragment_header(
    chance: &mut Chance,
    next: u8,
    mut payload: Vec<u8>,
    fragment: Option<Fragment>,
) -> (u8, Vec<u8>) {
    let Some((offset, more)) = fragment else {
        return (next, payload);
    };
    let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
    let [a, b, c, d] = (chance.next() as u32).to_be_bytes();
    payload.splice(0..0, [next, 0, high, low, a, b, c, d]);
    (44, payload)
}

/// Offset 0 and no more of them: IPv6 has a Fragment Header before a whole packet, too (RFC 6946).
fn fragment(chance: &mut Chance) -> Fragment {
    let offset = match chance.below(4) {
        0 => 0,
        1 => 0x1fff - chance.below(200) as u16,
        _ => chance.below(0x2000) as u16,
    };
    (offset, chance.once_in(2))
}

/// One pair of addresses that a mapping of ours covers.
fn ours(chance: &mut Chance, config: &Config) -> (Ipv4Addr, Ipv6Addr) {
    let (v4, v6) = config.maps[chance.below(config.maps.len())];
    let random = u128::from(chance.next()) << 64 | u128::from(chance.next());
    (
        Ipv4Addr::from(u32::from(v4.addr()) | chance.next() as u32 & u32::from(v4.hostmask())),
        Ipv6Addr::from(u128::from(v6.addr()) | random & u128::from(v6.hostmask())),
    )
}

/// Any checksum will do: both must bring it up to date in the same way.
fn transport(chance: &mut Chance, protocol: u8, is_v4: bool, length: usize) -> Vec<u8> {
    let least = match protocol {
        6 => 20,
        _ => 8,
    };
    let mut bytes: Vec<u8> = (0..length.max(least)).map(|_| chance.next() as u8).collect();
    let all = (bytes.len() as u16).to_be_bytes();
    let checksum = chance.pick(&[0, 1, 0xffff, 0xfffe, 2, 3, 4]);
    let checksum: u16 = if checksum > 1 && checksum < 5 {
        chance.next() as u16
    } else {
        checksum
    };
    match protocol {
        6 => bytes[12] = 0x50,
        17 => {
            bytes[4..6].copy_from_slice(&all);
            bytes[6..8].copy_from_slice(&checksum.to_be_bytes());
        }
        1 => {
            bytes[0] = if is_v4 {
                chance.pick(&[8, 0, 8, 0, 3, 13])
            } else {
                chance.pick(&[128, 129, 128, 129, 1, 2, 135])
            };
            bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
        }
        _ => {}
    }
    bytes
}

/// Changes a few octets, mostly of the headers, or the length.
fn spoil(chance: &mut Chance, packet: &mut Vec<u8>) {
    match chance.below(6) {
        0 => packet.truncate(chance.below(packet.len()).max(1)),
        1 => packet.extend(vec![0; chance.below(20)]),
        _ => {
            for _ in 0..=chance.below(2) {
                let at = chance.below(packet.len().min(48));
                // The version stays, or no program is for it.
                if at > 0 {
                    packet[at] = chance.next() as u8;
                }
            }
        }
    }
}
