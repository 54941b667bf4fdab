//! Replays the fuzz corpus with the stable toolchain, and every vector as further input.
//!
//! `CLATD_WRITE_CORPUS=1` writes the vectors' packets to the corpus as seeds for `cargo fuzz`.

#![allow(clippy::unwrap_used)]

mod support;

use clatd_translator::{Offload, pcap};
use std::path::{Path, PathBuf};
use support::{build, fuzz, vector};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn replay(target: &str, body: fn(&[u8])) {
    let mut count = 0;
    for entry in std::fs::read_dir(folder("fuzz/corpus").join(target)).unwrap() {
        let path = entry.unwrap().path();
        let input = std::fs::read(&path).unwrap();
        if std::panic::catch_unwind(|| body(&input)).is_err() {
            panic!("{} fails", path.display());
        }
        count += 1;
    }
    assert!(count > 0, "no corpus for {target}");
}

#[test]
fn corpus_v4to6() {
    replay("v4to6", fuzz::v4to6);
}

#[test]
fn corpus_v6to4() {
    replay("v6to4", fuzz::v6to4);
}

#[test]
fn corpus_gso() {
    replay("gso", fuzz::gso);
}

#[test]
fn corpus_pcap() {
    replay("pcap", fuzz::pcap);
}

#[test]
fn vectors_under_every_configuration() {
    let write = std::env::var_os("CLATD_WRITE_CORPUS").is_some();
    for entry in std::fs::read_dir(folder("vectors")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let mut file = Vec::new();
        pcap::write_header(&mut file, false);
        for (n, case) in vector::parse("", &text).into_iter().enumerate() {
            let packet = build::packet(&case.input);
            for choice in 0..8u8 {
                let choice = choice | (choice & 4) << 5;
                let input = [&[choice][..], &packet].concat();
                let with_header = [&[choice][..], &case.offload.encode(), &packet].concat();
                fuzz::v4to6(&input);
                fuzz::v6to4(&input);
                fuzz::gso(&with_header);
                // A sample is enough to start from, and small inputs mutate best.
                let offloaded = case.offload != Offload::NONE;
                let chosen = (n % 5 == 0 || offloaded) && usize::from(choice) == n % 4;
                if write && chosen && packet.len() < if offloaded { 3000 } else { 400 } {
                    let target = match packet.first().map(|octet| octet >> 4) {
                        _ if offloaded => "gso",
                        Some(6) => "v6to4",
                        _ => "v4to6",
                    };
                    let input = if target == "gso" { &with_header } else { &input };
                    std::fs::write(folder("fuzz/corpus").join(target).join(format!("{stem}-{n}")), input).unwrap();
                }
            }
            if n < 12 {
                pcap::write_record(
                    &mut file,
                    &pcap::Record {
                        seconds: n as u32,
                        fraction: 0,
                        data: &packet,
                    },
                );
            }
        }
        for choice in 0..4u8 {
            let input = [&[choice][..], &file].concat();
            fuzz::pcap(&input);
            if write && choice == 0 {
                std::fs::write(folder("fuzz/corpus/pcap").join(&stem), &input).unwrap();
            }
        }
    }
}
