//! Which PLAT prefixes, addresses and device names are accepted, whoever names them.

use std::net::Ipv6Addr;

use clatd_translator::Pref64;

/// The longest name of a device: `IFNAMSIZ` less the zero behind it.
const LONGEST_NAME: usize = 15;

/// Why no PLAT can have this prefix, whether it was configured, advertised or synthesised; `None` = it can.
///
/// The rules about lengths and bits 64 to 71 (RFC 6052 section 2.2) are those of [`Pref64`] itself.
pub fn problem_of_prefix(prefix: Pref64) -> Option<String> {
    problem_of_address(prefix.address())
}

/// Why neither a CLAT nor a PLAT can have this address; `None` = they can.
pub fn problem_of_address(address: Ipv6Addr) -> Option<String> {
    let what = if address.is_unspecified() {
        "means \"no address\""
    } else if address.is_loopback() {
        "is the loopback address"
    } else if address.is_multicast() {
        "is multicast"
    } else if address.is_unicast_link_local() {
        "is link-local"
    } else if address.to_ipv4_mapped().is_some() {
        "is an IPv4-mapped address"
    } else if address.segments()[0] & 0xffc0 == 0xfec0 {
        "is site-local (deprecated by RFC 3879)"
    } else if address.segments()[..4] == [0x100, 0, 0, 0] {
        "is discarded everywhere (RFC 6666)"
    } else {
        return None;
    };
    Some(format!("{address} {what}"))
}

/// Why packet filters cannot name a device of this name, or why the kernel has no such device; `None` = they can.
///
/// The kernel allows names that a filter cannot express: nft and ip6tables take `*` and `+` at the end for any
/// characters, and a quotation mark ends the name.
pub fn problem_of_device(name: &str) -> Option<String> {
    let of_filters = |what: &str| Some(format!("contains {what}, which packet filters cannot name"));
    if name.is_empty() {
        return Some("is empty".into());
    }
    if name.len() > LONGEST_NAME {
        return Some(format!("has {} characters, more than {LONGEST_NAME}", name.len()));
    }
    if matches!(name, "." | "..") {
        return Some("is no name that the kernel allows".into());
    }
    let first_bad = name.chars().find_map(|character| match character {
        '/' | ':' => Some(format!("contains \"{character}\", which the kernel does not allow")),
        _ if character.is_whitespace() => Some("contains a blank".into()),
        _ if character.is_control() => Some("contains a control character".into()),
        '"' => of_filters("a quotation mark"),
        '*' | '\\' => of_filters(&format!("\"{character}\"")),
        _ => None,
    });
    first_bad.or_else(|| {
        let problem = "ends in \"+\", which ip6tables takes for any characters";
        name.ends_with('+').then(|| problem.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_that_lead_to_no_plat() {
        for bad in [
            "::/96",
            "::/32",
            "::ffff:0:0/96",
            "fe80::/96",
            "fe80::/64",
            "febf:ffff::/32",
            "ff00::/32",
            "ff02::/96",
            "ff0e:1::/48",
            "fec0::/48",
            "100::/64",
            "100::/96",
        ] {
            let prefix: Pref64 = bad.parse().unwrap();
            assert!(problem_of_prefix(prefix).is_some(), "{bad}");
        }
        for good in [
            "64:ff9b::/96",
            "64:ff9b:1::/48",
            "2001:db8:64::/96",
            "fd00:64::/96",
            "2000::/32",
            "100:0:0:1::/64",
        ] {
            assert_eq!(problem_of_prefix(good.parse().unwrap()), None, "{good}");
        }
    }

    #[test]
    fn names_that_no_filter_can_say() {
        for bad in [
            "",
            ".",
            "..",
            "a name",
            "a\tb",
            "a\u{7f}b",
            "a\u{a0}b",
            "a/b",
            "a:b",
            "a\"b",
            "\"",
            "wan*",
            "*",
            "a*b",
            "a\\b",
            "wan+",
            "+",
            "0123456789abcdef",
        ] {
            assert!(problem_of_device(bad).is_some(), "{bad:?}");
        }
        for good in [
            "eth0",
            "wan.5",
            "a+b",
            "veth-1_2",
            "it's",
            "0123456789abcde",
            "größe",
            "a?b",
            "!x",
            "a;b",
        ] {
            assert_eq!(problem_of_device(good), None, "{good:?}");
        }
    }
}
