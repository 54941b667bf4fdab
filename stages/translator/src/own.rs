//! Packets for the translator itself: it answers pings, and says of everything else that it does not speak it.

use crate::chain::Chain;
use crate::checksum;
use crate::counters::DropReason;
use crate::generate::{Answer, TTL};
use crate::icmp;
use crate::outcome::Dropped;
use crate::wire::{self, V4_HEADER, V4Header, V6_HEADER, V6Header, proto};

/// The end of an IPv4 packet addressed to the translator.
pub(crate) fn v4(header: &V4Header, rest: &[u8]) -> Dropped {
    if header.is_fragment() {
        return DropReason::OwnAddress.into();
    }
    if header.protocol != proto::ICMP {
        return Dropped::answered(DropReason::OwnAddress, Answer::v4(icmp::v4::UNREACHABLE, 2, 0));
    }
    let is_echo = rest.len() >= 8 && rest.first() == Some(&icmp::v4::ECHO) && header.header == V4_HEADER;
    if is_echo && checksum::internet_checksum(rest) == 0 {
        return Dropped::answered(DropReason::OwnAddress, Answer::Echo);
    }
    DropReason::OwnAddress.into()
}

/// The end of an IPv6 packet addressed to the translator.
pub(crate) fn v6(header: &V6Header, chain: &Chain, rest: &[u8]) -> Dropped {
    // Only what needs no walk through extension headers to be answered.
    if chain.transport_at != V6_HEADER {
        return DropReason::OwnAddress.into();
    }
    if chain.protocol != proto::ICMPV6 {
        let answer = Answer::v6(icmp::v6::PARAMETER_PROBLEM, 1, 6);
        return Dropped::answered(DropReason::OwnAddress, answer);
    }
    let sum = checksum::sum(rest) + checksum::pseudo6(header.source, header.destination, rest.len(), proto::ICMPV6);
    if rest.len() >= 8 && rest.first() == Some(&icmp::v6::ECHO_REQUEST) && checksum::fold(sum) == 0xffff {
        return Dropped::answered(DropReason::OwnAddress, Answer::Echo);
    }
    DropReason::OwnAddress.into()
}

/// Makes the echo reply out of an echo request without options or extension headers, in place.
pub(crate) fn echo_reply(packet: &mut [u8], id: u16) -> Option<()> {
    if let Some(mut header) = V4Header::read(packet) {
        (header.source, header.destination) = (header.destination, header.source);
        (header.ttl, header.id, header.df) = (TTL, id, false);
        wire::put(packet, 0, &header.bytes());
        return set_type(packet.get_mut(V4_HEADER..)?, icmp::v4::ECHO_REPLY);
    }
    let mut header = V6Header::read(packet)?;
    (header.source, header.destination) = (header.destination, header.source);
    header.hop_limit = TTL;
    wire::put(packet, 0, &header.bytes());
    set_type(packet.get_mut(V6_HEADER..)?, icmp::v6::ECHO_REPLY)
}

fn set_type(message: &mut [u8], kind: u8) -> Option<()> {
    let old = wire::be16(message, 0)?;
    wire::put(message, 0, &[kind]);
    let new = wire::be16(message, 0)?;
    let sum = checksum::update(wire::be16(message, 2)?, u64::from(old), u64::from(new));
    wire::put16(message, 2, sum);
    Some(())
}
