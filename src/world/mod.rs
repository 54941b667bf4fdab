//! All reads from the running system.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clatd_stages::facts::{Fact, Source};
use clatd_stages::fast_path::Offer;
use clatd_stages::net::{Address6, Link, Route};
use clatd_stages::op::Op;
use clatd_stages::path::{Hop, Probe};
use clatd_stages::settings::DnsServer;
use clatd_stages::world::{DnsAnswer, RouteAnswer, World, WorldError};

use clatd_translator::Pref64;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio_util::task::AbortOnDropHandle;

use crate::kernel::{Holds, Look, Netlink, command, sysctl};
#[cfg(feature = "ebpf")]
use crate::netlink::new_policies;
use crate::probe;
use crate::ra::{RaSnapshot, RaWatch};
use crate::status::SilentPlats;

#[cfg(feature = "dbus")]
mod bus;
mod cache;
mod dns;
mod filters;
mod questions;
mod reach;
mod routers;
mod routes;
pub(crate) mod users;

pub use routers::SilentRouters;

/// How long the first observation of a link waits for a router: routers answer a solicitation within half a second
/// (RFC 4861 section 6.2.6).
const FIRST_ADVERTISEMENT: Duration = Duration::from_millis(1200);
/// Distinguishes this host from others. systemd and D-Bus create it.
const MACHINE_ID: &str = "/etc/machine-id";

/// Called when something that was read has changed, and the kernel does not report it.
pub(crate) type OnChange = Arc<dyn Fn() + Send + Sync>;
/// The same, with the device where it is known.
pub(crate) type OnChangeOf = Arc<dyn Fn(Option<&str>) + Send + Sync>;

/// The running system, as seen from one network namespace.
#[derive(Clone)]
pub struct SystemWorld {
    netlink: Netlink,
    holds: Holds,
    questions: questions::Questions,
    advertisements: RaWatch,
    filters: filters::PacketFilters,
    #[cfg(feature = "dbus")]
    managers: bus::Managers,
    #[cfg(feature = "ebpf")]
    _policies: Option<Arc<AbortOnDropHandle<()>>>,
    silent: SilentRouters,
    silent_plats: SilentPlats,
    _asking: Option<Arc<AbortOnDropHandle<()>>>,
    notify: OnChangeOf,
    users: users::Users,
    /// The instance that reads; `None` = no particular one.
    user: Option<String>,
}

impl SystemWorld {
    /// The system that this connection sees. `holds` is the table that all instances share; a held sysctl is read as
    /// it was before the hold. Needs a runtime. `notify` is called when routers, the managers of links, neighbours that
    /// take our addresses, or IPsec policies change something; with the device, if it is known.
    pub fn new(netlink: Netlink, holds: Holds, notify: impl Fn(Option<&str>) + Send + Sync + 'static) -> Self {
        let notify = Arc::new(notify);
        let told = Arc::clone(&notify);
        let advertisements = RaWatch::new(netlink.clone(), move |device| told(Some(device)));
        let told = Arc::clone(&notify);
        let filters = filters::PacketFilters::new(move || told(None));
        #[cfg(feature = "dbus")]
        let managers = {
            let told = Arc::clone(&notify);
            bus::Managers::new(Arc::new(move || told(None)))
        };
        #[cfg(feature = "ebpf")]
        let policies = {
            let told = Arc::clone(&notify);
            // Where they are not told of, the regular look finds them.
            let listening = new_policies(move || told(None)).ok();
            listening.map(|listening| Arc::new(AbortOnDropHandle::new(tokio::spawn(listening))))
        };
        Self {
            netlink,
            holds,
            questions: questions::Questions::default(),
            advertisements,
            filters,
            #[cfg(feature = "dbus")]
            managers,
            #[cfg(feature = "ebpf")]
            _policies: policies,
            silent: SilentRouters::default(),
            silent_plats: SilentPlats::default(),
            _asking: None,
            notify,
            users: users::Users::default(),
            user: None,
        }
    }

    /// The same for a command, which is no daemon: nothing is held, and nobody is told of changes.
    pub fn for_command(netlink: Netlink) -> Self {
        Self::new(netlink, Holds::default(), |_| {})
    }

    /// Avoids these routers, and asks them now and then whether they are back. Needs a runtime.
    pub fn avoiding(mut self, silent: SilentRouters) -> Self {
        let asking = tokio::spawn(routers::ask_again(self.netlink.clone(), silent.clone()));
        self.silent = silent;
        self._asking = Some(Arc::new(AbortOnDropHandle::new(asking)));
        self
    }

    /// Avoids these PLATs.
    pub fn avoiding_plats(mut self, silent: SilentPlats) -> Self {
        self.silent_plats = silent;
        self
    }

    /// The same system as one instance reads it. Listening on an uplink ends when no instance reads there any more.
    pub fn for_instance(&self, instance: &str) -> Self {
        Self {
            user: Some(instance.to_owned()),
            ..self.clone()
        }
    }

    /// An instance has ended. Listening for it alone ends.
    pub fn instance_ended(&self, instance: &str) {
        self.leave(self.users.ended(instance));
    }

    /// The uplinks on which routers are listened to.
    pub fn listening(&self) -> Vec<String> {
        self.advertisements.watched()
    }

    fn reads_on(&self, uplink: &str) {
        if let Some(user) = &self.user {
            self.leave(self.users.uses(user, uplink));
        }
    }

    /// Ends the listening on an uplink, unless an instance reads there again soon.
    fn leave(&self, uplink: Option<String>) {
        let advertisements = self.advertisements.clone();
        self.users
            .when_left(uplink, async move |uplink: String| advertisements.unwatch(&uplink));
    }

    /// Tells of a change on this device.
    fn notify_of(&self, device: Option<&str>) -> OnChange {
        let (notify, device) = (Arc::clone(&self.notify), device.map(str::to_owned));
        Arc::new(move || notify(device.as_deref()))
    }

    /// The advertised values of a device. Waits shortly for the first router.
    async fn advertised(&self, device: &str) -> RaSnapshot {
        let watch = &self.advertisements;
        self.reads_on(device);
        watch.watch(device);
        let snapshot = watch.wait_first(device, FIRST_ADVERTISEMENT).await;
        if let Some(problem) = &snapshot.problem {
            tracing::debug!(
                "cannot receive router advertisements on {device}: {}",
                crate::report::chain(&**problem)
            );
        }
        snapshot
    }

    /// The answer of a name server, or its earlier one if that is not old.
    async fn look_up(
        &self,
        name: io::Result<Name>,
        kind: RecordType,
        server: Option<&DnsServer>,
        device: Option<&str>,
    ) -> Result<DnsAnswer<RData>, WorldError> {
        let name = name.map_err(|error| WorldError::new(format!("asking for {kind} records"), error))?;
        let question = cache::Question {
            name: name.to_ascii(),
            kind,
            server: server.map(ToString::to_string).unwrap_or_default(),
            device: device.unwrap_or_default().to_owned(),
            gateways: self.gateways(device).await?,
        };
        let silent = self.all_silent(&question.gateways).await?;
        let notify = self.notify_of(device);
        let (asked, server, device) = (name.clone(), server.cloned(), device.map(str::to_owned));
        let ask = async move { dns::look_up(&asked, kind, server.as_ref(), device.as_deref()).await };
        let answer = self.questions.answer(question, silent, ask, &notify).await;
        answer.map_err(|error| WorldError::new(format!("asking for the {kind} records of {name}"), error))
    }

    async fn all_silent(&self, gateways: &[(String, Option<IpAddr>)]) -> Result<bool, WorldError> {
        for (device, gateway) in gateways {
            let (Some(IpAddr::V6(gateway)), Some(index)) = (gateway, self.index(device).await?) else {
                return Ok(false);
            };
            if !self.silent.contains(index, *gateway) {
                return Ok(false);
            }
        }
        Ok(!gateways.is_empty())
    }

    async fn index(&self, device: &str) -> Result<Option<u32>, WorldError> {
        Ok(self.link(device).await?.map(|link| link.index))
    }
}

#[async_trait]
impl World for SystemWorld {
    async fn links(&self) -> Result<Arc<[Link]>, WorldError> {
        self.netlink
            .links()
            .await
            .map_err(|error| WorldError::new("reading the network devices", error))
    }

    async fn link(&self, name: &str) -> Result<Option<Link>, WorldError> {
        let link = self.netlink.link(name).await;
        link.map_err(|error| WorldError::new(format!("reading the network device {name}"), error))
    }

    async fn addresses4(&self, device: &str) -> Result<Vec<Ipv4Addr>, WorldError> {
        let Some(index) = self.index(device).await? else {
            return Ok(Vec::new());
        };
        let addresses = self.netlink.addresses4(index).await;
        addresses.map_err(|error| WorldError::new(format!("reading the IPv4 addresses of {device}"), error))
    }

    async fn addresses6(&self, device: &str) -> Result<Vec<Address6>, WorldError> {
        let Some(index) = self.index(device).await? else {
            return Ok(Vec::new());
        };
        let addresses = self.netlink.addresses6(index).await;
        addresses.map_err(|error| WorldError::new(format!("reading the IPv6 addresses of {device}"), error))
    }

    async fn routes4(&self, table: u32) -> Result<Vec<Route>, WorldError> {
        let routes = self.netlink.defaults(false, table).await;
        routes.map_err(|error| WorldError::new(format!("reading the IPv4 default routes of table {table}"), error))
    }

    async fn routes6(&self, table: u32) -> Result<Arc<[Route]>, WorldError> {
        let routes = self.netlink.defaults6(table).await;
        routes.map_err(|error| WorldError::new(format!("reading the IPv6 default routes of table {table}"), error))
    }

    async fn route_to(&self, destination: Ipv6Addr, device: Option<&str>) -> Result<Option<RouteAnswer>, WorldError> {
        self.route(destination, device, None).await
    }

    async fn route_from(
        &self,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        device: &str,
    ) -> Result<Option<RouteAnswer>, WorldError> {
        self.route(destination, Some(device), Some(source)).await
    }

    async fn is_silent(&self, device: &str, gateway: IpAddr) -> Result<bool, WorldError> {
        let (IpAddr::V6(gateway), Some(index)) = (gateway, self.index(device).await?) else {
            return Ok(false);
        };
        Ok(self.silent.is_the_last(index, gateway))
    }

    async fn is_plat_silent(&self, device: &str, gateway: Option<IpAddr>, prefix: Pref64) -> Result<bool, WorldError> {
        Ok(self.silent_plats.contains(device, gateway, prefix))
    }

    async fn sysctl(&self, key: &str) -> Result<Option<String>, WorldError> {
        if let Some(before) = self.holds.before(key) {
            return Ok(Some(before));
        }
        sysctl::read(key).map_err(|error| WorldError::new(format!("reading sysctl {key}"), error))
    }

    async fn sysctl_lately(&self, key: &str) -> Result<Option<String>, WorldError> {
        let value = self.holds.lately(key);
        value.map_err(|error| WorldError::new(format!("reading sysctl {key}"), error))
    }

    async fn nft_ruleset(&self, command: &str) -> Result<Option<serde_json::Value>, WorldError> {
        if command::find(command).is_none() {
            return Ok(None);
        }
        self.filters.ruleset(command).await.map(Some)
    }

    async fn ip6tables_filter(&self, command: &str) -> Result<Option<String>, WorldError> {
        self.filters.ip6tables(command).await
    }

    async fn aaaa(
        &self,
        name: &str,
        server: Option<&DnsServer>,
        device: Option<&str>,
    ) -> Result<DnsAnswer, WorldError> {
        let answer = self
            .look_up(dns::absolute(name), RecordType::AAAA, server, device)
            .await?;
        Ok(answer.filter_map(|data| match data {
            RData::AAAA(address) => Some(address.0),
            _ => None,
        }))
    }

    async fn a(
        &self,
        name: &str,
        server: Option<&DnsServer>,
        device: Option<&str>,
    ) -> Result<DnsAnswer<Ipv4Addr>, WorldError> {
        let answer = self.look_up(dns::absolute(name), RecordType::A, server, device).await?;
        Ok(answer.filter_map(|data| match data {
            RData::A(address) => Some(address.0),
            _ => None,
        }))
    }

    async fn ptr(
        &self,
        address: Ipv6Addr,
        server: Option<&DnsServer>,
        device: Option<&str>,
    ) -> Result<DnsAnswer<String>, WorldError> {
        let answer = self
            .look_up(Ok(address.into()), RecordType::PTR, server, device)
            .await?;
        Ok(answer.filter_map(|data| match data {
            RData::PTR(name) => Some(name.0.to_ascii()),
            _ => None,
        }))
    }

    async fn advertised_prefixes(&self, device: &str) -> Result<Vec<Fact<Pref64>>, WorldError> {
        let snapshot = self.advertised(device).await;
        let mut facts: Vec<Fact<Pref64>> = Vec::new();
        for learned in snapshot.pref64s {
            // Several routers may offer the same prefix; the most preferred one stands for all.
            if !facts.iter().any(|fact| fact.value == learned.value) {
                let source = Source::RouterAdvertisement(learned.router);
                facts.push(Fact {
                    value: learned.value,
                    source,
                    lifetime_s: learned.lifetime_s,
                });
            }
        }
        Ok(facts)
    }

    async fn deaf_to_routers(&self, device: &str) -> Option<String> {
        let problem = self.advertisements.state(device).problem?;
        Some(crate::report::chain(&*problem))
    }

    async fn advertised_servers(&self, device: &str) -> Result<Vec<DnsServer>, WorldError> {
        let snapshot = self.advertised(device).await;
        let servers = snapshot.rdnss.into_iter().map(|learned| DnsServer {
            address: learned.value.into(),
            device: learned.value.is_unicast_link_local().then(|| device.to_owned()),
        });
        Ok(servers.collect())
    }

    #[cfg(feature = "dbus")]
    async fn link_servers(&self, device: &str) -> Result<Vec<DnsServer>, WorldError> {
        let Some(index) = self.index(device).await? else {
            return Ok(Vec::new());
        };
        Ok(self.managers.servers(device, index).await)
    }

    /// Without D-Bus nobody is asked.
    #[cfg(not(feature = "dbus"))]
    async fn link_servers(&self, _device: &str) -> Result<Vec<DnsServer>, WorldError> {
        Ok(Vec::new())
    }

    async fn answers(&self, device: &str, target: Ipv6Addr, port: Option<u16>) -> Result<bool, WorldError> {
        let how = port.map_or(probe::How::Echo, probe::How::Tcp);
        let answers = probe::answers(device, None, target, how, 3).await;
        answers.map_err(|error| WorldError::new(format!("checking whether {target} answers through {device}"), error))
    }

    async fn hears(&self, device: &str, neighbour: IpAddr) -> Result<Option<bool>, WorldError> {
        reach::hears(self, device, neighbour).await
    }

    async fn trace(&self, device: &str, probe: &Probe) -> Result<Vec<Hop>, WorldError> {
        reach::trace(device, probe).await
    }

    async fn route4_to(&self, destination: Ipv4Addr) -> Result<Option<RouteAnswer>, WorldError> {
        let route = self.netlink.route_to(destination.into(), None, None).await;
        route.map_err(|error| WorldError::new(format!("looking up the route to {destination}"), error))
    }

    async fn secret(&self) -> Result<Vec<u8>, WorldError> {
        // Without such a file, identifiers depend on network, device and instance alone.
        Ok(crate::trusted::read_foreign_bytes(Path::new(MACHINE_ID)).unwrap_or_default())
    }

    async fn fast_path(&self, uplink: &Link) -> Result<Offer, WorldError> {
        let kind = self.netlink.link_layer(uplink.index).await;
        let kind = kind.map_err(|error| WorldError::new(format!("reading the kind of {}", uplink.name), error))?;
        Ok(self.holds.fast_path.offer(uplink, kind))
    }

    #[cfg(feature = "ebpf")]
    async fn bypassed(
        &self,
        uplink: &Link,
        clat_v6_addr: Ipv6Addr,
        plat_prefix: Pref64,
    ) -> Result<Option<String>, WorldError> {
        let failed = |error: crate::util::AnyError| {
            WorldError::new(
                format!("looking for what a fast path on {} would bypass", uplink.name),
                error,
            )
        };
        let chains = self
            .filters
            .device_chains()
            .await
            .map_err(|error| failed(error.into()))?;
        let (fast_path, between) = (&self.holds.fast_path, (clat_v6_addr, plat_prefix));
        let found = fast_path
            .bypassed(&self.netlink, chains.as_deref(), uplink, between)
            .await;
        found.map_err(|error| failed(error.into()))
    }

    /// There is no fast path.
    #[cfg(not(feature = "ebpf"))]
    async fn bypassed(&self, _: &Link, _: Ipv6Addr, _: Pref64) -> Result<Option<String>, WorldError> {
        Ok(None)
    }

    async fn undone(&self, done: &[(u64, &Op)]) -> Result<Vec<u64>, WorldError> {
        Look::new(&self.netlink, &self.holds, self.user.as_deref(), self)
            .undone(done)
            .await
    }

    async fn program(&self, command: &str) -> Result<Option<String>, WorldError> {
        Ok(command::find(command).map(|path| path.to_string_lossy().into_owned()))
    }
}
