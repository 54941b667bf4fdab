//! A world that a test changes while an instance lives in it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use clatd_stages::facts::Fact;
use clatd_stages::fixed_world::FixedWorld;
use clatd_stages::net::{Address6, Link, Route};
use clatd_stages::op::Op;
use clatd_stages::settings::DnsServer;
use clatd_stages::world::{DnsAnswer, RouteAnswer, World, WorldError};
use clatd_translator::Pref64;

/// Answers from whatever the fixed world inside is at the moment.
#[derive(Clone)]
pub struct ChangingWorld(Arc<Mutex<FixedWorld>>);

impl ChangingWorld {
    /// Begins as `world`.
    pub fn new(world: FixedWorld) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    /// Changes it.
    pub fn change(&self, change: impl FnOnce(&mut FixedWorld)) {
        change(&mut self.0.lock().unwrap());
    }

    fn now(&self) -> FixedWorld {
        self.0.lock().unwrap().clone()
    }
}

#[async_trait]
impl World for ChangingWorld {
    async fn links(&self) -> Result<Vec<Link>, WorldError> {
        self.now().links().await
    }
    async fn addresses6(&self, device: &str) -> Result<Vec<Address6>, WorldError> {
        self.now().addresses6(device).await
    }
    async fn routes4(&self, table: u32) -> Result<Vec<Route>, WorldError> {
        self.now().routes4(table).await
    }
    async fn routes6(&self, table: u32) -> Result<Vec<Route>, WorldError> {
        self.now().routes6(table).await
    }
    async fn route_to(&self, destination: Ipv6Addr, device: Option<&str>) -> Result<Option<RouteAnswer>, WorldError> {
        self.now().route_to(destination, device).await
    }
    async fn sysctl(&self, key: &str) -> Result<Option<String>, WorldError> {
        self.now().sysctl(key).await
    }
    async fn nft_ruleset(&self, command: &str) -> Result<Option<serde_json::Value>, WorldError> {
        self.now().nft_ruleset(command).await
    }
    async fn ip6tables_filter(&self, command: &str) -> Result<Option<String>, WorldError> {
        self.now().ip6tables_filter(command).await
    }
    async fn aaaa(
        &self,
        name: &str,
        server: Option<&DnsServer>,
        device: Option<&str>,
    ) -> Result<DnsAnswer, WorldError> {
        self.now().aaaa(name, server, device).await
    }
    async fn a(
        &self,
        name: &str,
        server: Option<&DnsServer>,
        device: Option<&str>,
    ) -> Result<DnsAnswer<Ipv4Addr>, WorldError> {
        self.now().a(name, server, device).await
    }
    async fn ptr(
        &self,
        address: Ipv6Addr,
        server: Option<&DnsServer>,
        device: Option<&str>,
    ) -> Result<DnsAnswer<String>, WorldError> {
        self.now().ptr(address, server, device).await
    }
    async fn deaf_to_routers(&self, device: &str) -> Option<String> {
        self.now().deaf_to_routers(device).await
    }
    async fn advertised_prefixes(&self, device: &str) -> Result<Vec<Fact<Pref64>>, WorldError> {
        self.now().advertised_prefixes(device).await
    }
    async fn advertised_servers(&self, device: &str) -> Result<Vec<DnsServer>, WorldError> {
        self.now().advertised_servers(device).await
    }
    async fn link_servers(&self, device: &str) -> Result<Vec<DnsServer>, WorldError> {
        self.now().link_servers(device).await
    }
    async fn delegated_prefix(&self, device: &str) -> Result<Option<Fact<ipnet::Ipv6Net>>, WorldError> {
        self.now().delegated_prefix(device).await
    }
    async fn reserved(&self, instance: &str, device: &str) -> Result<Option<Ipv6Addr>, WorldError> {
        self.now().reserved(instance, device).await
    }
    async fn reserve(&self, instance: &str, device: &str, address: Ipv6Addr) -> Result<Option<String>, WorldError> {
        self.now().reserve(instance, device, address).await
    }
    async fn duplicate_of(&self, device: &str, address: Ipv6Addr) -> Result<Option<String>, WorldError> {
        self.now().duplicate_of(device, address).await
    }
    async fn answers(&self, device: &str, target: Ipv6Addr, port: Option<u16>) -> Result<bool, WorldError> {
        self.now().answers(device, target, port).await
    }
    async fn undone(&self, done: &[&Op]) -> Result<Vec<usize>, WorldError> {
        let undone = self.now().undone(done).await;
        self.change(|world| world.undone_by_others.clear());
        undone
    }
    async fn program(&self, command: &str) -> Result<Option<String>, WorldError> {
        self.now().program(command).await
    }
}
