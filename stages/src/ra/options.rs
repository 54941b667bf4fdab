//! The options of a router advertisement. The caller has checked each option's length against the packet.

use std::net::Ipv6Addr;

use clatd_translator::Pref64;

use super::{Offered, OptionProblem, PrefixInformation, RouterAdvertisement};

const PREFIX_INFORMATION: u8 = 3;
const MTU: u8 = 5;
const RDNSS: u8 = 25;
const PREF64: u8 = 38;

/// Least MTU of an IPv6 link (RFC 8200 section 5).
const LEAST_MTU: u32 = 1280;

/// Reads one option into the advertisement. Types without a use here are skipped (RFC 4861 section 9).
pub(super) fn read(kind: u8, option: &[u8], to: &mut RouterAdvertisement) -> Result<(), OptionProblem> {
    match kind {
        PREFIX_INFORMATION => to.prefixes.push(prefix_information(option)?),
        MTU => to.mtu = Some(mtu(option)?),
        RDNSS => rdnss(option, &mut to.rdnss)?,
        PREF64 => to.pref64s.push(pref64(option)?),
        _ => {}
    }
    Ok(())
}

/// RFC 8781 section 4: 13 bits of lifetime in units of 8 s, 3 bits of prefix length code, the highest 96 bits.
fn pref64(option: &[u8]) -> Result<Offered<Pref64>, OptionProblem> {
    let option: &[u8; 16] = exactly(option, "2")?;
    let scaled = u16::from_be_bytes([option[2], option[3]]);
    let length = match scaled & 0b111 {
        0 => 96,
        1 => 64,
        2 => 56,
        3 => 48,
        4 => 40,
        5 => 32,
        code => return Err(OptionProblem::PrefixLengthCode(code as u8)),
    };
    let mut bytes = [0; 16];
    bytes[..12].copy_from_slice(&option[4..]);
    let address = truncated(Ipv6Addr::from(bytes), length);
    if let Some(what) = no_translation_prefix(address) {
        return Err(OptionProblem::Address { address, what });
    }
    Ok(Offered {
        value: Pref64::new(address, length)?,
        lifetime_s: u32::from(scaled & !0b111),
    })
}

/// RFC 8106 section 5.1: a lifetime and one address or more.
fn rdnss(option: &[u8], servers: &mut Vec<Offered<Ipv6Addr>>) -> Result<(), OptionProblem> {
    let found = option[1];
    if found < 3 || found.is_multiple_of(2) {
        let expected = "an odd number from 3";
        return Err(OptionProblem::Length { found, expected });
    }
    let lifetime_s = number(&option[4..8]);
    let mut problem = Ok(());
    for bytes in option[8..].as_chunks::<16>().0 {
        let value = Ipv6Addr::from(*bytes);
        match no_server(value) {
            Some(what) => problem = Err(OptionProblem::Address { address: value, what }),
            None => servers.push(Offered { value, lifetime_s }),
        }
    }
    problem
}

/// RFC 4861 section 4.6.4.
fn mtu(option: &[u8]) -> Result<u32, OptionProblem> {
    let option: &[u8; 8] = exactly(option, "1")?;
    match number(&option[4..]) {
        mtu if mtu < LEAST_MTU => Err(OptionProblem::Mtu(mtu)),
        mtu => Ok(mtu),
    }
}

/// RFC 4861 section 4.6.2. What RFC 4862 section 5.5.3 ignores is ignored here, too.
fn prefix_information(option: &[u8]) -> Result<PrefixInformation, OptionProblem> {
    let option: &[u8; 32] = exactly(option, "4")?;
    let length = option[2];
    if length > 128 {
        return Err(OptionProblem::PrefixLength(length));
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&option[16..]);
    let prefix = truncated(Ipv6Addr::from(bytes), length);
    if prefix.is_unicast_link_local() {
        let (address, what) = (prefix, "link-local");
        return Err(OptionProblem::Address { address, what });
    }
    let (valid_s, preferred_s) = (number(&option[4..8]), number(&option[8..12]));
    if preferred_s > valid_s {
        return Err(OptionProblem::Lifetimes { preferred_s, valid_s });
    }
    Ok(PrefixInformation {
        prefix,
        length,
        on_link: option[3] & 0x80 != 0,
        autonomous: option[3] & 0x40 != 0,
        valid_s,
        preferred_s,
    })
}

fn exactly<'a, const N: usize>(option: &'a [u8], expected: &'static str) -> Result<&'a [u8; N], OptionProblem> {
    let found = option[1];
    option.try_into().map_err(|_| OptionProblem::Length { found, expected })
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

/// Senders need not zero the bits behind the prefix length (RFC 8781 section 4, RFC 4861 section 4.6.2).
fn truncated(address: Ipv6Addr, length: u8) -> Ipv6Addr {
    let behind = u128::MAX.checked_shr(u32::from(length)).unwrap_or(0);
    Ipv6Addr::from(u128::from(address) & !behind)
}

/// Names what `address` is, if no translator can have a prefix that begins with it.
fn no_translation_prefix(address: Ipv6Addr) -> Option<&'static str> {
    if address.is_multicast() {
        Some("multicast")
    } else if address.is_unicast_link_local() {
        Some("link-local")
    } else if address.segments()[..2] == [0, 0] {
        // ::, ::1, IPv4-compatible, -mapped and -translated addresses (RFC 4291 section 2.5).
        Some("no prefix for translation")
    } else {
        None
    }
}

fn no_server(address: Ipv6Addr) -> Option<&'static str> {
    if address.is_multicast() {
        Some("multicast")
    } else if address.is_unspecified() {
        Some("no address")
    } else if address.is_loopback() {
        Some("the loopback address")
    } else if address.to_ipv4_mapped().is_some() {
        Some("an IPv4-mapped address")
    } else {
        None
    }
}
