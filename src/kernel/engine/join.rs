//! UDP packets of one flow that were read together become one super-packet for the kernel (as its own GRO does). The
//! way through the kernel is by far the most expensive part of a small packet; so it is taken once for all of them.
//!
//! Nothing is lost: the kernel cuts the super-packet into the same datagrams, at the latest where it leaves the host
//! or reaches a socket. Nothing is delayed: only packets that are there already are joined.

use std::ops::Range;

use clatd_translator::{Offload, internet_checksum};

/// The most packets in one super-packet: the limit of older kernels (`UDP_MAX_SEGMENTS`).
pub(super) const MOST: usize = 64;
const UDP: u8 = 17;
/// Next header of an IPv6 fragment.
const FRAGMENT: u8 = 44;
const UDP_HEADER: usize = 8;
/// Where the checksum is in a UDP header.
const CHECKSUM: usize = 6;

/// A translated packet that waits to be written.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    /// Its place in the buffer, from its IP header on.
    pub(super) range: Range<usize>,
    /// What its device header is to say.
    pub(super) offload: Offload,
    /// The number of its flow in the batch, and its own number in that flow.
    turn: (u8, u8),
}

impl Waiting {
    pub(super) fn new(range: Range<usize>, offload: Offload) -> Self {
        Self {
            range,
            offload,
            turn: (0, 0),
        }
    }
}

/// Puts packets of one flow next to each other. The order within each flow stays (RFC 7915 section 4 asks for no
/// more). A fragment does not show its flow, so a batch with one stays as it is.
pub(super) fn gather(buffer: &[u8], waiting: &mut [Waiting]) {
    let mut flows = [0; MOST];
    let mut known = 0;
    for (place, packet) in waiting.iter_mut().enumerate() {
        let Some(flow) = buffer.get(packet.range.clone()).and_then(flow) else {
            return;
        };
        let turn = flows[..known].iter().position(|&other| other == flow).unwrap_or(known);
        if turn == known {
            let Some(free) = flows.get_mut(known) else { return };
            *free = flow;
            known += 1;
        }
        packet.turn = (turn as u8, place as u8);
    }
    if known > 1 && known < waiting.len() {
        waiting.sort_unstable_by_key(|packet| packet.turn);
    }
}

/// A number that is the same for all packets of a flow; `None` = a fragment, or no flow can be seen.
fn flow(packet: &[u8]) -> Option<u64> {
    let (protocol, addresses, payload) = match *packet.first()? {
        0x45 if packet.get(6..8)? == [0, 0] || packet.get(6..8)? == [0x40, 0] => (packet[9], 12..20, 20),
        first if first >> 4 == 6 && *packet.get(6)? != FRAGMENT => (packet[6], 8..40, 40),
        _ => return None,
    };
    let mut mixed = u64::from(protocol);
    let mut mix = |word: u64| mixed = (mixed ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    for word in packet.get(addresses)?.as_chunks().0 {
        mix(u64::from_ne_bytes(*word));
    }
    if protocol == UDP {
        mix(u64::from(u32::from_ne_bytes(*packet.get(payload..)?.first_chunk()?)));
    }
    Some(mixed)
}

/// How many of these packets, from the first on, can be joined; 1 = the first one must be written alone.
pub(super) fn run(buffer: &[u8], waiting: &[Waiting]) -> usize {
    let Some(((head, first), followers)) = waiting
        .split_first()
        .and_then(|(first, followers)| Some(((Datagram::read(buffer, first)?, first), followers)))
    else {
        return 1;
    };
    let mut count = 1;
    let mut total = first.range.len();
    for packet in followers.iter().take(MOST - 1) {
        let Some(next) = Datagram::read(buffer, packet) else {
            break;
        };
        if !head.is_followed_by(&next, count) || total + next.payload() > usize::from(u16::MAX) {
            break;
        }
        count += 1;
        total += next.payload();
        // Only the last one may be shorter.
        if next.payload() < head.payload() {
            break;
        }
    }
    count
}

/// Makes the first packet's headers those of a super-packet with all payloads, which must be written behind it in
/// this order. Returns the device header. `packets` are those that [`run`] counted, two or more.
pub(super) fn join(buffer: &mut [u8], packets: &[Waiting]) -> Option<Offload> {
    let head = Datagram::read(buffer, packets.first()?)?;
    let (ip, segment) = (head.ip, head.payload());
    let payload = packets
        .iter()
        .map(|packet| packet.range.len() - ip - UDP_HEADER)
        .sum::<usize>();
    let packet = buffer.get_mut(packets.first()?.range.clone())?;
    let length = u16::try_from(UDP_HEADER + payload).ok()?;
    let mut put = |at: usize, value: u16| packet[at..at + 2].copy_from_slice(&value.to_be_bytes());
    put(ip + 4, length);
    if ip == 40 {
        put(4, length);
    } else {
        put(2, length.checked_add(20)?);
        put(10, 0);
        let checksum = internet_checksum(&packet[..20]);
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    // The kernel finishes the checksum of each segment. Until then the field has the sum of the pseudo-header.
    let addresses = if ip == 40 { 8..40 } else { 12..20 };
    let mut sum = u32::from(length) + u32::from(UDP) + u32::from(!internet_checksum(&packet[addresses]));
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet[ip + CHECKSUM..ip + UDP_HEADER].copy_from_slice(&(sum as u16).to_be_bytes());
    Some(Offload {
        flags: Offload::NEEDS_CSUM,
        gso_type: Offload::GSO_UDP_L4,
        hdr_len: (ip + UDP_HEADER) as u16,
        gso_size: segment as u16,
        csum_start: ip as u16,
        csum_offset: CHECKSUM as u16,
    })
}

/// A whole UDP packet without anything unusual, whose checksum is known to be right.
struct Datagram<'a> {
    bytes: &'a [u8],
    /// Length of its IP header.
    ip: usize,
}

impl<'a> Datagram<'a> {
    fn read(buffer: &'a [u8], waiting: &Waiting) -> Option<Self> {
        let (bytes, offload) = (buffer.get(waiting.range.clone())?, &waiting.offload);
        let word = |at: usize| {
            bytes
                .get(at..at + 2)
                .map(|b| usize::from(u16::from_be_bytes([b[0], b[1]])))
        };
        let ip = match *bytes.first()? {
            // No options, no fragment.
            0x45 if bytes.get(9) == Some(&UDP) && word(6)? & 0x3fff == 0 && word(2)? == bytes.len() => 20,
            // No extension headers.
            first if first >> 4 == 6 && bytes.get(6) == Some(&UDP) && word(4)? + 40 == bytes.len() => 40,
            _ => return None,
        };
        // The kernel computes the checksums anew. They must be right now, or a damaged packet would become a good
        // one.
        let right = if offload.flags & Offload::NEEDS_CSUM != 0 {
            usize::from(offload.csum_start) == ip && usize::from(offload.csum_offset) == CHECKSUM
        } else {
            offload.flags & Offload::DATA_VALID != 0 && word(ip + CHECKSUM)? != 0
        };
        let fits = word(ip + 4)? == bytes.len() - ip && bytes.len() > ip + UDP_HEADER;
        (right && fits && !offload.is_gso()).then_some(Self { bytes, ip })
    }

    fn payload(&self) -> usize {
        self.bytes.len() - self.ip - UDP_HEADER
    }

    /// Whether `next` can be segment number `position` of a super-packet that begins with this packet.
    fn is_followed_by(&self, next: &Self, position: usize) -> bool {
        let same = |range: Range<usize>| self.bytes[range.clone()] == next.bytes[range];
        if self.ip != next.ip || next.payload() > self.payload() || !same(self.ip..self.ip + 4) {
            return false;
        }
        if self.ip == 40 {
            return same(0..4) && same(6..40);
        }
        // The kernel counts identifications up, which does not matter where nothing can be fragmented.
        let id = |bytes: &[u8]| u16::from_be_bytes([bytes[4], bytes[5]]);
        let do_not_fragment = self.bytes[6] & 0x40 != 0;
        same(0..2)
            && same(6..10)
            && same(12..20)
            && (do_not_fragment || id(next.bytes) == id(self.bytes).wrapping_add(position as u16))
    }
}

#[cfg(test)]
#[path = "join_tests.rs"]
mod tests;
