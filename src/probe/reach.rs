//! Whether something answers through one uplink: the connectivity check of a PLAT prefix (RFC 7050 section 3.2).
//!
//! By default three tries, at 0, 1 and 2 s, then a second and a half for the last answer. The RFC waits three
//! seconds, which would delay an instance that has another prefix to try.

use std::io::{self, ErrorKind, Read};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::time::Duration;

use clatd_translator::Pref64;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::time::{Instant, timeout_at};

use super::packet::{came_by_icmp, registered};
use super::{LAST_WAIT, ProbeError, random};
use crate::sys::socket::{Registered, report_icmp_errors};

/// Between two tries.
const BETWEEN: Duration = Duration::from_secs(1);
/// The IPv4 addresses of ipv4only.arpa (RFC 7050 section 2.2).
const WELL_KNOWN: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)];
const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;

/// How something is asked for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// ICMPv6 echo (RFC 4443 section 4).
    Echo,
    /// A TCP connection to this port. A refusal counts as an answer.
    Tcp(u16),
}

/// Whether `target` answers one of `tries` (at least one) through `device`, from `source` or from an address that the
/// kernel chooses. An error message about it, or a missing route, is a no at once.
pub async fn answers(
    device: &str,
    source: Option<Ipv6Addr>,
    target: Ipv6Addr,
    how: How,
    tries: u32,
) -> Result<bool, ProbeError> {
    if is_never_probed(target) {
        return Err(ProbeError::NeverProbed { target });
    }
    let doing = || match how {
        How::Echo => format!("asking {target} for an echo through {device}"),
        How::Tcp(port) => format!("connecting to [{target}]:{port} through {device}"),
    };
    let tries = tries.max(1);
    let answered = match how {
        How::Echo => echo(device, source, target, tries).await,
        How::Tcp(port) => connect(device, source, SocketAddrV6::new(target, port, 0, 0), tries).await,
    };
    match answered {
        Err(error) if is_unreachable(&error) => Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Err(ProbeError::device(device, "does not exist")),
        other => other.map_err(ProbeError::system(doing())),
    }
}

/// Whether this is an address of ipv4only.arpa under some prefix, where nobody answers by design (RFC 7050 section
/// 3.2.1).
pub fn is_never_probed(address: Ipv6Addr) -> bool {
    [32, 40, 48, 56, 64, 96].into_iter().any(|length| {
        let network = address.to_bits() & (u128::MAX << (128 - length));
        Pref64::new(Ipv6Addr::from_bits(network), length)
            .is_ok_and(|prefix| WELL_KNOWN.iter().any(|well_known| prefix.embed(*well_known) == address))
    })
}

async fn echo(device: &str, source: Option<Ipv6Addr>, target: Ipv6Addr, tries: u32) -> io::Result<bool> {
    let socket = bound(device, source, Type::RAW, Protocol::ICMPV6)?;
    report_icmp_errors(&socket)?;
    // From here on the kernel passes only packets of `target`, and errors about packets to it.
    socket.connect(&SocketAddrV6::new(target, 0, 0, 0).into())?;
    let socket = registered(socket)?;
    let echo = Echo::new(random());
    let began = Instant::now();
    for sequence in 0..tries {
        let request = echo.request(sequence);
        socket
            .async_io(Interest::WRITABLE, |socket| socket.send(&request))
            .await?;
        let next = began + BETWEEN * sequence;
        let until = next + if sequence + 1 == tries { LAST_WAIT } else { BETWEEN };
        while let Ok(received) = timeout_at(until, receive(&socket)).await {
            match received {
                Ok(message) if echo.is_reply(&message, tries) => return Ok(true),
                Ok(_) => {}
                // Packet too big: an echo of forty bytes cannot be too big, so this is about another packet.
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(false)
}

async fn receive(socket: &Registered) -> io::Result<Vec<u8>> {
    let mut buffer = [0; 2048];
    let read = |mut socket: &Socket| socket.read(&mut buffer);
    // An ICMPv6 error makes the socket ready only to report it.
    let length = socket.async_io(Interest::READABLE | Interest::ERROR, read).await?;
    Ok(buffer.get(..length).unwrap_or_default().to_vec())
}

async fn connect(device: &str, source: Option<Ipv6Addr>, target: SocketAddrV6, tries: u32) -> io::Result<bool> {
    let socket = bound(device, source, Type::STREAM, Protocol::TCP)?;
    report_icmp_errors(&socket)?;
    // The kernel itself retries after one and three seconds.
    let until = Instant::now() + BETWEEN * (tries - 1) + LAST_WAIT;
    match socket.connect(&target.into()) {
        Ok(()) => return Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    let socket = registered(socket)?;
    let Ok(ready) = timeout_at(until, socket.writable()).await else {
        return Ok(false);
    };
    ready?.retain_ready();
    match socket.get_ref().take_error()? {
        None => Ok(true),
        // A firewall's "port unreachable" becomes this error, too, but only a reset is from the host itself.
        Some(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(!came_by_icmp(socket.get_ref())),
        Some(error) => Err(error),
    }
}

fn bound(device: &str, source: Option<Ipv6Addr>, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(device.as_bytes()))?;
    if let Some(source) = source {
        socket.bind(&SocketAddrV6::new(source, 0, 0, 0).into())?;
    }
    Ok(socket)
}

/// Whether a call failed because of the network or of one of our routes. EINVAL is a blackhole route.
fn is_unreachable(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ENETUNREACH
                | libc::EHOSTUNREACH
                | libc::ENETDOWN
                | libc::EHOSTDOWN
                | libc::ECONNREFUSED
                | libc::EACCES
                | libc::EPROTO
                | libc::EINVAL
                | libc::ETIMEDOUT
        )
    )
}

/// Our echo requests: identifier and contents, by which replies are recognised.
struct Echo {
    identifier: [u8; 2],
    contents: [u8; 8],
}

impl Echo {
    fn new(random: u64) -> Self {
        let [a, b, ..] = random.to_be_bytes();
        Self {
            identifier: [a, b],
            contents: random.to_be_bytes(),
        }
    }

    /// The message. The kernel computes the checksum (RFC 3542 section 3.1).
    fn request(&self, sequence: u32) -> Vec<u8> {
        let [_, _, sequence @ ..] = sequence.to_be_bytes();
        let mut message = vec![ECHO_REQUEST, 0, 0, 0];
        message.extend(self.identifier);
        message.extend(sequence);
        message.extend(self.contents);
        message
    }

    fn is_reply(&self, message: &[u8], sent: u32) -> bool {
        let Some((&[kind, code, _, _, a, b, c, d], contents)) = message.split_first_chunk() else {
            return false;
        };
        kind == ECHO_REPLY
            && code == 0
            && [a, b] == self.identifier
            && u32::from(u16::from_be_bytes([c, d])) < sent
            && contents == self.contents
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_told_from_other_messages() {
        let echo = Echo::new(0x1234_5678_9abc_def0);
        let mut reply = echo.request(2);
        assert!(!echo.is_reply(&reply, 3), "our own request");
        reply[0] = ECHO_REPLY;
        assert!(echo.is_reply(&reply, 3));
        assert!(!echo.is_reply(&reply, 2), "a sequence number that was not sent");
        assert!(!Echo::new(7).is_reply(&reply, 3), "somebody else's");
        for place in [0, 1, 4, 5, 6, 8, 15] {
            let mut other = reply.clone();
            other[place] ^= 0x40;
            assert!(!echo.is_reply(&other, 3), "byte {place} differs");
        }
        for length in 0..reply.len() {
            assert!(!echo.is_reply(&reply[..length], 3));
        }
    }

    #[test]
    fn the_addresses_of_ipv4only_arpa_are_never_probed() {
        for never in [
            "64:ff9b::192.0.0.170",
            "64:ff9b::192.0.0.171",
            "2001:db8:64::c000:aa",
            "2001:db8:c000:aa::",
            "2001:db8:12c0:0:aa::",
            "2001:db8:122:c000:0:ab00::",
            "2001:db8:122:34c0::aa:0:0",
            "2001:db8:122:344:c0:0:ab00:0",
        ] {
            let address = never.parse().unwrap();
            assert!(is_never_probed(address), "{never}");
        }
        for other in [
            "64:ff9b::192.0.0.172",
            "64:ff9b::c633:6401",
            "2001:db8::1",
            "::",
            "ff02::1",
        ] {
            assert!(!is_never_probed(other.parse().unwrap()), "{other}");
        }
    }
}
