//! Values typed by their key, never guessed: text in, figment values out.

use std::net::{Ipv4Addr, Ipv6Addr};

use clatd_stages::settings::{ClatV6Addr, DnsServer, ExpectedValue, MapEntry, PlatCheck};
use clatd_stages::validity::{problem_of_address, problem_of_device};
use figment::value::{Empty, Tag, Value};
use ipnet::Ipv4Net;

use super::keys::{Key, Kind, nearest};
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

/// Reads the value of `key` from the text that stands after its `=`.
pub(super) fn parse(key: &Key, text: &str) -> Result<Value, Invalid> {
    if text.contains('\0') {
        return Err(Invalid::new("expected text without NUL characters"));
    }
    if text.is_empty() && key.optional {
        return Ok(unset(key.kind));
    }
    // A shell takes its quotation marks away itself.
    let parsed = match key.kind {
        Kind::Shell => parse_set(key, text),
        _ if is_quoted(text) => parse_set(key, text).and(Err(Invalid::new("expected a value without quotation marks"))),
        _ => parse_set(key, text),
    };
    parsed.map_err(|invalid| {
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

/// The value of an optional key whose text is empty.
fn unset(kind: Kind) -> Value {
    match kind {
        Kind::DnsServers | Kind::Maps => Value::from(Vec::<String>::new()),
        Kind::ClatV6 => Value::from(ClatV6Addr::Derived.to_string()),
        Kind::Program => Value::from(""),
        _ => Value::Empty(Tag::Default, Empty::None),
    }
}

fn parse_set(key: &Key, text: &str) -> Result<Value, Invalid> {
    match key.kind {
        Kind::Bool => boolean(text).map(Value::from),
        Kind::Integer { or_zero, min, max } => integer(text, or_zero, min, max).map(Value::from),
        Kind::RouteTable => route_table(text).map(Value::from),
        Kind::Shell => Ok(Value::from(text)),
        Kind::Program => program(text).map(Value::from),
        Kind::Path => path(text).map(Value::from),
        Kind::NewDevice => new_device(text).map(Value::from),
        Kind::Device => device_or_pattern(text).map(Value::from),
        Kind::Ipv4 => ipv4(text).map(|address| Value::from(address.to_string())),
        Kind::Ipv6 => ipv6(text, "an IPv6 address").map(|address| Value::from(address.to_string())),
        Kind::ClatV6 => clat_v6(text).map(|address| Value::from(address.to_string())),
        Kind::Prefix => prefix::parse(text).map(|prefix| Value::from(prefix.to_string())),
        Kind::DnsServers => dns_servers(text).map(Value::from),
        Kind::Words(words) => word(text, words).map(Value::from),
        Kind::Mtu => mtu(text).map(Value::from),
        Kind::WordOr { word, min, max } => word_or(text, word, min, max).map(Value::from),
        Kind::WordList(words) => word_list(text, words).map(Value::from),
        Kind::PlatCheck => plat_check(text).map(Value::from),
        Kind::Socket => socket(text).map(Value::from),
        Kind::Group => name_of(text, "the name of a group of users, such as adm").map(Value::from),
        Kind::User => name_of(text, "the name of a user, such as nobody").map(Value::from),
        Kind::Pool => pool(text).map(|pool| Value::from(pool.to_string())),
        Kind::Maps => map(text).map(|entry| Value::from(vec![entry.to_string()])),
    }
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

fn boolean(text: &str) -> Result<bool, Invalid> {
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

fn integer(text: &str, or_zero: bool, min: u32, max: u32) -> Result<u32, Invalid> {
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

fn route_table(text: &str) -> Result<u32, Invalid> {
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

fn program(text: &str) -> Result<String, Invalid> {
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

fn path(text: &str) -> Result<String, Invalid> {
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
fn device_or_pattern(text: &str) -> Result<String, Invalid> {
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
fn pool(text: &str) -> Result<Ipv4Net, Invalid> {
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

fn new_device(text: &str) -> Result<String, Invalid> {
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

fn ipv4(text: &str) -> Result<Ipv4Addr, Invalid> {
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

fn ipv6(text: &str, expected: &str) -> Result<Ipv6Addr, Invalid> {
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

fn clat_v6(text: &str) -> Result<ClatV6Addr, Invalid> {
    let lower = text.to_ascii_lowercase();
    if ClatV6Addr::WORDS.contains(&lower.as_str())
        && let Ok(word) = lower.parse()
    {
        return Ok(word);
    }
    let expected = format!("an IPv6 address or one of {}", ClatV6Addr::WORDS.join(", "));
    ipv6(text, &expected).map(ClatV6Addr::Address)
}

fn dns_servers(text: &str) -> Result<Vec<String>, Invalid> {
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
            Ok(parsed.to_string())
        })
        .collect()
}

fn mtu(text: &str) -> Result<String, Invalid> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok("auto".to_owned());
    }
    let number = integer(text, true, 68, 65535);
    number
        .map(|bytes| bytes.to_string())
        .map_err(|_| Invalid::new("expected auto, 0 or a whole number from 68 to 65535, decimal or 0x and hexadecimal"))
}

fn word_or(text: &str, word: &str, min: u32, max: u32) -> Result<String, Invalid> {
    if text.eq_ignore_ascii_case(word) {
        return Ok(word.to_owned());
    }
    integer(text, false, min, max)
        .map(|number| number.to_string())
        .map_err(|_| {
            Invalid::new(format!(
                "expected {word} or a whole number from {min} to {max}, decimal or 0x and hexadecimal"
            ))
        })
}

fn word_list(text: &str, words: &'static [&'static str]) -> Result<Vec<&'static str>, Invalid> {
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

fn plat_check(text: &str) -> Result<String, Invalid> {
    let check: PlatCheck = match text.to_ascii_lowercase().as_str() {
        "auto" => PlatCheck::Auto,
        "no" | "0" | "false" | "off" => PlatCheck::No,
        "yes" | "1" | "true" | "on" => PlatCheck::Yes,
        _ => text
            .parse()
            .map_err(|error: ExpectedValue| Invalid::new(error.to_string()))?,
    };
    if let PlatCheck::Address { address, .. } = check {
        ipv4(&address.to_string())?;
    }
    Ok(check.to_string())
}

fn socket(text: &str) -> Result<String, Invalid> {
    let parsed: Result<std::net::SocketAddr, _> = text.parse();
    let usable = parsed.ok().filter(|socket| socket.port() != 0);
    usable
        .map(|socket| socket.to_string())
        .ok_or_else(|| Invalid::new("expected an IP address and a port, such as 127.0.0.1:9464 or [::1]:9464"))
}

fn name_of(text: &str, what: &str) -> Result<String, Invalid> {
    // The names that useradd(8) and groupadd(8) accept, and upper case, which directory services use.
    let usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '$');
    if !text.is_empty() && text.len() <= 32 && text.chars().all(usable) {
        return Ok(text.to_owned());
    }
    Err(Invalid::new(format!("expected {what}")))
}

fn word(text: &str, words: &'static [&'static str]) -> Result<&'static str, Invalid> {
    let lower = text.to_ascii_lowercase();
    if let Some(word) = words.iter().find(|word| **word == lower) {
        return Ok(word);
    }
    let invalid = Invalid::new(format!("expected one of {}", words.join(", ")));
    Err(match nearest(text, words.iter().copied()) {
        Some(word) => invalid.hint(format!("did you mean {word}?")),
        None => invalid,
    })
}

fn map(text: &str) -> Result<MapEntry, Invalid> {
    let entry: MapEntry = text
        .parse()
        .map_err(|expected: clatd_stages::settings::ExpectedValue| Invalid::new(expected.to_string()))?;
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
