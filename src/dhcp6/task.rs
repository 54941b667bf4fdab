//! The task that requests on one uplink: it connects the client of [`clatd_stages::dhcp6`] to the socket, the clock
//! and the file.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clatd_stages::dhcp6::{CLIENT_PORT, Client, ClientActions, ClientConfig, ClientInput, Duid, Lease, Phase};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::socket::PdSocket;
use super::{PdLease, PdState, file, machine};
use crate::clock::since_boot;
use crate::kernel::Netlink;
use crate::netlink::LinkEvents;

/// A quarter of the time in RFC 8415 section 7.6: a shorter random delay separates hosts that start together as well,
/// and the user waits for the first packet.
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// Timers of the runtime stop while the computer sleeps, so the clock is looked at this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// How often a link that is not ready is looked at.
const RETRY: Duration = Duration::from_secs(2);
/// A pause, so that a socket that only gives errors makes no busy loop.
const PAUSE: Duration = Duration::from_millis(150);

pub(super) type OnLeaseChange = Box<dyn Fn() + Send + Sync>;

/// What the task tells.
#[derive(Debug, Clone)]
pub(super) struct ClientState {
    pub(super) lease: Option<Lease>,
    pub(super) phase: Phase,
    error: Option<String>,
}

impl ClientState {
    pub(super) fn snapshot(&self, now: Duration) -> PdState {
        PdState {
            lease: self.lease.as_ref().and_then(|lease| PdLease::of(lease, now)),
            phase: self.phase,
            last_error: self.error.clone(),
        }
    }
}

/// What matters of the uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Usable {
    index: u32,
    address: Ipv6Addr,
}

pub(super) struct ClientTask {
    device: String,
    duid: Duid,
    path: PathBuf,
    netlink: Netlink,
    events: Arc<LinkEvents>,
    client: Client,
    socket: Option<PdSocket>,
    /// The carrier was lost, even if only for a moment.
    detached: bool,
    /// How often the carrier had been lost when it was last looked at.
    losses: u64,
    /// Why the link cannot be asked on.
    obstacle: Option<String>,
    timer: Option<Duration>,
    state: watch::Sender<ClientState>,
    notify: OnLeaseChange,
    stop: CancellationToken,
}

impl ClientTask {
    pub(super) fn new(
        device: &str,
        path: PathBuf,
        netlink: Netlink,
        notify: OnLeaseChange,
        stop: CancellationToken,
    ) -> (Self, watch::Receiver<ClientState>) {
        let (duid, iaid) = machine::client(device);
        let config = ClientConfig {
            duid: duid.clone(),
            iaid,
            seed: RandomState::new().hash_one(device),
            first_delay: FIRST_DELAY,
        };
        let (state, receiver) = watch::channel(ClientState {
            lease: None,
            phase: Phase::Idle,
            error: None,
        });
        let task = Self {
            device: device.to_owned(),
            duid,
            path,
            events: netlink.link_events(),
            netlink,
            client: Client::new(config),
            socket: None,
            detached: false,
            losses: 0,
            obstacle: None,
            timer: None,
            state,
            notify,
            stop,
        };
        (task, receiver)
    }

    pub(super) async fn run(mut self) {
        let mut changes = self.events.subscribe(&self.device);
        self.look().await;
        let mut stopping = false;
        while self.client.phase() != Phase::Ended {
            let wake = self.sleep();
            tokio::select! {
                biased;
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.handle(ClientInput::Stop);
                }
                Ok(()) = changes.changed() => self.look().await,
                received = receive(self.socket.as_ref()) => match received {
                    Ok(payload) => self.handle(ClientInput::Received(&payload)),
                    Err(error) => {
                        debug!("cannot receive DHCPv6 messages on {}: {error}", self.device);
                        tokio::time::sleep(PAUSE).await;
                    }
                },
                () = tokio::time::sleep(wake) => {
                    if self.socket.is_none() {
                        self.look().await;
                    }
                    self.handle(ClientInput::Timer);
                }
            }
        }
    }

    fn sleep(&self) -> Duration {
        let longest = if self.socket.is_none() { RETRY } else { LONGEST_SLEEP };
        let until = self.timer.map(|timer| timer.saturating_sub(since_boot()));
        // The runtime's timers have whole milliseconds, and a call a fraction too early would find nothing due.
        until.map_or(longest, |until| (until + Duration::from_millis(1)).min(longest))
    }

    /// Looks at the link. Opens the socket if the link is ready, and closes it if not.
    async fn look(&mut self) {
        // Read before the link: a later loss makes another event, and so another look.
        if let Some(index) = self.socket.as_ref().map(PdSocket::index) {
            let losses = self.events.carrier_losses(index);
            self.detached |= std::mem::replace(&mut self.losses, losses) != losses;
        }
        let usable = match usable(&self.netlink, &self.device).await {
            Ok(usable) => usable,
            Err(why) => {
                self.detached |= self.socket.take().is_some();
                return self.obstructed(why);
            }
        };
        let same = self
            .socket
            .as_ref()
            .is_some_and(|socket| socket.is_on(usable.index, usable.address));
        if !same {
            self.socket = None;
            self.losses = self.events.carrier_losses(usable.index);
            match PdSocket::open(usable.index, usable.address) {
                Ok(socket) => self.socket = Some(socket),
                Err(error) => {
                    let hint = match error.kind() {
                        io::ErrorKind::PermissionDenied => " (it takes the capability CAP_NET_RAW)",
                        _ => "",
                    };
                    return self.obstructed(format!(
                        "cannot open a socket for DHCPv6 on {}, port {CLIENT_PORT}: {error}{hint}",
                        self.device
                    ));
                }
            }
        }
        self.obstacle = None;
        if self.client.phase() == Phase::Idle {
            let kept = file::load(&self.path, &self.duid);
            self.handle(ClientInput::Start(kept));
        } else if self.detached || !same {
            debug!("{} is back, or another device has its name", self.device);
            self.handle(ClientInput::Relinked);
        }
        self.detached = false;
    }

    fn obstructed(&mut self, why: String) {
        debug!("{why}");
        self.obstacle = Some(why);
        self.tell(false);
    }

    fn handle(&mut self, event: ClientInput<'_>) {
        let ClientActions {
            send,
            timer,
            lease_changed,
        } = self.client.handle(since_boot(), event);
        self.timer = timer;
        for message in &send {
            let sent = self.socket.as_ref().map_or(Ok(()), |socket| socket.send(message));
            if let Err(error) = sent {
                // The client sends it again at the usual times.
                warn!("cannot send a DHCPv6 message on {}: {error}", self.device);
            }
        }
        if lease_changed {
            self.keep();
        }
        self.tell(lease_changed);
    }

    /// Takes the lease over into its file.
    fn keep(&self) {
        let done = match self.client.lease() {
            Some(lease) => file::save(&self.path, &self.duid, lease),
            None => file::remove(&self.path),
        };
        if let Err(error) = done {
            warn!("cannot store the DHCPv6 lease in {}: {error}", self.path.display());
        }
    }

    fn tell(&self, lease_changed: bool) {
        let state = ClientState {
            lease: self.client.lease().cloned(),
            phase: self.client.phase(),
            error: self
                .obstacle
                .clone()
                .or_else(|| self.client.problem().map(str::to_owned)),
        };
        let before = self.state.send_replace(state.clone());
        let prefix = |state: &ClientState| state.lease.as_ref().and_then(Lease::in_use).map(|known| known.prefix);
        match (prefix(&before), prefix(&state)) {
            (old, Some(new)) if old != Some(new) => info!("DHCPv6 delegates {new} to this host on {}", self.device),
            (Some(old), None) => info!("DHCPv6 no longer delegates {old} to this host on {}", self.device),
            _ => {}
        }
        if lease_changed || before.error != state.error {
            if let Some(error) = state.error.filter(|error| before.error.as_ref() != Some(error)) {
                warn!("{}: {error}", self.device);
            }
            (self.notify)();
        }
    }
}

/// The device with its link-local address, or why nothing can be sent from it.
async fn usable(netlink: &Netlink, device: &str) -> Result<Usable, String> {
    let failed =
        |what: &str, error: &dyn std::error::Error| format!("reading {what} {device}: {}", crate::report::chain(error));
    let link = netlink.link(device).await;
    let Some(link) = link.map_err(|error| failed("the device", &error))? else {
        return Err(format!("there is no device {device}"));
    };
    if !link.up || !link.carrier {
        return Err(format!("{device} is down or has no carrier"));
    }
    let addresses = netlink.addresses6(link.index).await;
    let addresses = addresses.map_err(|error| failed("the addresses of", &error))?;
    let mut local = addresses
        .iter()
        .filter(|address| address.address.is_unicast_link_local());
    match local.clone().find(|address| !address.tentative) {
        Some(address) => Ok(Usable {
            index: link.index,
            address: address.address,
        }),
        None if local.next().is_some() => Err(format!("the link-local address of {device} is still tentative")),
        None => Err(format!("{device} has no link-local address")),
    }
}

async fn receive(socket: Option<&PdSocket>) -> io::Result<Vec<u8>> {
    match socket {
        Some(socket) => socket.receive().await,
        None => std::future::pending().await,
    }
}
