//! Packets of one device by an `AF_PACKET` socket, independent of the kernel's IPv6 addresses. It sends from `::`. It
//! receives advertisements of addresses that are on no device, before any packet filter, and knows the link-layer
//! address of their sender. All `unsafe` code of `probe` is here.

#![allow(unsafe_code)]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use clatd_stages::nd::LinkAddress;
use socket2::{Domain, SockAddr, SockAddrStorage, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

const ETHERTYPE_IPV6: u16 = 0x86dd;

/// A device as the kernel describes it at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    /// Interface index.
    pub(super) index: u32,
    /// `IFF_*`.
    flags: u32,
    /// `ARPHRD_*`.
    kind: u16,
    /// Its link-layer address; empty = it has none.
    pub(super) address: LinkAddress,
}

impl Device {
    fn has(&self, flag: libc::c_int) -> bool {
        u32::try_from(flag).is_ok_and(|flag| self.flags & flag != 0)
    }

    /// Why nobody can be heard on it.
    pub(super) fn problem(&self) -> Option<&'static str> {
        if !self.has(libc::IFF_UP) {
            Some("is down")
        } else if !self.has(libc::IFF_RUNNING) {
            Some("has no carrier")
        } else {
            None
        }
    }

    /// Why neighbour discovery does not happen on it.
    pub(super) fn without_neighbours(&self) -> Option<&'static str> {
        if self.has(libc::IFF_LOOPBACK) {
            Some("it is the loopback device")
        } else if self.address.bytes().is_empty() {
            Some("it has no link-layer addresses")
        } else if self.has(libc::IFF_NOARP) {
            Some("it resolves no addresses")
        } else if !self.has(libc::IFF_MULTICAST) {
            Some("it has no multicast")
        } else if self.kind != libc::ARPHRD_ETHER || self.address.bytes().len() != 6 {
            Some("its link layer is not Ethernet's")
        } else {
            None
        }
    }
}

/// A socket on one device that receives the neighbour solicitations and advertisements about one address.
#[derive(Debug)]
pub(super) struct PacketSocket {
    socket: AsyncFd<Socket>,
    name: String,
}

impl PacketSocket {
    /// Opens it and begins to listen.
    pub(super) fn open(device: &str, target: Ipv6Addr) -> io::Result<Self> {
        // Without a protocol it receives nothing before it is bound, so nothing from other devices.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, None)?;
        socket.set_nonblocking(true)?;
        socket.attach_filter(&about(target))?;
        let (index, _) = describe(socket.as_raw_fd(), device)?;
        socket.bind(&link_level(index, &[])?)?;
        Ok(Self {
            socket: registered(socket)?,
            name: device.to_owned(),
        })
    }

    /// The device as it is now.
    pub(super) fn device(&self) -> io::Result<Device> {
        let bound = link_level_of(&self.socket.get_ref().local_addr()?)?;
        let (index, flags) = describe(self.socket.as_raw_fd(), &self.name)?;
        Ok(Device {
            index,
            flags,
            kind: bound.sll_hatype,
            address: address_in(&bound),
        })
    }

    /// Sends an IPv6 packet to an IPv6 multicast address (RFC 2464 section 7).
    pub(super) async fn send_multicast(&self, index: u32, group: Ipv6Addr, packet: &[u8]) -> io::Result<()> {
        let [.., a, b, c, d] = group.octets();
        let to = link_level(index, &[0x33, 0x33, a, b, c, d])?;
        let send = |socket: &Socket| socket.send_to(packet, &to);
        let sent = self.socket.async_io(Interest::WRITABLE, send).await?;
        if sent == packet.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }

    /// The next packet, from the IPv6 header on, and where it came from.
    pub(super) async fn receive(&self) -> io::Result<(Vec<u8>, Option<LinkAddress>)> {
        // A longer message of neighbour discovery is not valid here, so it need not be read to its end.
        let mut buffer = [MaybeUninit::<u8>::uninit(); 2048];
        let receive = |socket: &Socket| socket.recv_from(&mut buffer);
        // When its device goes down, the socket becomes ready only to report that.
        let interest = Interest::READABLE | Interest::ERROR;
        let (length, from) = self.socket.async_io(interest, receive).await?;
        let bytes = received(&buffer, length);
        let from = address_in(&link_level_of(&from)?);
        Ok((bytes, Some(from).filter(|from| !from.bytes().is_empty())))
    }
}

/// Lets through only what [`clatd_stages::nd::Message::parse`] can read and what is about `target`, so that the
/// daemon does not wake for the other traffic of the uplink.
fn about(target: Ipv6Addr) -> Vec<SockFilter> {
    let code = |code: u32| u16::try_from(code).unwrap_or(0);
    let load_byte = code(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS);
    let load_word = code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS);
    let jump_equal = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
    let end = code(libc::BPF_RET | libc::BPF_K);
    // Offset, expected: next header, hop limit, then the words of the target.
    let mut tests = vec![(load_byte, 6, 58), (load_byte, 7, 255)];
    let words = target.octets();
    let (words, _) = words.as_chunks::<4>();
    tests.extend(
        (48..)
            .step_by(4)
            .zip(words)
            .map(|(at, word)| (load_word, at, u32::from_be_bytes(*word))),
    );
    let mut program = Vec::new();
    let mut left = u8::try_from(tests.len()).unwrap_or(0);
    for (load, at, expected) in tests {
        left -= 1;
        program.push(SockFilter::new(load, 0, 0, at));
        // The jump goes over the remaining tests: three of the type, and the acceptance.
        program.push(SockFilter::new(jump_equal, 0, left * 2 + 4, expected));
    }
    program.push(SockFilter::new(load_byte, 0, 0, 40));
    program.push(SockFilter::new(jump_equal, 1, 0, 135));
    program.push(SockFilter::new(jump_equal, 0, 1, 136));
    program.push(SockFilter::new(end, 0, 0, u32::MAX));
    program.push(SockFilter::new(end, 0, 0, 0));
    program
}

/// Index and flags of a device, in the network namespace of the socket.
fn describe(socket: RawFd, device: &str) -> io::Result<(u32, u32)> {
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_ifindex: 0 },
    };
    if device.is_empty() || device.len() >= libc::IFNAMSIZ {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    // `as _`: the C libraries do not agree on the type of a request.
    // SAFETY: the call takes a pointer to an ifreq, which `request` is, with a name that ends with a zero.
    if unsafe { libc::ioctl(socket, libc::SIOCGIFINDEX as _, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above has filled in this member.
    let index = unsafe { request.ifr_ifru.ifru_ifindex };
    // SAFETY: as above.
    if unsafe { libc::ioctl(socket, libc::SIOCGIFFLAGS as _, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above has filled in this member.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    let index = u32::try_from(index).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    Ok((index, u32::from(flags.cast_unsigned())))
}

/// The socket address of `to` on a device.
fn link_level(index: u32, to: &[u8]) -> io::Result<SockAddr> {
    let mut address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?,
        sll_protocol: ETHERTYPE_IPV6.to_be(),
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
    *unsafe { storage.view_as::<libc::sockaddr_ll>() } = address;
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).map_err(io::Error::other)?;
    // SAFETY: the storage holds an address of this length, written above.
    Ok(unsafe { SockAddr::new(storage, length) })
}

/// A socket address of family `AF_PACKET`.
fn link_level_of(address: &SockAddr) -> io::Result<libc::sockaddr_ll> {
    if libc::c_int::from(address.family()) != libc::AF_PACKET {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: the family says what it is; what the kernel did not write is zero, and any bits are valid in the fields.
    Ok(unsafe { address.as_ptr().cast::<libc::sockaddr_ll>().read() })
}

fn address_in(address: &libc::sockaddr_ll) -> LinkAddress {
    let length = usize::from(address.sll_halen).min(address.sll_addr.len());
    LinkAddress::new(&address.sll_addr[..length])
}

/// Makes the socket's next call report all kinds of ICMPv6 errors, not only those that the kernel takes for permanent
/// (RFC 3542 section 3.2).
pub(super) fn report_icmp_errors(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_ipv6_option(socket, libc::IPV6_RECVERR, 1)
}

/// Packets are sent as they are, whatever the kernel knows about the path's MTU: neither fragmented nor refused.
pub(super) fn send_whole(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_ipv6_option(socket, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)
}

fn set_ipv6_option(socket: BorrowedFd<'_>, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(&value)).map_err(io::Error::other)?;
    // SAFETY: the option takes an int, of which pointer and length are given.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IPV6,
            option,
            (&raw const value).cast(),
            length,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The bytes of a buffer of which a receiving call has filled the first `length`.
pub(super) fn received(buffer: &[MaybeUninit<u8>], length: usize) -> Vec<u8> {
    let filled = &buffer[..length.min(buffer.len())];
    // SAFETY: the caller says that so many bytes were initialised.
    filled.iter().map(|byte| unsafe { byte.assume_init() }).collect()
}

/// Whether an ICMPv6 error is queued on the socket. Removes it.
pub(super) fn came_by_icmp(socket: &Socket) -> bool {
    socket
        .recv_with_flags(&mut [MaybeUninit::uninit(); 64], libc::MSG_ERRQUEUE)
        .is_ok()
}

/// The socket, with the runtime told to wait on it.
pub(super) fn registered(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: a Socket owns a valid descriptor, and nothing replaces or closes it while the AsyncFd has it.
    Ok(unsafe { AsyncFd::register(socket) }?)
}
