//! What an event changes, and whom that concerns.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use clatd_stages::net::{Link, ROUTE_PROTOCOL};
use tokio::time::Instant;

use super::super::change::{LinkChange, NetworkChange};
use super::super::events::NetlinkEvent;
use super::super::route::ListedRoute;
use super::super::rule::FoundRule;
use super::super::{address, link, neighbour, rule, wire};
use super::{
    Addresses, Mirror, NETCONF_HEADER, NETCONFA_IFINDEX, NLM_F_APPEND, NLM_F_REPLACE, RTM_DELNEXTHOP, RTM_NEWNEXTHOP,
    Shown, update,
};

impl Shown {
    /// Forgets what an event may change.
    fn outdate(&mut self, event: &NetlinkEvent<'_>) {
        match event.kind {
            libc::RTM_NEWLINK | libc::RTM_DELLINK => *self = Self::default(),
            libc::RTM_NEWROUTE | libc::RTM_DELROUTE if event.payload.first() == Some(&wire::family(false)) => {}
            libc::RTM_NEWROUTE | libc::RTM_DELROUTE | RTM_NEWNEXTHOP | RTM_DELNEXTHOP => {
                self.defaults6 = Mutex::default();
            }
            _ => {}
        }
    }
}

impl Mirror {
    /// Takes in an event.
    pub(crate) fn take(&mut self, event: NetlinkEvent<'_>, now: Instant) -> Vec<NetworkChange> {
        self.shown.outdate(&event);
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

    fn take_link(&mut self, payload: &[u8], gone: bool) -> Option<Vec<NetworkChange>> {
        // Bridges report their ports by messages of their own family.
        if i32::from(*payload.first()?) != libc::AF_UNSPEC {
            return None;
        }
        let mut link = link::parse(payload)?;
        let index = link.index;
        // A carrier may be lost and come back before we look. Only the kernel's count of losses shows that.
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
        changes.push(NetworkChange::Link(LinkChange {
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
    fn doubt_defaults4(&mut self, index: u32) -> Vec<NetworkChange> {
        let known = self.defaults4.values().flat_map(|routes| &routes.known);
        let doubted = known.filter(|seen| seen.only_device() == Some(index) || seen.is_complex());
        let changes = doubted.map(|seen| self.route_change(seen, true)).collect();
        for routes in self.defaults4.values_mut() {
            routes.stale = true;
        }
        changes
    }

    fn take_address(&mut self, payload: &[u8], gone: bool, now: Instant) -> Option<Vec<NetworkChange>> {
        let v6 = i32::from(*payload.first()?) == libc::AF_INET6;
        let index = wire::u32_at(payload, 4)?;
        let mut changes = Vec::new();
        let (mut link_local, mut news) = (false, true);
        if v6 {
            let address = address::parse6(payload)?;
            link_local = address.address.is_unicast_link_local();
            if gone {
                changes = self.doubt_routes6(index, address.address);
            }
            let unknown = || Addresses {
                partial: true,
                ..Addresses::default()
            };
            let addresses = self.addresses.entry(index).or_insert_with(unknown);
            news = update(addresses, address, gone, now);
        } else if gone {
            // Routes go without any event when their preferred source address goes.
            changes = self.doubt_defaults4(index);
        }
        changes.push(NetworkChange::Address {
            index,
            device: self.name(index),
            v6,
            link_local,
            news,
        });
        Some(changes)
    }

    fn take_route(&mut self, event: NetlinkEvent<'_>, gone: bool) -> Option<Vec<NetworkChange>> {
        const RTM_F_CLONED: u32 = 0x200;
        let v6 = i32::from(*event.payload.first()?) == libc::AF_INET6;
        if wire::u32_at(event.payload, 8)? & RTM_F_CLONED != 0 {
            return None;
        }
        let unicast = event.payload.get(7) == Some(&libc::RTN_UNICAST);
        let replaces = !gone && event.flags & NLM_F_REPLACE != 0;
        if !unicast && !replaces {
            return None;
        }
        let seen = ListedRoute::new(event.payload.to_vec())?;
        if !unicast {
            return Some(self.lose_rivals(&seen));
        }
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
                // A table that nobody asked for is read when somebody does.
                if let Some(routes) = self.defaults4.get_mut(&seen.table) {
                    routes.change(seen, gone);
                }
                true
            }
            (false, _) => true,
        };
        news.then(|| vec![change])
    }

    /// A route that carries no packets, such as an unreachable one, took the place of a route. Only its own event says so.
    fn lose_rivals(&mut self, seen: &ListedRoute) -> Vec<NetworkChange> {
        let four = self.defaults4.get(&seen.table).map(|routes| &routes.known);
        let known = self.routes6.iter().flatten().chain(four.into_iter().flatten());
        let rivals = known.filter(|other| other.is_rival(seen));
        let changes: Vec<_> = rivals.map(|rival| self.route_change(rival, true)).collect();
        if changes.is_empty() {
            return changes;
        }
        if seen.v6() {
            self.routes6 = None;
        } else if let Some(routes) = self.defaults4.get_mut(&seen.table) {
            routes.stale = true;
        }
        changes
    }

    /// IPv6 routes that the kernel changes without any event when an address goes. They lose it as their preferred source.
    /// A link-local address also goes when IPv6 is switched off on a device. With `skip_notify_on_dev_down` nothing else
    /// tells that the routes are gone.
    fn doubt_routes6(&mut self, index: u32, address: Ipv6Addr) -> Vec<NetworkChange> {
        let link_local = address.is_unicast_link_local();
        let doubted = |seen: &&ListedRoute| {
            link_local && seen.only_device() == Some(index) || seen.preferred_source == Some(address.into())
        };
        let known = self.routes6.iter().flatten().filter(doubted);
        let changes: Vec<_> = known.map(|seen| self.route_change(seen, true)).collect();
        if !changes.is_empty() {
            self.routes6 = None;
        }
        changes
    }

    fn route_change(&self, seen: &ListedRoute, gone: bool) -> NetworkChange {
        NetworkChange::Route {
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
                let group = |other: &ListedRoute| other.table == seen.table && other.destination == seen.destination;
                let behind = |other: &ListedRoute| group(other) && other.order(&seen).is_le();
                let last = routes.iter().rposition(behind).map(|last| last + 1);
                let place = last.or_else(|| routes.iter().position(group)).unwrap_or(routes.len());
                routes.insert(place, seen);
                true
            }
        }
    }

    fn take_rule(&mut self, payload: &[u8], gone: bool) -> Option<Vec<NetworkChange>> {
        let found = rule::parse(payload)?;
        let change = NetworkChange::Rule {
            table: found.rule.table,
            ours: found.rule.protocol == ROUTE_PROTOCOL,
            gone,
        };
        self.keep_rule(found, gone);
        Some(vec![change])
    }

    /// Applies a rule as the kernel does: a new one stands behind all others of its priority. If it is not clear which
    /// rule an event is about, all are read again when somebody asks: there may be several that are the same, and a dump
    /// may already have what an event tells later.
    fn keep_rule(&mut self, found: FoundRule, gone: bool) {
        let v6 = found.rule.v6;
        let Some(rules) = self.rules.get_mut(&v6) else { return };
        let mut same = rules.iter().enumerate().filter(|(_, other)| ***other == found);
        match (gone, same.next().map(|(at, _)| at), same.next()) {
            (true, Some(only), None) => {
                rules.remove(only);
            }
            (false, None, _) => {
                let place = rules.partition_point(|other| other.rule.priority <= found.rule.priority);
                rules.insert(place, Arc::new(found));
            }
            (true, _, _) | (false, Some(_), _) => {
                self.rules.remove(&v6);
            }
        }
    }

    fn take_neighbour(&self, payload: &[u8], gone: bool) -> Option<Vec<NetworkChange>> {
        let found = neighbour::parse_neighbour(payload)?;
        let index = wire::u32_at(payload, 4)?;
        // A new entry does not know yet whether its neighbour is a router, but routers have link-local addresses.
        let may_be_router = found.address.is_unicast_link_local() || found.router;
        may_be_router.then(|| {
            vec![NetworkChange::Neighbour {
                index,
                device: self.name(index),
                address: found.address,
                says: found.says,
                gone,
            }]
        })
    }

    fn take_settings(&self, payload: &[u8]) -> Option<Vec<NetworkChange>> {
        if i32::from(*payload.first()?) != libc::AF_INET6 {
            return None;
        }
        let mut attributes = wire::Attributes(payload.get(NETCONF_HEADER..)?);
        let index = attributes.find(|attribute| attribute.kind == NETCONFA_IFINDEX)?.u32()?;
        let device = self.name(index);
        // Devices that are just being made are no news. Negative numbers stand for all devices, and for those to
        // come.
        (device.is_some() || index.cast_signed() < 0).then(|| vec![NetworkChange::Settings { device }])
    }

    /// A nexthop object changed. The kernel does not report the routes that use objects.
    fn take_nexthop(&mut self) -> Vec<NetworkChange> {
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
            .map(|(table, v6)| NetworkChange::Route {
                v6,
                table,
                device: None,
                ours: false,
                gone: false,
            })
            .collect()
    }
}
