//! Neighbour solicitations and advertisements as bytes, from the IPv6 header on.

use std::fmt;
use std::net::Ipv6Addr;

use clatd_translator::internet_checksum;
use serde::{Serialize, Serializer};

const IPV6_HEADER: usize = 40;
/// Type, code, checksum, flags, target.
const FIXED: usize = 24;
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const OPTION_SOURCE_LINK_ADDRESS: u8 = 1;
const OPTION_TARGET_LINK_ADDRESS: u8 = 2;
const OPTION_NONCE: u8 = 14;
/// Routers drop packets with a lower value, so the sender is on the link (RFC 4861 section 3.1).
const HOP_LIMIT: u8 = 255;
const FLAG_ROUTER: u8 = 0x80;
const FLAG_SOLICITED: u8 = 0x40;
const FLAG_OVERRIDE: u8 = 0x20;

/// A link-layer address: six bytes on everything like Ethernet. From an option of a message it has the option's whole
/// length, padding included (RFC 4861 section 4.6.1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkAddress(Vec<u8>);

impl LinkAddress {
    /// The address of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for LinkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, byte) in self.0.iter().enumerate() {
            let colon = if place == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for LinkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for LinkAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A nonce, by which a sender recognises its own solicitation (RFC 7527 section 4.1). It has six bytes, as all
/// senders of such solicitations use. RFC 3971 allows longer ones, which are never ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonce(pub [u8; 6]);

/// A neighbour solicitation (RFC 4861 section 4.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Solicitation {
    /// IPv6 source; `::` = its sender does duplicate address detection.
    pub source: Ipv6Addr,
    /// IPv6 destination.
    pub destination: Ipv6Addr,
    /// The address asked about.
    pub target: Ipv6Addr,
    /// Source link-layer address option.
    pub source_link_address: Option<LinkAddress>,
    /// Nonce option, where it has six bytes.
    pub nonce: Option<Nonce>,
}

impl Solicitation {
    /// Checks the rules for duplicate address detection, where the source is the unspecified address.
    fn check(&self) -> Result<(), NdError> {
        if !self.source.is_unspecified() {
            return Ok(());
        }
        if self.destination != solicited_node(self.target) {
            return Err(NdError::Destination);
        }
        if self.source_link_address.is_some() {
            return Err(NdError::SourceLinkAddress);
        }
        Ok(())
    }

    /// The solicitation of duplicate address detection (RFC 4862 section 5.4.2).
    pub fn detecting(target: Ipv6Addr, nonce: Nonce) -> Self {
        Self {
            source: Ipv6Addr::UNSPECIFIED,
            destination: solicited_node(target),
            target,
            source_link_address: None,
            nonce: Some(nonce),
        }
    }
}

/// A neighbour advertisement (RFC 4861 section 4.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertisement {
    /// IPv6 source.
    pub source: Ipv6Addr,
    /// IPv6 destination.
    pub destination: Ipv6Addr,
    /// The address that is advertised.
    pub target: Ipv6Addr,
    /// The sender is a router.
    pub router: bool,
    /// The Solicited flag: it answers a solicitation from the node to which it is sent (RFC 4861 section 4.4).
    pub solicited: bool,
    /// The neighbours are to replace what they know. Proxies leave the flag off.
    pub overriding: bool,
    /// Target link-layer address option.
    pub target_link_address: Option<LinkAddress>,
}

/// One of the two messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NdMessage {
    /// Neighbour solicitation.
    Solicitation(Solicitation),
    /// Neighbour advertisement.
    Advertisement(Advertisement),
}

/// Why a packet is not a valid neighbour solicitation or advertisement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NdError {
    /// Shorter than its headers say or need.
    #[error("truncated")]
    Truncated,
    /// Not IPv6.
    #[error("not IPv6")]
    NotIpv6,
    /// Directly behind the IPv6 header there is neither of the two messages.
    #[error("no neighbour solicitation or advertisement")]
    OtherMessage,
    /// Came through a router.
    #[error("hop limit is not 255")]
    HopLimit,
    /// ICMPv6 checksum.
    #[error("wrong checksum")]
    Checksum,
    /// ICMPv6 code.
    #[error("code is not 0")]
    Code,
    /// No packet may come from there.
    #[error("source is a multicast address")]
    MulticastSource,
    /// Nobody owns a multicast address.
    #[error("target is a multicast address")]
    MulticastTarget,
    /// An option of length 0, or longer than the message.
    #[error("an option has a wrong length")]
    OptionLength,
    /// A solicitation from `::` goes to the solicited-node address of its target.
    #[error("from the unspecified address, but not to the target's solicited-node address")]
    Destination,
    /// A solicitation from `::` must not have a source link-layer address.
    #[error("from the unspecified address, but with a source link-layer address")]
    SourceLinkAddress,
    /// An advertisement to a multicast address must not have the Solicited flag.
    #[error("solicited advertisement to a multicast address")]
    SolicitedMulticast,
}

impl NdMessage {
    /// Reads a packet that begins with its IPv6 header, and makes all checks of RFC 4861 sections 7.1.1 and 7.1.2.
    /// Extension headers are not followed: no implementation sends these messages behind one.
    pub fn parse(packet: &[u8]) -> Result<Self, NdError> {
        let (header, rest) = packet.split_first_chunk::<IPV6_HEADER>().ok_or(NdError::Truncated)?;
        if header[0] >> 4 != 6 {
            return Err(NdError::NotIpv6);
        }
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        // What follows the payload is padding of the link layer.
        let icmp = rest.get(..length).ok_or(NdError::Truncated)?;
        if header[6] != ICMPV6 || !matches!(icmp.first(), Some(&(SOLICITATION | ADVERTISEMENT))) {
            return Err(NdError::OtherMessage);
        }
        if header[7] != HOP_LIMIT {
            return Err(NdError::HopLimit);
        }
        let (fixed, options) = icmp.split_first_chunk::<FIXED>().ok_or(NdError::Truncated)?;
        let (source, destination) = (address(&header[8..24]), address(&header[24..40]));
        if source.is_multicast() {
            return Err(NdError::MulticastSource);
        }
        if checksum(source, destination, icmp) != 0 {
            return Err(NdError::Checksum);
        }
        if fixed[1] != 0 {
            return Err(NdError::Code);
        }
        let target = address(&fixed[8..24]);
        if target.is_multicast() {
            return Err(NdError::MulticastTarget);
        }
        let options = NdOptions::parse(options)?;
        if fixed[0] == ADVERTISEMENT {
            let advertisement = Advertisement {
                source,
                destination,
                target,
                router: fixed[4] & FLAG_ROUTER != 0,
                solicited: fixed[4] & FLAG_SOLICITED != 0,
                overriding: fixed[4] & FLAG_OVERRIDE != 0,
                target_link_address: options.target_link_address,
            };
            if advertisement.solicited && destination.is_multicast() {
                return Err(NdError::SolicitedMulticast);
            }
            return Ok(Self::Advertisement(advertisement));
        }
        let solicitation = Solicitation {
            source,
            destination,
            target,
            source_link_address: options.source_link_address,
            nonce: options.nonce,
        };
        solicitation.check()?;
        Ok(Self::Solicitation(solicitation))
    }

    /// The packet, from the IPv6 header on. Each option's contents are padded with zeros to a multiple of eight
    /// bytes.
    pub fn packet(&self) -> Vec<u8> {
        let mut icmp = vec![0u8; 8];
        let (source, destination) = match self {
            Self::Solicitation(ns) => {
                icmp[0] = SOLICITATION;
                icmp.extend(ns.target.octets());
                push_option(
                    &mut icmp,
                    OPTION_SOURCE_LINK_ADDRESS,
                    ns.source_link_address.as_ref().map(LinkAddress::bytes),
                );
                push_option(&mut icmp, OPTION_NONCE, ns.nonce.as_ref().map(|nonce| &nonce.0[..]));
                (ns.source, ns.destination)
            }
            Self::Advertisement(na) => {
                icmp[0] = ADVERTISEMENT;
                for (set, flag) in [
                    (na.router, FLAG_ROUTER),
                    (na.solicited, FLAG_SOLICITED),
                    (na.overriding, FLAG_OVERRIDE),
                ] {
                    icmp[4] |= if set { flag } else { 0 };
                }
                icmp.extend(na.target.octets());
                push_option(
                    &mut icmp,
                    OPTION_TARGET_LINK_ADDRESS,
                    na.target_link_address.as_ref().map(LinkAddress::bytes),
                );
                (na.source, na.destination)
            }
        };
        let sum = checksum(source, destination, &icmp);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(u16::try_from(icmp.len()).unwrap_or(u16::MAX).to_be_bytes());
        packet.extend([ICMPV6, HOP_LIMIT]);
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(icmp);
        packet
    }

    /// The address that the message is about.
    pub fn target(&self) -> Ipv6Addr {
        match self {
            Self::Solicitation(ns) => ns.target,
            Self::Advertisement(na) => na.target,
        }
    }

    /// IPv6 source.
    pub fn source(&self) -> Ipv6Addr {
        match self {
            Self::Solicitation(ns) => ns.source,
            Self::Advertisement(na) => na.source,
        }
    }
}

/// The solicited-node multicast address of an address: ff02::1:ffXX:XXXX (RFC 4291 section 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let low = address.to_bits() & 0xff_ffff;
    Ipv6Addr::from_bits(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).to_bits() | low)
}

/// The options that are used; of each kind the first.
#[derive(Default)]
struct NdOptions {
    source_link_address: Option<LinkAddress>,
    target_link_address: Option<LinkAddress>,
    nonce: Option<Nonce>,
}

impl NdOptions {
    fn parse(mut bytes: &[u8]) -> Result<Self, NdError> {
        let mut options = Self::default();
        while let Some((&kind, rest)) = bytes.split_first() {
            let length = usize::from(*rest.first().ok_or(NdError::OptionLength)?) * 8;
            if length == 0 || length > bytes.len() {
                return Err(NdError::OptionLength);
            }
            let (option, after) = bytes.split_at(length);
            let contents = &option[2..];
            match kind {
                OPTION_SOURCE_LINK_ADDRESS => {
                    options
                        .source_link_address
                        .get_or_insert_with(|| LinkAddress::new(contents));
                }
                OPTION_TARGET_LINK_ADDRESS => {
                    options
                        .target_link_address
                        .get_or_insert_with(|| LinkAddress::new(contents));
                }
                OPTION_NONCE => options.nonce = options.nonce.or(contents.try_into().ok().map(Nonce)),
                _ => {}
            }
            bytes = after;
        }
        Ok(options)
    }
}

fn push_option(icmp: &mut Vec<u8>, kind: u8, contents: Option<&[u8]>) {
    let Some(contents) = contents else { return };
    let units = (contents.len() + 2).div_ceil(8);
    let start = icmp.len();
    icmp.extend([kind, u8::try_from(units).unwrap_or(u8::MAX)]);
    icmp.extend(contents);
    icmp.resize(start + units * 8, 0);
}

/// ICMPv6 checksum with the pseudo-header (RFC 8200 section 8.1). Over a message with a correct checksum it is 0.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, icmp: &[u8]) -> u16 {
    let mut bytes = Vec::with_capacity(IPV6_HEADER + icmp.len());
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    bytes.extend(u32::try_from(icmp.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend([0, 0, 0, ICMPV6]);
    bytes.extend(icmp);
    internet_checksum(&bytes)
}

/// Sixteen bytes as an address.
fn address(bytes: &[u8]) -> Ipv6Addr {
    let mut octets = [0; 16];
    for (to, from) in octets.iter_mut().zip(bytes) {
        *to = *from;
    }
    Ipv6Addr::from(octets)
}
