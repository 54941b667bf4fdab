//! The packet in its buffer, and where results go.

use crate::flow::DropEvent;
use crate::gso::Offload;
use alloc::{vec, vec::Vec};
use core::ops::Range;

/// Free bytes that must lie in front of a packet: what IPv4 to IPv6 adds at most (20, and 8 for a Fragment Header)
/// plus room for a `virtio_net_hdr` in front of the result.
pub const HEADROOM: usize = 64;

/// What an [`Output`] may always write in front of a frame.
pub(crate) const FRAME_HEADROOM: usize = 16;

/// A packet inside a larger buffer that has room in front of it.
#[derive(Debug)]
pub struct PacketBuf<'a> {
    buffer: &'a mut [u8],
    start: usize,
    end: usize,
}

impl<'a> PacketBuf<'a> {
    /// The packet at `buffer[start..start + length]`, or `None` if that is outside the buffer.
    ///
    /// `start` should be at least [`HEADROOM`]; with less, packets that have to grow are dropped.
    #[inline]
    pub fn new(buffer: &'a mut [u8], start: usize, length: usize) -> Option<Self> {
        let end = start.checked_add(length)?;
        (end <= buffer.len()).then_some(Self { buffer, start, end })
    }

    /// The packet.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// The packet, to be changed.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.start..self.end).unwrap_or_default()
    }

    /// Where in the buffer the packet lies.
    #[inline]
    pub fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    /// Cuts off what lies behind the first `length` bytes.
    #[inline]
    pub(crate) fn truncate(&mut self, length: usize) {
        self.end = self.end.min(self.start.saturating_add(length));
    }

    /// Whether the first `old` bytes can be replaced by `new` ones.
    #[inline]
    pub(crate) fn has_room(&self, old: usize, new: usize) -> bool {
        self.start + old >= FRAME_HEADROOM + new
    }

    /// Replaces the first `old` bytes by `header`; `false` if there is no room (nothing is changed then).
    #[inline(always)]
    pub(crate) fn replace_front<const N: usize>(&mut self, old: usize, header: &[u8; N]) -> bool {
        let Some(payload) = self.start.checked_add(old).filter(|at| *at <= self.end) else {
            return false;
        };
        let Some(start) = payload.checked_sub(N).filter(|at| *at >= FRAME_HEADROOM) else {
            return false;
        };
        let Some(front) = self.buffer.get_mut(start..).and_then(|b| b.first_chunk_mut()) else {
            return false;
        };
        *front = *header;
        self.start = start;
        true
    }

    #[inline]
    pub(crate) fn frame(&mut self) -> Frame<'_> {
        Frame {
            buffer: self.buffer,
            start: self.start,
            end: self.end,
            in_place: true,
        }
    }
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The translated packet, or a fragment of it.
    Translated,
    /// An ICMP error or echo reply made by the translator, for the sender of the packet that was put in.
    Answer,
}

/// One resulting packet, with room in front for a device header.
#[derive(Debug)]
pub struct Frame<'a> {
    buffer: &'a mut [u8],
    start: usize,
    end: usize,
    in_place: bool,
}

impl Frame<'_> {
    /// The packet.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// The packet with `header` (at most 16 bytes) written directly in front of it, in one slice; `None` if
    /// the header is longer than that.
    pub fn with_header(&mut self, header: &[u8]) -> Option<&[u8]> {
        let start = self
            .start
            .checked_sub(header.len())
            .filter(|_| header.len() <= FRAME_HEADROOM)?;
        crate::wire::put(self.buffer, start, header);
        self.buffer.get(start..self.end)
    }

    /// Where in the buffer of the [`PacketBuf`] the packet lies, or `None` if it lies in scratch space that is
    /// used again as soon as the output returns.
    pub fn in_place(&self) -> Option<Range<usize>> {
        self.in_place.then_some(self.start..self.end)
    }
}

/// Takes the results of a translation, in order.
pub trait Output {
    /// One packet and what is left to do to it (checksum, segmentation).
    fn packet(&mut self, kind: Kind, offload: &Offload, frame: Frame<'_>);

    /// A packet was dropped; called before the answer to it, if there is one, is put out. Does nothing by default.
    fn dropped(&mut self, event: DropEvent<'_>) {
        let _ = event;
    }
}

impl<F: FnMut(Kind, &Offload, Frame<'_>)> Output for F {
    fn packet(&mut self, kind: Kind, offload: &Offload, frame: Frame<'_>) {
        self(kind, offload, frame);
    }
}

/// A reusable buffer for results that cannot be made in place.
#[derive(Debug)]
pub(crate) struct Scratch {
    buffer: Vec<u8>,
}

impl Scratch {
    /// Room for packets of up to `size` bytes; the only allocation.
    pub(crate) fn new(size: usize) -> Self {
        Self {
            buffer: vec![0; FRAME_HEADROOM + size],
        }
    }

    /// The room for a packet.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        self.buffer.get_mut(FRAME_HEADROOM..).unwrap_or_default()
    }

    pub(crate) fn bytes(&self, length: usize) -> &[u8] {
        self.buffer
            .get(FRAME_HEADROOM..FRAME_HEADROOM + length)
            .unwrap_or_default()
    }

    #[inline]
    pub(crate) fn frame(&mut self, length: usize) -> Frame<'_> {
        let end = self.buffer.len().min(FRAME_HEADROOM + length);
        Frame {
            buffer: &mut self.buffer,
            start: FRAME_HEADROOM,
            end,
            in_place: false,
        }
    }
}
