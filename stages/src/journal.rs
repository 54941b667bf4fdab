//! The write-ahead record of what was done: JSON lines, one file per instance. From it the leftovers of a killed
//! daemon are undone. Format version 1; lines of version 1 must parse for ever.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::op::{Op, Undo};
pub use crate::outcome::{Left, Outcome};
use crate::plan::Step;

/// Version of the line format.
pub const VERSION: u32 = 1;

/// A step that was begun and is not undone yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Its number in the journal.
    pub seq: u64,
    /// The step.
    pub step: Step,
    /// What the operation left; `None` = it may not have been done at all.
    pub outcome: Option<Outcome>,
}

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Format version.
    pub v: u32,
    /// What happened.
    #[serde(flatten)]
    pub event: Entry,
}

/// The part of a line that every version has.
#[derive(Deserialize)]
struct Versioned {
    v: u32,
}

/// What happened to a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Entry {
    /// It is about to be done.
    Intend {
        /// Its number.
        seq: u64,
        /// The whole step, so that the undo depends on nothing else.
        step: Box<Step>,
    },
    /// It was done.
    Done {
        /// Its number.
        seq: u64,
        /// What it left for its undo.
        #[serde(default)]
        outcome: Outcome,
    },
    /// It was taken back.
    Undone {
        /// Its number.
        seq: u64,
    },
}

/// A journal that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Reading or writing failed.
    #[error("{doing} journal {path}")]
    Io {
        /// `writing`, `reading`, ...
        doing: &'static str,
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A journal of another version of clatd, whose operations may mean something else here.
    #[error(
        "journal {path}, line {line}: written by another version of clatd (format {found}, this one reads {VERSION}); \
         clatd does nothing with it: run `clatd cleanup` of that version, or remove the file once what it names is undone"
    )]
    Version {
        /// The file.
        path: String,
        /// Line number from 1.
        line: usize,
        /// The version that the line has.
        found: u32,
    },
    /// A line that is no journal line.
    #[error(
        "journal {path}, line {line}: not a journal line of version {VERSION} or older; remove the file if it is not clatd's"
    )]
    Format {
        /// The file.
        path: String,
        /// Line number from 1.
        line: usize,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
}

/// Write-ahead record of one instance.
#[async_trait]
pub trait Journal: Send {
    /// Records that the step is about to be done; returns its number.
    async fn intend(&mut self, step: &Step) -> Result<u64, JournalError>;
    /// Records that it was done.
    async fn done(&mut self, seq: u64, outcome: &Outcome) -> Result<(), JournalError>;
    /// Records that it was taken back.
    async fn undone(&mut self, seq: u64) -> Result<(), JournalError>;
    /// The steps that were begun and are not undone, oldest first.
    fn pending(&self) -> Vec<Pending>;
    /// Makes room for the records of undoing all but the first `keep` steps and of doing `steps`. An error means that
    /// these could not be recorded, so nothing of it may begin.
    async fn make_room(&mut self, keep: usize, steps: &[Step]) -> Result<(), JournalError>;
}

/// The state after all lines of a journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    pending: Vec<Pending>,
    last: u64,
}

impl Ledger {
    /// Reads a journal's text. A last line without a line end was being written when the daemon died: its step was
    /// not begun, so it does not count.
    pub fn parse(path: &str, text: &str) -> Result<Self, JournalError> {
        let mut ledger = Self::default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for (number, line) in whole.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let format = |source| JournalError::Format {
                path: path.to_owned(),
                line: number + 1,
                source,
            };
            // The version is read first, since nobody knows what else a line of another version has.
            let Versioned { v: found } = serde_json::from_str(line).map_err(format)?;
            if found != VERSION {
                return Err(JournalError::Version {
                    path: path.to_owned(),
                    line: number + 1,
                    found,
                });
            }
            let line: Line = serde_json::from_str(line).map_err(format)?;
            ledger.record(line.event);
        }
        Ok(ledger)
    }

    /// Takes one event into account.
    pub fn record(&mut self, event: Entry) {
        match event {
            Entry::Intend { seq, step } => {
                self.last = self.last.max(seq);
                self.pending.push(Pending {
                    seq,
                    step: *step,
                    outcome: None,
                });
            }
            Entry::Done { seq, outcome } => {
                if let Some(pending) = self.pending.iter_mut().find(|pending| pending.seq == seq) {
                    pending.outcome = Some(outcome);
                }
            }
            Entry::Undone { seq } => self.pending.retain(|pending| pending.seq != seq),
        }
    }

    /// The number for the next step.
    pub fn next_seq(&self) -> u64 {
        self.last + 1
    }

    /// The steps that were begun and are not undone, oldest first.
    pub fn pending(&self) -> &[Pending] {
        &self.pending
    }
}

/// The text of one line, with its line end.
pub fn encode(event: Entry) -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string(&Line { v: VERSION, event })?;
    text.push('\n');
    Ok(text)
}

/// A journal in memory, for tests.
#[cfg(any(test, feature = "testing"))]
#[derive(Debug, Default)]
pub struct MemoryJournal {
    ledger: Ledger,
    /// Every line ever written.
    pub text: String,
}

#[cfg(any(test, feature = "testing"))]
impl MemoryJournal {
    fn write(&mut self, event: Entry) -> Result<(), JournalError> {
        let text = encode(event.clone()).map_err(|source| JournalError::Io {
            doing: "encoding a line of",
            path: "in memory".into(),
            source: source.into(),
        })?;
        self.text.push_str(&text);
        self.ledger.record(event);
        Ok(())
    }
}

#[cfg(any(test, feature = "testing"))]
#[async_trait]
impl Journal for MemoryJournal {
    async fn intend(&mut self, step: &Step) -> Result<u64, JournalError> {
        let seq = self.ledger.next_seq();
        self.write(Entry::Intend {
            seq,
            step: Box::new(step.clone()),
        })?;
        Ok(seq)
    }
    async fn done(&mut self, seq: u64, outcome: &Outcome) -> Result<(), JournalError> {
        self.write(Entry::Done {
            seq,
            outcome: outcome.clone(),
        })
    }
    async fn undone(&mut self, seq: u64) -> Result<(), JournalError> {
        self.write(Entry::Undone { seq })
    }
    fn pending(&self) -> Vec<Pending> {
        self.ledger.pending().to_vec()
    }
    async fn make_room(&mut self, _keep: usize, _steps: &[Step]) -> Result<(), JournalError> {
        Ok(())
    }
}

/// The operation that undoes a pending step, if it needs one.
pub fn undo_of(pending: &Pending) -> Option<&Op> {
    match &pending.step.undo {
        Undo::Op(op) => Some(op),
        Undo::GoesWith { .. } | Undo::Nothing { .. } => None,
    }
}
