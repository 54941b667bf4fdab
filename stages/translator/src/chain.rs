//! The extension headers of IPv6 (RFC 8200 section 4).

use crate::counters::DropReason;
use crate::icmp;
use crate::wire::{self, FragmentHeader, V6_HEADER, V6Header, proto};

/// The extension headers of an IPv6 packet up to its transport header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    /// The first Next Header value that is none of those that are skipped (section 5.1).
    pub(crate) protocol: u8,
    /// Where that header starts.
    pub(crate) transport_at: usize,
    pub(crate) fragment: Option<FragmentHeader>,
    /// Where the Segments Left field of the first Routing header that has some left lies.
    pub(crate) segments_left_at: Option<usize>,
}

impl Chain {
    /// That of a packet without extension headers.
    #[inline]
    pub(crate) fn none(protocol: u8) -> Self {
        Self {
            protocol,
            transport_at: V6_HEADER,
            fragment: None,
            segments_left_at: None,
        }
    }

    /// Walks the headers of `packet`, the first of which is `next`. Stops at a Fragment Header, because nothing
    /// behind it is to be looked at (section 5.1.1).
    #[inline]
    pub(crate) fn walk(packet: &[u8], next: u8) -> Result<Self, DropReason> {
        let mut chain = Self::none(next);
        loop {
            let rest = packet.get(chain.transport_at..).ok_or(DropReason::Truncated)?;
            match chain.protocol {
                proto::HOP_BY_HOP | proto::ROUTING | proto::DEST_OPTIONS => {
                    let [next, length, _, segments_left, ..] = *rest else {
                        return Err(DropReason::Truncated);
                    };
                    if chain.protocol == proto::ROUTING && segments_left != 0 && chain.segments_left_at.is_none() {
                        chain.segments_left_at = Some(chain.transport_at + 3);
                    }
                    chain.protocol = next;
                    chain.transport_at += (usize::from(length) + 1) * 8;
                }
                proto::FRAGMENT => {
                    let fragment = FragmentHeader::read(rest).ok_or(DropReason::Truncated)?;
                    chain.protocol = fragment.next;
                    chain.transport_at += wire::FRAGMENT_HEADER;
                    chain.fragment = Some(fragment);
                    return Ok(chain);
                }
                _ => return Ok(chain),
            }
        }
    }

    pub(crate) fn is_fragment(&self) -> bool {
        self.fragment.is_some_and(|fragment| fragment.is_fragment())
    }

    pub(crate) fn is_first(&self) -> bool {
        self.fragment.is_none_or(|fragment| fragment.offset == 0)
    }
}

/// Whether a packet is ICMPv6, as the rules about ICMPv6 errors want to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Icmpv6 {
    No,
    /// A message that an error may be sent about.
    Query,
    /// An error, or it might be one.
    Error,
}

impl Icmpv6 {
    /// Looks behind all headers whose length can be told, those included that are not skipped in translation: the
    /// Fragment Header and the Authentication Header (RFC 4302).
    pub(crate) fn of(packet: &[u8]) -> Self {
        let Some(header) = V6Header::read(packet) else {
            return Self::Error;
        };
        let (mut protocol, mut at) = (header.next, V6_HEADER);
        loop {
            let Some(rest) = packet.get(at..) else {
                return Self::Error;
            };
            let length = match (protocol, rest) {
                (proto::ICMPV6, [kind, ..]) if !icmp::is_error6(*kind) => return Self::Query,
                (proto::ICMPV6, _) => return Self::Error,
                (proto::FRAGMENT, _) => match FragmentHeader::read(rest) {
                    // What follows is the middle of something.
                    Some(fragment) if fragment.offset > 0 => {
                        return if fragment.next == proto::ICMPV6 {
                            Self::Error
                        } else {
                            Self::No
                        };
                    }
                    Some(_) => wire::FRAGMENT_HEADER,
                    None => return Self::Error,
                },
                (proto::AH, [_, length, ..]) => (usize::from(*length) + 2) * 4,
                (
                    proto::HOP_BY_HOP
                    | proto::ROUTING
                    | proto::DEST_OPTIONS
                    | proto::MOBILITY
                    | proto::HIP
                    | proto::SHIM6,
                    [_, length, ..],
                ) => (usize::from(*length) + 1) * 8,
                (
                    proto::AH
                    | proto::HOP_BY_HOP
                    | proto::ROUTING
                    | proto::DEST_OPTIONS
                    | proto::MOBILITY
                    | proto::HIP
                    | proto::SHIM6,
                    _,
                ) => return Self::Error,
                _ => return Self::No,
            };
            protocol = rest.first().copied().unwrap_or(proto::NONE);
            at += length;
        }
    }
}
