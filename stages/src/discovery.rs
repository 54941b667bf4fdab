//! Stage discovery: the PLAT prefix (configured, advertised, RFC 7050, or the fallback) and the uplink that leads to it.

mod check;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, Ipv6Addr};

use async_trait::async_trait;
use clatd_translator::Pref64;

use crate::claims::Claims;
use crate::conncheck::judge_uplink;
use crate::facts::{Fact, Facts, Source};
use crate::plan::{StageName, Step};
use crate::settings::{DiscoveryWay, DnsServer};
use crate::stage::{Delay, Instance, ObserveError, PlanError, Readiness, Stage, world_error};
use crate::uplink::{self, Uplink};
use crate::validity::problem_of_prefix;
use crate::world::{DnsAnswer, World, WorldError};

pub use check::{Checked, check, plat_translates};

/// The well-known IPv4-only name (RFC 7050 section 2.2).
pub const WELL_KNOWN_NAME: &str = "ipv4only.arpa.";
/// Its two IPv4 addresses (RFC 7050 section 2.2).
pub const WELL_KNOWN_ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)];

/// What the user can do where discovery finds no prefix.
pub const NEXT_STEP: &str =
    "if you know one, say plat-prefix=PREFIX, or dns64-servers=ADDRESS for the DNS64 of a public NAT64";

/// The stage.
pub struct DiscoveryStage;

#[async_trait]
impl Stage for DiscoveryStage {
    fn name(&self) -> StageName {
        StageName::Discovery
    }

    fn delay(&self, _instance: &Instance) -> Option<Delay> {
        None
    }

    async fn observe(
        &self,
        instance: &Instance,
        world: &dyn World,
        _claims: &dyn Claims,
        facts: &mut Facts,
    ) -> Result<Readiness, ObserveError> {
        let on = match On::of(instance, world, facts).await.map_err(world_error(self.name()))? {
            Ok(on) => on,
            Err(idle) => return Ok(idle),
        };
        if let Some(reason) = on.lacks_ipv6(world).await.map_err(world_error(self.name()))? {
            return Ok(Readiness::idle(reason));
        }
        let mut found = find_prefixes(instance, &on, world)
            .await
            .map_err(world_error(self.name()))?;
        if found.prefixes.is_empty() {
            return Ok(Readiness::idle(format!(
                "no PLAT prefix: {}; {NEXT_STEP}",
                found.failures.join("; ")
            )));
        }
        facts.notes.extend(found.refused);
        // A prefix that is offered beside the held one is no better, and a change would break connections.
        found.prefixes.sort_by_key(|fact| Some(fact.value) != facts.held_prefix);
        let mut unreachable = Vec::new();
        let learned_on = found.learned_on;
        let mut candidates = found.prefixes.into_iter();
        for candidate in candidates.by_ref() {
            let prefix = candidate.value;
            facts.plat_prefix = Some(candidate.clone());
            let uplink = on.uplink_for(prefix, learned_on.as_deref(), world, facts).await;
            let device = match uplink.map_err(world_error(self.name()))? {
                Uplink::Found(device) => device,
                Uplink::None(reason) => {
                    unreachable.push(reason);
                    continue;
                }
            };
            let checked = check(instance, &candidate, &device, world).await;
            match checked.map_err(world_error(self.name()))? {
                Some(Checked::Silent(server)) => {
                    unreachable.push(format!(
                        "the PLAT of {prefix} does not answer through {device} (plat-check: {server})"
                    ));
                    continue;
                }
                Some(Checked::Unverified(why)) => {
                    facts.notes.push(format!("{why}, so it is used unchecked (plat-check)"))
                }
                Some(Checked::Answers(_)) | None => {}
            }
            facts.other_plat_prefixes = candidates.collect();
            return judge_uplink(instance, &device, world, facts)
                .await
                .map_err(world_error(self.name()));
        }
        Ok(Readiness::idle(unreachable.join("; ")))
    }

    fn keep(&self, _old: &Facts, _new: &mut Facts) {}

    fn plan(&self, _instance: &Instance, _facts: &Facts) -> Result<Vec<Step>, PlanError> {
        Ok(Vec::new())
    }
}

/// Where the prefix is looked for.
struct On {
    /// The device that `plat-dev` names.
    named: Option<String>,
    /// The uplink of the CLAT that runs, if nothing else is named.
    running: Option<String>,
    /// The best guess, if there is neither.
    first: Option<String>,
}

impl On {
    async fn of(instance: &Instance, world: &dyn World, facts: &Facts) -> Result<Result<Self, Readiness>, WorldError> {
        let mut on = Self {
            named: None,
            running: None,
            first: None,
        };
        if let Some(device) = &instance.settings.plat.plat_dev {
            let Some(link) = uplink::named(&instance.settings, world, facts).await? else {
                return Ok(Err(Readiness::idle(format!(
                    "the uplink {device} (plat-dev) does not exist"
                ))));
            };
            on.named = Some(link.name);
            return Ok(Ok(on));
        }
        let running = uplink::running(world, facts).await?;
        on.running = running.filter(|link| link.up && link.carrier).map(|link| link.name);
        if on.running.is_none() {
            on.first = uplink::by_default_route(world).await?.into_iter().next();
        }
        Ok(Ok(on))
    }

    /// The device whose routers and servers are asked.
    fn device(&self) -> Option<&str> {
        [&self.named, &self.running, &self.first]
            .into_iter()
            .find_map(|device| device.as_deref())
    }

    /// Why nothing can be found: IPv6 is switched off on the device, or on all where there is none to ask.
    async fn lacks_ipv6(&self, world: &dyn World) -> Result<Option<String>, WorldError> {
        let device = self.device().unwrap_or("all");
        let key = format!("net/ipv6/conf/{device}/disable_ipv6");
        let is_off = world.sysctl(&key).await?.is_some_and(|value| value != "0");
        let set = key.replace('/', ".");
        Ok(is_off.then(|| {
            let on = self
                .device()
                .map_or_else(|| "on this host".to_owned(), |device| format!("on {device}"));
            format!("IPv6 is switched off {on}: {set}=1; a CLAT needs it on its uplink, set that to 0")
        }))
    }

    /// The uplink for this prefix. Without `plat-dev` the uplink of the running CLAT comes first, then the device on
    /// which the prefix was learned, then the device of the route to the prefix.
    async fn uplink_for(
        &self,
        prefix: Pref64,
        learned_on: Option<&str>,
        world: &dyn World,
        facts: &mut Facts,
    ) -> Result<Uplink, WorldError> {
        if let Some(device) = &self.named {
            return uplink::find(Some(device), Source::Configuration, prefix, world, facts).await;
        }
        for (device, why) in [
            (self.running.as_deref(), "it is the uplink already"),
            (learned_on, "the PLAT prefix was learned on it"),
        ] {
            if let Some(device) = device
                && let found @ Uplink::Found(_) =
                    uplink::find(Some(device), Source::Derived(why), prefix, world, facts).await?
            {
                return Ok(found);
            }
        }
        let source = Source::Kernel("route to the PLAT prefix");
        uplink::find(None, source, prefix, world, facts).await
    }
}

#[derive(Default)]
struct Found {
    prefixes: Vec<Fact<Pref64>>,
    failures: Vec<String>,
    /// Prefixes that no PLAT can have, and who said so.
    refused: Vec<String>,
    /// The device that told, if it is known.
    learned_on: Option<String>,
}

/// How many refused prefixes are named. A hostile link can invent any number of them.
const REFUSED_NAMED: usize = 3;

impl Found {
    /// Removes the prefixes that no PLAT can have, whatever their source.
    fn refuse(&mut self) {
        let mut refused: Vec<String> = Vec::new();
        self.prefixes.retain(|fact| match problem_of_prefix(fact.value) {
            None => true,
            Some(problem) => {
                refused.push(format!(
                    "the PLAT prefix {} ({}) is refused: {problem}",
                    fact.value, fact.source
                ));
                false
            }
        });
        let more = refused.len().saturating_sub(REFUSED_NAMED);
        refused.truncate(REFUSED_NAMED);
        if more > 0 {
            refused.push(format!("{more} more PLAT prefixes are refused"));
        }
        self.failures.extend(refused.iter().cloned());
        self.refused.extend(refused);
    }
}

/// Configuration first, then the ways of `discovery` in their order (RFC 8781 section 5.1 puts advertisements first),
/// then the fallback.
async fn find_prefixes(instance: &Instance, on: &On, world: &dyn World) -> Result<Found, WorldError> {
    let settings = &instance.settings;
    if let Some(prefix) = settings.plat.plat_prefix {
        return Ok(Found {
            prefixes: vec![Fact::new(prefix.0, Source::Configuration)],
            ..Found::default()
        });
    }
    let mut found = Found::default();
    for way in &settings.plat.discovery {
        look(*way, instance, on, world, &mut found).await?;
        if !found.prefixes.is_empty() {
            return Ok(found);
        }
    }
    if let Some(prefix) = settings.plat.plat_fallback_prefix {
        found.prefixes.push(Fact::new(
            prefix.0,
            Source::Derived("plat-fallback-prefix, since none was discovered"),
        ));
    }
    Ok(found)
}

/// Looks for prefixes in one way.
async fn look(
    way: DiscoveryWay,
    instance: &Instance,
    on: &On,
    world: &dyn World,
    found: &mut Found,
) -> Result<(), WorldError> {
    match way {
        DiscoveryWay::Ra => match on.device() {
            Some(uplink) => advertised(uplink, world, found).await,
            None => Ok(()),
        },
        DiscoveryWay::Dns => ask_on(instance, on, world, found).await,
    }
}

/// All prefixes that any way finds on an uplink, whatever `discovery` says, and why the other ways find none. `clatd
/// discover` prints this.
pub async fn survey(
    instance: &Instance,
    uplink: &str,
    world: &dyn World,
) -> Result<(Vec<Fact<Pref64>>, Vec<String>), WorldError> {
    let on = On {
        named: Some(uplink.to_owned()),
        running: None,
        first: None,
    };
    let (mut prefixes, mut failures) = (Vec::new(), Vec::new());
    for &way in DiscoveryWay::ALL {
        let mut found = Found::default();
        look(way, instance, &on, world, &mut found).await?;
        prefixes.extend(found.prefixes);
        failures.extend(found.failures);
    }
    Ok((prefixes, failures))
}

/// Whether a device has a route to the PLAT of this prefix, for at least one source address that the CLAT may have.
pub async fn is_reached(prefix: Pref64, device: &str, world: &dyn World) -> Result<bool, WorldError> {
    let route = uplink::route_to_plat(prefix, Some(device), world).await?;
    Ok(route.is_some())
}

async fn advertised(uplink: &str, world: &dyn World, found: &mut Found) -> Result<(), WorldError> {
    found.prefixes = world.advertised_prefixes(uplink).await?;
    if found.prefixes.is_empty() {
        found.failures.push(match world.deaf_to_routers(uplink).await {
            Some(why) => format!("cannot receive router advertisements on {uplink}: {why}"),
            None => format!("no router on {uplink} advertises one"),
        });
    } else {
        found.learned_on = Some(uplink.to_owned());
    }
    found.refuse();
    Ok(())
}

/// Whom to ask, in order; `None` = the system's resolvers. If servers are configured, only they are asked. Otherwise
/// the servers that the uplink's routers advertise come first, then those that the uplink's manager knows, then the
/// system's.
///
/// RFC 8880 section 7.1: the question "MUST be sent to the recursive resolver learned from the network interface in
/// question". So where the uplink is named and has its own servers, the system's resolvers never replace them,
/// neither after a "no" nor after silence. Nobody knows whether those belong to this uplink, and a prefix of another
/// uplink is worse than none.
async fn resolvers(
    instance: &Instance,
    uplink: Option<&str>,
    is_named: bool,
    world: &dyn World,
) -> Result<Vec<Option<DnsServer>>, WorldError> {
    let settings = &instance.settings;
    let configured: Vec<_> = settings.plat.dns64_servers.iter().cloned().map(Some).collect();
    if !configured.is_empty() {
        return Ok(configured);
    }
    let mut servers = Vec::new();
    if let Some(uplink) = uplink {
        let advertised = world.advertised_servers(uplink).await?;
        for server in advertised.into_iter().chain(world.link_servers(uplink).await?) {
            if !servers.contains(&Some(server.clone())) {
                servers.push(Some(server));
            }
        }
    }
    if servers.is_empty() || !is_named {
        servers.push(None);
    }
    Ok(servers)
}

/// Asks the servers that the uplink makes known. The uplink of a running CLAT is asked like a named uplink. Only
/// where it knows no prefix, those servers are asked that are asked at the start.
async fn ask_on(instance: &Instance, on: &On, world: &dyn World, found: &mut Found) -> Result<(), WorldError> {
    if let Some(uplink) = on.named.as_deref().or(on.running.as_deref()) {
        ask(instance, Some(uplink), true, world, found).await?;
        if on.named.is_some() || !found.prefixes.is_empty() {
            return Ok(());
        }
        found.failures.clear();
    }
    ask(instance, on.device(), false, world, found).await
}

/// Asks one server after the other until one knows a prefix. If the uplink `is_named`, the question goes through it.
async fn ask(
    instance: &Instance,
    uplink: Option<&str>,
    is_named: bool,
    world: &dyn World,
    found: &mut Found,
) -> Result<(), WorldError> {
    let settings = &instance.settings;
    let servers = resolvers(instance, uplink, is_named, world).await?;
    let own_only = settings.plat.dns64_servers.is_empty() && !servers.contains(&None);
    for server in servers {
        // The prefix belongs to the uplink, so the question goes through a named uplink (RFC 8880 section 7.1).
        let device = uplink.filter(|_| is_named);
        let answer = world.aaaa(WELL_KNOWN_NAME, server.as_ref(), device).await?;
        match prefixes_in(server.as_ref(), answer) {
            Ok(prefixes) => {
                found.prefixes = prefixes;
                found.refuse();
                // Another server may know better.
                if !found.prefixes.is_empty() {
                    // A server that the uplink makes known speaks for the uplink's network.
                    let of_uplink = server.is_some() && settings.plat.dns64_servers.is_empty();
                    found.learned_on = uplink.filter(|_| of_uplink).map(str::to_owned);
                    return Ok(());
                }
            }
            Err(failure) => found.failures.push(failure),
        }
    }
    if let (true, Some(uplink)) = (own_only, uplink) {
        found.failures.push(format!(
            "the system's resolvers are not asked, since {uplink} has its own (dns64-servers names others)"
        ));
    }
    Ok(())
}

/// The prefixes in one server's answer, or why it has none.
fn prefixes_in(server: Option<&DnsServer>, answer: DnsAnswer) -> Result<Vec<Fact<Pref64>>, String> {
    let who = server.map_or_else(|| "the system's resolver".to_owned(), ToString::to_string);
    match answer {
        DnsAnswer::Addresses { addresses, ttl_s } => {
            let source = Source::Dns64(server.map(|server| server.address));
            let prefixes: Vec<_> = synthesised_prefixes(&addresses)
                .into_iter()
                .map(|prefix| Fact::lasting(prefix, source.clone(), ttl_s))
                .collect();
            if prefixes.is_empty() {
                let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                return Err(format!(
                    "{who} answered {WELL_KNOWN_NAME} with {}, which no DNS64 synthesised",
                    shown.join(", ")
                ));
            }
            Ok(prefixes)
        }
        DnsAnswer::NoRecords { nxdomain: true, .. } => Err(format!("{who} says that {WELL_KNOWN_NAME} does not exist")),
        DnsAnswer::NoRecords { nxdomain: false, .. } => Err(format!(
            "{who} has no AAAA record for {WELL_KNOWN_NAME}; it does no DNS64"
        )),
        DnsAnswer::Failed(why) => Err(format!("{who} gave no answer for {WELL_KNOWN_NAME}: {why}")),
    }
}

/// The prefixes that these AAAA records of the well-known name contain, in order, each once (RFC 7050 section 3).
///
/// A well-known address that occurs more than once in a record says nothing about the prefix. Then only the other one
/// counts. If neither address stands where RFC 6052 puts it, no DNS64 has synthesised the record.
pub fn synthesised_prefixes(records: &[Ipv6Addr]) -> Vec<Pref64> {
    let usable: Vec<Ipv4Addr> = WELL_KNOWN_ADDRESSES
        .into_iter()
        .filter(|known| records.iter().all(|record| occurrences(*record, *known) <= 1))
        .collect();
    let mut prefixes = Vec::new();
    for record in records {
        let candidates = usable.iter().filter_map(|known| prefix_around(*record, *known));
        // A record may contain both well-known addresses, one of them by chance. The right one has only zeros behind it
        // (RFC 6052 section 2.2).
        let best =
            candidates.max_by_key(|prefix| prefix.extract(*record).is_some_and(|v4| prefix.embed(v4) == *record));
        if let Some(prefix) = best
            && !prefixes.contains(&prefix)
        {
            prefixes.push(prefix);
        }
    }
    prefixes
}

/// The prefix of the record, if `known` stands where RFC 6052 section 2.2 puts an IPv4 address. If several prefixes fit,
/// the longest.
fn prefix_around(record: Ipv6Addr, known: Ipv4Addr) -> Option<Pref64> {
    Pref64::LENGTHS.into_iter().rev().find_map(|length| {
        let mask = u128::MAX << (128 - u32::from(length));
        let prefix = Pref64::new(Ipv6Addr::from(u128::from(record) & mask), length).ok()?;
        let u_octet_zero = record.octets()[8] == 0;
        (u_octet_zero && prefix.extract(record) == Some(known)).then_some(prefix)
    })
}

/// How often `known` occurs in the record, on octet boundaries, also around the "u" octet (RFC 7050 section 3).
fn occurrences(record: Ipv6Addr, known: Ipv4Addr) -> usize {
    let octets = record.octets();
    let known = known.octets();
    let whole = octets.windows(4).filter(|window| *window == known).count();
    let without_u: Vec<u8> = octets[..8].iter().chain(&octets[9..]).copied().collect();
    // Windows that begin at 5, 6 or 7 reach over the place of the "u" octet; the others were counted above.
    let around_u = without_u
        .windows(4)
        .enumerate()
        .filter(|(start, window)| (5..8).contains(start) && *window == known)
        .count();
    whole + around_u
}
