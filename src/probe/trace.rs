//! How far packets get: echo requests with a limited number of hops, and the answers to them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::Duration;

use clatd_stages::path::{Hop, Probe, Says};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::time::{Instant, timeout_at};

use super::packet::registered;
use super::{ProbeError, random};
use crate::sys::socket::{Registered, receive_from, send_whole};

/// The pause between two requests, since routers limit the rate of their errors.
const BETWEEN: Duration = Duration::from_millis(40);
/// How long the last answer is waited for.
const LAST_WAIT: Duration = Duration::from_millis(1200);
/// Rounds for hop limits without an answer in the first one.
const ROUNDS: u32 = 2;
const IPV6_HEADER: usize = 40;
const IPV4_HEADER: usize = 20;
const ECHO_HEADER: usize = 8;

/// Sends the probe through `device`. Returns at most one answer for each hop limit, in their order. If the device has
/// no route to the target, nothing can be sent, and the result is empty.
pub async fn trace(device: &str, probe: &Probe) -> Result<Vec<Hop>, ProbeError> {
    let doing = format!("sending probes to {}", probe.target);
    let mut answers: Vec<Hop> = Vec::new();
    let limits: Vec<u8> = probe.hops.clone().collect();
    for _ in 0..ROUNDS {
        match round(device, probe, &limits, &mut answers).await {
            Err(error) if is_no_way(&error) => break,
            Err(error) => return Err(ProbeError::on(device, &doing)(error)),
            Ok(()) => {}
        }
        if !answers.is_empty() {
            break;
        }
    }
    answers.sort_by_key(|hop| hop.hops);
    Ok(answers)
}

/// The packet does not leave this host, or is too large for the device.
fn is_no_way(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ENETUNREACH
                | libc::EHOSTUNREACH
                | libc::EMSGSIZE
                | libc::EADDRNOTAVAIL
                | libc::EACCES
                | libc::EPERM
                | libc::EINVAL
        )
    )
}

async fn round(device: &str, probe: &Probe, limits: &[u8], answers: &mut Vec<Hop>) -> io::Result<()> {
    let echo = Echo::new(probe);
    let socket = open(device, probe.target)?;
    for limit in limits {
        match probe.target {
            IpAddr::V6(_) => socket.get_ref().set_unicast_hops_v6(u32::from(*limit))?,
            IpAddr::V4(_) => socket.get_ref().set_ttl_v4(u32::from(*limit))?,
        }
        let request = echo.request(*limit);
        let to = echo.to.into();
        socket
            .async_io(Interest::WRITABLE, |socket| socket.send_to(&request, &to))
            .await?;
        listen(&socket, &echo, Instant::now() + BETWEEN, answers).await?;
        if answers.iter().any(|hop| hop.says == Says::Reply) {
            return Ok(());
        }
    }
    let end = Instant::now() + LAST_WAIT;
    // As soon as every probe has an answer, there is nothing more to wait for.
    while Instant::now() < end && answers.len() < limits.len() {
        listen(&socket, &echo, (Instant::now() + BETWEEN).min(end), answers).await?;
    }
    Ok(())
}

fn open(device: &str, target: IpAddr) -> io::Result<Registered> {
    let (domain, protocol) = match target {
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(device.as_bytes()))?;
    if target.is_ipv6() {
        send_whole(&socket)?;
    }
    registered(socket)
}

/// Collects what comes until then. Each hop limit counts once.
async fn listen(socket: &Registered, echo: &Echo, until: Instant, answers: &mut Vec<Hop>) -> io::Result<()> {
    loop {
        let mut buffer = [0; 2048];
        let read = |socket: &Socket| receive_from(socket, &mut buffer);
        let Ok(got) = timeout_at(until, socket.async_io(Interest::READABLE, read)).await else {
            return Ok(());
        };
        let (length, from) = got?;
        let Some(from) = from.as_socket().map(|from| from.ip()) else {
            continue;
        };
        let message = buffer.get(..length).unwrap_or_default();
        let Some((hops, says)) = echo.answer(message) else {
            continue;
        };
        if !answers.iter().any(|hop| hop.hops == hops) {
            answers.push(Hop { hops, from, says });
        }
    }
}

/// Our echo requests: the sequence number is the hop limit.
struct Echo {
    to: SocketAddr,
    identifier: [u8; 2],
    length: usize,
}

impl Echo {
    fn new(probe: &Probe) -> Self {
        let [a, b, ..] = random().to_be_bytes();
        let (to, header): (SocketAddr, usize) = match probe.target {
            IpAddr::V6(target) => (SocketAddrV6::new(target, 0, 0, 0).into(), IPV6_HEADER),
            IpAddr::V4(target) => (SocketAddrV4::new(target, 0).into(), IPV4_HEADER),
        };
        Self {
            to,
            identifier: [a, b],
            length: usize::from(probe.length).saturating_sub(header).max(ECHO_HEADER + 8),
        }
    }

    fn kinds(&self) -> Kinds {
        if self.to.is_ipv6() { ICMPV6 } else { ICMPV4 }
    }

    /// The message. The kernel computes the checksum of ICMPv6.
    fn request(&self, limit: u8) -> Vec<u8> {
        let mut message = vec![0; self.length];
        message[0] = self.kinds().request;
        message[4..6].copy_from_slice(&self.identifier);
        message[7] = limit;
        if self.to.is_ipv4() {
            let checksum = !sum(&message);
            message[2..4].copy_from_slice(&checksum.to_be_bytes());
        }
        message
    }

    /// The hop limit of the request that a message answers, and the answer.
    fn answer(&self, message: &[u8]) -> Option<(u8, Says)> {
        // Raw IPv4 sockets receive the IP header, too.
        let message = if self.to.is_ipv4() {
            message.get(usize::from(message.first()? & 0x0f) * 4..)?
        } else {
            message
        };
        let kinds = self.kinds();
        let (kind, code) = (*message.first()?, *message.get(1)?);
        if kind == kinds.reply {
            return Some((self.sequence(message)?, Says::Reply));
        }
        let says = match kind {
            _ if kind == kinds.time_exceeded => Says::TimeExceeded,
            _ if kind == kinds.unreachable => Says::Unreachable(code),
            _ if kinds.too_big == Some(kind) => Says::TooBig(u32::from_be_bytes(message.get(4..8)?.try_into().ok()?)),
            _ if kinds.errors.contains(&kind) => Says::Other,
            _ => return None,
        };
        let inner = message.get(ECHO_HEADER..)?;
        let (target, request) = match self.to.ip() {
            IpAddr::V6(_) => {
                let target: [u8; 16] = inner.get(24..IPV6_HEADER)?.try_into().ok()?;
                (IpAddr::from(target), inner.get(IPV6_HEADER..)?)
            }
            IpAddr::V4(_) => {
                let target: [u8; 4] = inner.get(16..IPV4_HEADER)?.try_into().ok()?;
                let header = usize::from(inner.first()? & 0x0f) * 4;
                (IpAddr::from(target), inner.get(header..)?)
            }
        };
        (target == self.to.ip() && *request.first()? == kinds.request).then_some(())?;
        Some((self.sequence(request)?, says))
    }

    fn sequence(&self, echo: &[u8]) -> Option<u8> {
        let sequence: [u8; 2] = echo.get(6..8)?.try_into().ok()?;
        (echo.get(4..6)? == self.identifier).then_some(())?;
        u8::try_from(u16::from_be_bytes(sequence)).ok()
    }
}

/// Types of messages of an ICMP version.
struct Kinds {
    request: u8,
    reply: u8,
    unreachable: u8,
    time_exceeded: u8,
    too_big: Option<u8>,
    errors: &'static [u8],
}

const ICMPV6: Kinds = Kinds {
    request: 128,
    reply: 129,
    unreachable: 1,
    time_exceeded: 3,
    too_big: Some(2),
    errors: &[4],
};
const ICMPV4: Kinds = Kinds {
    request: 8,
    reply: 0,
    unreachable: 3,
    time_exceeded: 11,
    too_big: None,
    errors: &[4, 5, 12],
};

/// The Internet checksum before the final complement (RFC 1071).
fn sum(message: &[u8]) -> u16 {
    let words = message.chunks(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => 0,
    });
    let total: u32 = words.sum();
    let folded = (total & 0xffff) + (total >> 16);
    u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(u16::MAX)
}

/// Whether an IPv4 router has answered address resolution, by the kernel's own table; `None` = the kernel did not
/// ask.
pub fn in_arp_table(table: &str, device: &str, router: Ipv4Addr) -> Option<bool> {
    table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [address, _, flags, _, _, on] = words.as_slice() else {
            return None;
        };
        (address.parse() == Ok(router) && *on == device).then_some(*flags != "0x0")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo(target: &str) -> Echo {
        Echo::new(&Probe {
            target: target.parse().unwrap(),
            hops: 1..=3,
            length: 0,
        })
    }

    #[test]
    fn answers_are_told_from_other_messages() {
        let echo = echo("64:ff9b::c058:6301");
        let request = echo.request(3);
        let mut reply = request.clone();
        reply[0] = 129;
        assert_eq!(echo.answer(&reply), Some((3, Says::Reply)));
        assert_eq!(echo.answer(&request), None, "our own request");
        let mut error = vec![3, 0, 0, 0, 0, 0, 0, 0];
        error.extend([0; 24]);
        let IpAddr::V6(target) = echo.to.ip() else { panic!() };
        error.extend(target.octets());
        error.extend(&request);
        assert_eq!(echo.answer(&error), Some((3, Says::TimeExceeded)));
        for length in 0..8 + 40 + 8 {
            assert_eq!(echo.answer(&error[..length]), None);
        }
        for place in [32, 47, 48, 52] {
            let mut other = error.clone();
            other[place] ^= 0x40;
            assert_eq!(echo.answer(&other), None, "byte {place} differs");
        }
    }

    #[test]
    fn ipv4_checksums_are_right_and_headers_are_skipped() {
        let echo = echo("192.88.99.1");
        let request = echo.request(2);
        assert_eq!(sum(&request), 0xffff);
        let mut packet = vec![0x45];
        packet.extend([0; 19]);
        packet.extend([11, 0, 0, 0, 0, 0, 0, 0]);
        packet.push(0x45);
        packet.extend([0; 15]);
        packet.extend([192, 88, 99, 1]);
        packet.extend(&request);
        assert_eq!(echo.answer(&packet), Some((2, Says::TimeExceeded)));
    }

    #[test]
    fn incomplete_entries_are_no_neighbours() {
        let table = "IP address HW type Flags HW address Mask Device\n\
                     10.0.0.2 0x1 0x0 00:00:00:00:00:00 * up0\n10.0.0.3 0x1 0x2 02:00:00:00:00:01 * up0\n";
        for (router, device, expected) in [
            ("10.0.0.2", "up0", Some(false)),
            ("10.0.0.3", "up0", Some(true)),
            ("10.0.0.3", "up1", None),
            ("10.0.0.4", "up0", None),
        ] {
            assert_eq!(
                in_arp_table(table, device, router.parse().unwrap()),
                expected,
                "{router} {device}"
            );
        }
    }
}
