//! The network, mirrored once: what the kernel has is dumped where somebody asks for it, kept up to date by the kernel's
//! own events, and read from memory. Nobody else in the daemon speaks rtnetlink.
//!
//! ```text
//!  kernel --events, filtered by the kernel itself--> EventSocket --> Mirror --Change--> whoever listens
//!         <--dumps, filtered-- Hub <--reads-- Netlink (world, kernel, ra, dhcp6)
//!         <--requests, look-ups-------------- Netlink
//! ```
//!
//! A read takes in all events before it answers. The kernel queues the events of a change before the change returns, so a
//! read after a change sees it, whoever made it.
//!
//! All netlink types stay behind this module: it takes and gives those of `clatd_stages::net`. Messages of ours are built
//! with `netlink-packet-route`; what the kernel has is read attribute by attribute (`wire`), because a route must come
//! back with every byte that it had, and because an attribute that the crate cannot parse must not hide the object that
//! bears it.

use std::io;
use std::sync::{Arc, Weak};

use netlink_packet_core::Emitable;
use tokio::sync::Mutex;

mod address;
mod change;
#[cfg(feature = "ebpf")]
mod device_chain;
mod events;
#[cfg(feature = "ebpf")]
mod filter;
mod hub;
mod link;
mod links;
mod mirror;
#[cfg(test)]
mod mirror_tests;
mod neighbour;
mod nftables;
#[cfg(feature = "ebpf")]
mod policy;
mod route;
mod rule;
mod socket;
pub(crate) mod wire;

pub(crate) use change::{LinkChange, NetworkChange};
#[cfg(feature = "ebpf")]
pub(crate) use device_chain::{DeviceChain, device_chains};
#[cfg(feature = "ebpf")]
pub(crate) use filter::{Filter, Hook, IN_FRONT};
use hub::Hub;
pub(crate) use links::LinkEvents;
pub(crate) use neighbour::{ProxyNeighbour, Reachability};
pub(crate) use nftables::{NftChange, NftEvent, nft_events, table_exists};
#[cfg(feature = "ebpf")]
pub(crate) use policy::{Policy, are_blocked_by_default, new_policies, policies};
pub(crate) use route::{gateways, raw_of, same, source_prefix};
pub(crate) use rule::FoundRule;
pub use socket::NetlinkError;
use socket::{Connection, KernelMessage, NLM_F_CREATE, NLM_F_EXCL, on_blocking_thread};

use crate::util::lock;

/// The network of one namespace. Clones share everything.
///
/// The kernel runs one dump at a time on a socket, so requests take turns. They run on tokio's blocking threads,
/// since each may have to wait for a lock of the kernel.
#[derive(Debug, Clone)]
pub struct Netlink {
    connection: Arc<Mutex<Connection>>,
    /// For requests that wait while anybody changes devices. No other request stands behind these.
    waiting: Arc<Mutex<Connection>>,
    /// What it can send as it is meant: changes of devices and of addresses.
    changes: rtnetlink::Handle,
    hub: Hub,
    /// While somebody has it.
    links: Arc<std::sync::Mutex<Weak<LinkEvents>>>,
}

impl Netlink {
    /// Opens the network namespace of the calling thread. Needs a runtime.
    pub fn open() -> io::Result<Self> {
        let connection = Connection::open(netlink_sys::protocols::NETLINK_ROUTE)?;
        let connection = Arc::new(Mutex::new(connection));
        let waiting = Connection::open(netlink_sys::protocols::NETLINK_ROUTE)?;
        let hub = Hub::start(Arc::clone(&connection))?;
        let (sending, changes, _) = rtnetlink::new_connection()?;
        // Ends with the last handle.
        tokio::spawn(sending);
        Ok(Self {
            connection,
            waiting: Arc::new(Mutex::new(waiting)),
            changes,
            hub,
            links: Arc::default(),
        })
    }

    /// Events of the links. All callers share one object, so that the events are kept once.
    pub(crate) fn link_events(&self) -> Arc<LinkEvents> {
        let mut links = lock(&self.links);
        links.upgrade().unwrap_or_else(|| {
            let events = LinkEvents::follow(self);
            *links = Arc::downgrade(&events);
            events
        })
    }

    /// Reports every change to `listener` from now on, until it returns `false`. The hub calls it, and waits for it.
    pub(crate) fn listen(&self, listener: impl FnMut(&NetworkChange) -> bool + Send + Sync + 'static) {
        self.hub.listen(Box::new(listener));
    }

    async fn dump(&self, kind: u16, payload: Vec<u8>) -> Result<Vec<KernelMessage>, NetlinkError> {
        let dump = move |connection: &mut Connection| connection.dump(kind, &payload);
        with(self.connection_for(kind), dump).await
    }

    async fn request(&self, kind: u16, flags: u16, payload: Vec<u8>) -> Result<Vec<KernelMessage>, NetlinkError> {
        let request = move |connection: &mut Connection| connection.request(kind, flags, &payload);
        with(self.connection_for(kind), request).await
    }

    fn connection_for(&self, kind: u16) -> Arc<Mutex<Connection>> {
        match kind {
            libc::RTM_GETROUTE | libc::RTM_GETRULE | libc::RTM_GETADDR | libc::RTM_GETNEIGH => {
                Arc::clone(&self.connection)
            }
            _ => Arc::clone(&self.waiting),
        }
    }

    async fn with_connection<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, NetlinkError> + Send + 'static,
    ) -> Result<T, NetlinkError> {
        with(Arc::clone(&self.connection), work).await
    }
}

async fn with<T: Send + 'static>(
    connection: Arc<Mutex<Connection>>,
    work: impl FnOnce(&mut Connection) -> Result<T, NetlinkError> + Send + 'static,
) -> Result<T, NetlinkError> {
    // Whoever waits for the connection holds no thread meanwhile: hundreds of instances do at the start.
    let mut connection = connection.lock_owned().await;
    on_blocking_thread(move || work(&mut connection)).await
}

/// A message as bytes.
fn emit(message: &impl Emitable) -> Vec<u8> {
    let mut buffer = vec![0; message.buffer_len()];
    message.emit(&mut buffer);
    buffer
}
