//! The listener of one device. One tokio task:
//!
//! ```text
//!            no such device, or down              carrier, socket open
//!  Unknown --------------------------> Absent <-------------------------+
//!     |                                  |                              |
//!     |                                  v    carrier                   |
//!     +-------------------------------> Up <----------> NoCarrier ------+
//!                                    hears, solicits     hears nothing, keeps what it knows
//! ```
//!
//! What was heard goes with the device (Absent), as the kernel's own addresses and routes do. A carrier that was away
//! only raises a doubt: the link may be another one now. What the routers do not say again within some seconds after the
//! first of them was heard is then forgotten; until then it comes behind what they do say.

use std::io;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use clatd_stages::ra::{self, Advertisements, RaError, RouterAdvertisement};
use tokio::sync::watch;
use tokio::time::Instant;

use super::overheard::Overheard;
use super::socket::{Discarded, RaSocket};
use super::solicit::{INTERVAL, Solicitor};
use super::{OnLinkChange, RaSnapshot, RaWatchError, clock};
use crate::kernel::Netlink;
use crate::netlink::LinkEvents;

/// After the first advertisement, every other router has answered within this time: `MAX_RA_DELAY_TIME` and
/// `MIN_DELAY_BETWEEN_RAS` of RFC 4861 section 10, in milliseconds, and a little more.
const ALL_ANSWERED: u64 = 4_000;
/// Without any advertisement: the time of all solicitations, and of an answer to the last one.
const NONE_ANSWERED: u64 = 3 * INTERVAL + ALL_ANSWERED;
/// The pause before a retry in milliseconds, after a failure for which no event says that a retry can succeed.
const AGAIN: u64 = 5_000;
/// How many messages are read before others get their turn.
const BATCH: usize = 32;

/// What the listener knows.
#[derive(Debug, Default)]
pub(super) struct ListenerState {
    link: LinkState,
    heard: bool,
    pub(super) solicited_since: Option<Instant>,
    problem: Option<Arc<RaWatchError>>,
    table: Advertisements,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum LinkState {
    #[default]
    Unknown,
    Absent,
    NoCarrier,
    Up,
}

impl ListenerState {
    /// Whether there is nothing to wait for.
    pub(super) fn is_settled(&self) -> bool {
        self.heard || self.problem.is_some() || matches!(self.link, LinkState::Absent | LinkState::NoCarrier)
    }

    pub(super) fn snapshot(&self, now: u64) -> RaSnapshot {
        RaSnapshot {
            pref64s: self.table.pref64s(now),
            rdnss: self.table.rdnss(now),
            routers: self.table.routers(now),
            mtu: self.table.mtu(),
            heard: self.heard,
            solicited_since: self.solicited_since,
            problem: self.problem.clone(),
        }
    }
}

/// Listens on one device.
pub(super) struct Listener {
    device: String,
    netlink: Netlink,
    events: Arc<LinkEvents>,
    overheard: Arc<Overheard>,
    notify: OnLinkChange,
    state: watch::Sender<ListenerState>,
    socket: Option<RaSocket>,
    solicitor: Solicitor,
    /// How often the carrier had been lost when it was last looked at.
    losses: u64,
    /// When what is doubted is forgotten.
    doubt_ends: Option<u64>,
    /// When to look at the device even if no event comes.
    look_at: Option<u64>,
}

/// A message that was received.
type Arrival = Result<(Ipv6Addr, Result<RouterAdvertisement, RaError>), Discarded>;

enum Wake {
    Heard(io::Result<Vec<Arrival>>),
    LinkChanged,
    Time,
    End,
}

impl Listener {
    pub(super) fn new(
        device: &str,
        netlink: Netlink,
        events: Arc<LinkEvents>,
        overheard: Arc<Overheard>,
        notify: OnLinkChange,
        state: watch::Sender<ListenerState>,
    ) -> Self {
        Self {
            device: device.to_owned(),
            netlink,
            events,
            overheard,
            notify,
            state,
            socket: None,
            solicitor: Solicitor::default(),
            losses: 0,
            doubt_ends: None,
            look_at: None,
        }
    }

    /// Ends only with the links' events. The owner of the task aborts it.
    pub(super) async fn run(mut self) {
        let mut changes = self.events.subscribe(&self.device);
        self.look().await;
        loop {
            let due = self.next_time();
            let event = tokio::select! {
                heard = hear(self.socket.as_mut()) => Wake::Heard(heard),
                changed = changes.changed() => if changed.is_ok() { Wake::LinkChanged } else { Wake::End },
                () = until(due) => Wake::Time,
            };
            match event {
                Wake::Heard(Ok(messages)) => self.take_in(messages),
                Wake::Heard(Err(error)) => self.lose_socket(error),
                Wake::LinkChanged => self.look().await,
                Wake::Time => self.act(clock::now()).await,
                Wake::End => return,
            }
        }
    }

    fn next_time(&self) -> Option<u64> {
        let expiry = self.state.borrow().table.next_expiry();
        let times = [expiry, self.solicitor.next(), self.doubt_ends, self.look_at];
        times.into_iter().flatten().min()
    }

    /// Does what is due.
    async fn act(&mut self, now: u64) {
        let due = |time: Option<u64>| time.is_some_and(|time| time <= now);
        if due(self.solicitor.next()) {
            self.solicit(now);
        }
        if due(self.doubt_ends) {
            self.doubt_ends = None;
            self.change(|state| state.table.forget_doubted());
        }
        if due(self.state.borrow().table.next_expiry()) {
            self.change(|state| state.table.forget_expired(now));
        }
        if due(self.look_at) {
            self.look().await;
        }
    }

    /// Looks at the device, and follows it.
    async fn look(&mut self) {
        self.look_at = None;
        // Read before the link: a later loss makes another event, and so another look.
        let open = self.socket.as_ref().map(RaSocket::index);
        let open = open.map(|index| (index, self.events.carrier_losses(index)));
        let link = match self.netlink.link(&self.device).await {
            Ok(link) => link.filter(|link| link.up),
            Err(error) => return self.fail(format!("looking at {}", self.device), error, None),
        };
        let Some(link) = link else {
            return self.leave(LinkState::Absent);
        };
        let mut overheard = None;
        let lost = match open {
            Some((index, losses)) if index == link.index => std::mem::replace(&mut self.losses, losses) != losses,
            _ => {
                self.leave(LinkState::Unknown);
                if !self.enter(link.index) {
                    return;
                }
                overheard = self.overheard.on(link.index);
                false
            }
        };
        self.recover();
        let was = self.state.borrow().link;
        match (was, link.carrier) {
            (LinkState::Up, true) if !lost => self.solicitor.hurry(clock::now()),
            (_, true) => self.begin(overheard),
            (LinkState::NoCarrier, false) => {}
            (_, false) => self.pause(),
        }
    }

    /// The device is there: opens its socket.
    fn enter(&mut self, index: u32) -> bool {
        let socket = RaSocket::open(index);
        match socket {
            Ok(socket) => {
                self.socket = Some(socket);
                self.losses = self.events.carrier_losses(index);
                true
            }
            Err(error) => {
                let hint = match error.raw_os_error() {
                    Some(libc::EPERM | libc::EACCES) => Some("clatd needs CAP_NET_RAW to hear them"),
                    Some(libc::ENODEV | libc::EINVAL) => {
                        Some("the device has no IPv6 (disable_ipv6, or its MTU is below 1280)")
                    }
                    _ => None,
                };
                let doing = format!("opening a socket for router advertisements on {}", self.device);
                self.fail(doing, error, hint);
                false
            }
        }
    }

    /// The device is gone, down or another one. What was learned on it is forgotten.
    fn leave(&mut self, link: LinkState) {
        self.socket = None;
        self.solicitor.stop();
        self.doubt_ends = None;
        if link == LinkState::Absent {
            self.recover();
        }
        if self.state.borrow().link == link {
            return;
        }
        self.change(|state| {
            let known = !state.snapshot(clock::now()).is_empty();
            let problem = state.problem.take();
            *state = ListenerState {
                link,
                problem,
                ..ListenerState::default()
            };
            known
        });
    }

    /// The carrier is gone.
    fn pause(&mut self) {
        self.solicitor.stop();
        self.doubt_ends = None;
        self.state.send_modify(|state| {
            state.link = LinkState::NoCarrier;
            (state.heard, state.solicited_since) = (false, None);
        });
    }

    /// The carrier is there, for the first time or again.
    fn begin(&mut self, overheard: Option<Advertisements>) {
        let now = clock::now();
        let mut default_router = false;
        self.change(|state| {
            state.link = LinkState::Up;
            (state.heard, state.solicited_since) = (overheard.is_some(), None);
            state.table.doubt();
            let Some(overheard) = overheard else { return false };
            state.table = overheard;
            default_router = state
                .table
                .routers(now)
                .iter()
                .any(|router| router.lifetime_s.is_some());
            !state.snapshot(now).is_empty()
        });
        if !default_router {
            self.doubt_ends = Some(now + NONE_ANSWERED);
            self.solicitor.start(now);
        }
    }

    fn solicit(&mut self, now: u64) {
        let Some(socket) = &self.socket else {
            return self.solicitor.stop();
        };
        match socket.solicit() {
            Ok(()) => {
                tracing::debug!("asked the routers on {} for an advertisement", self.device);
                self.solicitor.sent(now);
            }
            Err(error) => {
                tracing::debug!("cannot ask the routers on {} yet: {error}", self.device);
                self.solicitor.failed(now);
            }
        }
        self.state.send_modify(|state| {
            state.solicited_since.get_or_insert_with(Instant::now);
        });
    }

    fn take_in(&mut self, messages: Vec<Arrival>) {
        let now = clock::now();
        let mut heard = Vec::new();
        for message in messages {
            match message {
                Ok((router, Ok(advertisement))) => heard.push((router, advertisement)),
                Ok((source, Err(error))) => {
                    tracing::debug!(
                        "discarded a router advertisement of {source} on {}: {error}",
                        self.device
                    );
                }
                Err(dropped) => {
                    tracing::debug!("discarded a router advertisement on {}: {dropped:?}", self.device);
                }
            }
        }
        if heard.is_empty() {
            return;
        }
        // RFC 4861 section 6.3.7: only an advertisement of a default router ends the solicitations.
        if heard.iter().any(|(_, said)| said.router_lifetime_s > 0) {
            self.solicitor.stop();
        }
        let all_answered = now + ALL_ANSWERED;
        self.doubt_ends = self.doubt_ends.map(|end| end.min(all_answered));
        let device = &self.device;
        self.change(|state| {
            state.heard = true;
            let mut changed = false;
            for (router, said) in &heard {
                let outcome = state.table.update(now, *router, said);
                tracing::debug!("router {router} on {device}: {said}");
                changed |= outcome.changed;
            }
            changed
        });
    }

    fn lose_socket(&mut self, error: io::Error) {
        self.socket = None;
        self.solicitor.stop();
        let doing = format!("receiving router advertisements on {}", self.device);
        self.fail(doing, error, None);
        self.state.send_modify(|state| state.link = LinkState::Unknown);
    }

    /// Remembers and reports a problem, but each problem only once.
    fn fail<E: std::error::Error + Send + Sync + 'static>(
        &mut self,
        doing: String,
        error: E,
        hint: Option<&'static str>,
    ) {
        self.look_at = Some(clock::now() + AGAIN);
        let problem = RaWatchError {
            doing,
            source: Box::new(error),
            hint,
        };
        let text = crate::report::chain(&problem);
        let known = self
            .state
            .borrow()
            .problem
            .as_deref()
            .map(|known| crate::report::chain(known));
        if known.as_ref() != Some(&text) {
            let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
            tracing::warn!("{text}{hint}");
            self.state.send_modify(|state| state.problem = Some(Arc::new(problem)));
        }
    }

    /// Forgets the problem: listening works again.
    fn recover(&self) {
        if self.state.borrow().problem.is_some() {
            self.state.send_modify(|state| state.problem = None);
        }
    }

    /// Changes the state, and notifies if `change` returns true.
    fn change(&self, change: impl FnOnce(&mut ListenerState) -> bool) {
        let mut changed = false;
        self.state.send_modify(|state| changed = change(state));
        if changed {
            (self.notify)(&self.device);
        }
    }
}

/// The messages that came, parsed. Safe to cancel: it takes nothing from the socket before it ends.
async fn hear(socket: Option<&mut RaSocket>) -> io::Result<Vec<Arrival>> {
    let Some(socket) = socket else {
        return std::future::pending().await;
    };
    socket.readable().await?;
    let mut messages = Vec::new();
    while messages.len() < BATCH {
        match socket.receive().map(read) {
            Ok(message) => messages.push(message),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if messages.is_empty() => return Err(error),
            // The same error comes next time.
            Err(_) => break,
        }
    }
    Ok(messages)
}

fn read(received: Result<super::socket::Received<'_>, Discarded>) -> Arrival {
    let received = received?;
    let said = ra::parse(received.packet, received.source, received.hop_limit);
    Ok((received.source, said))
}

async fn until(time: Option<u64>) {
    match time {
        Some(time) => tokio::time::sleep(Duration::from_millis(time.saturating_sub(clock::now()))).await,
        None => std::future::pending().await,
    }
}
