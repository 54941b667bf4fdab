//! An instance in a world that changes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use clatd::instance::{End, State, Status};
use clatd::kernel::TranslatorExit;
use clatd_stages::apply::{OpError, System};
use clatd_stages::fixed_world::FixedWorld;
use clatd_stages::journal::{Journal, MemoryJournal, Outcome};
use clatd_stages::net::MAIN_TABLE;
use clatd_stages::op::Op;
use clatd_stages::settings::Settings;
use clatd_stages::world::DnsAnswer;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::cases::native;
use crate::support::changing_world::ChangingWorld;
use crate::support::living::{Beginning, Living};
use crate::support::model::{Fault, Model, ModelState};

/// The model, shared with the test; asks for a stop at the n-th call where told so.
#[derive(Clone)]
struct Shared {
    model: Arc<Mutex<Model>>,
    stop_at: Option<(usize, CancellationToken)>,
}

#[async_trait]
impl System for Shared {
    async fn apply(&mut self, op: &Op, outcome: Option<&Outcome>) -> Result<Outcome, OpError> {
        let mut model = self.model.lock().unwrap().clone();
        let result = model.apply(op, outcome).await;
        if let Some((at, token)) = &self.stop_at
            && model.calls.len() == *at + 1
        {
            token.cancel();
        }
        *self.model.lock().unwrap() = model;
        result
    }
}

/// An instance that lives, and the strings to pull.
pub struct Life {
    pub world: ChangingWorld,
    pub model: Arc<Mutex<Model>>,
    pub before: ModelState,
    pub changes: watch::Sender<u64>,
    pub exits: mpsc::UnboundedSender<TranslatorExit>,
    pub stop: CancellationToken,
    pub status: watch::Receiver<Status>,
    pub task: JoinHandle<End>,
}

impl Life {
    pub fn begin(world: FixedWorld, settings: Settings, waits: bool) -> Self {
        Self::begin_with(world, settings, waits, Fault::None, None)
    }

    pub fn begin_with(
        world: FixedWorld,
        settings: Settings,
        waits: bool,
        fault: Fault,
        stop_at: Option<usize>,
    ) -> Self {
        let journal = Box::new(MemoryJournal::default());
        Self::begin_whole(world, settings, waits, fault, stop_at, journal)
    }

    pub fn begin_on(world: FixedWorld, settings: Settings, waits: bool, journal: Box<dyn Journal>) -> Self {
        Self::begin_whole(world, settings, waits, Fault::None, None, journal)
    }

    pub fn begin_whole(
        world: FixedWorld,
        settings: Settings,
        waits: bool,
        fault: Fault,
        stop_at: Option<usize>,
        journal: Box<dyn Journal>,
    ) -> Self {
        let model = Model {
            fault,
            ..Model::of(&world)
        };
        let before = model.state.clone();
        let model = Arc::new(Mutex::new(model));
        let world = ChangingWorld::new(world);
        let changes = watch::channel(0).0;
        let stop = CancellationToken::new();
        let (status_sender, status) = watch::channel(Status::default());
        let beginning = Beginning {
            name: "clat",
            number: 0,
            settings,
            waits,
            world: world.clone(),
            system: Box::new(Shared {
                model: model.clone(),
                stop_at: stop_at.map(|at| (at, stop.clone())),
            }),
            journal,
            changes: changes.subscribe(),
            stop,
            status: status_sender,
        };
        let Living { exits, stop, task } = beginning.run();
        Self {
            world,
            model,
            before,
            changes,
            exits,
            stop,
            status,
            task,
        }
    }

    pub async fn reaches(&mut self, state: State) {
        let reached = tokio::time::timeout(
            Duration::from_secs(600),
            self.status.wait_for(|status| status.state == state),
        )
        .await
        .is_ok();
        assert!(reached, "{state:?} is not reached: {:?}", self.status.borrow());
    }

    /// Changes the world and tells the instance.
    pub fn change(&self, change: impl FnOnce(&mut FixedWorld)) {
        self.world.change(change);
        self.changes.send_modify(|count| *count += 1);
    }

    pub fn system(&self) -> ModelState {
        self.model.lock().unwrap().state.clone()
    }

    pub fn calls(&self) -> Vec<String> {
        self.model.lock().unwrap().calls.clone()
    }

    pub async fn ends(self) -> End {
        let end = tokio::time::timeout(Duration::from_secs(600), self.task)
            .await
            .expect("it ends")
            .unwrap();
        assert_eq!(
            self.model.lock().unwrap().state,
            self.before,
            "the state after is the state before"
        );
        end
    }

    pub async fn stopped(self) -> End {
        self.stop.cancel();
        self.ends().await
    }
}

pub fn native_ipv4(world: &mut FixedWorld) {
    world.routes4.insert(MAIN_TABLE, vec![native("192.0.2.1", "wan0", 100)]);
}

pub fn dns64(number: u32) -> DnsAnswer {
    DnsAnswer::Addresses {
        addresses: vec![format!("2001:db8:{number:x}::c000:aa").parse().unwrap()],
        ttl_s: 600,
    }
}

/// Waits as long as events are apart, so that each is looked at.
pub async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(500)).await;
}
