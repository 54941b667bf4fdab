//! The parser against `tests/ra/cases`, the fuzzer's corpus and chance; the table against what routers may say.

use std::fs;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

#[path = "../../fuzz/support.rs"]
mod fuzz;
#[path = "tests_table.rs"]
mod table;

fn folder(path: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split('#').next().unwrap().split_whitespace().collect();
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

/// Reads the cases of a file, and gives the file as it should be; the number of cases.
fn replay(text: &str) -> (String, usize) {
    let (mut output, mut cases) = (String::new(), 0);
    let mut packet = Vec::new();
    let mut from = (Ipv6Addr::UNSPECIFIED, 0);
    for line in text.lines() {
        if line.starts_with("case ") {
            packet.clear();
            from = ("fe80::1".parse().unwrap(), 255);
            cases += 1;
        } else if let Some(rest) = line.strip_prefix("from ") {
            let (source, hop_limit) = rest.split_once(" hop ").unwrap();
            from = (source.parse().unwrap(), hop_limit.parse().unwrap());
        } else if line.starts_with("=> ") {
            let outcome = match parse(&packet, from.0, from.1) {
                Ok(advertisement) => advertisement.to_string(),
                Err(error) => format!("error: {error}"),
            };
            output += &format!("=> {outcome}\n");
            continue;
        } else if !line.starts_with('#') {
            packet.extend(bytes(line));
        }
        output += line;
        output.push('\n');
    }
    (output, cases)
}

/// `CLATD_BLESS=1` writes what is found as what is expected.
#[test]
fn cases_are_read_as_written_down() {
    let mut all = 0;
    for file in folder("../tests/ra/cases") {
        let expected = fs::read_to_string(&file).unwrap();
        let (found, cases) = replay(&expected);
        all += cases;
        if std::env::var_os("CLATD_BLESS").is_some() {
            fs::write(&file, &found).unwrap();
            continue;
        }
        for (number, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
            assert_eq!(found, expected, "{}:{}", file.display(), number + 1);
        }
    }
    assert!(all >= 60, "{all} cases found");
}

#[test]
fn the_corpus_of_the_fuzzer_holds() {
    let files = folder("fuzz/corpus/ra");
    assert!(files.len() > 20);
    for file in files {
        fuzz::ra(&fs::read(file).unwrap());
    }
}

/// Packets that get past the first checks: a fixed part, then options of known types with lengths that mostly fit.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![Just(3), Just(5), Just(25), Just(38), any::<u8>()];
    let option = (kind, 0u8..6, prop::collection::vec(any::<u8>(), 0..48), any::<bool>());
    (any::<[u8; 14]>(), prop::collection::vec(option, 0..12)).prop_map(|(fixed, options)| {
        let mut packet = vec![ROUTER_ADVERTISEMENT, 0];
        packet.extend(fixed);
        for (kind, units, mut body, fits) in options {
            if fits {
                body.resize((usize::from(units) * 8).saturating_sub(2), 0x20);
            }
            packet.extend([kind, units]);
            packet.extend(body);
        }
        packet
    })
}

proptest! {
    #[test]
    fn any_bytes_do_no_harm(input in prop::collection::vec(any::<u8>(), 0..512)) {
        fuzz::ra(&input);
        let _ = parse(&input, "fe80::1".parse().unwrap(), 255);
    }

    #[test]
    fn any_options_do_no_harm(packet in packet()) {
        let read = parse(&packet, "fe80::1".parse().unwrap(), 255);
        if let Ok(read) = read {
            prop_assert!(read.ignored.len() <= MAX_IGNORED);
            for offered in &read.pref64s {
                prop_assert!(offered.lifetime_s <= 65_528 && offered.lifetime_s.is_multiple_of(8));
            }
            prop_assert!(!read.to_string().is_empty());
        }
    }

    /// Cut off anywhere, a packet is either discarded or read as less than the whole.
    #[test]
    fn a_packet_cut_short_says_no_more(packet in packet(), cut in any::<prop::sample::Index>()) {
        let source = "fe80::1".parse().unwrap();
        if let (Ok(whole), Ok(part)) = (parse(&packet, source, 255), parse(&packet[..cut.index(packet.len())], source, 255)) {
            prop_assert!(whole.pref64s.starts_with(&part.pref64s));
            prop_assert!(whole.rdnss.starts_with(&part.rdnss));
        }
    }
}
