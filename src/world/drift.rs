//! Whether what was done still stands, or another program undid it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;

use clatd_stages::net::Link;
use clatd_stages::op::Op;
use clatd_stages::world::{World, WorldError};

use super::SystemWorld;
use crate::kernel::{FoundRule, anycast, files, ip6tables, netlink_same, nft, rules, sysctl};
use crate::netlink::ProxyNeighbour;

/// What was read from the system so far, each thing once.
#[derive(Default)]
struct Reads {
    links: Option<Vec<Link>>,
    proxies: Option<Vec<ProxyNeighbour>>,
    rules: BTreeMap<bool, Vec<FoundRule>>,
}

/// The places of the operations that somebody undid.
pub(super) async fn undone(world: &SystemWorld, ops: &[&Op]) -> Result<Vec<usize>, WorldError> {
    let mut seen = Reads::default();
    let mut undone = Vec::new();
    for (place, op) in ops.iter().enumerate() {
        if !stands(world, op, &mut seen).await? {
            undone.push(place);
        }
    }
    Ok(undone)
}

async fn stands(world: &SystemWorld, op: &Op, seen: &mut Reads) -> Result<bool, WorldError> {
    let doing = |what: &str| format!("looking whether {what} still stands");
    Ok(match op {
        Op::CreateTun { device, alias, .. } => link(world, device, seen)
            .await?
            .is_some_and(|link| link.alias.as_ref() == Some(alias)),
        Op::SetLinkUp { device, mtu } => link(world, device, seen)
            .await?
            .is_none_or(|link| link.up && link.mtu == *mtu),
        Op::AddAddress { device, address } => match link(world, device, seen).await? {
            Some(link) => {
                let found = world.netlink.has_address(link.index, *address).await;
                found.map_err(|error| WorldError::new(doing("an address"), error))?
            }
            None => true,
        },
        Op::AddProxyNeighbour { device, address } => match link(world, device, seen).await? {
            Some(link) => {
                if seen.proxies.is_none() {
                    let entries = world.netlink.proxy_neighbours().await;
                    let failed = |error| WorldError::new(doing("a proxy neighbour entry"), error);
                    seen.proxies = Some(entries.map_err(failed)?);
                }
                seen.proxies
                    .iter()
                    .flatten()
                    .any(|entry| entry.index == link.index && entry.address == *address)
            }
            None => true,
        },
        Op::JoinAnycast { device, address } => match link(world, device, seen).await? {
            Some(link) => anycast::stands(&world.netlink, link.index, *address)
                .await
                .map_err(|failure| WorldError::new(doing("an anycast address"), failure.into_source()))?,
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
            let routes = world.netlink.routes_like(route).await;
            let routes = routes.map_err(|error| WorldError::new(doing("a route"), error))?;
            routes.iter().any(|found| netlink_same(route, found))
        }
        Op::AddRule { rule } => {
            let found = match seen.rules.entry(rule.v6) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => {
                    let read = world.netlink.rules(rule.v6).await;
                    unknown.insert(read.map_err(|error| WorldError::new(doing("a rule"), error))?)
                }
            };
            rules::stands(rule, found)
        }
        Op::HoldSysctl { key, value, .. } | Op::SetDeviceSysctl { key, value } => {
            let now = sysctl::read(key).map_err(|error| WorldError::new(doing(key), error))?;
            now.is_none_or(|now| now == *value)
        }
        Op::HoldOnDevices(on) => {
            let stands = world.holds.stand_on(world.user.as_deref(), on);
            stands.map_err(|error| WorldError::new(doing(&on.name), error))?
        }
        Op::InsertNftRule { command, rule } => {
            let ruleset = World::nft_ruleset(world, command).await?;
            let is = |object: &serde_json::Value, key: &str, name: &str| {
                object["family"] == rule.family.as_str()
                    && object["table"] == rule.table.as_str()
                    && object[key].as_str() == Some(name)
            };
            // A chain that is gone stops no packets. If it comes back, the next plan finds it.
            ruleset.is_none_or(|ruleset| {
                !nft::objects(&ruleset, "chain").any(|chain| is(chain, "name", &rule.chain))
                    || nft::objects(&ruleset, "rule").any(|found| {
                        is(found, "chain", &rule.chain) && found["comment"].as_str() == Some(&rule.comment)
                    })
            })
        }
        Op::InsertIp6tables { command, chain, rule } => {
            let saved = World::ip6tables_filter(world, command).await?;
            saved.is_none_or(|saved| {
                saved
                    .lines()
                    .filter_map(ip6tables::our_rule)
                    .any(|(found, words)| found == *chain && words == *rule)
            })
        }
        Op::CreateNftTable {
            command,
            family,
            table,
            ruleset,
        } => {
            let listing = nft::list(command, &["table", family, table]).await;
            let listing = listing.map_err(|error| WorldError::new(doing("an nft table"), error))?;
            listing.is_some_and(|listing| nft::has_all(&listing, ruleset))
        }
        // Only in journals of older versions; no plan does it any more.
        Op::HoldLocalRule {} => true,
        Op::WriteFile { path, contents } => files::holds(Path::new(path), contents),
        // The translator has the device open, which gives it its carrier. Its death is reported separately.
        Op::StartTranslator { translator } => link(world, translator.device(), seen)
            .await?
            .is_none_or(|link| !link.up || link.carrier),
        // Only the user knows what a script did.
        Op::RunScript { .. } | Op::Nothing { .. } => true,
        // A removed route that is back is a change of the network: the next plan sees it.
        Op::RemoveRoute { .. } => true,
        // These take back; no plan does them.
        Op::DeleteTun { .. }
        | Op::RemoveAddress { .. }
        | Op::ReleaseSysctl { .. }
        | Op::ReleaseOnDevices(_)
        | Op::RemoveProxyNeighbour { .. }
        | Op::LeaveAnycast { .. }
        | Op::RemoveRule { .. }
        | Op::ReleaseLocalRule {}
        | Op::RemoveNftRule { .. }
        | Op::DeleteNftTable { .. }
        | Op::DeleteIp6tables { .. }
        | Op::RemoveFile { .. }
        | Op::StopTranslator { .. }
        | Op::DetachFastPath { .. } => true,
        // It is a value in a map that nobody else has open. The programs themselves are checked above.
        Op::SetNextHop { .. } => true,
    })
}

async fn link(world: &SystemWorld, device: &str, seen: &mut Reads) -> Result<Option<Link>, WorldError> {
    if seen.links.is_none() {
        seen.links = Some(World::links(world).await?);
    }
    Ok(seen.links.iter().flatten().find(|link| link.name == device).cloned())
}
