//! The grammar of each kind of values: text in, typed values out.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use clatd_stages::settings::{
    ClatV6Addr, DnsServer, ExpectedValue, IcmpErrorRate, MapEntry, PlatCheck, RouteMtu, Settings, TosSetting,
};
use clatd_stages::validity::{problem_of_address, problem_of_device};
use ipnet::Ipv4Net;

use super::keys::{Key, Text, ValueKind, nearest};
use super::prefix;

/// Why a value will not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Invalid {
    pub(super) problem: String,
    pub(super) hint: Option<String>,
}

impl Invalid {
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
            hint: None,
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<ExpectedValue> for Invalid {
    fn from(expected: ExpectedValue) -> Self {
        Self::new(expected.to_string())
    }
}

/// Reads the text that stands after the `=` of `key` into its field.
pub(super) fn read(key: &Key, text: &str, settings: &mut Settings) -> Result<(), Invalid> {
    if text.contains('\0') {
        return Err(Invalid::new("expected text without NUL characters"));
    }
    // A shell takes its quotation marks away itself.
    let result = if is_quoted(text) && key.kind() != ValueKind::Text(Text::Shell) {
        let mut nowhere = Settings::default();
        let quoted = Invalid::new("expected a value without quotation marks");
        (key.field.read)(&mut nowhere, text).and(Err(quoted))
    } else {
        (key.field.read)(settings, text)
    };
    result.map_err(|invalid| {
        if invalid.hint.is_some() {
            invalid
        } else {
            with_general_hint(invalid, text)
        }
    })
}

fn is_quoted(text: &str) -> bool {
    let by = |mark| text.len() > 1 && text.starts_with(mark) && text.ends_with(mark);
    by('"') || by('\'')
}

/// Mistakes that can happen to any key.
fn with_general_hint(invalid: Invalid, text: &str) -> Invalid {
    if is_quoted(text) {
        return invalid.hint("quotation marks are taken as part of the value; leave them out");
    }
    if [" #", "\t#", " ;", "\t;", " //", "\t//"]
        .iter()
        .any(|mark| text.contains(mark))
    {
        return invalid.hint("a comment needs a line of its own");
    }
    invalid
}

pub(super) fn boolean(text: &str) -> Result<bool, Invalid> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "on" | "yes" => Ok(true),
        "0" | "false" | "off" | "no" => Ok(false),
        _ => Err(Invalid::new("expected yes or no (or 1/0, true/false, on/off)")),
    }
}

fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // from_str_radix would accept a sign.
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    Some(u64::from_str_radix(digits, radix).unwrap_or(u64::MAX))
}

pub(super) fn integer(text: &str, or_zero: bool, min: u32, max: u32) -> Result<u32, Invalid> {
    let zero = if or_zero { "0 or " } else { "" };
    let expected = || {
        Invalid::new(format!(
            "expected {zero}a whole number from {min} to {max}, decimal or 0x and hexadecimal"
        ))
    };
    let number = number(text)
        .and_then(|number| u32::try_from(number).ok())
        .ok_or_else(expected)?;
    if (or_zero && number == 0) || (min..=max).contains(&number) {
        Ok(number)
    } else {
        Err(expected())
    }
}

pub(super) fn route_table(text: &str) -> Result<u32, Invalid> {
    let table = integer(text, false, 1, u32::MAX)?;
    let system = match table {
        253 => "default",
        254 => "main",
        255 => "local",
        _ => return Ok(table),
    };
    Err(Invalid::new(format!(
        "expected a routing table of clatd's own; this is the system's table \"{system}\""
    )))
}

pub(super) fn program(text: &str) -> Result<String, Invalid> {
    if text.is_empty() {
        return Err(Invalid::new("expected the name or path of a program"));
    }
    if text.ends_with('/') {
        return Err(Invalid::new(
            "expected the name or path of a program; this is a directory",
        ));
    }
    Ok(text.to_owned())
}

pub(super) fn path(text: &str) -> Result<String, Invalid> {
    if !text.starts_with('/') || text.ends_with('/') {
        return Err(Invalid::new("expected the absolute path of a file"));
    }
    Ok(text.to_owned())
}

/// A device that is there, or will be.
fn device(text: &str) -> Result<String, Invalid> {
    let Some(problem) = problem_of_device(text) else {
        return Ok(text.to_owned());
    };
    let invalid = Invalid::new(format!("expected the name of a network device; this {problem}"));
    Err(if text.contains(':') {
        invalid.hint("an address label such as eth0:1 is not a device")
    } else {
        invalid
    })
}

/// A device, or a pattern of devices. Which devices exist is not known yet.
pub(super) fn device_or_pattern(text: &str) -> Result<String, Invalid> {
    if super::is_pattern(text) {
        device(&text.replace(['*', '?'], "x")).map_err(|invalid| Invalid {
            problem: format!("{} (a pattern)", invalid.problem),
            ..invalid
        })?;
        return Ok(text.to_owned());
    }
    device(text)
}

/// An IPv4 prefix to take addresses from.
pub(super) fn pool(text: &str) -> Result<Ipv4Net, Invalid> {
    let expected =
        || Invalid::new("expected an IPv4 prefix of length 16 to 32 without host bits, such as 192.0.0.0/29");
    let pool: Ipv4Net = text.parse().map_err(|_| expected())?;
    if pool.trunc() != pool || pool.prefix_len() < 16 {
        return Err(expected());
    }
    ipv4(&pool.addr().to_string())
        .or_else(|_| ipv4(&pool.broadcast().to_string()))
        .map_err(|_| expected())?;
    Ok(pool)
}

pub(super) fn new_device(text: &str) -> Result<String, Invalid> {
    if super::is_pattern(text) {
        return Err(Invalid::new(
            "expected the name of one network device, without \"*\" and \"?\"",
        ));
    }
    let name = device(text)?;
    if name.contains('%') {
        return Err(Invalid::new(
            "expected the name of a network device, without \"%\", which the kernel would replace by a number",
        ));
    }
    if ["lo", "all", "default"].contains(&name.as_str()) {
        return Err(Invalid::new(
            "expected the name of a device to be made; this one has a meaning in every Linux system",
        ));
    }
    if !name.chars().all(|c| c.is_ascii_graphic()) || name.starts_with('-') {
        return Err(Invalid::new(
            "expected the name of a network device in printable ASCII, not beginning with \"-\"",
        ));
    }
    Ok(name)
}

pub(super) fn ipv4(text: &str) -> Result<Ipv4Addr, Invalid> {
    let address: Ipv4Addr = text.parse().map_err(|_| {
        let invalid = Invalid::new("expected an IPv4 address, such as 192.0.0.1");
        match text.split_once('/') {
            Some((address, _)) if address.parse::<Ipv4Addr>().is_ok() => invalid.hint("without a prefix length"),
            _ if text.parse::<Ipv6Addr>().is_ok() => invalid.hint("this is an IPv6 address"),
            _ => invalid,
        }
    })?;
    let problem = match address.octets() {
        [0, ..] => "this one means \"no address\"",
        [127, ..] => "this is a loopback address",
        [169, 254, ..] => "this is a link-local address",
        [224..=239, ..] => "this is a multicast address",
        [255, 255, 255, 255] => "this is the broadcast address",
        [240..=255, ..] => "this is out of the reserved range 240.0.0.0/4",
        _ => return Ok(address),
    };
    Err(Invalid::new(format!("expected an IPv4 unicast address; {problem}")))
}

pub(super) fn ipv6(text: &str, expected: &str) -> Result<Ipv6Addr, Invalid> {
    let address: Ipv6Addr = text.parse().map_err(|_| {
        let invalid = Invalid::new(format!("expected {expected}"));
        match text.split_once(['/', '%']) {
            Some((address, _)) if address.parse::<Ipv6Addr>().is_ok() => {
                invalid.hint("without a prefix length or device")
            }
            _ if text.parse::<Ipv4Addr>().is_ok() => invalid.hint("this is an IPv4 address"),
            _ => invalid,
        }
    })?;
    match problem_of_address(address) {
        Some(problem) => Err(Invalid::new(format!(
            "expected {expected} that is global unicast; {problem}"
        ))),
        None => Ok(address),
    }
}

pub(super) fn clat_v6(text: &str) -> Result<ClatV6Addr, Invalid> {
    let lower = text.to_ascii_lowercase();
    if ClatV6Addr::WORDS.contains(&lower.as_str())
        && let Ok(word) = lower.parse()
    {
        return Ok(word);
    }
    let expected = format!("an IPv6 address or one of {}", ClatV6Addr::WORDS.join(", "));
    ipv6(text, &expected).map(ClatV6Addr::Address)
}

pub(super) fn dns_servers(text: &str) -> Result<Vec<DnsServer>, Invalid> {
    text.split(',')
        .map(str::trim)
        .map(|server| {
            let expected = "expected IP addresses of DNS servers, separated by commas";
            if server.is_empty() {
                return Err(Invalid::new(format!("{expected}; one of them is empty")));
            }
            let parsed: DnsServer = server.parse().map_err(|_| {
                let invalid = Invalid::new(format!("{expected}; \"{server}\" is none"));
                if server.contains(char::is_whitespace) {
                    invalid.hint("separate the servers by commas")
                } else {
                    invalid
                }
            })?;
            if parsed.address.is_unspecified() || parsed.address.is_multicast() {
                return Err(Invalid::new(format!("{expected}; {server} is no unicast address")));
            }
            match &parsed.device {
                Some(name) => drop(device(name).map_err(|_| {
                    Invalid::new(format!(
                        "{expected}; \"{name}\" in \"{server}\" is no name of a network device"
                    ))
                })?),
                None if server.contains('%') => {
                    return Err(Invalid::new(format!(
                        "{expected}; no device follows the \"%\" of \"{server}\""
                    )));
                }
                None if prefix::is_link_local(parsed.address) => {
                    return Err(
                        Invalid::new(format!("{expected}; the link-local address {server} needs its device"))
                            .hint(format!("such as {server}%eth0")),
                    );
                }
                None => {}
            }
            Ok(parsed)
        })
        .collect()
}

pub(super) fn mtu(text: &str) -> Result<RouteMtu, Invalid> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(RouteMtu::Auto);
    }
    integer(text, true, 68, 65535)
        .map(RouteMtu::Bytes)
        .map_err(|_| Invalid::new("expected auto, 0 or a whole number from 68 to 65535, decimal or 0x and hexadecimal"))
}

/// The type of octet that says how traffic class and TOS are filled.
pub(super) fn tos(text: &str) -> Result<TosSetting, Invalid> {
    let octet = word_or(text, "copy", 0, u8::MAX)?;
    Ok(octet.map_or(TosSetting::Copy, TosSetting::Value))
}

pub(super) fn error_rate(text: &str) -> Result<IcmpErrorRate, Invalid> {
    let rate = word_or(text, "unlimited", 0, 1_000_000_u32)?;
    Ok(rate.map_or(IcmpErrorRate::Unlimited, IcmpErrorRate::PerSecond))
}

/// The word is `None`.
fn word_or<T: TryFrom<u32> + Into<u32>>(text: &str, word: &str, min: T, max: T) -> Result<Option<T>, Invalid> {
    if text.eq_ignore_ascii_case(word) {
        return Ok(None);
    }
    let (min, max) = (min.into(), max.into());
    let number = integer(text, false, min, max).ok();
    number
        .and_then(|number| T::try_from(number).ok())
        .map(Some)
        .ok_or_else(|| {
            Invalid::new(format!(
                "expected {word} or a whole number from {min} to {max}, decimal or 0x and hexadecimal"
            ))
        })
}

pub(super) fn word_list<T>(text: &str, words: &'static [&'static str]) -> Result<Vec<T>, Invalid>
where
    T: FromStr<Err = ExpectedValue> + PartialEq,
{
    let mut found = Vec::new();
    for item in text.split(',') {
        let item = word(item.trim(), words)?;
        if found.contains(&item) {
            return Err(Invalid::new(format!(
                "expected each of {} at most once",
                words.join(", ")
            )));
        }
        found.push(item);
    }
    Ok(found)
}

pub(super) fn plat_check(text: &str) -> Result<PlatCheck, Invalid> {
    let check: PlatCheck = match text.to_ascii_lowercase().as_str() {
        "auto" => PlatCheck::Auto,
        "no" | "0" | "false" | "off" => PlatCheck::No,
        "yes" | "1" | "true" | "on" => PlatCheck::Yes,
        _ => text.parse()?,
    };
    if let PlatCheck::Address { address, .. } = check {
        ipv4(&address.to_string())?;
    }
    Ok(check)
}

pub(super) fn socket(text: &str) -> Result<SocketAddr, Invalid> {
    let parsed: Option<SocketAddr> = text.parse().ok();
    parsed
        .filter(|socket| socket.port() != 0)
        .ok_or_else(|| Invalid::new("expected an IP address and a port, such as 127.0.0.1:9464 or [::1]:9464"))
}

pub(super) fn name_of(text: &str, what: &str) -> Result<String, Invalid> {
    // The names that useradd(8) and groupadd(8) accept, and upper case, which directory services use.
    let usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '$');
    if !text.is_empty() && text.len() <= 32 && text.chars().all(usable) {
        return Ok(text.to_owned());
    }
    Err(Invalid::new(format!("expected {what}")))
}

pub(super) fn word<T>(text: &str, words: &'static [&'static str]) -> Result<T, Invalid>
where
    T: FromStr<Err = ExpectedValue>,
{
    let lower = text.to_ascii_lowercase();
    if words.contains(&lower.as_str()) {
        return Ok(lower.parse()?);
    }
    let invalid = Invalid::new(format!("expected one of {}", words.join(", ")));
    Err(match nearest(text, words.iter().copied()) {
        Some(word) => invalid.hint(format!("did you mean {word}?")),
        None => invalid,
    })
}

pub(super) fn map(text: &str) -> Result<MapEntry, Invalid> {
    let entry: MapEntry = text.parse()?;
    if entry.v4.network().is_multicast() || entry.v4.network().is_loopback() {
        return Err(Invalid::new(format!("expected unicast prefixes; {} is none", entry.v4)));
    }
    if let Some(problem) = problem_of_address(entry.v6.network()) {
        return Err(Invalid::new(format!(
            "expected global unicast prefixes; in {}: {problem}",
            entry.v6
        )));
    }
    Ok(entry)
}
