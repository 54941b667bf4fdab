//! Neighbours, and the proxy entries for which the kernel answers.

use std::net::{IpAddr, Ipv6Addr};

use clatd_stages::net::ROUTE_PROTOCOL;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteProtocol;

use super::wire::{self, Attributes};
use super::{KernelMessage, NLM_F_CREATE, NLM_F_EXCL, Netlink, NetlinkError, emit};

/// Length of `struct ndmsg`.
const HEADER: usize = 12;
const NTF_PROXY: u8 = 8;
const NTF_ROUTER: u8 = 0x80;
const NDA_DST: u16 = 1;
const NDA_PROTOCOL: u16 = 12;

/// An address that is answered for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProxyNeighbour {
    /// The device's index.
    pub(crate) index: u32,
    /// The address.
    pub(crate) address: Ipv6Addr,
    /// Which program made it, as with routes; 0 = unknown.
    pub(crate) protocol: u8,
}

/// What a neighbour entry says of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reachability {
    /// It answers.
    Answers,
    /// It sent something, or answered some time ago.
    Heard,
    /// It is being asked.
    Asked,
    /// It did not answer.
    Failed,
}

/// A neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Neighbour {
    /// Its address.
    pub(crate) address: Ipv6Addr,
    /// Whether it answers.
    pub(crate) says: Reachability,
    /// Whether it said that it is a router.
    pub(crate) router: bool,
}

/// The meaning of a state of a neighbour entry (`NUD_...`).
pub(crate) fn reachability(state: NeighbourState) -> Reachability {
    match state {
        NeighbourState::Reachable | NeighbourState::Permanent | NeighbourState::Noarp => Reachability::Answers,
        NeighbourState::Failed => Reachability::Failed,
        NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe => Reachability::Heard,
        _ => Reachability::Asked,
    }
}

impl Netlink {
    /// The state of one IPv6 neighbour of a device.
    pub(crate) async fn neighbour(&self, index: u32, address: Ipv6Addr) -> Result<Option<Neighbour>, NetlinkError> {
        let mut payload = vec![0; HEADER];
        payload[0] = wire::family(true);
        payload[4..8].copy_from_slice(&index.to_ne_bytes());
        wire::push(&mut payload, NDA_DST, &address.octets());
        match self.request(libc::RTM_GETNEIGH, 0, payload).await {
            Ok(messages) => Ok(messages.iter().find_map(|message| parse_neighbour(&message.payload))),
            Err(error) if matches!(error.errno(), libc::ENOENT | libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the kernel probe a neighbour, as if something were sent to it.
    pub(crate) async fn ask_neighbour(&self, index: u32, address: Ipv6Addr) -> Result<(), NetlinkError> {
        let mut message = message(index, address);
        message.header.flags = NeighbourFlags::Use;
        self.request(libc::RTM_NEWNEIGH, NLM_F_CREATE, emit(&message))
            .await
            .map(drop)
    }

    /// The IPv6 proxy neighbour entries of all devices.
    pub(crate) async fn proxy_neighbours(&self) -> Result<Vec<ProxyNeighbour>, NetlinkError> {
        let mut payload = vec![0; HEADER];
        payload[0] = wire::family(true);
        payload[10] = NTF_PROXY;
        let messages = self.dump(libc::RTM_GETNEIGH, payload).await?;
        Ok(messages.iter().filter_map(parse).collect())
    }

    /// Adds a proxy neighbour entry that says it is ours.
    pub async fn add_proxy_neighbour(&self, index: u32, address: Ipv6Addr) -> Result<(), NetlinkError> {
        let mut message = message(index, address);
        message
            .attributes
            .push(NeighbourAttribute::Protocol(RouteProtocol::from(ROUTE_PROTOCOL)));
        self.request(libc::RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_EXCL, emit(&message))
            .await
            .map(drop)
    }

    /// Deletes a proxy neighbour entry.
    pub async fn delete_proxy_neighbour(&self, index: u32, address: Ipv6Addr) -> Result<(), NetlinkError> {
        self.request(libc::RTM_DELNEIGH, 0, emit(&message(index, address)))
            .await
            .map(drop)
    }
}

fn message(index: u32, address: Ipv6Addr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet6;
    message.header.ifindex = index;
    message.header.flags = NeighbourFlags::Proxy;
    message
        .attributes
        .push(NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)));
    message
}

/// An IPv6 neighbour from `struct ndmsg` and its attributes. Proxy entries are left out.
pub(super) fn parse_neighbour(payload: &[u8]) -> Option<Neighbour> {
    let flags = *payload.get(10)?;
    if flags & NTF_PROXY != 0 {
        return None;
    }
    let mut attributes = Attributes(payload.get(HEADER..)?);
    let IpAddr::V6(address) = attributes.find(|attribute| attribute.kind == NDA_DST)?.address()? else {
        return None;
    };
    Some(Neighbour {
        address,
        says: reachability(wire::u16_at(payload, 8)?.into()),
        router: flags & NTF_ROUTER != 0,
    })
}

fn parse(message: &KernelMessage) -> Option<ProxyNeighbour> {
    if message.kind != libc::RTM_NEWNEIGH || message.payload.get(10)? & NTF_PROXY == 0 {
        return None;
    }
    let find =
        |kind| Attributes(message.payload.get(HEADER..).unwrap_or_default()).find(|attribute| attribute.kind == kind);
    let IpAddr::V6(address) = find(NDA_DST)?.address()? else {
        return None;
    };
    let protocol = find(NDA_PROTOCOL)
        .and_then(|attribute| attribute.u8())
        .unwrap_or_default();
    Some(ProxyNeighbour {
        index: wire::u32_at(&message.payload, 4)?,
        address,
        protocol,
    })
}
