//! The programs of the fast path beside the userspace translator: the kernel runs them on single packets
//! (BPF_PROG_TEST_RUN). What they translate is the same, byte for byte but for the identification; what is plain they
//! must translate; everything else they must leave as it is. Needs root.
#![cfg(feature = "ebpf")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a panic is how a test fails; cargo shows what a failing test printed"
)]

#[path = "../stages/translator/tests/support/mod.rs"]
mod support;

#[path = "fastpath/compare.rs"]
mod compare;
#[path = "fastpath/made_up.rs"]
mod made_up;
#[path = "fastpath/shared.rs"]
mod shared;

use std::collections::BTreeMap;
use std::path::Path;

use clatd::kernel::fastpath::Programs;
use clatd_translator::Offload;
use compare::{Pair, Took};
use support::{build, vector};

const TRANSLATOR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/stages/translator");

fn files(folder: &str) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(Path::new(TRANSLATOR).join(folder)).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn vectors() {
    let (mut fast, mut left, mut skipped, mut failures) = (0, 0, 0, Vec::new());
    let mut pairs: BTreeMap<String, Option<Pair>> = BTreeMap::new();
    for path in files("vectors") {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        for case in vector::parse(&name, &std::fs::read_to_string(&path).unwrap()) {
            // Super-packets have no place in a test run; the lab sends them.
            let pair = pairs
                .entry(case.config.clone())
                .or_insert_with(|| Pair::new(vector::config(&case.config)));
            let Some(pair) = pair.as_mut().filter(|_| case.offload == Offload::NONE) else {
                skipped += 1;
                continue;
            };
            match pair.compare(&build::packet(&case.input)) {
                Ok(Took::Fast) => fast += 1,
                Ok(Took::Left) => left += 1,
                Ok(Took::NotRun) => skipped += 1,
                Err(why) => failures.push(format!("{}\n  in  {}\n  {why}", case.name, case.input)),
            }
        }
    }
    println!("{fast} fast, {left} left, {skipped} skipped");
    assert!(
        failures.is_empty(),
        "{} fail\n\n{}",
        failures.len(),
        failures.join("\n\n")
    );
    assert!(fast >= 60 && left >= 150, "{fast} fast, {left} left");
}

/// A library reads that before it can be told that nobody wants it.
#[test]
fn loading_does_not_read_the_type_information_of_the_kernel() {
    let read = || -> u64 {
        let counters = std::fs::read_to_string("/proc/self/io").unwrap();
        let line = counters.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap();
        line.parse().unwrap()
    };
    let whole = std::fs::metadata("/sys/kernel/btf/vmlinux").unwrap().len();
    let before = read();
    let programs = Programs::load().unwrap();
    let octets = read() - before;
    drop(programs);
    assert!(octets < whole / 2, "{octets} octets were read, of {whole}");
}

#[test]
fn corpus() {
    let mut pairs: Vec<Pair> = made_up::configs().into_iter().filter_map(Pair::new).collect();
    let mut count = 0;
    for (folder, version) in [("fuzz/corpus/v4to6", 4), ("fuzz/corpus/v6to4", 6)] {
        for path in files(folder) {
            let input = std::fs::read(&path).unwrap();
            let Some((_, packet)) = input.split_first() else {
                continue;
            };
            let packet = made_up::with_version(packet.to_vec(), version);
            for pair in &mut pairs {
                pair.compare(&packet)
                    .unwrap_or_else(|why| panic!("{}: {why}", path.display()));
                count += 1;
            }
        }
    }
    assert!(count > 500, "only {count}");
}

#[test]
fn made_up_packets() {
    made_up::run(30_000, 0x1234_5678_9abc_def1);
}

/// By hand: `CLATD_SEED=7 cargo test --test fastpath -- --ignored a_million`.
#[test]
#[ignore = "takes a minute"]
fn a_million_made_up_packets() {
    let seed = std::env::var("CLATD_SEED").map_or(0x9e37_79b9_7f4a_7c15, |seed| seed.parse().expect("a number"));
    made_up::run(1_000_000, seed);
}

/// How long the programs take for one packet, by the kernel's clock. By hand, as root:
/// `cargo test --test fastpath -- --ignored --nocapture time_of`.
#[test]
#[ignore = "a measurement"]
fn time_of_one_packet() {
    for (what, packet) in made_up::plain() {
        let mut pair = Pair::new(made_up::configs().swap_remove(0)).unwrap();
        let mut times: Vec<u128> = (0..50_000).map(|_| pair.time(&packet).unwrap().as_nanos()).collect();
        times.sort_unstable();
        println!("{what}: least {} ns, median {} ns", times[0], times[times.len() / 2]);
    }
}
