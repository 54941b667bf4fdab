//! Whether a PLAT prefix leads anywhere (RFC 7050 section 3.2): to a server that the user names, or to those that the
//! network names for this purpose.

use std::net::Ipv4Addr;

use clatd_translator::Pref64;

use super::{WELL_KNOWN_ADDRESSES, WELL_KNOWN_NAME, resolvers};
use crate::facts::{Fact, Source};
use crate::path::{NOBODY, Probe, through_plat};
use crate::settings::{DnsServer, PlatCheck};
use crate::stage::Instance;
use crate::world::{DnsAnswer, World, WorldError};

/// What became of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// This server answered.
    Answers(Ipv4Addr),
    /// This server did not.
    Silent(Ipv4Addr),
    /// Nothing could be asked, and why. Such a prefix is used unchecked.
    Unverified(String),
}

/// Makes the check that `plat-check` asks for; `None` = none.
pub async fn check(
    instance: &Instance,
    prefix: &Fact<Pref64>,
    device: &str,
    world: &dyn World,
) -> Result<Option<Checked>, WorldError> {
    let (server, port) = match instance.settings.plat.plat_check {
        PlatCheck::No | PlatCheck::Auto => return Ok(None),
        PlatCheck::Address { address, port } => (address, port),
        PlatCheck::Yes => match published(instance, prefix, device, world).await? {
            Ok(server) => (server, None),
            Err(why) => return Ok(Some(Checked::Unverified(why))),
        },
    };
    let answers = world.answers(device, prefix.value.embed(server), port).await?;
    Ok(Some(if answers {
        Checked::Answers(server)
    } else {
        Checked::Silent(server)
    }))
}

/// Whether a PLAT translates. Probes are tried first, which anything behind the PLAT answers; then the servers that
/// the network publishes for checks.
pub async fn plat_translates(
    instance: &Instance,
    prefix: &Fact<Pref64>,
    device: &str,
    world: &dyn World,
) -> Result<bool, WorldError> {
    let probe = Probe::far(prefix.value.embed(NOBODY).into());
    let answers = world.trace(device, &probe).await?;
    if through_plat(prefix.value, &answers).is_some() {
        return Ok(true);
    }
    match published(instance, prefix, device, world).await? {
        Ok(server) => world.answers(device, prefix.value.embed(server), None).await,
        Err(_) => Ok(false),
    }
}

/// The first server that the network publishes for checks, or why there is none. The names of Pref64::WKA are asked
/// for, then the IPv4 addresses of the first name that has any.
async fn published(
    instance: &Instance,
    prefix: &Fact<Pref64>,
    device: &str,
    world: &dyn World,
) -> Result<Result<Ipv4Addr, String>, WorldError> {
    // The question goes the same way as the question for the prefix.
    let is_named = instance.settings.plat.plat_dev.is_some();
    let through = Some(device).filter(|_| is_named);
    let mut reasons = Vec::new();
    for resolver in informed(
        resolvers(instance, Some(device), is_named, world).await?,
        &prefix.source,
    ) {
        for address in WELL_KNOWN_ADDRESSES.map(|known| prefix.value.embed(known)) {
            let names = match world.ptr(address, resolver.as_ref(), through).await? {
                DnsAnswer::Addresses { addresses, .. } => addresses,
                DnsAnswer::NoRecords { .. } => continue,
                DnsAnswer::Failed(why) => {
                    reasons.push(format!("{} gave no name of {address}: {why}", who(resolver.as_ref())));
                    break;
                }
            };
            // A name that a DNS64 synthesises from the well-known name's own records belongs to no translator.
            for name in names.iter().filter(|name| !name.eq_ignore_ascii_case(WELL_KNOWN_NAME)) {
                let servers = match world.a(name, resolver.as_ref(), through).await? {
                    DnsAnswer::Addresses { addresses, .. } => addresses,
                    DnsAnswer::NoRecords { .. } => Vec::new(),
                    DnsAnswer::Failed(why) => {
                        reasons.push(format!("{} gave no address of {name}: {why}", who(resolver.as_ref())));
                        continue;
                    }
                };
                // Those of ipv4only.arpa must not be probed (RFC 7050 section 3.2.1).
                if let Some(server) = servers
                    .into_iter()
                    .find(|server| !WELL_KNOWN_ADDRESSES.contains(server))
                {
                    return Ok(Ok(server));
                }
            }
        }
    }
    let mut why = format!("the network publishes no server to check {} with", prefix.value);
    if !reasons.is_empty() {
        why = format!("{why} ({})", reasons.join("; "));
    }
    Ok(Err(why))
}

/// Of several resolvers, the one that knew the prefix. The others may belong to another network.
fn informed(resolvers: Vec<Option<DnsServer>>, source: &Source) -> Vec<Option<DnsServer>> {
    let Source::Dns64(informant) = source else {
        return resolvers;
    };
    let knew = |resolver: &&Option<DnsServer>| resolver.as_ref().map(|server| server.address) == *informant;
    let informed: Vec<_> = resolvers.iter().filter(knew).cloned().collect();
    if informed.is_empty() { resolvers } else { informed }
}

fn who(resolver: Option<&DnsServer>) -> String {
    resolver.map_or_else(|| "the system's resolver".to_owned(), ToString::to_string)
}
