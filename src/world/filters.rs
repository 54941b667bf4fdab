//! Packet filters, read once for all instances and kept until they change. nf_tables reports its changes. Elements of
//! sets, of which there may be very many, and our own rules do not matter here.
//!
//! Of a ruleset only what can stop a packet is kept, and our own rules: there may be tens of thousands of others.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex as StdMutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use clatd_stages::net::ALIAS_PREFIX;
use clatd_stages::world::WorldError;
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, AsyncSocketExt, Socket, TokioSocket};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio_util::task::AbortOnDropHandle;

use crate::kernel::{command, ip6tables, nft};
#[cfg(feature = "ebpf")]
use crate::netlink::{DeviceChain, NetlinkError, device_chains};
use crate::netlink::{NftChange, NftEvent, nft_events};
use crate::util::{AnyError, lock};

/// `NFNLGRP_NFTABLES` of `linux/netfilter/nfnetlink.h`.
const GROUP: u32 = 7;
/// Longest datagram of the kernel's.
const LONGEST: usize = 64 * 1024;
/// A pause, so that a socket that only gives errors makes no busy loop.
const PAUSE: Duration = Duration::from_millis(150);
/// A legacy ip6tables table is read again after this time at the earliest, however many instances ask. The kernel
/// reports none of its changes; our own changes are known.
const KEEP_UNREPORTED: Duration = Duration::from_secs(1);
/// No more chains of a family than this are read for those of devices.
#[cfg(feature = "ebpf")]
const MOST_CHAINS: usize = 4096;
/// Not every kernel tells that a chain has lost a device.
#[cfg(feature = "ebpf")]
const KEEP_CHAINS: Duration = Duration::from_secs(60);
/// The keys and words of libnftables JSON that show that a rule can stop a packet, or leads to one that can.
const MATTERS: [&str; 8] = ["drop", "reject", "queue", "xt", "jump", "goto", "vmap", "fib"];

/// What is known of packet filters. Clones share it.
#[derive(Clone)]
pub(super) struct PacketFilters {
    state: Arc<Mutex<FiltersState>>,
    maps: VerdictMaps,
    _listening: Arc<Option<AbortOnDropHandle<()>>>,
}

/// Maps whose elements are verdicts: table and name.
#[derive(Debug, Clone, Default)]
struct VerdictMaps(Arc<StdMutex<BTreeSet<(String, String)>>>);

impl VerdictMaps {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<(String, String)>> {
        lock(&self.0)
    }

    /// Whether an event changes what is kept, or whether our rules stand.
    fn concerns(&self, event: &NftEvent) -> bool {
        match event.change {
            NftChange::RuleAdded => !event.is_ours(),
            NftChange::RuleGone | NftChange::Structure => true,
            NftChange::Elements => self.lock().contains(&(event.table.clone(), event.name.clone())),
            NftChange::Nothing => false,
        }
    }
}

#[derive(Default)]
struct FiltersState {
    /// Queue of changes since the last listing; `None` = changes cannot be received.
    events: Option<Socket>,
    /// What each program listed.
    rulesets: BTreeMap<String, Value>,
    /// The output of each save program, if it uses nf_tables.
    saved: BTreeMap<String, Option<String>>,
    /// The output of the others, for a moment.
    unreported: BTreeMap<String, Unreported>,
    /// Chains that see all packets of a device, and when they were read.
    #[cfg(feature = "ebpf")]
    device_chains: Option<(Instant, DeviceChains)>,
    /// Whether a program uses nf_tables, with its identity, which shows whether it was replaced.
    kinds: BTreeMap<String, (PathBuf, Option<SystemTime>, bool)>,
}

/// `None` = there are more chains than are read.
#[cfg(feature = "ebpf")]
type DeviceChains = Option<Arc<[DeviceChain]>>;

/// A table whose changes are not reported, as it was.
struct Unreported {
    read: Instant,
    /// [`ip6tables::changes`] at that time.
    changes: u64,
    saved: Option<String>,
}

impl Unreported {
    fn is_fresh(&self) -> bool {
        self.read.elapsed() < KEEP_UNREPORTED && self.changes == ip6tables::changes()
    }
}

impl PacketFilters {
    /// Begins to listen in the network namespace of the calling thread. Needs a runtime. `notify` is called after a
    /// change that matters.
    pub(super) fn new(notify: impl Fn() + Send + Sync + 'static) -> Self {
        let maps = VerdictMaps::default();
        let listening = subscribed_task().ok().map(|socket| {
            let maps = maps.clone();
            AbortOnDropHandle::new(tokio::spawn(listen(socket, maps, notify)))
        });
        let state = FiltersState {
            events: subscribed().ok(),
            ..FiltersState::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            maps,
            _listening: Arc::new(listening),
        }
    }

    /// The part of the nft ruleset that can stop a packet, and our own rules.
    pub(super) async fn ruleset(&self, program: &str) -> Result<Value, WorldError> {
        let mut state = self.state.lock().await;
        state.catch_up(&self.maps);
        if let Some(known) = state.rulesets.get(program) {
            return Ok(known.clone());
        }
        let listed = self.list(program).await?;
        if state.events.is_some() {
            state.rulesets.insert(program.to_owned(), listed.clone());
        }
        Ok(listed)
    }

    async fn list(&self, program: &str) -> Result<Value, WorldError> {
        let failed = |error| WorldError::new("reading the nft ruleset", error);
        let ruleset = match nft::list_tersely(program, &["ruleset"]).await {
            // The program exists, but the kernel has no nf_tables, so it filters nothing.
            Err(error) if error.is_unsupported() => return Ok(json!({ "nftables": [] })),
            other => other.map_err(failed)?.unwrap_or_default(),
        };
        let mut kept = what_matters(ruleset);
        for map in verdict_maps(&kept) {
            let [family, table, name] = &map;
            let listed = nft::list(program, &["map", family, table, name])
                .await
                .map_err(failed)?;
            self.maps.lock().insert((table.clone(), name.clone()));
            let elements = listed
                .as_ref()
                .and_then(|listed| nft::objects(listed, "map").next()?.get("elem").cloned());
            for object in kept["nftables"].as_array_mut().into_iter().flatten() {
                if let (Some(found), Some(elements)) = (object.get_mut("map"), &elements)
                    && is_map(found, &map)
                {
                    found["elem"] = elements.clone();
                }
            }
        }
        Ok(kept)
    }

    /// The output of the save program for ip6tables' filter table; `None` = no such program or no such table.
    pub(super) async fn ip6tables(&self, program: &str) -> Result<Option<String>, WorldError> {
        let failed = |error: AnyError| WorldError::new("reading the ip6tables filter table", error);
        let Some(path) = command::find(program) else {
            return Ok(None);
        };
        let mut state = self.state.lock().await;
        state.catch_up(&self.maps);
        let changed = std::fs::metadata(&path).and_then(|file| file.modified()).ok();
        let by_nft = match state.kinds.get(program) {
            Some((known, then, by_nft)) if (known, then) == (&path, &changed) => *by_nft,
            _ => {
                let by_nft = ip6tables::goes_by_nft(program).await;
                let by_nft = by_nft.map_err(|error| failed(error.into_source()))?;
                let kind = (path, changed, by_nft);
                state.kinds.insert(program.to_owned(), kind);
                by_nft
            }
        };
        if let Some(saved) = state.saved.get(program).filter(|_| by_nft) {
            return Ok(saved.clone());
        }
        if let Some(known) = state
            .unreported
            .get(program)
            .filter(|known| !by_nft && known.is_fresh())
        {
            return Ok(known.saved.clone());
        }
        let (read, changes) = (Instant::now(), ip6tables::changes());
        let saved = ip6tables::save_of(program, by_nft).await;
        let saved = saved.map_err(|error| failed(error.into_source()))?;
        if !by_nft {
            let saved = saved.clone();
            let known = Unreported { read, changes, saved };
            state.unreported.insert(program.to_owned(), known);
        } else if state.events.is_some() {
            state.saved.insert(program.to_owned(), saved.clone());
        }
        Ok(saved)
    }
}

#[cfg(feature = "ebpf")]
impl PacketFilters {
    /// The chains that see all packets of a device; `None` = there are more chains than are read.
    pub(super) async fn device_chains(&self) -> Result<DeviceChains, NetlinkError> {
        let mut state = self.state.lock().await;
        state.catch_up(&self.maps);
        if let Some((_, chains)) = state
            .device_chains
            .as_ref()
            .filter(|(at, _)| at.elapsed() < KEEP_CHAINS)
        {
            return Ok(chains.clone());
        }
        let chains: DeviceChains = device_chains(MOST_CHAINS).await?.map(Arc::from);
        if state.events.is_some() {
            state.device_chains = Some((Instant::now(), chains.clone()));
        }
        Ok(chains)
    }
}

impl FiltersState {
    /// Looks at what changed since.
    fn catch_up(&mut self, maps: &VerdictMaps) {
        let Some(socket) = self.events.take() else { return };
        let mut buffer = Vec::with_capacity(LONGEST);
        loop {
            buffer.clear();
            match socket.recv(&mut buffer, libc::MSG_DONTWAIT) {
                Ok(_) => {
                    for event in nft_events(&buffer) {
                        self.take(&event, maps);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Some were lost.
                Err(_) => {
                    self.rulesets.clear();
                    self.saved.clear();
                    #[cfg(feature = "ebpf")]
                    self.device_chains.take();
                    if nothing_waits(&socket) {
                        break;
                    }
                }
            }
        }
        self.events = Some(socket);
    }

    fn take(&mut self, event: &NftEvent, maps: &VerdictMaps) {
        let of_ip6tables = event.v6 && event.table == "filter";
        if of_ip6tables && event.change != NftChange::Nothing {
            self.saved.clear();
        }
        #[cfg(feature = "ebpf")]
        if event.change == NftChange::Structure && ["netdev", "inet"].contains(&event.family) {
            self.device_chains = None;
        }
        match event.change {
            NftChange::RuleAdded if event.is_ours() => {
                for ruleset in self.rulesets.values_mut() {
                    add_rule(ruleset, event);
                }
            }
            NftChange::RuleGone => {
                for ruleset in self.rulesets.values_mut() {
                    remove_rule(ruleset, event);
                }
            }
            _ if maps.concerns(event) => self.rulesets.clear(),
            NftChange::RuleAdded | NftChange::Structure | NftChange::Elements | NftChange::Nothing => {}
        }
    }
}

/// After an error: whether the next read would find nothing, or the same error for ever.
fn nothing_waits(socket: &Socket) -> bool {
    let mut byte = Vec::with_capacity(1);
    socket.recv(&mut byte, libc::MSG_DONTWAIT | libc::MSG_PEEK).is_err()
}

fn subscribed() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.add_membership(GROUP)?;
    Ok(socket)
}

fn subscribed_task() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
    socket.socket_mut().bind_auto()?;
    socket.socket_mut().add_membership(GROUP)?;
    Ok(socket)
}

/// Never ends. A kernel without nf_tables has no changes, and an unprivileged process receives none.
async fn listen(socket: TokioSocket, maps: VerdictMaps, notify: impl Fn()) {
    let mut buffer = Vec::with_capacity(LONGEST);
    loop {
        buffer.clear();
        match socket.recv(&mut buffer).await {
            Ok(()) if nft_events(&buffer).any(|event| maps.concerns(&event)) => notify(),
            Ok(()) => {}
            // Lost events are events too.
            Err(_) => {
                tokio::time::sleep(PAUSE).await;
                notify();
            }
        }
    }
}

/// A ruleset without the rules that neither can stop a packet nor are ours.
fn what_matters(mut ruleset: Value) -> Value {
    if let Some(objects) = ruleset["nftables"].as_array_mut() {
        objects.retain(|object| match object.get("rule") {
            Some(rule) => is_ours(rule["comment"].as_str()) || rule.get("expr").is_some_and(matters),
            None => object.get("set").is_none(),
        });
        for statements in objects
            .iter_mut()
            .filter_map(|object| object.get_mut("rule")?.get_mut("expr")?.as_array_mut())
        {
            statements.retain(matters);
        }
        objects.shrink_to_fit();
    }
    ruleset
}

fn matters(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(matters),
        Value::Object(fields) => fields
            .iter()
            .any(|(key, inner)| MATTERS.contains(&key.as_str()) || matters(inner)),
        Value::String(word) => word == "drop",
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn is_ours(comment: Option<&str>) -> bool {
    comment.is_some_and(|comment| comment.starts_with(ALIAS_PREFIX))
}

/// The named maps with verdicts: family, table, name. A terse listing does not have their elements.
fn verdict_maps(ruleset: &Value) -> BTreeSet<[String; 3]> {
    let mut found = BTreeSet::new();
    for rule in nft::objects(ruleset, "rule") {
        let word = |key: &str| rule[key].as_str().unwrap_or_default().to_owned();
        let mut names = BTreeSet::new();
        named_in_vmap(&rule["expr"], &mut names);
        found.extend(names.into_iter().map(|name| [word("family"), word("table"), name]));
    }
    found.retain(|map| nft::objects(ruleset, "map").any(|found| is_map(found, map)));
    found
}

fn is_map(object: &Value, [family, table, name]: &[String; 3]) -> bool {
    let is = |key: &str, word: &str| object[key].as_str() == Some(word);
    is("family", family) && is("table", table) && is("name", name)
}

fn named_in_vmap(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| named_in_vmap(item, names)),
        Value::Object(fields) => {
            for (key, inner) in fields {
                if let Some(name) = inner["data"].as_str().filter(|_| key == "vmap") {
                    names.insert(name.trim_start_matches('@').to_owned());
                }
                named_in_vmap(inner, names);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn is_rule(object: &Value, event: &NftEvent) -> bool {
    let rule = &object["rule"];
    rule["handle"].as_u64() == Some(event.handle) && rule["table"].as_str() == Some(&event.table)
}

fn add_rule(ruleset: &mut Value, event: &NftEvent) {
    let Some(objects) = ruleset["nftables"].as_array_mut() else {
        return;
    };
    if !objects.iter().any(|object| is_rule(object, event)) {
        objects.push(json!({ "rule": {
            "family": event.family, "table": event.table, "chain": event.name, "handle": event.handle,
            "comment": event.comment, "expr": [],
        }}));
    }
}

fn remove_rule(ruleset: &mut Value, event: &NftEvent) {
    if let Some(objects) = ruleset["nftables"].as_array_mut() {
        objects.retain(|object| !is_rule(object, event));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(handle: u64, comment: &str, expr: &Value) -> Value {
        json!({ "rule": { "family": "inet", "table": "t", "chain": "c", "handle": handle, "comment": comment, "expr": expr } })
    }

    #[test]
    fn only_rules_that_can_stop_a_packet_and_ours_are_kept() {
        let ruleset = json!({ "nftables": [
            { "chain": { "name": "c" } },
            { "set": { "name": "s" } },
            { "map": { "name": "m" } },
            rule(1, "", &json!([{ "counter": null }, { "accept": null }])),
            rule(2, "", &json!([{ "drop": null }])),
            rule(3, "", &json!([{ "vmap": { "key": "x", "data": { "set": [["a", { "drop": null }]] } } }])),
            rule(4, "clatd:up0:in", &json!([{ "accept": null }])),
            rule(5, "", &json!([{ "vmap": { "key": "x", "data": { "set": [["a", "drop"]] } } }])),
        ]});
        let kept = what_matters(ruleset);
        let handles: Vec<u64> = nft::objects(&kept, "rule")
            .filter_map(|rule| rule["handle"].as_u64())
            .collect();
        assert_eq!(handles, [2, 3, 4, 5]);
        assert_eq!(nft::objects(&kept, "set").count(), 0);
        assert_eq!(nft::objects(&kept, "map").count(), 1);
    }

    #[test]
    fn rules_of_ours_come_and_go_without_a_listing() {
        let mut state = FiltersState::default();
        let maps = VerdictMaps::default();
        state
            .rulesets
            .insert("nft".into(), what_matters(json!({ "nftables": [] })));
        let event = |change, comment: &str, handle| NftEvent {
            change,
            v6: false,
            family: "inet",
            table: "t".into(),
            name: "c".into(),
            comment: comment.into(),
            handle,
        };
        let count = |state: &FiltersState| nft::objects(&state.rulesets["nft"], "rule").count();
        for _ in 0..2 {
            state.take(&event(NftChange::RuleAdded, "clatd:up0:in", 7), &maps);
        }
        assert_eq!(count(&state), 1);
        state.take(&event(NftChange::Elements, "", 0), &maps);
        state.take(&event(NftChange::Nothing, "", 0), &maps);
        assert_eq!(count(&state), 1);
        state.take(&event(NftChange::RuleGone, "", 7), &maps);
        assert_eq!(count(&state), 0);
        maps.lock().insert(("t".into(), "c".into()));
        state.take(&event(NftChange::Elements, "", 0), &maps);
        assert!(state.rulesets.is_empty(), "verdicts are others now");
        state.rulesets.insert("nft".into(), Value::Null);
        state.take(&event(NftChange::RuleAdded, "", 8), &maps);
        assert!(state.rulesets.is_empty(), "somebody else's rule");
    }

    #[test]
    fn named_verdict_maps_are_found() {
        let ruleset = json!({ "nftables": [
            { "map": { "family": "inet", "table": "t", "name": "m" } },
            rule(1, "", &json!([{ "vmap": { "key": { "meta": { "key": "iifname" } }, "data": "@m" } }])),
            rule(2, "", &json!([{ "vmap": { "key": { "meta": { "key": "iifname" } }, "data": "@unknown" } }])),
        ]});
        let maps: Vec<_> = verdict_maps(&ruleset).into_iter().collect();
        assert_eq!(maps, [["inet", "t", "m"].map(str::to_owned)]);
    }
}
