//! What the doctor reads and probes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use clatd_translator::Pref64;

use crate::conncheck::native_defaults;
use crate::discovery::{self, Checked};
use crate::facts::{Fact, Facts, FirewallFacts, NftChain, Source};
use crate::firewall::{self, nftables::suspects_of_own_sockets};
use crate::net::{Address6, Link, MAIN_TABLE, Route};
use crate::op::Op;
use crate::path::{self, Hop, NOBODY, Probe};
use crate::pipeline;
use crate::plan::StageName;
use crate::settings::{FirewallChoice, PlatCheck};
use crate::stage::Instance;
use crate::vrf;
use crate::world::{RouteAnswer, World, WorldError};

/// How many prefixes are probed at most. Anybody on the link can advertise any number.
const MOST_PREFIXES: usize = 4;
/// Sizes in bytes that are tried where a packet as large as the uplink's MTU is lost.
const SMALLER: [u16; 5] = [1492, 1480, 1420, 1400, 1280];

/// What the daemon says of a running instance.
#[derive(Debug, Clone, Default)]
pub struct RunningInstance {
    /// Its state, as `clatd status` says it.
    pub state: String,
    /// Why.
    pub reason: String,
    /// Its last error.
    pub last_error: Option<String>,
    /// What it observed.
    pub facts: Facts,
}

/// A PLAT prefix, and who answered its probes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plat {
    /// The prefix and where it is from.
    pub prefix: Fact<Pref64>,
    /// Whether there is a route to it.
    pub route: bool,
    /// Who answered.
    pub answers: Vec<Hop>,
}

/// What became of large packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Large {
    /// Length of the packets in bytes: the uplink's MTU, but 9000 at most.
    pub length: u16,
    /// The farthest host that answered small packets.
    pub from: IpAddr,
    /// Whether a large packet was answered; Packet Too Big is an answer.
    pub answered: bool,
    /// The largest size that was answered where the uplink's MTU was not.
    pub fits: Option<u16>,
}

/// All that was read and probed for one instance.
#[derive(Debug, Clone, Default)]
pub struct Examined {
    /// The daemon's status of the instance; `None` = no daemon has this instance.
    pub running: Option<RunningInstance>,
    /// All devices.
    pub links: Vec<Link>,
    /// The uplink that is examined.
    pub uplink: Option<Link>,
    /// Its IPv6 addresses.
    pub addresses: Vec<Address6>,
    /// Its IPv6 default routes.
    pub defaults6: Vec<Route>,
    /// Its router, and whether that answers.
    pub gateway: Option<(IpAddr, Option<bool>)>,
    /// The PLAT prefixes: configured, advertised, by DNS64. The one in use comes first.
    pub plats: Vec<Plat>,
    /// Why ways of discovery revealed nothing.
    pub failures: Vec<String>,
    /// The host that is named, and whether it answers through the PLAT; or why there is none.
    pub host: Option<Checked>,
    /// IPv4 default routes that belong to no CLAT, and whether their routers answer.
    pub native4: Vec<(Route, Option<bool>)>,
    /// How IPv4 leaves this host.
    pub route4: Option<RouteAnswer>,
    /// What clatd did and somebody undid.
    pub undone: Vec<(StageName, String)>,
    /// Packet filters in the CLAT's way, whether or not the plan has accept rules in them.
    pub firewall: Option<FirewallFacts>,
    /// Packet filters that may stop packets of this host's own.
    pub own_filters: Vec<NftChain>,
    /// What the plan does about packet filters.
    pub accepts: usize,
    /// Sysctls by key.
    pub sysctls: BTreeMap<String, String>,
    /// Who answered IPv4 through the CLAT; `None` = nothing was sent.
    pub through_clat: Option<Vec<Hop>>,
    /// What became of large packets.
    pub large: Option<Large>,
    /// Reads that failed.
    pub unreadable: Vec<String>,
}

impl Examined {
    /// Whether the CLAT is up.
    pub fn is_up(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.state == "running")
    }

    /// The PLAT in use, or the one that would be used.
    pub fn plat(&self) -> Option<&Plat> {
        self.plats.first()
    }

    /// Takes the value, or notes why it is missing.
    fn take<T: Default>(&mut self, read: Result<T, WorldError>) -> T {
        read.unwrap_or_else(|error| {
            let text = match std::error::Error::source(&error) {
                Some(cause) => format!("{error}: {cause}"),
                None => error.to_string(),
            };
            if !self.unreadable.contains(&text) {
                self.unreadable.push(text);
            }
            T::default()
        })
    }
}

/// Examines the whole path of an instance. A read that fails is noted, and the examination goes on.
pub async fn examine(instance: &Instance, running: Option<RunningInstance>, world: &dyn World) -> Examined {
    let mut seen = Examined {
        running,
        ..Examined::default()
    };
    seen.links = seen.take(world.links().await).to_vec();
    local_routes(instance, &mut seen, world).await;
    find_uplink(instance, &mut seen, world).await;
    done(instance, &mut seen, world).await;
    let Some(uplink) = seen.uplink.clone().filter(|uplink| uplink.up && uplink.carrier) else {
        return seen;
    };
    find_gateway(&uplink, &mut seen, world).await;
    if seen.gateway.is_some_and(|(_, answers)| answers == Some(false)) {
        return seen;
    }
    find_plats(instance, &uplink, &mut seen, world).await;
    large_packets(&uplink, &mut seen, world).await;
    if let Some(plat) = seen.plat().cloned() {
        let host = named_host(instance, &plat, &uplink, world).await;
        seen.host = seen.take(host);
    }
    if seen.is_up()
        && seen
            .links
            .iter()
            .any(|link| link.name == instance.settings.clat.clat_dev)
    {
        let probe = Probe::far(NOBODY.into());
        let answers = world.trace(&instance.settings.clat.clat_dev, &probe).await;
        seen.through_clat = Some(seen.take(answers));
    }
    seen
}

async fn local_routes(instance: &Instance, seen: &mut Examined, world: &dyn World) {
    let natives = native_defaults(MAIN_TABLE, world).await;
    for route in seen.take(natives) {
        let answers = match (&route.device, route.gateway) {
            (Some(device), Some(gateway)) => {
                let heard = world.hears(device, gateway).await;
                seen.take(heard)
            }
            _ => None,
        };
        seen.native4.push((route, answers));
    }
    let way = world.route4_to(NOBODY).await;
    seen.route4 = seen.take(way);
    let device = &instance.settings.clat.clat_dev;
    for key in [
        "net/ipv4/conf/all/rp_filter".to_owned(),
        format!("net/ipv4/conf/{device}/rp_filter"),
    ] {
        let value = world.sysctl(&key).await;
        if let Some(value) = seen.take(value) {
            seen.sysctls.insert(key, value);
        }
    }
}

/// The uplink: that of the running instance, the configured one, else the device of the best IPv6 default route.
async fn find_uplink(instance: &Instance, seen: &mut Examined, world: &dyn World) {
    let running = seen.running.as_ref().and_then(|running| running.facts.uplink.as_ref());
    let named = match (&instance.settings.plat.plat_dev, running) {
        (Some(device), _) => Some(device.clone()),
        (None, Some(uplink)) => Some(uplink.value.name.clone()),
        (None, None) => None,
    };
    let mut defaults = Vec::new();
    for table in vrf::tables(&seen.links) {
        let routes = world.routes6(table).await;
        defaults.extend(seen.take(routes).iter().filter(|route| route.is_default()).cloned());
    }
    defaults.sort_by_key(|route| route.metric);
    let name = named
        .or_else(|| defaults.iter().find_map(|route| route.device.clone()))
        .or_else(|| only_dead_link(&seen.links));
    defaults.retain(|route| route.device == name);
    seen.defaults6 = defaults;
    seen.uplink = seen
        .links
        .iter()
        .find(|link| Some(&link.name) == name.as_ref())
        .cloned();
    if let Some(name) = name {
        let addresses = world.addresses6(&name).await;
        seen.addresses = seen.take(addresses);
    }
}

/// The device that is off or has no carrier, if it is the only one: its default routes have gone.
fn only_dead_link(links: &[Link]) -> Option<String> {
    let mut dead = links
        .iter()
        .filter(|link| link.name != "lo" && !link.is_clat() && !(link.up && link.carrier));
    let first = dead.next()?;
    dead.next().is_none().then(|| first.name.clone())
}

/// What clatd did: whether it still stands, and which packet filters are in its way.
async fn done(instance: &Instance, seen: &mut Examined, world: &dyn World) {
    let up = seen.is_up();
    let facts = seen.running.as_ref().map(|running| running.facts.clone());
    let shared = facts.as_ref().is_some_and(|facts| facts.shared);
    if let Some(plan) = facts
        .filter(|_| up)
        .and_then(|facts| pipeline::plan(instance, facts).ok())
    {
        let steps: Vec<_> = (0..).zip(&plan.steps).collect();
        let ops: Vec<(u64, &Op)> = steps.iter().map(|(number, step)| (*number, &step.apply)).collect();
        let undone = world.undone(&ops).await;
        let undone = seen.take(undone);
        let undone = steps.iter().filter(|(number, _)| undone.contains(number));
        seen.undone = undone.map(|(_, step)| (step.stage, step.apply.to_string())).collect();
        seen.accepts = plan
            .steps
            .iter()
            .filter(|step| step.stage == StageName::Firewall)
            .count();
    }
    let mut settings = instance.settings.clone();
    // Packet filters are examined also where clatd is told not to touch them.
    settings.clat.firewall = FirewallChoice::Auto;
    let found = firewall::look(&settings, shared, world).await.map(Some);
    seen.firewall = seen.take(found);
    let ruleset = world.nft_ruleset(&settings.programs.cmd_nft).await;
    let ruleset = seen.take(ruleset);
    seen.own_filters = ruleset.as_ref().map(suspects_of_own_sockets).unwrap_or_default();
}

async fn find_gateway(uplink: &Link, seen: &mut Examined, world: &dyn World) {
    let running = seen
        .running
        .as_ref()
        .and_then(|running| running.facts.plat_gateway.as_ref());
    let in_use = running.map(|gateway| gateway.value);
    let Some(gateway) = in_use.or_else(|| seen.defaults6.iter().find_map(|route| route.gateway)) else {
        return;
    };
    let answers = world.hears(&uplink.name, gateway).await;
    seen.gateway = Some((gateway, seen.take(answers)));
}

/// The prefixes of all sources, and who answers behind them.
async fn find_plats(instance: &Instance, uplink: &Link, seen: &mut Examined, world: &dyn World) {
    let mut prefixes: Vec<Fact<Pref64>> = Vec::new();
    let running = seen.running.as_ref();
    prefixes.extend(running.and_then(|running| running.facts.plat_prefix.clone()));
    let configured = instance.settings.plat.plat_prefix;
    prefixes.extend(configured.map(|prefix| Fact::new(prefix.0, Source::Configuration)));
    let survey = discovery::survey(instance, &uplink.name, world).await;
    let (found, failures) = seen.take(survey);
    prefixes.extend(found);
    seen.failures = failures;
    for prefix in prefixes {
        if seen.plats.len() >= MOST_PREFIXES || seen.plats.iter().any(|plat| plat.prefix.value == prefix.value) {
            continue;
        }
        let target = prefix.value.embed(NOBODY);
        let route = world.route_to(target, Some(&uplink.name)).await;
        let route = seen.take(route).is_some();
        let probe = Probe::far(target.into());
        let answers = match route {
            true => {
                let answers = world.trace(&uplink.name, &probe).await;
                seen.take(answers)
            }
            false => Vec::new(),
        };
        seen.plats.push(Plat { prefix, route, answers });
    }
}

/// Sends packets as large as the uplink's MTU to the host that answered small ones.
async fn large_packets(uplink: &Link, seen: &mut Examined, world: &dyn World) {
    let Some(plat) = seen.plat() else { return };
    let Some(far) = path::farthest(&plat.answers) else {
        return;
    };
    let target = plat.prefix.value.embed(NOBODY).into();
    let length = u16::try_from(uplink.mtu).unwrap_or(u16::MAX).min(9000);
    let mut large = Large {
        length,
        from: far.from,
        answered: false,
        fits: None,
    };
    let sizes = std::iter::once(length).chain(SMALLER.into_iter().filter(|&smaller| smaller < length));
    for size in sizes {
        let probe = Probe {
            target,
            hops: far.hops..=far.hops,
            length: size,
        };
        let answers = world.trace(&uplink.name, &probe).await;
        if seen.take(answers).is_empty() {
            continue;
        }
        large.answered = size == length;
        large.fits = Some(size);
        break;
    }
    seen.large = Some(large);
}

/// Probes the host that the user or the network names, if there is one.
async fn named_host(
    instance: &Instance,
    plat: &Plat,
    uplink: &Link,
    world: &dyn World,
) -> Result<Option<Checked>, WorldError> {
    let mut asking = instance.clone();
    if matches!(asking.settings.plat.plat_check, PlatCheck::No | PlatCheck::Auto) {
        asking.settings.plat.plat_check = PlatCheck::Yes;
    }
    discovery::check(&asking, &plat.prefix, &uplink.name, world).await
}
