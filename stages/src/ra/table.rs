//! What the routers of one link said, until it expires.

use std::net::Ipv6Addr;

use clatd_translator::Pref64;

use super::{INFINITY, Offered, Preference, RouterAdvertisement};

/// How many routers are remembered. A new one replaces the one that was silent for longest.
pub const MAX_ROUTERS: usize = 16;
/// How many PREF64s of each router are remembered. A new one replaces the newest.
pub const MAX_PREFIXES: usize = 8;
/// How many DNS servers of each router are remembered. A new one replaces the newest.
pub const MAX_SERVERS: usize = 8;

/// What the routers of one link said. Times are milliseconds of a clock that never goes back.
///
/// Every value has its own lifetime. A router that no longer wants to be a default router (router lifetime 0)
/// withdraws nothing (RFC 4861 section 4.2, RFC 8781 section 4.1); its values only come after those of the default
/// routers. A value that an advertisement does not mention stays (RFC 4861 section 6.2.3), since a router may split
/// its options over several advertisements.
#[derive(Debug, Clone, Default)]
pub struct Advertisements {
    routers: Vec<Router>,
    /// Counts advertisements; orders arrivals within the same millisecond.
    heard: u64,
}

/// What an advertisement did to the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableChange {
    /// A prefix, a server or the MTU came, went or moved. A renewed lifetime does not count.
    pub changed: bool,
    /// When to call [`Advertisements::forget_expired`] next.
    pub next_expiry: Option<u64>,
}

/// A value, and the router that it was learned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Learned<T> {
    /// What was learned.
    pub value: T,
    /// Link-local address of the router.
    pub router: Ipv6Addr,
    /// Seconds that are left, rounded up; `None` = for ever.
    pub lifetime_s: Option<u32>,
}

/// A router of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouterState {
    /// Its link-local address.
    pub address: Ipv6Addr,
    /// For how many more seconds it is a default router, rounded up; `None` = it is none.
    pub lifetime_s: Option<u32>,
    /// Its preference (RFC 4191).
    pub preference: Preference,
}

#[derive(Debug, Clone)]
struct Router {
    address: Ipv6Addr,
    default_until: Option<u64>,
    preference: Preference,
    mtu: Option<u32>,
    /// Number of its latest advertisement.
    heard: u64,
    /// Not heard of since [`Advertisements::doubt`].
    doubted: bool,
    pref64s: Vec<TableEntry<Pref64>>,
    rdnss: Vec<TableEntry<Ipv6Addr>>,
}

#[derive(Debug, Clone)]
struct TableEntry<T> {
    value: T,
    /// `None` = never.
    expires: Option<u64>,
    /// Number of the advertisement that offered it first, which gives the order.
    first: u64,
    /// Number of the latest advertisement that offered it.
    latest: u64,
    /// Not offered since [`Advertisements::doubt`].
    doubted: bool,
}

/// The prefixes, the servers and the MTU, without their lifetimes.
type TableView = (Vec<(Pref64, Ipv6Addr)>, Vec<(Ipv6Addr, Ipv6Addr)>, Option<u32>);

impl Advertisements {
    /// Takes in what `router` said.
    pub fn update(&mut self, now: u64, router: Ipv6Addr, said: &RouterAdvertisement) -> TableChange {
        let before = self.view();
        self.drop_expired(now);
        self.heard += 1;
        let number = self.heard;
        let router = self.router(router);
        router.heard = number;
        router.doubted = false;
        router.preference = said.preference;
        router.default_until = match said.router_lifetime_s {
            0 => None,
            seconds => Some(until(now, u32::from(seconds))),
        };
        router.mtu = said.mtu.or(router.mtu);
        renew(&mut router.pref64s, &said.pref64s, MAX_PREFIXES, now, number);
        renew(&mut router.rdnss, &said.rdnss, MAX_SERVERS, now, number);
        self.drop_empty();
        TableChange {
            changed: self.view() != before,
            next_expiry: self.next_expiry(),
        }
    }

    /// Forgets what has expired. Returns whether that changed anything in the sense of [`TableChange::changed`].
    pub fn forget_expired(&mut self, now: u64) -> bool {
        let before = self.view();
        self.drop_expired(now);
        self.view() != before
    }

    /// The link may be another one, since its carrier was away. Until [`Advertisements::forget_doubted`], values that
    /// are not offered again come last.
    pub fn doubt(&mut self) {
        for router in &mut self.routers {
            router.doubted = true;
            router.pref64s.iter_mut().for_each(|entry| entry.doubted = true);
            router.rdnss.iter_mut().for_each(|entry| entry.doubted = true);
        }
    }

    /// Forgets what was not offered since [`Advertisements::doubt`]. Returns whether that changed anything.
    pub fn forget_doubted(&mut self) -> bool {
        let before = self.view();
        for router in &mut self.routers {
            if router.doubted {
                router.default_until = None;
            }
            router.pref64s.retain(|entry| !entry.doubted);
            router.rdnss.retain(|entry| !entry.doubted);
        }
        self.drop_empty();
        self.view() != before
    }

    /// When something ends next.
    pub fn next_expiry(&self) -> Option<u64> {
        let of = |router: &Router| {
            let prefixes = router.pref64s.iter().filter_map(|entry| entry.expires);
            let servers = router.rdnss.iter().filter_map(|entry| entry.expires);
            prefixes.chain(servers).chain(router.default_until).min()
        };
        self.routers.iter().filter_map(of).min()
    }

    /// The PREF64s: first those of default routers by preference (RFC 4191), then in order of arrival. A prefix that
    /// several routers offer occurs once for each of them.
    pub fn pref64s(&self, now: u64) -> Vec<Learned<Pref64>> {
        learned(now, self.ordered(|router| &router.pref64s))
    }

    /// The DNS servers, in the same order as the PREF64s.
    pub fn rdnss(&self, now: u64) -> Vec<Learned<Ipv6Addr>> {
        learned(now, self.ordered(|router| &router.rdnss))
    }

    /// The routers, in order of their addresses.
    pub fn routers(&self, now: u64) -> Vec<RouterState> {
        let state = |router: &Router| RouterState {
            address: router.address,
            lifetime_s: router
                .default_until
                .map(|end| seconds_left(now, end))
                .filter(|left| *left > 0),
            preference: router.preference,
        };
        let mut routers: Vec<RouterState> = self.routers.iter().map(state).collect();
        routers.sort_by_key(|router| router.address);
        routers
    }

    /// The smallest MTU that a router gives for the link, 1280 or more. The device may carry less.
    pub fn mtu(&self) -> Option<u32> {
        self.routers.iter().filter_map(|router| router.mtu).min()
    }

    fn router(&mut self, address: Ipv6Addr) -> &mut Router {
        let place = match self.routers.iter().position(|router| router.address == address) {
            Some(place) => place,
            None => {
                make_room(&mut self.routers, MAX_ROUTERS, |router| router.heard);
                self.routers.push(Router::new(address));
                self.routers.len() - 1
            }
        };
        &mut self.routers[place]
    }

    fn drop_expired(&mut self, now: u64) {
        for router in &mut self.routers {
            router.default_until = router.default_until.filter(|end| *end > now);
            router.pref64s.retain(|entry| entry.lives(now));
            router.rdnss.retain(|entry| entry.lives(now));
        }
        self.drop_empty();
    }

    fn drop_empty(&mut self) {
        let says_something =
            |router: &Router| router.default_until.is_some() || !router.pref64s.is_empty() || !router.rdnss.is_empty();
        self.routers.retain(says_something);
    }

    fn ordered<T>(&self, of: impl Fn(&Router) -> &Vec<TableEntry<T>>) -> Vec<(&Router, &TableEntry<T>)> {
        let entries = |router| of(router).iter().map(move |entry| (router, entry));
        let mut all: Vec<(&Router, &TableEntry<T>)> = self.routers.iter().flat_map(entries).collect();
        all.sort_by_key(|(router, entry)| {
            let preference = router.default_until.map(|_| router.preference);
            (entry.doubted, std::cmp::Reverse(preference), entry.first)
        });
        all
    }

    fn view(&self) -> TableView {
        let prefixes = self.ordered(|router| &router.pref64s);
        let servers = self.ordered(|router| &router.rdnss);
        (
            prefixes.iter().map(|(r, e)| (e.value, r.address)).collect(),
            servers.iter().map(|(r, e)| (e.value, r.address)).collect(),
            self.mtu(),
        )
    }
}

impl Router {
    fn new(address: Ipv6Addr) -> Self {
        Self {
            address,
            default_until: None,
            preference: Preference::default(),
            mtu: None,
            heard: 0,
            doubted: false,
            pref64s: Vec::new(),
            rdnss: Vec::new(),
        }
    }
}

impl<T> TableEntry<T> {
    fn lives(&self, now: u64) -> bool {
        self.expires.is_none_or(|end| end > now)
    }
}

/// Stores the offers of an advertisement in the entries of its router. Of an offer that it makes twice, the last
/// counts. If it has more offers than there is room for, the first ones are kept.
fn renew<T: Copy + PartialEq>(
    entries: &mut Vec<TableEntry<T>>,
    offers: &[Offered<T>],
    most: usize,
    now: u64,
    number: u64,
) {
    for Offered { value, lifetime_s } in offers.iter().copied() {
        let place = entries.iter().position(|entry| entry.value == value);
        if lifetime_s == 0 {
            place.map(|place| entries.remove(place));
            continue;
        }
        let expires = (lifetime_s != INFINITY).then(|| until(now, lifetime_s));
        if let Some(place) = place {
            let entry = &mut entries[place];
            (entry.expires, entry.latest, entry.doubted) = (expires, number, false);
            continue;
        }
        if entries.iter().filter(|entry| entry.latest == number).count() == most {
            continue;
        }
        drop_newest(entries, most, number);
        entries.push(TableEntry {
            value,
            expires,
            first: number,
            latest: number,
            doubted: false,
        });
    }
}

/// Drops the newest entry of earlier messages where there is no room for one more. A flood of new values must not
/// replace the old ones.
fn drop_newest<T>(entries: &mut Vec<TableEntry<T>>, most: usize, number: u64) {
    if entries.len() >= most {
        let earlier = entries.iter().enumerate().filter(|(_, entry)| entry.latest != number);
        if let Some((place, _)) = earlier.max_by_key(|(_, entry)| entry.first) {
            entries.remove(place);
        }
    }
}

/// Drops the oldest where there is no room for one more.
fn make_room<T>(list: &mut Vec<T>, most: usize, age: impl Fn(&T) -> u64) {
    if list.len() >= most {
        let oldest = list.iter().enumerate().min_by_key(|(_, item)| age(item));
        if let Some(place) = oldest.map(|(place, _)| place) {
            list.remove(place);
        }
    }
}

fn learned<T: Copy>(now: u64, entries: Vec<(&Router, &TableEntry<T>)>) -> Vec<Learned<T>> {
    let living = entries.into_iter().filter(|(_, entry)| entry.lives(now));
    living
        .map(|(router, entry)| Learned {
            value: entry.value,
            router: router.address,
            lifetime_s: entry.expires.map(|end| seconds_left(now, end)),
        })
        .collect()
}

fn until(now: u64, seconds: u32) -> u64 {
    now.saturating_add(u64::from(seconds) * 1000)
}

fn seconds_left(now: u64, end: u64) -> u32 {
    u32::try_from(end.saturating_sub(now).div_ceil(1000)).unwrap_or(u32::MAX)
}
