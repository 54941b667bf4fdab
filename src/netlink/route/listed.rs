//! Routes as they are kept in the mirror.

use std::cmp::Ordering;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

use super::super::wire::Attributes;
use super::{Expiry, HEADER, RTA_NH_ID, gateway, replay};

/// A route as the kernel reports it, with what distinguishes it from others.
#[derive(Debug, Clone)]
pub(in crate::netlink) struct ListedRoute {
    pub(in crate::netlink) payload: Arc<[u8]>,
    pub(in crate::netlink) table: u32,
    pub(in crate::netlink) destination: IpNet,
    /// The sources that may use it; a length of 0 = all.
    sources: IpNet,
    /// The address that packets get which have none yet.
    pub(in crate::netlink) preferred_source: Option<IpAddr>,
    pub(in crate::netlink) metric: u32,
    pub(in crate::netlink) protocol: u8,
    /// Its nexthop is an object of its own.
    pub(in crate::netlink) object: bool,
    device: Option<u32>,
    gateway: Option<IpAddr>,
    several: bool,
}

impl ListedRoute {
    pub(in crate::netlink) fn new(payload: Vec<u8>) -> Option<Self> {
        let attributes = Attributes(payload.get(HEADER..)?);
        let number = |kind| attributes.clone().find(|attribute| attribute.kind == kind)?.u32();
        Some(Self {
            table: Self::table_of(&payload)?,
            destination: Self::destination_of(&payload)?,
            sources: Self::prefix_of(&payload, libc::RTA_SRC, 2)?,
            preferred_source: attributes
                .clone()
                .find(|attribute| attribute.kind == libc::RTA_PREFSRC)
                .and_then(|attribute| attribute.address()),
            metric: number(libc::RTA_PRIORITY).unwrap_or_default(),
            protocol: *payload.get(5)?,
            object: number(RTA_NH_ID).is_some(),
            device: number(libc::RTA_OIF),
            gateway: gateway(attributes.clone()),
            several: attributes
                .clone()
                .any(|attribute| attribute.kind == libc::RTA_MULTIPATH),
            payload: payload.into(),
        })
    }

    pub(super) fn table_of(payload: &[u8]) -> Option<u32> {
        let named = Attributes(payload.get(HEADER..)?).find(|attribute| attribute.kind == libc::RTA_TABLE);
        named
            .and_then(|attribute| attribute.u32())
            .or_else(|| payload.get(4).map(|&table| table.into()))
    }

    pub(super) fn destination_of(payload: &[u8]) -> Option<IpNet> {
        Self::prefix_of(payload, libc::RTA_DST, 1)
    }

    /// The prefix that has its address in this attribute, and its length in this byte of the header.
    fn prefix_of(payload: &[u8], kind: u16, length: usize) -> Option<IpNet> {
        let any = match i32::from(*payload.first()?) {
            libc::AF_INET => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            libc::AF_INET6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => return None,
        };
        let mut attributes = Attributes(payload.get(HEADER..)?);
        let named = attributes.find(|attribute| attribute.kind == kind);
        let address = named.and_then(|attribute| attribute.address()).unwrap_or(any);
        Some(IpNet::new(address, *payload.get(length)?).ok()?.trunc())
    }

    pub(in crate::netlink) fn v6(&self) -> bool {
        self.destination.addr().is_ipv6()
    }

    /// The index of its device; `None` = none, or several.
    pub(in crate::netlink) fn only_device(&self) -> Option<u32> {
        self.device.filter(|_| !self.several)
    }

    /// Whether it has several next hops, or names a next hop object.
    pub(in crate::netlink) fn is_complex(&self) -> bool {
        self.several || self.object
    }

    /// Whether one can replace the other, or become a next hop of it.
    pub(in crate::netlink) fn is_rival(&self, other: &Self) -> bool {
        let key = |seen: &Self| (seen.table, seen.destination, seen.sources, seen.metric);
        key(self) == key(other)
    }

    /// Whether it is the same route, with any metrics and lifetime.
    pub(in crate::netlink) fn is_same(&self, other: &Self) -> bool {
        let key = |seen: &Self| (seen.protocol, seen.device, seen.gateway);
        self.is_rival(other) && key(self) == key(other)
    }

    /// Which of two IPv6 routes to one destination the kernel lists first. Sources stand in a tree below the destination,
    /// which is listed from its leaves to its root.
    pub(in crate::netlink) fn order(&self, other: &Self) -> Ordering {
        let (mine, others) = (self.sources, other.sources);
        let sources = match (mine.contains(&others), others.contains(&mine)) {
            (false, false) => mine.addr().cmp(&others.addr()),
            _ => others.prefix_len().cmp(&mine.prefix_len()),
        };
        sources.then(self.metric.cmp(&other.metric))
    }

    pub(in crate::netlink) fn differs_by_lifetime_only(&self, other: &Self) -> bool {
        let lasting = |seen: &Self| replay(&seen.payload, None, Expiry::Drop).ok();
        lasting(self) == lasting(other)
    }
}
