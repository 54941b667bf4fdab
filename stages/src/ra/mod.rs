//! Router advertisements (RFC 4861 section 4.2), as much of them as a CLAT needs: the NAT64 prefixes (PREF64, RFC
//! 8781), the DNS servers (RDNSS, RFC 8106), the router's lifetime and preference (RFC 4191), the MTU and the
//! prefixes of the link.
//!
//! [`parse()`] reads one packet. [`Advertisements`] remembers what all routers of a link said, until it expires.
//! Neither does any I/O or reads a clock: `src/ra` listens, and passes the time in.

use std::fmt;
use std::net::Ipv6Addr;

use clatd_translator::{Pref64, Pref64Error};

mod options;
mod parse;
mod table;
#[cfg(test)]
mod tests;

pub use parse::parse;
pub use table::{Advertisements, Learned, MAX_PREFIXES, MAX_ROUTERS, MAX_SERVERS, RouterState, TableChange};

/// ICMPv6 type of a router advertisement (RFC 4861 section 4.2).
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// ICMPv6 type of a router solicitation (RFC 4861 section 4.1).
pub const ROUTER_SOLICITATION: u8 = 133;
/// RDNSS lifetime that means "for ever" (RFC 8106 section 5.1); prefix lifetimes use the same value.
pub const INFINITY: u32 = u32::MAX;

/// One router advertisement that passed the checks of RFC 4861 section 6.1.2.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouterAdvertisement {
    /// For how many seconds the sender is a default router; 0 = it is none. The options do not depend on it: they
    /// have their own lifetimes (RFC 4861 section 4.2).
    pub router_lifetime_s: u16,
    /// The sender's preference as a default router (RFC 4191 section 2.2); medium if it is no default router.
    pub preference: Preference,
    /// M flag: addresses are available by DHCPv6.
    pub managed: bool,
    /// O flag: other configuration is available by DHCPv6.
    pub other_config: bool,
    /// MTU option (RFC 4861 section 4.6.4).
    pub mtu: Option<u32>,
    /// PREF64 options (RFC 8781), in the order of the packet.
    pub pref64s: Vec<Offered<Pref64>>,
    /// Recursive DNS servers (RFC 8106), in the order of the packet.
    pub rdnss: Vec<Offered<Ipv6Addr>>,
    /// Prefix information options (RFC 4861 section 4.6.2), in the order of the packet.
    pub prefixes: Vec<PrefixInformation>,
    /// Options that are ignored although their type is known, and why; the first [`MAX_IGNORED`] of them.
    pub ignored: Vec<IgnoredOption>,
}

/// How many ignored options a [`RouterAdvertisement`] tells of.
pub const MAX_IGNORED: usize = 8;

/// A value that a router offers, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offered<T> {
    /// What is offered.
    pub value: T,
    /// For how many seconds it holds: 0 = withdrawn, [`INFINITY`] = for ever (RDNSS only).
    pub lifetime_s: u32,
}

/// Default router preference (RFC 4191 section 2.1), least first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Preference {
    /// 11
    Low,
    /// 00, and the reserved 10, which receivers treat as 00
    #[default]
    Medium,
    /// 01
    High,
}

/// A prefix of the link (RFC 4861 section 4.6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixInformation {
    /// The prefix; bits behind its length are zero.
    pub prefix: Ipv6Addr,
    /// Its length in bits, 0 to 128.
    pub length: u8,
    /// L flag.
    pub on_link: bool,
    /// A flag: hosts may make addresses of this prefix (RFC 4862).
    pub autonomous: bool,
    /// Seconds for which it is valid; [`INFINITY`] = for ever.
    pub valid_s: u32,
    /// For how many seconds addresses of this prefix are preferred; [`INFINITY`] = for ever.
    pub preferred_s: u32,
}

/// Why a packet is not a valid router advertisement, so that all of it is discarded (RFC 4861 section 6.1.2).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RaError {
    /// It crossed a router, or its sender faked that it did not.
    #[error("hop limit {0}: expected 255, for it must come from this link")]
    HopLimit(u8),
    /// The source is not link-local.
    #[error("source {0}: expected a link-local address (fe80::/10)")]
    Source(Ipv6Addr),
    /// No room for the fixed part.
    #[error("{0} bytes long: expected 16 or more")]
    Short(usize),
    /// Another ICMPv6 message.
    #[error("byte 0, ICMPv6 type {0}: expected 134, router advertisement")]
    Type(u8),
    /// ICMPv6 code not zero.
    #[error("byte 1, ICMPv6 code {0}: expected 0")]
    Code(u8),
    /// An option that says it has no length.
    #[error("byte {at}, option {kind}: length 0, expected 1 or more (units of 8 bytes)")]
    OptionWithoutLength {
        /// Offset of the option in the ICMPv6 message.
        at: usize,
        /// Option type.
        kind: u8,
    },
    /// An option that does not end within the packet.
    #[error("byte {at}, option {kind}: {length} bytes long, expected at most the {left} that are left")]
    OptionTooLong {
        /// Offset of the option in the ICMPv6 message.
        at: usize,
        /// Option type.
        kind: u8,
        /// Its length in bytes.
        length: usize,
        /// Bytes from its first to the packet's last.
        left: usize,
    },
    /// A single byte where an option should begin.
    #[error("byte {at}: 1 byte left, expected an option or the end")]
    OptionCutOff {
        /// Offset of the byte in the ICMPv6 message.
        at: usize,
    },
}

/// An option of a known type that must be ignored; the rest of the advertisement counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoredOption {
    /// Offset of the option in the ICMPv6 message.
    pub at: usize,
    /// Option type.
    pub kind: u8,
    /// Why.
    pub problem: OptionProblem,
}

/// Why an option is ignored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionProblem {
    /// Wrong length field.
    #[error("length {found}, expected {expected} (units of 8 bytes)")]
    Length {
        /// The length field.
        found: u8,
        /// What it may be.
        expected: &'static str,
    },
    /// PREF64 with an unassigned prefix length code (RFC 8781 section 4).
    #[error("prefix length code {0}, expected 0 to 5")]
    PrefixLengthCode(u8),
    /// PREF64 that breaks RFC 6052 section 2.2.
    #[error(transparent)]
    Pref64(#[from] Pref64Error),
    /// An address that cannot be what the option says.
    #[error("{address} is {what}")]
    Address {
        /// The address or prefix.
        address: Ipv6Addr,
        /// What it is instead.
        what: &'static str,
    },
    /// Less than every IPv6 link has (RFC 8200 section 5).
    #[error("MTU {0}, expected 1280 or more")]
    Mtu(u32),
    /// Prefix information with a prefix longer than an address.
    #[error("prefix length {0}, expected 0 to 128")]
    PrefixLength(u8),
    /// Preferred for longer than valid (RFC 4862 section 5.5.3).
    #[error("preferred for {preferred_s} s, expected at most the {valid_s} s for which it is valid")]
    Lifetimes {
        /// Preferred lifetime in seconds.
        preferred_s: u32,
        /// Valid lifetime in seconds.
        valid_s: u32,
    },
}

impl fmt::Display for IgnoredOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}, option {}: {}", self.at, self.kind, self.problem)
    }
}

impl fmt::Display for Preference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        })
    }
}

impl<T: fmt::Display> fmt::Display for Offered<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lifetime_s {
            0 => write!(f, "{} withdrawn", self.value),
            INFINITY => write!(f, "{} for ever", self.value),
            seconds => write!(f, "{} for {seconds} s", self.value),
        }
    }
}

/// One line: `router 1800 s, preference medium, pref64 64:ff9b::/96 for 600 s`.
impl fmt::Display for RouterAdvertisement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "router {} s, preference {}", self.router_lifetime_s, self.preference)?;
        if self.managed {
            f.write_str(", managed")?;
        }
        if self.other_config {
            f.write_str(", other-config")?;
        }
        if let Some(mtu) = self.mtu {
            write!(f, ", mtu {mtu}")?;
        }
        for pref64 in &self.pref64s {
            write!(f, ", pref64 {pref64}")?;
        }
        for server in &self.rdnss {
            write!(f, ", rdnss {server}")?;
        }
        for information in &self.prefixes {
            write!(f, ", prefix {}/{}", information.prefix, information.length)?;
            let flags = [
                (information.on_link, " on-link"),
                (information.autonomous, " autonomous"),
            ];
            for (_, name) in flags.iter().filter(|(set, _)| *set) {
                f.write_str(name)?;
            }
            let PrefixInformation {
                valid_s, preferred_s, ..
            } = information;
            write!(f, " valid {valid_s} s preferred {preferred_s} s")?;
        }
        for ignored in &self.ignored {
            write!(f, ", ignored: {ignored}")?;
        }
        Ok(())
    }
}
