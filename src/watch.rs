//! Tells instances about changes that concern them: changes of the network, routers that fall silent, and news from
//! the rest of the daemon. A change does not wake an instance that it does not concern. Events come in bursts (a new
//! uplink makes dozens), so a burst counts once, when it is over.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clatd_stages::facts::Facts;
use clatd_stages::net::MAIN_TABLE;
use clatd_stages::stage::Instance;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use crate::kernel::{Netlink, Reachability};
use crate::netlink::{LinkChange, NetworkChange};
use crate::util::lock;
use crate::world::SilentRouters;

/// A burst is over after this much silence. It is short, since packets are lost meanwhile if an uplink has failed.
const CALM: Duration = Duration::from_millis(40);
/// A burst is reported after this time even if it goes on.
const LONGEST: Duration = Duration::from_millis(600);

/// Which changes concern somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interest {
    /// All.
    Everything,
    /// Devices and IPv6 default routes, which show what uplinks there are.
    Uplinks,
    /// What an instance depends on.
    Instance(Dependence),
}

/// What an instance depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependence {
    /// Its uplink, and the VRF of that.
    uplinks: BTreeSet<String>,
    /// Any device may become its uplink.
    any_uplink: bool,
    /// Its CLAT device.
    device: String,
    /// Its own routing table.
    own_table: u32,
    /// The tables with the routes of its uplink and of native IPv4.
    tables: BTreeSet<u32>,
}

impl Interest {
    /// The interest of an instance that has found out this much.
    pub fn of(instance: &Instance, facts: &Facts) -> Self {
        let settings = &instance.settings;
        let found = [&facts.uplink, &facts.uplink_vrf].into_iter().flatten();
        let named = settings.plat.plat_dev.clone();
        let vrf_table = facts.uplink_vrf.as_ref().and_then(|vrf| vrf.value.vrf_table);
        Self::Instance(Dependence {
            any_uplink: named.is_none(),
            uplinks: found.map(|link| link.value.name.clone()).chain(named).collect(),
            device: settings.clat.clat_dev.clone(),
            own_table: settings.clat.route_table,
            tables: [MAIN_TABLE].into_iter().chain(vrf_table).collect(),
        })
    }

    fn covers(&self, change: &NetworkChange) -> bool {
        match self {
            Self::Everything => true,
            Self::Uplinks => match change {
                NetworkChange::Anything => true,
                NetworkChange::Link(change) => change.news && !change.link.is_clat(),
                NetworkChange::Route { v6, ours, .. } => *v6 && !ours,
                NetworkChange::Address { .. }
                | NetworkChange::Rule { .. }
                | NetworkChange::Neighbour { .. }
                | NetworkChange::Settings { .. } => false,
            },
            Self::Instance(dependence) => dependence.covers(change),
        }
    }

    fn covers_device(&self, device: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Uplinks => false,
            Self::Instance(dependence) => dependence.any_uplink || dependence.is_uplink(device),
        }
    }
}

impl Dependence {
    fn covers(&self, change: &NetworkChange) -> bool {
        let may_be_uplink = |device: &Option<String>| {
            let is_uplink = |device: &String| self.is_uplink(device);
            self.any_uplink || device.as_ref().is_none_or(is_uplink)
        };
        let is_own = |device: &Option<String>| device.as_ref() == Some(&self.device);
        match change {
            NetworkChange::Anything => true,
            NetworkChange::Link(change) => change.news && self.covers_link(change),
            NetworkChange::Address { device, news, .. } => *news && (is_own(device) || may_be_uplink(device)),
            // Ours are news where somebody takes them away.
            NetworkChange::Route {
                ours: true,
                gone,
                table,
                device,
                ..
            } => *gone && (*table == self.own_table || is_own(device)),
            NetworkChange::Route { v6, table, device, .. } => {
                // In the instance's own table another program's route may replace one of ours.
                *table == self.own_table || self.tables.contains(table) && (!v6 || may_be_uplink(device))
            }
            NetworkChange::Rule {
                ours: true,
                gone,
                table,
            } => *gone && *table == self.own_table,
            NetworkChange::Rule { ours: false, .. } => true,
            NetworkChange::Neighbour { device, .. } => may_be_uplink(device),
            NetworkChange::Settings { device } => device.is_none() || is_own(device) || may_be_uplink(device),
        }
    }

    fn covers_link(&self, change: &LinkChange) -> bool {
        let names = [Some(&change.link.name), change.former_name.as_ref()];
        let mut names = names.into_iter().flatten();
        let known = names.any(|name| self.is_uplink(name) || *name == self.device);
        known || self.any_uplink && !change.link.is_clat()
    }

    fn is_uplink(&self, device: &str) -> bool {
        self.uplinks.contains(device)
    }
}

/// Receives changes, and tells those whom they concern. Clones share everything.
#[derive(Clone, Default)]
pub struct Watch {
    subscribers: Arc<Mutex<Vec<Subscriber>>>,
    pending: Arc<Notify>,
}

struct Subscriber {
    interest: Arc<Mutex<Interest>>,
    count: watch::Sender<u64>,
    /// When the burst for this listener began, and when its last event came.
    burst: Option<(Instant, Instant)>,
}

/// A count that goes up with each report.
#[derive(Debug)]
pub struct Changes {
    count: watch::Receiver<u64>,
    interest: Arc<Mutex<Interest>>,
}

impl Watch {
    /// Begins to watch. Needs a runtime.
    ///
    /// If events were lost, all listeners are told: each reads the state again.
    pub fn start(netlink: &Netlink, silent: SilentRouters) -> Self {
        let watch = Self::default();
        let told = watch.clone();
        netlink.listen(move |change| {
            tracing::trace!("netlink: {change:?}");
            if tells_something(change, &silent) {
                told.note(|interest| interest.covers(change));
            }
            true
        });
        tokio::spawn(watch.clone().tell_bursts());
        watch
    }

    /// Something has changed that the kernel does not report; on this device, if it is known.
    pub fn tell(&self, device: Option<&str>) {
        self.note(|interest| device.is_none_or(|device| interest.covers_device(device)));
    }

    /// Tells of what concerns somebody, from now on.
    pub fn subscribe(&self, interest: Interest) -> Changes {
        let interest = Arc::new(Mutex::new(interest));
        let (sender, count) = watch::channel(0);
        let mut subscribers = self.lock();
        subscribers.retain(|subscriber| !subscriber.count.is_closed());
        subscribers.push(Subscriber {
            interest: Arc::clone(&interest),
            count: sender,
            burst: None,
        });
        Changes { count, interest }
    }

    fn note(&self, concerns: impl Fn(&Interest) -> bool) {
        let now = Instant::now();
        let mut any = false;
        for subscriber in self.lock().iter_mut() {
            let interest = lock(&subscriber.interest);
            if concerns(&interest) {
                let begun = subscriber.burst.map_or(now, |(begun, _)| begun);
                subscriber.burst = Some((begun, now));
                any = true;
            }
        }
        if any {
            self.pending.notify_one();
        }
    }

    /// Reports each burst when it is over. Ends with the runtime.
    async fn tell_bursts(self) {
        loop {
            let next = self.tell_of_those_over(Instant::now());
            tokio::select! {
                () = self.pending.notified() => {}
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
        }
    }

    /// When the next burst will be over.
    fn tell_of_those_over(&self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let mut subscribers = self.lock();
        for subscriber in subscribers.iter_mut() {
            let Some((begun, last)) = subscriber.burst else {
                continue;
            };
            let over = (last + CALM).min(begun + LONGEST);
            if over <= now {
                subscriber.burst = None;
                subscriber.count.send_modify(|count| *count += 1);
            } else {
                next = Some(next.map_or(over, |next| next.min(over)));
            }
        }
        next
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Subscriber>> {
        lock(&self.subscribers)
    }
}

impl Changes {
    /// Waits for a change; an error = nobody watches any more.
    pub async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.count.changed().await
    }

    /// What changed up to now is known.
    pub fn mark_unchanged(&mut self) {
        self.count.mark_unchanged();
    }

    /// From now on something else is of interest.
    pub fn mind(&self, interest: Interest) {
        *lock(&self.interest) = interest;
    }
}

impl From<watch::Receiver<u64>> for Changes {
    /// Told by somebody else than a [`Watch`].
    fn from(count: watch::Receiver<u64>) -> Self {
        let interest = Arc::new(Mutex::new(Interest::Everything));
        Self { count, interest }
    }
}

/// Neighbours come and go all the time. They matter when a router stops to answer or begins again: then the kernel
/// turns to another router without any event of a route.
fn tells_something(change: &NetworkChange, silent: &SilentRouters) -> bool {
    let NetworkChange::Neighbour {
        index,
        address,
        says,
        gone,
        ..
    } = change
    else {
        return true;
    };
    match says {
        // After a while the kernel removes failed entries, which says nothing new about the router.
        Reachability::Failed => silent.learn(*index, *address, Reachability::Failed),
        _ if *gone => silent.forget(*index, *address),
        says => silent.learn(*index, *address, *says),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told_after(watch: &Watch, changes: &mut Changes) -> Duration {
        tokio::spawn(watch.clone().tell_bursts());
        let begun = Instant::now();
        changes.changed().await.unwrap();
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_counts_once() {
        let watch = Watch::default();
        let mut changes = watch.subscribe(Interest::Everything);
        for _ in 0..50 {
            watch.tell(None);
        }
        told_after(&watch, &mut changes).await;
        assert_eq!(*changes.count.borrow_and_update(), 1);
        tokio::time::sleep(Duration::from_secs(5)).await;
        watch.tell(None);
        changes.changed().await.unwrap();
        assert_eq!(*changes.count.borrow_and_update(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_by_itself_is_reported_at_once() {
        let watch = Watch::default();
        let mut changes = watch.subscribe(Interest::Everything);
        watch.tell(None);
        let took = told_after(&watch, &mut changes).await;
        assert!(took <= Duration::from_millis(50), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_endless_burst_is_reported_in_time() {
        let watch = Watch::default();
        let mut changes = watch.subscribe(Interest::Everything);
        let endless = watch.clone();
        tokio::spawn(async move {
            loop {
                endless.tell(None);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let took = told_after(&watch, &mut changes).await;
        assert!(took < LONGEST + CALM, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn only_those_whom_it_concerns_are_told() {
        let watch = Watch::default();
        tokio::spawn(watch.clone().tell_bursts());
        let interest = |uplink: &str| {
            Interest::Instance(Dependence {
                uplinks: BTreeSet::from([uplink.to_owned()]),
                any_uplink: false,
                device: format!("clat-{uplink}"),
                own_table: 100,
                tables: BTreeSet::from([MAIN_TABLE]),
            })
        };
        let (mut one, two) = (watch.subscribe(interest("up0")), watch.subscribe(interest("up1")));
        watch.tell(Some("up0"));
        one.changed().await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!two.count.has_changed().unwrap());
    }

    #[test]
    fn what_concerns_an_instance() {
        let dependence = Dependence {
            uplinks: BTreeSet::from(["up0".to_owned()]),
            any_uplink: false,
            device: "clat".into(),
            own_table: 100,
            tables: BTreeSet::from([MAIN_TABLE]),
        };
        let route = |v6, table, device: &str, ours, gone| NetworkChange::Route {
            v6,
            table,
            device: Some(device.to_owned()),
            ours,
            gone,
        };
        for (change, concerns) in [
            (route(true, MAIN_TABLE, "up0", false, false), true),
            (route(true, MAIN_TABLE, "up1", false, false), false),
            (route(false, MAIN_TABLE, "up1", false, false), true),
            (route(false, 77, "up1", false, false), false),
            (route(false, MAIN_TABLE, "clat", true, false), false),
            (route(false, MAIN_TABLE, "clat", true, true), true),
            (route(false, MAIN_TABLE, "clat2", true, true), false),
            (route(true, 100, "up0", true, true), true),
            (route(false, 100, "up1", false, false), true),
            (route(true, 100, "lo", false, true), true),
            (NetworkChange::Settings { device: None }, true),
            (
                NetworkChange::Settings {
                    device: Some("up1".into()),
                },
                false,
            ),
            (NetworkChange::Anything, true),
        ] {
            assert_eq!(dependence.covers(&change), concerns, "{change:?}");
        }
    }
}
