//! What of others' the fast path would bypass. It takes packets from an uplink before filters and chains there see them, and
//! gives them to the uplink without a look at IPsec policies.

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use clatd_stages::fast_path::Attachment;
use clatd_stages::net::Link;
use clatd_translator::Pref64;
use ipnet::Ipv6Net;
use tokio::time::Instant;

use super::super::netlink::{Hook, IngressChain, Netlink, NetlinkError, Policy, ingress_chains, policies};
use super::FastPath;
use super::attached::{self, AttachedError};
use super::programs::Program;
use crate::sys::bpf::Tcx;

/// No more policies and chains than this are read; where there are more, the fast path is not taken.
const MOST: usize = 1024;
/// For so long all instances share one look at what concerns the whole host. New policies are told of later than that.
const SHARED_FOR: Duration = Duration::from_millis(100);

/// What concerns all uplinks; `None` = there is more than is read.
#[derive(Debug)]
pub(super) struct OfHost {
    policies: Option<Vec<Policy>>,
    chains: Option<Vec<IngressChain>>,
}

/// The last look at it.
#[derive(Debug, Default)]
pub(super) struct LastLook(tokio::sync::Mutex<Option<(Instant, Arc<OfHost>)>>);

impl LastLook {
    async fn take(&self) -> Result<Arc<OfHost>, NetlinkError> {
        let mut last = self.0.lock().await;
        if let Some((_, found)) = last.as_ref().filter(|(at, _)| at.elapsed() < SHARED_FOR) {
            return Ok(Arc::clone(found));
        }
        let found = Arc::new(OfHost {
            policies: policies(MOST).await?,
            chains: ingress_chains(MOST).await?,
        });
        *last = Some((Instant::now(), Arc::clone(&found)));
        Ok(found)
    }
}

impl OfHost {
    fn on(&self, uplink: &Link, from: Ipv6Addr, to: Pref64) -> Option<String> {
        let Some(policies) = &self.policies else {
            return Some(format!(
                "IPsec policies, of which there are more than the {MOST} that clatd reads"
            ));
        };
        let applies = |policy: &&Policy| {
            let to = Ipv6Net::new_assert(to.address(), to.length());
            policy.from.contains(&from)
                && (policy.to.contains(&to) || to.contains(&policy.to))
                && [0, uplink.index].contains(&policy.device)
        };
        if let Some(policy) = policies.iter().find(applies) {
            return Some(format!(
                "the IPsec policy for packets from {} to {}",
                policy.from, policy.to
            ));
        }
        let Some(chains) = &self.chains else {
            return Some(format!(
                "nft chains of family netdev, of which there are more than the {MOST} that clatd reads"
            ));
        };
        let sees = |chain: &&IngressChain| chain.devices.contains(&uplink.name);
        let chain = chains.iter().find(sees)?;
        let (table, name) = (&chain.table, &chain.name);
        Some(format!(
            "chain {name} of nft table netdev {table}, which sees what comes in by {}",
            uplink.name
        ))
    }
}

impl FastPath {
    /// What of others' it would bypass on this uplink.
    pub(crate) async fn bypassed(
        &self,
        netlink: &Netlink,
        uplink: &Link,
        from: Ipv6Addr,
        to: Pref64,
    ) -> Result<Option<String>, AttachedError> {
        let of_host = self.last_look.take().await.map_err(AttachedError::OfHost)?;
        if let Some(found) = of_host.on(uplink, from, to) {
            return Ok(Some(found));
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
