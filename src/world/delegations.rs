//! Prefixes delegated by DHCPv6: one client per uplink, begun when the first instance wants a prefix there.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clatd_stages::facts::{Fact, Source};
use ipnet::Ipv6Net;
use tokio::sync::Mutex;

use super::Notify;
use crate::dhcp6::{self, PdClient, PdLease};

/// How long an observation waits for a server; a lease that comes later is told by `notify`.
const FIRST_LEASE: Duration = Duration::from_secs(3);

/// The clients by uplink. Clones share them.
#[derive(Clone)]
pub(super) struct Delegations {
    runtime_dir: PathBuf,
    clients: Arc<Mutex<BTreeMap<String, PdClient>>>,
}

impl Default for Delegations {
    fn default() -> Self {
        Self::in_directory(Path::new("/run/clatd"))
    }
}

impl Delegations {
    pub(super) fn in_directory(runtime_dir: &Path) -> Self {
        Self {
            runtime_dir: runtime_dir.to_owned(),
            clients: Arc::default(),
        }
    }

    /// The prefix that an earlier run was given and that still holds.
    pub(super) fn kept(&self, device: &str) -> Option<Fact<Ipv6Net>> {
        dhcp6::kept(device, &self.runtime_dir).map(fact)
    }

    /// The prefix delegated on a device now.
    pub(super) async fn prefix(&self, device: &str, notify: &Notify) -> io::Result<Option<Fact<Ipv6Net>>> {
        let mut clients = self.clients.lock().await;
        if !clients.contains_key(device) {
            let notify = Arc::clone(notify);
            let client = PdClient::start(device, &self.runtime_dir, move || notify())?;
            // Others wait with us: they want to know the same.
            client.wait_first(FIRST_LEASE).await;
            clients.insert(device.to_owned(), client);
        }
        let state = clients.get(device).map(PdClient::state);
        Ok(state.and_then(|state| state.lease).map(fact))
    }

    /// Gives all prefixes back.
    pub(super) async fn release(&self) {
        let clients = std::mem::take(&mut *self.clients.lock().await);
        for client in clients.into_values() {
            client.release().await;
        }
    }
}

fn fact(lease: PdLease) -> Fact<Ipv6Net> {
    let lifetime_s = Some(lease.preferred_s).filter(|seconds| *seconds != u32::MAX);
    Fact {
        value: lease.prefix,
        source: Source::Dhcp6(lease.server),
        lifetime_s,
    }
}
