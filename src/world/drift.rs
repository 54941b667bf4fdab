//! Whether what was done still stands, or somebody undid it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use clatd_stages::net::{Link, Route};
use clatd_stages::op::Op;
use clatd_stages::world::WorldError;

use super::SystemWorld;
use crate::kernel::{anycast, ip6tables, netlink_same, nft, sysctl};

/// What was read of the system so far; each thing once.
#[derive(Default)]
struct Seen {
    links: Option<Vec<Link>>,
    routes: BTreeMap<(bool, u32), Vec<Route>>,
    nft: BTreeMap<(String, String, String), Option<serde_json::Value>>,
}

/// The places of the operations that somebody undid.
pub(super) async fn undone(world: &SystemWorld, ops: &[&Op]) -> Result<Vec<usize>, WorldError> {
    let mut seen = Seen::default();
    let mut undone = Vec::new();
    for (place, op) in ops.iter().enumerate() {
        if !stands(world, op, &mut seen).await? {
            undone.push(place);
        }
    }
    Ok(undone)
}

async fn stands(world: &SystemWorld, op: &Op, seen: &mut Seen) -> Result<bool, WorldError> {
    let doing = |what: &str| format!("looking whether {what} still stands");
    Ok(match op {
        Op::CreateTun { device, alias, .. } => link(world, device, seen)
            .await?
            .is_some_and(|link| link.alias.as_ref() == Some(alias)),
        Op::SetLinkUp { device, .. } => link(world, device, seen).await?.is_none_or(|link| link.up),
        Op::AddAddress { device, address } => match link(world, device, seen).await? {
            Some(link) => {
                let found = world.netlink.has_address(link.index, *address).await;
                found.map_err(|error| WorldError::new(doing("an address"), error))?
            }
            None => true,
        },
        Op::AddProxyNeighbour { device, address } => match link(world, device, seen).await? {
            Some(link) => {
                let entries = world.netlink.proxy_neighbours().await;
                let entries = entries.map_err(|error| WorldError::new(doing("a proxy neighbour entry"), error))?;
                entries
                    .iter()
                    .any(|entry| entry.index == link.index && entry.address == *address)
            }
            None => true,
        },
        Op::JoinAnycast { device, address } => match link(world, device, seen).await? {
            Some(link) => anycast::is_joined(link.index, *address)
                .map_err(|error| WorldError::new(doing("an anycast address"), error))?,
            None => true,
        },
        Op::AttachFastPath { fast_path } => {
            let clat = link(world, fast_path.device(), seen).await?;
            let uplink = link(world, &fast_path.uplink, seen).await?;
            match (clat, uplink) {
                (Some(clat), Some(uplink)) => {
                    let (netlink, programs) = (&world.netlink, &world.holds.fast_path);
                    let stands = programs.stands(netlink, fast_path, clat.index, uplink.index).await;
                    stands.map_err(|error| WorldError::new(doing("the fast path"), error))?
                }
                (None, _) | (_, None) => true,
            }
        }
        Op::AddRoute { route } => {
            let key = (matches!(route.destination, ipnet::IpNet::V6(_)), route.table);
            let routes = match seen.routes.entry(key) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => unknown.insert(world.routes(key.0, key.1).await?),
            };
            routes.iter().any(|found| netlink_same(route, found))
        }
        Op::AddRule { rule } => {
            let rules = world.netlink.rules(rule.v6).await;
            let rules = rules.map_err(|error| WorldError::new(doing("a rule"), error))?;
            rules.iter().any(|found| found.rule == *rule)
        }
        Op::HoldSysctl { key, value, .. } => {
            let now = sysctl::read(key).map_err(|error| WorldError::new(doing(key), error))?;
            now.is_none_or(|now| now == *value)
        }
        Op::InsertNftRule { command, rule } => {
            let key = (rule.family.clone(), rule.table.clone(), rule.chain.clone());
            let listing = match seen.nft.entry(key) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => {
                    let listing = nft::list(command, &["chain", &rule.family, &rule.table, &rule.chain]).await;
                    unknown.insert(listing.map_err(|error| WorldError::new(doing("an nft rule"), error))?)
                }
            };
            // A chain that is gone stops nobody; if it comes back, the next plan finds it.
            listing.as_ref().is_none_or(|listing| {
                nft::objects(listing, "rule").any(|found| found["comment"].as_str() == Some(&rule.comment))
            })
        }
        Op::InsertIp6tables { command, chain, rule } => {
            let saved = ip6tables::save(command).await;
            let saved = saved.map_err(|error| WorldError::new(doing("an ip6tables rule"), error.into_source()))?;
            saved.is_none_or(|saved| {
                saved
                    .lines()
                    .filter_map(ip6tables::our_rule)
                    .any(|(found, words)| found == *chain && words == *rule)
            })
        }
        _ => true,
    })
}

async fn link(world: &SystemWorld, device: &str, seen: &mut Seen) -> Result<Option<Link>, WorldError> {
    if seen.links.is_none() {
        seen.links = Some(clatd_stages::world::World::links(world).await?);
    }
    Ok(seen.links.iter().flatten().find(|link| link.name == device).cloned())
}
