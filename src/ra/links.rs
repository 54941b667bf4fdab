//! Tells the listeners that something changed on a link: netlink events of devices and IPv6 addresses.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket};
use tokio::sync::watch;

/// `RTNLGRP_LINK` and `RTNLGRP_IPV6_IFADDR` of `linux/rtnetlink.h`.
const GROUPS: [u32; 2] = [1, 9];
/// `nlmsghdr`, and `ifinfomsg` behind it.
const HEADER: usize = 16;
const LINK: usize = 16;
/// Keeps a socket that only gives errors from becoming a busy loop.
const PAUSE: Duration = Duration::from_millis(150);

/// What happened to the links.
#[derive(Debug, Default)]
pub(super) struct Events {
    count: watch::Sender<u64>,
    carriers: Mutex<Carriers>,
}

/// How often carriers went. The state of a link alone would not tell of one that went and came back within an instant,
/// and behind which there may be another network now.
#[derive(Debug, Default)]
struct Carriers {
    lost: BTreeMap<u32, u64>,
    /// Events that the kernel could not tell us of; each may have been any device's.
    unknown: u64,
}

impl Events {
    /// A count that goes up with every event.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }

    /// How often the carrier of a device went, at most.
    pub(super) fn carrier_losses(&self, index: u32) -> u64 {
        let carriers = self.carriers.lock().unwrap_or_else(PoisonError::into_inner);
        carriers.unknown + carriers.lost.get(&index).copied().unwrap_or_default()
    }

    fn carriers(&self, change: impl FnOnce(&mut Carriers)) {
        change(&mut self.carriers.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes in a datagram of netlink messages.
    fn take(&self, mut messages: &[u8]) {
        while let Some((length, kind)) = header(messages) {
            if let Some((index, flags)) = (kind == libc::RTM_NEWLINK || kind == libc::RTM_DELLINK)
                .then(|| link(messages))
                .flatten()
            {
                self.carriers(|carriers| {
                    if kind == libc::RTM_DELLINK {
                        carriers.lost.remove(&index);
                    } else if flags & libc::IFF_RUNNING.cast_unsigned() == 0 {
                        *carriers.lost.entry(index).or_default() += 1;
                    }
                });
            }
            messages = messages.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// Opens the netlink socket in the network namespace of the calling thread.
pub(super) fn open() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    socket.socket_mut().bind_auto()?;
    for group in GROUPS {
        socket.socket_mut().add_membership(group)?;
    }
    Ok(socket)
}

/// Never ends.
pub(super) async fn run(socket: TokioSocket, events: &Events) {
    let mut messages = Vec::with_capacity(64 * 1024);
    loop {
        messages.clear();
        match socket.recv(&mut messages).await {
            Ok(_) => events.take(&messages),
            Err(_) => {
                events.carriers(|carriers| carriers.unknown += 1);
                tokio::time::sleep(PAUSE).await;
            }
        }
        events.count.send_modify(|count| *count += 1);
    }
}

fn header(message: &[u8]) -> Option<(usize, u16)> {
    let length = u32::from_ne_bytes(*message.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*message.get(4..)?.first_chunk()?);
    (HEADER..=message.len()).contains(&length).then_some((length, kind))
}

/// Index and flags out of `ifinfomsg`.
fn link(message: &[u8]) -> Option<(u32, u32)> {
    let link: &[u8; LINK] = message.get(HEADER..)?.first_chunk()?;
    let number = |at: usize| u32::from_ne_bytes([link[at], link[at + 1], link[at + 2], link[at + 3]]);
    Some((number(4), number(8)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, index: u32, flags: u32) -> Vec<u8> {
        let mut bytes = 34u32.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend([0; 4]);
        bytes.extend(index.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        // Two bytes of attributes, and what rounds them up.
        bytes.extend([0; 8]);
        bytes
    }

    #[test]
    fn every_loss_of_a_carrier_counts() {
        let running = libc::IFF_RUNNING.cast_unsigned();
        let events = Events::default();
        events.take(
            &[
                message(libc::RTM_NEWLINK, 3, 0),
                message(libc::RTM_NEWLINK, 3, running),
                message(libc::RTM_NEWLINK, 4, running),
                message(libc::RTM_NEWADDR, 3, 0),
                message(libc::RTM_NEWLINK, 3, 0),
            ]
            .concat(),
        );
        assert_eq!(events.carrier_losses(3), 2);
        assert_eq!(events.carrier_losses(4), 0);
        events.carriers(|carriers| carriers.unknown += 1);
        assert_eq!(events.carrier_losses(4), 1);
    }

    #[test]
    fn messages_that_end_early_are_left() {
        let whole = message(libc::RTM_NEWLINK, 3, 0);
        for length in 0..whole.len() {
            let events = Events::default();
            events.take(&whole[..length]);
            assert_eq!(events.carrier_losses(3), u64::from(length >= 34), "{length} bytes");
        }
    }
}
