//! How often an instance puts back what others undo.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;
use tracing::error;

/// A limit on putting back what others undo.
#[derive(Debug, Default)]
pub struct Repairs {
    recent: VecDeque<Instant>,
    silenced: bool,
}

impl Repairs {
    /// Repairs in [`Repairs::WINDOW`] after which it is somebody else's turn.
    const MOST: usize = 32;
    const WINDOW: Duration = Duration::from_secs(60);

    pub(super) fn allow(&mut self) -> bool {
        let now = Instant::now();
        self.recent.retain(|at| now.duration_since(*at) < Self::WINDOW);
        if self.recent.len() < Self::MOST {
            self.silenced = false;
            self.recent.push_back(now);
            return true;
        }
        if !self.silenced {
            self.silenced = true;
            error!(
                "somebody keeps undoing what clatd does; it is left undone for now ({} repairs in {} s)",
                Self::MOST,
                Self::WINDOW.as_secs()
            );
        }
        false
    }
}
