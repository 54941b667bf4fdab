//! Prefixes delegated by DHCPv6 (RFC 8415, IA_PD), asked for on an uplink: for `clat-v6-addr=pd`. What is said to whom
//! and when is in [`clatd_stages::dhcp6`]; here are the socket, the clock and the file that keeps the lease.
//!
//! ```text
//!  links (netlink) -+
//!  socket ----------+--> task (one per uplink) --state--> PdClient::state
//!  timer, release --+      |  `---notify---> whoever made the PdClient
//!                          `--> <runtime>/pd-<device>.json
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use clatd_stages::dhcp6::{Lease, Phase};
use ipnet::Ipv6Net;
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::clock::since_boot;
use crate::kernel::Netlink;

mod file;
mod machine;
mod socket;
mod task;

pub use clatd_stages::dhcp6::{choose_address, stable_seed};
pub use machine::machine_identity;

/// A release takes a second at most; this limit is for a task that hangs.
const RELEASE_LIMIT: Duration = Duration::from_millis(1500);

/// Requests a prefix on one uplink as long as it exists. There is at most one per uplink; instances on the same
/// uplink share it.
///
/// If it is dropped without [`PdClient::release`], the lease stays at the server and in its file, and the next client
/// on this uplink continues it.
#[derive(Debug)]
pub struct PdClient {
    device: String,
    state: watch::Receiver<task::ClientState>,
    stop: CancellationToken,
    _task: AbortOnDropHandle<()>,
}

/// What is known of a delegated prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PdState {
    /// What is delegated; `None` = nothing now.
    pub lease: Option<PdLease>,
    /// Where the client stands.
    pub phase: Phase,
    /// Why there is no prefix, or why the lease is not prolonged.
    pub last_error: Option<String>,
}

/// A delegated prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PdLease {
    /// The prefix.
    pub prefix: Ipv6Net,
    /// For how many more seconds it is preferred; `u32::MAX` = for ever.
    pub preferred_s: u32,
    /// For how many more seconds it is valid; `u32::MAX` = for ever.
    pub valid_s: u32,
    /// The DUID of the server, in hex.
    pub server: String,
}

impl PdLease {
    fn of(lease: &Lease, now: Duration) -> Option<Self> {
        let prefix = lease.in_use()?;
        let valid_s = prefix.valid_left(now);
        (valid_s > 0).then(|| Self {
            prefix: prefix.prefix,
            preferred_s: prefix.preferred_left(now),
            valid_s,
            server: lease.server.to_string(),
        })
    }
}

impl PdClient {
    /// Begins to request on `device`, as soon as the device has a link-local address and a carrier. Needs a runtime,
    /// and works in the network namespace of the calling thread. `notify` is called whenever the lease or the error
    /// changes; it must not block.
    pub fn start(
        device: &str,
        runtime_dir: &Path,
        netlink: Netlink,
        notify: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let stop = CancellationToken::new();
        let file = lease_file(runtime_dir, device);
        let (task, state) = task::ClientTask::new(device, file, netlink, Box::new(notify), stop.clone());
        Self {
            device: device.to_owned(),
            state,
            stop,
            _task: AbortOnDropHandle::new(tokio::spawn(task.run())),
        }
    }

    /// The uplink.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// What is known now.
    pub fn state(&self) -> PdState {
        self.state.borrow().snapshot(since_boot())
    }

    /// Like [`PdClient::state`], but without a lease it waits for one, for `longest` at most.
    pub async fn wait_first(&self, longest: Duration) -> PdState {
        let mut state = self.state.clone();
        let settled = state.wait_for(|state| state.lease.is_some() || state.phase == Phase::Ended);
        // However the wait ends, the current state is the answer.
        let _ = tokio::time::timeout(longest, settled).await;
        self.state()
    }

    /// Gives the prefix back (RFC 8415 section 18.2.7) and ends. Without an answer of the server this takes a second
    /// at most. Nothing may use the prefix any more when this is called.
    pub async fn release(&self) {
        self.stop.cancel();
        let mut state = self.state.clone();
        let ended = state.wait_for(|state| state.phase == Phase::Ended);
        let _ = tokio::time::timeout(RELEASE_LIMIT, ended).await;
    }
}

/// The lease that an earlier run left for `device`, if it has not expired. A dry run uses it.
pub fn kept(device: &str, runtime_dir: &Path) -> Option<PdLease> {
    let (duid, iaid) = machine::client(device);
    let now = since_boot();
    let lease = file::load(&lease_file(runtime_dir, device), &duid)?;
    PdLease::of(&lease, now).filter(|_| lease.is_sound(iaid, now))
}

fn lease_file(runtime_dir: &Path, device: &str) -> PathBuf {
    runtime_dir.join(format!("pd-{device}.json"))
}
