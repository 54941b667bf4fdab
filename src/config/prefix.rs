//! PLAT prefixes as people write them.

use std::net::{IpAddr, Ipv6Addr};

use clatd_stages::settings::Pref64Setting;
use clatd_stages::validity::problem_of_address;

use super::value::Invalid;

const LENGTHS: [u8; 6] = [32, 40, 48, 56, 64, 96];

/// Reads an RFC 6052 prefix; says exactly which of its rules is broken.
pub(super) fn parse(text: &str) -> Result<Pref64Setting, Invalid> {
    let expected = |problem: &str| Invalid::new(format!("expected an RFC 6052 prefix such as 64:ff9b::/96; {problem}"));
    let Some((address, length)) = text.split_once('/') else {
        let invalid = expected("the length is missing");
        return Err(if text.parse::<Ipv6Addr>().is_ok() {
            invalid.hint(format!("most probably {text}/96"))
        } else {
            invalid
        });
    };
    let address: Ipv6Addr = address
        .parse()
        .map_err(|_| expected(&format!("\"{address}\" is no IPv6 address")))?;
    let length = length
        .parse::<u8>()
        .ok()
        .filter(|length| LENGTHS.contains(length))
        .ok_or_else(|| expected(&format!("its length is 32, 40, 48, 56, 64 or 96, not \"{length}\"")))?;
    if let Some(problem) = problem_of_address(address) {
        return Err(expected(&problem));
    }
    let bits = u128::from(address);
    let kept = bits & !(u128::MAX >> length);
    if kept != bits {
        return Err(expected(&format!("bits are set beyond its length {length}"))
            .hint(format!("perhaps {}/{length}", Ipv6Addr::from(kept))));
    }
    if address.octets()[8] != 0 {
        return Err(expected("bits 64 to 71 must be zero (RFC 6052 section 2.2)"));
    }
    Ok(format!("{address}/{length}").parse::<Pref64Setting>()?)
}

/// Whether an address is valid on its link alone.
pub(super) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.segments()[0] & 0xffc0 == 0xfe80,
    }
}
