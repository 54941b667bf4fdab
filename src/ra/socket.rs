//! The raw ICMPv6 socket that hears router advertisements and sends router solicitations on one device.

use std::io;
use std::mem::size_of;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::num::NonZeroU32;

use clatd_stages::ra::{ROUTER_ADVERTISEMENT, ROUTER_SOLICITATION};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;

use crate::sys::device::ethernet_address;
use crate::sys::socket::{Buffer, IPV6_RECVFRAGSIZE, Registered, receive_message, receive_only, receive_origin};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// The largest IPv6 payload. An advertisement is one packet of the link.
const LARGEST: usize = 65535;

/// A socket bound to one device.
#[derive(Debug)]
pub(super) struct RaSocket {
    socket: Registered,
    index: u32,
    buffer: Buffer,
}

/// A received message that may be a router advertisement.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Received<'a> {
    /// The ICMPv6 message.
    pub(super) packet: &'a [u8],
    pub(super) source: Ipv6Addr,
    pub(super) hop_limit: u8,
    /// Index of the device that it came by.
    pub(super) device: u32,
}

/// Why a received message is dropped before it is parsed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Discarded {
    /// RFC 6980 section 5: fragments can hide an advertisement from filters on the link.
    Fragmented,
    /// Came before the socket was bound to its device.
    OtherDevice,
    /// Longer than a packet can be, or without the ancillary data that was requested.
    Unusable,
}

impl RaSocket {
    /// Opens a socket that receives only router advertisements, on the device with this index.
    pub(super) fn open(index: u32) -> io::Result<Self> {
        let socket = listening(index)?;
        // RFC 4861 section 4.1.
        socket.set_multicast_hops_v6(255)?;
        socket.set_multicast_loop_v6(false)?;
        socket.set_multicast_if_v6(index)?;
        socket.join_multicast_v6(&ALL_NODES, index)?;
        Self::registered(socket, index)
    }

    /// The same on all devices; it cannot send. The kernel itself is in the group on each of them.
    pub(super) fn open_on_all() -> io::Result<Self> {
        Self::registered(listening(0)?, 0)
    }

    fn registered(socket: Socket, index: u32) -> io::Result<Self> {
        Ok(Self {
            socket: Registered::new(socket, Interest::READABLE)?,
            index,
            buffer: Buffer::new(LARGEST),
        })
    }

    /// Index of the device that the socket is bound to.
    pub(super) fn index(&self) -> u32 {
        self.index
    }

    /// Sends a router solicitation (RFC 4861 section 4.1) from an address that the kernel chooses. It fails with
    /// `EADDRNOTAVAIL` if no address may be used yet (a tentative one may not).
    pub(super) fn solicit(&self) -> io::Result<()> {
        let mut message = vec![ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
        if let Some(address) = ethernet_address(self.socket.get_ref(), self.index) {
            // Source link-layer address option (RFC 4861 section 4.6.1): spares the router a neighbour solicitation.
            message.extend([1, 1]);
            message.extend(address);
        }
        let routers = SocketAddrV6::new(ALL_ROUTERS, 0, 0, self.index);
        self.socket.get_ref().send_to(&message, &routers.into()).map(drop)
    }

    /// Waits for a message.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await.map(|mut ready| ready.retain_ready())
    }

    /// The next message; fails with `WouldBlock` where there is none.
    pub(super) fn receive(&mut self) -> io::Result<Result<Received<'_>, Discarded>> {
        let mut control = [0; 256];
        let (buffer, room) = (&mut self.buffer, &mut control);
        let message = self
            .socket
            .try_io(Interest::READABLE, move |socket| receive_message(socket, buffer, room))?;
        let Some(from) = message.from.as_socket_ipv6() else {
            return Ok(Err(Discarded::Unusable));
        };
        let packet = message.packet;
        if message.truncated {
            return Ok(Err(Discarded::Unusable));
        }
        let about = About::read(&control[..message.control_length.min(control.len())]);
        Ok(match about {
            About {
                fragment_size: Some(1..),
                ..
            } => Err(Discarded::Fragmented),
            About {
                device: Some(index), ..
            } if ![index, 0].contains(&self.index) => Err(Discarded::OtherDevice),
            About {
                hop_limit: Some(hop_limit),
                device,
                ..
            } => Ok(Received {
                device: device.unwrap_or(self.index),
                packet,
                source: *from.ip(),
                hop_limit,
            }),
            About { hop_limit: None, .. } => Err(Discarded::Unusable),
        })
    }
}

/// A socket for router advertisements on one device, or on all (0).
fn listening(index: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    if index != 0 {
        socket.bind_device_by_index_v6(NonZeroU32::new(index))?;
    }
    receive_only(&socket, ROUTER_ADVERTISEMENT)?;
    receive_origin(&socket)?;
    socket.set_recv_hoplimit_v6(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// What the control messages say of a packet.
#[derive(Debug, Default, PartialEq, Eq)]
struct About {
    hop_limit: Option<u8>,
    device: Option<u32>,
    /// Size of the largest fragment; absent or 0 = the packet was not fragmented.
    fragment_size: Option<i32>,
}

impl About {
    /// Reads `cmsghdr`s: length (of header and data), level, type, data, filled up to the size of a word.
    fn read(mut control: &[u8]) -> Self {
        const WORD: usize = size_of::<usize>();
        const HEADER: usize = WORD + 8;
        let mut about = Self::default();
        while let (Some(length), Some(level), Some(kind)) = (
            control.first_chunk().map(|bytes| usize::from_ne_bytes(*bytes)),
            int(control, WORD),
            int(control, WORD + 4),
        ) {
            let Some(data) = control.get(HEADER..length) else {
                break;
            };
            match (level, kind) {
                (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                    about.hop_limit = int(data, 0).and_then(|value| u8::try_from(value).ok());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    about.device = int(data, size_of::<libc::in6_addr>()).map(i32::cast_unsigned);
                }
                (libc::IPPROTO_IPV6, IPV6_RECVFRAGSIZE) => about.fragment_size = int(data, 0),
                _ => {}
            }
            control = control.get(length.next_multiple_of(WORD)..).unwrap_or_default();
        }
        about
    }
}

fn int(bytes: &[u8], at: usize) -> Option<i32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(i32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let length = size_of::<usize>() + 8 + data.len();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(level.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(data);
        bytes.resize(length.next_multiple_of(size_of::<usize>()), 0);
        bytes
    }

    #[test]
    fn control_messages_are_read_in_any_order() {
        let hop_limit = message(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, &255i32.to_ne_bytes());
        let mut information = [0; 20];
        information[16..].copy_from_slice(&7u32.to_ne_bytes());
        let device = message(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &information);
        let fragment = message(libc::IPPROTO_IPV6, IPV6_RECVFRAGSIZE, &1280i32.to_ne_bytes());
        let other = message(libc::SOL_SOCKET, libc::IPV6_HOPLIMIT, &[1]);
        let all = About {
            hop_limit: Some(255),
            device: Some(7),
            fragment_size: Some(1280),
        };
        assert_eq!(About::read(&[&other[..], &hop_limit, &device, &fragment].concat()), all);
        assert_eq!(About::read(&[&fragment[..], &device, &hop_limit, &other].concat()), all);
    }

    #[test]
    fn control_messages_that_end_early_say_nothing() {
        let whole = message(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, &255i32.to_ne_bytes());
        for length in 0..size_of::<usize>() + 12 {
            assert_eq!(About::read(&whole[..length]), About::default(), "{length} bytes");
        }
        for length in [0usize, 3, usize::MAX] {
            let mut bad = whole.clone();
            bad[..size_of::<usize>()].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(About::read(&bad), About::default(), "a length of {length}");
        }
    }
}
