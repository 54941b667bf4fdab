//! The doctor, in a daemon and without one: it examines instances side by side.

use clatd_stages::doctor::{Diagnosis, DoctorDocument, RunningInstance, examine, judge};
use clatd_stages::stage::Instance;
use clatd_stages::world::World;
use futures_util::StreamExt;
use futures_util::stream;

/// Instances that are examined at once.
const AT_ONCE: usize = 8;

/// An instance, and the daemon's status of it.
#[derive(Debug, Clone)]
pub struct Patient {
    /// The instance.
    pub instance: Instance,
    /// The daemon's status; `None` = no daemon runs.
    pub running: Option<RunningInstance>,
}

/// Examines them all.
pub async fn diagnose(patients: Vec<Patient>, world: &dyn World) -> DoctorDocument {
    let diagnoses = stream::iter(patients).map(async |patient| {
        let Patient { instance, running } = patient;
        let seen = examine(&instance, running, world).await;
        Diagnosis::new(&instance.name, judge(&instance, &seen))
    });
    DoctorDocument::new(diagnoses.buffered(AT_ONCE).collect().await)
}
