//! Whose packet it is: addresses, protocol and ports, for people.

use crate::chain::Chain;
use crate::wire::{self, V4Header, V6Header, proto};
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses of a packet, its transport protocol, and what tells its conversation there.
///
/// Displayed as `192.0.0.1 -> 198.51.100.1 protocol 17 ports 5 -> 7`, `... next header 58 type 128 code 0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// The IP protocol number of what is behind the header (IPv4), or behind the extension headers that translation
    /// skips and a Fragment Header (IPv6).
    pub protocol: u8,
    /// Its ports or ICMP type, where the packet has them.
    pub transport: Option<Transport>,
}

/// What a transport header begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Source and destination port of TCP, UDP, SCTP, DCCP or UDP-Lite.
    Ports(u16, u16),
    /// Type and code of ICMP or ICMPv6.
    Icmp(u8, u8),
}

impl Flow {
    /// Reads it from an IPv4 or IPv6 packet, however malformed; `None` if there are no addresses.
    pub fn read(packet: &[u8]) -> Option<Self> {
        if let Some(header) = V4Header::read(packet) {
            let rest = packet.get(header.header..).filter(|_| header.offset == 0);
            return Some(Self {
                source: Ipv4Addr::from(header.source).into(),
                destination: Ipv4Addr::from(header.destination).into(),
                protocol: header.protocol,
                transport: rest.and_then(|rest| Transport::read(header.protocol, rest)),
            });
        }
        let header = V6Header::read(packet)?;
        let chain = Chain::walk(packet, header.next).unwrap_or(Chain::none(header.next));
        let rest = packet.get(chain.transport_at..).filter(|_| chain.is_first());
        Some(Self {
            source: Ipv6Addr::from(header.source).into(),
            destination: Ipv6Addr::from(header.destination).into(),
            protocol: chain.protocol,
            transport: rest.and_then(|rest| Transport::read(chain.protocol, rest)),
        })
    }
}

impl Transport {
    fn read(protocol: u8, rest: &[u8]) -> Option<Self> {
        match protocol {
            proto::TCP | proto::UDP | proto::DCCP | proto::SCTP | proto::UDP_LITE => {
                Some(Self::Ports(wire::be16(rest, 0)?, wire::be16(rest, 2)?))
            }
            proto::ICMP | proto::ICMPV6 => {
                let [kind, code] = wire::be16(rest, 0)?.to_be_bytes();
                Some(Self::Icmp(kind, code))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = if self.source.is_ipv4() {
            "protocol"
        } else {
            "next header"
        };
        write!(f, "{} -> {} {number} {}", self.source, self.destination, self.protocol)?;
        match self.transport {
            Some(Transport::Ports(from, to)) => write!(f, " ports {from} -> {to}"),
            Some(Transport::Icmp(kind, code)) => write!(f, " type {kind} code {code}"),
            None => Ok(()),
        }
    }
}

/// A packet that was dropped, as [`crate::Output::dropped`] hears of it.
///
/// RFC 7915 wants system management events about [`DropReason::UdpZeroChecksum`] (section 4.5, with addresses and
/// ports) and [`DropReason::ExtensionAfterFragment`] (section 5.1.1).
///
/// [`DropReason::UdpZeroChecksum`]: crate::DropReason::UdpZeroChecksum
/// [`DropReason::ExtensionAfterFragment`]: crate::DropReason::ExtensionAfterFragment
#[derive(Clone, Copy, Debug)]
pub struct DropEvent<'a> {
    /// The direction that it would have gone.
    pub direction: crate::Direction,
    /// Why it was dropped.
    pub reason: crate::DropReason,
    /// The packet; one that was dropped on its way back to IPv6 (RFC 7757 section 4.2.2) is IPv4 already.
    pub packet: &'a [u8],
}

impl DropEvent<'_> {
    /// Whose packet it was.
    pub fn flow(&self) -> Option<Flow> {
        Flow::read(self.packet)
    }
}
