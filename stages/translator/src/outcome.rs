//! What becomes of a packet on its way through the translator.

use crate::counters::DropReason;
use crate::generate::Answer;
use crate::gso::Offload;
use crate::icmp;

/// Which of the two translations of a hairpinned packet this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    First,
    /// The second, back to IPv6: "the Hop Limit field SHOULD NOT be decremented" (RFC 7757 section 4.2.2).
    Hairpin,
}

impl Pass {
    pub(crate) fn is_expired(self, ttl: u8) -> bool {
        self == Self::First && ttl <= 1
    }

    pub(crate) fn ttl(self, ttl: u8) -> u8 {
        if self == Self::First { ttl.wrapping_sub(1) } else { ttl }
    }
}

/// A packet that was translated but not put out yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    /// The transport protocol, on the side that the packet came from.
    pub(crate) protocol: u8,
    pub(crate) place: ResultPlace,
    pub(crate) offload: Offload,
    /// It must be cut to packets of at most so many octets; if whole IPv6, with this identification.
    pub(crate) fragment: Option<(usize, Option<u32>)>,
    pub(crate) hairpin: bool,
}

/// Where a result lies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ResultPlace {
    Packet,
    /// At the start of the first scratch buffer, so many octets.
    Scratch(usize),
}

/// A packet that goes no further.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dropped {
    pub(crate) reason: DropReason,
    /// What is sent to its source.
    pub(crate) answer: Option<Answer>,
}

impl Dropped {
    pub(crate) fn answered(reason: DropReason, answer: Answer) -> Self {
        Self {
            reason,
            answer: Some(answer),
        }
    }

    /// An IPv4 packet with an address that has no translation: silent if a mapping was asked for, else
    /// "administratively prohibited" (RFC 7915 section 4.4).
    pub(crate) fn unmapped4(reason: DropReason) -> Self {
        if reason == DropReason::UnmappedSource {
            return reason.into();
        }
        Self::answered(reason, Answer::v4(icmp::v4::UNREACHABLE, 13, 0))
    }

    /// An IPv6 packet that must not pass: "administratively prohibited" (RFC 7915 section 5.4).
    pub(crate) fn prohibited6(reason: DropReason) -> Self {
        Self::answered(reason, Answer::v6(icmp::v6::UNREACHABLE, icmp::v6::PROHIBITED, 0))
    }
}

impl From<DropReason> for Dropped {
    fn from(reason: DropReason) -> Self {
        Self { reason, answer: None }
    }
}
