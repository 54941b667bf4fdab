//! A world made of data: what tests observe, and on what they claim addresses.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use clatd_translator::Pref64;

use crate::claims::Claims;
use crate::facts::Fact;
use crate::fast_path::{Offer, Placement};
use crate::net::{Address6, Link, Route};
use crate::op::Op;
use crate::path::{Hop, Probe};
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
    /// IPv4 addresses by device.
    pub addresses4: BTreeMap<String, Vec<Ipv4Addr>>,
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
    /// Which instance has which address. Clones of the world share it.
    pub reservations: Reservations,
    /// Addresses that do not answer.
    pub silent: BTreeSet<Ipv6Addr>,
    /// Routers that fell silent.
    pub silent_routers: BTreeSet<IpAddr>,
    /// PLATs that fell silent, by the uplink.
    pub silent_plats: Vec<(String, Pref64)>,
    /// Whether neighbours answer address resolution.
    pub neighbours: BTreeMap<IpAddr, bool>,
    /// The answers to each probe.
    pub hops: Vec<Hop>,
    /// The answer to each look-up of an IPv4 route.
    pub route4_to: Option<RouteAnswer>,
    /// What distinguishes this host from others.
    pub secret: Vec<u8>,
    /// What other programs undid: texts that occur in the operations that did it.
    pub undone_by_others: BTreeSet<String>,
    /// What the fast path can do on each uplink. On other uplinks the programs do not load.
    pub fast_path: BTreeMap<String, Placement>,
    /// What other programs set up on each uplink and the fast path would bypass.
    pub bypassed: BTreeMap<String, String>,
    /// What cannot be read: names of methods.
    pub broken: BTreeSet<&'static str>,
}

/// What answers from a [`FixedWorld`], each time as it is at the moment.
pub trait Data: Send + Sync {
    /// The world now.
    fn now(&self) -> Cow<'_, FixedWorld>;

    /// It was asked which of these operations others have undone.
    fn asked(&self, done: &[&Op]);
}

impl Data for FixedWorld {
    fn now(&self) -> Cow<'_, FixedWorld> {
        Cow::Borrowed(self)
    }

    fn asked(&self, _done: &[&Op]) {}
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

    fn link(&self, name: &str) -> Option<Link> {
        self.links.iter().find(|link| link.name == name).cloned()
    }
}

/// Lets others run, as a read of the kernel does.
async fn take_turns() {
    let mut waited = false;
    future::poll_fn(|context| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn of<T: Clone>(map: &BTreeMap<String, Vec<T>>, device: &str) -> Vec<T> {
    map.get(device).cloned().unwrap_or_default()
}

fn no_records<T>() -> DnsAnswer<T> {
    DnsAnswer::NoRecords {
        nxdomain: true,
        ttl_s: None,
    }
}

#[async_trait]
impl<D: Data> World for D {
    async fn links(&self) -> Result<Arc<[Link]>, WorldError> {
        take_turns().await;
        let now = self.now();
        now.check("links")?;
        Ok(now.links.clone().into())
    }
    async fn link(&self, name: &str) -> Result<Option<Link>, WorldError> {
        take_turns().await;
        let now = self.now();
        now.check("links")?;
        Ok(now.link(name))
    }
    async fn addresses4(&self, device: &str) -> Result<Vec<Ipv4Addr>, WorldError> {
        Ok(of(&self.now().addresses4, device))
    }
    async fn addresses6(&self, device: &str) -> Result<Vec<Address6>, WorldError> {
        let now = self.now();
        now.check("addresses6")?;
        Ok(of(&now.addresses6, device))
    }
    async fn routes4(&self, table: u32) -> Result<Vec<Route>, WorldError> {
        let now = self.now();
        now.check("routes4")?;
        Ok(now.routes4.get(&table).cloned().unwrap_or_default())
    }
    async fn routes6(&self, table: u32) -> Result<Arc<[Route]>, WorldError> {
        let now = self.now();
        now.check("routes6")?;
        Ok(now.routes6.get(&table).cloned().unwrap_or_default().into())
    }
    async fn route_to(&self, _: Ipv6Addr, device: Option<&str>) -> Result<Option<RouteAnswer>, WorldError> {
        take_turns().await;
        let now = self.now();
        now.check("route_to")?;
        Ok(now.route_to.get(device.unwrap_or_default()).cloned())
    }
    async fn route_from(&self, _: Ipv6Addr, to: Ipv6Addr, device: &str) -> Result<Option<RouteAnswer>, WorldError> {
        self.route_to(to, Some(device)).await
    }
    async fn is_silent(&self, _: &str, gateway: IpAddr) -> Result<bool, WorldError> {
        Ok(self.now().silent_routers.contains(&gateway))
    }
    async fn is_plat_silent(&self, device: &str, _: Option<IpAddr>, prefix: Pref64) -> Result<bool, WorldError> {
        let now = self.now();
        Ok(now
            .silent_plats
            .iter()
            .any(|(on, plat)| on == device && *plat == prefix))
    }
    async fn sysctl(&self, key: &str) -> Result<Option<String>, WorldError> {
        take_turns().await;
        let now = self.now();
        now.check("sysctl")?;
        Ok(now.sysctls.get(key).cloned())
    }
    async fn sysctl_lately(&self, key: &str) -> Result<Option<String>, WorldError> {
        self.sysctl(key).await
    }
    async fn nft_ruleset(&self, _: &str) -> Result<Option<serde_json::Value>, WorldError> {
        let now = self.now();
        now.check("nft_ruleset")?;
        Ok(now.nft.clone())
    }
    async fn ip6tables_filter(&self, _: &str) -> Result<Option<String>, WorldError> {
        let now = self.now();
        now.check("ip6tables_filter")?;
        Ok(now.ip6tables.clone())
    }
    async fn aaaa(&self, _: &str, server: Option<&DnsServer>, _: Option<&str>) -> Result<DnsAnswer, WorldError> {
        let now = self.now();
        now.check("aaaa")?;
        let answer = now.dns.get(&server.map(ToString::to_string).unwrap_or_default());
        Ok(answer.cloned().unwrap_or_else(|| DnsAnswer::Failed("timed out".into())))
    }
    async fn a(&self, name: &str, _: Option<&DnsServer>, _: Option<&str>) -> Result<DnsAnswer<Ipv4Addr>, WorldError> {
        Ok(self.now().ipv4_of.get(name).cloned().unwrap_or_else(no_records))
    }
    async fn ptr(
        &self,
        address: Ipv6Addr,
        _: Option<&DnsServer>,
        _: Option<&str>,
    ) -> Result<DnsAnswer<String>, WorldError> {
        Ok(self.now().names.get(&address).cloned().unwrap_or_else(no_records))
    }
    async fn advertised_prefixes(&self, device: &str) -> Result<Vec<Fact<Pref64>>, WorldError> {
        Ok(of(&self.now().advertised, device))
    }
    async fn deaf_to_routers(&self, _: &str) -> Option<String> {
        self.now().deaf.clone()
    }
    async fn advertised_servers(&self, device: &str) -> Result<Vec<DnsServer>, WorldError> {
        Ok(of(&self.now().advertised_servers, device))
    }
    async fn link_servers(&self, device: &str) -> Result<Vec<DnsServer>, WorldError> {
        Ok(of(&self.now().link_servers, device))
    }
    async fn answers(&self, _: &str, target: Ipv6Addr, _: Option<u16>) -> Result<bool, WorldError> {
        Ok(!self.now().silent.contains(&target))
    }
    async fn hears(&self, _: &str, neighbour: IpAddr) -> Result<Option<bool>, WorldError> {
        Ok(self.now().neighbours.get(&neighbour).copied())
    }
    async fn trace(&self, _: &str, _: &Probe) -> Result<Vec<Hop>, WorldError> {
        Ok(self.now().hops.clone())
    }
    async fn route4_to(&self, _: Ipv4Addr) -> Result<Option<RouteAnswer>, WorldError> {
        Ok(self.now().route4_to.clone())
    }
    async fn secret(&self) -> Result<Vec<u8>, WorldError> {
        Ok(self.now().secret.clone())
    }
    async fn fast_path(&self, uplink: &Link) -> Result<Offer, WorldError> {
        let refused = || Offer::Refused("loading the program clatd_out: Operation not permitted (os error 1)".into());
        let now = self.now();
        let placement = now.fast_path.get(&uplink.name);
        Ok(placement.map_or_else(refused, |placement| Offer::Loads(*placement)))
    }
    async fn bypassed(&self, uplink: &Link, _: Ipv6Addr, _: Pref64) -> Result<Option<String>, WorldError> {
        let now = self.now();
        now.check("bypassed")?;
        Ok(now.bypassed.get(&uplink.name).cloned())
    }
    async fn undone(&self, done: &[(u64, &Op)]) -> Result<Vec<u64>, WorldError> {
        let now = self.now();
        now.check("undone")?;
        let is_undone = |op: &Op| now.undone_by_others.iter().any(|text| op.to_string().contains(text));
        let undone = done.iter().filter(|(_, op)| is_undone(op));
        let numbers = undone.map(|(number, _)| *number).collect();
        self.asked(&done.iter().map(|(_, op)| *op).collect::<Vec<_>>());
        Ok(numbers)
    }
    async fn program(&self, command: &str) -> Result<Option<String>, WorldError> {
        let now = self.now();
        now.check("program")?;
        Ok(now.programs.get(command).cloned())
    }
}

/// The claims of one instance in a world of data.
pub struct FixedClaims<D: Data> {
    world: D,
    instance: String,
}

impl<D: Data> FixedClaims<D> {
    /// Those of an instance of this name.
    pub fn new(world: D, instance: &str) -> Self {
        Self {
            world,
            instance: instance.to_owned(),
        }
    }
}

impl<D: Data> Drop for FixedClaims<D> {
    fn drop(&mut self) {
        self.world.now().reservations.release(&self.instance);
    }
}

#[async_trait]
impl<D: Data> Claims for FixedClaims<D> {
    async fn reserved(&self, device: &str) -> Result<Option<Ipv6Addr>, WorldError> {
        Ok(self.world.now().reservations.of(&self.instance, device))
    }
    async fn reserve(&self, device: &str, address: Ipv6Addr) -> Result<Option<String>, WorldError> {
        Ok(self.world.now().reservations.reserve(&self.instance, device, address))
    }
    async fn duplicate_of(&self, _: &str, address: Ipv6Addr) -> Result<Option<String>, WorldError> {
        Ok(self.world.now().duplicates.get(&address).cloned())
    }
    async fn give_back(&self, _: &str, _: Ipv6Addr) {}
    async fn announce(&self, _: &str, _: Ipv6Addr) {}
    async fn delegated_prefix(&self, device: &str) -> Result<Option<Fact<ipnet::Ipv6Net>>, WorldError> {
        Ok(self.world.now().delegated.get(device).cloned())
    }
}
