//! IPv6 to IPv4 (RFC 7915 section 5).

use crate::address::{self, Mapped4, Side, Unmapped};
use crate::buffer::PacketBuf;
use crate::chain::Chain;
use crate::checksum;
use crate::counters::DropReason;
use crate::generate::Answer;
use crate::gso::Offload;
use crate::icmp;
use crate::icmp_errors;
use crate::outcome::{Done, Dropped, Pass, ResultPlace};
use crate::own;
use crate::translator::Translator;
use crate::transport::{self, Delta};
use crate::wire::{self, V4_HEADER, V4Header, V6_HEADER, V6Header, proto};

/// The largest IPv6 packet that is fragmented if it does not fit (section 5.1.1).
const LARGEST_FRAGMENTED: usize = 1280;
/// The largest IPv4 packet that goes out without DF (section 5.1).
const LARGEST_WITHOUT_DF: usize = 1260;

/// Translates the packet in place, or an ICMP error to `scratch`. On an error the packet is as it was.
pub(crate) fn translate(
    translator: &Translator,
    identification: &mut u32,
    mut offload: Offload,
    packet: &mut PacketBuf<'_>,
    scratch: &mut [u8],
) -> Result<Done, Dropped> {
    let header = parse(packet.bytes())?;
    packet.truncate(V6_HEADER + header.payload);
    check_addresses(&header)?;
    let chain = Chain::walk(packet.bytes(), header.next)?;
    if chain.protocol == proto::ICMPV6 && offload.flags & Offload::NEEDS_CSUM != 0 {
        offload.complete(packet.bytes_mut(), chain.protocol)?;
    }
    let rest = packet.bytes().get(chain.transport_at..).ok_or(DropReason::Truncated)?;
    let icmp_type = rest
        .first()
        .copied()
        .filter(|_| chain.protocol == proto::ICMPV6 && chain.is_first());
    let is_error = icmp_type.is_some_and(|kind| kind < 128);

    if translator.is_own6(header.destination) {
        return Err(own::v6(&header, &chain, rest));
    }
    let (source, destination) = map(translator, &header, is_error)?;
    check_forwarding(&header, &chain)?;
    let mut header4 = header4(translator, &header, &chain, rest.len()).map_err(|reason| match reason {
        DropReason::TooLong if !offload.is_gso() => too_big(translator, reason),
        reason => reason.into(),
    })?;
    header4.source = source.unwrap_or(translator.dummy_v4);
    header4.destination = destination.address;
    check_icmp(&chain, rest)?;
    if is_error {
        if chain.fragment.is_none() {
            header4.id = next_identification(identification, 1);
        }
        return error(translator, &header, rest, header4, source.is_none(), scratch);
    }
    let echo = match icmp_type {
        Some(kind) => Some(icmp::echo6(kind).ok_or(DropReason::IcmpType)?),
        None => None,
    };
    let hairpin = translator.hairpin && destination.by_prefix && translator.map.is_mapped(destination.address);
    let size = check_transport(translator, &offload, &chain, rest, hairpin)?;
    let moved = offload.moved(chain.transport_at, V4_HEADER, Offload::GSO_TCPV4)?;
    if chain.fragment.is_none() {
        header4.df = needs_df(size.segment);
        header4.id = next_identification(identification, size.segments);
    }
    let partial = offload.is_partial(chain.transport_at);
    rewrite(packet, &header, &chain, &header4, echo, partial)?;
    Ok(Done {
        protocol: chain.protocol,
        place: ResultPlace::Packet,
        offload: moved,
        fragment: size.limit.map(|limit| (limit, None)),
        hairpin,
    })
}

/// The addresses; no source for an ICMP error (`is_error`) from an address without translation.
#[inline]
fn map(translator: &Translator, header: &V6Header, is_error: bool) -> Result<(Option<u32>, Mapped4), Dropped> {
    let destination = translator.map.to_v4(header.destination, Side::Ours);
    let destination = destination.map_err(|e| match e {
        // Others have no business with it: silent.
        Unmapped::NeedsMapping => e.destination().into(),
        Unmapped::Outside | Unmapped::NonGlobal => Dropped::prohibited6(e.destination()),
    })?;
    let source = match translator.map.to_v4(header.source, Side::Theirs) {
        Ok(source) => Some(source.address),
        Err(Unmapped::Outside) if is_error => None,
        Err(e) => return Err(Dropped::prohibited6(e.source())),
    };
    check_embedded(source, destination.address)?;
    Ok((source, destination))
}

/// Translates the ICMP error `message` to `scratch`; `header4` is the IPv4 header to be, all but its length, and
/// `unmapped` says that its source is the dummy address.
fn error(
    translator: &Translator,
    header: &V6Header,
    message: &[u8],
    header4: V4Header,
    unmapped: bool,
    scratch: &mut [u8],
) -> Result<Done, Dropped> {
    let error = icmp_errors::to_v4(translator, header, message, header4, unmapped, scratch)?;
    let mtu4 = translator.mtus.mtu4 as usize;
    Ok(Done {
        protocol: proto::ICMPV6,
        place: ResultPlace::Scratch(error.length),
        offload: Offload::NONE,
        fragment: (error.length > mtu4).then_some((mtu4, None)),
        hairpin: error.hairpin,
    })
}

/// What ICMP has to be to be translated at all.
#[inline]
fn check_icmp(chain: &Chain, rest: &[u8]) -> Result<(), DropReason> {
    if chain.protocol != proto::ICMPV6 {
        return Ok(());
    }
    // Section 1.2; the checksum of ICMPv6 covers the length of the whole, which a fragment does not tell.
    if chain.is_fragment() {
        return Err(DropReason::FragmentedIcmp);
    }
    if rest.len() < 8 {
        return Err(DropReason::TransportHeader);
    }
    Ok(())
}

/// What sizes a packet comes to.
struct Size {
    /// Octets of the largest IPv4 packet.
    segment: usize,
    /// How many IPv4 packets a device makes of it.
    segments: u32,
    /// The size that fragments have to have, if it must be fragmented.
    limit: Option<usize>,
}

#[inline]
fn check_transport(
    translator: &Translator,
    offload: &Offload,
    chain: &Chain,
    rest: &[u8],
    hairpin: bool,
) -> Result<Size, Dropped> {
    if chain.is_first() {
        transport::check(chain.protocol, rest, !chain.is_fragment())?;
    }
    let segment_header = offload.check(Offload::GSO_TCPV6, chain.protocol, rest)?;
    if offload.is_gso() && chain.fragment.is_some() {
        return Err(DropReason::BadOffload.into());
    }
    let (segment, segments) = segments(offload, segment_header, rest.len());
    let limit = if hairpin {
        None
    } else {
        check_size(translator, chain.transport_at + rest.len(), segment, offload)?
    };
    Ok(Size {
        segment,
        segments,
        limit,
    })
}

/// Replaces the IPv6 headers in place, and what depends on them behind.
#[inline]
fn rewrite(
    packet: &mut PacketBuf<'_>,
    header: &V6Header,
    chain: &Chain,
    header4: &V4Header,
    echo: Option<u8>,
    partial: bool,
) -> Result<(), DropReason> {
    let rest = packet.bytes_mut().get_mut(chain.transport_at..);
    let rest = rest.ok_or(DropReason::Truncated)?;
    if let Some(kind) = echo {
        rewrite_echo(rest, kind, header);
    } else if chain.is_first() {
        let delta = Delta::new(header4.source, header4.destination, header.source, header.destination);
        transport::update(chain.protocol, rest, delta.reverse(), partial);
    }
    if packet.replace_front(chain.transport_at, &header4.bytes()) {
        Ok(())
    } else {
        Err(DropReason::NoRoom)
    }
}

/// The IPv4 header to be, without addresses; identification and DF only if they come from a Fragment Header.
#[inline(always)]
pub(crate) fn header4(
    translator: &Translator,
    header: &V6Header,
    chain: &Chain,
    payload: usize,
) -> Result<V4Header, DropReason> {
    let fragment = chain.fragment;
    let header4 = V4Header {
        header: V4_HEADER,
        total: V4_HEADER + payload,
        tos: translator.tos.apply(header.traffic_class),
        id: fragment.map_or(0, |fragment| fragment.id as u16),
        df: false,
        mf: fragment.is_some_and(|fragment| fragment.more),
        offset: fragment.map_or(0, |fragment| fragment.offset),
        ttl: header.hop_limit.wrapping_sub(1),
        protocol: if chain.protocol == proto::ICMPV6 {
            proto::ICMP
        } else {
            chain.protocol
        },
        source: 0,
        destination: 0,
    };
    if header4.total > 0xffff {
        return Err(DropReason::TooLong);
    }
    if header4.offset + payload > 0xffff {
        return Err(DropReason::BadHeader);
    }
    Ok(header4)
}

#[inline(always)]
pub(crate) fn parse(packet: &[u8]) -> Result<V6Header, DropReason> {
    let header = V6Header::read(packet).ok_or(DropReason::Truncated)?;
    if V6_HEADER + header.payload > packet.len() {
        return Err(DropReason::Truncated);
    }
    if header.payload == 0 && packet.len() > V6_HEADER && header.next == proto::HOP_BY_HOP {
        return Err(DropReason::TooLong); // a jumbogram (RFC 2675)
    }
    Ok(header)
}

#[inline(always)]
pub(crate) fn check_addresses(header: &V6Header) -> Result<(), DropReason> {
    if address::is_illegal6(header.source) || address::is_multicast6(header.source) {
        return Err(DropReason::IllegalSource);
    }
    if address::is_multicast6(header.destination) {
        return Err(DropReason::Multicast);
    }
    if address::is_illegal6(header.destination) {
        return Err(DropReason::IllegalDestination);
    }
    Ok(())
}

/// The prefix can hide addresses that no router forwards (section 8).
#[inline]
fn check_embedded(source: Option<u32>, destination: u32) -> Result<(), DropReason> {
    if source.is_some_and(|source| address::is_illegal4(source) || address::is_multicast4(source)) {
        return Err(DropReason::IllegalSource);
    }
    if address::is_multicast4(destination) {
        return Err(DropReason::Multicast);
    }
    if address::is_illegal4(destination) {
        return Err(DropReason::IllegalDestination);
    }
    Ok(())
}

#[inline]
fn check_forwarding(header: &V6Header, chain: &Chain) -> Result<(), Dropped> {
    if Pass::First.is_expired(header.hop_limit) {
        let answer = Answer::v6(icmp::v6::TIME_EXCEEDED, 0, 0);
        return Err(Dropped::answered(DropReason::HopLimit, answer));
    }
    if let Some(at) = chain.segments_left_at {
        let answer = Answer::v6(icmp::v6::PARAMETER_PROBLEM, 0, at as u32);
        return Err(Dropped::answered(DropReason::SegmentsLeft, answer));
    }
    // Section 5.1.1: extension headers behind a Fragment Header, "except ESP, but including AH".
    if chain.fragment.is_some()
        && matches!(
            chain.protocol,
            proto::HOP_BY_HOP
                | proto::ROUTING
                | proto::FRAGMENT
                | proto::AH
                | proto::DEST_OPTIONS
                | proto::MOBILITY
                | proto::HIP
                | proto::SHIM6
        )
    {
        return Err(Dropped::prohibited6(DropReason::ExtensionAfterFragment));
    }
    Ok(())
}

/// The size of the largest IPv4 packet that a packet with `payload` octets becomes, and how many it becomes.
#[inline]
pub(crate) fn segments(offload: &Offload, segment_header: usize, payload: usize) -> (usize, u32) {
    if !offload.is_gso() {
        return (V4_HEADER + payload, 1);
    }
    // In 32 bits, which many processors divide much faster.
    let data = payload.saturating_sub(segment_header) as u32;
    let count = data.div_ceil(u32::from(offload.gso_size.max(1)));
    (V4_HEADER + segment_header + usize::from(offload.gso_size), count)
}

/// Section 5.1, for a packet without a Fragment Header.
#[inline]
pub(crate) fn needs_df(size: usize) -> bool {
    size > LARGEST_WITHOUT_DF
}

/// Returns the size that fragments have to have, if the packet must be fragmented (section 5.1.1).
#[inline]
fn check_size(
    translator: &Translator,
    total6: usize,
    segment: usize,
    offload: &Offload,
) -> Result<Option<usize>, Dropped> {
    let mtu4 = translator.mtus.mtu4 as usize;
    if segment <= mtu4 {
        return Ok(None);
    }
    if total6 <= LARGEST_FRAGMENTED && !offload.is_gso() {
        return Ok(Some(mtu4));
    }
    Err(too_big(translator, DropReason::FragmentationNeeded))
}

fn too_big(translator: &Translator, reason: DropReason) -> Dropped {
    let mtu = translator.mtus.mtu4.saturating_add(20).max(1280);
    Dropped::answered(reason, Answer::v6(icmp::v6::PACKET_TOO_BIG, 0, mtu))
}

#[inline]
pub(crate) fn rewrite_echo(message: &mut [u8], kind: u8, header: &V6Header) {
    let Some(old) = wire::be16(message, 0) else { return };
    wire::put(message, 0, &[kind]);
    let new = u64::from(wire::be16(message, 0).unwrap_or(0));
    let pseudo = checksum::pseudo6(header.source, header.destination, message.len(), proto::ICMPV6);
    let sum = wire::be16(message, 2).unwrap_or(0);
    wire::put16(message, 2, checksum::update(sum, u64::from(old) + pseudo, new));
}

/// The identification generator of section 5.1; a super-packet uses up one value for each segment.
#[inline]
pub(crate) fn next_identification(counter: &mut u32, count: u32) -> u16 {
    let value = *counter as u16;
    *counter = counter.wrapping_add(count);
    value
}
