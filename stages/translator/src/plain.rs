//! The short way of plain packets: unfragmented TCP, UDP and echoes with no options or extension headers, which need
//! no answer. Nearly all traffic is such, super-packets too.
//!
//! It is put together from the same rules as the long way of `v4to6` and `v6to4`, without the detours. Whatever is
//! not plain, and whatever has to be dropped, is left to the long way, untouched; the tests hold the two together.

use crate::address::{Side, is_forwarded4};
use crate::buffer::PacketBuf;
use crate::chain::Chain;
use crate::counters::Protocol;
use crate::gso::Offload;
use crate::icmp;
use crate::outcome::Pass;
use crate::translator::Translator;
use crate::transport::{self, Delta};
use crate::wire::{V4_HEADER, V6_HEADER, V6Header, proto};
use crate::{v4to6, v6to4};

/// What the long way calls `Done`, for a packet that lies where it was and goes out as it is.
pub(crate) struct Plain {
    pub(crate) protocol: Protocol,
    pub(crate) offload: Offload,
}

/// Translates a plain IPv4 packet, or returns `None` and changes nothing.
#[inline]
pub(crate) fn v4to6(translator: &Translator, offload: &Offload, packet: &mut PacketBuf<'_>) -> Option<Plain> {
    let header = v4to6::parse(packet.bytes()).ok()?;
    if header.header != V4_HEADER || header.is_fragment() {
        return None;
    }
    let rest = packet.bytes().get(V4_HEADER..header.total)?;
    let echo = match header.protocol {
        proto::TCP | proto::UDP => None,
        proto::ICMP => Some(echo(rest, offload, icmp::echo4)?),
        _ => return None,
    };
    if !is_forwarded4(header.source) || !is_forwarded4(header.destination) {
        return None;
    }
    if translator.is_own4(header.destination) || Pass::First.is_expired(header.ttl) {
        return None;
    }
    let source = translator.map.to_v6(header.source, Side::Ours).ok()?;
    let destination = translator.map.to_v6(header.destination, Side::Theirs).ok()?;
    transport::check(header.protocol, rest, true).ok()?;
    let segment_header = offload.check(Offload::GSO_TCPV4, header.protocol, rest).ok()?;
    let partial = offload.is_partial(V4_HEADER);
    if !partial && transport::is_udp_zero(header.protocol, rest) {
        return None;
    }
    let limit = v4to6::check_size(translator, &header, rest.len(), offload, segment_header);
    if !matches!(limit, Ok(None)) || !packet.has_room(V4_HEADER, V6_HEADER) {
        return None;
    }
    let offload = offload.moved(V4_HEADER, V6_HEADER, Offload::GSO_TCPV6).ok()?;

    let header6 = V6Header {
        traffic_class: translator.traffic_class.apply(header.tos),
        payload: rest.len(),
        next: if echo.is_some() { proto::ICMPV6 } else { header.protocol },
        hop_limit: Pass::First.ttl(header.ttl),
        source,
        destination,
    };
    packet.truncate(header.total);
    let rest = packet.bytes_mut().get_mut(V4_HEADER..)?;
    if let Some(kind) = echo {
        v4to6::rewrite_echo(rest, kind, source, destination);
    } else {
        let delta = Delta::new(header.source, header.destination, source, destination);
        transport::update(header.protocol, rest, delta, partial);
    }
    packet.replace_front(V4_HEADER, &header6.bytes());
    let protocol = transport::class(header.protocol);
    Some(Plain { protocol, offload })
}

/// Translates a plain IPv6 packet, or returns `None` and changes nothing.
#[inline]
pub(crate) fn v6to4(
    translator: &Translator,
    identification: &mut u32,
    offload: &Offload,
    packet: &mut PacketBuf<'_>,
) -> Option<Plain> {
    let header = v6to4::parse(packet.bytes()).ok()?;
    let total = V6_HEADER + header.payload;
    let rest = packet.bytes().get(V6_HEADER..total)?;
    let echo = match header.next {
        proto::TCP | proto::UDP => None,
        proto::ICMPV6 => Some(echo(rest, offload, icmp::echo6)?),
        _ => return None,
    };
    v6to4::check_addresses(&header).ok()?;
    if translator.is_own6(header.destination) || Pass::First.is_expired(header.hop_limit) {
        return None;
    }
    let destination = translator.map.to_v4(header.destination, Side::Ours).ok()?;
    let source = translator.map.to_v4(header.source, Side::Theirs).ok()?;
    if !is_forwarded4(source.address) || !is_forwarded4(destination.address) {
        return None;
    }
    if destination.by_prefix && translator.hairpin && translator.map.is_mapped(destination.address) {
        return None;
    }
    transport::check(header.next, rest, true).ok()?;
    let segment_header = offload.check(Offload::GSO_TCPV6, header.next, rest).ok()?;
    let mut header4 = v6to4::header4(translator, &header, &Chain::none(header.next), rest.len()).ok()?;
    let (segment, segments) = v6to4::segments(offload, segment_header, rest.len());
    if segment > translator.mtus.mtu4 as usize {
        return None;
    }
    let partial = offload.is_partial(V6_HEADER);
    let offload = offload.moved(V6_HEADER, V4_HEADER, Offload::GSO_TCPV4).ok()?;

    header4.source = source.address;
    header4.destination = destination.address;
    header4.df = v6to4::needs_df(segment);
    header4.id = v6to4::next_identification(identification, segments);
    packet.truncate(total);
    let rest = packet.bytes_mut().get_mut(V6_HEADER..)?;
    if let Some(kind) = echo {
        v6to4::rewrite_echo(rest, kind, &header);
    } else {
        let delta = Delta::new(header4.source, header4.destination, header.source, header.destination);
        transport::update(header.next, rest, delta.reverse(), partial);
    }
    packet.replace_front(V6_HEADER, &header4.bytes());
    let protocol = transport::class(header.next);
    Some(Plain { protocol, offload })
}

/// The type that an echo message gets; `None` for other messages and for those whose checksum is not there yet.
#[inline]
fn echo(message: &[u8], offload: &Offload, translated: fn(u8) -> Option<u8>) -> Option<u8> {
    let head = message.first_chunk::<8>()?;
    if *offload == Offload::NONE {
        translated(head[0])
    } else {
        None
    }
}
