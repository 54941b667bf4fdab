//! The place of the IPv6 local table's rule, which all instances with a shared address hold together.

use std::collections::BTreeSet;
use std::sync::Arc;

use clatd_stages::net::Rule;
use tokio::sync::Mutex;

use super::failure::{Done, NOTHING};
use super::netlink::Netlink;

/// Who holds the rule at its other place. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct LocalRule {
    holders: Arc<Mutex<BTreeSet<String>>>,
}

/// The kernel's own rule for the local table.
fn usual() -> Rule {
    Rule {
        protocol: libc::RTPROT_KERNEL,
        ..Rule::ours(true, 0, 255)
    }
}

/// The same at its other place. It must not bear our protocol number: a sweep that took it away would leave the host
/// without IPv6 addresses.
fn moved() -> Rule {
    Rule { priority: 1, ..usual() }
}

impl LocalRule {
    /// Adds a holder; the first moves the rule. At no moment is there none.
    pub(crate) async fn hold(&self, netlink: &Netlink, holder: &str) -> Done {
        let mut holders = self.holders.lock().await;
        if !has(netlink, &moved()).await? {
            netlink.add_rule(&moved()).await?;
        }
        remove(netlink, &usual()).await?;
        holders.insert(holder.to_owned());
        Ok(NOTHING)
    }

    /// Takes a holder away; the last moves the rule back. A holder that is not known is one of a killed daemon.
    pub(crate) async fn release(&self, netlink: &Netlink, holder: &str) -> Done {
        let mut holders = self.holders.lock().await;
        holders.remove(holder);
        if holders.is_empty() {
            restore(netlink).await?;
        }
        Ok(NOTHING)
    }
}

/// Whether the rule stands at its other place because of us.
pub(crate) async fn is_moved(netlink: &Netlink) -> Result<bool, super::NetlinkError> {
    has(netlink, &moved()).await
}

/// Moves the rule back, if it is we who moved it.
pub(crate) async fn restore(netlink: &Netlink) -> Done {
    if !has(netlink, &moved()).await? {
        return Ok(NOTHING);
    }
    if !has(netlink, &usual()).await? {
        netlink.add_rule(&usual()).await?;
    }
    remove(netlink, &moved()).await?;
    Ok(NOTHING)
}

async fn has(netlink: &Netlink, rule: &Rule) -> Result<bool, super::NetlinkError> {
    Ok(netlink
        .rules(true)
        .await?
        .iter()
        .any(|found| found.plain && found.rule == *rule))
}

async fn remove(netlink: &Netlink, rule: &Rule) -> Result<(), super::NetlinkError> {
    let rules = netlink.rules(true).await?;
    match rules.iter().find(|found| found.plain && found.rule == *rule) {
        Some(found) => netlink.delete_rule(found).await,
        None => Ok(()),
    }
}
