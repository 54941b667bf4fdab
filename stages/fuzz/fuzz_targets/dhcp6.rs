//! DHCPv6: see `dhcp6` in `dhcp6_support.rs`.

#![no_main]

use clatd_stages::dhcp6::{Client, ClientConfig, ClientInput, Dhcp6Message, DhcpOption, Duid, Lease, Phase};

#[path = "../dhcp6_support.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|input: &[u8]| support::dhcp6(input));
