//! Router advertisements, heard on a raw ICMPv6 socket per uplink: PREF64 (RFC 8781) and RDNSS (RFC 8106) are known
//! whoever manages the link (kernel, systemd-networkd, NetworkManager) and whatever `accept_ra` says. What they mean is
//! in [`clatd_stages::ra`].
//!
//! ```text
//!  links: events of devices --count--> listener of each device --state--> RaWatch::state, wait_first
//!                                     socket, solicitations  --notify--> whoever made the RaWatch
//! ```

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clatd_stages::ra::{Learned, RouterState};
use clatd_translator::Pref64;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::kernel::Netlink;
use crate::netlink::LinkEvents;
use crate::util::{AnyError, lock};
use listener::{Listener, ListenerState};
use overheard::Overheard;
use socket::RaSocket;

mod clock;
mod listener;
mod overheard;
mod socket;
mod solicit;

/// Called when the advertised values of a link have changed.
type OnLinkChange = Arc<dyn Fn(&str) + Send + Sync>;

/// Listens for router advertisements on the devices that it is told to watch. Clones share everything; when the last
/// one is dropped, the listening ends.
#[derive(Clone)]
pub struct RaWatch {
    shared: Arc<RaShared>,
}

struct RaShared {
    netlink: Netlink,
    events: Arc<LinkEvents>,
    notify: OnLinkChange,
    devices: Mutex<BTreeMap<String, ListenedDevice>>,
    overheard: Arc<Overheard>,
    _task: AbortOnDropHandle<()>,
}

struct ListenedDevice {
    state: watch::Receiver<ListenerState>,
    _task: AbortOnDropHandle<()>,
}

/// What the routers of a link have told.
#[derive(Debug, Clone, Default)]
pub struct RaSnapshot {
    /// NAT64 prefixes: first those of default routers by preference (RFC 4191), then in order of arrival. A prefix
    /// that several routers offer occurs once for each of them.
    pub pref64s: Vec<Learned<Pref64>>,
    /// DNS servers, in the same order. A link-local one is on this link.
    pub rdnss: Vec<Learned<Ipv6Addr>>,
    /// The routers that tell anything of use, in order of their addresses.
    pub routers: Vec<RouterState>,
    /// The smallest MTU that a router gives for the link, 1280 or more. The device may carry less.
    pub mtu: Option<u32>,
    /// Whether a router was heard since the link last got its carrier.
    pub heard: bool,
    /// Since when routers are solicited; `None` = not since the link last got its carrier.
    pub solicited_since: Option<Instant>,
    /// Why nothing can be heard.
    pub problem: Option<Arc<RaWatchError>>,
}

/// Why router advertisements cannot be received on a device.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct RaWatchError {
    /// What was being done, on which device.
    pub doing: String,
    /// The cause.
    pub source: AnyError,
    /// What the user can do about it.
    pub hint: Option<&'static str>,
}

impl RaWatch {
    /// Begins to watch the links of the calling thread's network namespace. Needs a runtime. `notify` is called with
    /// the device whenever a prefix, a server or the MTU of a watched link came, went or moved. It must not block.
    /// Under an attack it may be called often, so its calls should be grouped.
    pub fn new(netlink: Netlink, notify: impl Fn(&str) + Send + Sync + 'static) -> Self {
        let events = netlink.link_events();
        let overheard = Arc::new(Overheard::new(Arc::clone(&events)));
        let overhearing = tokio::spawn({
            let overheard = Arc::clone(&overheard);
            let socket = RaSocket::open_on_all();
            async move { overheard.run(socket).await }
        });
        Self {
            shared: Arc::new(RaShared {
                netlink,
                events,
                notify: Arc::new(notify),
                devices: Mutex::default(),
                overheard,
                _task: AbortOnDropHandle::new(overhearing),
            }),
        }
    }

    /// Listens on a device from now on. Whenever the device gets its carrier, routers are solicited (RFC 4861 section
    /// 6.3.7), unless an advertisement was overheard since then. The device need not exist yet, and may come back as
    /// another one. Does nothing if the device is watched already.
    pub fn watch(&self, device: &str) {
        let mut devices = self.devices();
        if devices.contains_key(device) {
            return;
        }
        let shared = &self.shared;
        let (sender, state) = watch::channel(ListenerState::default());
        let (events, notify) = (Arc::clone(&shared.events), Arc::clone(&shared.notify));
        let overheard = Arc::clone(&shared.overheard);
        let listener = Listener::new(device, shared.netlink.clone(), events, overheard, notify, sender);
        let task = tokio::spawn(listener.run());
        let _task = AbortOnDropHandle::new(task);
        devices.insert(device.to_owned(), ListenedDevice { state, _task });
    }

    /// Stops listening on a device, and forgets what its routers said.
    pub fn unwatch(&self, device: &str) {
        self.devices().remove(device);
    }

    /// The devices that are watched.
    pub fn watched(&self) -> Vec<String> {
        self.devices().keys().cloned().collect()
    }

    /// The current state of a link; nothing if it is not watched.
    pub fn state(&self, device: &str) -> RaSnapshot {
        let devices = self.devices();
        devices
            .get(device)
            .map(|device| device.state.borrow().snapshot(clock::now()))
            .unwrap_or_default()
    }

    /// Like [`RaWatch::state`], but if no router was heard yet, it waits for the first one: until `timeout` after the
    /// first solicitation, so that only the first observation of a silent link waits. It does not wait if the device
    /// is absent, down, without carrier or cannot be listened on.
    pub async fn wait_first(&self, device: &str, timeout: Duration) -> RaSnapshot {
        let begun = Instant::now();
        let state = self.devices().get(device).map(|device| device.state.clone());
        if let Some(mut state) = state {
            loop {
                let asked = {
                    let state = state.borrow_and_update();
                    if state.is_settled() {
                        break;
                    }
                    state.solicited_since.unwrap_or(begun)
                };
                // Either the time is over, or the device is no longer watched.
                if !matches!(
                    timeout_at(asked.min(begun) + timeout, state.changed()).await,
                    Ok(Ok(()))
                ) {
                    break;
                }
            }
        }
        self.state(device)
    }

    fn devices(&self) -> MutexGuard<'_, BTreeMap<String, ListenedDevice>> {
        lock(&self.shared.devices)
    }
}

impl RaSnapshot {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.pref64s.is_empty() && self.rdnss.is_empty()
    }
}
