//! A world that a test changes while an instance lives in it.

use std::borrow::Cow;
use std::sync::{Arc, Mutex};

use clatd_stages::fixed_world::{Data, FixedWorld};
use clatd_stages::op::Op;

/// Answers from whatever the fixed world inside is at the moment.
#[derive(Clone)]
pub struct ChangingWorld(Arc<Mutex<FixedWorld>>);

impl ChangingWorld {
    /// Begins as `world`.
    pub fn new(world: FixedWorld) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    /// Changes it.
    pub fn change(&self, change: impl FnOnce(&mut FixedWorld)) {
        change(&mut self.0.lock().unwrap());
    }
}

impl Data for ChangingWorld {
    fn now(&self) -> Cow<'_, FixedWorld> {
        Cow::Owned(self.0.lock().unwrap().clone())
    }

    /// What was undone is put back next.
    fn asked(&self, _done: &[&Op]) {
        self.change(|world| world.undone_by_others.clear());
    }
}
