//! What servers say, and what the client makes of it (RFC 8415 sections 16, 18.2.9 and 18.2.10).

use std::time::Duration;

use ipnet::Ipv6Net;

use super::client::{Client, ClientActions, Phase};
use super::duid::Duid;
use super::lease::{Lease, usable};
use super::message::{Dhcp6Message, DhcpOption, IaPd, MessageType, ServerStatus, StatusCode};

/// The preference that ends the waiting for others (section 18.2.1).
const BEST_PREFERENCE: u8 = 255;
/// More servers than any link has; further ones are ignored.
const MOST_OFFERS: usize = 16;
/// What SOL_MAX_RT may be (section 21.24).
const SOL_MAX_RT_RANGE: std::ops::RangeInclusive<u32> = 60..=86_400;

/// What a server advertised.
#[derive(Debug, Clone)]
pub(super) struct ServerOffer {
    pub(super) server: Duid,
    pub(super) preference: u8,
    pub(super) prefixes: Vec<Ipv6Net>,
}

/// The parts that every server message has (section 16).
struct ServerParts<'a> {
    message: &'a Dhcp6Message,
    server: &'a Duid,
    /// What it says of our IA.
    ia: Option<&'a IaPd>,
    /// The status of the message or of our IA, if it is not success.
    refusal: Option<&'a ServerStatus>,
}

impl Client {
    pub(super) fn received(&mut self, octets: &[u8], now: Duration, out: &mut ClientActions) {
        let Ok(message) = Dhcp6Message::decode(octets) else {
            return;
        };
        let Some(said) = self.addressed_to_us(&message) else {
            return;
        };
        if let Some(seconds) = message.find(|option| match option {
            DhcpOption::SolMaxRt(seconds) => Some(*seconds),
            _ => None,
        }) && SOL_MAX_RT_RANGE.contains(&seconds)
        {
            self.longest_solicit = Duration::from_secs(seconds.into());
            if self.phase == Phase::Soliciting {
                self.exchange.retransmission.set_longest(self.longest_solicit);
            }
        }
        match (message.kind, self.phase) {
            (MessageType::Advertise, Phase::Soliciting) => self.advertised(&said, now),
            // Without this option the message does not answer a Solicit (sections 16.10, 18.2.10).
            (MessageType::Reply, Phase::Soliciting) if has_rapid_commit(&message) => self.requested(&said, now, out),
            (MessageType::Reply, Phase::Requesting) => self.requested(&said, now, out),
            (MessageType::Reply, Phase::Renewing | Phase::Rebinding | Phase::Confirming) => {
                self.prolonged(&said, now, out);
            }
            (MessageType::Reply, Phase::Releasing) => self.end(),
            _ => {}
        }
    }

    /// The checks of section 16: the current transaction, our DUID, and a server's DUID. If one server was asked, it
    /// must be that server's.
    fn addressed_to_us<'a>(&self, message: &'a Dhcp6Message) -> Option<ServerParts<'a>> {
        let client = message.find(|option| match option {
            DhcpOption::ClientId(duid) => Some(duid),
            _ => None,
        })?;
        let server = message.find(|option| match option {
            DhcpOption::ServerId(duid) => Some(duid),
            _ => None,
        })?;
        let asked = match self.phase {
            Phase::Requesting => self.offers.first().map(|offer| &offer.server),
            Phase::Renewing | Phase::Releasing => self.lease.as_ref().map(|lease| &lease.server),
            _ => None,
        };
        // Nothing has been asked yet, so no message can be an answer.
        let awaited = self.exchange.retransmission.sent() > 0
            && message.transaction == self.exchange.transaction
            && *client == self.config.duid
            && asked.is_none_or(|asked| asked == server);
        if !awaited {
            return None;
        }
        let ia = message.find(|option| match option {
            // An IA with T1 after T2 is ignored (section 21.21).
            DhcpOption::IaPd(ia) if ia.iaid == self.config.iaid && (ia.t2 == 0 || ia.t1 <= ia.t2) => Some(ia),
            _ => None,
        });
        let of_whole = message.find(|option| match option {
            DhcpOption::Status(status) => Some(status),
            _ => None,
        });
        let failed = |status: &&ServerStatus| status.code != StatusCode::SUCCESS;
        let of_ia = ia.and_then(|ia| ia.status.as_ref());
        Some(ServerParts {
            message,
            server,
            ia,
            refusal: of_ia.filter(failed).or(of_whole.filter(failed)),
        })
    }

    /// Section 18.2.9.
    fn advertised(&mut self, said: &ServerParts<'_>, now: Duration) {
        let prefixes: Vec<Ipv6Net> = match (said.ia, said.refusal) {
            (Some(ia), None) => offered(ia).collect(),
            _ => Vec::new(),
        };
        if prefixes.is_empty() {
            return self.complain(said, "offers no prefix");
        }
        let preference = said.message.find(|option| match option {
            DhcpOption::Preference(preference) => Some(*preference),
            _ => None,
        });
        let offer = ServerOffer {
            server: said.server.clone(),
            preference: preference.unwrap_or(0),
            prefixes,
        };
        self.offers.retain(|other| other.server != offer.server);
        if self.offers.len() == MOST_OFFERS {
            return;
        }
        let best = offer.preference == BEST_PREFERENCE;
        self.offers.push(offer);
        // A stable sort: of equal offers, the first stays first. A /64 or larger comes before a prefix that holds no
        // /64.
        self.offers.sort_by_key(|offer| {
            let whole = offer.prefixes.iter().any(|prefix| prefix.prefix_len() <= 64);
            std::cmp::Reverse((whole, offer.preference))
        });
        // During the first time-out the client waits for other servers, later it does not (section 18.2.1).
        if best || self.exchange.retransmission.sent() > 1 {
            self.begin(Phase::Requesting, now);
        }
    }

    /// An answer to Request, or to Solicit with rapid commit.
    fn requested(&mut self, said: &ServerParts<'_>, now: Duration, out: &mut ClientActions) {
        if said
            .refusal
            .is_some_and(|status| status.code == StatusCode::UNSPEC_FAIL)
        {
            // Asked again at the usual times (section 18.2.10).
            return self.complain(said, "did not give what it offered");
        }
        let lease = match (said.ia, said.refusal) {
            (Some(ia), None) => Lease::new(said.server.clone(), ia, now),
            _ => None,
        };
        if let Some(lease) = lease {
            self.lease = Some(lease);
            self.problem = None;
            out.lease_changed = true;
            return self.bound();
        }
        self.complain(said, "did not give what it offered");
        if self.phase == Phase::Requesting {
            self.next_offer(now, out);
        }
    }

    /// An answer to Renew or Rebind (section 18.2.10.1).
    fn prolonged(&mut self, said: &ServerParts<'_>, now: Duration, out: &mut ClientActions) {
        let Some(lease) = &mut self.lease else { return };
        match (said.ia, said.refusal) {
            (_, Some(status)) if status.code == StatusCode::NO_BINDING => {
                let prefixes = lease.prefixes.iter().map(|known| known.prefix).collect();
                self.offers = vec![ServerOffer {
                    server: said.server.clone(),
                    preference: 0,
                    prefixes,
                }];
                self.complain(said, "knows nothing of the lease");
                self.begin(Phase::Requesting, now);
            }
            // The answer has nothing about our prefixes. The same server would answer the same again, so the usual
            // times apply.
            (None, _) | (_, Some(_)) => self.complain(said, "did not prolong the lease"),
            (Some(ia), None) if usable(ia).next().is_none() => self.complain(said, "did not prolong the lease"),
            (Some(ia), None) => {
                lease.server = said.server.clone();
                if lease.update(ia, now) {
                    out.lease_changed = true;
                    self.problem = None;
                    self.bound();
                } else {
                    self.complain(said, "took the prefix back");
                    self.lost(now, out);
                }
            }
        }
    }

    fn complain(&mut self, said: &ServerParts<'_>, what: &str) {
        let why = said.refusal.map(|status| format!(": {status}")).unwrap_or_default();
        self.problem = Some(format!("DHCPv6 server {} {what}{why}", said.server));
    }
}

fn offered(ia: &IaPd) -> impl Iterator<Item = Ipv6Net> {
    usable(ia).filter(|prefix| prefix.valid > 0).map(|prefix| prefix.prefix)
}

fn has_rapid_commit(message: &Dhcp6Message) -> bool {
    message.options.contains(&DhcpOption::RapidCommit)
}
