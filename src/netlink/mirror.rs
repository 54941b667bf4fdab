//! What is known of the network, and how events change it. No I/O: the mirror says what is missing, the hub dumps it,
//! and events keep it up to date.
//!
//! Only what somebody asks for is kept, and nothing that grows with what is not ours: devices; addresses of devices
//! that were asked for; rules; default routes; IPv6 routes to destinations that were asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, OnceLock};

use clatd_stages::net::{Address6, Link, Route};
use tokio::time::{Duration, Instant};

use super::route::{self, ListedRoute};
use super::rule::{self, FoundRule};
use super::socket::KernelMessage;
use super::{address, link};
use crate::util::lock;

mod taking;

/// How many destinations have their routes kept. A new one replaces the oldest.
const MOST_WATCHED: usize = 512;
/// How many addresses of a device are remembered that nobody asked for.
const MOST_UNASKED: usize = 64;
/// How many IPv4 default routes of a table are remembered that came since somebody asked.
const MOST_STALE: usize = 64;
/// It is no news if the end of a lifetime moves by less.
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
    /// In the kernel's order.
    rules: BTreeMap<bool, Vec<Arc<FoundRule>>>,
    defaults4: BTreeMap<u32, Defaults4>,
    /// In the kernel's order within a table and a destination.
    routes6: Option<Vec<ListedRoute>>,
    shown: Shown,
    /// Each destination with a number. The one that was asked for first has the smallest.
    watched: BTreeMap<Ipv6Addr, u64>,
    asked: u64,
}

/// Answers that all instances share until something changes.
#[derive(Debug, Default)]
struct Shown {
    links: OnceLock<Arc<[Link]>>,
    /// By table.
    defaults6: Mutex<BTreeMap<u32, Arc<[Route]>>>,
}

/// The IPv6 addresses of a device.
#[derive(Debug, Default)]
struct Addresses {
    known: Vec<KnownAddress>,
    /// Nobody asked for them yet. Only addresses that had an event are known. They show whether the next event is news.
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
struct KnownAddress {
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
    pub(crate) fn load(&mut self, need: Need, messages: Vec<KernelMessage>, now: Instant) {
        self.shown = Shown::default();
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
                let known = found.map(|address| KnownAddress::new(address, now)).collect();
                let partial = false;
                self.addresses.insert(index, Addresses { known, partial });
            }
            Need::Rules(v6) => {
                let rules = messages.iter().filter_map(|message| rule::parse(&message.payload));
                self.rules.insert(v6, rules.map(Arc::new).collect());
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

    /// Keeps the routes to this destination from now on. With `all` the next read also brings those that exist already.
    /// Returns true if the destination is new.
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
    pub(crate) fn links(&self) -> Arc<[Link]> {
        let links = || self.links.iter().flatten().map(|(_, link)| link.clone()).collect();
        Arc::clone(self.shown.links.get_or_init(links))
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
        let known = self.addresses.get(&index).map(|addresses| &addresses.known);
        known.into_iter().flatten().map(|address| address.at(now)).collect()
    }

    /// The rules, in the kernel's order.
    pub(crate) fn rules(&self, v6: bool) -> Vec<Arc<FoundRule>> {
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

    /// The same of IPv6.
    pub(crate) fn defaults6(&self, table: u32) -> Arc<[Route]> {
        let mut shown = lock(&self.shown.defaults6);
        let routes = shown.entry(table).or_insert_with(|| self.defaults(true, table).into());
        Arc::clone(routes)
    }

    /// The IPv6 routes of a table to a destination, which is watched, by this device or by several.
    pub(crate) fn leading_to(&self, table: u32, device: u32, destination: Ipv6Addr) -> Vec<Route> {
        let all = self.routes6.iter().flatten();
        all.filter(|seen| seen.table == table && seen.destination.contains(&IpAddr::V6(destination)))
            .filter(|seen| seen.only_device().is_none_or(|index| index == device))
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

    /// How many IPv4 default routes of a table are remembered.
    #[cfg(test)]
    pub(super) fn remembered4(&self, table: u32) -> usize {
        self.defaults4.get(&table).map_or(0, |routes| routes.known.len())
    }

    fn is_there(&self, index: u32) -> bool {
        self.links.as_ref().is_some_and(|links| links.contains_key(&index))
    }
}

impl Defaults4 {
    /// A route came, or went.
    fn change(&mut self, route: ListedRoute, gone: bool) {
        self.stale = true;
        self.known.retain(|other| !other.is_same(&route));
        if !gone && self.known.len() < MOST_STALE {
            self.known.push(route);
        }
    }
}

impl KnownAddress {
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
fn update(addresses: &mut Addresses, address: Address6, gone: bool, now: Instant) -> bool {
    let Addresses { known, partial } = addresses;
    let place = known.iter().position(|other| other.address.address == address.address);
    let new = KnownAddress::new(address, now);
    match place {
        Some(place) if gone => {
            known.remove(place);
            true
        }
        Some(place) => {
            let before = std::mem::replace(&mut known[place], new);
            !known[place].says_nothing_new(&before)
        }
        None if gone => *partial,
        None if *partial && known.len() >= MOST_UNASKED => true,
        None => {
            // `ipv6_link_dev_addr` of the kernel: addresses of wide scope first, and within a scope the newest first.
            let scope = |address: &KnownAddress| match address.address.address {
                address if address.is_loopback() => 1,
                address if address.is_unicast_link_local() => 2,
                address if address.segments()[0] & 0xffc0 == 0xfec0 => 5,
                _ => 14,
            };
            let place = known.iter().position(|other| scope(other) <= scope(&new));
            known.insert(place.unwrap_or(known.len()), new);
            true
        }
    }
}
