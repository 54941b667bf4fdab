//! Whether another node takes an address that is in use here.
//!
//! The kernel defends the address: as a proxy it answers the duplicate address detection of others. It neither
//! reports that, nor answers a node that takes the address in spite of it; [`advertise`] is for the latter.

use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use clatd_stages::nd::{Advertisement, Conflict, ConflictSign, LinkAddress, NdMessage, Nonce, Solicitation, claim};
use tokio::sync::mpsc::Sender;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use super::dad::{Listening, listen};
use super::packet::PacketSocket;
use super::{ProbeError, random};

/// The same neighbour in the same manner is reported only once within this time.
const QUIET: Duration = Duration::from_secs(1);
/// How many neighbours are remembered for that. A link with more conflicts is being flooded.
const REMEMBERED: usize = 64;
/// A pause after an error of the socket (its device went down), so that a lasting error makes no busy loop.
const AFTER_ERROR: Duration = Duration::from_secs(1);

/// Listens on one device for others that use one address, until it is dropped.
#[derive(Debug)]
pub struct ConflictWatch {
    _task: Option<AbortOnDropHandle<()>>,
}

impl ConflictWatch {
    /// Begins to listen for neighbours of `device` that advertise `address` ([`ConflictSign::Advertisement`]) or do duplicate
    /// address detection for it ([`ConflictSign::Detection`], which the kernel's proxy answers). If the channel is full,
    /// reports are lost. On a device without neighbours there is nothing to receive. Needs a tokio runtime.
    pub fn start(device: &str, address: Ipv6Addr, reports: Sender<Conflict>) -> Result<Self, ProbeError> {
        match listen(device, address)? {
            Ok(listening) => {
                let watch = watch(device.to_owned(), address, listening, reports);
                Ok(Self {
                    _task: Some(AbortOnDropHandle::new(tokio::spawn(watch))),
                })
            }
            Err(why) => {
                debug!("no watch for address conflicts on {device}: {why}");
                Ok(Self { _task: None })
            }
        }
    }

    /// False = the device has no neighbours, or nobody reads the reports any more.
    #[cfg(feature = "testing")]
    pub fn is_listening(&self) -> bool {
        self._task.as_ref().is_some_and(|task| !task.is_finished())
    }
}

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// Tells all neighbours that `address` is at `device`, and replaces what they know (RFC 4861 section 7.2.6).
pub async fn advertise(device: &str, address: Ipv6Addr) -> Result<(), ProbeError> {
    unsolicited(device, address, ALL_NODES, true).await
}

/// Tells all routers that `address` is at `device`, if they know no other place (RFC 9131 section 6.1.1).
pub async fn announce(device: &str, address: Ipv6Addr) -> Result<(), ProbeError> {
    unsolicited(device, address, ALL_ROUTERS, false).await
}

async fn unsolicited(device: &str, address: Ipv6Addr, group: Ipv6Addr, overriding: bool) -> Result<(), ProbeError> {
    let advertisement = |own| {
        NdMessage::Advertisement(Advertisement {
            source: address,
            destination: group,
            target: address,
            router: false,
            solicited: false,
            overriding,
            target_link_address: Some(own),
        })
    };
    send(device, address, group, advertisement).await
}

/// Asks whether another node has `address`. A [`ConflictWatch`] receives the answers.
pub async fn solicit(device: &str, address: Ipv6Addr) -> Result<(), ProbeError> {
    let [_, _, nonce @ ..] = random().to_be_bytes();
    let solicitation = Solicitation::detecting(address, Nonce(nonce));
    let group = solicitation.destination;
    send(device, address, group, |_| NdMessage::Solicitation(solicitation)).await
}

async fn send(
    device: &str,
    address: Ipv6Addr,
    group: Ipv6Addr,
    message: impl FnOnce(LinkAddress) -> NdMessage,
) -> Result<(), ProbeError> {
    let socket = PacketSocket::open(device, address).map_err(ProbeError::on(device, "opening a socket"))?;
    let own = socket.device().map_err(ProbeError::on(device, "looking"))?;
    let packet = message(own.address).packet();
    let sent = socket.send_multicast(own.index, group, &packet).await;
    sent.map_err(ProbeError::on(device, "sending neighbour discovery"))
}

async fn watch(device: String, address: Ipv6Addr, listening: Listening, reports: Sender<Conflict>) {
    let mut silence = Silence::default();
    loop {
        let received = tokio::select! {
            () = reports.closed() => return,
            received = listening.socket.receive() => received,
        };
        let (packet, from) = match received {
            Ok(received) => received,
            Err(error) => {
                debug!("watching {device} for address conflicts: {error}");
                tokio::time::sleep(AFTER_ERROR).await;
                continue;
            }
        };
        let Ok(message) = NdMessage::parse(&packet) else {
            continue;
        };
        // Read each time, since it may change while the device is in use.
        let own = listening.socket.device().ok().map(|device| device.address);
        let Some(conflict) = claim(address, &message, from.as_ref(), own.as_ref(), &[]) else {
            continue;
        };
        if silence.lets(&conflict, Instant::now()) && reports.try_send(conflict).is_err() {
            warn!("{device}: a conflict about {address} is not reported: too many reports wait");
        }
    }
}

/// Prevents a report for each message of a neighbour that repeats itself.
#[derive(Debug, Default)]
struct Silence {
    last: HashMap<(Option<LinkAddress>, ConflictSign), Instant>,
}

impl Silence {
    fn lets(&mut self, conflict: &Conflict, now: Instant) -> bool {
        self.last.retain(|_, at| now.duration_since(*at) < QUIET);
        let key = (conflict.by.clone(), conflict.how);
        if self.last.contains_key(&key) || self.last.len() >= REMEMBERED {
            return false;
        }
        self.last.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conflict(by: u8, how: ConflictSign) -> Conflict {
        Conflict {
            address: Ipv6Addr::LOCALHOST,
            by: Some(LinkAddress::new(&[2, 0, 0, 0, 0, by])),
            source: Ipv6Addr::UNSPECIFIED,
            how,
        }
    }

    #[test]
    fn repetitions_are_not_reported() {
        let (mut silence, now) = (Silence::default(), Instant::now());
        assert!(silence.lets(&conflict(1, ConflictSign::Detection), now));
        assert!(!silence.lets(&conflict(1, ConflictSign::Detection), now));
        assert!(silence.lets(&conflict(1, ConflictSign::Advertisement), now));
        assert!(silence.lets(&conflict(2, ConflictSign::Detection), now));
        assert!(silence.lets(&conflict(1, ConflictSign::Detection), now + QUIET));
    }

    #[test]
    fn a_flood_fills_no_memory() {
        let (mut silence, now) = (Silence::default(), Instant::now());
        let reported = (0..=255)
            .filter(|by| silence.lets(&conflict(*by, ConflictSign::Detection), now))
            .count();
        assert_eq!(reported, REMEMBERED);
        assert_eq!(silence.last.len(), REMEMBERED);
    }
}
