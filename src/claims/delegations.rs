//! Prefixes delegated by DHCPv6: one client per uplink. It starts when the first instance wants a prefix there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clatd_stages::facts::{Fact, Source};
use futures_util::future::join_all;
use ipnet::Ipv6Net;
use tokio::time::Instant;

use crate::dhcp6::{self, PdClient, PdLease};
use crate::kernel::Netlink;
use crate::util::lock;
use crate::world::OnChange;

/// How long an observation waits for a server. `notify` reports a later lease.
const FIRST_LEASE: Duration = Duration::from_secs(3);

/// The clients by uplink. Clones share them.
#[derive(Clone)]
pub(super) struct Delegations {
    netlink: Netlink,
    runtime_dir: PathBuf,
    clients: Arc<Mutex<BTreeMap<String, DelegationClient>>>,
}

/// A client, and until when observations wait for its first lease.
#[derive(Clone)]
struct DelegationClient {
    client: Arc<PdClient>,
    until: Instant,
}

impl Delegations {
    pub(super) fn in_directory(netlink: Netlink, runtime_dir: &Path) -> Self {
        Self {
            netlink,
            runtime_dir: runtime_dir.to_owned(),
            clients: Arc::default(),
        }
    }

    /// The prefix that is delegated on a device now. Waiting for the first lease does not delay requests on other
    /// devices.
    pub(super) async fn prefix(&self, device: &str, notify: &OnChange) -> Option<Fact<Ipv6Net>> {
        let DelegationClient { client, until } = self.asking(device, notify);
        let longest = until.saturating_duration_since(Instant::now());
        client.wait_first(longest).await.lease.map(fact)
    }

    fn asking(&self, device: &str, notify: &OnChange) -> DelegationClient {
        let mut clients = self.lock();
        if let Some(asking) = clients.get(device) {
            return asking.clone();
        }
        let notify = Arc::clone(notify);
        let client = PdClient::start(device, &self.runtime_dir, self.netlink.clone(), move || notify());
        let asking = DelegationClient {
            client: Arc::new(client),
            until: Instant::now() + FIRST_LEASE,
        };
        clients.insert(device.to_owned(), asking.clone());
        asking
    }

    /// Gives back the prefix of a device if nobody uses it any more.
    pub(super) async fn release_one(&self, device: &str) {
        let asking = self.lock().remove(device);
        if let Some(asking) = asking {
            asking.client.release().await;
        }
    }

    /// Gives all prefixes back.
    pub(super) async fn release(&self) {
        let clients = std::mem::take(&mut *self.lock());
        join_all(clients.values().map(|asking| asking.client.release())).await;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, DelegationClient>> {
        lock(&self.clients)
    }
}

/// The prefix of an earlier run, if its lease has not expired.
pub(super) fn kept(device: &str, runtime_dir: &Path) -> Option<Fact<Ipv6Net>> {
    dhcp6::kept(device, runtime_dir).map(fact)
}

fn fact(lease: PdLease) -> Fact<Ipv6Net> {
    let lifetime_s = Some(lease.preferred_s).filter(|seconds| *seconds != u32::MAX);
    Fact {
        value: lease.prefix,
        source: Source::Dhcp6(lease.server),
        lifetime_s,
    }
}
