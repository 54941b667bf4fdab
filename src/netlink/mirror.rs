//! What is known of the network, and how events change it. No I/O: the mirror says what is missing, the hub dumps it,
//! and events keep it up to date.
//!
//! Only what somebody asks for is kept, and nothing that grows with what is not ours: devices; addresses of devices
//! that were asked for; rules; default routes; IPv6 routes to destinations that were asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use clatd_stages::net::{Address6, Link, ROUTE_PROTOCOL, Route};
use tokio::time::{Duration, Instant};

use super::change::{Change, LinkChange};
use super::events::NetlinkEvent;
use super::route::{self, ListedRoute};
use super::rule::{self, FoundRule};
use super::socket::Message;
use super::{address, link, neighbour, wire};

/// For so many destinations routes are kept. A new one replaces the oldest.
const MOST_WATCHED: usize = 512;
/// So many addresses of a device are remembered although nobody asked for them.
const MOST_UNASKED: usize = 64;
/// If the end of a lifetime moves by less, that is no news.
const SLACK: Duration = Duration::from_secs(3);

const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_APPEND: u16 = 0x800;
const NETCONFA_IFINDEX: u16 = 1;
/// Length of `struct netconfmsg`, aligned.
const NETCONF_HEADER: usize = 4;

/// What a read needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// All devices.
    Links,
    /// The IPv6 addresses of a device.
    Addresses6(u32),
    /// The rules, of IPv6 or IPv4.
    Rules(bool),
    /// The IPv4 default routes of a table.
    Defaults4(u32),
    /// The IPv6 default routes, and the routes to watched destinations, of all tables.
    Routes6,
}

/// The mirror.
#[derive(Debug, Default)]
pub(crate) struct Mirror {
    links: Option<BTreeMap<u32, Link>>,
    /// How often each device lost its carrier, as the kernel counts.
    carrier_losses: BTreeMap<u32, u32>,
    addresses: BTreeMap<u32, Addresses>,
    rules: BTreeMap<bool, Vec<FoundRule>>,
    defaults4: BTreeMap<u32, Defaults4>,
    /// In the kernel's order within a table and a destination.
    routes6: Option<Vec<ListedRoute>>,
    /// When each was first asked for, counted.
    watched: BTreeMap<Ipv6Addr, u64>,
    asked: u64,
}

/// The IPv6 addresses of a device.
#[derive(Debug, Default)]
struct Addresses {
    known: Vec<Address>,
    /// Nobody asked for them yet. Only those with events are known, to see what is news.
    partial: bool,
}

/// The IPv4 default routes of a table.
#[derive(Debug, Default)]
struct Defaults4 {
    known: Vec<ListedRoute>,
    /// They must be read again when somebody asks. Until then `known` shows whom a change concerns.
    stale: bool,
}

#[derive(Debug)]
struct Address {
    address: Address6,
    ends: Option<Instant>,
}

impl Mirror {
    /// Whether a read can be answered.
    pub(crate) fn has(&self, need: Need) -> bool {
        match need {
            Need::Links => self.links.is_some(),
            Need::Addresses6(index) => {
                let whole = self.addresses.get(&index).is_some_and(|addresses| !addresses.partial);
                whole || !self.is_there(index)
            }
            Need::Rules(v6) => self.rules.contains_key(&v6),
            Need::Defaults4(table) => self.defaults4.get(&table).is_some_and(|routes| !routes.stale),
            Need::Routes6 => self.routes6.is_some(),
        }
    }

    /// Takes in what was dumped for a need.
    pub(crate) fn load(&mut self, need: Need, messages: Vec<Message>, now: Instant) {
        match need {
            Need::Links => {
                let links = messages.iter().filter_map(|message| {
                    let link = link::parse(&message.payload)?;
                    Some((link, link::carrier_losses(&message.payload)))
                });
                self.carrier_losses.clear();
                let mut known = BTreeMap::new();
                for (link, losses) in links {
                    self.carrier_losses.extend(losses.map(|losses| (link.index, losses)));
                    known.insert(link.index, link);
                }
                self.links = Some(known);
            }
            Need::Addresses6(index) => {
                let found = messages.iter().filter_map(|message| address::parse6(&message.payload));
                let known = found.map(|address| Address::new(address, now)).collect();
                let partial = false;
                self.addresses.insert(index, Addresses { known, partial });
            }
            Need::Rules(v6) => {
                let rules = messages.iter().filter_map(|message| rule::parse(&message.payload));
                self.rules.insert(v6, rules.collect());
            }
            Need::Defaults4(table) => {
                let routes = messages
                    .into_iter()
                    .filter_map(|message| ListedRoute::new(message.payload));
                let known = routes.collect();
                let stale = false;
                self.defaults4.insert(table, Defaults4 { known, stale });
            }
            Need::Routes6 => {
                let routes = messages
                    .into_iter()
                    .filter_map(|message| ListedRoute::new(message.payload));
                self.routes6 = Some(routes.collect());
            }
        }
    }

    /// Forgets all: events were lost.
    pub(crate) fn forget(&mut self) {
        let (watched, asked) = (std::mem::take(&mut self.watched), self.asked);
        *self = Self {
            watched,
            asked,
            ..Self::default()
        };
    }

    /// From now on keeps the routes to this destination, too: those to come, or `all` routes. Returns true if that is
    /// new.
    pub(crate) fn watch(&mut self, destination: Ipv6Addr, all: bool) -> bool {
        if self.watched.contains_key(&destination) {
            return false;
        }
        if self.watched.len() >= MOST_WATCHED
            && let Some(first) = self.watched.iter().min_by_key(|(_, asked)| **asked)
        {
            let first = *first.0;
            self.watched.remove(&first);
        }
        self.asked += 1;
        self.watched.insert(destination, self.asked);
        if all {
            self.routes6 = None;
        }
        true
    }

    /// The destinations whose routes are kept.
    pub(crate) fn watched(&self) -> BTreeSet<Ipv6Addr> {
        self.watched.keys().copied().collect()
    }

    /// All devices, by index.
    pub(crate) fn links(&self) -> Vec<Link> {
        self.links.iter().flatten().map(|(_, link)| link.clone()).collect()
    }

    /// One device by name.
    pub(crate) fn link(&self, name: &str) -> Option<Link> {
        let mut links = self.links.iter().flatten();
        links.find(|(_, link)| link.name == name).map(|(_, link)| link.clone())
    }

    /// The name of a device.
    pub(crate) fn name(&self, index: u32) -> Option<String> {
        Some(self.links.as_ref()?.get(&index)?.name.clone())
    }

    /// The IPv6 addresses of a device, in the kernel's order.
    pub(crate) fn addresses6(&self, index: u32, now: Instant) -> Vec<Address6> {
        let held = self.addresses.get(&index).map(|addresses| &addresses.known);
        held.into_iter().flatten().map(|held| held.at(now)).collect()
    }

    /// The rules, in the kernel's order.
    pub(crate) fn rules(&self, v6: bool) -> Vec<FoundRule> {
        self.rules.get(&v6).cloned().unwrap_or_default()
    }

    /// The default routes of a table, in the kernel's order.
    pub(crate) fn defaults(&self, v6: bool, table: u32) -> Vec<Route> {
        let seen: Vec<&ListedRoute> = if v6 {
            let all = self.routes6.iter().flatten();
            all.filter(|seen| seen.table == table && seen.destination.prefix_len() == 0)
                .collect()
        } else {
            let routes = self.defaults4.get(&table).map(|routes| &routes.known);
            routes.into_iter().flatten().collect()
        };
        seen.into_iter().filter_map(|seen| self.route(seen)).collect()
    }

    /// The IPv6 routes of a table to a destination, which is watched.
    pub(crate) fn leading_to(&self, table: u32, destination: Ipv6Addr) -> Vec<Route> {
        let all = self.routes6.iter().flatten();
        all.filter(|seen| seen.table == table && seen.destination.contains(&IpAddr::V6(destination)))
            .filter_map(|seen| self.route(seen))
            .collect()
    }

    fn route(&self, seen: &ListedRoute) -> Option<Route> {
        let mut route = route::parse(&seen.payload, &|index| self.name(index))?;
        // The kernel reports no change of a route whose device lost its carrier, or got it back.
        if let Some(link) = seen.only_device().and_then(|index| self.links.as_ref()?.get(&index)) {
            route.dead = !link.up || !link.carrier;
        }
        Some(route)
    }

    fn is_there(&self, index: u32) -> bool {
        self.links.as_ref().is_some_and(|links| links.contains_key(&index))
    }

    /// Takes in an event.
    pub(crate) fn take(&mut self, event: NetlinkEvent<'_>, now: Instant) -> Vec<Change> {
        let changes = match event.kind {
            libc::RTM_NEWLINK => self.take_link(event.payload, false),
            libc::RTM_DELLINK => self.take_link(event.payload, true),
            libc::RTM_NEWADDR => self.take_address(event.payload, false, now),
            libc::RTM_DELADDR => self.take_address(event.payload, true, now),
            libc::RTM_NEWROUTE => self.take_route(event, false),
            libc::RTM_DELROUTE => self.take_route(event, true),
            libc::RTM_NEWRULE => self.take_rule(event.payload, false),
            libc::RTM_DELRULE => self.take_rule(event.payload, true),
            libc::RTM_NEWNEIGH => self.take_neighbour(event.payload, false),
            libc::RTM_DELNEIGH => self.take_neighbour(event.payload, true),
            libc::RTM_NEWNETCONF => self.take_settings(event.payload),
            RTM_NEWNEXTHOP | RTM_DELNEXTHOP => Some(self.take_nexthop()),
            _ => None,
        };
        changes.unwrap_or_default()
    }

    fn take_link(&mut self, payload: &[u8], gone: bool) -> Option<Vec<Change>> {
        // Bridges report their ports by messages of their own family.
        if i32::from(*payload.first()?) != libc::AF_UNSPEC {
            return None;
        }
        let mut link = link::parse(payload)?;
        let index = link.index;
        // A carrier that came back at once shows by the kernel's count of its losses only.
        let losses = link::carrier_losses(payload);
        let before = match gone {
            true => self.carrier_losses.remove(&index),
            false => losses.and_then(|losses| self.carrier_losses.insert(index, losses)),
        };
        let lost_again = before.is_some() && losses.is_some() && before != losses;
        let running = wire::u32_at(payload, 8)? & libc::IFF_RUNNING.cast_unsigned() != 0;
        let lost_carrier = !gone && (!running || lost_again);
        let known = self.links.as_ref().and_then(|links| links.get(&index)).cloned();
        // Wireless events have only the flags and the name.
        if link.mtu == 0
            && let Some(known) = known.clone().filter(|_| !gone)
        {
            let (up, carrier) = (link.up, link.carrier);
            link = Link { up, carrier, ..known };
        }
        let news = gone || known.as_ref() != Some(&link);
        let mut changes = Vec::new();
        if news {
            if gone || known.as_ref().is_some_and(|known| known.up) && !link.up {
                self.lose_routes6(index);
            }
            // IPv4 routes go with their device, and come back, without any event.
            changes.extend(self.doubt_defaults4(index));
        }
        if let Some(links) = &mut self.links {
            if gone {
                links.remove(&index);
                self.addresses.remove(&index);
            } else {
                links.insert(index, link.clone());
            }
        }
        let former_name = known.map(|known| known.name).filter(|name| *name != link.name);
        changes.push(Change::Link(LinkChange {
            link,
            former_name,
            gone,
            lost_carrier,
            news,
        }));
        Some(changes)
    }

    /// The device is down or gone, and so are its routes.
    fn lose_routes6(&mut self, index: u32) {
        if let Some(routes) = &mut self.routes6 {
            if routes.iter().any(ListedRoute::is_complex) {
                self.routes6 = None;
            } else {
                routes.retain(|seen| seen.only_device() != Some(index));
            }
        }
    }

    /// IPv4 default routes must be read again. Reports those of a device, which may have changed.
    fn doubt_defaults4(&mut self, index: u32) -> Vec<Change> {
        let known = self.defaults4.values().flat_map(|routes| &routes.known);
        let doubted = known.filter(|seen| seen.only_device() == Some(index) || seen.is_complex());
        let changes = doubted.map(|seen| self.route_change(seen, true)).collect();
        for routes in self.defaults4.values_mut() {
            routes.stale = true;
        }
        changes
    }

    fn take_address(&mut self, payload: &[u8], gone: bool, now: Instant) -> Option<Vec<Change>> {
        let v6 = i32::from(*payload.first()?) == libc::AF_INET6;
        let index = wire::u32_at(payload, 4)?;
        let mut changes = Vec::new();
        let (mut link_local, mut news) = (false, true);
        if v6 {
            let address = address::parse6(payload)?;
            link_local = address.address.is_unicast_link_local();
            let unknown = || Addresses {
                partial: true,
                ..Addresses::default()
            };
            let held = self.addresses.entry(index).or_insert_with(unknown);
            news = update(held, address, gone, now);
        } else if gone {
            // Routes go without any event when their preferred source address goes.
            changes = self.doubt_defaults4(index);
        }
        changes.push(Change::Address {
            index,
            device: self.name(index),
            v6,
            link_local,
            news,
        });
        Some(changes)
    }

    fn take_route(&mut self, event: NetlinkEvent<'_>, gone: bool) -> Option<Vec<Change>> {
        const RTM_F_CLONED: u32 = 0x200;
        let v6 = i32::from(*event.payload.first()?) == libc::AF_INET6;
        let unicast = event.payload.get(7) == Some(&libc::RTN_UNICAST);
        if !unicast || wire::u32_at(event.payload, 8)? & RTM_F_CLONED != 0 {
            return None;
        }
        let seen = ListedRoute::new(event.payload.to_vec())?;
        let is_default = seen.destination.prefix_len() == 0;
        let watched = || {
            self.watched
                .keys()
                .any(|to| seen.destination.contains(&IpAddr::V6(*to)))
        };
        let kept = is_default || v6 && watched();
        if !kept && seen.protocol != ROUTE_PROTOCOL {
            return None;
        }
        let change = self.route_change(&seen, gone);
        let news = match (kept, v6) {
            (true, true) => self.keep6(seen, event.flags, gone),
            (true, false) => {
                let routes = self.defaults4.entry(seen.table).or_default();
                routes.stale = true;
                if !gone && !routes.known.iter().any(|other| other.is_same(&seen)) {
                    routes.known.push(seen);
                }
                true
            }
            (false, _) => true,
        };
        news.then(|| vec![change])
    }

    fn route_change(&self, seen: &ListedRoute, gone: bool) -> Change {
        Change::Route {
            v6: seen.destination.addr().is_ipv6(),
            table: seen.table,
            device: seen.only_device().and_then(|index| self.name(index)),
            ours: seen.protocol == ROUTE_PROTOCOL,
            gone,
        }
    }

    /// Applies an IPv6 route as the kernel does. If that is not simple, all are read again when they are needed.
    /// Returns true if it is news.
    fn keep6(&mut self, seen: ListedRoute, flags: u16, gone: bool) -> bool {
        let Some(routes) = &mut self.routes6 else { return true };
        let rivals = || routes.iter().filter(|other| other.is_rival(&seen));
        let complex = seen.is_complex() || rivals().any(ListedRoute::is_complex) || flags & NLM_F_APPEND != 0;
        let replaces = !gone && flags & NLM_F_REPLACE != 0;
        if complex || replaces && rivals().count() > 1 {
            self.routes6 = None;
            return true;
        }
        let place = routes.iter().position(|other| match replaces {
            true => other.is_rival(&seen),
            false => other.is_same(&seen),
        });
        match place {
            Some(place) if gone => {
                routes.remove(place);
                true
            }
            Some(place) => {
                let before = std::mem::replace(&mut routes[place], seen);
                !before.differs_by_lifetime_only(&routes[place])
            }
            None if gone => false,
            None => {
                let behind = |other: &ListedRoute| {
                    other.table == seen.table && other.destination == seen.destination && other.metric <= seen.metric
                };
                let group = |other: &ListedRoute| other.table == seen.table && other.destination == seen.destination;
                let last = routes.iter().rposition(behind).map(|last| last + 1);
                let place = last.or_else(|| routes.iter().position(group)).unwrap_or(routes.len());
                routes.insert(place, seen);
                true
            }
        }
    }

    fn take_rule(&mut self, payload: &[u8], gone: bool) -> Option<Vec<Change>> {
        let found = rule::parse(payload)?;
        // Their order matters, and they are few, so they are read again when somebody asks.
        self.rules.remove(&found.rule.v6);
        Some(vec![Change::Rule {
            table: found.rule.table,
            ours: found.rule.protocol == ROUTE_PROTOCOL,
            gone,
        }])
    }

    fn take_neighbour(&self, payload: &[u8], gone: bool) -> Option<Vec<Change>> {
        let found = neighbour::parse_neighbour(payload)?;
        let index = wire::u32_at(payload, 4)?;
        // A new entry does not know yet whether its neighbour is a router, but routers have link-local addresses.
        let may_be_router = found.address.is_unicast_link_local() || found.router;
        may_be_router.then(|| {
            vec![Change::Neighbour {
                index,
                device: self.name(index),
                address: found.address,
                says: found.says,
                gone,
            }]
        })
    }

    fn take_settings(&self, payload: &[u8]) -> Option<Vec<Change>> {
        if i32::from(*payload.first()?) != libc::AF_INET6 {
            return None;
        }
        let mut attributes = wire::Attributes(payload.get(NETCONF_HEADER..)?);
        let index = attributes.find(|attribute| attribute.kind == NETCONFA_IFINDEX)?.u32()?;
        let device = self.name(index);
        // Devices that are just being made are no news. Negative numbers stand for all devices, and for those to
        // come.
        (device.is_some() || index.cast_signed() < 0).then(|| vec![Change::Settings { device }])
    }

    /// A nexthop object changed. The kernel does not report the routes that use objects.
    fn take_nexthop(&mut self) -> Vec<Change> {
        let of_objects = |routes: &[ListedRoute]| {
            routes
                .iter()
                .find(|seen| seen.object)
                .map(|seen| (seen.table, seen.v6()))
        };
        let six = self.routes6.as_deref().and_then(of_objects);
        let four = self.defaults4.values().find_map(|routes| of_objects(&routes.known));
        if six.is_some() {
            self.routes6 = None;
        }
        for routes in self.defaults4.values_mut() {
            routes.stale = true;
        }
        let changed = six.into_iter().chain(four);
        changed
            .map(|(table, v6)| Change::Route {
                v6,
                table,
                device: None,
                ours: false,
                gone: false,
            })
            .collect()
    }
}

impl Address {
    fn new(address: Address6, now: Instant) -> Self {
        let ends = address.valid_s.map(|seconds| now + Duration::from_secs(seconds.into()));
        Self { address, ends }
    }

    fn at(&self, now: Instant) -> Address6 {
        let left = self.ends.map(|ends| ends.saturating_duration_since(now).as_secs());
        Address6 {
            valid_s: left.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX)),
            ..self.address.clone()
        }
    }

    /// Whether it is the same, except for a lifetime that is no shorter.
    fn says_nothing_new(&self, before: &Self) -> bool {
        let plain = |address: &Address6| Address6 {
            valid_s: None,
            ..address.clone()
        };
        let no_shorter = match (before.ends, self.ends) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(before), Some(now)) => now + SLACK >= before,
        };
        plain(&self.address) == plain(&before.address) && no_shorter
    }
}

/// Inserts an address where the kernel does. Returns true if it is news.
fn update(held: &mut Addresses, address: Address6, gone: bool, now: Instant) -> bool {
    let Addresses { known: held, partial } = held;
    let place = held.iter().position(|other| other.address.address == address.address);
    let new = Address::new(address, now);
    match place {
        Some(place) if gone => {
            held.remove(place);
            true
        }
        Some(place) => {
            let before = std::mem::replace(&mut held[place], new);
            !held[place].says_nothing_new(&before)
        }
        None if gone => *partial,
        None if *partial && held.len() >= MOST_UNASKED => true,
        None => {
            // `ipv6_link_dev_addr` of the kernel: addresses of wide scope first, and within a scope the newest first.
            let scope = |address: &Address| match address.address.address {
                address if address.is_loopback() => 1,
                address if address.is_unicast_link_local() => 2,
                address if address.segments()[0] & 0xffc0 == 0xfec0 => 5,
                _ => 14,
            };
            let place = held.iter().position(|other| scope(other) <= scope(&new));
            held.insert(place.unwrap_or(held.len()), new);
            true
        }
    }
}
