//! One netlink socket: a request and its answers, or a dump.

use std::io;
use std::ops::ControlFlow;

use netlink_sys::{Socket, SocketAddr};

use super::wire::{self, Attributes};

/// Size of a netlink message's header.
const HEADER: usize = 16;
/// How many times a dump is tried while the kernel cannot finish it consistently.
const DUMP_TRIES: u32 = 8;
/// The same for a dump of which only some objects are wanted; their changes also cause events.
const TRIES_OF_SOME: u32 = 3;
/// Longest datagram: the kernel fills 32 KiB of a dump, and no object is longer.
pub(crate) const LONGEST: usize = 64 * 1024;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLM_F_DUMP: u16 = 0x300;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// Make it if it does not exist.
pub(crate) const NLM_F_CREATE: u16 = 0x400;
/// Fail if it exists.
pub(crate) const NLM_F_EXCL: u16 = 0x200;

/// A netlink request that failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel refused.
    #[error("{}{}", io::Error::from_raw_os_error(*.errno), .reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default())]
    Kernel {
        /// The errno, positive.
        errno: i32,
        /// The kernel's own words, where it gave any.
        reason: Option<String>,
    },
    /// The socket failed.
    #[error("netlink socket")]
    Socket(#[source] io::Error),
    /// The answer made no sense.
    #[error("malformed netlink message from the kernel")]
    Malformed,
    /// The table kept changing while it was read.
    #[error("the table kept changing while clatd read it; gave up after {DUMP_TRIES} tries")]
    Interrupted,
}

impl From<rtnetlink::Error> for NetlinkError {
    fn from(error: rtnetlink::Error) -> Self {
        match error {
            rtnetlink::Error::NetlinkError(refusal) => Self::Kernel {
                errno: -refusal.raw_code(),
                reason: None,
            },
            other => Self::Socket(io::Error::other(other)),
        }
    }
}

impl NetlinkError {
    /// The kernel's errno; 0 where it is none of the kernel's.
    pub fn errno(&self) -> i32 {
        match self {
            Self::Kernel { errno, .. } => *errno,
            Self::Socket(_) | Self::Malformed | Self::Interrupted => 0,
        }
    }
}

/// A message of the kernel: its type and the bytes behind the netlink header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelMessage {
    pub(crate) kind: u16,
    pub(crate) payload: Vec<u8>,
}

/// A socket with its sequence number.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Connection {
    /// Opens a socket in the network namespace of the calling thread.
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Both only improve answers: the kernel's reason in words, and dumps that the kernel filters. A kernel
        // without them works as well, since the reader filters again.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_netlink_get_strict_chk(true);
        Ok(Self {
            socket,
            sequence: 0,
            buffer: Vec::with_capacity(LONGEST),
        })
    }

    /// A request with an acknowledgement. Returns the messages before that.
    pub(crate) fn request(
        &mut self,
        kind: u16,
        flags: u16,
        payload: &[u8],
    ) -> Result<Vec<KernelMessage>, NetlinkError> {
        self.send(kind, NLM_F_REQUEST | NLM_F_ACK | flags, payload)?;
        self.receive().map(|(messages, _)| messages)
    }

    /// All objects of a kind. Reads again if they changed meanwhile.
    pub(crate) fn dump(&mut self, kind: u16, payload: &[u8]) -> Result<Vec<KernelMessage>, NetlinkError> {
        for _ in 0..DUMP_TRIES {
            self.send(kind, NLM_F_REQUEST | NLM_F_DUMP, payload)?;
            let (messages, interrupted) = self.receive()?;
            if !interrupted {
                return Ok(messages);
            }
        }
        Err(NetlinkError::Interrupted)
    }

    /// The wanted objects of a kind; others are dropped. A table that changes all the time is read a few times, and
    /// the objects of all reads count.
    pub(crate) fn dump_some(
        &mut self,
        kind: u16,
        payload: &[u8],
        wanted: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Vec<KernelMessage>, NetlinkError> {
        let mut seen: Vec<KernelMessage> = Vec::new();
        for _ in 0..TRIES_OF_SOME {
            self.send(kind, NLM_F_REQUEST | NLM_F_DUMP, payload)?;
            let mut messages = Vec::new();
            let interrupted = self.receive_each(&mut |kind, payload| {
                if wanted(payload) {
                    let payload = payload.to_vec();
                    messages.push(KernelMessage { kind, payload });
                }
                ControlFlow::Continue(())
            })?;
            if !interrupted {
                return Ok(messages);
            }
            let missed = seen.into_iter().filter(|message| !messages.contains(message));
            let missed: Vec<KernelMessage> = missed.collect();
            messages.extend(missed);
            seen = messages;
        }
        Ok(seen)
    }

    /// The objects of a kind, until `take` has enough. The rest is still to come then, so the socket must not be used
    /// again.
    pub(crate) fn dump_until(
        &mut self,
        kind: u16,
        payload: &[u8],
        mut take: impl FnMut(u16, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), NetlinkError> {
        self.send(kind, NLM_F_REQUEST | NLM_F_DUMP, payload)?;
        self.receive_each(&mut take).map(drop)
    }

    fn send(&mut self, kind: u16, flags: u16, payload: &[u8]) -> Result<(), NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(HEADER + payload.len()).map_err(|_| NetlinkError::Malformed)?;
        let mut message = Vec::with_capacity(HEADER + payload.len());
        message.extend_from_slice(&length.to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&flags.to_ne_bytes());
        message.extend_from_slice(&self.sequence.to_ne_bytes());
        message.extend_from_slice(&0u32.to_ne_bytes());
        message.extend_from_slice(payload);
        self.socket.send(&message, 0).map_err(NetlinkError::Socket)?;
        Ok(())
    }

    fn receive(&mut self) -> Result<(Vec<KernelMessage>, bool), NetlinkError> {
        let mut messages = Vec::new();
        let interrupted = self.receive_each(&mut |kind, payload| {
            let payload = payload.to_vec();
            messages.push(KernelMessage { kind, payload });
            ControlFlow::Continue(())
        })?;
        Ok((messages, interrupted))
    }

    /// Gives each message of the answer to `take` until that has enough. Returns true if the objects changed
    /// meanwhile.
    fn receive_each(&mut self, take: &mut dyn FnMut(u16, &[u8]) -> ControlFlow<()>) -> Result<bool, NetlinkError> {
        let mut interrupted = false;
        loop {
            self.buffer.clear();
            let length = match self.socket.recv(&mut self.buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other.map_err(NetlinkError::Socket)?,
            };
            let mut rest = self.buffer.get(..length).ok_or(NetlinkError::Malformed)?;
            while rest.len() >= HEADER {
                let length = wire::u32_at(rest, 0).ok_or(NetlinkError::Malformed)? as usize;
                let kind = wire::u16_at(rest, 4).ok_or(NetlinkError::Malformed)?;
                let flags = wire::u16_at(rest, 6).ok_or(NetlinkError::Malformed)?;
                let sequence = wire::u32_at(rest, 8).ok_or(NetlinkError::Malformed)?;
                let payload = rest.get(HEADER..length).ok_or(NetlinkError::Malformed)?;
                rest = rest.get(wire::align(length)..).unwrap_or_default();
                if sequence != self.sequence {
                    continue;
                }
                interrupted |= flags & NLM_F_DUMP_INTR != 0;
                match kind {
                    NLMSG_NOOP => {}
                    NLMSG_DONE => return status(payload, 4, flags).map(|()| interrupted),
                    NLMSG_ERROR => {
                        // Behind the errno is the refused request, whole or only its header.
                        let echoed = match flags & NLM_F_CAPPED {
                            0 => wire::u32_at(payload, 4).map_or(HEADER, |length| length as usize),
                            _ => HEADER,
                        };
                        return status(payload, 4 + wire::align(echoed), flags).map(|()| interrupted);
                    }
                    _ if take(kind, payload).is_break() => return Ok(interrupted),
                    _ => {}
                }
            }
        }
    }
}

/// Runs a request on a blocking thread, since it may have to wait for a lock of the kernel.
pub(crate) async fn on_blocking_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NetlinkError> + Send + 'static,
) -> Result<T, NetlinkError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| NetlinkError::Socket(io::Error::other(error)))?
}

/// The objects of a kind, over a socket of its own; `None` = there are more than `most`. Where the kernel does not know the
/// protocol, there are none.
#[cfg(feature = "ebpf")]
pub(crate) fn read_some(
    protocol: isize,
    kind: u16,
    payload: &[u8],
    most: usize,
) -> Result<Option<Vec<KernelMessage>>, NetlinkError> {
    let mut messages = Vec::new();
    let mut too_many = false;
    let read = Connection::open(protocol)
        .map_err(NetlinkError::Socket)
        .and_then(|mut connection| {
            connection.dump_until(kind, payload, |kind, payload| {
                if messages.len() == most {
                    too_many = true;
                    return ControlFlow::Break(());
                }
                let payload = payload.to_vec();
                messages.push(KernelMessage { kind, payload });
                ControlFlow::Continue(())
            })
        });
    Ok(match none_if_unknown(read)? {
        Some(()) => (!too_many).then_some(messages),
        None => Some(Vec::new()),
    })
}

/// What was read; `None` = the kernel does not know what was asked for, or not the protocol.
pub(crate) fn none_if_unknown<T>(read: Result<T, NetlinkError>) -> Result<Option<T>, NetlinkError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if matches!(error.errno(), libc::EOPNOTSUPP | libc::EINVAL) => Ok(None),
        Err(NetlinkError::Socket(error)) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The errno at the head of an error or end-of-dump message, with the kernel's words for it.
fn status(payload: &[u8], attributes_at: usize, flags: u16) -> Result<(), NetlinkError> {
    let errno = wire::u32_at(payload, 0).map_or(0, u32::cast_signed).wrapping_neg();
    if errno == 0 {
        return Ok(());
    }
    let attributes = if flags & NLM_F_ACK_TLVS != 0 {
        payload.get(attributes_at..).unwrap_or_default()
    } else {
        &[]
    };
    let reason = Attributes(attributes)
        .find(|attribute| attribute.kind == NLMSGERR_ATTR_MSG)
        .map(|attribute| attribute.text());
    Err(NetlinkError::Kernel { errno, reason })
}
