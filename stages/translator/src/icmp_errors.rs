//! ICMP error messages that pass through (RFC 7915 sections 4.2, 4.3, 5.2 and 5.3).

use crate::address::Side;
use crate::checksum;
use crate::counters::DropReason;
use crate::extension::{self, Layout};
use crate::icmp::{self, ErrorHead};
use crate::inner;
use crate::outcome::Pass;
use crate::translator::Translator;
use crate::wire::{self, V4_HEADER, V4Header, V6_HEADER, V6Header, proto};

/// The first eight octets of an ICMP message.
const HEAD: usize = 8;
/// No ICMPv4 error is made longer (RFC 1812 section 4.3.2.3).
pub(crate) const LONGEST4: usize = 576;
/// No ICMPv6 error is made longer (RFC 4443 section 2.4 (c)).
pub(crate) const LONGEST6: usize = 1280;

/// An error translated to IPv4.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Error4 {
    /// Octets of the whole packet.
    pub(crate) length: usize,
    /// It has to go back to IPv6 (RFC 7757 section 4.2.2, condition set B).
    pub(crate) hairpin: bool,
}

/// Translates the ICMPv4 error `message` of the packet with `header` to `out`; returns the length of the result.
/// The caller has checked the length of the message, its TTL and that it is no fragment.
pub(crate) fn to_v6(
    translator: &Translator,
    pass: Pass,
    header: &V4Header,
    message: &[u8],
    out: &mut [u8],
) -> Result<usize, DropReason> {
    let head: &[u8; HEAD] = message.first_chunk().ok_or(DropReason::Truncated)?;
    if checksum::fold(checksum::sum(message)) != 0xffff {
        return Err(DropReason::IcmpChecksum);
    }
    let inner_total = message
        .get(HEAD..)
        .and_then(|inner| wire::be16(inner, 2))
        .ok_or(DropReason::IcmpInner)?;
    let new = icmp::error_4to6(head, inner_total, translator.mtus)?;
    let (mut packet, extension) = split(message, usize::from(head[5]) * 4, V4_HEADER);
    if !extension.is_empty() {
        packet = packet.get(..usize::from(inner_total)).unwrap_or(packet);
    }

    let inner_destination = if pass == Pass::Hairpin {
        Side::PrefixOnly
    } else {
        Side::Ours
    };
    let at = V6_HEADER + HEAD;
    let room = out.get_mut(at..LONGEST6).ok_or(DropReason::NoRoom)?;
    let inner = inner::to_v6(
        &translator.map,
        translator.traffic_class,
        packet,
        inner_destination,
        room,
    )?;
    let (source, destination) = addresses6(translator, pass, header, packet)?;
    let kept = if new.length_at.is_some() { extension.len() } else { 0 };
    let layout = Layout::new(inner.length, kept, LONGEST6 - at, 8);
    finish(out, at, &new, &layout, 8);
    let extension = extension.get(..layout.extension).unwrap_or(extension);
    wire::put(out, at + layout.padded, extension);
    let length = HEAD + layout.total();
    let header6 = V6Header {
        traffic_class: translator.traffic_class.apply(header.tos),
        payload: length,
        next: proto::ICMPV6,
        hop_limit: pass.ttl(header.ttl),
        source,
        destination,
    };
    wire::put(out, 0, &header6.bytes());
    let covered = out.get(V6_HEADER..V6_HEADER + length).ok_or(DropReason::NoRoom)?;
    let sum = checksum::sum(covered) + checksum::pseudo6(source, destination, length, proto::ICMPV6);
    wire::put16(out, V6_HEADER + 2, !checksum::fold(sum));
    Ok(V6_HEADER + length)
}

/// The addresses of the ICMPv6 error about `packet`.
fn addresses6(
    translator: &Translator,
    pass: Pass,
    header: &V4Header,
    packet: &[u8],
) -> Result<(u128, u128), DropReason> {
    let source_side = match pass {
        Pass::First => Side::Ours,
        // RFC 7757 section 4.2.1, rule 3.
        Pass::Hairpin if V4Header::read(packet).is_some_and(|i| i.destination == header.source) => Side::PrefixOnly,
        Pass::Hairpin => Side::Theirs,
    };
    let source = translator
        .map
        .to_v6(header.source, source_side)
        .map_err(|e| e.source())?;
    let destination = translator
        .map
        .to_v6(header.destination, Side::Theirs)
        .map_err(|e| e.destination())?;
    Ok((source, destination))
}

/// Translates the ICMPv6 error `message` of the packet with `header` to `out`. `header4` is the IPv4 header to
/// be, all but its length; `unmapped` says that its source is the dummy address.
pub(crate) fn to_v4(
    translator: &Translator,
    header: &V6Header,
    message: &[u8],
    mut header4: V4Header,
    unmapped: bool,
    out: &mut [u8],
) -> Result<Error4, DropReason> {
    let head: &[u8; HEAD] = message.first_chunk().ok_or(DropReason::Truncated)?;
    let pseudo = checksum::pseudo6(header.source, header.destination, message.len(), proto::ICMPV6);
    if checksum::fold(checksum::sum(message) + pseudo) != 0xffff {
        return Err(DropReason::IcmpChecksum);
    }
    // Only these two have a length attribute (RFC 4884 section 4).
    let units = if matches!(head[0], icmp::v6::UNREACHABLE | icmp::v6::TIME_EXCEEDED) {
        head[4]
    } else {
        0
    };
    let (mut packet, extension) = split(message, usize::from(units) * 8, V6_HEADER);
    let (fragmented, length) = inner::measure_v6(packet).ok_or(DropReason::IcmpInner)?;
    let new = icmp::error_6to4(head, fragmented, translator.mtus)?;
    if !extension.is_empty() {
        packet = packet.get(..length).unwrap_or(packet);
    }

    let at = V4_HEADER + HEAD;
    let room = LONGEST4 - at;
    let inner = {
        let room = out.get_mut(at..LONGEST4).ok_or(DropReason::NoRoom)?;
        inner::to_v4(&translator.map, translator.tos, packet, room)?
    };
    let wants_node_id = unmapped && translator.node_identification;
    let (layout, node_id) = lay_out4(inner.length, extension, wants_node_id, room);
    finish(out, at, &new, &layout, 4);
    if let Some(room) = out
        .get_mut(at + layout.padded..at + layout.total())
        .filter(|room| !room.is_empty())
    {
        if node_id {
            extension::write_node_id(extension, header.source, room);
        } else {
            wire::put(room, 0, extension.get(..room.len()).unwrap_or(extension));
        }
    }
    let length = HEAD + layout.total();
    header4.total = V4_HEADER + length;
    wire::put(out, 0, &header4.bytes());
    let covered = out.get(V4_HEADER..V4_HEADER + length).ok_or(DropReason::NoRoom)?;
    let value = checksum::internet_checksum(covered);
    wire::put16(out, V4_HEADER + 2, value);
    Ok(Error4 {
        length: header4.total,
        hairpin: translator.hairpin && inner.source_by_prefix && translator.map.is_mapped(inner.source4),
    })
}

/// Lays out an ICMPv4 error in `room` octets, with a Node Identification object if one is wanted and fits: half of one
/// would be worse than none.
fn lay_out4(original: usize, extension: &[u8], wants_node_id: bool, room: usize) -> (Layout, bool) {
    let with_node_id = wants_node_id.then(|| extension::with_node_id(extension)).flatten();
    if let Some(length) = with_node_id {
        let layout = Layout::new(original, length, room, 4);
        if layout.extension == length {
            return (layout, true);
        }
    }
    (Layout::new(original, extension.len(), room, 4), false)
}

/// Splits what follows the first eight octets into the packet in error, which starts with an IP header of at least
/// `header` octets, and the extension structure behind its first `length` octets. There is no extension if `length`
/// is more than is there, or so little that the octet, once unused, cannot be a length attribute: RFC 4884 section 3
/// wants 128 octets, which others fall short of a little, but ports have to be among them.
fn split(message: &[u8], length: usize, header: usize) -> (&[u8], &[u8]) {
    let body = message.get(HEAD..).unwrap_or_default();
    if length < header + 8 {
        (body, &[])
    } else {
        body.split_at_checked(length).unwrap_or((body, &[]))
    }
}

/// Writes the first eight octets of the message, which end at `at`, checksum zero, and the padding.
fn finish(out: &mut [u8], at: usize, new: &ErrorHead, layout: &Layout, unit: usize) {
    let [a, b, c, d] = new.rest;
    let mut head = [new.kind, new.code, 0, 0, a, b, c, d];
    if layout.extension > 0
        && let Some(length) = new.length_at.and_then(|at| head.get_mut(at))
    {
        *length = (layout.padded / unit) as u8;
    }
    wire::put(out, at - HEAD, &head);
    if let Some(padding) = out.get_mut(at + layout.original..at + layout.padded) {
        padding.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_begins_no_earlier_than_behind_the_ports() {
        let message = [0; HEAD + 40];
        let parts = |length| {
            let (original, extension) = split(&message, length, 20);
            (original.len(), extension.len())
        };
        assert_eq!(parts(27), (40, 0));
        assert_eq!(parts(28), (28, 12));
        assert_eq!(parts(40), (40, 0));
        assert_eq!(parts(41), (40, 0));
    }
}
