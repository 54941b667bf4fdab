//! Stage address: the CLAT's IPv6 address.
//!
//! `shared` takes the host's own address, `pd` one of a delegated prefix. All others are made from one of the
//! uplink's addresses, which choice.rs picks. `derived` is the algorithm of the 2016 clatd: it prefers a modified
//! EUI-64 address and replaces its middle 16 bits by c1a7; otherwise the interface identifier is random. `stable` and
//! `checksum-neutral` make the identifier by a hash. Each candidate is checked for duplicates; if another node has
//! it, the next one is tried. Some uplinks have no prefix to derive from, only single addresses (DHCPv6, many virtual
//! servers); then the CLAT shares the host's own address.
//!
//! The address that the CLAT's is derived from may still be tentative, since only its network is used. Both duplicate
//! address detections then run at the same time. A shared address must have passed its detection.

mod choice;
mod identifier;

use std::net::IpAddr;

use async_trait::async_trait;
use clatd_translator::Pref64;

use crate::claims::Claims;
use crate::facts::{Fact, Facts, Source};
use crate::net::Address6;
use crate::plan::{StageName, Step};
use crate::settings::ClatV6Addr;
use crate::stage::{Delay, Instance, ObserveError, PlanError, Readiness, Stage, world_error};
use crate::uplink;
use crate::world::{World, WorldError};
use choice::{choose, is_modified_eui64, is_preferred, is_ula};
use identifier::Identifier;

/// The stage.
pub struct AddressStage;

/// How many candidates are tried before the network is blamed: one, and IDGEN_RETRIES of RFC 7217 section 7.
const CANDIDATES: usize = 4;
/// How many candidates are looked at, since other instances may have some.
const ATTEMPTS: u32 = 64;

#[async_trait]
impl Stage for AddressStage {
    fn name(&self) -> StageName {
        StageName::Address
    }

    fn delay(&self, _instance: &Instance) -> Option<Delay> {
        None
    }

    async fn observe(
        &self,
        instance: &Instance,
        world: &dyn World,
        claims: &dyn Claims,
        facts: &mut Facts,
    ) -> Result<Readiness, ObserveError> {
        if facts.uplink.is_none() || facts.plat_prefix.is_none() {
            return Err(unusable("no uplink and PLAT prefix to find an address for"));
        }
        match instance.settings.clat.clat_v6_addr {
            ClatV6Addr::Address(address) => facts.clat_v6_addr = Some(Fact::new(address, Source::Configuration)),
            ClatV6Addr::Shared => share(world, facts).await?,
            ClatV6Addr::Pd => delegate(instance, world, claims, facts).await?,
            ClatV6Addr::Derived | ClatV6Addr::Stable | ClatV6Addr::ChecksumNeutral => {
                derive(instance, world, claims, facts).await?
            }
        }
        Ok(Readiness::Ready)
    }

    fn keep(&self, _old: &Facts, _new: &mut Facts) {}

    fn plan(&self, _instance: &Instance, _facts: &Facts) -> Result<Vec<Step>, PlanError> {
        Ok(Vec::new())
    }
}

fn unusable(what: impl Into<String>) -> ObserveError {
    ObserveError::Unusable {
        stage: StageName::Address,
        what: what.into(),
    }
}

fn not_yet(what: impl Into<String>) -> ObserveError {
    ObserveError::NotYet {
        stage: StageName::Address,
        what: what.into(),
    }
}

/// The host's own address: the source address that the kernel would use towards the PLAT.
async fn share(world: &dyn World, facts: &mut Facts) -> Result<(), ObserveError> {
    let (Some(uplink), Some(prefix)) = (&facts.uplink, &facts.plat_prefix) else {
        return Ok(());
    };
    let route = uplink::route_to_plat(prefix.value, Some(&uplink.value.name), world)
        .await
        .map_err(world_error(StageName::Address))?;
    // Before any address has passed duplicate address detection, the kernel would take the link-local one.
    let global = |source: &IpAddr| matches!(source, IpAddr::V6(address) if !address.is_unicast_link_local());
    let Some(IpAddr::V6(address)) = route.and_then(|route| route.source).filter(global) else {
        return Err(not_yet(format!(
            "{} has no IPv6 address towards the PLAT prefix {} yet",
            uplink.value.name, prefix.value
        )));
    };
    facts.clat_v6_addr = Some(Fact::new(address, Source::Kernel("source address towards the PLAT")));
    facts.shared = true;
    Ok(())
}

/// An address of the first /64 that DHCPv6 delegated.
async fn delegate(
    instance: &Instance,
    world: &dyn World,
    claims: &dyn Claims,
    facts: &mut Facts,
) -> Result<(), ObserveError> {
    let Some(uplink) = facts.uplink.as_ref().map(|uplink| uplink.value.name.clone()) else {
        return Ok(());
    };
    let stage = StageName::Address;
    let Some(delegated) = claims.delegated_prefix(&uplink).await.map_err(world_error(stage))? else {
        return Err(not_yet(format!("no prefix was delegated on {uplink} by DHCPv6 yet")));
    };
    let secret = world.secret().await.map_err(world_error(stage))?;
    let prefix = &delegated.value;
    let identifier = Identifier::stable(prefix.addr(), 64, &uplink, &instance.name, &secret);
    let address = identifier.address(0);
    facts.clat_v6_addr = Some(Fact {
        value: address,
        source: delegated.source.clone(),
        lifetime_s: delegated.lifetime_s,
    });
    facts.delegated_prefix = Some(delegated);
    Ok(())
}

async fn derive(
    instance: &Instance,
    world: &dyn World,
    claims: &dyn Claims,
    facts: &mut Facts,
) -> Result<(), ObserveError> {
    let (Some(uplink), Some(prefix)) = (&facts.uplink, &facts.plat_prefix) else {
        return Ok(());
    };
    let (uplink, prefix) = (uplink.value.name.clone(), prefix.value);
    let addresses = world.addresses6(&uplink).await.map_err(failed)?;
    let eui64_first = instance.settings.clat.clat_v6_addr == ClatV6Addr::Derived;
    let Some(base) = choose(&addresses, prefix, eui64_first) else {
        return without_base(world, facts, &uplink, &addresses).await;
    };
    let identifier = identifier(instance, world, &uplink, prefix, base).await?;
    claim(claims, facts, &uplink, &addresses, &identifier).await
}

fn failed(error: WorldError) -> ObserveError {
    world_error(StageName::Address)(error)
}

/// No address of the uplink has room for another one beside it.
async fn without_base(
    world: &dyn World,
    facts: &mut Facts,
    uplink: &str,
    addresses: &[Address6],
) -> Result<(), ObserveError> {
    let single = |address: &&Address6| is_preferred(address) && !is_ula(address.address);
    let singles: Vec<&Address6> = addresses.iter().filter(single).collect();
    if !singles.is_empty() && singles.iter().all(|address| address.tentative) {
        return Err(not_yet(format!(
            "duplicate address detection on {uplink} has not ended"
        )));
    }
    if !singles.is_empty() {
        facts.notes.push(format!(
            "{uplink} has single addresses but no prefix to derive another from, so the host's own is shared"
        ));
        return share(world, facts).await;
    }
    Err(unusable(format!(
        "{uplink} has no IPv6 address to derive the CLAT's from (global, preferred, not temporary); found {}; set clat-v6-addr to \
         an address that is routed to this host",
        describe(addresses)
    )))
}

/// The interface identifiers to try in the network of `base`.
async fn identifier(
    instance: &Instance,
    world: &dyn World,
    uplink: &str,
    prefix: Pref64,
    base: &Address6,
) -> Result<Identifier, ObserveError> {
    let (network, length) = (base.address, base.prefix_len);
    let clat = &instance.settings.clat;
    let neutral = match clat.clat_v6_addr {
        ClatV6Addr::Stable => false,
        ClatV6Addr::ChecksumNeutral => true,
        _ if is_modified_eui64(base) => return Ok(Identifier::c1a7(network, instance.seed)),
        _ => return Ok(Identifier::random(network, length, instance.seed)),
    };
    let secret = world.secret().await.map_err(failed)?;
    let stable = Identifier::stable(network, length, uplink, &instance.name, &secret);
    if neutral {
        return stable.neutral(clat.clat_v4_addr, prefix).map_err(unusable);
    }
    Ok(stable)
}

/// Takes the first address that nobody has.
async fn claim(
    claims: &dyn Claims,
    facts: &mut Facts,
    uplink: &str,
    addresses: &[Address6],
    identifier: &Identifier,
) -> Result<(), ObserveError> {
    // The instance keeps its address, although a candidate that it would prefer may be free again.
    let own = claims.reserved(uplink).await.map_err(failed)?;
    let first = own.and_then(|own| (0..ATTEMPTS).find(|attempt| identifier.address(*attempt) == own));
    let others = (0..ATTEMPTS).filter(|attempt| Some(*attempt) != first);
    let mut owners = Vec::new();
    for attempt in first.into_iter().chain(others) {
        let candidate = identifier.address(attempt);
        if addresses.iter().any(|address| address.address == candidate) {
            continue;
        }
        // Neither instance detects the other as a duplicate, since the kernel answers for both.
        if claims.reserve(uplink, candidate).await.map_err(failed)?.is_some() {
            continue;
        }
        let Some(owner) = claims.duplicate_of(uplink, candidate).await.map_err(failed)? else {
            facts.clat_v6_addr = Some(Fact::new(candidate, Source::Derived(identifier.describe(attempt))));
            return Ok(());
        };
        facts.notes.push(format!(
            "{candidate} on {uplink} belongs to another node: {owner}; clatd tries another address"
        ));
        owners.push(owner);
        if owners.len() == CANDIDATES {
            break;
        }
    }
    Err(unusable(format!(
        "all {} addresses that were tried on {uplink} belong to others ({}), so a neighbour may be claiming \
         every one; find out who that is, or set clat-v6-addr to shared or to an address that is routed to this host",
        owners.len(),
        owners.last().map_or("other instances", String::as_str)
    )))
}

fn describe(addresses: &[Address6]) -> String {
    if addresses.is_empty() {
        return "none at all".into();
    }
    let one = |address: &Address6| {
        let flags = [
            (!address.global, "not global"),
            (address.tentative, "tentative"),
            (address.deprecated, "deprecated"),
            (address.temporary, "temporary"),
        ];
        let flags: Vec<&str> = flags.iter().filter(|(set, _)| *set).map(|(_, word)| *word).collect();
        let flags = if flags.is_empty() {
            String::new()
        } else {
            format!(" ({})", flags.join(", "))
        };
        format!("{}/{}{flags}", address.address, address.prefix_len)
    };
    addresses.iter().map(one).collect::<Vec<_>>().join(", ")
}
