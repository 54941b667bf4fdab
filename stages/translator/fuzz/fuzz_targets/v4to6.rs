//! See `fuzz::v4to6` in the tests' support folder.

#![no_main]
#![allow(dead_code)]

#[path = "../../tests/support/fuzz.rs"]
mod fuzz;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::v4to6(input));
