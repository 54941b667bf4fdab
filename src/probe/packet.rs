//! Packets of one device by an `AF_PACKET` socket, independent of the kernel's IPv6 addresses. It sends from `::`. It
//! receives advertisements of addresses that are on no device, before any packet filter, and knows the link-layer
//! address of their sender.

use std::io;
use std::mem::MaybeUninit;
use std::net::Ipv6Addr;

use clatd_stages::nd::LinkAddress;
use socket2::{Domain, SockFilter, Socket, Type};
use tokio::io::Interest;

use super::closing::Last;
use crate::sys::device::index_and_flags;
use crate::sys::packet::{link_level, link_level_of};
use crate::sys::socket::{Registered, receive_from};

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
    socket: Registered,
    name: String,
    /// Dropped after the socket.
    last: Last,
}

impl Drop for PacketSocket {
    fn drop(&mut self) {
        self.last = Last::of(self.socket.get_ref());
    }
}

impl PacketSocket {
    /// Opens it and begins to listen.
    pub(super) fn open(device: &str, target: Ipv6Addr) -> io::Result<Self> {
        // Without a protocol it receives nothing before it is bound, so nothing from other devices.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, None)?;
        socket.set_nonblocking(true)?;
        socket.attach_filter(&about(target))?;
        let (index, _) = index_and_flags(&socket, device)?;
        socket.bind(&link_level(ETHERTYPE_IPV6, index, &[])?)?;
        Ok(Self {
            socket: registered(socket)?,
            name: device.to_owned(),
            last: Last::default(),
        })
    }

    /// The device as it is now.
    pub(super) fn device(&self) -> io::Result<Device> {
        let bound = link_level_of(&self.socket.get_ref().local_addr()?)?;
        let (index, flags) = index_and_flags(self.socket.get_ref(), &self.name)?;
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
        let to = link_level(ETHERTYPE_IPV6, index, &[0x33, 0x33, a, b, c, d])?;
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
        let mut buffer = [0; 2048];
        let receive = |socket: &Socket| receive_from(socket, &mut buffer);
        // When its device goes down, the socket becomes ready only to report that.
        let interest = Interest::READABLE | Interest::ERROR;
        let (length, from) = self.socket.async_io(interest, receive).await?;
        let bytes = buffer.get(..length).unwrap_or_default().to_vec();
        let from = address_in(&link_level_of(&from)?);
        Ok((bytes, Some(from).filter(|from| !from.bytes().is_empty())))
    }
}

/// Lets through only what [`clatd_stages::nd::NdMessage::parse`] can read and what is about `target`, so that the
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

fn address_in(address: &libc::sockaddr_ll) -> LinkAddress {
    let length = usize::from(address.sll_halen).min(address.sll_addr.len());
    LinkAddress::new(&address.sll_addr[..length])
}

/// Whether an ICMPv6 error is queued on the socket. Removes it.
pub(super) fn came_by_icmp(socket: &Socket) -> bool {
    socket
        .recv_with_flags(&mut [MaybeUninit::uninit(); 64], libc::MSG_ERRQUEUE)
        .is_ok()
}

/// The socket, with the runtime told to wait on it.
pub(super) fn registered(socket: Socket) -> io::Result<Registered> {
    Registered::new(socket, Interest::READABLE | Interest::WRITABLE)
}
