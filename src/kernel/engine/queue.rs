//! The thread of one queue: it reads packets, translates them, and writes the results.
//!
//! With offloads each packet has a virtio-net header and may be a super-packet of up to 64 KiB. It is read,
//! translated and written whole: its header is rewritten once for all segments, and the kernel cuts it on the way out
//! if needed. Small packets are read one behind the other into the same buffer while there are any, and then written
//! together: see [`super::join`].

use std::any::Any;
use std::io::{self, IoSlice, PipeReader};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clatd_translator::{DropEvent, Frame, HEADROOM, Kind, Offload, Output, PacketBuf, Translator, Worker};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tun_rs::SyncDevice;

use super::bell::Bell;
use super::events::Teller;
use super::join::{self, MOST, Waiting};
use super::priority;
use crate::hardening;

/// The largest packet: an IPv6 header and the largest payload.
const LARGEST: usize = 40 + 0xffff;
/// Room for the packets that wait, and behind them for one more of any size. Unused pages cost nothing.
const BUFFER: usize = 2 * (HEADROOM + LARGEST);

/// How long a thread asks for more packets before it sleeps. In between it lets all other programs run. Falling asleep and
/// being woken costs more than a small packet: a sender that had to wake this thread for each packet would be much
/// slower, and so would an answer that is already on its way.
const PATIENCE: Duration = Duration::from_micros(100);

/// How long after a super-packet a thread sleeps as soon as there is nothing to do. The program that sends or receives
/// needs the processor more.
const BULK: Duration = Duration::from_millis(2);

/// What was moved at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moved {
    Nothing,
    Small,
    /// A super-packet was among it.
    Bulk,
}

/// One queue with its thread's belongings.
pub(super) struct Queue {
    pub(super) translator: Arc<Translator>,
    pub(super) worker: Worker,
    pub(super) port: Port,
    pub(super) teller: Teller,
    pub(super) woken: PipeReader,
    pub(super) stopping: Arc<AtomicBool>,
    pub(super) bell: Arc<Bell>,
}

impl Queue {
    /// Moves packets until it is asked to stop. Any other end is reported to `on_exit`.
    pub(super) fn run(mut self, on_exit: &dyn Fn(String)) {
        let end = catch_unwind(AssertUnwindSafe(|| self.translate_until_stopped()));
        match end {
            Ok(Ok(())) => {}
            Ok(Err(error)) => on_exit(format!("its TUN device failed: {error}")),
            Err(panic) => on_exit(format!("it panicked: {}", message(panic.as_ref()))),
        }
    }

    fn translate_until_stopped(&mut self) -> io::Result<()> {
        self.port.device.set_nonblocking(true)?;
        let mut buffer = vec![0; BUFFER];
        let mut waiting = Vec::with_capacity(MOST);
        if let Err(error) = priority::raise() {
            tracing::debug!(%error, "the translator runs at normal priority; large transfers may be slower");
        }
        hardening::packet_thread();
        let begin = Instant::now();
        let (mut now, mut last_packet, mut last_bulk) = (begin, begin, None);
        while !self.stopping.load(Ordering::Relaxed) {
            let now_ms = u64::try_from((now - begin).as_millis()).unwrap_or(u64::MAX);
            let moved = self.translate_what_is_there(&mut buffer, &mut waiting, now_ms)?;
            now = Instant::now();
            if moved != Moved::Nothing {
                last_packet = now;
                if moved == Moved::Bulk {
                    last_bulk = Some(now);
                }
                // Another read is cheaper than a check whether one is needed.
                continue;
            }
            let in_bulk = last_bulk.is_some_and(|last| now - last < BULK);
            if !in_bulk && now - last_packet < PATIENCE {
                thread::yield_now();
            } else if self.wait()? {
                self.bell.ring();
                now = Instant::now();
                last_packet = now;
            } else {
                break;
            }
        }
        Ok(())
    }

    /// Moves packets until there are no more, or until so many wait that they should be written.
    fn translate_what_is_there(
        &mut self,
        buffer: &mut [u8],
        waiting: &mut Vec<Waiting>,
        now_ms: u64,
    ) -> io::Result<Moved> {
        let (mut end, mut moved) = (0, Moved::Nothing);
        while waiting.len() < MOST && end + HEADROOM + LARGEST <= buffer.len() {
            let (before, room) = buffer.split_at_mut(end);
            let Some((offload, length)) = self.port.read(room)? else {
                break;
            };
            let Some(mut packet) = PacketBuf::new(room, HEADROOM, length) else {
                break;
            };
            let mut results = Results {
                port: &mut self.port,
                teller: &mut self.teller,
                now_ms,
                before,
                waiting,
            };
            self.translator
                .translate(&mut self.worker, now_ms, offload, &mut packet, &mut results);
            end = (end + HEADROOM + length).next_multiple_of(64);
            moved = Moved::Small;
            if offload.is_gso() {
                moved = Moved::Bulk;
                // The batch is large already. The earlier it goes on, the earlier the other end can work on it.
                break;
            }
        }
        self.port.write_all(buffer, waiting);
        self.port.gone.take().map_or(Ok(moved), Err)
    }

    /// Waits for a packet; `false` = it is asked to end.
    fn wait(&self) -> io::Result<bool> {
        let mut fds = [
            PollFd::new(self.port.device.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.woken.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => return Ok(true),
            other => other?,
        };
        if fds[1].any().unwrap_or(true) {
            return Ok(false);
        }
        // A deleted device is always ready and never gives a packet.
        let ready = fds[0].revents().unwrap_or(PollFlags::empty());
        if ready.intersects(PollFlags::POLLERR | PollFlags::POLLNVAL) {
            return Err(io::Error::other("it was deleted"));
        }
        Ok(true)
    }
}

/// Where the results of one packet go.
struct Results<'a> {
    port: &'a mut Port,
    teller: &'a mut Teller,
    now_ms: u64,
    /// The part of the buffer in front of this packet. The packets that wait lie in it.
    before: &'a mut [u8],
    waiting: &'a mut Vec<Waiting>,
}

impl Output for Results<'_> {
    #[inline]
    fn packet(&mut self, _: Kind, offload: &Offload, frame: Frame<'_>) {
        match frame.in_place() {
            Some(range) => {
                let end = self.before.len();
                self.waiting
                    .push(Waiting::new(end + range.start..end + range.end, *offload));
            }
            None => {
                // Packets that came earlier are written first.
                self.port.write_all(self.before, self.waiting);
                self.port.write(offload, frame);
            }
        }
    }

    fn dropped(&mut self, event: DropEvent<'_>) {
        self.teller.tell(self.now_ms, &event);
    }
}

/// One queue of the device.
pub(super) struct Port {
    device: Arc<SyncDevice>,
    /// Packets have a virtio-net header.
    offload: bool,
    /// UDP super-packets are taken.
    joins: bool,
    write_errors: Arc<AtomicU64>,
    gone: Option<io::Error>,
}

impl Port {
    pub(super) fn new(device: &Arc<SyncDevice>, offload: bool) -> Self {
        Self {
            device: Arc::clone(device),
            offload,
            joins: offload && device.udp_gso(),
            write_errors: Arc::default(),
            gone: None,
        }
    }

    pub(super) fn write_errors(&self) -> &Arc<AtomicU64> {
        &self.write_errors
    }

    /// Reads a packet to `room[HEADROOM..]`. Returns its device header and its length; `None` = there is no packet.
    fn read(&self, room: &mut [u8]) -> io::Result<Option<(Offload, usize)>> {
        let start = HEADROOM - self.header();
        loop {
            return match self.device.recv(&mut room[start..]) {
                Ok(length) => {
                    let header = room[start..HEADROOM]
                        .first_chunk()
                        .map_or(Offload::NONE, Offload::decode);
                    Ok(Some((header, length.saturating_sub(self.header()))))
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }

    fn header(&self) -> usize {
        if self.offload { Offload::LENGTH } else { 0 }
    }

    /// Writes one packet that lies in scratch space.
    fn write(&mut self, offload: &Offload, mut frame: Frame<'_>) {
        let written = match frame.with_header(&offload.encode()) {
            Some(bytes) if self.offload => self.device.send(bytes),
            _ => self.device.send(frame.bytes()),
        };
        self.look_at(written, 1, offload);
    }

    /// Writes all packets that wait; those of one flow together. They lie in `buffer`.
    fn write_all(&mut self, buffer: &mut [u8], waiting: &mut Vec<Waiting>) {
        if self.joins && waiting.len() > 2 {
            join::gather(buffer, waiting);
        }
        let mut rest = waiting.as_mut_slice();
        while !rest.is_empty() {
            let count = if self.joins && rest.len() > 1 {
                join::run(buffer, rest)
            } else {
                1
            };
            let (packets, others) = rest.split_at_mut(count);
            rest = others;
            if count > 1
                && let Some(offload) = join::join(buffer, packets)
            {
                packets[0].offload = offload;
            }
            let offload = packets[0].offload;
            let head = packets[0].range.clone();
            let start = head.start - self.header();
            if self.offload {
                buffer[start..head.start].copy_from_slice(&offload.encode());
            }
            let written = if count == 1 {
                self.device.send(&buffer[start..head.end])
            } else {
                let ip_and_udp = usize::from(offload.hdr_len);
                let mut pieces = [IoSlice::new(&[]); MOST];
                pieces[0] = IoSlice::new(&buffer[start..head.end]);
                for (piece, packet) in pieces[1..].iter_mut().zip(&packets[1..]) {
                    *piece = IoSlice::new(&buffer[packet.range.start + ip_and_udp..packet.range.end]);
                }
                self.device.send_vectored(&pieces[..count])
            };
            self.look_at(written, count, &offload);
        }
        waiting.clear();
    }

    fn look_at(&mut self, written: io::Result<usize>, packets: usize, offload: &Offload) {
        let Err(error) = written else { return };
        let count = self.write_errors.load(Ordering::Relaxed) + packets as u64;
        self.write_errors.store(count, Ordering::Relaxed);
        tracing::trace!(%error, ?offload, "the kernel did not take a packet");
        match error.raw_os_error() {
            Some(libc::EBADFD) => self.gone = Some(error),
            Some(libc::EINVAL) if packets > 1 => {
                tracing::info!(%error, "the kernel takes no UDP super-packets; small packets will be slower");
                self.joins = false;
            }
            _ => {}
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
