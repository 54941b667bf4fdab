//! Why an operation failed, before the name of the operation is added.

use std::error::Error;

use clatd_stages::apply::OpError;
use clatd_stages::journal::{Left, Outcome};
use clatd_stages::op::Op;

use super::command::CommandError;
use super::nft::NftError;
use super::ops::nature;
use crate::util::AnyError;

/// The cause, and what the user can do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    source: AnyError,
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(what: impl Into<AnyError>) -> Self {
        Self {
            source: what.into(),
            hint: None,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether a program timed out, or its answer was not understood. It may have done its work.
    fn may_have_worked(&self) -> bool {
        let command = match self.source.downcast_ref::<NftError>() {
            Some(NftError::Json { .. }) => return true,
            Some(NftError::Command(error)) => Some(error),
            None => self.source.downcast_ref::<CommandError>(),
        };
        match command {
            None | Some(CommandError::NotFound { .. } | CommandError::Failed { .. }) => false,
            Some(CommandError::Run { .. } | CommandError::Timeout { .. }) => true,
        }
    }

    pub(crate) fn into_source(self) -> AnyError {
        self.source
    }

    /// The cause, with its own causes, in one line.
    #[cfg(feature = "ebpf")]
    pub(crate) fn told(&self) -> String {
        crate::report::chain(&*self.source)
    }

    pub(crate) fn of(self, op: &Op) -> OpError {
        let untouched = nature(op).atomic && !self.may_have_worked();
        let error = OpError {
            untouched,
            ..OpError::new(op, self.source)
        };
        match self.hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

/// What an operation's work gives.
pub(crate) type OpResult = Result<Outcome, Failure>;

/// Nothing to remember.
pub(crate) const NOTHING: Outcome = Outcome::NOTHING;

/// The object existed already and is not ours, so the undo must leave it.
pub(crate) fn existed() -> Outcome {
    Left::Existed.into()
}

/// The object did not exist, so the undo must not create it.
pub(crate) fn gone() -> Outcome {
    Left::Gone.into()
}

/// Whether the step's own operation changed nothing, so that nothing is to be undone.
pub(crate) fn changed_nothing(outcome: Option<&Outcome>) -> bool {
    outcome.is_some_and(Outcome::changed_nothing)
}
