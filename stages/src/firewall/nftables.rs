//! nft base chains that would stop the CLAT's packets, and the rules that let them pass. Other programs write the
//! ruleset, and the nftables crate's types fail on statements that they do not model, so it is searched as plain
//! JSON.

use std::borrow::Cow;
use std::collections::BTreeSet;

use nftables::expr::{Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField, Prefix};
use nftables::stmt::{Match, Operator, Statement};
use serde_json::Value;

use crate::facts::NftChain;
use crate::firewall::Path;
use crate::op::{NftRule, Op};
use crate::plan::{StageName, Step};
use crate::translator::mappings;

/// The base chains that would stop the CLAT's packets. On hook forward: chains that drop by policy or rule. On hook
/// prerouting: chains that drop by policy, or look up the source in the routing table (`fib`), as reverse-path
/// filters do. With a shared address this host sends the replies to the CLAT, so chains on hook output count like
/// those on forward. With `skip_ip6tables` the chains of ip6tables' own filter table are left to ip6tables.
pub fn judge(ruleset: &Value, skip_ip6tables: bool, shared: bool) -> Vec<NftChain> {
    let ruleset = Ruleset::new(ruleset);
    ruleset.base_chains(&["ip6", "inet"], |chain| {
        if skip_ip6tables
            && chain.family == "ip6"
            && chain.table == "filter"
            && matches!(chain.name, "FORWARD" | "OUTPUT")
        {
            return None;
        }
        match chain.hook {
            "output" if !shared => None,
            "forward" | "output" => ruleset.drops(chain),
            "prerouting" if chain.policy_drop => Some(POLICY.to_owned()),
            "prerouting" => ruleset
                .reverse_path_filter(chain.family, chain.table, chain.name)
                .then(|| "rule with fib".to_owned()),
            _ => None,
        }
    })
}

/// The base chains that may stop packets of this host's own sockets: on hooks output and input those that drop by policy or
/// by rule. Many a host has such chains, and they let through what they should: they are suspects only where nothing
/// comes back.
pub(crate) fn suspects_of_own_sockets(ruleset: &Value) -> Vec<NftChain> {
    let ruleset = Ruleset::new(ruleset);
    ruleset.base_chains(&["ip", "ip6", "inet"], |chain| match chain.hook {
        "output" | "input" => ruleset.drops(chain),
        _ => None,
    })
}

/// Accept rules at the head of `chain`.
pub(crate) fn accept(path: &Path<'_>, chain: &NftChain) -> Vec<Step> {
    let clat = path.instance.settings.clat.clat_dev.as_str();
    let from_clat = |matches| insert(path, chain, "out", "CLAT", matches);
    let from_plat = |direction: &str, matches| insert(path, chain, direction, "PLAT", matches);
    let from = |name| device(MetaKey::Iifname, name);
    let to = |name| device(MetaKey::Oifname, name);
    match chain.hook.as_str() {
        "forward" => vec![
            from_clat(vec![from(clat), to(path.uplink)]),
            from_plat("in", vec![from(path.incoming), to(clat)]),
        ],
        "output" => vec![from_plat("in", vec![to(clat)])],
        // In prerouting no output device is known, so the CLAT's addresses identify its packets.
        _ => {
            let mut steps = vec![from_clat(vec![from(clat)])];
            for (direction, uplink, address) in translated_addresses(path) {
                steps.push(from_plat(&direction, [vec![from(uplink)], address].concat()));
            }
            steps
        }
    }
}

/// For each IPv6 address that the CLAT translates: the name of its rule, the device that brings packets to it, and what
/// matches them.
fn translated_addresses<'a>(path: &Path<'a>) -> Vec<(String, &'a str, Vec<Statement<'static>>)> {
    let Some(clat_v6) = &path.facts.clat_v6_addr else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (number, map) in mappings(&path.instance.settings, clat_v6.value).iter().enumerate() {
        let mut matches = vec![address("daddr", map.v6)];
        // This is the host's own address: all other packets to it stay filtered.
        if let (true, Some(prefix)) = (path.facts.shared, &path.facts.plat_prefix)
            && let Ok(prefix) = ipnet::Ipv6Net::new(prefix.value.address(), prefix.value.length())
        {
            matches.push(address("saddr", prefix));
        }
        let direction = match number {
            0 => "in".to_owned(),
            _ => format!("in{number}"),
        };
        found.push((direction.clone(), path.uplink, matches.clone()));
        // With a VRF the packets pass the hook a second time.
        if path.incoming != path.uplink {
            found.push((format!("{direction}-vrf"), path.incoming, matches));
        }
    }
    found
}

/// Inserts a rule that accepts packets from `whom`.
fn insert(
    path: &Path<'_>,
    chain: &NftChain,
    direction: &str,
    whom: &str,
    mut statements: Vec<Statement<'static>>,
) -> Step {
    let why = format!(
        "packets from the {whom} pass {} {} ({})",
        chain.table, chain.chain, chain.reason
    );
    statements.push(Statement::Accept(None));
    let rule = NftRule {
        family: chain.family.clone(),
        table: chain.table.clone(),
        chain: chain.chain.clone(),
        statements: serde_json::to_value(statements).unwrap_or_default(),
        comment: format!("clatd:{}:{direction}", path.instance.name),
    };
    let command = path.instance.settings.programs.cmd_nft.clone();
    Step::new(
        StageName::Firewall,
        why,
        Op::InsertNftRule {
            command: command.clone(),
            rule: rule.clone(),
        },
        Op::RemoveNftRule { command, rule },
    )
}

fn device(key: MetaKey, name: &str) -> Statement<'static> {
    Statement::Match(Match {
        left: Expression::Named(NamedExpression::Meta(Meta { key })),
        right: Expression::String(Cow::Owned(name.to_owned())),
        op: Operator::EQ,
    })
}

fn address(field: &'static str, network: ipnet::Ipv6Net) -> Statement<'static> {
    let address = Expression::String(Cow::Owned(network.addr().to_string()));
    let right = match network.prefix_len() {
        128 => address,
        len => Expression::Named(NamedExpression::Prefix(Prefix {
            addr: Box::new(address),
            len: len.into(),
        })),
    };
    let field = PayloadField {
        protocol: "ip6".into(),
        field: field.into(),
    };
    Statement::Match(Match {
        left: Expression::Named(NamedExpression::Payload(Payload::PayloadField(field))),
        right,
        op: Operator::EQ,
    })
}

const POLICY: &str = "policy drop";

/// A chain of type filter that hangs on a hook.
struct BaseChain<'a> {
    family: &'a str,
    table: &'a str,
    name: &'a str,
    hook: &'a str,
    policy_drop: bool,
}

impl<'a> BaseChain<'a> {
    fn new(chain: &'a Value) -> Option<Self> {
        (text(chain, "type") == Some("filter")).then_some(())?;
        Some(Self {
            family: text(chain, "family")?,
            table: text(chain, "table")?,
            name: text(chain, "name")?,
            hook: text(chain, "hook")?,
            policy_drop: text(chain, "policy") == Some("drop"),
        })
    }
}

struct Ruleset<'a> {
    chains: Vec<&'a Value>,
    rules: Vec<&'a Value>,
    maps: Vec<&'a Value>,
}

impl<'a> Ruleset<'a> {
    fn new(ruleset: &'a Value) -> Self {
        let objects = ruleset
            .get("nftables")
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let all = |kind: &str| objects.iter().filter_map(|object| object.get(kind)).collect();
        Self {
            chains: all("chain"),
            rules: all("rule"),
            maps: all("map"),
        }
    }

    /// The base chains of `families` for which `reason` has one.
    fn base_chains(&self, families: &[&str], reason: impl Fn(&BaseChain<'_>) -> Option<String>) -> Vec<NftChain> {
        let chains = self.chains.iter().filter_map(|chain| BaseChain::new(chain));
        let chains = chains.filter(|chain| families.contains(&chain.family));
        let found = chains.filter_map(|chain| {
            Some(NftChain {
                reason: reason(&chain)?,
                family: chain.family.into(),
                table: chain.table.into(),
                chain: chain.name.into(),
                hook: chain.hook.into(),
            })
        });
        found.collect()
    }

    /// Why a chain could stop a packet.
    fn drops(&self, chain: &BaseChain<'_>) -> Option<String> {
        if chain.policy_drop {
            return Some(POLICY.to_owned());
        }
        let verdict = self.stops(chain.family, chain.table, chain.name, &mut BTreeSet::new())?;
        Some(format!("rule with {verdict}"))
    }

    fn rules_of(&self, family: &str, table: &str, chain: &str) -> impl Iterator<Item = &'a Value> {
        self.rules
            .iter()
            .copied()
            .filter(move |rule| {
                (text(rule, "family"), text(rule, "table"), text(rule, "chain"))
                    == (Some(family), Some(table), Some(chain))
            })
            .filter_map(|rule| rule.get("expr"))
    }

    /// The first verdict that could stop a packet, in this chain or in one to which it leads.
    fn stops(&self, family: &str, table: &str, chain: &str, seen: &mut BTreeSet<String>) -> Option<&'static str> {
        if !seen.insert(chain.to_owned()) {
            return None;
        }
        self.rules_of(family, table, chain)
            .find_map(|rule| self.stops_in(rule, family, table, seen))
    }

    fn stops_in(&self, value: &Value, family: &str, table: &str, seen: &mut BTreeSet<String>) -> Option<&'static str> {
        match value {
            Value::Array(items) => items.iter().find_map(|item| self.stops_in(item, family, table, seen)),
            Value::Object(fields) => fields.iter().find_map(|(key, inner)| match key.as_str() {
                "drop" => Some("drop"),
                "reject" => Some("reject"),
                "queue" => Some("queue"),
                // An extension of iptables' (`xt`) is opaque.
                "xt" => Some("an xt extension"),
                "jump" | "goto" => self.stops(family, table, text(inner, "target")?, seen),
                "vmap" => match inner.get("data").and_then(Value::as_str) {
                    Some(map) => self.stops_in(
                        self.elements(family, table, map.trim_start_matches('@'))?,
                        family,
                        table,
                        seen,
                    ),
                    None => self.stops_in(inner, family, table, seen),
                },
                _ => self.stops_in(inner, family, table, seen),
            }),
            // libnftables writes a verdict in a set as a bare word.
            Value::String(word) if word == "drop" => Some("drop"),
            _ => None,
        }
    }

    fn elements(&self, family: &str, table: &str, map: &str) -> Option<&'a Value> {
        let found = self.maps.iter().find(|candidate| {
            (
                text(candidate, "family"),
                text(candidate, "table"),
                text(candidate, "name"),
            ) == (Some(family), Some(table), Some(map))
        })?;
        found.get("elem")
    }

    fn reverse_path_filter(&self, family: &str, table: &str, chain: &str) -> bool {
        self.looks_up_source(family, table, chain, &mut BTreeSet::new())
            && self.stops(family, table, chain, &mut BTreeSet::new()).is_some()
    }

    fn looks_up_source(&self, family: &str, table: &str, chain: &str, seen: &mut BTreeSet<String>) -> bool {
        seen.insert(chain.to_owned())
            && self.rules_of(family, table, chain).any(|rule| {
                contains_key(rule, "fib")
                    || targets(rule)
                        .into_iter()
                        .any(|target| self.looks_up_source(family, table, target, seen))
            })
    }
}

fn targets(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(items) => items.iter().flat_map(targets).collect(),
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(key, inner)| match key.as_str() {
                "jump" | "goto" => text(inner, "target").into_iter().collect(),
                _ => targets(inner),
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn contains_key(value: &Value, wanted: &str) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| contains_key(item, wanted)),
        Value::Object(fields) => fields
            .iter()
            .any(|(key, inner)| key == wanted || contains_key(inner, wanted)),
        _ => false,
    }
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key)?.as_str()
}
