//! How far packets get: probes with a limited number of hops, and what their answers mean for a PLAT.
//!
//! Each router that takes the last hop from a packet reports it (RFC 4443 section 3.3, RFC 792). A router behind the
//! PLAT is an IPv4 router, and the PLAT puts its address into the PLAT prefix. So an answer from within the prefix
//! shows that the PLAT translates in both directions, and no host has to be asked.

use std::net::{IpAddr, Ipv4Addr};

use clatd_translator::Pref64;
use serde::Serialize;

/// The destination of probes when nobody names a host: the former anycast address of 6to4 relays. It is out of use
/// and given to nobody else (RFC 7526 section 4). It is a global address, so a PLAT translates it also under the
/// Well-Known Prefix (RFC 6052 section 3.1).
pub const NOBODY: Ipv4Addr = Ipv4Addr::new(192, 88, 99, 1);
/// The source of errors from routers that have no IPv4 address (RFC 7600 section 4.8, RFC 7915 section 6).
const DUMMY: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

/// What is sent: an echo request to `target` for each hop limit in `hops`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Where to.
    pub target: IpAddr,
    /// The hop limits.
    pub hops: std::ops::RangeInclusive<u8>,
    /// Length of the whole packet in bytes; 0 = as short as possible.
    pub length: u16,
}

/// How many routers a probe may pass. A NAT64 is in the provider's network, so this is enough.
const FARTHEST: u8 = 16;

impl Probe {
    /// As far as a PLAT may be.
    pub fn far(target: IpAddr) -> Self {
        Self {
            target,
            hops: 1..=FARTHEST,
            length: 0,
        }
    }
}

/// What an answer to a probe says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Says {
    /// The target answers.
    Reply,
    /// The hop limit ended here.
    TimeExceeded,
    /// There is no way on from here; the ICMP code says why.
    Unreachable(u8),
    /// The packet is too big from here on; with the size that fits, in bytes.
    TooBig(u32),
    /// Any other error.
    Other,
}

/// An answer to a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Hop {
    /// The hop limit of the probe that was answered.
    pub hops: u8,
    /// Who answers.
    pub from: IpAddr,
    /// What it says.
    pub says: Says,
}

/// The answer that shows that the PLAT of this prefix translates, if there is one.
pub fn through_plat(prefix: Pref64, answers: &[Hop]) -> Option<Hop> {
    let from_behind = |hop: &&Hop| match hop.from {
        IpAddr::V6(from) => hop.says == Says::Reply || prefix.extract(from).is_some(),
        IpAddr::V4(_) => false,
    };
    answers.iter().find(from_behind).copied()
}

/// The answer that shows that IPv4 packets get beyond the PLAT: it is from neither this host's translator (`own`) nor
/// an IPv6 router.
pub fn beyond_plat(own: &[Ipv4Addr], answers: &[Hop]) -> Option<Hop> {
    let from_beyond = |hop: &&Hop| match hop.from {
        IpAddr::V4(from) => from != DUMMY && !own.contains(&from),
        IpAddr::V6(_) => false,
    };
    answers.iter().find(from_beyond).copied()
}

/// The farthest one who answered.
pub fn farthest(answers: &[Hop]) -> Option<Hop> {
    answers.iter().max_by_key(|hop| hop.hops).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(from: &str, says: Says) -> Hop {
        Hop {
            hops: 3,
            from: from.parse().unwrap(),
            says,
        }
    }

    #[test]
    fn only_who_is_behind_the_plat_speaks_for_it() {
        for prefix in ["64:ff9b::/96", "2001:db8:64::/48"] {
            let prefix: Pref64 = prefix.parse().unwrap();
            let behind = hop(
                &prefix.embed(Ipv4Addr::new(198, 51, 100, 1)).to_string(),
                Says::TimeExceeded,
            );
            assert_eq!(through_plat(prefix, &[behind]), Some(behind));
            for says in [
                Says::TimeExceeded,
                Says::Unreachable(0),
                Says::Unreachable(1),
                Says::Other,
            ] {
                assert_eq!(through_plat(prefix, &[hop("3fff::1", says)]), None, "{says:?}");
            }
            assert!(through_plat(prefix, &[hop("3fff::1", Says::Reply)]).is_some());
        }
    }

    #[test]
    fn ipv6_routers_and_the_translator_are_not_beyond_the_plat() {
        let own = [Ipv4Addr::new(192, 0, 0, 2)];
        for from in ["192.0.0.2", "192.0.0.8", "64:ff9b::1"] {
            assert_eq!(beyond_plat(&own, &[hop(from, Says::TimeExceeded)]), None, "{from}");
        }
        assert!(beyond_plat(&own, &[hop("198.51.100.1", Says::Unreachable(0))]).is_some());
    }
}
