//! `clatd cleanup`: undoes what killed daemons left behind. First what the journals have, newest first; then
//! everything with our label that is in no journal.

use std::cmp::Reverse;
use std::path::Path;

use clatd_stages::apply::{UndoError, unwind};
use clatd_stages::journal::{Journal, JournalError, undo_of};
use clatd_stages::settings::Settings;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::lock::LockError;
use super::netlink::Netlink;
use super::ops::Sweep;
use super::{FileJournal, Holds, Kernel, NamespaceLock, RuntimeLock, command};
use crate::report::chain;

/// Nothing could be cleaned up at all.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// A clatd is running.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The journals cannot be listed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The kernel cannot be spoken to.
    #[error("opening a netlink socket")]
    Netlink(#[source] std::io::Error),
}

/// What was done, or would be.
#[derive(Debug, Default)]
pub struct Report {
    /// In order.
    pub done: Vec<String>,
    /// What could not be done, each with its causes.
    pub errors: Vec<String>,
}

/// Undoes everything, or only prints what it would undo. Refuses while a daemon runs with this runtime directory, or
/// with another one in this network namespace.
pub async fn run(runtime: &Path, settings: &Settings, dry_run: bool) -> Result<Report, CleanupError> {
    run_until(runtime, settings, dry_run, CancellationToken::new()).await
}

/// The same. When `stop` is asked for, scripts are ended and programs have less time.
pub async fn run_until(
    runtime: &Path,
    settings: &Settings,
    dry_run: bool,
    stop: CancellationToken,
) -> Result<Report, CleanupError> {
    command::follow(&settings.general);
    // Without a runtime directory no daemon runs in it, and a dry run creates no lock file.
    let lock = match runtime.exists() && (!dry_run || RuntimeLock::exists(runtime)) {
        true => Some(RuntimeLock::acquire(runtime)?),
        false => None,
    };
    let alone = NamespaceLock::acquire(runtime).await?;
    let mut cleanup = Cleanup {
        netlink: Netlink::open().map_err(CleanupError::Netlink)?,
        dry_run,
        stop: stop.clone(),
        report: Report::default(),
    };
    let all = async {
        cleanup.journals(runtime).await?;
        Sweep::new(&cleanup.netlink, settings, dry_run, &mut cleanup.report)
            .all()
            .await;
        Ok::<(), CleanupError>(())
    };
    let cleaned = command::stopped_by(stop, all).await;
    alone.release().await;
    drop(lock);
    cleaned.map(|()| cleanup.report)
}

struct Cleanup {
    netlink: Netlink,
    dry_run: bool,
    stop: CancellationToken,
    report: Report,
}

impl Cleanup {
    async fn journals(&mut self, runtime: &Path) -> Result<(), CleanupError> {
        let mut journals = Vec::new();
        for name in FileJournal::list(runtime)? {
            match FileJournal::open(runtime, &name) {
                Ok(journal) => journals.push((Reverse(journal.modified()), name, journal)),
                Err(error) => self.report.errors.push(chain(&error)),
            }
        }
        journals.sort_by(|left, right| (&left.0, &left.1).cmp(&(&right.0, &right.1)));
        // One table for all, as in the daemon that was killed.
        let holds = Holds::default();
        for (_, name, mut journal) in journals {
            let pending = journal.pending();
            let undone = if self.dry_run {
                Vec::new()
            } else {
                let (exits, _) = mpsc::unbounded_channel();
                let mut kernel =
                    Kernel::new(name.clone(), self.netlink.clone(), holds.clone(), exits).hurried_by(self.stop.clone());
                unwind(&mut kernel, &mut journal, &[]).await
            };
            let stuck: Vec<u64> = journal.pending().iter().map(|pending| pending.seq).collect();
            for step in pending
                .iter()
                .rev()
                .filter(|step| self.dry_run || !stuck.contains(&step.seq))
            {
                if let Some(op) = undo_of(step) {
                    self.report.done.push(format!("{op} (instance {name})"));
                }
            }
            self.report.errors.extend(
                undone
                    .iter()
                    .map(|error: &UndoError| format!("instance {name}: {}", chain(error))),
            );
        }
        Ok(())
    }
}
