//! The task that owns the mirror. It applies events, dumps what a read needs and nobody asked for before, and
//! answers.

use std::io;
use std::net::Ipv6Addr;
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Duration, Instant, sleep_until};

use super::change::NetworkChange;
use super::events::{self, EventSocket, NetlinkEvent, Taken};
use super::mirror::{Mirror, Need};
use super::socket::{Connection, KernelMessage, NetlinkError};
use super::{address, link, route, rule, with};

/// After an overrun all listeners must read everything again. They are told again only after this time, which doubles
/// with each further overrun.
const SHORTEST_BACK_OFF: Duration = Duration::from_secs(1);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(32);
/// A pause, so that a socket that only gives errors makes no busy loop.
const PAUSE: Duration = Duration::from_millis(150);

pub(super) type ChangeListener = Box<dyn FnMut(&NetworkChange) -> bool + Send + Sync>;
type Reply = Box<dyn FnOnce(Result<(&Mirror, Instant), NetlinkError>) + Send + Sync>;

enum Ask {
    Read {
        needs: Vec<Need>,
        reply: Reply,
    },
    Watch {
        destination: Ipv6Addr,
        all: bool,
        done: oneshot::Sender<()>,
    },
    Listen(ChangeListener),
    Take(KernelMessage),
}

/// A handle; the task ends with the last one.
#[derive(Debug, Clone)]
pub(super) struct Hub {
    asks: mpsc::UnboundedSender<Ask>,
}

impl Hub {
    /// Subscribes in the network namespace of the calling thread, and begins. Needs a runtime.
    pub(super) fn start(connection: Arc<Mutex<Connection>>) -> io::Result<Self> {
        let task = Task {
            socket: EventSocket::open()?,
            mirror: Mirror::default(),
            connection,
            listeners: Vec::new(),
            more: false,
            back_off: SHORTEST_BACK_OFF,
            overran: None,
            tell_all_at: None,
        };
        let (asks, asked) = mpsc::unbounded_channel();
        tokio::spawn(task.run(asked));
        Ok(Self { asks })
    }

    /// Reads from the mirror what is needed.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        needs: &[Need],
        read: impl FnOnce(&Mirror, Instant) -> T + Send + Sync + 'static,
    ) -> Result<T, NetlinkError> {
        let (sender, answer) = oneshot::channel();
        let reply: Reply = Box::new(move |result| {
            // Whoever asked does not wait any more.
            let _ = sender.send(result.map(|(mirror, now)| read(mirror, now)));
        });
        let needs = needs.to_vec();
        self.ask(Ask::Read { needs, reply });
        answer.await.map_err(|_| ended())?
    }

    /// From now on keeps the routes to this destination, too: those to come, or `all` routes.
    pub(super) async fn watch(&self, destination: Ipv6Addr, all: bool) -> Result<(), NetlinkError> {
        let (sender, done) = oneshot::channel();
        self.ask(Ask::Watch {
            destination,
            all,
            done: sender,
        });
        done.await.map_err(|_| ended())
    }

    pub(super) fn listen(&self, listener: ChangeListener) {
        self.ask(Ask::Listen(listener));
    }

    /// Applies something of which there was no event.
    pub(super) fn take(&self, message: KernelMessage) {
        self.ask(Ask::Take(message));
    }

    fn ask(&self, ask: Ask) {
        // The task ends after the last handle only, or with the runtime.
        let _ = self.asks.send(ask);
    }
}

fn ended() -> NetlinkError {
    NetlinkError::Socket(io::Error::other("the task that mirrors the network has ended"))
}

struct Task {
    socket: EventSocket,
    mirror: Mirror,
    connection: Arc<Mutex<Connection>>,
    listeners: Vec<ChangeListener>,
    /// There may be more events, of which the socket does not notify again.
    more: bool,
    back_off: Duration,
    overran: Option<Instant>,
    tell_all_at: Option<Instant>,
}

impl Task {
    async fn run(mut self, mut asked: mpsc::UnboundedReceiver<Ask>) {
        loop {
            let due = self.tell_all_at;
            tokio::select! {
                biased;
                ask = asked.recv() => match ask {
                    Some(ask) => self.answer(ask).await,
                    None => return,
                },
                () = std::future::ready(()), if self.more => self.follow().await,
                () = self.socket.wait(), if !self.more => self.follow().await,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.tell_all_at = None;
                    self.tell(&NetworkChange::Anything);
                }
            }
        }
    }

    async fn follow(&mut self) {
        let taken = self.take_events();
        self.more = taken.as_ref().is_ok_and(|more| *more);
        if let Err(error) = taken {
            tracing::warn!("cannot receive changes of the network from the kernel: {error}");
            tokio::time::sleep(PAUSE).await;
            self.lost_events();
        }
    }

    async fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Read { needs, reply } => match self.provide(&needs).await {
                Ok(()) => reply(Ok((&self.mirror, Instant::now()))),
                Err(error) => reply(Err(error)),
            },
            Ask::Watch { destination, all, done } => {
                if self.mirror.watch(destination, all)
                    && let Err(error) = self.socket.watch(&self.mirror.watched())
                {
                    tracing::warn!("cannot follow routes to {destination}: {error}");
                }
                let _ = done.send(());
            }
            Ask::Listen(listener) => self.listeners.push(listener),
            Ask::Take(message) => {
                let event = NetlinkEvent {
                    kind: message.kind,
                    flags: 0,
                    payload: &message.payload,
                };
                for change in self.mirror.take(event, Instant::now()) {
                    self.tell(&change);
                }
            }
        }
    }

    /// Applies all events, then reads what is missing.
    async fn provide(&mut self, needs: &[Need]) -> Result<(), NetlinkError> {
        self.take_all_events()?;
        // Events that come during a dump may make other parts stale, but this must end.
        for _ in 0..8 {
            let Some(missing) = needs.iter().copied().find(|need| !self.mirror.has(*need)) else {
                return Ok(());
            };
            let messages = self.dump(missing).await?;
            self.mirror.load(missing, messages, Instant::now());
            self.take_all_events()?;
        }
        match needs.iter().all(|need| self.mirror.has(*need)) {
            true => Ok(()),
            false => Err(NetlinkError::Interrupted),
        }
    }

    async fn dump(&self, need: Need) -> Result<Vec<KernelMessage>, NetlinkError> {
        let connection = Arc::clone(&self.connection);
        match need {
            Need::Links => {
                let dump = |connection: &mut Connection| connection.dump(libc::RTM_GETLINK, &link::dump_of_all());
                with(connection, dump).await
            }
            Need::Addresses6(index) => with(connection, move |connection| address::dump(connection, index, true)).await,
            Need::Rules(v6) => {
                let dump =
                    move |connection: &mut Connection| connection.dump(libc::RTM_GETRULE, &rule::dump_of_all(v6));
                with(connection, dump).await
            }
            Need::Defaults4(table) => {
                let dump = move |_: &mut Connection| {
                    let alone = Connection::open(netlink_sys::protocols::NETLINK_ROUTE);
                    route::dump_defaults4(alone.map_err(NetlinkError::Socket)?, table)
                };
                with(connection, dump).await
            }
            Need::Routes6 => {
                let watched = self.mirror.watched();
                with(connection, move |connection| route::dump6(connection, &watched)).await
            }
        }
    }

    fn take_all_events(&mut self) -> Result<(), NetlinkError> {
        while self.take_events().map_err(NetlinkError::Socket)? {}
        Ok(())
    }

    /// Applies the events that are there. Returns true if there may be more.
    fn take_events(&mut self) -> io::Result<bool> {
        let (mirror, now) = (&mut self.mirror, Instant::now());
        let mut changes = Vec::new();
        let taken = self.socket.take(|datagram| {
            for event in events::messages(datagram) {
                changes.extend(mirror.take(event, now));
            }
        })?;
        for change in &changes {
            self.tell(change);
        }
        match taken {
            Taken::Datagrams(count) => Ok(count == EventSocket::BATCH),
            Taken::Overrun => {
                self.lost_events();
                Ok(true)
            }
        }
    }

    /// All is read again. Listeners are told at once that everything may have changed, but not again and again.
    fn lost_events(&mut self) {
        let now = Instant::now();
        self.mirror.forget();
        let calm = self
            .overran
            .is_none_or(|last| now.duration_since(last) > LONGEST_BACK_OFF * 2);
        self.overran = Some(now);
        if calm {
            self.back_off = SHORTEST_BACK_OFF;
            self.tell_all_at = Some(now);
        } else if self.tell_all_at.is_none() {
            self.tell_all_at = Some(now + self.back_off);
            self.back_off = (self.back_off * 2).min(LONGEST_BACK_OFF);
        }
    }

    fn tell(&mut self, change: &NetworkChange) {
        self.listeners.retain_mut(|listener| listener(change));
    }
}
