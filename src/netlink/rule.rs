//! Policy rules.

use std::net::IpAddr;
use std::sync::Arc;

use clatd_stages::net::Rule;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use super::mirror::Need;
use super::wire::{self, Attributes};
use super::{NLM_F_CREATE, NLM_F_EXCL, Netlink, NetlinkError, emit};

/// Length of `struct fib_rule_hdr`.
const HEADER: usize = 12;
const FR_ACT_TO_TBL: u8 = 1;
const FR_ACT_NOP: u8 = 3;
const FIB_RULE_PERMANENT: u32 = 1;
const FIB_RULE_INVERT: u32 = 2;

const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_SUPPRESS_IFGROUP: u16 = 13;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_OIFNAME: u16 = 17;
const FRA_PAD: u16 = 18;
const FRA_PROTOCOL: u16 = 21;

/// A rule that the kernel has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundRule {
    /// As far as [`Rule`] can say.
    pub(crate) rule: Rule,
    /// It has no other selector, and its only action is to look up a table.
    pub(crate) plain: bool,
    /// It takes packets that its known selectors do not describe.
    pub(crate) inverted: bool,
    /// It does nothing at all.
    pub(crate) idle: bool,
    /// The kernel's message, without flags that tell how it is, such as that its device is missing.
    payload: Vec<u8>,
}

#[cfg(test)]
impl FoundRule {
    /// A rule as it would be found.
    pub(crate) fn plain(rule: Rule) -> Self {
        Self {
            rule,
            plain: true,
            inverted: false,
            idle: false,
            payload: Vec::new(),
        }
    }
}

impl Netlink {
    /// The rules of an IP version, in the kernel's order.
    pub(crate) async fn rules(&self, v6: bool) -> Result<Vec<Arc<FoundRule>>, NetlinkError> {
        self.hub
            .read(&[Need::Rules(v6)], move |mirror, _| mirror.rules(v6))
            .await
    }

    /// The same, as far as [`Rule`] can say.
    #[cfg(feature = "testing")]
    pub async fn plain_rules(&self, v6: bool) -> Result<Vec<Rule>, NetlinkError> {
        let rules = self.rules(v6).await?;
        Ok(rules.iter().map(|found| found.rule.clone()).collect())
    }

    /// Adds a rule; fails with `EEXIST` if there is the same.
    pub async fn add_rule(&self, rule: &Rule) -> Result<(), NetlinkError> {
        self.request(libc::RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, emit(&message(rule)))
            .await
            .map(drop)
    }

    /// Deletes exactly this rule: the first one that is equal.
    pub(crate) async fn delete_rule(&self, found: &FoundRule) -> Result<(), NetlinkError> {
        let payload = found.payload.clone();
        self.request(libc::RTM_DELRULE, 0, payload).await.map(drop)
    }

    /// Adds the same rule once more, behind all others of its priority.
    pub(crate) async fn repeat_rule(&self, found: &FoundRule) -> Result<(), NetlinkError> {
        let payload = found.payload.clone();
        self.request(libc::RTM_NEWRULE, NLM_F_CREATE, payload).await.map(drop)
    }
}

fn message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = if rule.v6 {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    };
    message.header.action = RuleAction::ToTable;
    message.header.table = u8::try_from(rule.table).unwrap_or_default();
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Priority(rule.priority));
    attributes.push(RuleAttribute::Table(rule.table));
    attributes.push(RuleAttribute::Protocol(RouteProtocol::from(rule.protocol)));
    if let Some(from) = rule.from {
        message.header.src_len = from.prefix_len();
        attributes.push(RuleAttribute::Source(from.trunc().addr()));
    }
    if let Some(to) = rule.to {
        message.header.dst_len = to.prefix_len();
        attributes.push(RuleAttribute::Destination(to.trunc().addr()));
    }
    attributes.extend(rule.iif.clone().map(RuleAttribute::Iifname));
    attributes.extend(rule.oif.clone().map(RuleAttribute::Oifname));
    attributes.extend(rule.fwmark.map(RuleAttribute::FwMark));
    attributes.extend(rule.suppress_prefixlen.map(RuleAttribute::SuppressPrefixLen));
    message
}

/// The request for all rules.
pub(super) fn dump_of_all(v6: bool) -> Vec<u8> {
    let mut payload = vec![0; HEADER];
    payload[0] = wire::family(v6);
    payload
}

/// A rule from `struct fib_rule_hdr` and its attributes.
pub(super) fn parse(payload: &[u8]) -> Option<FoundRule> {
    let v6 = i32::from(*payload.first()?) == libc::AF_INET6;
    let (dst_len, src_len) = (*payload.get(1)?, *payload.get(2)?);
    let mut rule = Rule {
        v6,
        priority: 0,
        ahead: false,
        from: None,
        to: None,
        iif: None,
        oif: None,
        fwmark: None,
        suppress_prefixlen: None,
        table: u32::from(*payload.get(4)?),
        protocol: 0,
    };
    let tos = *payload.get(3)?;
    let action = *payload.get(7)?;
    let flags = wire::u32_at(payload, 8)? & (FIB_RULE_PERMANENT | FIB_RULE_INVERT);
    let inverted = flags & FIB_RULE_INVERT != 0;
    let mut lasting = payload.to_vec();
    lasting.get_mut(8..12)?.copy_from_slice(&flags.to_ne_bytes());
    let mut plain = tos == 0 && action == FR_ACT_TO_TBL && !inverted;
    let mut mask = 0;
    let network = |address: Option<IpAddr>, length| address.and_then(|address| IpNet::new(address, length).ok());
    for attribute in Attributes(payload.get(HEADER..)?) {
        match attribute.kind {
            FRA_DST => rule.to = network(attribute.address(), dst_len),
            FRA_SRC => rule.from = network(attribute.address(), src_len),
            FRA_IIFNAME => rule.iif = Some(attribute.text()),
            FRA_OIFNAME => rule.oif = Some(attribute.text()),
            FRA_PRIORITY => rule.priority = attribute.u32()?,
            FRA_FWMARK => rule.fwmark = attribute.u32(),
            FRA_FWMASK => mask = attribute.u32()?,
            FRA_TABLE => rule.table = attribute.u32()?,
            FRA_PROTOCOL => rule.protocol = attribute.u8()?,
            // Reported on every rule; all ones = none.
            FRA_SUPPRESS_PREFIXLEN => rule.suppress_prefixlen = attribute.u32().filter(|length| *length != u32::MAX),
            FRA_SUPPRESS_IFGROUP => plain &= attribute.u32() == Some(u32::MAX),
            FRA_PAD => {}
            _ => plain = false,
        }
    }
    // `Rule` cannot express a mark of 0 under a mask, nor any mask but the whole one.
    plain &= mask == if rule.fwmark.is_some() { u32::MAX } else { 0 };
    Some(FoundRule {
        rule,
        plain,
        inverted,
        idle: action == FR_ACT_NOP,
        payload: lasting,
    })
}
