//! A system that several instances share: the model, and the holds on what belongs to no single one, counted as
//! `src/kernel/sysctl.rs` counts them (which writes /proc). It is read back, so instances see what others did.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use clatd_stages::apply::{OpError, System};
use clatd_stages::fixed_world::{Data, FixedWorld};
use clatd_stages::journal::{Journal, JournalError, Left, MemoryJournal, Outcome, Pending};
use clatd_stages::net::{Link, Route};
use clatd_stages::op::{NewTun, Op, SysctlRelease};
use clatd_stages::plan::Step;

use crate::support::model::{Model, ModelState};

/// Called before each operation with the instance and the operation; an error makes it fail.
pub type Interference = Box<dyn FnMut(&str, &Op) -> Result<(), String> + Send>;

struct Hold {
    value: String,
    before: String,
    /// What else writing it changed, with the values from before.
    reset: BTreeMap<String, String>,
    holders: BTreeSet<String>,
}

struct Inside {
    world: FixedWorld,
    model: Model,
    holds: BTreeMap<String, Hold>,
    /// IPv4 routes and devices of instances, which the others see.
    routes: Vec<Route>,
    links: Vec<Link>,
    interference: Interference,
}

/// The system; clones are the same one.
#[derive(Clone)]
pub struct SharedSystem(Arc<Mutex<Inside>>);

impl SharedSystem {
    pub fn new(world: FixedWorld, interference: Interference) -> Self {
        let model = Model::of(&world);
        Self(Arc::new(Mutex::new(Inside {
            world,
            model,
            holds: BTreeMap::new(),
            routes: Vec::new(),
            links: Vec::new(),
            interference,
        })))
    }

    pub fn state(&self) -> ModelState {
        self.lock().model.state.clone()
    }

    /// Whether nobody holds anything.
    pub fn is_free(&self) -> bool {
        self.lock().holds.is_empty()
    }

    /// Changes the world around the instances.
    pub fn change(&self, change: impl FnOnce(&mut FixedWorld)) {
        change(&mut self.lock().world);
    }

    /// Changes the system behind the instances' backs: what operations with this text in them did is undone.
    pub fn undo(&self, text: &str) {
        let mut inside = self.lock();
        let undone = match text.strip_prefix("make TUN device ") {
            Some(device) => inside.delete(device),
            None => {
                let before = inside.model.state.objects.len();
                inside.model.state.objects.retain(|(_, object)| !object.contains(text));
                inside.model.state.objects.len() < before
            }
        };
        if undone {
            inside.world.undone_by_others.insert(text.to_owned());
        }
    }

    /// A panic of one instance must not spoil what the others share.
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The side of one instance.
    pub fn of(&self, name: &str) -> Side {
        Side {
            name: name.to_owned(),
            shared: self.clone(),
        }
    }
}

/// One instance's hands on the system.
pub struct Side {
    name: String,
    shared: SharedSystem,
}

#[async_trait]
impl System for Side {
    async fn apply(&mut self, op: &Op, outcome: Option<&Outcome>) -> Result<Outcome, OpError> {
        // Instances take turns between steps, as they do when each step waits for the kernel.
        tokio::task::yield_now().await;
        let failed = {
            let mut inside = self.shared.lock();
            (inside.interference)(&self.name, op)
        };
        failed.map_err(|cause| OpError::new(op, cause))?;
        let (model_op, answer) = {
            let mut inside = self.shared.lock();
            inside.hold(&self.name, op).map_err(|cause| OpError::new(op, cause))?
        };
        let Some(model_op) = model_op else { return Ok(answer) };
        let mut model = self.shared.lock().model.clone();
        // The model does not wait for anything, so nobody else can come in between.
        model.apply(&model_op, outcome).await?;
        let mut inside = self.shared.lock();
        inside.model = model;
        inside.remember(&self.name, &model_op);
        Ok(answer)
    }
}

/// What a hold leaves for its undo.
fn held(before: &str) -> Outcome {
    let (before, devices) = (before.to_owned(), BTreeMap::new());
    Left::Hold { before, devices }.into()
}

impl Inside {
    /// Counts holds; what is left to be done to the model, and the outcome.
    fn hold(&mut self, name: &str, op: &Op) -> Result<(Option<Op>, Outcome), String> {
        match op {
            Op::HoldSysctl { key, value, before } => {
                if let Some(hold) = self.holds.get_mut(key) {
                    if hold.value != *value {
                        return Err(format!("{key} is held at {}", hold.value));
                    }
                    hold.holders.insert(name.to_owned());
                    return Ok((None, held(&hold.before)));
                }
                let before = self.model.state.sysctls.get(key).unwrap_or(before).clone();
                let of_devices = self.model.state.sysctls.iter();
                let of_devices = of_devices.filter(|(other, _)| other.ends_with("/forwarding") && *other != key);
                let resets = key == "net/ipv6/conf/all/forwarding";
                let hold = Hold {
                    value: value.clone(),
                    before: before.clone(),
                    reset: of_devices
                        .filter(|_| resets)
                        .map(|(other, value)| (other.clone(), value.clone()))
                        .collect(),
                    holders: [name.to_owned()].into(),
                };
                self.holds.insert(key.clone(), hold);
                let (key, value) = (key.clone(), value.clone());
                let outcome = held(&before);
                Ok((Some(Op::HoldSysctl { key, value, before }), outcome))
            }
            Op::ReleaseSysctl(SysctlRelease {
                key, value, give_back, ..
            }) => {
                let Some(hold) = self.holds.get_mut(key) else {
                    // One that failed, or that is released already.
                    return Ok((None, Outcome::NOTHING));
                };
                hold.holders.remove(name);
                if !hold.holders.is_empty() {
                    return Ok((None, Outcome::NOTHING));
                }
                let before = hold.before.clone();
                self.holds.remove(key);
                if before == *value {
                    return Ok((None, Outcome::NOTHING));
                }
                let release = Op::ReleaseSysctl(SysctlRelease {
                    key: key.clone(),
                    value: value.clone(),
                    before,
                    give_back: give_back.clone(),
                });
                Ok((Some(release), Outcome::NOTHING))
            }
            Op::HoldOnDevices(on) => {
                for key in on.keys() {
                    self.hold_on(name, &key, &on.value, &on.before);
                }
                Ok((None, Outcome::NOTHING))
            }
            Op::ReleaseOnDevices(on) => {
                for key in on.keys() {
                    self.release_on(name, &key, &on.value, &on.before);
                }
                Ok((None, Outcome::NOTHING))
            }
            other => Ok((Some(other.clone()), Outcome::NOTHING)),
        }
    }

    fn hold_on(&mut self, name: &str, key: &str, value: &str, before: &str) {
        if let Some(hold) = self.holds.get_mut(key) {
            hold.holders.insert(name.to_owned());
            return;
        }
        let Some(found) = self.model.state.sysctls.get_mut(key).filter(|found| *found == before) else {
            return;
        };
        value.clone_into(found);
        let hold = Hold {
            value: value.to_owned(),
            before: before.to_owned(),
            reset: Default::default(),
            holders: [name.to_owned()].into(),
        };
        self.holds.insert(key.to_owned(), hold);
    }

    fn release_on(&mut self, name: &str, key: &str, value: &str, before: &str) {
        let Some(hold) = self.holds.get_mut(key) else { return };
        hold.holders.remove(name);
        if hold.holders.is_empty() {
            self.holds.remove(key);
            let found = self.model.state.sysctls.get_mut(key).filter(|found| *found == value);
            found.into_iter().for_each(|found| before.clone_into(found));
        }
    }

    /// What other instances see of it.
    fn remember(&mut self, name: &str, op: &Op) {
        match op {
            Op::CreateTun(NewTun { device, .. }) => self.links.push(Link {
                alias: Some(format!("clatd:{name}")),
                ..crate::support::cases::link(1000, device, 1500)
            }),
            Op::DeleteTun { device, .. } => self.forget(device),
            Op::AddRoute { route } if route.table == clatd_stages::net::MAIN_TABLE => self.routes.push(route.clone()),
            Op::RemoveRoute { route } => self.routes.retain(|there| there != route),
            _ => {}
        }
    }

    /// Deletes a device with all that goes with it; false = there was none.
    fn delete(&mut self, device: &str) -> bool {
        self.forget(device);
        self.model.state.objects.retain(|(owner, _)| owner != device);
        self.model.state.devices.remove(device)
    }

    fn forget(&mut self, device: &str) {
        self.links.retain(|link| link.name != device);
        self.routes.retain(|route| route.device.as_deref() != Some(device));
    }
}

impl Side {
    /// The process died with its device: what goes with the device is gone.
    pub fn device_is_gone(&self, device: &str) {
        self.shared.lock().delete(device);
    }
}

impl Data for SharedSystem {
    fn now(&self) -> Cow<'_, FixedWorld> {
        let inside = self.lock();
        let mut world = inside.world.clone();
        world.links.extend(inside.links.iter().cloned());
        world
            .routes4
            .entry(clatd_stages::net::MAIN_TABLE)
            .or_default()
            .extend(inside.routes.iter().cloned());
        world.sysctls.clone_from(&inside.model.state.sysctls);
        for (key, hold) in &inside.holds {
            world.sysctls.extend(hold.reset.clone());
            world.sysctls.insert(key.clone(), hold.before.clone());
        }
        Cow::Owned(world)
    }

    /// Each text is put back by the instance that it belongs to.
    fn asked(&self, done: &[&Op]) {
        let texts: Vec<String> = done.iter().map(ToString::to_string).collect();
        self.change(|world| {
            world
                .undone_by_others
                .retain(|undone| !texts.iter().any(|text| text.contains(undone)));
        });
    }
}

/// A journal that outlives its instance.
#[derive(Clone, Default)]
pub struct SharedJournal(Arc<Mutex<MemoryJournal>>);

impl SharedJournal {
    /// The journal as it would be read from its file.
    fn run<T>(&self, with: impl FnOnce(&mut MemoryJournal) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Journal for SharedJournal {
    async fn intend(&mut self, step: &Step) -> Result<u64, JournalError> {
        let mut journal = self.run(std::mem::take);
        let result = journal.intend(step).await;
        self.run(|inside| *inside = journal);
        result
    }
    async fn done(&mut self, seq: u64, outcome: &Outcome) -> Result<(), JournalError> {
        let mut journal = self.run(std::mem::take);
        let result = journal.done(seq, outcome).await;
        self.run(|inside| *inside = journal);
        result
    }
    async fn undone(&mut self, seq: u64) -> Result<(), JournalError> {
        let mut journal = self.run(std::mem::take);
        let result = journal.undone(seq).await;
        self.run(|inside| *inside = journal);
        result
    }
    async fn make_room(&mut self, _keep: usize, _steps: &[Step]) -> Result<(), JournalError> {
        Ok(())
    }
    fn pending(&self) -> Vec<Pending> {
        self.run(|journal| journal.pending())
    }
}
