//! IPv4 to IPv6 (RFC 7915 section 4).

use crate::address::{self, Side};
use crate::buffer::PacketBuf;
use crate::checksum;
use crate::config::UdpZeroChecksum;
use crate::counters::DropReason;
use crate::generate::Answer;
use crate::gso::Offload;
use crate::icmp;
use crate::icmp_errors;
use crate::outcome::{Done, Dropped, Pass, ResultPlace};
use crate::own;
use crate::translator::Translator;
use crate::transport::{self, Delta};
use crate::wire::{self, FRAGMENT_HEADER, FragmentHeader, V4_HEADER, V4Header, V6_HEADER, V6Header, proto};

/// Translates the packet in place, or an ICMP error to `scratch`. On an error the packet is as it was.
pub(crate) fn translate(
    translator: &Translator,
    pass: Pass,
    mut offload: Offload,
    packet: &mut PacketBuf<'_>,
    scratch: &mut [u8],
) -> Result<Done, Dropped> {
    let header = parse(packet.bytes())?;
    packet.truncate(header.total);
    let is_icmp = header.protocol == proto::ICMP;
    if is_icmp && offload.flags & Offload::NEEDS_CSUM != 0 {
        offload.complete(packet.bytes_mut(), header.protocol)?;
    }
    let rest = packet.bytes().get(header.header..).unwrap_or_default();
    let icmp_type = rest.first().copied().filter(|_| is_icmp && header.offset == 0);
    let is_error = icmp_type.is_some_and(icmp::is_error4);

    check_addresses(&header, is_error)?;
    if pass == Pass::First && translator.is_own4(header.destination) {
        return Err(own::v4(&header, rest));
    }
    if is_error && icmp_type != Some(icmp::v4::REDIRECT) && icmp_type != Some(icmp::v4::SOURCE_QUENCH) {
        return error(translator, pass, &header, packet.bytes(), scratch);
    }
    let (source, destination) = map(translator, pass, &header)?;
    check_forwarding(pass, &header, packet.bytes())?;
    let (sum, segment_header) = check_transport(translator, &header, rest, &offload)?;
    let limit = check_size(translator, &header, rest.len(), &offload, segment_header)?;
    let fragment = if header.is_fragment() { FRAGMENT_HEADER } else { 0 };
    let moved = offload.moved(header.header, V6_HEADER + fragment, Offload::GSO_TCPV6)?;

    let header6 = V6Header {
        traffic_class: translator.traffic_class.apply(header.tos),
        payload: rest.len() + fragment,
        next: if is_icmp { proto::ICMPV6 } else { header.protocol },
        hop_limit: pass.ttl(header.ttl),
        source,
        destination,
    };
    rewrite(packet, &header, header6, sum)?;
    Ok(Done {
        protocol: header.protocol,
        place: ResultPlace::Packet,
        offload: moved,
        fragment: limit.map(|limit| (limit, (fragment == 0).then_some(u32::from(header.id)))),
        hairpin: false,
    })
}

/// Checks what is behind the header. Returns what has to be done about its checksum, and the octets of transport header
/// that every segment of a super-packet repeats.
fn check_transport(
    translator: &Translator,
    header: &V4Header,
    rest: &[u8],
    offload: &Offload,
) -> Result<(Sum, usize), Dropped> {
    if header.protocol == proto::IGMP {
        return Err(DropReason::Igmp.into());
    }
    let echo = if header.protocol == proto::ICMP {
        Some(check_icmp(header, rest)?)
    } else {
        None
    };
    if header.offset == 0 {
        transport::check(header.protocol, rest, !header.mf)?;
    }
    let segment_header = offload.check(Offload::GSO_TCPV4, header.protocol, rest)?;
    if offload.is_gso() && header.is_fragment() {
        return Err(DropReason::BadOffload.into());
    }
    let partial = offload.is_partial(header.header);
    let udp_zero = header.offset == 0 && !partial && transport::is_udp_zero(header.protocol, rest);
    check_udp_zero(translator, header, udp_zero)?;
    let sum = match echo {
        Some(kind) => Sum::Echo(kind),
        None if udp_zero && !header.mf && translator.udp_zero_checksum == UdpZeroChecksum::Compute => Sum::Missing,
        None if header.offset == 0 => Sum::Transport { partial },
        None => Sum::Elsewhere,
    };
    Ok((sum, segment_header))
}

/// What has to be done about the transport checksum.
enum Sum {
    /// That of an echo message, which gets this type.
    Echo(u8),
    /// UDP has none: it is computed.
    Missing,
    /// It is brought up to date; `partial`: it is unfinished.
    Transport { partial: bool },
    /// It is in the first fragment.
    Elsewhere,
}

/// Replaces the IPv4 header in place, and what depends on it behind. `header6` is that of a whole packet; a fragment
/// gets a Fragment Header (section 4.1).
#[inline]
fn rewrite(packet: &mut PacketBuf<'_>, header: &V4Header, mut header6: V6Header, sum: Sum) -> Result<(), DropReason> {
    let rest = packet.bytes_mut().get_mut(header.header..);
    let rest = rest.ok_or(DropReason::Truncated)?;
    let (source, destination) = (header6.source, header6.destination);
    match sum {
        Sum::Echo(kind) => rewrite_echo(rest, kind, source, destination),
        Sum::Missing => transport::compute_udp6(rest, source, destination),
        Sum::Transport { partial } => {
            let delta = Delta::new(header.source, header.destination, source, destination);
            transport::update(header.protocol, rest, delta, partial);
        }
        Sum::Elsewhere => {}
    }
    let fits = if header.is_fragment() {
        let fields = FragmentHeader {
            next: header6.next,
            offset: header.offset,
            more: header.mf,
            id: u32::from(header.id),
        };
        header6.next = proto::FRAGMENT;
        let mut front = [0; V6_HEADER + FRAGMENT_HEADER];
        wire::put(&mut front, 0, &header6.bytes());
        wire::put(&mut front, V6_HEADER, &fields.bytes());
        packet.replace_front(header.header, &front)
    } else {
        packet.replace_front(header.header, &header6.bytes())
    };
    if fits { Ok(()) } else { Err(DropReason::NoRoom) }
}

/// Translates an ICMP error in `packet` to `scratch`.
pub(crate) fn error(
    translator: &Translator,
    pass: Pass,
    header: &V4Header,
    packet: &[u8],
    scratch: &mut [u8],
) -> Result<Done, Dropped> {
    // The mapping comes first: what is not ours gets no answer, and an error never does.
    if header.is_fragment() {
        return Err(DropReason::FragmentedIcmp.into());
    }
    let message = packet.get(header.header..).unwrap_or_default();
    if message.len() < 8 {
        return Err(DropReason::TransportHeader.into());
    }
    if pass.is_expired(header.ttl) {
        return Err(DropReason::HopLimit.into());
    }
    if has_source_route(packet, header.header) {
        return Err(DropReason::SourceRoute.into());
    }
    let length = icmp_errors::to_v6(translator, pass, header, message, scratch)?;
    Ok(Done {
        protocol: proto::ICMP,
        place: ResultPlace::Scratch(length),
        offload: Offload::NONE,
        fragment: None,
        hairpin: false,
    })
}

/// Reads the header and checks what every router checks (RFC 1812 section 5.2.2).
#[inline(always)]
pub(crate) fn parse(packet: &[u8]) -> Result<V4Header, DropReason> {
    let header = V4Header::read(packet).ok_or(DropReason::Truncated)?;
    if header.header < V4_HEADER || header.total < header.header {
        return Err(DropReason::BadHeader);
    }
    if header.total > packet.len() {
        return Err(DropReason::Truncated);
    }
    let plain = packet.first_chunk::<V4_HEADER>().filter(|_| header.header == V4_HEADER);
    let sum = match plain {
        Some(plain) => checksum::sum(plain),
        None => checksum::sum(packet.get(..header.header).ok_or(DropReason::Truncated)?),
    };
    if checksum::fold(sum) != 0xffff {
        return Err(DropReason::HeaderChecksum);
    }
    if header.offset + (header.total - header.header) > 0xffff {
        return Err(DropReason::BadHeader);
    }
    Ok(header)
}

#[inline]
fn check_addresses(header: &V4Header, is_error: bool) -> Result<(), DropReason> {
    // Errors keep an illegal source "for the purpose of trouble shooting" (section 4.1), but not a multicast one.
    let illegal = address::is_illegal4(header.source) && !is_error;
    if illegal || address::is_multicast4(header.source) {
        return Err(DropReason::IllegalSource);
    }
    if address::is_multicast4(header.destination) {
        return Err(DropReason::Multicast);
    }
    if address::is_illegal4(header.destination) {
        return Err(DropReason::IllegalDestination);
    }
    Ok(())
}

#[inline]
fn map(translator: &Translator, pass: Pass, header: &V4Header) -> Result<(u128, u128), Dropped> {
    // RFC 7757 section 4.2.1, rule 1.
    let side = if pass == Pass::Hairpin {
        Side::PrefixOnly
    } else {
        Side::Ours
    };
    let source = translator
        .map
        .to_v6(header.source, side)
        .map_err(|e| Dropped::unmapped4(e.source()))?;
    let destination = translator
        .map
        .to_v6(header.destination, Side::Theirs)
        .map_err(|e| Dropped::unmapped4(e.destination()))?;
    Ok((source, destination))
}

#[inline]
fn check_forwarding(pass: Pass, header: &V4Header, packet: &[u8]) -> Result<(), Dropped> {
    if pass.is_expired(header.ttl) {
        return Err(Dropped::answered(
            DropReason::HopLimit,
            Answer::v4(icmp::v4::TIME_EXCEEDED, 0, 0),
        ));
    }
    if header.header > V4_HEADER && has_source_route(packet, header.header) {
        return Err(Dropped::answered(
            DropReason::SourceRoute,
            Answer::v4(icmp::v4::UNREACHABLE, 5, 0),
        ));
    }
    Ok(())
}

/// Whether the options have a source route that has not been used up: its pointer is not behind its end
/// (RFC 791 section 3.1). Anything else is ignored, malformed options too.
fn has_source_route(packet: &[u8], header: usize) -> bool {
    let mut options = packet.get(V4_HEADER..header).unwrap_or_default();
    while let [kind, rest @ ..] = options {
        match (kind, rest) {
            (0, _) => return false,
            (1, _) => options = rest,
            (131 | 137, [length, pointer, ..]) if *length >= 3 && pointer <= length => return true,
            (_, [length, ..]) if *length >= 2 => match options.get(usize::from(*length)..) {
                Some(next) => options = next,
                None => return false,
            },
            _ => return false,
        }
    }
    false
}

/// Returns the ICMPv6 type of an echo message; nothing else gets here that can be translated.
#[inline]
fn check_icmp(header: &V4Header, rest: &[u8]) -> Result<u8, DropReason> {
    // Section 1.2; the pseudo-header of ICMPv6 has the length of the whole, which a fragment does not tell.
    if header.is_fragment() {
        return Err(DropReason::FragmentedIcmp);
    }
    if rest.len() < 8 {
        return Err(DropReason::TransportHeader);
    }
    rest.first()
        .and_then(|kind| icmp::echo4(*kind))
        .ok_or(DropReason::IcmpType)
}

#[inline]
pub(crate) fn rewrite_echo(message: &mut [u8], kind: u8, source: u128, destination: u128) {
    let Some(old) = wire::be16(message, 0) else { return };
    wire::put(message, 0, &[kind]);
    let new = u64::from(wire::be16(message, 0).unwrap_or(0));
    let pseudo = checksum::pseudo6(source, destination, message.len(), proto::ICMPV6);
    let sum = wire::be16(message, 2).unwrap_or(0);
    wire::put16(message, 2, checksum::update(sum, u64::from(old), new + pseudo));
}

/// Section 4.5.
#[inline]
fn check_udp_zero(translator: &Translator, header: &V4Header, udp_zero: bool) -> Result<(), Dropped> {
    let passes = match translator.udp_zero_checksum {
        UdpZeroChecksum::Pass => true,
        UdpZeroChecksum::Drop => false,
        // The rest of the packet is needed for the sum.
        UdpZeroChecksum::Compute => !header.mf,
    };
    if udp_zero && !passes {
        return Err(Dropped::answered(
            DropReason::UdpZeroChecksum,
            Answer::v4(icmp::v4::UNREACHABLE, 13, 0),
        ));
    }
    Ok(())
}

/// Section 4.1: returns the size that fragments have to have, if the packet must be fragmented.
#[inline(always)]
pub(crate) fn check_size(
    translator: &Translator,
    header: &V4Header,
    payload: usize,
    offload: &Offload,
    segment_header: usize,
) -> Result<Option<usize>, Dropped> {
    let mtu6 = translator.mtus.mtu6 as usize;
    let fragment = if header.is_fragment() { FRAGMENT_HEADER } else { 0 };
    let unit = if offload.is_gso() {
        segment_header + usize::from(offload.gso_size)
    } else {
        payload
    };
    let size = V6_HEADER + fragment + unit;
    if header.df {
        // "the total length value of the IPv4 packet plus 20": options count, although they do not pass.
        let options = header.header - V4_HEADER;
        if size + options <= mtu6 {
            return Ok(None);
        }
        // What fits without a Fragment Header has to shrink by its size too.
        let small = V6_HEADER + options + unit <= mtu6;
        let mtu = mtu6 - V6_HEADER + V4_HEADER - if small { FRAGMENT_HEADER } else { 0 };
        let mtu = mtu.min(0xffff) as u32;
        return Err(Dropped::answered(
            DropReason::FragmentationNeeded,
            Answer::v4(icmp::v4::UNREACHABLE, 4, mtu),
        ));
    }
    let limit = mtu6.min(translator.lowest_ipv6_mtu as usize);
    // A super-packet is left to the kernel, which knows how to cut it.
    Ok((size > limit && !offload.is_gso()).then_some(limit))
}
