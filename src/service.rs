//! The messages to the service manager (sd_notify(3)): readiness, status, reloads, and signs of life.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::{debug, warn};

/// Where the service manager listens.
const SOCKET: &str = "NOTIFY_SOCKET";
/// For how long a service manager that does not read may delay us.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the service manager was told.
#[derive(Debug, Default)]
pub struct ServiceManager {
    ready: bool,
    stopping: bool,
    status: String,
    complained: bool,
}

impl ServiceManager {
    /// Whether one started this process.
    pub fn is_there() -> bool {
        std::env::var_os(SOCKET).is_some_and(|path| !path.is_empty())
    }

    /// How often a sign of life is sent: twice in the time after which the service manager takes us for dead.
    pub fn watchdog() -> Option<Duration> {
        sd_notify::watchdog_enabled().map(|limit| limit / 2)
    }

    /// Sends the status if it has changed, and once that the instances are ready.
    pub fn update(&mut self, ready: bool, status: &str) {
        let status = status.replace(char::is_control, " ");
        let becomes_ready = ready && !self.ready && !self.stopping;
        let mut news = Vec::new();
        if becomes_ready {
            news.push(NotifyState::Ready);
        }
        if status != self.status {
            news.push(NotifyState::Status(&status));
        }
        if !news.is_empty() && self.tell(&news) {
            self.ready |= becomes_ready;
            self.status = status;
        }
    }

    /// The configuration is being read again. [`Self::update`] reports the end of that.
    pub fn reloading(&mut self) {
        if !self.ready {
            return;
        }
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.ready = !self.tell(&[NotifyState::Reloading, now]),
            Err(error) => debug!("cannot read the clock: {error}"),
        }
    }

    /// We are about to end.
    pub fn stopping(&mut self) {
        if !self.stopping {
            self.stopping = true;
            self.tell(&[NotifyState::Stopping]);
        }
    }

    /// We live.
    pub fn alive(&mut self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    /// Whether it was told.
    fn tell(&mut self, news: &[NotifyState<'_>]) -> bool {
        let Some(path) = std::env::var_os(SOCKET).filter(|path| !path.is_empty()) else {
            return true;
        };
        let text: String = news.iter().map(|line| format!("{line}\n")).collect();
        match send(&path, text.as_bytes()) {
            Ok(()) => true,
            Err(error) if self.complained => {
                debug!("cannot tell the service manager {}: {error}", text.trim_end());
                false
            }
            Err(error) => {
                self.complained = true;
                warn!("cannot tell the service manager {}: {error}", text.trim_end());
                false
            }
        }
    }
}

/// Like `sd_notify::notify`, but it limits the wait for the other side, and knows abstract addresses.
fn send(path: &OsStr, text: &[u8]) -> io::Result<()> {
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.send_to_addr(text, &address).map(drop)
}
