//! The socket on which the kernel reports changes. A filter on the socket makes the kernel drop what nobody here
//! needs: a full routing table that flaps makes ten thousand route events a second, and none of them wakes the
//! daemon.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv6Addr;

use clatd_stages::net::ROUTE_PROTOCOL;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, Socket, TokioSocket};
use socket2::{SockFilter, SockRef};

use super::wire;

/// Groups of `linux/rtnetlink.h`: devices, neighbours, addresses, routes, rules, nexthop objects, and the settings of
/// devices (`forwarding`, `proxy_ndp`).
const GROUPS: [u32; 10] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_NEIGH,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_ROUTE,
    libc::RTNLGRP_IPV4_RULE,
    libc::RTNLGRP_IPV6_RULE,
    libc::RTNLGRP_IPV6_NETCONF,
    libc::RTNLGRP_NEXTHOP,
];
/// Room in bytes for events that come while a long dump is read. The kernel may give less.
const ROOM: usize = 1 << 20;
/// Longest datagram; the kernel makes no longer one.
const LONGEST: usize = 64 * 1024;
/// With more destinations than this, the filter does not distinguish them, and every IPv6 route is received.
const MOST_WATCHED: usize = 512;

/// Length of `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;

/// One message of the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NetlinkEvent<'a> {
    /// `RTM_...`
    pub(crate) kind: u16,
    /// `NLM_F_...`
    pub(crate) flags: u16,
    /// What follows the netlink header.
    pub(crate) payload: &'a [u8],
}

/// The messages in a datagram. Ends at the first malformed one.
pub(crate) fn messages(datagram: &[u8]) -> impl Iterator<Item = NetlinkEvent<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = wire::u32_at(rest, 0)? as usize;
        let payload = rest.get(HEADER..length)?;
        let (kind, flags) = (wire::u16_at(rest, 4)?, wire::u16_at(rest, 6)?);
        rest = rest.get(wire::align(length)..).unwrap_or_default();
        Some(NetlinkEvent { kind, flags, payload })
    })
}

/// The subscribed socket.
pub(super) struct EventSocket {
    socket: TokioSocket,
    buffer: Vec<u8>,
    /// The result of waiting for a datagram, which is in the buffer.
    waited: Option<io::Result<usize>>,
}

/// What was taken from the socket.
pub(super) enum Taken {
    /// So many datagrams: all that there were, or as many as are taken at once.
    Datagrams(usize),
    /// Some were lost, since there was no room for them.
    Overrun,
}

impl EventSocket {
    /// How many datagrams are taken at once before others get their turn.
    pub(super) const BATCH: usize = 64;

    /// Subscribes in the network namespace of the calling thread. Needs a runtime.
    pub(super) fn open() -> io::Result<Self> {
        let mut subscribed = TokioSocket::new(NETLINK_ROUTE)?;
        let socket = subscribed.socket_mut();
        socket.bind_auto()?;
        // Less room only makes an overrun likelier.
        let _ = SockRef::from(&*socket).set_recv_buffer_size(ROOM);
        attach(socket, &BTreeSet::new())?;
        for group in GROUPS {
            match socket.add_membership(group) {
                // A kernel that does not know the group has no such events.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                other => other?,
            }
        }
        Ok(Self {
            socket: subscribed,
            buffer: Vec::with_capacity(LONGEST),
            waited: None,
        })
    }

    /// Receives also IPv6 routes that lead to these destinations.
    pub(super) fn watch(&self, destinations: &BTreeSet<Ipv6Addr>) -> io::Result<()> {
        attach(self.socket.socket_ref(), destinations)
    }

    /// Waits until there is something to take. Safe to cancel.
    pub(super) async fn wait(&mut self) {
        if self.waited.is_none() {
            self.buffer.clear();
            self.waited = Some(self.socket.recv(&mut self.buffer).await.map(|()| self.buffer.len()));
        }
    }

    /// Takes what is there, without waiting.
    pub(super) fn take(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<Taken> {
        for taken in 0..Self::BATCH {
            let received = self.waited.take().unwrap_or_else(|| {
                self.buffer.clear();
                // Reads directly: the runtime may not have noticed yet what a read must see.
                self.socket.socket_ref().recv(&mut self.buffer, libc::MSG_DONTWAIT)
            });
            match received {
                Ok(_) => each(&self.buffer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Taken::Datagrams(taken)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Taken::Overrun),
                Err(error) => return Err(error),
            }
        }
        Ok(Taken::Datagrams(Self::BATCH))
    }
}

fn attach(socket: &Socket, destinations: &BTreeSet<Ipv6Addr>) -> io::Result<()> {
    SockRef::from(socket).attach_filter(&program(destinations))
}

/// Instructions of classic BPF (`linux/filter.h`).
mod op {
    pub(super) const LOAD_BYTE: u16 = 0x30;
    pub(super) const LOAD_HALF: u16 = 0x28;
    /// A word, or with a negative offset one of the extensions.
    pub(super) const LOAD_WORD: u16 = 0x20;
    pub(super) const LOAD_WORD_AT_X: u16 = 0x40;
    pub(super) const LOAD_NUMBER: u16 = 0x00;
    pub(super) const LOAD_X_NUMBER: u16 = 0x01;
    pub(super) const LOAD_STORED: u16 = 0x60;
    pub(super) const STORE: u16 = 0x02;
    pub(super) const TO_X: u16 = 0x07;
    pub(super) const AND: u16 = 0x54;
    pub(super) const XOR: u16 = 0xa4;
    pub(super) const MINUS_X: u16 = 0x1c;
    pub(super) const SHIFT_RIGHT_X: u16 = 0x7c;
    pub(super) const IF_EQUAL: u16 = 0x15;
    pub(super) const IF_AT_LEAST: u16 = 0x35;
    pub(super) const IF_ANY_BIT: u16 = 0x45;
    pub(super) const RETURN: u16 = 0x06;
    /// Offset of the attribute whose type is in X, in a list that begins at A; 0 = none (`SKF_AD_NLATTR`).
    pub(super) const FIND_ATTRIBUTE: u32 = (-0x1000_i32 + 12).cast_unsigned();
}

const ACCEPT: u32 = u32::MAX;
const NTF_ROUTER: u32 = 0x80;

/// A type of message as the filter reads it, in network byte order.
fn as_read(kind: u16) -> u32 {
    u32::from(u16::from_be_bytes(kind.to_ne_bytes()))
}

/// Of routes: default routes, our own, and IPv6 routes that may lead to a destination, as far as the first 32 bits
/// show. Of neighbours: IPv6 ones that may be routers. Of everything else: all.
fn program(destinations: &BTreeSet<Ipv6Addr>) -> Vec<SockFilter> {
    let neighbours = neighbours();
    // Behind the jump to the neighbours, and the `RETURN`.
    let behind = u8::try_from(neighbours.len()).unwrap_or(u8::MAX);
    let mut program = vec![
        step(op::LOAD_HALF, 4),
        SockFilter::new(op::IF_EQUAL, 4, 0, as_read(libc::RTM_NEWNEIGH)),
        SockFilter::new(op::IF_EQUAL, 3, 0, as_read(libc::RTM_DELNEIGH)),
        SockFilter::new(op::IF_EQUAL, 2 + behind, 0, as_read(libc::RTM_NEWROUTE)),
        SockFilter::new(op::IF_EQUAL, 1 + behind, 0, as_read(libc::RTM_DELROUTE)),
        step(op::RETURN, ACCEPT),
    ];
    program.extend(neighbours);
    program.extend(routes(destinations));
    program
}

const fn step(code: u16, number: u32) -> SockFilter {
    SockFilter::new(code, 0, 0, number)
}

fn return_if(code: u16, number: u32, what: u32) -> [SockFilter; 2] {
    [SockFilter::new(code, 0, 1, number), step(op::RETURN, what)]
}

fn drop_unless_v6() -> [SockFilter; 3] {
    let v6 = u32::from(wire::family(true));
    let [equal, drop] = [SockFilter::new(op::IF_EQUAL, 1, 0, v6), step(op::RETURN, 0)];
    // The family is the first byte of every family's header.
    [step(op::LOAD_BYTE, HEADER as u32), equal, drop]
}

/// `struct ndmsg`, whose first attribute is the neighbour's address.
fn neighbours() -> Vec<SockFilter> {
    let (flags, address) = (HEADER as u32 + 10, HEADER as u32 + 12 + 4);
    let mut program = Vec::from(drop_unless_v6());
    program.push(step(op::LOAD_BYTE, flags));
    program.extend(return_if(op::IF_ANY_BIT, NTF_ROUTER, ACCEPT));
    // fe80::/10
    program.extend([step(op::LOAD_HALF, address), step(op::AND, 0xffc0)]);
    program.extend(return_if(op::IF_EQUAL, 0xfe80, ACCEPT));
    program.push(step(op::RETURN, 0));
    program
}

/// `struct rtmsg`.
fn routes(destinations: &BTreeSet<Ipv6Addr>) -> Vec<SockFilter> {
    let (dst_len, protocol, attributes) = (HEADER as u32 + 1, HEADER as u32 + 5, HEADER as u32 + 12);
    let mut program = vec![step(op::LOAD_BYTE, dst_len)];
    program.extend(return_if(op::IF_EQUAL, 0, ACCEPT));
    program.push(step(op::LOAD_BYTE, protocol));
    program.extend(return_if(op::IF_EQUAL, u32::from(ROUTE_PROTOCOL), ACCEPT));
    program.extend(drop_unless_v6());
    let words: BTreeSet<u32> = destinations.iter().map(first_word).collect();
    if words.len() > MOST_WATCHED {
        program.push(step(op::RETURN, ACCEPT));
        return program;
    }
    program.extend([
        step(op::LOAD_X_NUMBER, u32::from(libc::RTA_DST)),
        step(op::LOAD_NUMBER, attributes),
        step(op::LOAD_WORD, op::FIND_ATTRIBUTE),
    ]);
    program.extend(return_if(op::IF_EQUAL, 0, 0));
    program.extend([
        step(op::TO_X, 0),
        step(op::LOAD_WORD_AT_X, 4),
        step(op::STORE, 0),
        // X = how many of the first 32 bits are not part of the prefix.
        step(op::LOAD_BYTE, dst_len),
        SockFilter::new(op::IF_AT_LEAST, 0, 1, 32),
        step(op::LOAD_NUMBER, 32),
        step(op::TO_X, 0),
        step(op::LOAD_NUMBER, 32),
        step(op::MINUS_X, 0),
        step(op::TO_X, 0),
    ]);
    for word in words {
        program.extend([
            step(op::LOAD_STORED, 0),
            step(op::XOR, word),
            step(op::SHIFT_RIGHT_X, 0),
        ]);
        program.extend(return_if(op::IF_EQUAL, 0, ACCEPT));
    }
    program.push(step(op::RETURN, 0));
    program
}

fn first_word(address: &Ipv6Addr) -> u32 {
    let [a, b, ..] = address.segments();
    u32::from(a) << 16 | u32::from(b)
}
