//! IPv6 to IPv4 (RFC 7915 section 5).

use crate::address::{self, Side, Unmapped};
use crate::buffer::PacketBuf;
use crate::checksum;
use crate::counters::DropReason;
use crate::generate::Answer;
use crate::gso::Offload;
use crate::icmp;
use crate::icmp_errors;
use crate::own;
use crate::translator::{Done, Drop, Pass, Place, Translator};
use crate::transport::{self, Delta};
use crate::wire::{self, FragmentHeader, V4_HEADER, V4Header, V6_HEADER, V6Header, proto};

/// The largest IPv6 packet that is fragmented if it does not fit (section 5.1.1).
const LARGEST_FRAGMENTED: usize = 1280;
/// The largest IPv4 packet that goes out without DF (section 5.1).
const LARGEST_WITHOUT_DF: usize = 1260;

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

    fn is_fragment(&self) -> bool {
        self.fragment.is_some_and(|fragment| fragment.is_fragment())
    }

    fn is_first(&self) -> bool {
        self.fragment.is_none_or(|fragment| fragment.offset == 0)
    }
}

/// Translates the packet in place, or an ICMP error to `scratch`. On an error the packet is as it was.
pub(crate) fn translate(
    translator: &Translator,
    identification: &mut u32,
    mut offload: Offload,
    packet: &mut PacketBuf<'_>,
    scratch: &mut [u8],
) -> Result<Done, Drop> {
    let header = parse(packet.bytes())?;
    let total = V6_HEADER + header.payload;
    packet.truncate(total);
    check_addresses(&header)?;
    let chain = Chain::walk(packet.bytes(), header.next)?;
    let is_icmp = chain.protocol == proto::ICMPV6;
    if is_icmp && offload.flags & Offload::NEEDS_CSUM != 0 {
        offload.complete(packet.bytes_mut(), chain.protocol)?;
    }
    let rest = packet.bytes().get(chain.transport_at..).ok_or(DropReason::Truncated)?;
    let icmp_type = if is_icmp && chain.is_first() {
        rest.first().copied()
    } else {
        None
    };
    let quiet = Quiet {
        icmp: is_icmp,
        error: is_icmp && icmp_type.is_none_or(icmp::is_error6),
    };
    let passes_through = icmp_type.is_some_and(|kind| kind < 128);

    if translator.is_own6(header.destination) {
        return Err(own::v6(&header, &chain, rest));
    }
    let destination = translator.map.to_v4(header.destination, Side::Ours);
    let destination = destination.map_err(|e| quiet.prohibited(e == Unmapped::NeedsMapping, e.destination()))?;
    let source = match translator.map.to_v4(header.source, Side::Theirs) {
        Ok(source) => Some(source.address),
        Err(Unmapped::Outside) if passes_through => None,
        Err(e) => return Err(quiet.prohibited(false, e.source())),
    };
    check_embedded(source, destination.address)?;
    check_forwarding(&header, &chain, quiet)?;

    let mut header4 = header4(translator, &header, &chain, rest.len()).map_err(|reason| match reason {
        DropReason::TooLong if !offload.is_gso() => too_big(translator, reason, quiet),
        reason => reason.into(),
    })?;
    header4.source = source.unwrap_or(translator.dummy_v4);
    header4.destination = destination.address;
    if is_icmp && chain.is_fragment() {
        return Err(DropReason::FragmentedIcmp.into());
    }
    if is_icmp && rest.len() < 8 {
        return Err(DropReason::TransportHeader.into());
    }
    if passes_through {
        if chain.fragment.is_none() {
            header4.id = next_identification(identification, 1);
        }
        let error = icmp_errors::to_v4(translator, &header, rest, header4, source.is_none(), scratch)?;
        let mtu4 = translator.mtus.mtu4 as usize;
        return Ok(Done {
            protocol: proto::ICMPV6,
            place: Place::Scratch(error.length),
            offload: Offload::NONE,
            fragment: (error.length > mtu4).then_some((mtu4, None)),
            hairpin: error.hairpin,
        });
    }

    let echo = match icmp_type {
        Some(kind) => Some(icmp::echo6(kind).ok_or(DropReason::IcmpType)?),
        None => None,
    };
    if chain.is_first() {
        transport::check(chain.protocol, rest, !chain.is_fragment())?;
    }
    let segment_header = offload.check(Offload::GSO_TCPV6, chain.protocol, rest)?;
    if offload.is_gso() && chain.fragment.is_some() {
        return Err(DropReason::BadOffload.into());
    }
    let (segment, segments) = segments(&offload, segment_header, rest.len());
    let hairpin = translator.hairpin && destination.by_prefix && translator.map.is_mapped(destination.address);
    let limit = if hairpin {
        None
    } else {
        check_size(translator, total, segment, &offload, quiet)?
    };
    let partial = offload.is_partial(chain.transport_at);
    let moved = offload.moved(chain.transport_at, V4_HEADER, Offload::GSO_TCPV4)?;
    if chain.fragment.is_none() {
        header4.df = needs_df(segment);
        header4.id = next_identification(identification, segments);
    }
    let first = chain.is_first();
    let Some(rest) = packet.bytes_mut().get_mut(chain.transport_at..) else {
        return Err(DropReason::Truncated.into());
    };
    if let Some(kind) = echo {
        rewrite_echo(rest, kind, &header);
    } else if first {
        let delta = Delta::new(header4.source, header4.destination, header.source, header.destination);
        transport::update(chain.protocol, rest, delta.reverse(), partial);
    }
    if !packet.replace_front(chain.transport_at, &header4.bytes()) {
        return Err(DropReason::NoRoom.into());
    }
    Ok(Done {
        protocol: chain.protocol,
        place: Place::Packet,
        offload: moved,
        fragment: limit.map(|limit| (limit, None)),
        hairpin,
    })
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

/// Whether an ICMPv6 error may be sent about a packet.
#[derive(Clone, Copy, Debug)]
struct Quiet {
    /// It is ICMPv6: no "prohibited" (section 5.4).
    icmp: bool,
    /// It is an ICMPv6 error or might be one: nothing at all (RFC 4443 section 2.4 (e)).
    error: bool,
}

impl Quiet {
    fn prohibited(self, silent: bool, reason: DropReason) -> Drop {
        if self.icmp || silent {
            return reason.into();
        }
        Drop::answered(reason, Answer::v6(icmp::v6::UNREACHABLE, 1, 0))
    }

    fn unless_error(self, reason: DropReason, answer: Answer) -> Drop {
        if self.error {
            reason.into()
        } else {
            Drop::answered(reason, answer)
        }
    }
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
fn check_forwarding(header: &V6Header, chain: &Chain, quiet: Quiet) -> Result<(), Drop> {
    if Pass::First.is_expired(header.hop_limit) {
        return Err(quiet.unless_error(DropReason::HopLimit, Answer::v6(icmp::v6::TIME_EXCEEDED, 0, 0)));
    }
    if let Some(at) = chain.segments_left_at {
        let answer = Answer::v6(icmp::v6::PARAMETER_PROBLEM, 0, at as u32);
        return Err(quiet.unless_error(DropReason::SegmentsLeft, answer));
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
        return Err(quiet.prohibited(false, DropReason::ExtensionAfterFragment));
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
    quiet: Quiet,
) -> Result<Option<usize>, Drop> {
    let mtu4 = translator.mtus.mtu4 as usize;
    if segment <= mtu4 {
        return Ok(None);
    }
    if total6 <= LARGEST_FRAGMENTED && !offload.is_gso() {
        return Ok(Some(mtu4));
    }
    Err(too_big(translator, DropReason::FragmentationNeeded, quiet))
}

fn too_big(translator: &Translator, reason: DropReason, quiet: Quiet) -> Drop {
    let mtu = translator.mtus.mtu4.saturating_add(20).max(1280);
    quiet.unless_error(reason, Answer::v6(icmp::v6::PACKET_TOO_BIG, 0, mtu))
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
