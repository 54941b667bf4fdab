//! ICMP errors that the translator itself sends (RFC 7915 sections 4.4 and 5.4).

use crate::address;
use crate::chain::Icmpv6;
use crate::checksum;
use crate::icmp;
use crate::icmp_errors::{LONGEST4, LONGEST6};
use crate::wire::{self, V4_HEADER, V4Header, V6_HEADER, V6Header, proto};

/// What is sent to the source of a packet that goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// An ICMP error.
    Error(Head),
    /// An echo reply, see [`crate::own`].
    Echo,
}

/// The head of an ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    kind: u8,
    code: u8,
    /// Octets 4 to 7: the MTU or pointer.
    rest: u32,
}

const HEAD: usize = 8;
/// Of packets that the translator itself sends.
pub(crate) const TTL: u8 = 64;
/// Internetwork Control: errors SHOULD have precedence 6 or 7 (RFC 1812 section 4.3.2.5).
const TOS: u8 = 0xc0;

impl Answer {
    /// An ICMPv4 error; `rest` is the next-hop MTU or zero.
    pub(crate) fn v4(kind: u8, code: u8, rest: u32) -> Self {
        Self::Error(Head { kind, code, rest })
    }

    /// An ICMPv6 error; `rest` is the MTU, the pointer or zero.
    pub(crate) fn v6(kind: u8, code: u8, rest: u32) -> Self {
        Self::Error(Head { kind, code, rest })
    }
}

impl Head {
    /// Writes the ICMPv4 error about `packet` to `out`; returns its length, or `None` if there must be none
    /// (RFC 1122 section 3.2.2).
    pub(crate) fn write_v4(&self, packet: &[u8], own: u32, id: u16, out: &mut [u8]) -> Option<usize> {
        let header = V4Header::read(packet)?;
        if header.offset != 0
            || is_icmp_error4(&header, packet)
            || [header.source, header.destination].into_iter().any(is_unanswerable4)
        {
            return None;
        }
        let quoted = packet.get(..LONGEST4 - V4_HEADER - HEAD).unwrap_or(packet);
        let answer = V4Header {
            header: V4_HEADER,
            total: V4_HEADER + HEAD + quoted.len(),
            tos: TOS,
            id,
            df: false,
            mf: false,
            offset: 0,
            ttl: TTL,
            protocol: proto::ICMP,
            source: own,
            destination: header.source,
        };
        wire::put(out, 0, &answer.bytes());
        let message = self.write_message(quoted, out.get_mut(V4_HEADER..answer.total)?);
        let value = checksum::internet_checksum(message);
        wire::put16(message, 2, value);
        Some(answer.total)
    }

    /// Writes the ICMPv6 error about `packet` to `out`; returns its length, or `None` if there must be none: about an
    /// ICMPv6 error (RFC 4443 section 2.4 (e)), and "prohibited" about no ICMPv6 at all (RFC 7915 section 5.4).
    pub(crate) fn write_v6(&self, packet: &[u8], own: u128, out: &mut [u8]) -> Option<usize> {
        let header = V6Header::read(packet)?;
        let prohibited = (self.kind, self.code) == (icmp::v6::UNREACHABLE, icmp::v6::PROHIBITED);
        let answerable = match Icmpv6::of(packet) {
            Icmpv6::No => true,
            Icmpv6::Query => !prohibited,
            Icmpv6::Error => false,
        };
        if !answerable || [header.source, header.destination].into_iter().any(is_unanswerable6) {
            return None;
        }
        let quoted = packet.get(..LONGEST6 - V6_HEADER - HEAD).unwrap_or(packet);
        let length = HEAD + quoted.len();
        let answer = V6Header {
            traffic_class: 0,
            payload: length,
            next: proto::ICMPV6,
            hop_limit: TTL,
            source: own,
            destination: header.source,
        };
        wire::put(out, 0, &answer.bytes());
        let message = self.write_message(quoted, out.get_mut(V6_HEADER..V6_HEADER + length)?);
        let sum = checksum::sum(message) + checksum::pseudo6(own, header.source, length, proto::ICMPV6);
        wire::put16(message, 2, !checksum::fold(sum));
        Some(V6_HEADER + length)
    }

    fn write_message<'o>(&self, quoted: &[u8], out: &'o mut [u8]) -> &'o mut [u8] {
        wire::put(out, 0, &[self.kind, self.code, 0, 0]);
        wire::put(out, 4, &self.rest.to_be_bytes());
        wire::put(out, HEAD, quoted);
        out
    }
}

/// Whether a packet is an ICMPv4 error or might be one, an Authentication Header (RFC 4302) in front of it or not.
fn is_icmp_error4(header: &V4Header, packet: &[u8]) -> bool {
    let (mut protocol, mut at) = (header.protocol, header.header);
    while protocol == proto::AH {
        let Some([next, length, ..]) = packet.get(at..) else {
            return true;
        };
        protocol = *next;
        at += (usize::from(*length) + 2) * 4;
    }
    protocol == proto::ICMP && packet.get(at).copied().is_none_or(icmp::is_error4)
}

fn is_unanswerable4(address: u32) -> bool {
    address::is_illegal4(address) || address::is_multicast4(address)
}

fn is_unanswerable6(address: u128) -> bool {
    address::is_illegal6(address) || address::is_multicast6(address)
}
