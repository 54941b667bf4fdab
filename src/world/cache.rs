//! Remembers DNS answers until they expire (RFC 7050 section 3: a node caches the replies and asks again ten seconds
//! before the TTL ends, and after a negative reply not before its TTL has ended).
//!
//! An answer belongs to the network that gave it. The default gateways of the uplink are part of the key, so a new
//! network behind the same device is asked anew. A network is new if none of its earlier gateways is left.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clatd_stages::world::DnsAnswer;
use hickory_resolver::proto::rr::{RData, RecordType};
use tokio::time::Instant;

use crate::util::lock;

/// How long before its end a positive answer is renewed.
const MARGIN_S: u32 = 10;
/// The shortest time for which any answer is remembered, since events come in bursts.
const SHORTEST_S: u32 = 3;
/// The longest time for which a negative answer is remembered, since a network may begin to do DNS64.
const LONGEST_NEGATIVE_S: u32 = 300;
/// For how long an old answer is used while no server can be reached: the network is probably as before.
const STALE_S: u32 = 30;

/// The question, the server, and the network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Question {
    pub(super) name: String,
    pub(super) kind: RecordType,
    pub(super) server: String,
    pub(super) device: String,
    pub(super) gateways: Vec<(String, Option<IpAddr>)>,
}

#[derive(Debug, Clone)]
struct Known {
    answer: DnsAnswer<RData>,
    at: Instant,
}

/// The answers.
#[derive(Debug, Clone, Default)]
pub(super) struct Cache(Arc<Mutex<BTreeMap<Question, Known>>>);

impl Cache {
    /// The answer if it has not expired, with the rest of its TTL.
    pub(super) fn fresh(&self, question: &Question) -> Option<DnsAnswer<RData>> {
        let known = of_this_network(&self.lock(), question).cloned()?;
        let age = u32::try_from(known.at.elapsed().as_secs()).unwrap_or(u32::MAX);
        let lasts = match &known.answer {
            DnsAnswer::Addresses { ttl_s, .. } => ttl_s.saturating_sub(MARGIN_S).max(SHORTEST_S),
            DnsAnswer::NoRecords { ttl_s, .. } => ttl_s.unwrap_or(STALE_S).clamp(SHORTEST_S, LONGEST_NEGATIVE_S),
            DnsAnswer::Failed(_) => return None,
        };
        (age < lasts).then(|| aged(known.answer, age))
    }

    /// An old positive answer, to be used while nobody can be asked.
    pub(super) fn stale(&self, question: &Question) -> Option<DnsAnswer<RData>> {
        let known = self.lock();
        match &of_this_network(&known, question)?.answer {
            DnsAnswer::Addresses { addresses, .. } => Some(DnsAnswer::Addresses {
                addresses: addresses.clone(),
                ttl_s: STALE_S,
            }),
            _ => None,
        }
    }

    /// Stores an answer. If it is a failure, returns an old positive answer to use in its place.
    pub(super) fn learn(&self, question: Question, answer: DnsAnswer<RData>) -> DnsAnswer<RData> {
        let mut known = self.lock();
        if let (
            DnsAnswer::Failed(_),
            Some(Known {
                answer: DnsAnswer::Addresses { addresses, .. },
                ..
            }),
        ) = (&answer, of_this_network(&known, &question))
        {
            return DnsAnswer::Addresses {
                addresses: addresses.clone(),
                ttl_s: STALE_S,
            };
        }
        // Answers of networks that were left are not kept for ever.
        known.retain(|_, known| known.at.elapsed() < Duration::from_secs(24 * 3600));
        known.insert(
            question,
            Known {
                answer: answer.clone(),
                at: Instant::now(),
            },
        );
        answer
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Question, Known>> {
        lock(&self.0)
    }
}

/// The latest answer of the network of a question. If one gateway stays while another comes or goes, the network is
/// the same.
fn of_this_network<'a>(known: &'a BTreeMap<Question, Known>, question: &Question) -> Option<&'a Known> {
    let in_this_network = |asked: &Question| {
        let same_gateways = asked.gateways == question.gateways;
        let shares_one = asked.gateways.iter().any(|gateway| question.gateways.contains(gateway));
        let as_asked_here = Question {
            gateways: question.gateways.clone(),
            ..asked.clone()
        };
        (same_gateways || shares_one) && as_asked_here == *question
    };
    let answers = known.iter().filter(|(asked, _)| in_this_network(asked));
    answers.map(|(_, known)| known).max_by_key(|known| known.at)
}

fn aged(answer: DnsAnswer<RData>, age: u32) -> DnsAnswer<RData> {
    match answer {
        DnsAnswer::Addresses { addresses, ttl_s } => DnsAnswer::Addresses {
            addresses,
            ttl_s: ttl_s.saturating_sub(age),
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(gateway: &str) -> Question {
        let gateways = vec![("wan0".to_owned(), Some(gateway.parse().unwrap()))];
        Question {
            name: "ipv4only.arpa.".into(),
            kind: RecordType::AAAA,
            server: String::new(),
            device: String::new(),
            gateways,
        }
    }

    fn aaaa() -> hickory_resolver::proto::rr::rdata::AAAA {
        "64:ff9b::c000:aa".parse().unwrap()
    }

    fn positive(ttl_s: u32) -> DnsAnswer<RData> {
        DnsAnswer::Addresses {
            addresses: vec![RData::AAAA(aaaa())],
            ttl_s,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_holds_until_shortly_before_its_ttl_ends() {
        let cache = Cache::default();
        cache.learn(question("fe80::1"), positive(60));
        tokio::time::sleep(Duration::from_secs(49)).await;
        assert_eq!(cache.fresh(&question("fe80::1")), Some(positive(11)));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(cache.fresh(&question("fe80::1")), None);
    }

    #[tokio::test(start_paused = true)]
    async fn another_network_is_asked_anew() {
        let cache = Cache::default();
        cache.learn(question("fe80::1"), positive(60));
        assert_eq!(cache.fresh(&question("fe80::2")), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_router_more_or_less_makes_no_other_network() {
        let cache = Cache::default();
        let both = || Question {
            gateways: [question("fe80::1").gateways, question("fe80::2").gateways].concat(),
            ..question("fe80::1")
        };
        cache.learn(question("fe80::1"), positive(60));
        assert_eq!(cache.fresh(&both()), Some(positive(60)));
        tokio::time::sleep(Duration::from_secs(70)).await;
        assert_eq!(cache.fresh(&both()), None);
        let failed = DnsAnswer::Failed("the router to the server is silent".into());
        assert_eq!(cache.learn(both(), failed), positive(STALE_S));
        assert_eq!(cache.stale(&both()), Some(positive(STALE_S)));
        assert_eq!(cache.stale(&question("fe80::2")), None);
        assert_eq!(cache.fresh(&question("fe80::2")), None, "but it is asked in the end");
    }

    #[tokio::test(start_paused = true)]
    async fn a_negative_answer_holds_for_its_ttl() {
        let cache = Cache::default();
        let negative = DnsAnswer::NoRecords {
            nxdomain: true,
            ttl_s: Some(20),
        };
        cache.learn(question("fe80::1"), negative.clone());
        tokio::time::sleep(Duration::from_secs(19)).await;
        assert_eq!(cache.fresh(&question("fe80::1")), Some(negative));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(cache.fresh(&question("fe80::1")), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_fails_does_not_take_the_prefix_away() {
        let cache = Cache::default();
        let failed = || DnsAnswer::Failed("no answer".into());
        assert_eq!(cache.learn(question("fe80::1"), failed()), failed());
        cache.learn(question("fe80::1"), positive(60));
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(cache.learn(question("fe80::1"), failed()), positive(STALE_S));
        assert_eq!(cache.learn(question("fe80::2"), failed()), failed());
    }
}
