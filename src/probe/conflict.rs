//! Whether another node takes an address that is in use here.
//!
//! The kernel defends the address: as a proxy it answers the duplicate address detection of others. It neither
//! reports that, nor answers a node that takes the address in spite of it; [`advertise`] is for the latter.

use std::collections::BTreeMap;
use std::future::pending;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use clatd_stages::nd::{Advertisement, Conflict, ConflictSign, LinkAddress, NdMessage, Nonce, Solicitation, claim};
use tokio::sync::mpsc::Sender;
use tokio::time::sleep_until;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use super::dad::{Listening, listen};
use super::packet::PacketSocket;
use super::{ProbeError, random};

/// A conflict of the same kind with the same neighbour is reported once within this time. If there are more, the last
/// of them is reported at its end.
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
        let due = silence.due();
        let quiet_ends = async {
            match due {
                Some(due) => sleep_until(due.into()).await,
                None => pending().await,
            }
        };
        let received = tokio::select! {
            () = reports.closed() => return,
            () = quiet_ends => Ok(None),
            received = listening.socket.receive() => received.map(Some),
        };
        let conflicts = match received {
            Ok(None) => silence.ended(Instant::now()),
            Ok(Some((packet, from))) => {
                let Ok(message) = NdMessage::parse(&packet) else {
                    continue;
                };
                // Read each time, since it may change while the device is in use.
                let own = listening.socket.device().ok().map(|device| device.address);
                let conflict = claim(address, &message, from.as_ref(), own.as_ref(), &[]);
                let conflict = conflict.and_then(|conflict| silence.lets(conflict, Instant::now()));
                conflict.into_iter().collect()
            }
            Err(error) => {
                debug!("watching {device} for address conflicts: {error}");
                tokio::time::sleep(AFTER_ERROR).await;
                continue;
            }
        };
        for conflict in conflicts {
            if reports.try_send(conflict).is_err() {
                warn!("{device}: a conflict about {address} is not reported: too many reports wait");
            }
        }
    }
}

/// Prevents a report for each message of a neighbour that repeats itself.
#[derive(Debug, Default)]
struct Silence(BTreeMap<(Option<LinkAddress>, ConflictSign), Reported>);

/// What was reported of one neighbour.
#[derive(Debug)]
struct Reported {
    at: Instant,
    /// Its last message since then, which is to be reported later.
    unreported: Option<Conflict>,
}

impl Silence {
    /// The conflict, if it is to be reported now.
    fn lets(&mut self, conflict: Conflict, now: Instant) -> Option<Conflict> {
        let quiet = |reported: &Reported| now.duration_since(reported.at) < QUIET;
        self.0
            .retain(|_, reported| quiet(reported) || reported.unreported.is_some());
        let key = (conflict.by.clone(), conflict.how);
        let full = self.0.len() >= REMEMBERED;
        match self.0.get_mut(&key) {
            Some(reported) if quiet(reported) => {
                reported.unreported = Some(conflict);
                return None;
            }
            None if full => return None,
            Some(_) | None => {}
        }
        self.0.insert(
            key,
            Reported {
                at: now,
                unreported: None,
            },
        );
        Some(conflict)
    }

    /// When the next message that waits is to be reported.
    fn due(&self) -> Option<Instant> {
        let waiting = self.0.values().filter(|reported| reported.unreported.is_some());
        waiting.map(|reported| reported.at + QUIET).min()
    }

    /// The messages that waited and are to be reported now.
    fn ended(&mut self, now: Instant) -> Vec<Conflict> {
        let due = self
            .0
            .values_mut()
            .filter(|reported| now.duration_since(reported.at) >= QUIET);
        let report = |reported: &mut Reported| {
            let conflict = reported.unreported.take()?;
            reported.at = now;
            Some(conflict)
        };
        due.filter_map(report).collect()
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
    fn repetitions_are_reported_once_and_at_the_end() {
        let (mut silence, now) = (Silence::default(), Instant::now());
        let mut lets = |by, how, now| silence.lets(conflict(by, how), now).is_some();
        assert!(lets(1, ConflictSign::Detection, now));
        assert!(lets(1, ConflictSign::Advertisement, now));
        assert!(lets(2, ConflictSign::Detection, now));
        let later = now + QUIET - Duration::from_millis(1);
        assert!(!lets(1, ConflictSign::Detection, later));
        assert!(!lets(1, ConflictSign::Detection, later));
        assert_eq!(silence.due(), Some(now + QUIET));
        assert_eq!(silence.ended(later), []);
        assert_eq!(silence.ended(now + QUIET), [conflict(1, ConflictSign::Detection)]);
        // That was a report, too.
        assert_eq!(silence.due(), None);
        assert_eq!(silence.lets(conflict(1, ConflictSign::Detection), later + QUIET), None);
        assert_eq!(silence.due(), Some(now + 2 * QUIET));
        let after = now + 3 * QUIET;
        assert_eq!(
            silence.lets(conflict(1, ConflictSign::Detection), after),
            Some(conflict(1, ConflictSign::Detection))
        );
        assert_eq!(silence.due(), None);
    }

    #[test]
    fn a_flood_fills_no_memory() {
        let (mut silence, now) = (Silence::default(), Instant::now());
        let reported = (0..=255)
            .filter(|by| silence.lets(conflict(*by, ConflictSign::Detection), now).is_some())
            .count();
        assert_eq!(reported, REMEMBERED);
        assert_eq!(silence.0.len(), REMEMBERED);
    }
}
