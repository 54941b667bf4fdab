//! What other programs set up and the fast path would bypass. It takes packets from an uplink before filters and chains there see them, and
//! gives them to the uplink without a look at chains and IPsec policies.

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use clatd_stages::fast_path::Attachment;
use clatd_stages::net::Link;
use clatd_translator::Pref64;
use ipnet::Ipv6Net;
use tokio::time::Instant;

use super::super::netlink::{DeviceChain, Hook, Netlink, NetlinkError, Policy, are_blocked_by_default, policies};
use super::FastPath;
use super::attached::{self, AttachedError};
use super::programs::Program;
use crate::sys::bpf::Tcx;

/// No more policies than this are read; where there are more, the fast path is not taken.
const MOST: usize = 1024;
/// For so long all instances share one look at the policies. New ones are told of later than that.
const SHARED_FOR: Duration = Duration::from_millis(100);

/// The policies of this host.
#[derive(Debug)]
struct Policies {
    /// Whether packets are blocked that no policy is for.
    blocking: bool,
    /// `None` = there are more than are read.
    read: Option<Vec<Policy>>,
}

/// The last look at them.
#[derive(Debug, Default)]
pub(super) struct LastLook(tokio::sync::Mutex<Option<(Instant, Arc<Policies>)>>);

impl LastLook {
    async fn take(&self) -> Result<Arc<Policies>, NetlinkError> {
        let mut last = self.0.lock().await;
        if let Some((_, found)) = last.as_ref().filter(|(at, _)| at.elapsed() < SHARED_FOR) {
            return Ok(Arc::clone(found));
        }
        let found = Arc::new(Policies {
            blocking: are_blocked_by_default().await?,
            read: policies(MOST).await?,
        });
        *last = Some((Instant::now(), Arc::clone(&found)));
        Ok(found)
    }
}

fn by_policy(policies: &Policies, uplink: &Link, from: Ipv6Addr, to: Pref64) -> Option<String> {
    if policies.blocking {
        return Some("the default IPsec policy, which blocks: ip xfrm policy getdefault".into());
    }
    let Some(policies) = &policies.read else {
        return Some(format!(
            "IPsec policies, of which there are more than the {MOST} that clatd reads"
        ));
    };
    let to = Ipv6Net::new_assert(to.address(), to.length());
    let policy = policies.iter().find(|policy| policy.is_for(uplink.index, from, to))?;
    Some(format!(
        "the IPsec policy for packets from {} to {}",
        policy.from, policy.to
    ))
}

fn by_chain(chains: Option<&[DeviceChain]>, uplink: &Link) -> Option<String> {
    let Some(chains) = chains else {
        return Some("nft chains of family netdev or inet, of which there are more than clatd reads".into());
    };
    let DeviceChain { table, name, hook, .. } = chains.iter().find(|chain| chain.sees(&uplink.name))?;
    Some(format!(
        "chain {name} of nft table {table} at the {hook} of {}",
        uplink.name
    ))
}

impl FastPath {
    /// What it would bypass on this uplink; `chains` are those of the host.
    pub(crate) async fn bypassed(
        &self,
        netlink: &Netlink,
        chains: Option<&[DeviceChain]>,
        uplink: &Link,
        (from, to): (Ipv6Addr, Pref64),
    ) -> Result<Option<String>, AttachedError> {
        let policies = self.last_look.take().await.map_err(AttachedError::Policies)?;
        let found = by_policy(&policies, uplink, from, to).or_else(|| by_chain(chains, uplink));
        if found.is_some() {
            return Ok(found);
        }
        let ours = self.lock().number_at_uplinks();
        if attached::how() == Attachment::Tcx {
            let programs = attached::by_tcx(uplink.index, Tcx::Ingress).await?;
            if let Some(other) = programs.into_iter().find(|&program| Some(program) != ours) {
                return Ok(Some(format!(
                    "BPF program {other}, which somebody attached to the ingress of {}",
                    uplink.name
                )));
            }
        }
        let filter = netlink
            .filter_of_others(uplink.index, Hook::Ingress, Program::In.name())
            .await?;
        Ok(filter.map(|kind| {
            let name = &uplink.name;
            format!("a filter ({kind}) at the ingress of {name}: tc filter show dev {name} ingress")
        }))
    }
}
