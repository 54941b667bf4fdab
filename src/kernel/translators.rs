//! Starts and stops what moves the packets, and learns of its death.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clatd_stages::translator::TranslatorSpec;

use super::Kernel;
use super::engine::Engine;
use super::failure::{Done, Failure, NOTHING};
use super::tayga::Tayga;

/// A translator that ended without being asked to. Each of its threads may report that.
#[derive(Debug, Clone)]
pub struct TranslatorExit {
    /// The instance that it served.
    pub instance: String,
    /// The CLAT device.
    pub device: String,
    /// How it ended, with its last words.
    pub detail: String,
    /// The start whose end this is.
    pub start: Start,
}

/// One start of a translator, until it is stopped.
#[derive(Debug, Clone, Default)]
pub struct Start {
    stopped: Arc<AtomicBool>,
}

impl Start {
    /// Whether the translator was stopped since, so that a report of its end is about a predecessor of the one that
    /// runs now.
    pub fn is_over(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// The translator is stopped.
    pub fn end(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

/// A translator at work.
#[derive(Debug)]
pub(crate) enum Running {
    Engine(Engine),
    Tayga(Tayga),
}

impl Kernel {
    pub(super) async fn start_translator(&mut self, translator: &TranslatorSpec) -> Done {
        let device = translator.device().to_owned();
        if self.translators.contains_key(&device) {
            return Err(Failure::new(format!("a translator runs on {device} already")));
        }
        let start = Start::default();
        let (exits, instance, name, started) =
            (self.exits.clone(), self.instance.clone(), device.clone(), start.clone());
        let on_exit = move |detail: String| {
            // Without a receiver the daemon is about to end, and needs no report.
            let _ = exits.send(TranslatorExit {
                instance: instance.clone(),
                device: name.clone(),
                detail,
                start: started.clone(),
            });
        };
        let running = match translator {
            TranslatorSpec::Userspace(spec) => {
                let tun = self
                    .tuns
                    .get(&device)
                    .ok_or_else(|| Failure::new(format!("this process does not have {device} open")))?;
                Running::Engine(Engine::start(spec, tun, &self.statistics, on_exit)?)
            }
            TranslatorSpec::Tayga(spec) => Running::Tayga(Tayga::start(spec, &self.netlink, on_exit).await?),
        };
        self.translators.insert(device, (start, running));
        Ok(NOTHING)
    }

    /// Stops the translator on a device. It is no error if there is none: a killed daemon's translator died with it.
    pub(super) async fn stop_translator(&mut self, device: &str) {
        let Some((start, running)) = self.translators.remove(device) else {
            return;
        };
        match running {
            Running::Engine(engine) => engine.stop().await,
            Running::Tayga(tayga) => tayga.stop().await,
        }
        start.end();
    }
}
