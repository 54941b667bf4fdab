//! Undoes journals with which no instance works: those of a killed daemon, or of an instance that panicked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clatd_stages::apply;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info, info_span, warn};

use super::{Signals, Supervisor};
use crate::instance::End;
use crate::kernel::{FileJournal, Holds, Kernel, Netlink};
use crate::report::chain;

/// How long the undoing may go on after a stop was asked for.
const GRACE: Duration = Duration::from_secs(20);

/// What undoing takes.
#[derive(Clone)]
pub(super) struct Undoing {
    runtime_dir: PathBuf,
    netlink: Netlink,
    holds: Holds,
    /// Ends scripts that run, and gives programs less time.
    hurry: CancellationToken,
}

impl Undoing {
    /// Undoes what these journals have. Returns false if not all could be undone.
    async fn all(self, names: Vec<String>) -> bool {
        let mut clean = true;
        for name in names {
            warn!("undoing what a killed clatd left of instance {name}");
            let span = info_span!("instance", name = %name);
            clean &= self.clone().one(name).instrument(span).await == End::Clean;
        }
        clean
    }

    /// Undoes what the journal of an instance holds.
    pub(super) async fn one(self, name: String) -> End {
        let mut journal = match FileJournal::open(&self.runtime_dir, &name) {
            Ok(journal) => journal,
            Err(failure) => {
                error!("{}", chain(&failure));
                return End::Failed;
            }
        };
        let (exits, _) = mpsc::unbounded_channel();
        let mut kernel = Kernel::new(name, self.netlink, self.holds, exits).hurried_by(self.hurry);
        let failures = apply::unwind(&mut kernel, &mut journal, &[]).await;
        for failure in &failures {
            error!("{}", chain(failure));
        }
        if failures.is_empty() { End::Clean } else { End::Failed }
    }
}

impl Supervisor {
    pub(super) fn undoing(&self) -> Undoing {
        Undoing {
            runtime_dir: self.runtime_dir.clone(),
            netlink: self.netlink.clone(),
            holds: self.holds.clone(),
            hurry: self.stop.child_token(),
        }
    }

    /// Undoes what a killed daemon recorded in this runtime directory. Returns false if a stop was asked for
    /// meanwhile, so that nothing may start.
    pub(super) async fn undo_leftovers(&mut self, signals: &mut Signals) -> bool {
        let Some(names) = self.leftovers() else { return true };
        let undoing = self.undoing().all(names);
        tokio::pin!(undoing);
        let signal = tokio::select! {
            clean = &mut undoing => {
                self.failed |= !clean;
                return true;
            }
            signal = signals.stop() => signal,
        };
        info!("{signal}: stopping as soon as clatd has undone what a killed clatd left");
        self.stop.cancel();
        match timeout(GRACE, undoing).await {
            Ok(clean) => self.failed |= !clean,
            Err(_) => {
                error!(
                    "not undone in {} s; `clatd cleanup` undoes what is left",
                    GRACE.as_secs()
                );
                self.failed = true;
            }
        }
        false
    }

    fn leftovers(&mut self) -> Option<Vec<String>> {
        let runtime_dir: &Path = &self.runtime_dir;
        match FileJournal::list(runtime_dir) {
            Ok(names) => Some(names).filter(|names| !names.is_empty()),
            Err(failure) => {
                error!("{}", chain(&failure));
                self.failed = true;
                None
            }
        }
    }
}
