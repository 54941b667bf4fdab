//! The ICMP type, code, pointer and MTU tables of RFC 7915 sections 4.2 and 5.2.

use crate::counters::DropReason;

/// ICMPv4 types (RFC 792).
pub(crate) mod v4 {
    pub(crate) const ECHO_REPLY: u8 = 0;
    pub(crate) const UNREACHABLE: u8 = 3;
    pub(crate) const SOURCE_QUENCH: u8 = 4;
    pub(crate) const REDIRECT: u8 = 5;
    pub(crate) const ECHO: u8 = 8;
    pub(crate) const TIME_EXCEEDED: u8 = 11;
    pub(crate) const PARAMETER_PROBLEM: u8 = 12;
}

/// ICMPv6 types (RFC 4443).
pub(crate) mod v6 {
    pub(crate) const UNREACHABLE: u8 = 1;
    /// The code of [`UNREACHABLE`] that says "administratively prohibited".
    pub(crate) const PROHIBITED: u8 = 1;
    pub(crate) const PACKET_TOO_BIG: u8 = 2;
    pub(crate) const TIME_EXCEEDED: u8 = 3;
    pub(crate) const PARAMETER_PROBLEM: u8 = 4;
    pub(crate) const ECHO_REQUEST: u8 = 128;
    pub(crate) const ECHO_REPLY: u8 = 129;
    pub(crate) const REDIRECT: u8 = 137;
}

/// An ICMPv4 message that must not cause another error (RFC 1122 section 3.2.2).
pub(crate) fn is_error4(kind: u8) -> bool {
    use v4::*;
    matches!(
        kind,
        UNREACHABLE | SOURCE_QUENCH | REDIRECT | TIME_EXCEEDED | PARAMETER_PROBLEM
    )
}

/// An ICMPv6 message that must not cause another error (RFC 4443 section 2.4 (e)).
pub(crate) fn is_error6(kind: u8) -> bool {
    kind < 128 || kind == v6::REDIRECT
}

/// The echo type on the other side.
pub(crate) fn echo4(kind: u8) -> Option<u8> {
    match kind {
        v4::ECHO => Some(v6::ECHO_REQUEST),
        v4::ECHO_REPLY => Some(v6::ECHO_REPLY),
        _ => None,
    }
}

/// The echo type on the other side.
pub(crate) fn echo6(kind: u8) -> Option<u8> {
    match kind {
        v6::ECHO_REQUEST => Some(v4::ECHO),
        v6::ECHO_REPLY => Some(v4::ECHO_REPLY),
        _ => None,
    }
}

/// The first eight octets of a translated ICMP error, checksum and length attribute left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ErrorHead {
    pub(crate) kind: u8,
    pub(crate) code: u8,
    /// Octets 4 to 7.
    pub(crate) rest: [u8; 4],
    /// Which of octets 4 to 7 is the length attribute (RFC 4884), if the message has one.
    pub(crate) length_at: Option<usize>,
}

/// What the MTU rules need to know, in octets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mtus {
    pub(crate) mtu4: u32,
    pub(crate) mtu6: u32,
}

/// The plateaus of RFC 1191 section 7.1 that are at least 1280.
const PLATEAUS: [u32; 7] = [65535, 32000, 17914, 8166, 4352, 2002, 1492];

/// RFC 7915 section 4.2: the ICMPv6 error for the ICMPv4 error whose first eight octets are `head` and whose
/// packet in error has `inner_total` as its Total Length.
pub(crate) fn error_4to6(head: &[u8; 8], inner_total: u16, mtus: Mtus) -> Result<ErrorHead, DropReason> {
    let [kind, code, _, _, pointer, _, mtu_high, mtu_low] = *head;
    let unreachable = |code| ErrorHead {
        kind: v6::UNREACHABLE,
        code,
        rest: [0; 4],
        length_at: Some(4),
    };
    Ok(match (kind, code) {
        (v4::UNREACHABLE, 0 | 1 | 5 | 6 | 7 | 8 | 11 | 12) => unreachable(0),
        (v4::UNREACHABLE, 2) => parameter_problem6(1, 6),
        (v4::UNREACHABLE, 3) => unreachable(4),
        (v4::UNREACHABLE, 4) => {
            let mtu = mtu_4to6(u16::from_be_bytes([mtu_high, mtu_low]), inner_total, mtus);
            ErrorHead {
                kind: v6::PACKET_TOO_BIG,
                code: 0,
                rest: mtu.to_be_bytes(),
                length_at: None,
            }
        }
        (v4::UNREACHABLE, 9 | 10 | 13 | 15) => unreachable(1),
        (v4::TIME_EXCEEDED, code) => ErrorHead {
            kind: v6::TIME_EXCEEDED,
            code,
            rest: [0; 4],
            length_at: Some(4),
        },
        (v4::PARAMETER_PROBLEM, 0 | 2) => parameter_problem6(0, pointer_4to6(pointer)?),
        _ => return Err(DropReason::IcmpType),
    })
}

/// RFC 7915 section 5.2: the ICMPv4 error for the ICMPv6 error whose first eight octets are `head`;
/// `inner_fragment` says whether the packet in error has a Fragment Header.
pub(crate) fn error_6to4(head: &[u8; 8], inner_fragment: bool, mtus: Mtus) -> Result<ErrorHead, DropReason> {
    let [kind, code, _, _, a, b, c, d] = *head;
    let value = u32::from_be_bytes([a, b, c, d]);
    let error = |kind, code, rest| ErrorHead {
        kind,
        code,
        rest,
        length_at: Some(5),
    };
    Ok(match (kind, code) {
        (v6::UNREACHABLE, 0 | 2 | 3) => error(v4::UNREACHABLE, 1, [0; 4]),
        (v6::UNREACHABLE, 1) => error(v4::UNREACHABLE, 10, [0; 4]),
        (v6::UNREACHABLE, 4) => error(v4::UNREACHABLE, 3, [0; 4]),
        (v6::PACKET_TOO_BIG, _) => {
            let [high, low] = mtu_6to4(value, inner_fragment, mtus).to_be_bytes();
            error(v4::UNREACHABLE, 4, [0, 0, high, low])
        }
        (v6::TIME_EXCEEDED, code) => error(v4::TIME_EXCEEDED, code, [0; 4]),
        (v6::PARAMETER_PROBLEM, 0) => error(v4::PARAMETER_PROBLEM, 0, [pointer_6to4(value)?, 0, 0, 0]),
        (v6::PARAMETER_PROBLEM, 1) => error(v4::UNREACHABLE, 2, [0; 4]),
        _ => return Err(DropReason::IcmpType),
    })
}

fn parameter_problem6(code: u8, pointer: u8) -> ErrorHead {
    ErrorHead {
        kind: v6::PARAMETER_PROBLEM,
        code,
        rest: [0, 0, 0, pointer],
        length_at: None,
    }
}

/// Figure 3 of RFC 7915.
fn pointer_4to6(pointer: u8) -> Result<u8, DropReason> {
    Ok(match pointer {
        0 | 1 => pointer,
        2 | 3 => 4,
        8 => 7,
        9 => 6,
        12..=15 => 8,
        16..=19 => 24,
        _ => return Err(DropReason::IcmpPointer),
    })
}

/// Figure 6 of RFC 7915.
fn pointer_6to4(pointer: u32) -> Result<u8, DropReason> {
    Ok(match pointer {
        0 => 0,
        1 => 1,
        4 | 5 => 2,
        6 => 9,
        7 => 8,
        8..=23 => 12,
        24..=39 => 16,
        _ => return Err(DropReason::IcmpPointer),
    })
}

/// Section 4.2, code 4: the MTU of the Packet Too Big message.
fn mtu_4to6(mtu: u16, inner_total: u16, mtus: Mtus) -> u32 {
    let told = match mtu {
        // The router does not implement RFC 1191: the greatest plateau below the length of the packet in error.
        0 => PLATEAUS
            .into_iter()
            .find(|plateau| *plateau < u32::from(inner_total))
            .unwrap_or(1280),
        mtu => u32::from(mtu) + 20,
    };
    told.min(mtus.mtu6).min(mtus.mtu4.saturating_add(20)).max(1280)
}

/// Section 5.2, type 2: the MTU of the Fragmentation Needed message.
fn mtu_6to4(mtu: u32, inner_fragment: bool, mtus: Mtus) -> u16 {
    // "taking into account whether or not the packet in error includes a Fragment Header"
    let difference = if inner_fragment { 28 } else { 20 };
    let lowest = mtu
        .saturating_sub(difference)
        .min(mtus.mtu4)
        .min(mtus.mtu6.saturating_sub(20));
    u16::try_from(lowest.max(68)).unwrap_or(u16::MAX)
}
