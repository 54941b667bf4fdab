//! Sockets: options, receiving into memory that is initialised already, and waiting for them.

use std::future::Future;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd;

use libc::c_int;
use socket2::{MaybeUninitSlice, MsgHdrMut, SockAddr, Socket};
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

/// A socket that the runtime waits on. Nobody can put another socket in its place: no method gives a mutable reference.
#[derive(Debug)]
pub(crate) struct Registered(AsyncFd<Socket>);

impl Registered {
    pub(crate) fn new(socket: Socket, interest: Interest) -> io::Result<Self> {
        // SAFETY: a Socket owns its descriptor and is always about the same one. Nothing replaces or closes it while
        // the AsyncFd has it, since this type lends it out for reading only.
        let registered = unsafe { AsyncFd::register_with_interest(socket, interest) };
        Ok(Self(registered?))
    }

    pub(crate) fn get_ref(&self) -> &Socket {
        self.0.get_ref()
    }

    pub(crate) async fn readable(&self) -> io::Result<AsyncFdReadyGuard<'_, Socket>> {
        self.0.readable().await
    }

    pub(crate) async fn writable(&self) -> io::Result<AsyncFdReadyGuard<'_, Socket>> {
        self.0.writable().await
    }

    /// Waits until the socket is ready and the call does not say `WouldBlock`.
    pub(crate) fn async_io<R>(
        &self,
        interest: Interest,
        call: impl FnMut(&Socket) -> io::Result<R>,
    ) -> impl Future<Output = io::Result<R>> {
        self.0.async_io(interest, call)
    }

    /// Makes the call now. If it says `WouldBlock`, the socket is not ready any more.
    pub(crate) fn try_io<R>(&self, interest: Interest, call: impl FnOnce(&Socket) -> io::Result<R>) -> io::Result<R> {
        self.0.try_io(interest, call)
    }
}

/// `IPV6_CHECKSUM` and `IPV6_RECVFRAGSIZE` of `linux/in6.h`.
const IPV6_CHECKSUM: c_int = 7;
pub(crate) const IPV6_RECVFRAGSIZE: c_int = 77;
/// `ICMP6_FILTER` of `linux/icmpv6.h`: 256 bits, a set one blocks its type.
const ICMP6_FILTER: c_int = 1;
/// Offset of the checksum in a UDP header.
const UDP_CHECKSUM: c_int = 6;

/// Lets the kernel write the UDP checksum of what a raw socket sends, and check that of what comes in.
pub(crate) fn checksum_udp(socket: &Socket) -> io::Result<()> {
    set(socket, libc::IPPROTO_IPV6, IPV6_CHECKSUM, &UDP_CHECKSUM)
}

/// Makes the socket's next call report all kinds of ICMPv6 errors, not only those that the kernel takes for permanent
/// (RFC 3542 section 3.2).
pub(crate) fn report_icmp_errors(socket: &Socket) -> io::Result<()> {
    set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, &1)
}

/// Makes the socket send packets as they are. Whatever the kernel knows about the path's MTU, it neither fragments nor
/// refuses them.
pub(crate) fn send_whole(socket: &Socket) -> io::Result<()> {
    let probe = libc::IPV6_PMTUDISC_PROBE;
    set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, &probe)
}

/// Makes a raw ICMPv6 socket receive messages of this type only.
pub(crate) fn receive_only(socket: &Socket, kind: u8) -> io::Result<()> {
    let mut blocked = [u32::MAX; 8];
    blocked[usize::from(kind) / 32] &= !(1 << (kind % 32));
    set(socket, libc::IPPROTO_ICMPV6, ICMP6_FILTER, &blocked)
}

/// Makes each message come with its device and with the size of its largest fragment.
pub(crate) fn receive_origin(socket: &Socket) -> io::Result<()> {
    set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, &1)?;
    set(socket, libc::IPPROTO_IPV6, IPV6_RECVFRAGSIZE, &1)
}

/// Joins an anycast address on the device with this index. When the socket is closed, the kernel leaves it.
pub(crate) fn join_anycast(socket: &Socket, index: u32, address: Ipv6Addr) -> io::Result<()> {
    let request = libc::ipv6_mreq {
        ipv6mr_multiaddr: libc::in6_addr {
            s6_addr: address.octets(),
        },
        ipv6mr_interface: index,
    };
    set(socket, libc::IPPROTO_IPV6, libc::IPV6_JOIN_ANYCAST, &request)
}

/// Values of options: plain numbers without pointers.
trait Plain {}
impl Plain for c_int {}
impl Plain for [u32; 8] {}
impl Plain for libc::ipv6_mreq {}

fn set<T: Plain>(socket: &Socket, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open, and the kernel reads no more than `length` bytes of `value`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Receives a datagram into the buffer. Returns its length and its sender.
pub(crate) fn receive_from(socket: &Socket, buffer: &mut [u8]) -> io::Result<(usize, SockAddr)> {
    socket.recv_from(lent(buffer))
}

/// Room for messages. Nobody writes to it before a message comes: there may be hundreds of them, and few messages are
/// longer than a page.
#[derive(Debug)]
pub(crate) struct Buffer(Box<[MaybeUninit<u8>]>);

impl Buffer {
    pub(crate) fn new(length: usize) -> Self {
        Self(Box::new_uninit_slice(length))
    }
}

/// A message, and what came with it.
#[derive(Debug)]
pub(crate) struct ReceivedDatagram<'a> {
    /// The message, or the part of it that fits into the buffer.
    pub(crate) packet: &'a [u8],
    /// How many bytes of the buffer for control messages are filled.
    pub(crate) control_length: usize,
    /// Whether it was longer than the buffer.
    pub(crate) truncated: bool,
    pub(crate) from: SockAddr,
}

/// Receives a message from an IPv6 address into the buffer, and its control messages into `control`.
pub(crate) fn receive_message<'a>(
    socket: &Socket,
    buffer: &'a mut Buffer,
    control: &mut [u8],
) -> io::Result<ReceivedDatagram<'a>> {
    let mut from = SockAddr::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0));
    let mut buffers = [MaybeUninitSlice::new(&mut buffer.0)];
    let mut message = MsgHdrMut::new()
        .with_addr(&mut from)
        .with_buffers(&mut buffers)
        .with_control(lent(control));
    let length = socket.recvmsg(&mut message, 0)?;
    let (truncated, control_length) = (message.flags().is_truncated(), message.control_len());
    let filled = length.min(buffer.0.len());
    Ok(ReceivedDatagram {
        // SAFETY: the call has written so many bytes from the start of the buffer, and `filled` is within it.
        packet: unsafe { std::slice::from_raw_parts(buffer.0.as_ptr().cast(), filled) },
        control_length,
        truncated,
        from,
    })
}

/// A buffer as socket2 takes it.
fn lent(buffer: &mut [u8]) -> &mut [MaybeUninit<u8>] {
    // SAFETY: both types have the same layout. Only receiving calls of socket2 get this, which put bytes of the kernel
    // there and no uninitialised ones, as they promise.
    unsafe { std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast(), buffer.len()) }
}
