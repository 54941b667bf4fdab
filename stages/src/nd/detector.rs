//! Duplicate address detection (RFC 4862 section 5.4) as events in, solicitations and a verdict out.
//!
//! ```text
//!            Start: solicitation 1            Timer: solicitation 2 .. transmits
//!  waiting ------------------------> asking ----------------------------------+
//!     |                               |  ^                                    |
//!     |                               |  +------------------------------------+
//!     | claimed by another            | claimed by another     | Timer, after the last one
//!     v                               v                        v
//!  Duplicate                       Duplicate                  Free
//! ```

use std::fmt;
use std::net::Ipv6Addr;
use std::time::Duration;

use serde::Serialize;

use super::message::{LinkAddress, NdMessage, Nonce, Solicitation};

/// How duplicate address detection is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// DupAddrDetectTransmits (RFC 4862 section 5.1): number of solicitations; 0 = no detection, every address is
    /// free.
    pub transmits: u32,
    /// RetransTimer (RFC 4861 section 10): the time between two solicitations, and after the last one.
    pub retransmit: Duration,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            transmits: 1,
            retransmit: Duration::from_secs(1),
        }
    }
}

/// How another node showed that it has the address or wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConflictSign {
    /// It advertised the address, so it has it (RFC 4862 section 5.4.4).
    Advertisement,
    /// It does duplicate address detection for the same address (RFC 4862 section 5.4.3).
    Detection,
}

/// Another node with the address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conflict {
    /// The address.
    pub address: Ipv6Addr,
    /// The other node's link-layer address: what it advertised, else what its packet came from.
    pub by: Option<LinkAddress>,
    /// The IPv6 source of its packet, `::` where it does duplicate address detection.
    pub source: Ipv6Addr,
    /// How it showed.
    pub how: ConflictSign,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, source, .. } = self;
        let by = match &self.by {
            Some(by) => by.to_string(),
            None if source.is_unspecified() => "a neighbour".to_owned(),
            None => source.to_string(),
        };
        match self.how {
            ConflictSign::Advertisement => write!(f, "{by} has {address}"),
            ConflictSign::Detection => write!(f, "{by} wants {address} too"),
        }
    }
}

/// What a valid message says about another node's claim to `address`; `None` = nothing.
///
/// `link_source` is the packet's link-layer source, `own` this device's link-layer address, `nonces` those of our own
/// solicitations. These are no claims: our own packets that the link returns, known by nonce (RFC 7527) or link-layer
/// source; an advertisement that names `own` as the owner, as access points and switches send that answer for others
/// (RFC 6957); a solicitation from a unicast address, whose sender looks for the owner.
pub fn claim(
    address: Ipv6Addr,
    message: &NdMessage,
    link_source: Option<&LinkAddress>,
    own: Option<&LinkAddress>,
    nonces: &[Nonce],
) -> Option<Conflict> {
    let is_own = |link: Option<&LinkAddress>| link.is_some() && link == own;
    if message.target() != address || is_own(link_source) {
        return None;
    }
    let (by, how) = match message {
        NdMessage::Advertisement(na) if is_own(na.target_link_address.as_ref()) => return None,
        NdMessage::Advertisement(na) => (
            na.target_link_address.as_ref().or(link_source),
            ConflictSign::Advertisement,
        ),
        NdMessage::Solicitation(ns) if !ns.source.is_unspecified() => return None,
        NdMessage::Solicitation(ns) if ns.nonce.is_some_and(|nonce| nonces.contains(&nonce)) => return None,
        NdMessage::Solicitation(_) => (link_source, ConflictSign::Detection),
    };
    Some(Conflict {
        address,
        by: by.cloned(),
        source: message.source(),
        how,
    })
}

/// Something that happens to a [`Detector`].
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// The detection begins. Messages that were received before count already, since listening starts first.
    Start,
    /// The time of [`Next::Wait`] has come; a call before that time does no harm.
    Timer,
    /// A valid message came.
    Received {
        /// The message.
        message: &'a NdMessage,
        /// Link-layer source of the packet, where the link has such.
        link_source: Option<&'a LinkAddress>,
    },
}

/// What is to be done after an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actions {
    /// To be sent now.
    pub send: Option<Solicitation>,
    /// What comes then.
    pub next: Next,
}

/// What a [`Detector`] waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// For [`Input::Start`].
    Idle,
    /// For messages, and for the timer at this time.
    Wait(Duration),
    /// For nothing more: nobody else has the address.
    Free,
    /// For nothing more: another node has the address, or wants it at the same time.
    Duplicate(Conflict),
}

/// Duplicate address detection of one address. Times are counted from any fixed moment.
#[derive(Debug, Clone)]
pub struct Detector {
    address: Ipv6Addr,
    own: Option<LinkAddress>,
    parameters: Parameters,
    nonce: Nonce,
    sent: Vec<Nonce>,
    next: Next,
}

impl Detector {
    /// For `address`, on a device with link-layer address `own`. `nonce` is random; each solicitation gets another
    /// one made from it (RFC 7527 section 4.1).
    pub fn new(address: Ipv6Addr, own: Option<LinkAddress>, parameters: Parameters, nonce: Nonce) -> Self {
        Self {
            address,
            own,
            parameters,
            nonce,
            sent: Vec::new(),
            next: Next::Idle,
        }
    }

    /// Takes in what happened at `now`.
    pub fn handle(&mut self, now: Duration, event: Input<'_>) -> Actions {
        let mut send = None;
        match (event, &self.next) {
            (_, Next::Free | Next::Duplicate(_)) => {}
            (Input::Start, Next::Idle) => send = self.go_on(now),
            (Input::Timer, Next::Wait(due)) if *due <= now => send = self.go_on(now),
            (Input::Start | Input::Timer, _) => {}
            (Input::Received { message, link_source }, _) => {
                let conflict = claim(self.address, message, link_source, self.own.as_ref(), &self.sent);
                if let Some(conflict) = conflict {
                    self.next = Next::Duplicate(conflict);
                }
            }
        }
        Actions {
            send,
            next: self.next.clone(),
        }
    }

    /// The next solicitation, or the end.
    fn go_on(&mut self, now: Duration) -> Option<Solicitation> {
        if u32::try_from(self.sent.len()).is_ok_and(|sent| sent >= self.parameters.transmits) {
            self.next = Next::Free;
            return None;
        }
        let nonce = self.nonce;
        self.nonce = following(nonce);
        self.sent.push(nonce);
        self.next = Next::Wait(now.saturating_add(self.parameters.retransmit));
        Some(Solicitation::detecting(self.address, nonce))
    }
}

fn following(Nonce(bytes): Nonce) -> Nonce {
    let [a, b, c, d, e, f] = bytes;
    let [_, _, a, b, c, d, e, f] = u64::from_be_bytes([0, 0, a, b, c, d, e, f])
        .wrapping_add(1)
        .to_be_bytes();
    Nonce([a, b, c, d, e, f])
}
