//! Duplicate address detection of an address that is on no device (RFC 4862 section 5.4).
//!
//! The random delay of section 5.4.2, up to a second, is left out. It separates the many hosts that make addresses
//! from one advertisement; a CLAT is only one host more, and its IPv4 waits for it.

use std::net::Ipv6Addr;
use std::time::Duration;

use clatd_stages::nd::{Conflict, Detector, Input, NdMessage, Next, Nonce, Parameters, solicited_node};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::packet::PacketSocket;
use super::{ProbeError, random};

/// The outcome of duplicate address detection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DadResult {
    /// Nobody else on the link has the address.
    Free,
    /// Another node has it, or wants it at the same time.
    Duplicate(Conflict),
    /// There is no detection on such a device, and why.
    Skipped(&'static str),
}

/// The other node on the link of `device` that has `address`. `None` = no other node has it, or there is no detection on
/// such a device; [`detect`] distinguishes the two.
pub async fn is_duplicate(
    device: &str,
    address: Ipv6Addr,
    parameters: Parameters,
) -> Result<Option<Conflict>, ProbeError> {
    match detect(device, address, parameters).await? {
        DadResult::Free => Ok(None),
        DadResult::Duplicate(conflict) => Ok(Some(conflict)),
        DadResult::Skipped(why) => {
            debug!("no duplicate address detection on {device}: {why}");
            Ok(None)
        }
    }
}

/// Duplicate address detection of `address` on the link of `device`.
pub async fn detect(device: &str, address: Ipv6Addr, parameters: Parameters) -> Result<DadResult, ProbeError> {
    let Listening { socket, _group, index } = match listen(device, address)? {
        Ok(listening) => listening,
        Err(why) => return Ok(DadResult::Skipped(why)),
    };
    let own = socket.device().map_err(ProbeError::on(device, "looking"))?;
    if let Some(problem) = own.problem() {
        return Err(ProbeError::device(device, problem));
    }
    let [_, _, nonce @ ..] = random().to_be_bytes();
    let mut detector = Detector::new(address, Some(own.address), parameters, Nonce(nonce));
    let began = Instant::now();
    let mut output = detector.handle(Duration::ZERO, Input::Start);
    loop {
        if let Some(solicitation) = output.send.take() {
            let group = solicitation.destination;
            let packet = NdMessage::Solicitation(solicitation).packet();
            let sent = socket.send_multicast(index, group, &packet).await;
            sent.map_err(ProbeError::on(device, "sending a neighbour solicitation"))?;
        }
        let due = match output.next {
            Next::Free => return Ok(DadResult::Free),
            Next::Duplicate(conflict) => return Ok(DadResult::Duplicate(conflict)),
            Next::Wait(due) => began + due,
            Next::Idle => began,
        };
        output = match timeout_at(due, socket.receive()).await {
            Err(_) => detector.handle(began.elapsed(), Input::Timer),
            Ok(received) => {
                let (packet, from) = received.map_err(ProbeError::on(device, "receiving"))?;
                match NdMessage::parse(&packet) {
                    Ok(message) => {
                        let link_source = from.as_ref();
                        let event = Input::Received {
                            message: &message,
                            link_source,
                        };
                        detector.handle(began.elapsed(), event)
                    }
                    Err(invalid) => {
                        debug!("{device}: a message about {address} is ignored: {invalid}");
                        continue;
                    }
                }
            }
        };
    }
}

/// A socket that receives messages about an address.
pub(super) struct Listening {
    pub(super) socket: PacketSocket,
    /// A member of the solicited-node group while it is open, so that device and switches let its packets through.
    pub(super) _group: Socket,
    pub(super) index: u32,
}

/// Listens on a device. The inner error says why there is nothing to receive on it.
pub(super) fn listen(device: &str, address: Ipv6Addr) -> Result<Result<Listening, &'static str>, ProbeError> {
    let socket =
        PacketSocket::open(device, address).map_err(ProbeError::on(device, "listening for neighbour discovery"))?;
    let own = socket.device().map_err(ProbeError::on(device, "looking"))?;
    if let Some(why) = own.without_neighbours() {
        return Ok(Err(why));
    }
    let index = own.index;
    let join = || {
        let member = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        member.join_multicast_v6(&solicited_node(address), index)?;
        Ok(member)
    };
    let _group = join().map_err(ProbeError::on(device, "joining the solicited-node group"))?;
    Ok(Ok(Listening { socket, _group, index }))
}
