//! What was observed: each fact with its source and, if it expires, its lifetime.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use clatd_translator::Pref64;
use serde::{Serialize, Serializer};

use crate::fast_path::Placement;
use crate::net::{Link, Route};
use crate::proxynd::Neighbours;
use crate::settings::TranslatorChoice;

/// Where a fact comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The user set it.
    Configuration,
    /// A DNS64 server synthesised it (RFC 7050); `None` = the system's resolver.
    Dns64(Option<IpAddr>),
    /// A router advertised it (RFC 8781).
    RouterAdvertisement(Ipv6Addr),
    /// A DHCPv6 server delegated it (RFC 8415).
    Dhcp6(String),
    /// The kernel was asked; the text says what.
    Kernel(&'static str),
    /// clatd derived it from other facts by a rule; the text names the rule.
    Derived(&'static str),
    /// A choice of ours; the text says why.
    Judged(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration => f.write_str("configuration"),
            Self::Dns64(Some(server)) => write!(f, "DNS64 server {server}"),
            Self::Dns64(None) => f.write_str("DNS64 of the system's resolver"),
            Self::RouterAdvertisement(router) => write!(f, "advertisement of router {router}"),
            Self::Dhcp6(server) => write!(f, "DHCPv6 server {server}"),
            Self::Kernel(what) => write!(f, "kernel: {what}"),
            Self::Derived(rule) => f.write_str(rule),
            Self::Judged(why) => f.write_str(why),
        }
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A value with its source and lifetime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fact<T> {
    /// What was observed.
    pub value: T,
    /// Where it comes from.
    pub source: Source,
    /// For how many seconds it holds from the observation; `None` = until something changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime_s: Option<u32>,
}

impl<T> Fact<T> {
    /// A fact without an end.
    pub fn new(value: T, source: Source) -> Self {
        Self {
            value,
            source,
            lifetime_s: None,
        }
    }

    /// A fact that holds for `seconds`.
    pub fn lasting(value: T, source: Source, seconds: u32) -> Self {
        Self {
            value,
            source,
            lifetime_s: Some(seconds),
        }
    }
}

/// All that the stages of one instance observed, in pipeline order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// What is known from before.
    #[serde(skip)]
    pub memory: Memory,
    /// IPv4 default routes that are not ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub native_ipv4: Option<Fact<Vec<String>>>,
    /// The PLAT prefix that works already. It stays as long as the network offers it.
    #[serde(skip)]
    pub held_prefix: Option<Pref64>,
    /// The PLAT prefix in use.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "pref64_fact")]
    pub plat_prefix: Option<Fact<Pref64>>,
    /// Further PLAT prefixes, in order of arrival.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "pref64_facts")]
    pub other_plat_prefixes: Vec<Fact<Pref64>>,
    /// The uplink.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uplink: Option<Fact<Link>>,
    /// The VRF that the uplink is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uplink_vrf: Option<Fact<Link>>,
    /// IPv6 MTU of the uplink in bytes: that of the link, or a smaller one from a router.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uplink_mtu: Option<Fact<u32>>,
    /// Metric of the IPv4 default route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<Fact<u32>>,
    /// How the uplink reaches the PLAT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plat_gateway: Option<Fact<IpAddr>>,
    /// The CLAT's IPv6 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clat_v6_addr: Option<Fact<Ipv6Addr>>,
    /// The delegated DHCPv6 prefix that contains that address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delegated_prefix: Option<Fact<ipnet::Ipv6Net>>,
    /// That address is the host's own, so a mark, or the map of flows, tells the CLAT's packets from the host's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
    /// What the CLAT's address is to the uplink's neighbours, and so who answers them.
    #[serde(flatten)]
    pub neighbours: Option<Neighbours>,
    /// Who translates, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub translator: Option<Fact<TranslatorChoice>>,
    /// What the fast path needs to know about the uplink; `None` = the fast path is not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fast_path: Option<Placement>,
    /// Things to be said once, as warnings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Sysctls on which the plan depends, by key (`net/ipv6/...`). A key that this kernel lacks is absent.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Other devices that would lose what router advertisements gave them where forwarding is switched on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endangered: Option<Fact<Arc<[String]>>>,
    /// Packet filters between the CLAT and the uplink that would stop packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firewall: Option<FirewallFacts>,
    /// IPv4 default routes that `v4-defaultroute-replace` removes, in the kernel's order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced_routes: Option<Fact<Vec<Route>>>,
}

impl Facts {
    /// Who translates; `Auto` = that is not decided yet.
    pub fn chosen_translator(&self) -> TranslatorChoice {
        let chosen = self.translator.as_ref();
        chosen.map_or(TranslatorChoice::Auto, |chosen| chosen.value)
    }

    /// All things to be said once, as warnings.
    pub fn all_notes(&self) -> impl Iterator<Item = &String> {
        let firewall = self.firewall.iter().flat_map(|firewall| &firewall.notes);
        firewall.chain(&self.notes)
    }
}

/// What an instance remembers from earlier observations. It is not observed, so it is never shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// The CLAT runs already.
    pub running: bool,
    /// The uplink that it has, or had last.
    pub uplink: Option<Link>,
    /// Other devices with an IPv4 default route that came while the CLAT ran. The CLAT stays up beside them, also
    /// after an interruption: they may be VPNs that need it.
    pub beside: BTreeSet<String>,
}

/// The packet filters found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FirewallFacts {
    /// nft base chains that would stop the CLAT's packets.
    pub nft_chains: Vec<NftChain>,
    /// The ip6tables FORWARD chain.
    pub ip6tables: Ip6tablesChain,
    /// The ip6tables OUTPUT chain. It matters with a shared address only, since this host then sends the replies to
    /// the CLAT.
    #[serde(skip_serializing_if = "Ip6tablesChain::is_absent")]
    pub ip6tables_output: Ip6tablesChain,
    /// Things that could not be read or judged. They are printed as warnings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// An nft base chain that would stop the CLAT's packets, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NftChain {
    /// `ip6` or `inet`.
    pub family: String,
    /// Table name.
    pub table: String,
    /// Chain name.
    pub chain: String,
    /// `forward`, `prerouting` or `output`.
    pub hook: String,
    /// Why it would stop them: `policy drop`, `rule with reject`, ...
    pub reason: String,
}

/// State of one of ip6tables' chains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ip6tablesChain {
    /// The filter table does not exist, so nothing is dropped there.
    #[default]
    Absent,
    /// It lets everything through.
    Open,
    /// Its policy or a rule would drop.
    Drops,
}

impl Ip6tablesChain {
    fn is_absent(&self) -> bool {
        *self == Self::Absent
    }
}

fn pref64_fact<S: Serializer>(fact: &Option<Fact<Pref64>>, serializer: S) -> Result<S::Ok, S::Error> {
    fact.as_ref().map(shown).serialize(serializer)
}

fn pref64_facts<S: Serializer>(facts: &[Fact<Pref64>], serializer: S) -> Result<S::Ok, S::Error> {
    facts.iter().map(shown).collect::<Vec<_>>().serialize(serializer)
}

fn shown(fact: &Fact<Pref64>) -> Fact<String> {
    Fact {
        value: fact.value.to_string(),
        source: fact.source.clone(),
        lifetime_s: fact.lifetime_s,
    }
}
