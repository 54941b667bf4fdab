//! The exchanges of the client (RFC 8415 section 18.2), one at a time.
//!
//! ```text
//!            kept lease            10 s over, or answered
//!     Idle ------------> Confirming ---------------------------+
//!      | no lease                                              v     T1           T2
//!      +------> Soliciting ---Advertise---> Requesting ----> Bound ----> Renewing ----> Rebinding
//!                ^  ^  |                     |   ^  Reply      ^            | Reply         | Reply
//!                |  |  +--Reply (rapid commit)---|-----------> +------------+---------------+
//!                |  +--no more offers, refused---+   NoBinding |
//!                |                               +-------------+
//!                +-- nothing valid left (from any of those that hold a lease)
//!
//!     Stop, from anywhere: Releasing where there is a lease, then Ended.
//! ```

use std::time::Duration;

use ipnet::Ipv6Net;

use super::duid::Duid;
use super::lease::Lease;
use super::message::{Dhcp6Message, DhcpOption, IaPd, IaPrefix, MessageType, SOL_MAX_RT};
use super::reply::ServerOffer;
use super::retransmit::{self, Budget, Random, Retransmission, Schedule};

/// How long the Rebind of a kept lease may go unanswered (CNF_MAX_RD, section 18.2.12).
const CONFIRM_LIMIT: Duration = Duration::from_secs(10);
/// How long a Release may take in all.
const RELEASE_LIMIT: Duration = Duration::from_secs(1);
/// The longest pause between a refusal and the next Solicit.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// After this many unanswered messages we say so.
const SILENCE: u32 = 3;

/// What a client is made of.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Who we are.
    pub duid: Duid,
    /// Which of our IAs.
    pub iaid: u32,
    /// Seed of transaction ids and of the spread of time-outs.
    pub seed: u64,
    /// The first Solicit waits for up to this long, so that hosts that begin together do not ask together
    /// (SOL_MAX_DELAY, one second in section 7.6).
    pub first_delay: Duration,
}

/// What happens to a client.
#[derive(Debug, Clone)]
pub enum ClientInput<'a> {
    /// Begin, with the lease of an earlier run if there is one.
    Start(Option<Lease>),
    /// The uplink is back, or another one is in its place: the lease may not hold there (section 18.2.12).
    Relinked,
    /// The payload of a datagram to our port.
    Received(&'a [u8]),
    /// The time of the last output's `timer` has come. A call too early or too late does no harm.
    Timer,
    /// Give the lease back and end. Nothing may use the prefix any more (section 18.2.7).
    Stop,
}

/// What a client wants done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientActions {
    /// Datagrams to all servers.
    pub send: Vec<Vec<u8>>,
    /// When to look again if nothing happens before; `None` = never.
    pub timer: Option<Duration>,
    /// The lease changed: it is another one, has other lifetimes, or is gone.
    pub lease_changed: bool,
}

/// Where a client stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not begun.
    Idle,
    /// Looks for servers, or is about to.
    Soliciting,
    /// Asked a server for its offer.
    Requesting,
    /// Asks whether a kept lease still holds.
    Confirming,
    /// Has a lease.
    Bound,
    /// Asks its server to prolong the lease.
    Renewing,
    /// Asks any server to prolong the lease.
    Rebinding,
    /// Gives the lease back.
    Releasing,
    /// Has ended.
    Ended,
}

/// A client for one IA_PD on one uplink.
#[derive(Debug)]
pub struct Client {
    pub(super) config: ClientConfig,
    pub(super) phase: Phase,
    pub(super) lease: Option<Lease>,
    pub(super) problem: Option<String>,
    pub(super) offers: Vec<ServerOffer>,
    /// Refusals in a row, for the pause after them.
    pub(super) refusals: u32,
    pub(super) exchange: Exchange,
    pub(super) longest_solicit: Duration,
    random: Random,
    budget: Budget,
}

/// The message under way, or the pause before the next.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) transaction: u32,
    pub(super) retransmission: Retransmission,
    /// When it was first sent.
    begun: Option<Duration>,
    /// When its time-out ends, or the pause does.
    due: Option<Duration>,
    /// When it ends without an answer.
    until: Option<Duration>,
}

impl Exchange {
    fn new(schedule: Schedule) -> Self {
        Self {
            transaction: 0,
            retransmission: Retransmission::new(schedule),
            begun: None,
            due: None,
            until: None,
        }
    }
}

impl Client {
    /// A client that has not begun.
    pub fn new(config: ClientConfig) -> Self {
        Self {
            phase: Phase::Idle,
            lease: None,
            problem: None,
            offers: Vec::new(),
            refusals: 0,
            exchange: Exchange::new(retransmit::SOLICIT),
            longest_solicit: retransmit::SOLICIT.longest,
            random: Random(config.seed),
            budget: Budget::new(),
            config,
        }
    }

    /// What is delegated now; nothing while the lease is being given back.
    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref().filter(|_| self.phase != Phase::Releasing)
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Why there is no lease, or why it is not prolonged; `None` = all is well.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Takes up an event.
    pub fn handle(&mut self, now: Duration, event: ClientInput<'_>) -> ClientActions {
        let mut out = ClientActions::default();
        match event {
            ClientInput::Start(kept) if self.phase == Phase::Idle => self.start(kept, now, &mut out),
            ClientInput::Relinked => self.relinked(now),
            ClientInput::Received(octets) => self.received(octets, now, &mut out),
            ClientInput::Stop => self.stop(now, &mut out),
            ClientInput::Start(_) | ClientInput::Timer => {}
        }
        self.tick(now, &mut out);
        out.timer = self.next_look(now);
        out
    }

    fn start(&mut self, kept: Option<Lease>, now: Duration, out: &mut ClientActions) {
        let kept = kept.filter(|lease| lease.is_sound(self.config.iaid, now));
        self.lease = kept.and_then(|mut lease| lease.settle(now).then_some(lease));
        out.lease_changed = self.lease.is_some();
        self.relinked_or_begun(now);
    }

    fn relinked(&mut self, now: Duration) {
        if !matches!(self.phase, Phase::Idle | Phase::Releasing | Phase::Ended) {
            self.longest_solicit = retransmit::SOLICIT.longest;
            self.relinked_or_begun(now);
        }
    }

    fn relinked_or_begun(&mut self, now: Duration) {
        if self.lease.is_some() {
            self.begin(Phase::Confirming, now);
        } else {
            self.solicit_after(self.config.first_delay, now);
        }
    }

    fn stop(&mut self, now: Duration, out: &mut ClientActions) {
        match self.phase {
            Phase::Releasing | Phase::Ended => {}
            _ if self.lease.is_some() => {
                self.begin(Phase::Releasing, now);
                // An exit does not wait for the packet budget: it sends two packets, and they are the last ones.
                self.budget = Budget::new();
                out.lease_changed = true;
            }
            _ => self.end(),
        }
    }

    pub(super) fn end(&mut self) {
        self.phase = Phase::Ended;
        self.lease = None;
    }

    /// Begins an exchange; its first message goes out at the next tick.
    pub(super) fn begin(&mut self, phase: Phase, now: Duration) {
        let schedule = match phase {
            Phase::Requesting => retransmit::REQUEST,
            Phase::Confirming => retransmit::CONFIRM,
            Phase::Renewing => retransmit::RENEW,
            Phase::Rebinding => retransmit::REBIND,
            Phase::Releasing => retransmit::RELEASE,
            _ => retransmit::SOLICIT,
        };
        self.phase = phase;
        self.exchange = Exchange::new(schedule);
        self.exchange.transaction = (self.random.bits() >> 40) as u32;
        self.exchange.due = Some(now);
        self.exchange.until = match phase {
            Phase::Confirming => Some(now.saturating_add(CONFIRM_LIMIT)),
            Phase::Releasing => Some(now.saturating_add(RELEASE_LIMIT)),
            Phase::Renewing => self.lease.as_ref().and_then(Lease::rebind_at),
            _ => None,
        };
        if phase == Phase::Soliciting {
            self.exchange.retransmission.set_longest(self.longest_solicit);
            self.offers.clear();
        }
    }

    /// Looks for servers, after a pause of up to `longest`.
    pub(super) fn solicit_after(&mut self, longest: Duration, now: Duration) {
        self.begin(Phase::Soliciting, now);
        let pause = longest.mul_f64(self.random.between(0.0, 1.0));
        self.exchange.due = Some(now.saturating_add(pause));
    }

    /// Looks for servers again after one refused. The pauses grow, so that a server that offers and then refuses does
    /// not make the client send for ever.
    pub(super) fn solicit_after_refusal(&mut self, now: Duration) {
        let pause = Duration::from_secs(1 << self.refusals.min(7)).min(LONGEST_PAUSE);
        self.refusals = self.refusals.saturating_add(1);
        self.begin(Phase::Soliciting, now);
        let pause = pause.mul_f64(self.random.between(0.5, 1.0));
        self.exchange.due = Some(now.saturating_add(pause));
    }

    pub(super) fn bound(&mut self) {
        self.phase = Phase::Bound;
        self.refusals = 0;
        self.offers.clear();
    }

    /// Nothing valid is left.
    pub(super) fn lost(&mut self, now: Duration, out: &mut ClientActions) {
        self.lease = None;
        out.lease_changed = true;
        self.solicit_after(self.config.first_delay, now);
    }

    /// Does all that is due.
    fn tick(&mut self, now: Duration, out: &mut ClientActions) {
        self.age(now, out);
        // Bound, Renewing, Rebinding, the message: no chain of dues is longer.
        for _ in 0..4 {
            let lease = self.lease.as_ref();
            let is_due = |at: Option<Duration>| at.is_some_and(|at| at <= now);
            let over = is_due(self.exchange.until);
            match self.phase {
                Phase::Idle | Phase::Ended => return,
                Phase::Bound if is_due(lease.and_then(Lease::rebind_at)) => self.begin(Phase::Rebinding, now),
                Phase::Bound if is_due(lease.and_then(Lease::renew_at)) => self.begin(Phase::Renewing, now),
                Phase::Bound => return,
                Phase::Renewing if over => self.begin(Phase::Rebinding, now),
                Phase::Confirming if over => self.bound(),
                Phase::Releasing if over => return self.end(),
                _ if !is_due(self.exchange.due) => return,
                // The first time-out is over: the best offer wins (section 18.2.9).
                Phase::Soliciting if !self.offers.is_empty() => self.begin(Phase::Requesting, now),
                Phase::Requesting if self.exchange.retransmission.exhausted() => self.next_offer(now, out),
                Phase::Releasing if self.exchange.retransmission.exhausted() => {
                    self.exchange.due = self.exchange.until;
                    return;
                }
                _ => return self.transmit(now, out),
            }
        }
    }

    /// Lets lifetimes end.
    fn age(&mut self, now: Duration, out: &mut ClientActions) {
        if matches!(self.phase, Phase::Releasing | Phase::Ended) {
            return;
        }
        let Some(lease) = &mut self.lease else { return };
        let before = lease.prefixes.clone();
        if !lease.settle(now) {
            self.problem = Some("the lease ended and no DHCPv6 server prolonged it".into());
            self.lost(now, out);
        } else if lease.prefixes != before {
            out.lease_changed = true;
        }
    }

    /// The server does not give what it offered. The next offer is tried, or all begins again.
    pub(super) fn next_offer(&mut self, now: Duration, out: &mut ClientActions) {
        if !self.offers.is_empty() {
            self.offers.remove(0);
        }
        if !self.offers.is_empty() {
            return self.begin(Phase::Requesting, now);
        }
        // Asked for a lease of which its server knew nothing any more.
        if self.lease.take().is_some() {
            out.lease_changed = true;
        }
        self.solicit_after_refusal(now);
    }

    fn transmit(&mut self, now: Duration, out: &mut ClientActions) {
        if let Err(later) = self.budget.take(now) {
            self.exchange.due = Some(later);
            return;
        }
        let begun = *self.exchange.begun.get_or_insert(now);
        let elapsed = now.saturating_sub(begun).as_millis() / 10;
        out.send
            .push(self.message(u16::try_from(elapsed).unwrap_or(u16::MAX)).encode());
        let timeout = self.exchange.retransmission.next(&mut self.random);
        self.exchange.due = Some(now.saturating_add(timeout));
        if self.exchange.retransmission.sent() > SILENCE {
            self.problem = Some(format!("no DHCPv6 server answers our {}", self.message(0).kind));
        }
    }

    /// The message of this phase.
    fn message(&self, elapsed: u16) -> Dhcp6Message {
        let lease = self.lease.as_ref();
        let of_lease = || lease.map(|lease| lease.prefixes.iter().map(|known| known.prefix).collect());
        let (kind, server, prefixes) = match self.phase {
            Phase::Requesting => {
                let offer = self.offers.first();
                let prefixes = offer.map(|offer| offer.prefixes.clone());
                (MessageType::Request, offer.map(|offer| &offer.server), prefixes)
            }
            Phase::Renewing => (MessageType::Renew, lease.map(|lease| &lease.server), of_lease()),
            Phase::Confirming | Phase::Rebinding => (MessageType::Rebind, None, of_lease()),
            Phase::Releasing => (MessageType::Release, lease.map(|lease| &lease.server), of_lease()),
            // The hint: a /64, whichever (section 18.2.4).
            _ => (
                MessageType::Solicit,
                None,
                Ipv6Net::new([0; 16].into(), 64).ok().map(|hint| vec![hint]),
            ),
        };
        let mut options = vec![DhcpOption::ClientId(self.config.duid.clone())];
        options.extend(server.cloned().map(DhcpOption::ServerId));
        options.push(DhcpOption::ElapsedTime(elapsed));
        if kind != MessageType::Release {
            options.push(DhcpOption::OptionRequest(vec![SOL_MAX_RT]));
        }
        if kind == MessageType::Solicit {
            options.push(DhcpOption::RapidCommit);
        }
        options.push(DhcpOption::IaPd(self.ia(prefixes.unwrap_or_default())));
        Dhcp6Message {
            kind,
            transaction: self.exchange.transaction,
            options,
        }
    }

    /// Our IA. A client sends 0 for the lifetimes, since the server chooses them (sections 21.21 and 21.22).
    fn ia(&self, prefixes: Vec<Ipv6Net>) -> IaPd {
        let plain = |prefix| IaPrefix {
            preferred: 0,
            valid: 0,
            prefix,
            status: None,
        };
        IaPd {
            iaid: self.config.iaid,
            prefixes: prefixes.into_iter().map(plain).collect(),
            ..IaPd::default()
        }
    }

    fn next_look(&self, now: Duration) -> Option<Duration> {
        let lease = self.lease.as_ref();
        let changes = lease.and_then(|lease| lease.changes_at(now));
        let own = match self.phase {
            Phase::Idle | Phase::Ended => return None,
            Phase::Bound => lease.and_then(|lease| earlier(lease.renew_at(), lease.rebind_at())),
            Phase::Releasing => return earlier(self.exchange.due, self.exchange.until),
            _ => earlier(self.exchange.due, self.exchange.until),
        };
        earlier(own, changes)
    }
}

fn earlier(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    a.into_iter().chain(b).min()
}
