//! Netlink attributes as bytes. Messages of others are read attribute by attribute, so that an unknown one neither
//! fails a dump nor gets lost.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Size of an attribute's header.
const HEADER: usize = 4;
/// Bits of an attribute's type that are no part of its number.
const TYPE_MASK: u16 = 0x3fff;

/// One attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attribute<'a> {
    /// Its number, without the flags.
    pub(crate) kind: u16,
    /// The number with the flags, as it stood on the wire.
    pub(crate) raw_kind: u16,
    /// Its value.
    pub(crate) value: &'a [u8],
}

impl<'a> Attribute<'a> {
    pub(crate) fn u8(&self) -> Option<u8> {
        self.value.first().copied()
    }

    pub(crate) fn u32(&self) -> Option<u32> {
        u32_at(self.value, 0)
    }

    /// Text without the trailing zero.
    pub(crate) fn text(&self) -> String {
        let end = self
            .value
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(self.value.len());
        String::from_utf8_lossy(&self.value[..end]).into_owned()
    }

    pub(crate) fn address(&self) -> Option<IpAddr> {
        address(self.value)
    }

    pub(crate) fn nested(&self) -> Attributes<'a> {
        Attributes(self.value)
    }
}

/// Iterates over the attributes of a message. Stops at the first malformed one.
#[derive(Debug, Clone)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at(self.0, 0)?);
        let raw_kind = u16_at(self.0, 2)?;
        let value = self.0.get(HEADER..length)?;
        self.0 = self.0.get(align(length)..).unwrap_or_default();
        Some(Attribute {
            kind: raw_kind & TYPE_MASK,
            raw_kind,
            value,
        })
    }
}

/// Appends an attribute.
pub(crate) fn push(buffer: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(HEADER + value.len()).unwrap_or(u16::MAX);
    buffer.extend_from_slice(&length.to_ne_bytes());
    buffer.extend_from_slice(&kind.to_ne_bytes());
    buffer.extend_from_slice(value);
    buffer.resize(align(buffer.len()), 0);
}

/// An address of 4 or 16 bytes.
pub(crate) fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| Ipv6Addr::from(v6).into())
}

/// `AF_INET` or `AF_INET6`.
pub(crate) fn family(v6: bool) -> u8 {
    // Both constants fit a byte: 2 and 10.
    if v6 { libc::AF_INET6 as u8 } else { libc::AF_INET as u8 }
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// Netlink aligns to 4 bytes.
pub(crate) fn align(length: usize) -> usize {
    (length + 3) & !3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_is_read() {
        let mut buffer = Vec::new();
        push(&mut buffer, 3, b"eth0\0");
        push(&mut buffer, 6 | 0x8000, &7u32.to_ne_bytes());
        let read: Vec<_> = Attributes(&buffer).collect();
        assert_eq!(read.len(), 2);
        assert_eq!(read[0].text(), "eth0");
        assert_eq!((read[1].kind, read[1].raw_kind, read[1].u32()), (6, 0x8006, Some(7)));
    }

    #[test]
    fn a_malformed_attribute_ends_it() {
        assert_eq!(Attributes(&[2, 0, 1, 0]).next(), None);
        assert_eq!(Attributes(&[200, 0, 1, 0]).next(), None);
        assert_eq!(Attributes(&[0, 0, 0, 0]).next(), None);
    }
}
