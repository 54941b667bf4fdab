//! The packet inside an ICMP error (RFC 7915 sections 4.3 and 5.3): translated like any other, but possibly cut
//! short, with its TTL kept and with source and destination swapped around.

use crate::address::{AddressMap, Side};
use crate::chain::Chain;
use crate::checksum;
use crate::config::Tos;
use crate::counters::DropReason;
use crate::icmp;
use crate::transport::{self, Delta};
use crate::wire::{self, FRAGMENT_HEADER, FragmentHeader, V4_HEADER, V4Header, V6_HEADER, V6Header, proto};

/// What became of an inner packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inner {
    /// Octets of the translated packet, as far as the error carried it; the output may hold fewer.
    pub(crate) length: usize,
    /// IPv6 only: the IPv4 source was found by the prefix, not by an explicit mapping.
    pub(crate) source_by_prefix: bool,
    /// IPv4 source and destination.
    pub(crate) source4: u32,
}

/// Translates the IPv4 packet in error to `out`, as much of it as fits.
pub(crate) fn to_v6(
    map: &AddressMap,
    traffic_class: Tos,
    packet: &[u8],
    destination_side: Side,
    out: &mut [u8],
) -> Result<Inner, DropReason> {
    let header = V4Header::read(packet).ok_or(DropReason::IcmpInner)?;
    let payload = packet
        .get(header.header..)
        .filter(|_| header.header >= V4_HEADER)
        .ok_or(DropReason::IcmpInner)?;
    let source = map
        .to_v6(header.source, Side::Theirs)
        .map_err(|_| DropReason::IcmpInner)?;
    let destination = map
        .to_v6(header.destination, destination_side)
        .map_err(|_| DropReason::IcmpInner)?;
    let fragment = if header.is_fragment() { FRAGMENT_HEADER } else { 0 };
    let claimed = header.total.saturating_sub(header.header);
    let next = if header.protocol == proto::ICMP {
        proto::ICMPV6
    } else {
        header.protocol
    };
    let header6 = V6Header {
        traffic_class: traffic_class.apply(header.tos),
        payload: (claimed + fragment).min(0xffff),
        next: if fragment > 0 { proto::FRAGMENT } else { next },
        hop_limit: header.ttl,
        source,
        destination,
    };
    wire::put(out, 0, &header6.bytes());
    if fragment > 0 {
        let fields = FragmentHeader {
            next,
            offset: header.offset,
            more: header.mf,
            id: u32::from(header.id),
        };
        wire::put(out, V6_HEADER, &fields.bytes());
    }
    let rest = copy(payload, out, V6_HEADER + fragment)?;
    if header.offset == 0 {
        update6(rest, &header, &header6, claimed)?;
    }
    Ok(Inner {
        length: V6_HEADER + fragment + payload.len(),
        source_by_prefix: false,
        source4: header.source,
    })
}

/// Updates the transport header in `rest`, which belongs to `claimed` octets.
fn update6(rest: &mut [u8], header: &V4Header, header6: &V6Header, claimed: usize) -> Result<(), DropReason> {
    let (source, destination) = (header6.source, header6.destination);
    if header.protocol != proto::ICMP {
        let delta = Delta::new(header.source, header.destination, source, destination);
        transport::update(header.protocol, rest, delta, false);
        return Ok(());
    }
    let whole = !header.is_fragment();
    let pseudo = whole.then(|| checksum::pseudo6(source, destination, claimed, proto::ICMPV6));
    icmp_head(rest, icmp::echo4, icmp::is_error4, |old, minus, plus| {
        checksum::update(old, minus, plus + pseudo.unwrap_or(0))
    })
}

/// Translates the IPv6 packet in error to `out`, as much of it as fits.
pub(crate) fn to_v4(map: &AddressMap, tos: Tos, packet: &[u8], out: &mut [u8]) -> Result<Inner, DropReason> {
    let header = V6Header::read(packet).ok_or(DropReason::IcmpInner)?;
    let chain = Chain::walk(packet, header.next).map_err(|_| DropReason::IcmpInner)?;
    let payload = packet.get(chain.transport_at..).ok_or(DropReason::IcmpInner)?;
    let source = map
        .to_v4(header.source, Side::Ours)
        .map_err(|_| DropReason::IcmpInner)?;
    let destination = map
        .to_v4(header.destination, Side::Theirs)
        .map_err(|_| DropReason::IcmpInner)?;
    let claimed = (header.payload + V6_HEADER).saturating_sub(chain.transport_at);
    let total = claimed + V4_HEADER;
    let header4 = V4Header {
        header: V4_HEADER,
        total: total.min(0xffff),
        tos: tos.apply(header.traffic_class),
        id: chain.fragment.map_or(0, |fragment| fragment.id as u16),
        df: chain.fragment.is_none() && total > 1260,
        mf: chain.fragment.is_some_and(|fragment| fragment.more),
        offset: chain.fragment.map_or(0, |fragment| fragment.offset),
        ttl: header.hop_limit,
        protocol: if chain.protocol == proto::ICMPV6 {
            proto::ICMP
        } else {
            chain.protocol
        },
        source: source.address,
        destination: destination.address,
    };
    wire::put(out, 0, &header4.bytes());
    let rest = copy(payload, out, V4_HEADER)?;
    if header4.offset == 0 {
        if chain.protocol == proto::ICMPV6 {
            let whole = !header4.is_fragment();
            let pseudo = whole.then(|| checksum::pseudo6(header.source, header.destination, claimed, proto::ICMPV6));
            icmp_head(rest, icmp::echo6, icmp::is_error6, |old, minus, plus| {
                checksum::update(old, minus + pseudo.unwrap_or(0), plus)
            })?;
        } else {
            let delta = Delta::new(source.address, destination.address, header.source, header.destination);
            transport::update(chain.protocol, rest, delta.reverse(), false);
        }
    }
    Ok(Inner {
        length: V4_HEADER + payload.len(),
        source_by_prefix: source.by_prefix,
        source4: source.address,
    })
}

/// Whether the IPv6 packet in error has a Fragment Header, and its length without padding behind it.
pub(crate) fn measure_v6(packet: &[u8]) -> Option<(bool, usize)> {
    let header = V6Header::read(packet)?;
    let chain = Chain::walk(packet, header.next).ok()?;
    Some((chain.fragment.is_some(), V6_HEADER + header.payload))
}

/// Copies as much of `payload` as fits behind the first `at` octets of `out`; returns the copy.
fn copy<'o>(payload: &[u8], out: &'o mut [u8], at: usize) -> Result<&'o mut [u8], DropReason> {
    let room = out.get_mut(at..).ok_or(DropReason::NoRoom)?;
    let length = payload.len().min(room.len());
    let to = room.get_mut(..length).ok_or(DropReason::NoRoom)?;
    to.copy_from_slice(payload.get(..length).ok_or(DropReason::NoRoom)?);
    Ok(to)
}

/// Translates the type of an inner echo message and its checksum, as far as they are there. Errors inside of
/// errors are not translated (section 4.3), other messages cannot be.
fn icmp_head(
    message: &mut [u8],
    echo: impl Fn(u8) -> Option<u8>,
    is_error: impl Fn(u8) -> bool,
    update: impl Fn(u16, u64, u64) -> u16,
) -> Result<(), DropReason> {
    let Some(&kind) = message.first() else { return Ok(()) };
    let Some(new) = echo(kind) else {
        return Err(if is_error(kind) {
            DropReason::IcmpInnerError
        } else {
            DropReason::IcmpInner
        });
    };
    let code = message.get(1).copied().unwrap_or(0);
    wire::put(message, 0, &[new]);
    if let Some(old) = wire::be16(message, 2) {
        let word = |kind| u64::from(u16::from_be_bytes([kind, code]));
        wire::put16(message, 2, update(old, word(kind), word(new)));
    }
    Ok(())
}
