//! Addresses of `AF_PACKET` sockets.

use std::io;
use std::mem::size_of;

use libc::sockaddr_ll;
use socket2::{SockAddr, SockAddrStorage};

/// The socket address of the link-layer address `to` on a device, for packets with this EtherType.
pub(crate) fn link_level(ethertype: u16, index: u32, to: &[u8]) -> io::Result<SockAddr> {
    let mut address = sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?,
        sll_protocol: ethertype.to_be(),
        sll_ifindex: i32::try_from(index).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: u8::try_from(to.len()).map_err(io::Error::other)?,
        sll_addr: [0; 8],
    };
    for (place, byte) in address.sll_addr.iter_mut().zip(to) {
        *place = *byte;
    }
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: a sockaddr_ll is a socket address; the storage is large and aligned enough for every such.
    *unsafe { storage.view_as::<sockaddr_ll>() } = address;
    let length = libc::socklen_t::try_from(size_of::<sockaddr_ll>()).map_err(io::Error::other)?;
    // SAFETY: the storage holds an address of this length, written above.
    Ok(unsafe { SockAddr::new(storage, length) })
}

/// What a socket address of family `AF_PACKET` says.
pub(crate) fn link_level_of(address: &SockAddr) -> io::Result<sockaddr_ll> {
    if libc::c_int::from(address.family()) != libc::AF_PACKET {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: the storage of an address is larger than a sockaddr_ll, and aligned for it. What the kernel did not write
    // is zero, and any bits are valid in the fields.
    Ok(unsafe { address.as_ptr().cast::<sockaddr_ll>().read() })
}
