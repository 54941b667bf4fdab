//! Wakes whoever sleeps until packets come again.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Rung by the threads that move packets, when one comes after a pause. Costs them a read where nobody waits.
#[derive(Debug, Default)]
pub struct Bell {
    awaited: AtomicBool,
    rung: Notify,
}

impl Bell {
    /// Wakes whoever waits.
    pub fn ring(&self) {
        if self.awaited.load(Ordering::Relaxed) && self.awaited.swap(false, Ordering::Relaxed) {
            self.rung.notify_one();
        }
    }

    /// Waits until it is rung.
    pub async fn wait(&self) {
        self.awaited.store(true, Ordering::Relaxed);
        self.rung.notified().await;
    }
}
