//! `clat-v6-addr=shared`: the CLAT uses the host's own address, as clatd 2.x does. Its flows have a conntrack mark,
//! and only replies with that mark go to the translator. So the host's own IPv6 traffic to the same NAT64 goes on.
//!
//! The kernel first looks up the routing table of the host's own addresses. No rule of ours may stand before that
//! table's rule: a program that adds a rule without a priority would then get one before it, too. So nft takes the
//! replies before routing: its `dup` sends a copy to the CLAT device, and the original is dropped.
//!
//! The fast path needs none of this: its programs know the CLAT's flows.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use clatd_translator::Pref64;
use nftables::expr::{CT, Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField, Prefix};
use nftables::schema::{Chain, NfListObject, Rule as NftableRule};
use nftables::stmt::{Drop, Dup, Mangle, Match, Operator, Statement};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};
use serde_json::{Value, json};

use crate::facts::Facts;
use crate::op::{NewNftTable, NftTableDeletion, Op};
use crate::plan::{StageName, Step};
use crate::settings::Settings;

/// The connection mark where none is set.
const DEFAULT_CTMARK: u32 = 0xc1a7;
/// nft's priority `mangle`: after conntrack, before the route look-up and before all filters.
const PRIORITY: i32 = -150;
const CHAIN: &str = "prerouting";

/// The next hop to which copies are sent on the CLAT device. Nobody has the address; `dup` needs one that has a
/// route. Each instance has its own next hop, since the routes of all instances stand in table `local`.
pub(crate) fn next_hop(settings: &Settings) -> Ipv6Addr {
    const LINK_LOCAL: u128 = 0xfe80 << 112;
    Ipv6Addr::from_bits(LINK_LOCAL | u128::from(settings.clat.route_table))
}

/// The device of packets that this host sends to itself.
const LOOPBACK: &str = "lo";

/// The connection mark of an instance's flows; `None` = addresses alone identify them.
pub(crate) fn ctmark(settings: &Settings) -> Option<u32> {
    Some(settings.clat.ctmark.unwrap_or(DEFAULT_CTMARK)).filter(|mark| *mark != 0)
}

/// The table that marks the CLAT's flows and hands their replies to it.
pub(crate) fn steering(settings: &Settings, facts: &Facts) -> Option<Step> {
    let steering = Steering {
        table: format!("clatd_{}", settings.clat.route_table),
        clat: &settings.clat.clat_dev,
        uplink: &facts.uplink.as_ref()?.value.name,
        address: facts.clat_v6_addr.as_ref()?.value,
        plat_prefix: facts.plat_prefix.as_ref()?.value,
        next_hop: next_hop(settings),
    };
    let (command, family) = (settings.programs.cmd_nft.clone(), "ip6".to_owned());
    Some(Step::new(
        StageName::Firewall,
        "tells the CLAT's flows from the host's own, which have the same address, and hands their replies to the CLAT",
        Op::CreateNftTable(NewNftTable {
            command: command.clone(),
            family: family.clone(),
            table: steering.table.clone(),
            ruleset: steering.ruleset(ctmark(settings)),
        }),
        Op::DeleteNftTable(NftTableDeletion {
            command,
            family,
            table: steering.table,
            only_if_empty: false,
        }),
    ))
}

struct Steering<'a> {
    table: String,
    clat: &'a str,
    uplink: &'a str,
    address: Ipv6Addr,
    plat_prefix: Pref64,
    next_hop: Ipv6Addr,
}

impl Steering<'_> {
    fn ruleset(&self, mark: Option<u32>) -> Value {
        let chain = Chain {
            family: NfFamily::IP6,
            table: self.table.clone().into(),
            name: CHAIN.into(),
            _type: Some(NfChainType::Filter),
            hook: Some(NfHook::Prerouting),
            prio: Some(PRIORITY),
            policy: Some(NfChainPolicy::Accept),
            ..Chain::default()
        };
        let mut objects = vec![NfListObject::Chain(chain)];
        match mark {
            Some(mark) => {
                objects.push(self.rule(self.flows(mark), "flows of the CLAT"));
                let replies = "replies to the CLAT, and errors about its packets";
                objects.push(self.rule(
                    self.replies(self.uplink, equals(ct_mark(), Expression::Number(mark))),
                    replies,
                ));
                let own = "errors of this host about the CLAT's packets";
                objects.push(self.rule(self.replies(LOOPBACK, equals(ct_mark(), Expression::Number(mark))), own));
            }
            // Only the prefix identifies these packets. Errors of routers on the way go to the host.
            None => {
                let from_plat = equals(ip6("saddr"), prefix(self.plat_prefix));
                objects.push(self.rule(self.replies(self.uplink, from_plat), "replies to the CLAT"));
            }
        }
        objects.iter().map(|object| json!({ "add": object })).collect()
    }

    fn rule(&self, statements: Vec<Statement<'static>>, comment: &'static str) -> NfListObject<'static> {
        NfListObject::Rule(NftableRule {
            family: NfFamily::IP6,
            table: self.table.clone().into(),
            chain: CHAIN.into(),
            expr: Cow::Owned(statements),
            comment: Some(comment.into()),
            ..NftableRule::default()
        })
    }

    fn flows(&self, mark: u32) -> Vec<Statement<'static>> {
        vec![
            equals(meta(MetaKey::Iifname), name(self.clat)),
            equals(ip6("saddr"), name(&self.address.to_string())),
            set(ct_mark(), Expression::Number(mark)),
            // Reverse-path filters of other programs look up the source with the packet's mark.
            set(meta(MetaKey::Mark), Expression::Number(mark)),
        ]
    }

    fn replies(&self, from: &str, told_by: Statement<'static>) -> Vec<Statement<'static>> {
        vec![
            equals(meta(MetaKey::Iifname), name(from)),
            equals(ip6("daddr"), name(&self.address.to_string())),
            told_by,
            Statement::Dup(Dup {
                addr: name(&self.next_hop.to_string()),
                dev: Some(name(self.clat)),
            }),
            Statement::Drop(Some(Drop {})),
        ]
    }
}

fn name(text: &str) -> Expression<'static> {
    Expression::String(Cow::Owned(text.to_owned()))
}

fn prefix(prefix: Pref64) -> Expression<'static> {
    Expression::Named(NamedExpression::Prefix(Prefix {
        addr: Box::new(name(&prefix.address().to_string())),
        len: prefix.length().into(),
    }))
}

fn meta(key: MetaKey) -> Expression<'static> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

fn ct_mark() -> Expression<'static> {
    Expression::Named(NamedExpression::CT(CT {
        key: "mark".into(),
        family: None,
        dir: None,
    }))
}

fn ip6(field: &'static str) -> Expression<'static> {
    let field = PayloadField {
        protocol: "ip6".into(),
        field: field.into(),
    };
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(field)))
}

fn equals(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    Statement::Match(Match {
        left,
        right,
        op: Operator::EQ,
    })
}

fn set(key: Expression<'static>, value: Expression<'static>) -> Statement<'static> {
    Statement::Mangle(Mangle { key, value })
}
