//! A world made of data: what tests observe.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use async_trait::async_trait;
use clatd_translator::Pref64;

use crate::facts::Fact;
use crate::fast_path::{Offer, Way};
use crate::net::{Address6, Link, Route};
use crate::op::Op;
use crate::reservations::Reservations;
use crate::settings::DnsServer;
use crate::world::{DnsAnswer, RouteAnswer, World, WorldError};

/// Answers every read from its fields.
#[derive(Debug, Clone, Default)]
pub struct FixedWorld {
    /// Why router advertisements cannot be received, if so.
    pub deaf: Option<String>,
    /// The devices.
    pub links: Vec<Link>,
    /// IPv6 addresses by device.
    pub addresses6: BTreeMap<String, Vec<Address6>>,
    /// IPv4 routes by table.
    pub routes4: BTreeMap<u32, Vec<Route>>,
    /// IPv6 routes by table.
    pub routes6: BTreeMap<u32, Vec<Route>>,
    /// The answer to each route look-up, by device. The empty name is the look-up without a device.
    pub route_to: BTreeMap<String, RouteAnswer>,
    /// Sysctls by key.
    pub sysctls: BTreeMap<String, String>,
    /// The nft ruleset; `None` = no nft.
    pub nft: Option<serde_json::Value>,
    /// What ip6tables-save prints.
    pub ip6tables: Option<String>,
    /// DNS answers by server; the empty name is the system's resolver. A server without an answer times out.
    pub dns: BTreeMap<String, DnsAnswer>,
    /// What addresses are called; others have no name.
    pub names: BTreeMap<Ipv6Addr, DnsAnswer<String>>,
    /// IPv4 addresses by name; other names have none.
    pub ipv4_of: BTreeMap<String, DnsAnswer<Ipv4Addr>>,
    /// The programs that exist.
    pub programs: BTreeSet<String>,
    /// PLAT prefixes that routers advertise, by device.
    pub advertised: BTreeMap<String, Vec<Fact<Pref64>>>,
    /// DNS servers that routers advertise, by device.
    pub advertised_servers: BTreeMap<String, Vec<DnsServer>>,
    /// DNS servers that the managers of links know, by device.
    pub link_servers: BTreeMap<String, Vec<DnsServer>>,
    /// Prefixes delegated by DHCPv6, by device.
    pub delegated: BTreeMap<String, Fact<ipnet::Ipv6Net>>,
    /// Who has addresses already.
    pub duplicates: BTreeMap<Ipv6Addr, String>,
    /// Which instance has which address; clones of the world share it.
    pub reservations: Reservations,
    /// Addresses that do not answer.
    pub silent: BTreeSet<Ipv6Addr>,
    /// What other programs undid: texts that occur in the operations that did it.
    pub undone_by_others: BTreeSet<String>,
    /// What the fast path can do on each uplink. On other uplinks the programs do not load.
    pub fast_path: BTreeMap<String, Way>,
    /// What cannot be read: names of methods.
    pub broken: BTreeSet<&'static str>,
}

impl FixedWorld {
    fn check(&self, method: &'static str) -> Result<(), WorldError> {
        if self.broken.contains(method) {
            return Err(WorldError::new(
                format!("reading {method}"),
                "failure injected by a test",
            ));
        }
        Ok(())
    }
}

#[async_trait]
impl World for FixedWorld {
    async fn links(&self) -> Result<Vec<Link>, WorldError> {
        self.check("links")?;
        Ok(self.links.clone())
    }
    async fn addresses6(&self, device: &str) -> Result<Vec<Address6>, WorldError> {
        self.check("addresses6")?;
        Ok(self.addresses6.get(device).cloned().unwrap_or_default())
    }
    async fn routes4(&self, table: u32) -> Result<Vec<Route>, WorldError> {
        self.check("routes4")?;
        Ok(self.routes4.get(&table).cloned().unwrap_or_default())
    }
    async fn routes6(&self, table: u32) -> Result<Vec<Route>, WorldError> {
        self.check("routes6")?;
        Ok(self.routes6.get(&table).cloned().unwrap_or_default())
    }
    async fn route_to(&self, _: Ipv6Addr, device: Option<&str>) -> Result<Option<RouteAnswer>, WorldError> {
        self.check("route_to")?;
        Ok(self.route_to.get(device.unwrap_or_default()).cloned())
    }
    async fn sysctl(&self, key: &str) -> Result<Option<String>, WorldError> {
        self.check("sysctl")?;
        Ok(self.sysctls.get(key).cloned())
    }
    async fn nft_ruleset(&self, _: &str) -> Result<Option<serde_json::Value>, WorldError> {
        self.check("nft_ruleset")?;
        Ok(self.nft.clone())
    }
    async fn ip6tables_filter(&self, _: &str) -> Result<Option<String>, WorldError> {
        self.check("ip6tables_filter")?;
        Ok(self.ip6tables.clone())
    }
    async fn aaaa(&self, _: &str, server: Option<&DnsServer>, _: Option<&str>) -> Result<DnsAnswer, WorldError> {
        self.check("aaaa")?;
        let server = server.map(ToString::to_string).unwrap_or_default();
        Ok(self
            .dns
            .get(&server)
            .cloned()
            .unwrap_or_else(|| DnsAnswer::Failed("timed out".into())))
    }
    async fn a(&self, name: &str, _: Option<&DnsServer>, _: Option<&str>) -> Result<DnsAnswer<Ipv4Addr>, WorldError> {
        Ok(self.ipv4_of.get(name).cloned().unwrap_or(DnsAnswer::NoRecords {
            nxdomain: true,
            ttl_s: None,
        }))
    }
    async fn ptr(
        &self,
        address: Ipv6Addr,
        _: Option<&DnsServer>,
        _: Option<&str>,
    ) -> Result<DnsAnswer<String>, WorldError> {
        let none = DnsAnswer::NoRecords {
            nxdomain: true,
            ttl_s: None,
        };
        Ok(self.names.get(&address).cloned().unwrap_or(none))
    }
    async fn advertised_prefixes(&self, device: &str) -> Result<Vec<Fact<Pref64>>, WorldError> {
        Ok(self.advertised.get(device).cloned().unwrap_or_default())
    }
    async fn deaf_to_routers(&self, _device: &str) -> Option<String> {
        self.deaf.clone()
    }
    async fn advertised_servers(&self, device: &str) -> Result<Vec<DnsServer>, WorldError> {
        Ok(self.advertised_servers.get(device).cloned().unwrap_or_default())
    }
    async fn link_servers(&self, device: &str) -> Result<Vec<DnsServer>, WorldError> {
        Ok(self.link_servers.get(device).cloned().unwrap_or_default())
    }
    async fn delegated_prefix(&self, device: &str) -> Result<Option<Fact<ipnet::Ipv6Net>>, WorldError> {
        Ok(self.delegated.get(device).cloned())
    }
    async fn fast_path(&self, uplink: &Link) -> Result<Offer, WorldError> {
        let refused = || Offer::Refused("loading the program clatd_out: Operation not permitted (os error 1)".into());
        Ok(self
            .fast_path
            .get(&uplink.name)
            .map_or_else(refused, |way| Offer::Loads(*way)))
    }
    async fn reserved(&self, instance: &str, device: &str) -> Result<Option<Ipv6Addr>, WorldError> {
        Ok(self.reservations.of(instance, device))
    }
    async fn reserve(&self, instance: &str, device: &str, address: Ipv6Addr) -> Result<Option<String>, WorldError> {
        Ok(self.reservations.reserve(instance, device, address))
    }
    async fn duplicate_of(&self, _: &str, address: Ipv6Addr) -> Result<Option<String>, WorldError> {
        Ok(self.duplicates.get(&address).cloned())
    }
    async fn answers(&self, _: &str, target: Ipv6Addr, _: Option<u16>) -> Result<bool, WorldError> {
        Ok(!self.silent.contains(&target))
    }
    async fn undone(&self, done: &[&Op]) -> Result<Vec<usize>, WorldError> {
        self.check("undone")?;
        let is_undone = |op: &Op| self.undone_by_others.iter().any(|text| op.to_string().contains(text));
        Ok(done
            .iter()
            .enumerate()
            .filter(|(_, op)| is_undone(op))
            .map(|(place, _)| place)
            .collect())
    }
    async fn program(&self, command: &str) -> Result<Option<String>, WorldError> {
        self.check("program")?;
        Ok(self.programs.get(command).cloned())
    }
}
