//! The thread of one queue: read a packet, translate it, write what comes out.
//!
//! With offloads each packet has a virtio-net header and may be a super-packet of up to 64 KiB. It is read, translated
//! and written whole: its header is rewritten once for all of its segments, and the kernel cuts it up, if ever, on the
//! way out.

use std::any::Any;
use std::io::{self, PipeReader};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use clatd_translator::{Frame, HEADROOM, Kind, Offload, PacketBuf, Translator, Worker};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tun_rs::SyncDevice;

/// The largest packet: an IPv6 header and the largest payload.
const LARGEST: usize = 40 + 0xffff;

/// One queue with its thread's belongings.
pub(super) struct Queue {
    pub(super) translator: Arc<Translator>,
    pub(super) worker: Worker,
    pub(super) device: Arc<SyncDevice>,
    pub(super) offload: bool,
    pub(super) woken: PipeReader,
    pub(super) stopping: Arc<AtomicBool>,
    pub(super) write_errors: Arc<AtomicU64>,
}

impl Queue {
    /// Moves packets until asked to stop. Any other end is told to `on_exit`.
    pub(super) fn run(mut self, on_exit: &dyn Fn(String)) {
        let end = catch_unwind(AssertUnwindSafe(|| self.translate_until_stopped()));
        match end {
            Ok(Ok(())) => {}
            Ok(Err(error)) => on_exit(format!("its TUN device failed: {error}")),
            Err(panic) => on_exit(format!("it panicked: {}", message(panic.as_ref()))),
        }
    }

    fn translate_until_stopped(&mut self) -> io::Result<()> {
        self.device.set_nonblocking(true)?;
        let header = if self.offload { Offload::LENGTH } else { 0 };
        let start = HEADROOM - header;
        let mut buffer = vec![0; HEADROOM + LARGEST];
        let begin = Instant::now();
        while !self.stopping.load(Ordering::Relaxed) {
            let length = match self.device.recv(&mut buffer[start..]) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.wait()? {
                        continue;
                    }
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let offload = match buffer.get(start..HEADROOM).and_then(|bytes| bytes.try_into().ok()) {
                Some(bytes) if self.offload => Offload::decode(bytes),
                _ => Offload::NONE,
            };
            let Some(mut packet) = PacketBuf::new(&mut buffer, HEADROOM, length.saturating_sub(header)) else {
                continue;
            };
            let now_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
            let (device, with_header, write_errors) = (&self.device, self.offload, &self.write_errors);
            let mut gone = None;
            let mut write = |_: Kind, offload: &Offload, mut frame: Frame<'_>| {
                let written = if with_header {
                    frame
                        .with_header(&offload.encode())
                        .map_or(Ok(0), |bytes| device.send(bytes))
                } else {
                    device.send(frame.bytes())
                };
                let Err(error) = written else { return };
                write_errors.store(write_errors.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                tracing::trace!(%error, ?offload, "the kernel did not take a packet");
                if error.raw_os_error() == Some(libc::EBADFD) {
                    gone = Some(error);
                }
            };
            self.translator
                .translate(&mut self.worker, now_ms, offload, &mut packet, &mut write);
            if let Some(error) = gone {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Waits for a packet; `false` = for the end.
    fn wait(&self) -> io::Result<bool> {
        let mut fds = [
            PollFd::new(self.device.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.woken.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => return Ok(true),
            other => other?,
        };
        if fds[1].any().unwrap_or(true) {
            return Ok(false);
        }
        // A device that was deleted is always ready and never gives a packet.
        let ready = fds[0].revents().unwrap_or(PollFlags::empty());
        if ready.intersects(PollFlags::POLLERR | PollFlags::POLLNVAL) {
            return Err(io::Error::other("it was deleted"));
        }
        Ok(true)
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
