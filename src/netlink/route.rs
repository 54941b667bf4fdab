//! Routes. Another program's route is kept as the kernel's own message, so that it can be restored with every
//! attribute.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::ControlFlow;
use std::sync::Arc;

use clatd_stages::net::Route;
use clatd_stages::world::RouteAnswer;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType};

use super::mirror::{Mirror, Need};
use super::socket::Connection;
use super::wire::{self, Attribute, Attributes};
use super::{KernelMessage, NLM_F_CREATE, NLM_F_EXCL, Netlink, NetlinkError, emit};

mod listed;
mod request;

pub(super) use listed::ListedRoute;
use request::{Expiry, message, replay};

/// Length of `struct rtmsg`.
const HEADER: usize = 12;
/// Length of `struct rtnexthop`.
const NEXT_HOP: usize = 8;
/// The kernel's metric of an IPv6 route without one.
const IPV6_DEFAULT_METRIC: u32 = 1024;
/// The table of the host's own addresses.
const LOCAL_TABLE: u8 = libc::RT_TABLE_LOCAL;

const RTA_VIA: u16 = 18;
const RTA_NH_ID: u16 = 30;
const RTAX_MTU: u16 = 2;
const RTAX_ADVMSS: u16 = 8;
const RTNH_F_DEAD: u32 = 1;
const RTNH_F_ONLINK: u32 = 4;
const RTNH_F_LINKDOWN: u32 = 16;
/// The answer is the route of the table itself, not a copy for the packet.
const RTM_F_FIB_MATCH: u32 = 0x2000;

/// The names of devices by their indices.
type Names<'a> = dyn Fn(u32) -> Option<String> + 'a;

impl Netlink {
    /// The unicast default routes of a table, in the kernel's order.
    pub async fn defaults(&self, v6: bool, table: u32) -> Result<Vec<Route>, NetlinkError> {
        let routes = if v6 { Need::Routes6 } else { Need::Defaults4(table) };
        self.hub
            .read(&[Need::Links, routes], move |mirror, _| mirror.defaults(v6, table))
            .await
    }

    /// The IPv6 ones, made once for all who ask between two changes: hundreds of instances have hundreds of uplinks.
    pub async fn defaults6(&self, table: u32) -> Result<Arc<[Route]>, NetlinkError> {
        let needs = [Need::Links, Need::Routes6];
        self.hub.read(&needs, move |mirror, _| mirror.defaults6(table)).await
    }

    /// The IPv6 routes of a table to a destination, by a device of that table; with them those with several next hops.
    pub(crate) async fn leading_to(
        &self,
        table: u32,
        device: u32,
        destination: Ipv6Addr,
    ) -> Result<Vec<Route>, NetlinkError> {
        // If the kernel finds only a default route, as nearly everywhere, there are no others now; later ones cause
        // events.
        let among_all = !self.is_by_default(destination, device).await?;
        self.hub.watch(destination, among_all).await?;
        self.hub
            .read(&[Need::Links, Need::Routes6], move |mirror, _| {
                mirror.leading_to(table, device, destination)
            })
            .await
    }

    /// The unicast routes with the destination, table and protocol of this one.
    pub(crate) async fn routes_like(&self, route: &Route) -> Result<Vec<Route>, NetlinkError> {
        let v6 = matches!(route.destination, IpNet::V6(_));
        let destination = route.destination.trunc();
        let mut routes = if route.is_default() {
            self.defaults(v6, route.table).await?
        } else {
            self.dump_routes(v6, Some(route.table), route.protocol).await?
        };
        routes.retain(|found| found.destination.trunc() == destination && found.protocol == route.protocol);
        Ok(routes)
    }

    /// The unicast routes of a table with this destination, whoever made them. Reads the whole table.
    pub(crate) async fn routes_to(&self, route: &Route) -> Result<Vec<Route>, NetlinkError> {
        let v6 = matches!(route.destination, IpNet::V6(_));
        if route.is_default() {
            return self.defaults(v6, route.table).await;
        }
        let (table, destination) = (route.table, route.destination.trunc());
        let wanted = move |payload: &[u8]| ListedRoute::destination_of(payload) == Some(destination);
        self.dump_some(v6, Some(table), 0, wanted).await
    }

    /// The unicast routes of all tables with this protocol number.
    pub async fn routes_by_protocol(&self, v6: bool, protocol: u8) -> Result<Vec<Route>, NetlinkError> {
        self.dump_routes(v6, None, protocol).await
    }

    /// The route that a packet would take, by `device` and from `source` if given; `None` = unreachable.
    pub async fn route_to(
        &self,
        destination: IpAddr,
        device: Option<u32>,
        source: Option<Ipv6Addr>,
    ) -> Result<Option<RouteAnswer>, NetlinkError> {
        let mut message = RouteMessage::default();
        let (family, length, destination) = match destination {
            IpAddr::V6(address) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(address)),
            IpAddr::V4(address) => (AddressFamily::Inet, 32, RouteAddress::Inet(address)),
        };
        message.header.address_family = family;
        message.header.destination_prefix_length = length;
        message.attributes.push(RouteAttribute::Destination(destination));
        message.attributes.extend(device.map(RouteAttribute::Oif));
        if let Some(source) = source {
            message.header.source_prefix_length = 128;
            message
                .attributes
                .push(RouteAttribute::Source(RouteAddress::Inet6(source)));
        }
        let messages = match self.request(libc::RTM_GETROUTE, 0, emit(&message)).await {
            Err(error)
                if matches!(
                    error.errno(),
                    libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL
                ) =>
            {
                // Prohibit routes answer EACCES, blackhole routes EINVAL.
                return Ok(None);
            }
            other => other?,
        };
        let Some(message) = messages.iter().find(|message| message.kind == libc::RTM_NEWROUTE) else {
            return Ok(None);
        };
        if !matches!(message.payload.get(7), Some(&libc::RTN_UNICAST | &libc::RTN_LOCAL)) {
            return Ok(None);
        }
        let payload = Arc::from(message.payload.as_slice());
        let parse_now = move |mirror: &Mirror, _| parse(&payload, &|index| mirror.name(index));
        let found = self.hub.read(&[Need::Links], parse_now).await?;
        let found = found.ok_or(NetlinkError::Malformed)?;
        Ok(found.device.map(|device| RouteAnswer {
            device,
            gateway: found.gateway,
            source: found.source,
        }))
    }

    /// Adds a route of which only the fields are known. Fails with `EEXIST` if there is one with the same destination
    /// and metric.
    pub async fn add_route(&self, route: &Route, device: Option<u32>) -> Result<(), NetlinkError> {
        self.request(
            libc::RTM_NEWROUTE,
            NLM_F_CREATE | NLM_F_EXCL,
            emit(&message(route, device)),
        )
        .await
        .map(drop)
    }

    /// Restores a route from the kernel's own message, in front of those with the same destination and metric. It
    /// stands where it stood if routes are restored in the reverse order of their removal.
    pub async fn restore_route(&self, raw: &[u8], device: Option<u32>) -> Result<(), NetlinkError> {
        self.request(libc::RTM_NEWROUTE, NLM_F_CREATE, replay(raw, device, Expiry::Keep)?)
            .await
            .map(drop)
    }

    /// Deletes exactly the route of this message from the kernel.
    pub async fn delete_route(&self, raw: &[u8]) -> Result<(), NetlinkError> {
        self.request(libc::RTM_DELROUTE, 0, replay(raw, None, Expiry::Drop)?)
            .await
            .map(drop)
    }

    /// Removes the kernel's route of an anycast address. It is no error if there is none.
    pub(crate) async fn delete_anycast_route(&self, device: u32, address: Ipv6Addr) -> Result<(), NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet6;
        message.header.destination_prefix_length = 128;
        message.header.table = LOCAL_TABLE;
        message.header.kind = RouteType::Anycast;
        message
            .attributes
            .push(RouteAttribute::Destination(RouteAddress::Inet6(address)));
        message.attributes.push(RouteAttribute::Oif(device));
        match self.request(libc::RTM_DELROUTE, 0, emit(&message)).await {
            Err(error) if error.errno() == libc::ESRCH => Ok(()),
            other => other.map(drop),
        }
    }

    /// Whether the kernel has a route for this anycast address.
    pub(crate) async fn has_anycast_route(&self, device: u32, address: Ipv6Addr) -> Result<bool, NetlinkError> {
        let mut payload = vec![0; HEADER];
        payload[0] = wire::family(true);
        wire::push(&mut payload, libc::RTA_TABLE, &u32::from(LOCAL_TABLE).to_ne_bytes());
        let messages = self.dump(libc::RTM_GETROUTE, payload).await?;
        Ok(messages.iter().any(|message| {
            let payload = &message.payload;
            let mut attributes = Attributes(payload.get(HEADER..).unwrap_or_default());
            let find = |kind| attributes.clone().find(|attribute| attribute.kind == kind);
            payload.get(4) == Some(&LOCAL_TABLE)
                && payload.get(7) == Some(&libc::RTN_ANYCAST)
                && find(libc::RTA_DST).and_then(|found| found.address()) == Some(address.into())
                && attributes
                    .find(|found| found.kind == libc::RTA_OIF)
                    .and_then(|found| found.u32())
                    == Some(device)
        }))
    }

    async fn dump_routes(&self, v6: bool, table: Option<u32>, protocol: u8) -> Result<Vec<Route>, NetlinkError> {
        self.dump_some(v6, table, protocol, |_| true).await
    }

    async fn dump_some(
        &self,
        v6: bool,
        table: Option<u32>,
        protocol: u8,
        wanted: impl Fn(&[u8]) -> bool + Send + 'static,
    ) -> Result<Vec<Route>, NetlinkError> {
        let messages = self
            .with_connection(move |connection| dump(connection, v6, table, protocol, &wanted))
            .await?;
        let parse_all = move |mirror: &Mirror, _| {
            let unicast = messages.iter().filter(|message| is_unicast(&message.payload));
            let routes =
                unicast.filter_map(|message| parse(&message.payload.as_slice().into(), &|index| mirror.name(index)));
            routes
                .filter(|route| table.is_none_or(|table| route.table == table))
                .filter(|route| protocol == 0 || route.protocol == protocol)
                .collect()
        };
        self.hub.read(&[Need::Links], parse_all).await
    }

    /// Whether a packet to this destination by this device would take a default route.
    async fn is_by_default(&self, destination: Ipv6Addr, device: u32) -> Result<bool, NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet6;
        message.header.destination_prefix_length = 128;
        message.header.flags = RouteFlags::from_bits_retain(RTM_F_FIB_MATCH);
        message
            .attributes
            .push(RouteAttribute::Destination(RouteAddress::Inet6(destination)));
        message.attributes.push(RouteAttribute::Oif(device));
        match self.request(libc::RTM_GETROUTE, 0, emit(&message)).await {
            Ok(messages) => Ok(messages
                .iter()
                .all(|message| message.payload.get(1).is_some_and(|length| *length == 0))),
            // Not this way, then.
            Err(NetlinkError::Kernel { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn is_unicast(payload: &[u8]) -> bool {
    payload.get(7) == Some(&libc::RTN_UNICAST)
}

/// The wanted routes of one table or all, and of one protocol or all. The kernel leaves the others out.
fn dump(
    connection: &mut Connection,
    v6: bool,
    table: Option<u32>,
    protocol: u8,
    wanted: &dyn Fn(&[u8]) -> bool,
) -> Result<Vec<KernelMessage>, NetlinkError> {
    let mut payload = vec![0; HEADER];
    payload[0] = wire::family(v6);
    payload[5] = protocol;
    if let Some(table) = table {
        wire::push(&mut payload, libc::RTA_TABLE, &table.to_ne_bytes());
    }
    match connection.dump_some(libc::RTM_GETROUTE, &payload, wanted) {
        // A table that was never used does not exist.
        Err(error) if error.errno() == libc::ENOENT => Ok(Vec::new()),
        other => other,
    }
}

/// The IPv6 default routes of all tables, and the routes to these destinations. The kernel cannot select them: all
/// its routes are read once, and the others are dropped.
pub(super) fn dump6(
    connection: &mut Connection,
    destinations: &BTreeSet<Ipv6Addr>,
) -> Result<Vec<KernelMessage>, NetlinkError> {
    let leads_to = |payload: &[u8]| {
        let Some(IpNet::V6(network)) = ListedRoute::destination_of(payload) else {
            return false;
        };
        destinations.iter().any(|destination| network.contains(destination))
    };
    let wanted = |payload: &[u8]| {
        let is_default = payload.get(1).is_some_and(|length| *length == 0);
        is_unicast(payload) && (is_default || !destinations.is_empty() && leads_to(payload))
    };
    dump(connection, true, None, 0, &wanted)
}

/// The IPv4 default routes of a table, which the kernel sends first. The connection must not be used again, since the
/// dump is not read to its end.
pub(super) fn dump_defaults4(mut connection: Connection, table: u32) -> Result<Vec<KernelMessage>, NetlinkError> {
    let mut payload = vec![0; HEADER];
    payload[0] = wire::family(false);
    wire::push(&mut payload, libc::RTA_TABLE, &table.to_ne_bytes());
    let mut messages = Vec::new();
    let take = |kind, payload: &[u8]| {
        let Some(destination) = ListedRoute::destination_of(payload) else {
            return ControlFlow::Continue(());
        };
        // The kernel lists routes in the order of their addresses, so no default route comes after the first other
        // address. Routes such as 0.0.0.0/8 stand among the default routes.
        if !destination.addr().is_unspecified() {
            return ControlFlow::Break(());
        }
        // A kernel without strict checking gives all tables.
        if destination.prefix_len() == 0 && is_unicast(payload) && ListedRoute::table_of(payload) == Some(table) {
            let payload = payload.to_vec();
            messages.push(KernelMessage { kind, payload });
        }
        ControlFlow::Continue(())
    };
    match connection.dump_until(libc::RTM_GETROUTE, &payload, take) {
        Err(error) if error.errno() == libc::ENOENT => {}
        other => other?,
    }
    Ok(messages)
}

/// Whether both are the same route: byte by byte if both have the kernel's message, else by their fields.
pub(crate) fn same(wanted: &Route, found: &Route) -> bool {
    if let (Some(wanted), Some(found)) = (raw_of(wanted), raw_of(found))
        && let (Ok(wanted), Ok(found)) = (replay(wanted, None, Expiry::Drop), replay(found, None, Expiry::Drop))
    {
        return wanted == found;
    }
    let metric = |route: &Route| match (route.destination, route.metric) {
        (IpNet::V6(_), 0) => IPV6_DEFAULT_METRIC,
        (_, metric) => metric,
    };
    let key = |route: &Route| (route.destination.trunc(), route.table, route.protocol, metric(route));
    let value = |route: &Route| {
        (
            route.device.clone(),
            route.gateway,
            route.source,
            route.mtu,
            route.advmss,
            route.onlink,
        )
    };
    key(wanted) == key(found) && value(wanted) == value(found)
}

/// The kernel's message of a route that was read from it.
pub(crate) fn raw_of(route: &Route) -> Option<&[u8]> {
    route.raw.as_ref().map(|message| &*message.0)
}

/// A route from `struct rtmsg` and its attributes; `names` are those of devices.
pub(super) fn parse(payload: &Arc<[u8]>, names: &Names<'_>) -> Option<Route> {
    let v6 = match i32::from(*payload.first()?) {
        libc::AF_INET => false,
        libc::AF_INET6 => true,
        _ => return None,
    };
    let flags = wire::u32_at(payload, 8)?;
    let any = if v6 {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    };
    let mut route = Route {
        destination: IpNet::new(any, *payload.get(1)?).ok()?,
        device: None,
        gateway: None,
        source: None,
        metric: 0,
        table: u32::from(*payload.get(4)?),
        protocol: *payload.get(5)?,
        mtu: None,
        advmss: None,
        onlink: flags & RTNH_F_ONLINK != 0,
        dead: flags & (RTNH_F_DEAD | RTNH_F_LINKDOWN) != 0,
        raw: Some(clatd_stages::net::RouteMessage(Arc::clone(payload))),
    };
    for attribute in Attributes(payload.get(HEADER..)?) {
        match attribute.kind {
            libc::RTA_DST => {
                route.destination = IpNet::new(attribute.address()?, route.destination.prefix_len()).ok()?
            }
            libc::RTA_PREFSRC => route.source = attribute.address(),
            libc::RTA_PRIORITY => route.metric = attribute.u32()?,
            libc::RTA_TABLE => route.table = attribute.u32()?,
            libc::RTA_METRICS => {
                for metric in attribute.nested() {
                    match metric.kind {
                        RTAX_MTU => route.mtu = metric.u32(),
                        RTAX_ADVMSS => route.advmss = metric.u32(),
                        _ => {}
                    }
                }
            }
            libc::RTA_MULTIPATH => first_next_hop(&mut route, attribute.value, names),
            _ => next_hop(&mut route, &attribute, names),
        }
    }
    Some(route)
}

fn next_hop(route: &mut Route, attribute: &Attribute<'_>, names: &Names<'_>) {
    match attribute.kind {
        libc::RTA_OIF => route.device = attribute.u32().and_then(names),
        libc::RTA_GATEWAY => route.gateway = attribute.address(),
        // struct rtvia: address family, then the address.
        RTA_VIA => route.gateway = attribute.value.get(2..).and_then(wire::address),
        _ => {}
    }
}

/// The sources that may use a route that was read from the kernel; `None` = all.
pub(crate) fn source_prefix(route: &Route) -> Option<IpNet> {
    let raw = raw_of(route)?;
    let length = *raw.get(2)?;
    let mut attributes = Attributes(raw.get(HEADER..)?);
    let source = attributes.find(|attribute| attribute.kind == libc::RTA_SRC)?;
    IpNet::new(source.address()?, length).ok()
}

/// All next hops of a route that was read from the kernel: index of the device, and gateway.
pub(crate) fn gateways(route: &Route) -> Vec<(u32, IpAddr)> {
    let raw = raw_of(route).unwrap_or_default();
    let attributes = Attributes(raw.get(HEADER..).unwrap_or_default());
    let find = |kind| attributes.clone().find(|attribute| attribute.kind == kind);
    if let Some(hops) = find(libc::RTA_MULTIPATH) {
        return next_hops(hops.value)
            .filter_map(|(index, hop)| Some((index, gateway(hop)?)))
            .collect();
    }
    let only = find(libc::RTA_OIF).and_then(|attribute| attribute.u32());
    only.zip(gateway(attributes)).into_iter().collect()
}

fn gateway(mut attributes: Attributes<'_>) -> Option<IpAddr> {
    attributes
        .find(|attribute| attribute.kind == libc::RTA_GATEWAY)?
        .address()
}

/// The hops of a route with several: index of the device, and attributes.
fn next_hops(hops: &[u8]) -> impl Iterator<Item = (u32, Attributes<'_>)> {
    let mut rest = hops;
    std::iter::from_fn(move || {
        let (length, index) = wire::u16_at(rest, 0).zip(wire::u32_at(rest, 4))?;
        let attributes = Attributes(rest.get(NEXT_HOP..usize::from(length))?);
        rest = rest.get(wire::align(usize::from(length))..).unwrap_or_default();
        Some((index, attributes))
    })
}

/// A route with several next hops shows its first; all of them are in `raw`.
fn first_next_hop(route: &mut Route, hops: &[u8], names: &Names<'_>) {
    let Some((index, attributes)) = next_hops(hops).next() else {
        return;
    };
    route.device = names(index);
    for attribute in attributes {
        next_hop(route, &attribute, names);
    }
    let mut dead = true;
    let mut rest = hops;
    while let (Some(length @ 1..), Some(flags)) = (wire::u16_at(rest, 0), rest.get(2)) {
        dead &= u32::from(*flags) & (RTNH_F_DEAD | RTNH_F_LINKDOWN) != 0;
        rest = rest.get(wire::align(usize::from(length))..).unwrap_or_default();
    }
    route.dead = dead;
}
