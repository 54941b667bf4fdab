//! Executes plans and undoes them. Rules: the intent is recorded before the deed; the stop token is looked at between
//! steps only; a failure at step k undoes k..0, newest first, goes on past errors and reports them all.

use std::error::Error;

use async_trait::async_trait;

use crate::journal::{Journal, JournalError, Outcome, undo_of};
use crate::op::Op;
use crate::plan::{StageName, Step};

/// An operation that failed: the cause as source, a hint where the user can act.
#[derive(Debug, thiserror::Error)]
#[error("cannot {op}{}", hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default())]
pub struct OpError {
    /// The operation, as printed in the plan.
    pub op: String,
    /// What the user can do about it.
    pub hint: Option<String>,
    /// Whether it is certain that nothing was changed, so that there is nothing to undo.
    pub untouched: bool,
    /// The cause.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

impl OpError {
    /// An operation that failed for this cause.
    pub fn new(op: &Op, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            op: op.to_string(),
            hint: None,
            untouched: false,
            source: source.into(),
        }
    }

    /// The same with a hint.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// What carries operations out: the kernel, a recorder, or one that fails at step k.
#[async_trait]
pub trait System: Send {
    /// Does it. An inverse operation treats "already gone" as success. When an operation undoes a step, `outcome` is
    /// the outcome of that step's own operation.
    async fn apply(&mut self, op: &Op, outcome: Option<&Outcome>) -> Result<Outcome, OpError>;
}

/// Why a plan was not carried out to its end.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A stop was asked for.
    #[error("stopped")]
    Stopped,
    /// A step failed.
    #[error("{stage}")]
    Step {
        /// The stage that planned it.
        stage: StageName,
        /// The operation's error.
        #[source]
        source: OpError,
    },
    /// The journal could not be written, so nothing more is done.
    #[error("{stage}: not begun, since it could not be recorded")]
    Journal {
        /// The stage that planned the step.
        stage: StageName,
        /// The journal's error.
        #[source]
        source: JournalError,
    },
}

/// An undo that failed.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    /// The operation failed; its step stays in the journal.
    #[error("undoing {stage}")]
    Op {
        /// The stage that planned the step.
        stage: StageName,
        /// The operation's error.
        #[source]
        source: OpError,
    },
    /// It was undone but this could not be recorded.
    #[error("undid {stage}, but could not record it")]
    Journal {
        /// The stage that planned the step.
        stage: StageName,
        /// The journal's error.
        #[source]
        source: JournalError,
    },
}

/// A step that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoneStep {
    /// Its number in the journal.
    pub seq: u64,
    /// The step.
    pub step: Step,
}

/// Carries out `steps` in order until the end, a failure, or `stop`. Returns them with their numbers in the journal. Undoes
/// nothing: see [`unwind`]. A step that failed without changing anything is no longer pending: its undo could only
/// harm what another program made.
pub async fn apply(
    steps: &[Step],
    system: &mut dyn System,
    journal: &mut dyn Journal,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<DoneStep>, ApplyError> {
    let mut done = Vec::new();
    for step in steps {
        if stop() {
            return Err(ApplyError::Stopped);
        }
        let stage = step.stage;
        let seq = journal
            .intend(step)
            .await
            .map_err(|source| ApplyError::Journal { stage, source })?;
        let outcome = match system.apply(&step.apply, None).await {
            Ok(outcome) => outcome,
            Err(source) => {
                if source.untouched {
                    let recorded = journal.undone(seq).await;
                    recorded.map_err(|source| ApplyError::Journal { stage, source })?;
                }
                return Err(ApplyError::Step { stage, source });
            }
        };
        journal
            .done(seq, &outcome)
            .await
            .map_err(|source| ApplyError::Journal { stage, source })?;
        let step = step.clone();
        done.push(DoneStep { seq, step });
    }
    Ok(done)
}

/// Undoes what is pending in the journal, newest first, but for the steps with the numbers in `keep`. Goes on past errors.
pub async fn unwind(system: &mut dyn System, journal: &mut dyn Journal, keep: &[u64]) -> Vec<UndoError> {
    let mut errors = Vec::new();
    let pending = journal.pending().into_iter().rev();
    for pending in pending.filter(|pending| !keep.contains(&pending.seq)) {
        let stage = pending.step.stage;
        if let Some(op) = undo_of(&pending)
            && let Err(source) = system.apply(op, pending.outcome.as_ref()).await
        {
            errors.push(UndoError::Op { stage, source });
            // A user's script that failed is not run again, which would surprise. Everything else is tried again.
            if !matches!(op, Op::RunScript(_)) {
                continue;
            }
        }
        if let Err(source) = journal.undone(pending.seq).await {
            errors.push(UndoError::Journal { stage, source });
        }
    }
    errors
}
