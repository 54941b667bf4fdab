//! Advertisements on links that nobody watches yet. A device becomes an uplink by its default route, and the
//! advertisement that brings the route has the prefix, too. To solicit the router again would take seconds, since it
//! spaces its answers (`MIN_DELAY_BETWEEN_RAS` of RFC 4861 section 10).

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use clatd_stages::ra::{self, Advertisements};

use super::clock;
use super::socket::RaSocket;
use crate::netlink::LinkEvents;
use crate::util::lock;

/// How many devices are remembered. A new one replaces the one that was heard first.
const MOST: usize = 32;

/// The advertisements of all devices, by their index.
pub(super) struct Overheard {
    events: Arc<LinkEvents>,
    heard: Mutex<BTreeMap<u32, Heard>>,
}

struct Heard {
    /// How often the carrier had been lost then. If it was lost since, this may be another link.
    losses: u64,
    since: u64,
    said: Advertisements,
}

impl Overheard {
    pub(super) fn new(events: Arc<LinkEvents>) -> Self {
        Self {
            events,
            heard: Mutex::default(),
        }
    }

    /// Listens for ever. It ends on an error; then routers are solicited instead.
    pub(super) async fn run(&self, socket: io::Result<RaSocket>) {
        let listen = async || -> io::Result<()> {
            let mut socket = socket?;
            loop {
                self.hear(&mut socket).await?;
            }
        };
        if let Err(error) = listen().await {
            tracing::debug!("router advertisements are heard on uplinks only: {error}");
        }
    }

    async fn hear(&self, socket: &mut RaSocket) -> io::Result<()> {
        socket.readable().await?;
        let received = match socket.receive() {
            Ok(received) => received,
            Err(error) if [io::ErrorKind::Interrupted, io::ErrorKind::WouldBlock].contains(&error.kind()) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if let Ok(received) = received
            && let Ok(said) = ra::parse(received.packet, received.source, received.hop_limit)
        {
            self.with(received.device, |said_before, now| {
                said_before.update(now, received.source, &said);
            });
        }
        Ok(())
    }

    fn with(&self, device: u32, change: impl FnOnce(&mut Advertisements, u64)) {
        let (losses, now) = (self.events.carrier_losses(device), clock::now());
        let mut heard = self.lock();
        if heard.len() >= MOST && !heard.contains_key(&device) {
            let first = heard
                .iter()
                .min_by_key(|(_, heard)| heard.since)
                .map(|(index, _)| *index);
            first.and_then(|index| heard.remove(&index));
        }
        let fresh = || Heard {
            losses,
            since: now,
            said: Advertisements::default(),
        };
        let entry = heard.entry(device).or_insert_with(fresh);
        if entry.losses != losses {
            *entry = fresh();
        }
        change(&mut entry.said, now);
    }

    /// What was heard on a device since it got its carrier.
    pub(super) fn on(&self, device: u32) -> Option<Advertisements> {
        let losses = self.events.carrier_losses(device);
        let heard = self.lock();
        let heard = heard.get(&device).filter(|heard| heard.losses == losses)?;
        let mut said = heard.said.clone();
        said.forget_expired(clock::now());
        Some(said)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Heard>> {
        lock(&self.heard)
    }
}
