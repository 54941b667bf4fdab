//! Cutting translated packets that are too large (RFC 7915 sections 4.1 and 5.1.1).

use crate::buffer::{Kind, Output, Scratch};
use crate::gso::Offload;
use crate::wire::{self, FRAGMENT_HEADER, FragmentHeader, V4_HEADER, V4Header, V6_HEADER, V6Header, proto};

/// Puts out the IPv6 `packet` in fragments of at most `limit` octets, with the identification `id`; without one it is
/// a fragment already, which is cut further. (A Next Header of 44 alone does not tell: IPv4 may have it as protocol.)
/// Returns how many there were, or `None` if the packet makes no sense.
pub(crate) fn v6(
    packet: &[u8],
    id: Option<u32>,
    limit: usize,
    scratch: &mut Scratch,
    out: &mut impl Output,
) -> Option<u64> {
    let mut header = V6Header::read(packet)?;
    let rest = packet.get(V6_HEADER..)?;
    let (base, payload) = match id {
        None => (FragmentHeader::read(rest)?, rest.get(FRAGMENT_HEADER..)?),
        Some(id) => (
            FragmentHeader {
                next: header.next,
                offset: 0,
                more: false,
                id,
            },
            rest,
        ),
    };
    let step = limit.checked_sub(V6_HEADER + FRAGMENT_HEADER)? / 8 * 8;
    let mut count = 0;
    for (piece, offset) in pieces(payload, step)? {
        let last = offset + piece.len() == payload.len();
        header.payload = FRAGMENT_HEADER + piece.len();
        header.next = proto::FRAGMENT;
        let fields = FragmentHeader {
            offset: base.offset + offset,
            more: base.more || !last,
            ..base
        };
        let room = scratch.room();
        wire::put(room, 0, &header.bytes());
        wire::put(room, V6_HEADER, &fields.bytes());
        wire::put(room, V6_HEADER + FRAGMENT_HEADER, piece);
        out.packet(
            Kind::Translated,
            &Offload::NONE,
            scratch.frame(V6_HEADER + header.payload),
        );
        count += 1;
    }
    Some(count)
}

/// Puts out the IPv4 `packet`, which has no options, in fragments of at most `limit` octets.
pub(crate) fn v4(packet: &[u8], limit: usize, scratch: &mut Scratch, out: &mut impl Output) -> Option<u64> {
    let base = V4Header::read(packet)?;
    let payload = packet.get(V4_HEADER..)?;
    let step = limit.checked_sub(V4_HEADER)? / 8 * 8;
    let mut count = 0;
    for (piece, offset) in pieces(payload, step)? {
        let last = offset + piece.len() == payload.len();
        let header = V4Header {
            total: V4_HEADER + piece.len(),
            df: false,
            mf: base.mf || !last,
            offset: base.offset + offset,
            ..base
        };
        let room = scratch.room();
        wire::put(room, 0, &header.bytes());
        wire::put(room, V4_HEADER, piece);
        out.packet(Kind::Translated, &Offload::NONE, scratch.frame(header.total));
        count += 1;
    }
    Some(count)
}

fn pieces(payload: &[u8], step: usize) -> Option<impl Iterator<Item = (&[u8], usize)>> {
    (step > 0).then(|| {
        payload
            .chunks(step)
            .enumerate()
            .map(move |(n, piece)| (piece, n * step))
    })
}
