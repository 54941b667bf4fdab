//! The fast path as one of the translators.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use clatd_stages::fast_path::FastPathSpec;
use clatd_stages::world::WorldError;

use super::super::failure::Failure;
use super::super::netlink::Netlink;
use super::super::ops::{Look, failed};
use super::super::statistics::Totals;
use super::super::translators::{Counting, Host, Position, Running, Started, TranslatorKind};
use super::{Counted, FastPath, hooked};
use crate::util::lock;

#[async_trait]
impl TranslatorKind for FastPathSpec {
    fn device(&self) -> &str {
        self.device()
    }

    fn position(&self) -> Position {
        Position::Before
    }

    async fn start(&self, host: Host<'_>) -> Result<Started, Failure> {
        let outcome = host.fast_path.attach(host.netlink, self).await?;
        let attached = Attached {
            counters: Arc::new(FastCounters {
                fast_path: host.fast_path.clone(),
                device: self.device().to_owned(),
                last: Mutex::default(),
            }),
            netlink: host.netlink.clone(),
        };
        Ok(Started {
            running: Box::new(attached),
            outcome,
        })
    }

    async fn stands(&self, look: &mut Look<'_>) -> Result<bool, WorldError> {
        let clat = look.link(self.device()).await?;
        let (Some(clat), Some(uplink)) = (clat, look.link(&self.uplink).await?) else {
            return Ok(true);
        };
        let (netlink, programs) = (look.netlink, &look.holds.fast_path);
        let stands = programs.stands(netlink, self, clat.index, uplink.index).await;
        stands.map_err(|error| failed("the fast path", error))
    }
}

/// The programs of one instance. They are taken off by whoever undoes the instance, also when this was dropped.
#[derive(Debug)]
struct Attached {
    counters: Arc<FastCounters>,
    netlink: Netlink,
}

#[async_trait]
impl Running for Attached {
    fn counting(&self) -> Arc<dyn Counting> {
        Arc::<FastCounters>::clone(&self.counters)
    }

    async fn stop(self: Box<Self>) {
        let FastCounters { fast_path, device, .. } = &*self.counters;
        let _turn = fast_path.turn.lock().await;
        // What the programs counted goes with them.
        self.counters.totals();
        let detached = fast_path.lock().detach(device);
        if let Err(failure) = hooked::take_off(&self.netlink, detached.hooked).await {
            tracing::warn!("taking the fast path off {device}: {}", failure.told());
        }
    }
}

#[derive(Debug)]
struct FastCounters {
    fast_path: FastPath,
    device: String,
    /// What was read last: it stays when the programs go.
    last: Mutex<Counted>,
}

impl Counting for FastCounters {
    fn knows_directions(&self) -> bool {
        true
    }

    fn totals(&self) -> Totals {
        let mut last = lock(&self.last);
        if let Some(counted) = self.fast_path.counted(&self.device) {
            *last = counted;
        }
        Totals {
            fast_path: Some(*last),
            ..Totals::default()
        }
    }
}
