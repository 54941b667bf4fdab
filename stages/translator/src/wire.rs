//! Reading and writing fields of packets without panicking.

use crate::checksum;

/// IP protocol numbers that the translator knows.
pub(crate) mod proto {
    pub(crate) const HOP_BY_HOP: u8 = 0;
    pub(crate) const ICMP: u8 = 1;
    pub(crate) const IGMP: u8 = 2;
    pub(crate) const TCP: u8 = 6;
    pub(crate) const UDP: u8 = 17;
    pub(crate) const DCCP: u8 = 33;
    pub(crate) const ROUTING: u8 = 43;
    pub(crate) const FRAGMENT: u8 = 44;
    pub(crate) const AH: u8 = 51;
    pub(crate) const ICMPV6: u8 = 58;
    pub(crate) const NONE: u8 = 59;
    pub(crate) const DEST_OPTIONS: u8 = 60;
    pub(crate) const SCTP: u8 = 132;
    pub(crate) const MOBILITY: u8 = 135;
    pub(crate) const UDP_LITE: u8 = 136;
    pub(crate) const HIP: u8 = 139;
    pub(crate) const SHIM6: u8 = 140;
}

pub(crate) const V4_HEADER: usize = 20;
pub(crate) const V6_HEADER: usize = 40;
pub(crate) const FRAGMENT_HEADER: usize = 8;

#[inline]
pub(crate) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
}

/// Writes a field; does nothing if it lies outside.
#[inline]
pub(crate) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..).and_then(|b| b.first_chunk_mut()) {
        *field = value.to_be_bytes();
    }
}

#[inline]
pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(field) = bytes.get_mut(at..at.saturating_add(value.len())) {
        field.copy_from_slice(value);
    }
}

/// The fields of an IPv4 header (RFC 791).
#[derive(Clone, Copy, Debug)]
pub(crate) struct V4Header {
    /// Header length in octets, options included.
    pub(crate) header: usize,
    pub(crate) total: usize,
    pub(crate) tos: u8,
    pub(crate) id: u16,
    pub(crate) df: bool,
    pub(crate) mf: bool,
    /// Fragment offset in octets.
    pub(crate) offset: usize,
    pub(crate) ttl: u8,
    pub(crate) protocol: u8,
    pub(crate) source: u32,
    pub(crate) destination: u32,
}

impl V4Header {
    /// Reads the fields as they are; `None` if there are fewer than 20 octets or it is not version 4.
    #[inline]
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let b: &[u8; V4_HEADER] = bytes.first_chunk()?;
        if b[0] >> 4 != 4 {
            return None;
        }
        let fragment = u16::from_be_bytes([b[6], b[7]]);
        Some(Self {
            header: usize::from(b[0] & 15) * 4,
            total: usize::from(u16::from_be_bytes([b[2], b[3]])),
            tos: b[1],
            id: u16::from_be_bytes([b[4], b[5]]),
            df: fragment & 0x4000 != 0,
            mf: fragment & 0x2000 != 0,
            offset: usize::from(fragment & 0x1fff) * 8,
            ttl: b[8],
            protocol: b[9],
            source: u32::from_be_bytes([b[12], b[13], b[14], b[15]]),
            destination: u32::from_be_bytes([b[16], b[17], b[18], b[19]]),
        })
    }

    #[inline]
    pub(crate) fn is_fragment(&self) -> bool {
        self.mf || self.offset != 0
    }

    /// The 20-octet header without options, checksum computed.
    #[inline(always)]
    pub(crate) fn bytes(&self) -> [u8; V4_HEADER] {
        let flags = u32::from(self.df) << 14 | u32::from(self.mf) << 13 | ((self.offset / 8) as u32 & 0x1fff);
        let first = 0x4500_0000 | u32::from(self.tos) << 16 | self.total as u32 & 0xffff;
        let second = u32::from(self.id) << 16 | flags;
        let third = u32::from(self.ttl) << 24 | u32::from(self.protocol) << 16;
        // From the fields: reading back what was just written would wait for it.
        let sum = [first, second, third, self.source, self.destination]
            .into_iter()
            .map(u64::from)
            .sum();
        let third = third | u32::from(!checksum::fold(sum));
        let high = u128::from(first) << 96 | u128::from(second) << 64 | u128::from(third) << 32;
        let mut b = [0; V4_HEADER];
        let (front, back) = b.split_at_mut(16);
        front.copy_from_slice(&(high | u128::from(self.source)).to_be_bytes());
        back.copy_from_slice(&self.destination.to_be_bytes());
        b
    }
}

/// The fields of an IPv6 header (RFC 8200).
#[derive(Clone, Copy, Debug)]
pub(crate) struct V6Header {
    pub(crate) traffic_class: u8,
    pub(crate) payload: usize,
    pub(crate) next: u8,
    pub(crate) hop_limit: u8,
    pub(crate) source: u128,
    pub(crate) destination: u128,
}

impl V6Header {
    /// Reads the fields as they are; `None` if there are fewer than 40 octets or it is not version 6.
    #[inline]
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let b: &[u8; V6_HEADER] = bytes.first_chunk()?;
        if b[0] >> 4 != 6 {
            return None;
        }
        let (_, addresses) = b.split_at(8);
        let (source, destination) = addresses.split_at(16);
        Some(Self {
            traffic_class: b[0] << 4 | b[1] >> 4,
            payload: usize::from(u16::from_be_bytes([b[4], b[5]])),
            next: b[6],
            hop_limit: b[7],
            source: u128::from_be_bytes(*source.first_chunk()?),
            destination: u128::from_be_bytes(*destination.first_chunk()?),
        })
    }

    /// The header, flow label zero.
    #[inline(always)]
    pub(crate) fn bytes(&self) -> [u8; V6_HEADER] {
        let first = 0x6000_0000 | u64::from(self.traffic_class) << 20;
        let second = (self.payload as u64 & 0xffff) << 16 | u64::from(self.next) << 8 | u64::from(self.hop_limit);
        let mut b = [0; V6_HEADER];
        let (front, addresses) = b.split_at_mut(8);
        let (source, destination) = addresses.split_at_mut(16);
        front.copy_from_slice(&(first << 32 | second).to_be_bytes());
        source.copy_from_slice(&self.source.to_be_bytes());
        destination.copy_from_slice(&self.destination.to_be_bytes());
        b
    }
}

/// The fields of an IPv6 Fragment Header (RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FragmentHeader {
    pub(crate) next: u8,
    /// Fragment offset in octets.
    pub(crate) offset: usize,
    pub(crate) more: bool,
    pub(crate) id: u32,
}

impl FragmentHeader {
    #[inline]
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let b: &[u8; FRAGMENT_HEADER] = bytes.first_chunk()?;
        let field = u16::from_be_bytes([b[2], b[3]]);
        Some(Self {
            next: b[0],
            offset: usize::from(field & 0xfff8),
            more: field & 1 != 0,
            id: u32::from_be_bytes([b[4], b[5], b[6], b[7]]),
        })
    }

    pub(crate) fn bytes(&self) -> [u8; FRAGMENT_HEADER] {
        let [offset_high, offset_low] = ((self.offset as u16 & 0xfff8) | u16::from(self.more)).to_be_bytes();
        let [a, b, c, d] = self.id.to_be_bytes();
        [self.next, 0, offset_high, offset_low, a, b, c, d]
    }

    /// A fragment of something larger, as opposed to an atomic fragment (RFC 6946).
    #[inline]
    pub(crate) fn is_fragment(&self) -> bool {
        self.more || self.offset != 0
    }
}
