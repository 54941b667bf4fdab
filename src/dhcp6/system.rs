//! Calls that have no safe wrapper among our dependencies.

#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::AsRawFd;

use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Offset of the checksum in a UDP header.
const UDP_CHECKSUM: libc::c_int = 6;
/// `IPV6_CHECKSUM` of `linux/in6.h`.
const IPV6_CHECKSUM: libc::c_int = 7;

/// Lets the kernel write the UDP checksum of what a raw socket sends, and check that of what comes in.
pub(super) fn checksum_udp(socket: &Socket) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    let offset = std::ptr::from_ref(&UDP_CHECKSUM).cast();
    // SAFETY: the descriptor is open, and the kernel reads `length` bytes of a constant of that size.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IPV6, IPV6_CHECKSUM, offset, length) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Lets the runtime wait for what the socket hears.
pub(super) fn register(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the descriptor is owned by the socket, which the `AsyncFd` keeps until it is dropped.
    let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    Ok(registered?)
}
