//! DHCPv6 on one device, beside any other client there.
//!
//! Answers come to port 546. Of two UDP sockets on one port only the newer receives them: systemd-networkd or
//! NetworkManager would miss the answers to their messages, or clatd would miss its own. So clatd uses a raw socket,
//! which receives copies. It holds the port only if nobody else does, so that the kernel does not report it
//! unreachable to the servers, and in a way that lets others take it.

use std::io::{self, Read};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::num::NonZeroU32;

use clatd_stages::dhcp6::{ALL_SERVERS, CLIENT_PORT, SERVER_PORT};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::Interest;

use crate::sys::socket::{Registered, checksum_udp};

/// `libc` has these as numbers of other types.
const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const UDP_HEADER: usize = 8;
/// The largest UDP datagram.
const LARGEST: usize = 65535;

/// The raw socket, and the port if nobody else has it.
#[derive(Debug)]
pub(super) struct PdSocket {
    raw: Registered,
    _port: Option<Socket>,
    index: u32,
    address: Ipv6Addr,
}

impl PdSocket {
    /// Opens it for the device of this index with this link-local address.
    pub(super) fn open(index: u32, address: Ipv6Addr) -> io::Result<Self> {
        let raw = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::UDP))?;
        raw.attach_filter(&[
            // The destination port, from the beginning of the UDP header.
            filter(LOAD_HALF, 0, 0, 2),
            filter(JUMP_EQUAL, 0, 1, CLIENT_PORT.into()),
            filter(RETURN, 0, 0, u32::MAX),
            filter(RETURN, 0, 0, 0),
        ])?;
        raw.bind_device_by_index_v6(NonZeroU32::new(index))?;
        raw.bind(&SocketAddrV6::new(address, 0, 0, index).into())?;
        checksum_udp(&raw)?;
        raw.set_multicast_if_v6(index)?;
        raw.set_multicast_loop_v6(false)?;
        raw.set_nonblocking(true)?;
        Ok(Self {
            raw: Registered::new(raw, Interest::READABLE)?,
            _port: hold_port(index, address)?,
            index,
            address,
        })
    }

    /// Index of its device.
    pub(super) fn index(&self) -> u32 {
        self.index
    }

    /// Whether it is on this device and address.
    pub(super) fn is_on(&self, index: u32, address: Ipv6Addr) -> bool {
        (self.index, self.address) == (index, address)
    }

    /// Sends to all servers of the link.
    pub(super) fn send(&self, payload: &[u8]) -> io::Result<()> {
        let length = u16::try_from(UDP_HEADER + payload.len()).map_err(io::Error::other)?;
        let mut datagram = Vec::with_capacity(length.into());
        for half in [CLIENT_PORT, SERVER_PORT, length, 0] {
            datagram.extend_from_slice(&half.to_be_bytes());
        }
        datagram.extend_from_slice(payload);
        // A raw socket has no ports; the number there must be 0.
        let servers = SocketAddrV6::new(ALL_SERVERS, 0, 0, self.index);
        self.raw.get_ref().send_to(&datagram, &servers.into()).map(drop)
    }

    /// Waits for a datagram to our port. Returns its payload.
    pub(super) async fn receive(&self) -> io::Result<Vec<u8>> {
        loop {
            let mut ready = self.raw.readable().await?;
            let mut datagram = vec![0; LARGEST];
            match ready.try_io(|raw| raw.get_ref().read(&mut datagram)) {
                Ok(Ok(length)) => {
                    if let Some(payload) = payload(&datagram[..length]) {
                        return Ok(payload.to_vec());
                    }
                }
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }
}

/// What a UDP datagram to our port carries.
fn payload(datagram: &[u8]) -> Option<&[u8]> {
    let half = |at: usize| Some(u16::from_be_bytes(*datagram.get(at..)?.first_chunk()?));
    let length = usize::from(half(4)?);
    (half(2)? == CLIENT_PORT).then_some(datagram.get(UDP_HEADER..length)?)
}

/// Holds the port without receiving anything; `None` = another program holds it already.
fn hold_port(index: u32, address: Ipv6Addr) -> io::Result<Option<Socket>> {
    let port = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    port.set_only_v6(true)?;
    port.attach_filter(&[filter(RETURN, 0, 0, 0)])?;
    port.bind_device_by_index_v6(NonZeroU32::new(index))?;
    match port.bind(&SocketAddrV6::new(address, CLIENT_PORT, 0, index).into()) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Ok(None),
        other => other?,
    }
    // Set only now: earlier, it would have let us take a port that another program has.
    port.set_reuse_address(true)?;
    Ok(Some(port))
}

fn filter(code: u16, jump_true: u8, jump_false: u8, operand: u32) -> SockFilter {
    SockFilter::new(code, jump_true, jump_false, operand)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_datagrams_to_our_port_carry_anything() {
        let datagram = [2, 0x23, 2, 0x22, 0, 10, 0, 0, 7, 8, 99];
        assert_eq!(payload(&datagram), Some(&[7, 8][..]));
        for length in 0..10 {
            assert_eq!(payload(&datagram[..length]), None, "{length} octets");
        }
        for (place, octet) in [(3, 0x23), (5, 7), (5, 12), (4, 255)] {
            let mut bad = datagram;
            bad[place] = octet;
            assert_eq!(payload(&bad), None, "{bad:?}");
        }
    }
}
