//! The IPv6 rule of table local, which comes first: `0: from all lookup local`.
//!
//! Nothing here needs another place for it. Older versions moved it to priority 1, and a rule that another program
//! then added without a priority went before it. Their journals are still undone.

use std::sync::Arc;

use clatd_stages::net::{LOCAL_TABLE, Rule};

use super::failure::{NOTHING, OpResult};
use super::netlink::{FoundRule, Netlink, NetlinkError};

/// The kernel's own rule for the local table.
fn usual() -> Rule {
    Rule {
        protocol: libc::RTPROT_KERNEL,
        ..Rule::ours(true, 0, LOCAL_TABLE)
    }
}

/// Where older versions moved it.
fn moved() -> Rule {
    Rule { priority: 1, ..usual() }
}

/// Whether an older version moved the rule.
pub(crate) async fn is_moved(netlink: &Netlink) -> Result<bool, NetlinkError> {
    let rules = netlink.rules(true).await?;
    Ok(find(&rules, &moved()).is_some())
}

/// Makes the rule the first one again, if an older version moved it. The rule exists at every moment.
pub(crate) async fn restore(netlink: &Netlink) -> OpResult {
    if !is_moved(netlink).await? {
        return Ok(NOTHING);
    }
    if find(&netlink.rules(true).await?, &usual()).is_none() {
        netlink.add_rule(&usual()).await?;
    }
    let rules = netlink.rules(true).await?;
    // The kernel puts a rule behind those of the same priority. So the others are added again and the first of each
    // pair is deleted, in their order: then they stand behind it, in the order that they had.
    for found in rules.iter().take_while(|found| !is(found, &usual())) {
        netlink.repeat_rule(found).await?;
        netlink.delete_rule(found).await?;
    }
    if let Some(found) = find(&rules, &moved()) {
        netlink.delete_rule(found).await?;
    }
    Ok(NOTHING)
}

fn is(found: &FoundRule, rule: &Rule) -> bool {
    found.plain && found.rule == *rule
}

fn find<'a>(rules: &'a [Arc<FoundRule>], rule: &Rule) -> Option<&'a FoundRule> {
    rules.iter().map(|found| &**found).find(|found| is(found, rule))
}
