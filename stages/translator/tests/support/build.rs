//! Packets from a short notation: layers from the outside in, separated by `|`.
//!
//! ```text
//! ip4 192.0.0.1 > 198.51.100.7 ttl=64 df | udp 1000 > 53 | data 16
//! ip6 A > B hop=64 | frag id=7 m | of [ udp 1 > 2 | data 100 ] 0..64
//! ip4 A > B | icmp4 type=3 code=3 | [ ip4 B > A | udp 1 > 2 | data 9 ] cut=28 pad=128 | extension mpls
//! ```
//!
//! `key=value` sets a field that is otherwise sensible: lengths, checksums and next headers fit. `[ ]` is a packet in
//! error (`cut` to, `pad`ded to so many bytes), `of [ ] a..b` a piece of a transport packet with the checksum of the
//! whole. `sum=bad`, `sum=0`, `sum=partial`, `sum=HEX` choose other checksums. Numbers may be hexadecimal (`0x`).

use super::sum16;
use std::net::{Ipv4Addr, Ipv6Addr};

pub fn packet(spec: &str) -> Vec<u8> {
    layers(&split(spec), None)
}

/// What a transport checksum needs to know of the layers around it.
#[derive(Clone)]
struct Pseudo {
    addresses: Vec<u8>,
}

fn split(spec: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for c in spec.chars() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            '|' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(c);
    }
    assert_eq!(depth, 0, "brackets in {spec}");
    parts.into_iter().map(|part| part.trim().to_owned()).collect()
}

fn layers(parts: &[String], mut pseudo: Option<Pseudo>) -> Vec<u8> {
    let Some((part, inner)) = parts.split_first() else {
        return Vec::new();
    };
    let layer = Layer::parse(part);
    if matches!(layer.name.as_str(), "ip4" | "ip6") {
        pseudo = Some(layer.pseudo());
    }
    let next = inner.first().map_or(59, |part| protocol(part));
    let payload = layers(inner, pseudo.clone());
    layer.build(&payload, next, pseudo.as_ref())
}

fn protocol(part: &str) -> u8 {
    let name = part.split_whitespace().next().unwrap_or_default();
    match name {
        "hbh" => 0,
        "icmp4" => 1,
        "igmp" => 2,
        "ip4" => 4,
        "tcp" => 6,
        "udp" => 17,
        "dccp" => 33,
        "ip6" => 41,
        "rt" => 43,
        "frag" => 44,
        "esp" => 50,
        "ah" => 51,
        "icmp6" => 58,
        "dst" => 60,
        "sctp" => 132,
        "mh" => 135,
        "udplite" => 136,
        "of" => protocol(bracket(part).0.trim()),
        _ => 59,
    }
}

/// What is between the brackets, and what follows.
fn bracket(part: &str) -> (&str, &str) {
    let (open, close) = (part.find('[').unwrap(), part.rfind(']').unwrap());
    (&part[open + 1..close], &part[close + 1..])
}

struct Layer {
    name: String,
    inside: String,
    words: Vec<String>,
}

impl Layer {
    fn parse(part: &str) -> Self {
        let (head, inside, tail) = match part.find('[') {
            Some(open) => (&part[..open], bracket(part).0, bracket(part).1),
            None => (part, "", ""),
        };
        let mut words = head
            .split_whitespace()
            .chain(tail.split_whitespace())
            .map(str::to_owned);
        let name = if head.trim().is_empty() {
            "inner".to_owned()
        } else {
            words.next().unwrap_or_default()
        };
        let words = words.collect();
        Self {
            name,
            inside: inside.to_owned(),
            words,
        }
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.words
            .iter()
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.text(key).map(number)
    }

    fn flag(&self, key: &str) -> bool {
        self.words.iter().any(|word| word == key)
    }

    fn word(&self, at: usize) -> &str {
        self.words
            .get(at)
            .map_or_else(|| panic!("{}: word {at} missing", self.name), String::as_str)
    }

    fn pseudo(&self) -> Pseudo {
        let addresses = if self.name == "ip4" {
            let [a, b] = [0, 2].map(|at| self.word(at).parse::<Ipv4Addr>().unwrap().octets());
            [a, b].concat()
        } else {
            let [a, b] = [0, 2].map(|at| self.word(at).parse::<Ipv6Addr>().unwrap().octets());
            [a, b].concat()
        };
        Pseudo { addresses }
    }

    fn build(&self, payload: &[u8], next: u8, pseudo: Option<&Pseudo>) -> Vec<u8> {
        match self.name.as_str() {
            "ip4" => self.ip4(payload, next),
            "ip6" => self.ip6(payload, next),
            "frag" => {
                let field = self.number("off").unwrap_or(0) as u16 | u16::from(self.flag("m"));
                let mut out = vec![self.number("nh").unwrap_or(u64::from(next)) as u8, 0];
                out.extend(field.to_be_bytes());
                out.extend((self.number("id").unwrap_or(0) as u32).to_be_bytes());
                [out, payload.to_vec()].concat()
            }
            "hbh" | "dst" | "rt" | "mh" => {
                let units = self.number("units").unwrap_or(1) as usize;
                let mut out = vec![0; units * 8];
                out[0] = self.number("nh").unwrap_or(u64::from(next)) as u8;
                out[1] = self.number("hlen").unwrap_or(units as u64 - 1) as u8;
                if self.name == "rt" {
                    out[3] = self.number("left").unwrap_or(0) as u8;
                } else {
                    out[2] = 1; // PadN
                    out[3] = (units * 8 - 4).min(255) as u8;
                }
                [out, payload.to_vec()].concat()
            }
            "tcp" => {
                let mut out = self.ports();
                out.extend(hex_bytes("11223344 55667788"));
                out.extend([
                    (self.number("doff").unwrap_or(5) as u8) << 4,
                    0x18,
                    0x72,
                    0x10,
                    0,
                    0,
                    0,
                    0,
                ]);
                self.sum([out, payload.to_vec()].concat(), 16, 6, pseudo)
            }
            "udp" => {
                let mut out = self.ports();
                out.extend((self.number("len").unwrap_or(8 + payload.len() as u64) as u16).to_be_bytes());
                out.extend([0, 0]);
                self.sum([out, payload.to_vec()].concat(), 6, 17, pseudo)
            }
            "udplite" => {
                let mut out = self.ports();
                // Coverage 0: everything.
                out.extend((self.number("cover").unwrap_or(0) as u16).to_be_bytes());
                out.extend([0, 0]);
                self.sum([out, payload.to_vec()].concat(), 6, 136, pseudo)
            }
            "dccp" => {
                let mut out = self.ports();
                out.extend([3, 0, 0, 0, 4, 0, 0, 9]);
                self.sum([out, payload.to_vec()].concat(), 6, 33, pseudo)
            }
            "icmp4" => self.sum(self.icmp(payload, false), 2, 1, None),
            "icmp6" => self.sum(self.icmp(payload, true), 2, 58, pseudo),
            "of" => {
                let whole = layers(&split(&self.inside), pseudo.cloned());
                let (from, to) = self.word(0).split_once("..").unwrap();
                let to = if to.is_empty() {
                    whole.len()
                } else {
                    to.parse().unwrap()
                };
                [whole[from.parse().unwrap()..to].to_vec(), payload.to_vec()].concat()
            }
            "inner" => {
                let mut out = packet(&self.inside);
                out.truncate(self.number("cut").map_or(usize::MAX, |n| n as usize));
                if let Some(length) = self.number("pad") {
                    out.resize(length as usize, 0);
                }
                [out, payload.to_vec()].concat()
            }
            "data" => {
                let (length, from) = self.word(0).split_once('@').unwrap_or((self.word(0), "0"));
                let (length, from) = (number(length) as usize, number(from) as usize);
                [
                    (from..from + length).map(|n| (n * 7 + 3) as u8).collect(),
                    payload.to_vec(),
                ]
                .concat()
            }
            "zero" => [vec![0; number(self.word(0)) as usize], payload.to_vec()].concat(),
            "hex" | "esp" | "ah" | "sctp" | "igmp" => [hex_bytes(&self.words.concat()), payload.to_vec()].concat(),
            "extension" => [self.extension(), payload.to_vec()].concat(),
            other => panic!("no layer is called `{other}`"),
        }
    }

    fn ip4(&self, payload: &[u8], next: u8) -> Vec<u8> {
        let mut options = self.text("opts").map(hex_bytes).unwrap_or_default();
        options.resize(options.len().next_multiple_of(4), 0);
        let header = 20 + options.len();
        let flags = u16::from(self.flag("df")) << 14
            | u16::from(self.flag("mf")) << 13
            | (self.number("off").unwrap_or(0) / 8) as u16;
        let mut out = vec![0x40 | self.number("ihl").unwrap_or(header as u64 / 4) as u8];
        out.push(self.number("tos").unwrap_or(0) as u8);
        out.extend((self.number("len").unwrap_or((header + payload.len()) as u64) as u16).to_be_bytes());
        let id = if self.text("id") == Some("*") {
            0
        } else {
            self.number("id").unwrap_or(0x1234)
        };
        out.extend((id as u16).to_be_bytes());
        out.extend(flags.to_be_bytes());
        out.push(self.number("ttl").unwrap_or(64) as u8);
        out.push(self.number("proto").unwrap_or(u64::from(next)) as u8);
        out.extend([0, 0]);
        out.extend(self.pseudo().addresses);
        out.extend(options);
        let mut sum = !sum16(&out);
        if self.text("sum") == Some("bad") {
            sum ^= 0x0101;
        }
        out[10..12].copy_from_slice(&sum.to_be_bytes());
        [out, payload.to_vec()].concat()
    }

    fn ip6(&self, payload: &[u8], next: u8) -> Vec<u8> {
        let class = self.number("tc").unwrap_or(0) as u32;
        let mut out = (6 << 28 | class << 20 | self.number("flow").unwrap_or(0) as u32)
            .to_be_bytes()
            .to_vec();
        out.extend((self.number("plen").unwrap_or(payload.len() as u64) as u16).to_be_bytes());
        out.push(self.number("nh").unwrap_or(u64::from(next)) as u8);
        out.push(self.number("hop").unwrap_or(64) as u8);
        out.extend(self.pseudo().addresses);
        [out, payload.to_vec()].concat()
    }

    fn ports(&self) -> Vec<u8> {
        [0, 2].map(|at| (number(self.word(at)) as u16).to_be_bytes()).concat()
    }

    fn icmp(&self, payload: &[u8], v6: bool) -> Vec<u8> {
        let mut out = vec![
            self.number("type").unwrap() as u8,
            self.number("code").unwrap_or(0) as u8,
            0,
            0,
        ];
        let mut rest = self.text("rest").map_or(vec![0; 4], hex_bytes);
        let mut set = |at: usize, value: &[u8]| rest[at..at + value.len()].copy_from_slice(value);
        if let Some(value) = self.number("id") {
            set(0, &(value as u16).to_be_bytes());
        }
        if let Some(value) = self.number("seq") {
            set(2, &(value as u16).to_be_bytes());
        }
        if let Some(value) = self.number("mtu") {
            if v6 {
                set(0, &(value as u32).to_be_bytes())
            } else {
                set(2, &(value as u16).to_be_bytes())
            }
        }
        if let Some(value) = self.number("ptr") {
            if v6 {
                set(0, &(value as u32).to_be_bytes())
            } else {
                set(0, &[value as u8])
            }
        }
        if let Some(value) = self.number("len") {
            set(usize::from(!v6), &[value as u8]);
        }
        out.extend(rest);
        [out, payload.to_vec()].concat()
    }

    /// Fills in the checksum field at `at`.
    fn sum(&self, mut out: Vec<u8>, at: usize, protocol: u8, pseudo: Option<&Pseudo>) -> Vec<u8> {
        let mut covered = Vec::new();
        if let Some(pseudo) = pseudo {
            covered.extend(&pseudo.addresses);
            let length = self.number("pseudolen").unwrap_or(out.len() as u64);
            covered.extend((length as u32).to_be_bytes());
            covered.extend([0, 0, 0, protocol]);
        }
        let partial = sum16(&covered);
        let cover = self.number("cover").filter(|cover| *cover > 0);
        covered.extend(&out[..cover.map_or(out.len(), |cover| cover as usize)]);
        let mut value = !sum16(&covered);
        if matches!(protocol, 17 | 136) && value == 0 {
            value = 0xffff;
        }
        let value = match self.text("sum") {
            None => value,
            // Off by a fixed amount, which translation keeps.
            Some("bad") => sum16(&[value.to_be_bytes(), [1, 0]].concat()),
            Some("partial") => partial,
            Some(other) => u16::from_str_radix(other, 16).unwrap(),
        };
        out[at..at + 2].copy_from_slice(&value.to_be_bytes());
        out
    }

    fn extension(&self) -> Vec<u8> {
        let mut out = vec![0x20, 0, 0, 0];
        if self.flag("mpls") {
            out.extend(hex_bytes("0008 0101 12345678"));
        }
        if let Some(address) = self.text("nodeid") {
            out.extend(hex_bytes("0018 0504 0002 0000"));
            out.extend(address.parse::<Ipv6Addr>().unwrap().octets());
        }
        let sum = !sum16(&out);
        out[2..4].copy_from_slice(&sum.to_be_bytes());
        out
    }
}

fn number(text: &str) -> u64 {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.unwrap_or_else(|_| panic!("`{text}` is no number"))
}

fn hex_bytes(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}
