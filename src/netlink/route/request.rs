//! Requests for routes: made from our own type, or from the kernel's message of a route that it had.

use std::net::IpAddr;

use clatd_stages::net::Route;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
    RouteType, RouteVia,
};

use super::super::NetlinkError;
use super::super::wire::{self, Attributes};
use super::{HEADER, RTA_NH_ID, RTA_VIA, RTNH_F_ONLINK};

/// Ticks a second of the times in `RTA_CACHEINFO`.
const USER_HZ: u32 = 100;

const RTA_ENCAP_TYPE: u16 = 21;
const RTA_ENCAP: u16 = 22;
const RTA_EXPIRES: u16 = 23;
const RTNH_F_PERVASIVE: u32 = 2;
/// The flags that a user may set. The others are the kernel's state of the route.
const SETTABLE_FLAGS: u32 = RTNH_F_PERVASIVE | RTNH_F_ONLINK;

/// The request for a route of ours.
pub(super) fn message(route: &Route, device: Option<u32>) -> RouteMessage {
    let v6 = matches!(route.destination, IpNet::V6(_));
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet },
        destination_prefix_length: route.destination.prefix_len(),
        table: u8::try_from(route.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC),
        protocol: RouteProtocol::from(route.protocol),
        // The choice of `ip`: a route without a next hop is on the link.
        scope: if v6 || route.gateway.is_some() {
            RouteScope::Universe
        } else {
            RouteScope::Link
        },
        kind: RouteType::Unicast,
        flags: if route.onlink {
            RouteFlags::Onlink
        } else {
            RouteFlags::empty()
        },
        ..RouteHeader::default()
    };
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Table(route.table));
    if route.destination.prefix_len() > 0 {
        attributes.push(RouteAttribute::Destination(address(route.destination.trunc().addr())));
    }
    attributes.extend(device.map(RouteAttribute::Oif));
    attributes.extend(route.gateway.map(|gateway| match gateway {
        IpAddr::V6(gateway) if !v6 => RouteAttribute::Via(RouteVia::Inet6(gateway)),
        gateway => RouteAttribute::Gateway(address(gateway)),
    }));
    attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(address(source))));
    if route.metric != 0 {
        attributes.push(RouteAttribute::Priority(route.metric));
    }
    let metrics: Vec<_> = route
        .mtu
        .map(RouteMetric::Mtu)
        .into_iter()
        .chain(route.advmss.map(RouteMetric::Advmss))
        .collect();
    if !metrics.is_empty() {
        attributes.push(RouteAttribute::Metrics(metrics));
    }
    message
}

fn address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(v4) => RouteAddress::Inet(v4),
        IpAddr::V6(v6) => RouteAddress::Inet6(v6),
    }
}

/// What becomes of a route's remaining lifetime.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Expiry {
    Keep,
    Drop,
}

/// Makes a request for a route from the kernel's message. It leaves out the attributes that the kernel reports but does
/// not accept. `device` replaces the output device, whose index may have changed.
pub(super) fn replay(raw: &[u8], device: Option<u32>, expiry: Expiry) -> Result<Vec<u8>, NetlinkError> {
    let (header, attributes) = raw.split_at_checked(HEADER).ok_or(NetlinkError::Malformed)?;
    let flags = wire::u32_at(header, 8).ok_or(NetlinkError::Malformed)? & SETTABLE_FLAGS;
    let mut payload = header[..8].to_vec();
    payload.extend_from_slice(&flags.to_ne_bytes());
    // A nexthop object replaces all of these, and the kernel refuses them beside it.
    let by_object = Attributes(attributes).any(|attribute| attribute.kind == RTA_NH_ID);
    for attribute in Attributes(attributes) {
        match attribute.kind {
            libc::RTA_OIF | libc::RTA_GATEWAY | libc::RTA_MULTIPATH | RTA_VIA | RTA_ENCAP_TYPE | RTA_ENCAP
                if by_object => {}
            libc::RTA_CACHEINFO => {
                // struct rta_cacheinfo: the expiry is its third word, in ticks from now; 0 = never.
                let ticks = wire::u32_at(attribute.value, 8).filter(|&ticks| ticks.cast_signed() > 0);
                if let (Some(ticks), Expiry::Keep) = (ticks, expiry) {
                    wire::push(&mut payload, RTA_EXPIRES, &(ticks / USER_HZ).max(1).to_ne_bytes());
                }
            }
            libc::RTA_OIF => {
                let device = device.map(u32::to_ne_bytes);
                wire::push(
                    &mut payload,
                    attribute.raw_kind,
                    device.as_ref().map_or(attribute.value, |device| device),
                );
            }
            libc::RTA_MULTIPATH => wire::push(&mut payload, attribute.raw_kind, &settable_next_hops(attribute.value)),
            _ => wire::push(&mut payload, attribute.raw_kind, attribute.value),
        }
    }
    Ok(payload)
}

fn settable_next_hops(hops: &[u8]) -> Vec<u8> {
    let mut hops = hops.to_vec();
    let mut at = 0;
    while let Some(length @ 1..) = wire::u16_at(&hops, at) {
        if let Some(flags) = hops.get_mut(at + 2) {
            // The two flags are in the low byte.
            *flags &= SETTABLE_FLAGS as u8;
        }
        at += wire::align(usize::from(length));
    }
    hops
}
