//! The kernel's network objects by netlink. All netlink types stay behind this module: it takes and gives those of
//! `clatd_stages::net`. Messages of ours are built with `netlink-packet-route`; what the kernel has is read attribute by
//! attribute ([`wire`]), because a route must come back with every byte that it had, and because an attribute that the
//! crate cannot parse must not hide the object that bears it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use netlink_packet_core::Emitable;

mod address;
#[cfg(feature = "ebpf")]
mod filter;
mod link;
mod neighbour;
mod nftables;
mod route;
mod rule;
mod socket;
pub(crate) mod wire;

#[cfg(feature = "ebpf")]
pub(crate) use filter::{Filter, Hook};
pub(crate) use neighbour::{ProxyNeighbour, Reachability, reachability};
pub(crate) use nftables::table_exists;
pub(crate) use route::{gateways, raw_of, same};
pub(crate) use rule::FoundRule;
pub use socket::NetlinkError;
use socket::{Connection, Message, NLM_F_CREATE, NLM_F_EXCL};

/// A netlink connection. The kernel runs one dump at a time on a socket, so requests take turns; they run on tokio's
/// blocking threads, since the kernel may make any of them wait for its lock.
#[derive(Debug, Clone)]
pub struct Netlink {
    connection: Arc<Mutex<Connection>>,
}

impl Netlink {
    /// Opens a connection to the network namespace of the calling thread.
    pub fn open() -> io::Result<Self> {
        let connection = Connection::open(netlink_sys::protocols::NETLINK_ROUTE)?;
        Ok(Self {
            connection: Arc::new(Mutex::new(connection)),
        })
    }

    async fn dump(&self, kind: u16, payload: Vec<u8>) -> Result<Vec<Message>, NetlinkError> {
        self.with_connection(move |connection| connection.dump(kind, &payload))
            .await
    }

    async fn request(&self, kind: u16, flags: u16, payload: Vec<u8>) -> Result<Vec<Message>, NetlinkError> {
        self.with_connection(move |connection| connection.request(kind, flags, &payload))
            .await
    }

    async fn with_connection<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, NetlinkError> + Send + 'static,
    ) -> Result<T, NetlinkError> {
        let connection = Arc::clone(&self.connection);
        let work = move || work(&mut connection.lock().unwrap_or_else(PoisonError::into_inner));
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| NetlinkError::Socket(io::Error::other(error)))?
    }
}

/// A message as bytes.
fn emit(message: &impl Emitable) -> Vec<u8> {
    let mut buffer = vec![0; message.buffer_len()];
    message.emit(&mut buffer);
    buffer
}
