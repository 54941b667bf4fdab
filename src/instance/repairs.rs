//! What an instance does again when others undo it, and how often.

use std::collections::VecDeque;
use std::sync::LazyLock;
use std::time::Duration;

use clatd_stages::apply::DoneStep;
use clatd_stages::op::{NewTun, Op};
use clatd_stages::plan::Plan;
use tokio::time::Instant;
use tracing::{error, warn};

use super::{Cause, Runner};
use crate::report::chain;

/// How often those steps are checked whose undoing the kernel does not report.
const LOOK_AFTER_UNTOLD: Duration = Duration::from_secs(10);

/// When they are checked next. All instances check at the same moment, so that hundreds wake the processor no more
/// often than one.
pub(super) fn next_look() -> Instant {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let steps = BEGAN.elapsed().as_millis() / LOOK_AFTER_UNTOLD.as_millis() + 1;
    *BEGAN + LOOK_AFTER_UNTOLD * u32::try_from(steps).unwrap_or(u32::MAX)
}

impl Runner {
    /// Does again what another program undid. There is a limit, since two managers that fight help nobody.
    pub(super) async fn put_back(&mut self, plan: &Plan, which: fn(&Op) -> bool) -> Result<(), Cause> {
        if self.uplink_was_renamed(plan).await {
            return Ok(());
        }
        let done = self.repairs.done.iter().map(|done| (done.seq, &done.step.apply));
        let done: Vec<(u64, &Op)> = done.filter(|(_, op)| which(op)).collect();
        let undone = match self.world.undone(&done).await {
            Ok(undone) => undone,
            Err(failure) => {
                warn!("{}", chain(&failure));
                return Ok(());
            }
        };
        // One event moves several rules, so they count as one repair.
        let mut rules_allowed = None;
        for seq in undone {
            let Some(DoneStep { step, .. }) = self.repairs.done.iter().find(|done| done.seq == seq).cloned() else {
                continue;
            };
            if let Op::CreateTun(NewTun { device, .. }) = &step.apply {
                return Err(Cause::Failed(
                    self.report(&format!("somebody deleted the CLAT device {device}")),
                ));
            }
            // It still has the device open, so another translator could not start.
            if let Op::StartTranslator { translator } = &step.apply {
                let what = format!(
                    "somebody switched the carrier of the CLAT device {} off",
                    translator.device()
                );
                return Err(Cause::Failed(self.report(&what)));
            }
            let is_rule = matches!(step.apply, Op::AddRule { .. });
            let allowed = match rules_allowed.filter(|_| is_rule) {
                Some(allowed) => allowed,
                None => self.repairs.allow(),
            };
            if is_rule {
                rules_allowed = Some(allowed);
            }
            if !allowed {
                return Ok(());
            }
            if is_rule {
                warn!(
                    "somebody undid it or put a rule before it; clatd does it again: {}",
                    step.apply
                );
            } else {
                warn!("somebody undid it; clatd does it again: {}", step.apply);
            }
            match self.system.apply(&step.apply, None).await {
                Ok(outcome) => {
                    if let Err(failure) = self.journal.done(seq, &outcome).await {
                        self.report(&chain(&failure));
                    }
                }
                Err(failure) => _ = self.report(&chain(&failure)),
            }
        }
        Ok(())
    }

    /// Whether another device has the name of the plan's uplink now, which is not to be touched. The next plan has the
    /// uplink's new name.
    async fn uplink_was_renamed(&mut self, plan: &Plan) -> bool {
        let Some(uplink) = &plan.facts.uplink else { return false };
        let found = self.world.link(&uplink.value.name).await;
        matches!(found, Ok(Some(link)) if link.index != uplink.value.index)
    }
}

/// A limit on putting back what others undo.
#[derive(Debug, Default)]
pub struct Repairs {
    recent: VecDeque<Instant>,
    silenced: bool,
    /// The steps of the running plan, with their numbers in the journal.
    pub(super) done: Vec<DoneStep>,
    behind: bool,
}

impl Repairs {
    /// After so many repairs in [`Repairs::WINDOW`] clatd pauses.
    const MOST: usize = 32;
    const WINDOW: Duration = Duration::from_secs(60);

    /// Whether something was left undone since the last call, so that everything must be checked again.
    pub(super) fn was_behind(&mut self) -> bool {
        std::mem::take(&mut self.behind)
    }

    pub(super) fn allow(&mut self) -> bool {
        let now = Instant::now();
        self.recent.retain(|at| now.duration_since(*at) < Self::WINDOW);
        if self.recent.len() < Self::MOST {
            self.silenced = false;
            self.recent.push_back(now);
            return true;
        }
        self.behind = true;
        if !self.silenced {
            self.silenced = true;
            error!(
                "somebody keeps undoing what clatd does; clatd leaves it undone for now ({} repairs in {} s)",
                Self::MOST,
                Self::WINDOW.as_secs()
            );
        }
        false
    }
}
