//! What the kernel says of a network device, in the network namespace of a socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libc::ifreq;

/// Index of the device of this name.
pub(crate) fn index(socket: &impl AsFd, name: &str) -> io::Result<u32> {
    Ok(ask_index(socket, name)?.0)
}

/// Index and flags (`IFF_*`) of the device of this name.
pub(crate) fn index_and_flags(socket: &impl AsFd, name: &str) -> io::Result<(u32, u32)> {
    let (index, mut request) = ask_index(socket, name)?;
    ask(socket, IfreqRequest::Flags, &mut request)?;
    // SAFETY: all members of the union are plain numbers, and all its bytes are initialised.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok((index, u32::from(flags.cast_unsigned())))
}

/// The index, and the request with the name.
fn ask_index(socket: &impl AsFd, name: &str) -> io::Result<(u32, ifreq)> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    let mut request = empty();
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    ask(socket, IfreqRequest::Index, &mut request)?;
    // SAFETY: all members of the union are plain numbers, and all its bytes are initialised.
    let index = unsafe { request.ifr_ifru.ifru_ifindex };
    let index = u32::try_from(index).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    Ok((index, request))
}

/// The Ethernet address of the device with this index, if that is what it has.
pub(crate) fn ethernet_address(socket: &impl AsFd, index: u32) -> Option<[u8; 6]> {
    let mut request = empty();
    request.ifr_ifru.ifru_ifindex = i32::try_from(index).ok()?;
    ask(socket, IfreqRequest::Name, &mut request).ok()?;
    ask(socket, IfreqRequest::LinkAddress, &mut request).ok()?;
    // SAFETY: all members of the union are plain numbers, and all its bytes are initialised.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    let bytes = address.sa_data.map(|byte| byte.to_ne_bytes()[0]);
    (address.sa_family == libc::ARPHRD_ETHER).then(|| [bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]])
}

fn empty() -> ifreq {
    // SAFETY: `ifreq` is a C structure of plain numbers, for which all bytes zero is a value.
    unsafe { std::mem::zeroed() }
}

/// Requests that read and write one `ifreq` and nothing else.
enum IfreqRequest {
    Index,
    Flags,
    Name,
    LinkAddress,
}

fn ask(socket: &impl AsFd, request: IfreqRequest, about: &mut ifreq) -> io::Result<()> {
    let code = match request {
        IfreqRequest::Index => libc::SIOCGIFINDEX,
        IfreqRequest::Flags => libc::SIOCGIFFLAGS,
        IfreqRequest::Name => libc::SIOCGIFNAME,
        IfreqRequest::LinkAddress => libc::SIOCGIFHWADDR,
    };
    // `as _`: the C libraries do not agree on the type of a request.
    // SAFETY: the descriptor is open, and the request reads and writes one `ifreq`, which it gets. Its name ends with
    // a zero: it had one, or the kernel wrote it.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), code as _, &raw mut *about) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
