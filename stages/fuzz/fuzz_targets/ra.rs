//! Router advertisements: see `ra` in `support.rs`.

#![no_main]

use clatd_stages::ra::{Advertisements, MAX_PREFIXES, MAX_ROUTERS, MAX_SERVERS, parse};

#[path = "../support.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|input: &[u8]| support::ra(input));
