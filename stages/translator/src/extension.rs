//! Where things go in an ICMP error with an extension structure (RFC 4884), and the Node Identification object.

use crate::checksum;
use crate::wire;

/// Octets of a Node Identification object that tells an IPv6 address: object header, sub-object header, address.
const OBJECT: usize = 24;
/// Octets of the extension header in front of the first object (RFC 4884 section 7).
const HEADER: usize = 4;
/// The shortest packet in error, with padding, that may stand in front of an extension (RFC 4884 section 3).
const LEAST_ORIGINAL: usize = 128;

/// How an ICMP error is laid out behind its first eight octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Octets of the packet in error.
    pub(crate) original: usize,
    /// The same with padding, where the extension starts.
    pub(crate) padded: usize,
    /// Octets of the extension structure, or 0.
    pub(crate) extension: usize,
}

impl Layout {
    /// Lays out `original` octets of packet in error and `extension` octets of extension in `room` octets; the
    /// length attribute counts in `unit` octets.
    ///
    /// The packet in error is cut first, down to [`LEAST_ORIGINAL`]. An extension that does not fit then "SHOULD be
    /// simply truncated" (RFC 7915 section 4.2).
    pub(crate) fn new(original: usize, extension: usize, room: usize, unit: usize) -> Self {
        let extension = extension.min(room.saturating_sub(LEAST_ORIGINAL));
        if extension > 0 {
            let most = ((room - extension) / unit * unit).min(255 * unit);
            let padded = original.next_multiple_of(unit).max(LEAST_ORIGINAL).min(most);
            return Self {
                original: original.min(padded),
                padded,
                extension,
            };
        }
        let original = original.min(room);
        Self {
            original,
            padded: original,
            extension: 0,
        }
    }

    /// Octets behind the first eight of the ICMP message.
    pub(crate) fn total(&self) -> usize {
        self.padded + self.extension
    }
}

/// Octets of `existing` with a Node Identification object appended, or `None` if `existing` is no extension
/// structure that one can append to.
pub(crate) fn with_node_id(existing: &[u8]) -> Option<usize> {
    match existing.first() {
        None => Some(HEADER + OBJECT),
        Some(version) if version >> 4 == 2 && existing.len() >= HEADER => Some(existing.len() + OBJECT),
        Some(_) => None,
    }
}

/// Writes `existing` and a Node Identification object for `address` to `out`, whose length is that of
/// [`with_node_id`], and the checksum over both.
///
/// Class 5, C-Type with the IP address bit, AFI 2 (draft-ietf-intarea-extended-icmp-nodeid section 3).
pub(crate) fn write_node_id(existing: &[u8], address: u128, out: &mut [u8]) {
    let at = existing.len().max(HEADER);
    wire::put(
        out,
        0,
        if existing.is_empty() {
            &[0x20, 0, 0, 0]
        } else {
            existing
        },
    );
    wire::put(out, at, &[0, OBJECT as u8, 5, 0x04, 0, 2, 0, 0]);
    wire::put(out, at + 8, &address.to_be_bytes());
    wire::put16(out, 2, 0);
    wire::put16(out, 2, checksum::internet_checksum(out));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packet_in_error_yields_to_the_extension() {
        let layout = |original, padded, extension| Layout {
            original,
            padded,
            extension,
        };
        assert_eq!(Layout::new(508, 40, 548, 4), layout(508, 508, 40));
        assert_eq!(Layout::new(516, 40, 548, 4), layout(508, 508, 40));
        assert_eq!(Layout::new(108, 420, 548, 4), layout(108, 128, 420));
        assert_eq!(Layout::new(108, 421, 548, 4), layout(108, 128, 420));
        assert_eq!(Layout::new(600, 600, 548, 4), layout(128, 128, 420));
        assert_eq!(Layout::new(1500, 0, 548, 4), layout(548, 548, 0));
        assert_eq!(Layout::new(80, 9, 128, 4), layout(80, 80, 0));
        assert_eq!(Layout::new(124, 20, 1232, 8), layout(124, 128, 20));
        assert_eq!(Layout::new(1500, 0, 1232, 8), layout(1232, 1232, 0));
    }
}
