//! An instance that runs in a test.

use std::sync::Arc;

use clatd::instance::{End, Repairs, Runner, Status};
use clatd::kernel::TranslatorExit;
use clatd_stages::apply::System;
use clatd_stages::fixed_world::{Data, FixedClaims};
use clatd_stages::journal::Journal;
use clatd_stages::settings::Settings;
use clatd_stages::stage::Instance;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What an instance is started with.
pub struct Beginning<'a, W> {
    pub name: &'a str,
    pub number: u32,
    pub settings: Settings,
    pub waits: bool,
    pub world: W,
    pub system: Box<dyn System>,
    pub journal: Box<dyn Journal>,
    /// Tells of changes.
    pub changes: watch::Receiver<u64>,
    pub stop: CancellationToken,
    /// Where it says how it is.
    pub status: watch::Sender<Status>,
}

/// What a test has of an instance that runs.
pub struct Living {
    pub exits: mpsc::UnboundedSender<TranslatorExit>,
    pub stop: CancellationToken,
    pub task: JoinHandle<End>,
}

impl<W: Data + Clone + 'static> Beginning<'_, W> {
    pub fn run(self) -> Living {
        let (exits, exited) = mpsc::unbounded_channel();
        let runner = Runner {
            instance: Instance {
                name: self.name.to_owned(),
                settings: self.settings,
                runtime_dir: "/run/clatd".into(),
                ordinal: self.number,
                seed: 7 + u128::from(self.number),
            },
            waits: self.waits,
            world: Arc::new(self.world.clone()),
            claims: Arc::new(FixedClaims::new(self.world, self.name)),
            system: self.system,
            journal: self.journal,
            exits: exited,
            changes: self.changes.into(),
            stop: self.stop.clone(),
            status: self.status,
            repairs: Repairs::default(),
            pace: Default::default(),
            said: Default::default(),
            past: Default::default(),
            claimed: None,
        };
        Living {
            exits,
            stop: self.stop,
            task: tokio::spawn(runner.run()),
        }
    }
}
