//! The vector files: `vectors/*.txt`.
//!
//! ```text
//! config: clat mtu4=1400            a preset, then settings; stays until the next `config:`
//! let: a=192.0.0.1                  {a} stands for it from here on
//!
//! case: name                        one case, or one for each row of `with`
//! with: x=1 y=2; x=3 y=4
//! in: PACKET                        see `build`
//! offload: needs-csum gso=1 size=1400 hdr=40 start=20 off=16
//! out: PACKET                       expected results in order; `id=*` in the first layer: any identification
//! out-offload: ...                  of all results
//! answer: PACKET                    an ICMP error of the translator instead
//! drop: reason                      no `out`
//! unsound                           results have wrong checksums on purpose
//! ```

use super::{Got, build, hex};
use clatd_translator::{Config, IcmpErrors, Kind, Offload, Tos, Translator, UdpZeroChecksum, UnmappedSource, Verdict};

#[derive(Clone, Debug)]
pub struct Vector {
    pub name: String,
    pub config: String,
    pub input: String,
    pub offload: Offload,
    pub out: Vec<String>,
    pub out_offload: Offload,
    pub answer: Option<String>,
    pub drop: Option<String>,
    pub unsound: bool,
}

pub fn parse(file: &str, text: &str) -> Vec<Vector> {
    let mut cases = Vec::new();
    let (mut config, mut lets) = (String::new(), Vec::<(String, String)>::new());
    let mut block: Vec<(usize, String, String)> = Vec::new();
    // A line that starts with a space continues the one before.
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.split(" #").next().unwrap_or_default();
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        match lines.last_mut() {
            Some((_, last)) if line.starts_with(' ') => *last += line,
            _ => lines.push((n + 1, line.to_owned())),
        }
    }
    for (n, line) in lines {
        let (key, value) = line.split_once(':').unwrap_or((&line, ""));
        let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
        match key.as_str() {
            "case" | "config" | "let" => {
                finish(file, &config, &lets, &mut block, &mut cases);
                match key.as_str() {
                    "config" => config = value,
                    "let" => lets.push(pair(&value)),
                    _ => block.push((n, key, value)),
                }
            }
            _ => block.push((n, key, value)),
        }
    }
    finish(file, &config, &lets, &mut block, &mut cases);
    cases
}

fn pair(text: &str) -> (String, String) {
    let (key, value) = text
        .split_once('=')
        .unwrap_or_else(|| panic!("`{text}` is no KEY=VALUE"));
    (key.trim().to_owned(), value.trim().to_owned())
}

fn finish(
    file: &str,
    config: &str,
    lets: &[(String, String)],
    block: &mut Vec<(usize, String, String)>,
    cases: &mut Vec<Vector>,
) {
    let block = std::mem::take(block);
    if block.is_empty() {
        return;
    }
    let rows: Vec<Vec<(String, String)>> = match block.iter().find(|(_, key, _)| key == "with") {
        Some((_, _, rows)) => rows
            .split(';')
            .map(|row| row.split_whitespace().map(pair).collect())
            .collect(),
        None => vec![Vec::new()],
    };
    for row in rows {
        let fill = |text: &str| {
            let mut text = text.to_owned();
            for (key, value) in row.iter().chain(lets.iter().rev()) {
                text = text.replace(&format!("{{{key}}}"), value);
            }
            text
        };
        let mut case = Vector {
            name: String::new(),
            config: fill(config),
            input: String::new(),
            offload: Offload::NONE,
            out: Vec::new(),
            out_offload: Offload::NONE,
            answer: None,
            drop: None,
            unsound: false,
        };
        for (n, key, value) in &block {
            let value = fill(value);
            match key.as_str() {
                "case" => case.name = format!("{file}:{n}: {value} {}", row_text(&row)),
                "with" => {}
                "in" => case.input = value,
                "offload" => case.offload = offload(&value),
                "out" => case.out.push(value),
                "out-offload" => case.out_offload = offload(&value),
                "answer" => case.answer = Some(value),
                "drop" => case.drop = Some(value),
                "unsound" => case.unsound = true,
                other => panic!("{file}:{n}: `{other}`?"),
            }
        }
        cases.push(case);
    }
}

fn row_text(row: &[(String, String)]) -> String {
    row.iter().map(|(key, value)| format!("{key}={value} ")).collect()
}

fn offload(text: &str) -> Offload {
    let mut offload = Offload::NONE;
    for word in text.split_whitespace() {
        let (key, value) = word.split_once('=').unwrap_or((word, "0"));
        let value: u16 = value.parse().unwrap();
        match key {
            "needs-csum" => offload.flags |= Offload::NEEDS_CSUM,
            "valid" => offload.flags |= Offload::DATA_VALID,
            "gso" => offload.gso_type = value as u8,
            "size" => offload.gso_size = value,
            "hdr" => offload.hdr_len = value,
            "start" => offload.csum_start = value,
            "off" => offload.csum_offset = value,
            other => panic!("offload `{other}`?"),
        }
    }
    offload
}

pub fn config(text: &str) -> Config {
    let mut config = Config {
        icmp_errors: IcmpErrors::Unlimited,
        ..Config::default()
    };
    for word in text.split_whitespace() {
        match word {
            // A CLAT: one pair of addresses and the prefix of the PLAT.
            "clat" => {
                config.pref64 = Some("64:ff9b::/96".parse().unwrap());
                config.maps = vec![("192.0.0.1/32".parse().unwrap(), "2001:db8::464/128".parse().unwrap())];
                continue;
            }
            // A translator between networks, explicit mappings on either side.
            "siit" => {
                config.pref64 = Some("2001:db8:100::/40".parse().unwrap());
                config.unmapped_source = UnmappedSource::Prefix;
                config.own_v4 = "198.51.100.1".parse().unwrap();
                config.own_v6 = Some("2001:db8:1c0:2:1::".parse().unwrap());
                for (v4, v6) in [("1.0.0.0/24", "2001:db8:3::/120"), ("10.0.0.0/24", "2001:db8:2::/120")] {
                    config.maps.push((v4.parse().unwrap(), v6.parse().unwrap()));
                }
                continue;
            }
            // RFC 7757 figure 1 and appendix B.
            "eam" => {
                config.pref64 = Some("64:ff9b::/96".parse().unwrap());
                config.unmapped_source = UnmappedSource::Prefix;
                config.dummy_v4 = "198.51.100.1".parse().unwrap();
                config.node_identification = false;
                for (v4, v6) in [
                    ("192.0.2.1/32", "2001:db8:aaaa::/128"),
                    ("192.0.2.2/32", "2001:db8:bbbb::b/128"),
                    ("192.0.2.16/28", "2001:db8:cccc::/124"),
                    ("192.0.2.128/26", "2001:db8:dddd::/64"),
                    ("192.0.2.192/29", "2001:db8:eeee:8::/62"),
                    ("192.0.2.224/31", "64:ff9b::/127"),
                ] {
                    config.maps.push((v4.parse().unwrap(), v6.parse().unwrap()));
                }
                continue;
            }
            _ => {}
        }
        let (key, value) = pair(word);
        match key.as_str() {
            "prefix" => config.pref64 = (value != "none").then(|| value.parse().unwrap()),
            "map" => {
                let (v4, v6) = value.split_once(',').unwrap();
                config.maps.push((v4.parse().unwrap(), v6.parse().unwrap()));
            }
            "own4" => config.own_v4 = value.parse().unwrap(),
            "own6" => config.own_v6 = Some(value.parse().unwrap()),
            "lowest" => config.lowest_ipv6_mtu = value.parse().unwrap(),
            "mtu4" => config.mtu4 = value.parse().unwrap(),
            "mtu6" => config.mtu6 = value.parse().unwrap(),
            "udp-zero" => {
                config.udp_zero_checksum = match value.as_str() {
                    "compute" => UdpZeroChecksum::Compute,
                    "drop" => UdpZeroChecksum::Drop,
                    "pass" => UdpZeroChecksum::Pass,
                    other => panic!("{other}"),
                }
            }
            "wkp-strict" => config.wkp_strict = value == "yes",
            "unmapped" => {
                config.unmapped_source = if value == "drop" {
                    UnmappedSource::Drop
                } else {
                    UnmappedSource::Prefix
                }
            }
            "hairpin" => config.hairpin = value == "yes",
            "tc" => config.traffic_class = Tos::Fixed(value.parse().unwrap()),
            "tos" => config.tos = Tos::Fixed(value.parse().unwrap()),
            "errors" => config.icmp_errors = IcmpErrors::Off,
            "nodeid" => config.node_identification = value == "yes",
            other => panic!("setting `{other}`?"),
        }
    }
    config
}

/// Runs one case; the error says what differs.
pub fn check(case: &Vector) -> Result<(), String> {
    let translator = Translator::new(config(&case.config)).map_err(|e| e.to_string())?;
    let input = build::packet(&case.input);
    super::fuzz::both_ways(&translator, case.offload, &input);
    let (verdict, got) = super::run_with(&translator, &mut translator.worker(0), case.offload, &input);
    let expected_verdict = match &case.drop {
        None => "translated".to_owned(),
        Some(reason) => format!(
            "{reason}, {}",
            if case.answer.is_some() { "answered" } else { "silent" }
        ),
    };
    let verdict = match verdict {
        Verdict::Translated => "translated".to_owned(),
        Verdict::Dropped { reason, answered } => {
            format!("{reason}, {}", if answered { "answered" } else { "silent" })
        }
    };
    if verdict != expected_verdict {
        return Err(format!("expected: {expected_verdict}; got: {verdict}{}", all(&got)));
    }
    let specs: Vec<(Kind, &String)> = case
        .out
        .iter()
        .map(|s| (Kind::Translated, s))
        .chain(case.answer.iter().map(|s| (Kind::Answer, s)))
        .collect();
    if specs.len() != got.len() {
        return Err(format!(
            "expected {} packets, got {}{}",
            specs.len(),
            got.len(),
            all(&got)
        ));
    }
    for ((kind, spec), mut got) in specs.into_iter().zip(got) {
        let mut bytes = build::packet(spec);
        if spec.split('|').next().unwrap_or_default().contains("id=*") {
            if got.bytes.len() < 20 || super::sum16(&got.bytes[..20]) != 0xffff {
                return Err(format!("header checksum of {}", hex(&got.bytes)));
            }
            for at in [4, 5, 10, 11] {
                bytes[at] = 0;
                got.bytes[at] = 0;
            }
        } else if !case.unsound && kind == Kind::Translated && case.out_offload == Offload::NONE {
            super::assert_sound(&got.bytes, &case.name);
        }
        let expected = Got {
            kind,
            offload: if kind == Kind::Answer {
                Offload::NONE
            } else {
                case.out_offload
            },
            bytes,
        };
        if got != expected {
            let at = got.bytes.iter().zip(&expected.bytes).position(|(a, b)| a != b);
            let (a, b) = (hex(&expected.bytes), hex(&got.bytes));
            return Err(format!(
                "first difference at {at:x?}\n  expected {:?} {:?} {} bytes{a}\n  got {:?} {:?} {} bytes{b}",
                expected.kind,
                expected.offload,
                expected.bytes.len(),
                got.kind,
                got.offload,
                got.bytes.len()
            ));
        }
    }
    Ok(())
}

fn all(got: &[Got]) -> String {
    got.iter()
        .map(|got| format!("\n  got {:?} {:?}{}", got.kind, got.offload, hex(&got.bytes)))
        .collect()
}
