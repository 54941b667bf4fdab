//! What the stages read. `src/world` answers from the running system, tests from data.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use async_trait::async_trait;
use clatd_translator::Pref64;

use crate::facts::Fact;
use crate::fast_path::Offer;
use crate::net::{Address6, Link, Route};
use crate::op::Op;
use crate::path::{Hop, Probe};
use crate::settings::DnsServer;

/// A read that failed: what was being read, and the cause as source.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct WorldError {
    /// What was being done, to what.
    pub doing: String,
    /// The cause.
    pub source: Box<dyn Error + Send + Sync>,
}

impl WorldError {
    /// An error while `doing` something.
    pub fn new(doing: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            doing: doing.into(),
            source: source.into(),
        }
    }
}

/// The kernel's answer to a route look-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteAnswer {
    /// Output device.
    pub device: String,
    /// Next hop; `None` = on-link.
    pub gateway: Option<IpAddr>,
    /// Source address that the kernel would use.
    pub source: Option<IpAddr>,
}

/// A DNS server's answer to an AAAA question, unless another type of record is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsAnswer<T = Ipv6Addr> {
    /// What was asked for, in the order of the answer, and the smallest TTL in seconds.
    Addresses {
        /// The records: addresses, or what addresses are called.
        addresses: Vec<T>,
        /// Their smallest TTL in seconds.
        ttl_s: u32,
    },
    /// NXDOMAIN or NODATA, with the negative TTL in seconds where the server gave one.
    NoRecords {
        /// True = NXDOMAIN, false = NODATA.
        nxdomain: bool,
        /// Negative TTL in seconds.
        ttl_s: Option<u32>,
    },
    /// No usable answer, and why: time-out, SERVFAIL, refused, ...
    Failed(String),
}

impl<T> DnsAnswer<T> {
    /// The same answer with only those records for which `take` returns something.
    pub fn filter_map<U>(self, take: impl FnMut(T) -> Option<U>) -> DnsAnswer<U> {
        match self {
            Self::Addresses { addresses, ttl_s } => {
                let addresses: Vec<U> = addresses.into_iter().filter_map(take).collect();
                if addresses.is_empty() {
                    return DnsAnswer::NoRecords {
                        nxdomain: false,
                        ttl_s: None,
                    };
                }
                DnsAnswer::Addresses { addresses, ttl_s }
            }
            Self::NoRecords { nxdomain, ttl_s } => DnsAnswer::NoRecords { nxdomain, ttl_s },
            Self::Failed(why) => DnsAnswer::Failed(why),
        }
    }
}

/// All reads. An absent thing is `None` or an empty list. An error means that the read itself failed.
#[async_trait]
pub trait World: Send + Sync {
    /// All devices.
    async fn links(&self) -> Result<Arc<[Link]>, WorldError>;

    /// One device by name.
    async fn link(&self, name: &str) -> Result<Option<Link>, WorldError>;

    /// The IPv4 addresses of a device, in the kernel's order.
    async fn addresses4(&self, device: &str) -> Result<Vec<Ipv4Addr>, WorldError>;

    /// The IPv6 addresses of a device, in the kernel's order.
    async fn addresses6(&self, device: &str) -> Result<Vec<Address6>, WorldError>;

    /// The unicast IPv4 default routes of a table, in the kernel's order. No method reads a whole table, since that
    /// can be as large as the internet's.
    async fn routes4(&self, table: u32) -> Result<Vec<Route>, WorldError>;

    /// The same of IPv6.
    async fn routes6(&self, table: u32) -> Result<Arc<[Route]>, WorldError>;

    /// The route that a packet to `destination` would take, by `device` if given; `None` = unreachable.
    async fn route_to(&self, destination: Ipv6Addr, device: Option<&str>) -> Result<Option<RouteAnswer>, WorldError>;

    /// The route by `device` that a packet from `source` would take. Routes for this source alone count, too.
    async fn route_from(
        &self,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        device: &str,
    ) -> Result<Option<RouteAnswer>, WorldError>;

    /// Whether the router at `gateway` on a device no longer answers, so that packets get nowhere this way.
    async fn is_silent(&self, device: &str, gateway: IpAddr) -> Result<bool, WorldError>;

    /// Whether clatd found that the PLAT of this prefix does not answer through a device and its router.
    async fn is_plat_silent(&self, device: &str, gateway: Option<IpAddr>, prefix: Pref64) -> Result<bool, WorldError>;

    /// A sysctl, by key with slashes from `net/`, without the line end; `None` = this kernel has no such key. For a
    /// sysctl that the supervisor holds, this is the value before the first hold.
    async fn sysctl(&self, key: &str) -> Result<Option<String>, WorldError>;

    /// The same, as it was a tenth of a second ago at most: for what each instance asks of the devices of all others.
    async fn sysctl_lately(&self, key: &str) -> Result<Option<String>, WorldError>;

    /// The whole nft ruleset as libnftables JSON; `None` = no such program.
    async fn nft_ruleset(&self, command: &str) -> Result<Option<serde_json::Value>, WorldError>;

    /// What `ip6tables-save` prints for the filter table, which is not created by the read; `None` = no such program
    /// or no such table.
    async fn ip6tables_filter(&self, command: &str) -> Result<Option<String>, WorldError>;

    /// Asks `server`, or the system's resolvers, for the AAAA records of `name` (absolute); through `device` if
    /// given.
    async fn aaaa(&self, name: &str, server: Option<&DnsServer>, device: Option<&str>)
    -> Result<DnsAnswer, WorldError>;

    /// The same for A records.
    async fn a(
        &self,
        name: &str,
        server: Option<&DnsServer>,
        device: Option<&str>,
    ) -> Result<DnsAnswer<Ipv4Addr>, WorldError>;

    /// The same for the names of an address: PTR records below ip6.arpa.
    async fn ptr(
        &self,
        address: Ipv6Addr,
        server: Option<&DnsServer>,
        device: Option<&str>,
    ) -> Result<DnsAnswer<String>, WorldError>;

    /// The PLAT prefixes that routers advertise on a device (RFC 8781), the most preferred router's first. If no
    /// router was heard yet, routers are solicited, and the read waits shortly for an answer.
    async fn advertised_prefixes(&self, device: &str) -> Result<Vec<Fact<Pref64>>, WorldError>;

    /// Why router advertisements cannot be received on a device, if they cannot.
    async fn deaf_to_routers(&self, device: &str) -> Option<String>;

    /// The DNS servers that routers advertise on a device (RFC 8106), the most preferred router's first.
    async fn advertised_servers(&self, device: &str) -> Result<Vec<DnsServer>, WorldError>;

    /// The DNS servers that the manager of a device has for it (systemd-resolved, then NetworkManager), each once.
    async fn link_servers(&self, device: &str) -> Result<Vec<DnsServer>, WorldError>;

    /// Whether `target` answers through this device: an ICMPv6 echo, or TCP to `port` (RFC 7050 section 3.2).
    async fn answers(&self, device: &str, target: Ipv6Addr, port: Option<u16>) -> Result<bool, WorldError>;

    /// Whether a neighbour on this device answers address resolution now; `None` = the link has no address
    /// resolution.
    async fn hears(&self, device: &str, neighbour: IpAddr) -> Result<Option<bool>, WorldError>;

    /// The answers to a probe that is sent through this device, in the order of their hop limits.
    async fn trace(&self, device: &str, probe: &Probe) -> Result<Vec<Hop>, WorldError>;

    /// The route that an IPv4 packet of this host to `destination` would take; `None` = unreachable.
    async fn route4_to(&self, destination: Ipv4Addr) -> Result<Option<RouteAnswer>, WorldError>;

    /// Bits that distinguish this host from others and stay the same over restarts.
    async fn secret(&self) -> Result<Vec<u8>, WorldError>;

    /// Whether the fast path can be used on this uplink.
    async fn fast_path(&self, uplink: &Link) -> Result<Offer, WorldError>;

    /// What other programs set up on this uplink and the fast path would bypass: a filter, program or chain, or an IPsec
    /// policy for packets between the CLAT's IPv6 address and the PLAT prefix. In words that follow "bypass"; `None` =
    /// nothing.
    async fn bypassed(
        &self,
        uplink: &Link,
        clat_v6_addr: Ipv6Addr,
        plat_prefix: Pref64,
    ) -> Result<Option<String>, WorldError>;

    /// The numbers of those operations that were done and that another program has undone since.
    async fn undone(&self, done: &[(u64, &Op)]) -> Result<Vec<u64>, WorldError>;

    /// The path of a program that can be executed, looked up as `execvp` does; `None` = not found.
    async fn program(&self, command: &str) -> Result<Option<String>, WorldError>;
}
