//! Addresses that instances want for themselves: each is checked for duplicates once (RFC 4862 section 5.4), and watched
//! for others that take it all the same while it is in use.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clatd_stages::nd::{How, Parameters};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::warn;

use super::Notify;
use crate::kernel::sysctl;
use crate::probe::{self, ConflictWatch, ProbeError};

/// The shortest and the longest time that a neighbour is given to answer, whatever a router says.
const RETRANSMIT: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How long an address that somebody has is left alone before it is tried again.
const TAKEN_FOR: Duration = Duration::from_secs(600);

/// What is known of each address. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Claims {
    known: Arc<Mutex<BTreeMap<(String, Ipv6Addr), Claim>>>,
}

enum Claim {
    /// Nobody else has it; the watch reports if that changes.
    Ours { _watch: ConflictWatch },
    /// Somebody has it.
    Taken { by: String, since: Instant },
}

impl Claims {
    /// Who has the address; `None` = nobody else, so that it may be used from now on.
    pub(super) async fn duplicate_of(
        &self,
        device: &str,
        address: Ipv6Addr,
        notify: &Notify,
    ) -> Result<Option<String>, ProbeError> {
        let key = (device.to_owned(), address);
        match self.lock().get(&key) {
            Some(Claim::Ours { .. }) => return Ok(None),
            Some(Claim::Taken { by, since }) if since.elapsed() < TAKEN_FOR => return Ok(Some(by.clone())),
            _ => {}
        }
        if let Some(conflict) = probe::is_duplicate(device, address, parameters(device)).await? {
            let by = conflict.to_string();
            self.lock().insert(
                key,
                Claim::Taken {
                    by: by.clone(),
                    since: Instant::now(),
                },
            );
            return Ok(Some(by));
        }
        let (reports, reported) = mpsc::channel(8);
        let watch = ConflictWatch::start(device, address, reports)?;
        self.lock().insert(key.clone(), Claim::Ours { _watch: watch });
        tokio::spawn(self.clone().attend(key, reported, Arc::clone(notify)));
        Ok(None)
    }

    /// Gives the address up when somebody uses it; the instance then looks for another one. That somebody only checks
    /// it for duplicates is no matter: the kernel answers.
    async fn attend(
        self,
        key: (String, Ipv6Addr),
        mut reports: mpsc::Receiver<clatd_stages::nd::Conflict>,
        notify: Notify,
    ) {
        while let Some(conflict) = reports.recv().await {
            if conflict.how == How::Advertisement {
                warn!("{conflict} on {}, which is the CLAT's", key.0);
                self.lock().insert(
                    key,
                    Claim::Taken {
                        by: conflict.to_string(),
                        since: Instant::now(),
                    },
                );
                notify();
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, Ipv6Addr), Claim>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those of RFC 4862 section 5.1: RetransTimer is what routers say (RFC 4861 section 6.3.4), as the kernel keeps it.
fn parameters(device: &str) -> Parameters {
    let usual = Parameters::default();
    let told = sysctl::read(&format!("net/ipv6/neigh/{device}/retrans_time_ms"));
    let told = told.ok().flatten().and_then(|text| text.parse().ok());
    let retransmit = told.map_or(usual.retransmit, Duration::from_millis);
    Parameters {
        retransmit: retransmit.clamp(RETRANSMIT.0, RETRANSMIT.1),
        ..usual
    }
}
