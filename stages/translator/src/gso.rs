//! The `virtio_net_hdr` of offloading TUN devices, and what translation does to it.

use crate::counters::DropReason;
use crate::transport;
use crate::wire::{self, proto};

/// What the device header says is left to do to a packet, decoded from a `virtio_net_hdr` (10 octets, native
/// endian). All offsets count from the first octet of the IP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// [`Offload::NEEDS_CSUM`], [`Offload::DATA_VALID`].
    pub flags: u8,
    /// [`Offload::GSO_NONE`], [`Offload::GSO_TCPV4`], ... perhaps with [`Offload::GSO_ECN`].
    pub gso_type: u8,
    /// Length in octets of all headers, a hint.
    pub hdr_len: u16,
    /// Octets of payload in each segment.
    pub gso_size: u16,
    /// Where checksumming starts.
    pub csum_start: u16,
    /// Where the checksum goes, counted from `csum_start`.
    pub csum_offset: u16,
}

impl Offload {
    /// Nothing left to do.
    pub const NONE: Self = Self {
        flags: 0,
        gso_type: 0,
        hdr_len: 0,
        gso_size: 0,
        csum_start: 0,
        csum_offset: 0,
    };
    /// Octets of the encoded header.
    pub const LENGTH: usize = 10;
    /// Flag: the checksum field holds the sum of the pseudo-header only.
    pub const NEEDS_CSUM: u8 = 1;
    /// Flag: the checksum was verified.
    pub const DATA_VALID: u8 = 2;
    /// A single packet.
    pub const GSO_NONE: u8 = 0;
    /// A TCP super-packet over IPv4.
    pub const GSO_TCPV4: u8 = 1;
    /// A TCP super-packet over IPv6.
    pub const GSO_TCPV6: u8 = 4;
    /// A UDP super-packet over either.
    pub const GSO_UDP_L4: u8 = 5;
    /// Bit in `gso_type`: TCP with ECN.
    pub const GSO_ECN: u8 = 0x80;

    /// Reads a `virtio_net_hdr`.
    #[inline]
    pub fn decode(bytes: &[u8; Self::LENGTH]) -> Self {
        let [flags, gso_type, a, b, c, d, e, f, g, h] = *bytes;
        Self {
            flags,
            gso_type,
            hdr_len: u16::from_ne_bytes([a, b]),
            gso_size: u16::from_ne_bytes([c, d]),
            csum_start: u16::from_ne_bytes([e, f]),
            csum_offset: u16::from_ne_bytes([g, h]),
        }
    }

    /// Writes a `virtio_net_hdr`.
    #[inline]
    pub fn encode(&self) -> [u8; Self::LENGTH] {
        let [a, b] = self.hdr_len.to_ne_bytes();
        let [c, d] = self.gso_size.to_ne_bytes();
        let [e, f] = self.csum_start.to_ne_bytes();
        let [g, h] = self.csum_offset.to_ne_bytes();
        [self.flags, self.gso_type, a, b, c, d, e, f, g, h]
    }

    /// Whether the packet stands for several.
    #[inline]
    pub fn is_gso(&self) -> bool {
        self.gso_type != Self::GSO_NONE
    }

    /// Whether the checksum of the transport header at `transport` is unfinished (a checksum further inside, of a
    /// tunnelled packet, is none of our business).
    #[inline]
    pub(crate) fn is_partial(&self, transport: usize) -> bool {
        self.flags & Self::NEEDS_CSUM != 0 && usize::from(self.csum_start) == transport
    }

    /// Checks a super-packet: `from` is the TCP type of the IP version it comes in, `rest` its transport packet.
    /// Returns the octets of transport header that every segment repeats, 0 for a single packet.
    #[inline(always)]
    pub(crate) fn check(&self, from: u8, protocol: u8, rest: &[u8]) -> Result<usize, DropReason> {
        let bad = DropReason::BadOffload;
        match self.gso_type & !Self::GSO_ECN {
            Self::GSO_NONE if self.gso_type == Self::GSO_NONE => Ok(0),
            _ if self.gso_size == 0 => Err(bad),
            kind if kind == from && protocol == proto::TCP => {
                let header = usize::from(*rest.get(12).ok_or(bad)? >> 4) * 4;
                (20..=rest.len()).contains(&header).then_some(header).ok_or(bad)
            }
            Self::GSO_UDP_L4 if protocol == proto::UDP && rest.len() >= 8 => Ok(8),
            _ => Err(bad),
        }
    }

    /// The header after the IP headers of `old` octets were replaced by `new` octets; `to` is the TCP type of
    /// the new IP version.
    #[inline(always)]
    pub(crate) fn moved(&self, old: usize, new: usize, to: u8) -> Result<Self, DropReason> {
        let shift = |offset: u16| -> Result<u16, DropReason> {
            let inside = usize::from(offset).checked_sub(old).ok_or(DropReason::BadOffload)?;
            u16::try_from(inside + new).map_err(|_| DropReason::BadOffload)
        };
        let mut result = *self;
        if self.flags & Self::NEEDS_CSUM != 0 {
            result.csum_start = shift(self.csum_start)?;
        }
        if !self.is_gso() {
            // The kernel refuses a header length without segmentation.
            result.hdr_len = 0;
            return Ok(result);
        }
        // A hint only: one that ends inside of the IP header is worth nothing.
        result.hdr_len = shift(self.hdr_len).unwrap_or(new as u16);
        if matches!(self.gso_type & !Self::GSO_ECN, Self::GSO_TCPV4 | Self::GSO_TCPV6) {
            result.gso_type = to | (self.gso_type & Self::GSO_ECN);
        }
        Ok(result)
    }

    /// Finishes an unfinished checksum of transport `protocol` in software and clears the request for it.
    pub(crate) fn complete(&mut self, packet: &mut [u8], protocol: u8) -> Result<(), DropReason> {
        if self.flags & Self::NEEDS_CSUM != 0 {
            let covered = packet
                .get(usize::from(self.csum_start)..)
                .ok_or(DropReason::BadOffload)?;
            let value = transport::sent(protocol, crate::checksum::internet_checksum(covered));
            let at = usize::from(self.csum_start) + usize::from(self.csum_offset);
            if wire::be16(packet, at).is_none() {
                return Err(DropReason::BadOffload);
            }
            wire::put16(packet, at, value);
        }
        *self = Self::NONE;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only the flag says that a checksum is unfinished, whatever the other fields hold.
    #[test]
    fn a_checksum_is_partial_where_the_flag_says_so() {
        let (finished, other) = (Offload::NONE, 2);
        for (flags, at, partial) in [
            (Offload::NEEDS_CSUM, 20, true),
            (Offload::NEEDS_CSUM | other, 20, true),
            (Offload::NEEDS_CSUM, 40, false),
            (finished.flags, 20, false),
            (other, 20, false),
        ] {
            let offload = Offload {
                flags,
                csum_start: at,
                ..finished
            };
            assert_eq!(offload.is_partial(20), partial, "{flags} {at}");
        }
    }

    /// The octets that every segment repeats are those of the TCP header with its options.
    #[test]
    fn a_tcp_header_is_as_long_as_it_says() {
        let gso = Offload {
            gso_type: Offload::GSO_TCPV4,
            gso_size: 1000,
            ..Offload::NONE
        };
        let mut rest = [0; 60];
        for (words, octets) in [(5, 20), (8, 32), (15, 60)] {
            rest[12] = words << 4;
            assert_eq!(gso.check(Offload::GSO_TCPV4, proto::TCP, &rest), Ok(octets));
        }
        rest[12] = 4 << 4;
        assert!(gso.check(Offload::GSO_TCPV4, proto::TCP, &rest).is_err());
    }
}
