//! Checksums in transport headers (RFC 7915 sections 4.5 and 5.5).

use crate::checksum;
use crate::counters::{DropReason, Protocol};
use crate::wire::{self, proto};

/// What replacing the addresses does to a sum over the pseudo-header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delta {
    /// The sum of the words that go.
    pub(crate) minus: u64,
    /// The sum of the words that come.
    pub(crate) plus: u64,
}

impl Delta {
    #[inline]
    pub(crate) fn new(source4: u32, destination4: u32, source6: u128, destination6: u128) -> Self {
        Self {
            minus: checksum::sum4(source4) + checksum::sum4(destination4),
            plus: checksum::sum6(source6) + checksum::sum6(destination6),
        }
    }

    #[inline]
    pub(crate) fn reverse(self) -> Self {
        Self {
            minus: self.plus,
            plus: self.minus,
        }
    }
}

#[inline]
pub(crate) fn class(protocol: u8) -> Protocol {
    match protocol {
        proto::TCP => Protocol::Tcp,
        proto::UDP => Protocol::Udp,
        proto::ICMP | proto::ICMPV6 => Protocol::Icmp,
        _ => Protocol::Other,
    }
}

/// Where the checksum field of a transport header lies, if its checksum covers the addresses. (SCTP's does not.)
#[inline(always)]
fn checksum_at(protocol: u8) -> Option<usize> {
    match protocol {
        proto::TCP => Some(16),
        proto::UDP | proto::UDP_LITE | proto::DCCP => Some(6),
        _ => None,
    }
}

/// Checks the transport header at the start of an unfragmented packet (`whole`) or of a first fragment.
#[inline(always)]
pub(crate) fn check(protocol: u8, rest: &[u8], whole: bool) -> Result<(), DropReason> {
    let least = match protocol {
        proto::TCP => 20,
        proto::UDP | proto::UDP_LITE => 8,
        proto::DCCP => 12,
        _ => 0,
    };
    if rest.len() < least {
        return Err(DropReason::TransportHeader);
    }
    if protocol == proto::UDP {
        let length = usize::from(wire::be16(rest, 4).unwrap_or(0));
        if length < 8 || whole && length > rest.len() {
            return Err(DropReason::TransportHeader);
        }
    }
    Ok(())
}

/// Whether a checksum that comes to zero is sent as all ones, because zero in the field has a meaning of its own: UDP
/// (RFC 768) and UDP-Lite (RFC 3828 section 3.1). TCP, DCCP and ICMP have no such rule.
#[inline(always)]
pub(crate) fn has_no_zero(protocol: u8) -> bool {
    matches!(protocol, proto::UDP | proto::UDP_LITE)
}

/// The value of a checksum field whose sum comes to `value`.
#[inline(always)]
pub(crate) fn sent(protocol: u8, value: u16) -> u16 {
    if value == 0 && has_no_zero(protocol) {
        0xffff
    } else {
        value
    }
}

/// Whether this is UDP without a checksum.
#[inline]
pub(crate) fn is_udp_zero(protocol: u8, rest: &[u8]) -> bool {
    protocol == proto::UDP && wire::be16(rest, 6) == Some(0)
}

/// Updates the checksum of the transport header at the start of `rest`; `partial` says that the field holds the
/// sum of the pseudo-header only. A header cut short (inside ICMP errors) is left alone, and so is a checksum of zero
/// where zero is none: UDP has no checksum then, and UDP-Lite stays as invalid as it was.
#[inline(always)]
pub(crate) fn update(protocol: u8, rest: &mut [u8], delta: Delta, partial: bool) {
    let Some(at) = checksum_at(protocol) else { return };
    let Some(old) = wire::be16(rest, at) else { return };
    if partial {
        wire::put16(rest, at, checksum::update_partial(old, delta.minus, delta.plus));
        return;
    }
    if old == 0 && has_no_zero(protocol) {
        return;
    }
    let new = checksum::update(old, delta.minus, delta.plus);
    wire::put16(rest, at, sent(protocol, new));
}

/// Computes the missing checksum of a whole UDP packet that goes out over IPv6.
pub(crate) fn compute_udp6(rest: &mut [u8], source: u128, destination: u128) {
    let length = usize::from(wire::be16(rest, 4).unwrap_or(0));
    let Some(covered) = rest.get(..length) else { return };
    let sum = checksum::sum(covered) + checksum::pseudo6(source, destination, length, proto::UDP);
    wire::put16(rest, 6, sent(proto::UDP, !checksum::fold(sum)));
}
