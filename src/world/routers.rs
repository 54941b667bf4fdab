//! Routers that do not answer. A device with several default routers turns from a silent one to another that answers,
//! and returns when it answers again (RFC 4861 section 6.3.6, RFC 4191 section 3.2).
//!
//! The kernel does so too, but not where `all/forwarding` is on. And while packets are sent to a silent router, its
//! entry changes from FAILED to INCOMPLETE at once, which looks like that of a router that is asked for the first
//! time. So clatd remembers which routers have failed until they answer. An advertisement is no answer: it shows that
//! the router is heard, not that it hears (RFC 4861 section 7.3.1).
//!
//! The kernel does not tell which router advertised the prefix of an address (RFC 8028 section 3.1). Among routers
//! that answer, the order of the kernel's routes counts.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clatd_stages::net::Route;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::kernel::{Netlink, NetlinkError, Reachability, gateways};
use crate::util::lock;

/// How often a silent router is asked: once a minute (RFC 4191 section 3.5).
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// How soon a router is asked that is the only one, or that was heard meanwhile. Not at once: a link may carry packets one
/// way only, and then the router is heard again and again.
const ASK_SOONER: Duration = Duration::from_secs(10);
/// How many are remembered. There is a limit, since a program on this host can invent any number of link-local addresses,
/// and an entry fails for each of them.
const MOST: usize = 256;
/// How many routers of one device are looked at.
const MOST_ASKED: usize = 16;

/// The routers that have failed and not answered since, by device and address. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct SilentRouters(Arc<Silences>);

#[derive(Debug, Default)]
struct Silences {
    silent: Mutex<BTreeMap<(u32, Ipv6Addr), SilentRouter>>,
    /// One of them may be due earlier now.
    changed: Notify,
}

#[derive(Debug)]
struct SilentRouter {
    /// When clatd or the kernel asked it last.
    asked: Instant,
    /// It was heard since it failed.
    heard: bool,
    /// Packets would go to it if it answered.
    wanted: bool,
    /// There is no other one.
    last: bool,
}

impl SilentRouters {
    /// Takes the kernel's news of a neighbour. Returns true if it fell silent, or answers again.
    pub(crate) fn learn(&self, device: u32, router: Ipv6Addr, says: Reachability) -> bool {
        let mut silent = self.lock();
        let key = (device, router);
        match says {
            Reachability::Answers => silent.remove(&key).is_some(),
            Reachability::Failed => {
                let before = silent.remove(&key);
                let new = before.is_none();
                if silent.len() >= MOST
                    && let Some(oldest) = silent.iter().min_by_key(|(_, silence)| silence.asked)
                {
                    let oldest = *oldest.0;
                    silent.remove(&oldest);
                }
                let silence = SilentRouter {
                    asked: Instant::now(),
                    heard: false,
                    wanted: before.as_ref().is_some_and(|silence| silence.wanted),
                    last: before.is_some_and(|silence| silence.last),
                };
                silent.insert(key, silence);
                new
            }
            Reachability::Heard => {
                if let Some(silence) = silent.get_mut(&key) {
                    silence.heard = true;
                    self.0.changed.notify_one();
                }
                false
            }
            Reachability::Asked => false,
        }
    }

    /// Forgets a neighbour, with which the kernel makes a fresh start; true = it was silent.
    pub(crate) fn forget(&self, device: u32, router: Ipv6Addr) -> bool {
        self.lock().remove(&(device, router)).is_some()
    }

    pub(super) fn contains(&self, device: u32, router: Ipv6Addr) -> bool {
        self.lock().contains_key(&(device, router))
    }

    /// Whether a router that no other can stand in for is silent. All packets go to it still, and the kernel would ask it
    /// for each of them.
    pub(super) fn is_the_last(&self, device: u32, router: Ipv6Addr) -> bool {
        let mut silent = self.lock();
        let found = silent.get_mut(&(device, router));
        found.is_some_and(|silence| {
            silence.wanted = true;
            silence.last = true;
            self.0.changed.notify_one();
            true
        })
    }

    /// Packets would be sent to it: only then it may be asked (RFC 4191 section 3.5).
    fn want(&self, device: u32, router: Ipv6Addr) {
        if let Some(silence) = self.lock().get_mut(&(device, router)) {
            silence.wanted = true;
            silence.last = false;
            self.0.changed.notify_one();
        }
    }

    /// Those that are to be asked now.
    fn due(&self) -> Vec<(u32, Ipv6Addr)> {
        let mut silent = self.lock();
        let now = Instant::now();
        let due = silent
            .iter_mut()
            .filter(|(_, silence)| silence.due().is_some_and(|due| due <= now));
        due.map(|(key, silence)| {
            silence.asked = now;
            *key
        })
        .collect()
    }

    /// When the next one is to be asked.
    fn next(&self) -> Option<Instant> {
        self.lock().values().filter_map(SilentRouter::due).min()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(u32, Ipv6Addr), SilentRouter>> {
        lock(&self.0.silent)
    }
}

impl SilentRouter {
    /// When it is to be asked; `None` = nobody wants to send anything to it.
    fn due(&self) -> Option<Instant> {
        let pause = if self.heard || self.last { ASK_SOONER } else { ASK_AGAIN };
        self.wanted.then(|| self.asked + pause)
    }
}

/// Asks silent routers now and then whether they are back. It never ends.
pub(super) async fn ask_again(netlink: Netlink, silent: SilentRouters) {
    loop {
        let next = silent.next();
        tokio::select! {
            () = silent.0.changed.notified() => continue,
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
        for (device, router) in silent.due() {
            // A device or route that is gone needs no router any more.
            if netlink.ask_neighbour(device, router).await.is_err() {
                silent.forget(device, router);
            }
        }
    }
}

/// The next hop on this device: `preferred`, unless it is silent and another router is not.
pub(super) async fn next_hop(
    netlink: &Netlink,
    silent: &SilentRouters,
    device: u32,
    routes: &[Route],
    destination: Ipv6Addr,
    preferred: Ipv6Addr,
) -> Result<Ipv6Addr, NetlinkError> {
    let others = other_routers(routes, device, destination, preferred);
    if others.is_empty() {
        return Ok(preferred);
    }
    let mut neighbours = Vec::new();
    for router in others.iter().chain([&preferred]).take(MOST_ASKED) {
        neighbours.extend(netlink.neighbour(device, *router).await?);
    }
    for entry in &neighbours {
        silent.learn(device, entry.address, entry.says);
    }
    let usable = |router: Ipv6Addr| {
        let entry = neighbours.iter().find(|entry| entry.address == router);
        // An entry that knows of a router knows it from an answer, so that one was lost since.
        let lost = entry.is_some_and(|entry| entry.says == Reachability::Asked && entry.router);
        !lost && !silent.contains(device, router)
    };
    if usable(preferred) {
        return Ok(preferred);
    }
    silent.want(device, preferred);
    Ok(others.into_iter().find(|&router| usable(router)).unwrap_or(preferred))
}

/// The other routers of this device that have a route to the destination. The most specific and most preferred route
/// comes first.
fn other_routers(routes: &[Route], device: u32, destination: Ipv6Addr, preferred: Ipv6Addr) -> Vec<Ipv6Addr> {
    let leads_there = |route: &&Route| !route.dead && route.destination.contains(&IpAddr::V6(destination));
    let mut leading: Vec<&Route> = routes.iter().filter(leads_there).collect();
    leading.sort_by_key(|route| (u8::MAX - route.destination.prefix_len(), route.metric));
    let mut others: Vec<Ipv6Addr> = Vec::new();
    for (index, gateway) in leading.into_iter().flat_map(gateways) {
        if let IpAddr::V6(gateway) = gateway
            && index == device
            && gateway != preferred
            && !others.contains(&gateway)
        {
            others.push(gateway);
        }
    }
    others
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    #[tokio::test(start_paused = true)]
    async fn only_an_answer_ends_silence() {
        let silent = SilentRouters::default();
        assert!(silent.learn(2, ROUTER, Reachability::Failed), "it fell silent");
        assert!(!silent.learn(2, ROUTER, Reachability::Failed), "that is known");
        for says in [Reachability::Asked, Reachability::Heard] {
            assert!(!silent.learn(2, ROUTER, says));
            assert!(silent.contains(2, ROUTER), "{says:?}");
        }
        assert!(!silent.contains(3, ROUTER), "another link has another router");
        assert!(silent.learn(2, ROUTER, Reachability::Answers), "it is back");
        assert!(!silent.contains(2, ROUTER));
        assert!(!silent.learn(2, ROUTER, Reachability::Answers), "that is known");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_router_is_asked_once_a_minute_and_sooner_after_a_sign_of_life() {
        let silent = SilentRouters::default();
        silent.learn(2, ROUTER, Reachability::Failed);
        sleep(Duration::from_secs(59)).await;
        assert_eq!(silent.due(), []);
        sleep(Duration::from_secs(9)).await;
        assert_eq!(silent.due(), [], "nobody wants to send anything to it");
        silent.want(2, ROUTER);
        assert_eq!(silent.due(), [(2, ROUTER)]);
        sleep(Duration::from_secs(59)).await;
        assert_eq!(silent.due(), []);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(silent.due(), [(2, ROUTER)]);
        assert_eq!(silent.due(), [], "it was just asked");
        silent.learn(2, ROUTER, Reachability::Heard);
        sleep(Duration::from_secs(9)).await;
        assert_eq!(silent.due(), []);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(silent.due(), [(2, ROUTER)]);
    }

    #[tokio::test(start_paused = true)]
    async fn not_every_failure_is_remembered_for_ever() {
        let silent = SilentRouters::default();
        for device in 0..1000 {
            silent.learn(device, ROUTER, Reachability::Failed);
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(silent.lock().len(), MOST);
        assert!(silent.contains(999, ROUTER));
    }
}
