//! What moves the packets: started and stopped. The file of each translator says how it is started (`TranslatorKind` in
//! `src/kernel/translators.rs`).

use clatd_stages::journal::Outcome;
use clatd_stages::translator::TranslatorSpec;
use clatd_stages::world::WorldError;

use super::super::Kernel;
use super::super::failure::{NOTHING, OpResult};
use super::super::translators::{self, Position};
use super::{Look, Nature, Operation, UNDOING};

pub(super) enum Change<'a> {
    Start(&'a TranslatorSpec),
    Stop { device: &'a str },
}

impl<'a> Operation<'a> for Change<'a> {
    fn nature(&self) -> Nature {
        match self {
            Self::Start(_) => Nature {
                untold: false,
                atomic: false,
                // It dies with the daemon.
                swept: false,
                outlives_device: false,
            },
            Self::Stop { .. } => Nature {
                atomic: false,
                ..UNDOING
            },
        }
    }

    fn device(&mut self) -> Option<&mut &'a str> {
        match self {
            Self::Start(_) | Self::Stop { .. } => None,
        }
    }

    async fn carry_out(&self, kernel: &mut Kernel, _: Option<&Outcome>) -> OpResult {
        match self {
            Self::Start(translator) => kernel.start_translator(translators::of(translator)).await,
            Self::Stop { device } => {
                kernel.stop_translator(device, Position::Device).await;
                Ok(NOTHING)
            }
        }
    }

    async fn stands(&self, look: &mut Look<'_>) -> Result<bool, WorldError> {
        match self {
            // Its death is reported separately.
            Self::Start(translator) => translators::of(translator).stands(look).await,
            Self::Stop { .. } => Ok(true),
        }
    }
}
