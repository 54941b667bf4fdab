//! `clat-v6-addr=shared`: the CLAT uses the host's own address, as clatd 2.x does. Its flows bear a conntrack mark, and
//! only replies with that mark go to the translator, so that the host's own IPv6 traffic to the same NAT64 goes on.
//!
//! The routing table of the host's own addresses is looked up first, so the rule that selects the CLAT's replies must
//! come before it: the rule of the local table moves from priority 0 to 1 for as long as any instance needs that.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use nftables::expr::{CT, Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField};
use nftables::schema::{Chain, NfListObject, Rule as NftableRule};
use nftables::stmt::{Mangle, Match, Operator, Statement};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};
use serde_json::{Value, json};

use crate::facts::Facts;
use crate::op::Op;
use crate::plan::{StageName, Step};
use crate::settings::Settings;

/// The mark where none is set.
const MARK: u32 = 0xc1a7;
/// nft's priority `mangle`: after conntrack, before the look-up of the route and everybody's filters.
const PRIORITY: i32 = -150;

/// The mark of an instance's flows; `None` = the instance is told by addresses alone.
pub(crate) fn mark(settings: &Settings) -> Option<u32> {
    Some(settings.ctmark.unwrap_or(MARK)).filter(|mark| *mark != 0)
}

/// The table that marks the CLAT's flows and its replies. Nothing where addresses alone tell.
pub(crate) fn marking(settings: &Settings, facts: &Facts) -> Option<Step> {
    let mark = mark(settings)?;
    let uplink = facts.uplink.as_ref()?.value.name.as_str();
    let address = facts.clat_v6_addr.as_ref()?.value;
    let (command, family) = (settings.cmd_nft.clone(), "ip6".to_owned());
    let table = format!("clatd_{}", settings.route_table);
    let ruleset = ruleset(&table, &settings.clat_dev, uplink, address, mark);
    Some(Step::new(
        StageName::Firewall,
        "tells the CLAT's flows from the host's own, which have the same address",
        Op::CreateNftTable {
            command: command.clone(),
            family: family.clone(),
            table: table.clone(),
            ruleset,
        },
        Op::DeleteNftTable {
            command,
            family,
            table,
            only_if_empty: false,
        },
    ))
}

fn ruleset(table: &str, clat: &str, uplink: &str, address: Ipv6Addr, mark: u32) -> Value {
    let table = || Cow::Owned(table.to_owned());
    let chain = Chain {
        family: NfFamily::IP6,
        table: table(),
        name: "prerouting".into(),
        _type: Some(NfChainType::Filter),
        hook: Some(NfHook::Prerouting),
        prio: Some(PRIORITY),
        policy: Some(NfChainPolicy::Accept),
        ..Chain::default()
    };
    let rule = |statements: Vec<Statement<'static>>, comment: &'static str| {
        NfListObject::Rule(NftableRule {
            family: NfFamily::IP6,
            table: table(),
            chain: "prerouting".into(),
            expr: Cow::Owned(statements),
            comment: Some(comment.into()),
            ..NftableRule::default()
        })
    };
    let from_clat = vec![
        equals(meta(MetaKey::Iifname), Expression::String(Cow::Owned(clat.to_owned()))),
        equals(ip6("saddr"), Expression::String(Cow::Owned(address.to_string()))),
        set(ct_mark(), Expression::Number(mark)),
        // Reverse-path filters of others look the source up with the packet's mark.
        set(meta(MetaKey::Mark), Expression::Number(mark)),
    ];
    let to_clat = vec![
        equals(
            meta(MetaKey::Iifname),
            Expression::String(Cow::Owned(uplink.to_owned())),
        ),
        equals(ip6("daddr"), Expression::String(Cow::Owned(address.to_string()))),
        equals(ct_mark(), Expression::Number(mark)),
        set(meta(MetaKey::Mark), Expression::Number(mark)),
    ];
    let objects = [
        NfListObject::Chain(chain),
        rule(from_clat, "flows of the CLAT"),
        rule(to_clat, "replies to the CLAT, and errors about its packets"),
    ];
    objects.iter().map(|object| json!({ "add": object })).collect()
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
