//! IPsec policies (XFRM).

use std::io;
use std::net::Ipv6Addr;
use std::time::Duration;

use ipnet::Ipv6Net;
use netlink_sys::protocols::NETLINK_XFRM;
use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket};
use tokio::time::{Instant, sleep, timeout_at};

use super::NetlinkError;
use super::events::messages;
use super::socket::{Connection, LONGEST, none_if_unknown, on_blocking_thread, read_some};
use super::wire::{self, Attributes};

/// `XFRM_MSG_GETPOLICY`.
const GET_POLICY: u16 = 0x15;
/// `XFRM_MSG_GETDEFAULT` (Linux 5.15).
const GET_DEFAULT: u16 = 0x28;
/// Length of `struct xfrm_userpolicy_default`, aligned.
const DEFAULTS: usize = 4;
/// `XFRM_USERPOLICY_BLOCK`.
const BLOCKED_BY_DEFAULT: u8 = 1;
/// `XFRM_MSG_NEWPOLICY` and `XFRM_MSG_UPDPOLICY`.
const NEW_POLICY: u16 = 0x13;
const UPDATED_POLICY: u16 = 0x19;
/// `XFRMNLGRP_POLICY`.
const GROUP: u32 = 4;
/// Policies that come within this time are told of once.
const TOGETHER: Duration = Duration::from_millis(200);
/// Length of `struct xfrm_userpolicy_id`, which says nothing in a dump.
const ID: usize = 64;
/// Length of `struct xfrm_userpolicy_info`.
const HEADER: usize = 168;
/// Where its fields are.
const DESTINATION: usize = 0;
const SOURCE: usize = 16;
const FAMILY: usize = 40;
const DESTINATION_LENGTH: usize = 42;
const SOURCE_LENGTH: usize = 43;
const DEVICE: usize = 48;
const DIRECTION: usize = 160;
const ACTION: usize = 161;
/// `XFRM_POLICY_OUT` and `XFRM_POLICY_FWD`.
const OUT: u8 = 1;
const FORWARD: u8 = 2;
/// `XFRM_POLICY_BLOCK`.
const BLOCK: u8 = 1;
const XFRMA_TMPL: u16 = 5;
const XFRMA_MARK: u16 = 21;
const XFRMA_IF_ID: u16 = 31;

/// A policy that asks for encryption of IPv6 packets, or blocks them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) from: Ipv6Net,
    pub(crate) to: Ipv6Net,
    /// For packets that are forwarded. Otherwise for packets that leave, which are forwarded ones, too.
    forwarded: bool,
    /// The index of the only device it is for; 0 = all.
    device: u32,
}

impl Policy {
    /// Whether it is for packets between an address and a network by this uplink, which this host forwards.
    pub(crate) fn is_for(&self, uplink: u32, address: Ipv6Addr, network: Ipv6Net) -> bool {
        let between =
            |near: Ipv6Net, far: Ipv6Net| near.contains(&address) && (far.contains(&network) || network.contains(&far));
        [0, uplink].contains(&self.device)
            && (between(self.from, self.to) || self.forwarded && between(self.to, self.from))
    }
}

/// Whether packets that leave or are forwarded are blocked where no policy is for them.
pub(crate) async fn are_blocked_by_default() -> Result<bool, NetlinkError> {
    let ask = || {
        let mut connection = Connection::open(NETLINK_XFRM).map_err(NetlinkError::Socket)?;
        connection.request(GET_DEFAULT, 0, &[0; DEFAULTS])
    };
    let answer = none_if_unknown(on_blocking_thread(ask).await)?.unwrap_or_default();
    let answer = answer.iter().find(|message| message.kind == GET_DEFAULT);
    // Of packets that come in, are forwarded, and leave.
    let blocked = answer.and_then(|message| Some([*message.payload.get(1)?, *message.payload.get(2)?]));
    Ok(blocked.is_some_and(|blocked| blocked.contains(&BLOCKED_BY_DEFAULT)))
}

/// The policies of this network namespace; `None` = there are more than `most` policies of any kind.
pub(crate) async fn policies(most: usize) -> Result<Option<Vec<Policy>>, NetlinkError> {
    let read = move || read_some(NETLINK_XFRM, GET_POLICY, &[0; ID], most);
    let messages = on_blocking_thread(read).await?;
    Ok(messages.map(|messages| messages.iter().filter_map(|message| parse(&message.payload)).collect()))
}

/// Listens for new policies in the network namespace of the calling thread. The future never ends; it calls `notify` after new
/// ones, at most once in each [`TOGETHER`]. Needs a runtime, and CAP_NET_ADMIN.
pub(crate) fn new_policies(notify: impl Fn()) -> io::Result<impl Future<Output = ()>> {
    let mut socket = TokioSocket::new(NETLINK_XFRM)?;
    socket.socket_mut().bind_auto()?;
    socket.socket_mut().add_membership(GROUP)?;
    Ok(async move {
        loop {
            if !is_told(&mut socket).await {
                continue;
            }
            let end = Instant::now() + TOGETHER;
            while timeout_at(end, is_told(&mut socket)).await.is_ok() {}
            notify();
        }
    })
}

/// Whether the next message tells of a new policy. Lost messages may.
async fn is_told(socket: &mut TokioSocket) -> bool {
    let mut buffer = Vec::with_capacity(LONGEST);
    match socket.recv(&mut buffer).await {
        Ok(()) => messages(&buffer)
            .filter(|event| [NEW_POLICY, UPDATED_POLICY].contains(&event.kind))
            .any(|event| parse(event.payload).is_some()),
        Err(_) => {
            sleep(TOGETHER).await;
            true
        }
    }
}

/// Policies that let packets pass as they are change nothing. Those of an XFRM device or for marked packets are for packets
/// that somebody sends there or marks.
fn parse(payload: &[u8]) -> Option<Policy> {
    let attributes = Attributes(payload.get(HEADER..)?);
    let find = |kind| attributes.clone().find(|attribute| attribute.kind == kind);
    let applies = i32::from(wire::u16_at(payload, FAMILY)?) == libc::AF_INET6
        && [OUT, FORWARD].contains(&payload[DIRECTION])
        && (payload[ACTION] == BLOCK || find(XFRMA_TMPL).is_some_and(|templates| !templates.value.is_empty()));
    let id = find(XFRMA_IF_ID).and_then(|id| id.u32()).unwrap_or(0);
    let mark = find(XFRMA_MARK)
        .and_then(|mark| wire::u32_at(mark.value, 0))
        .unwrap_or(0);
    if !applies || id != 0 || mark != 0 {
        return None;
    }
    let network = |at: usize, length: usize| {
        let address = payload.get(at..at + 16)?.first_chunk::<16>()?;
        Ipv6Net::new(Ipv6Addr::from(*address), payload[length]).ok()
    };
    Some(Policy {
        from: network(SOURCE, SOURCE_LENGTH)?,
        to: network(DESTINATION, DESTINATION_LENGTH)?,
        forwarded: payload[DIRECTION] == FORWARD,
        device: wire::u32_at(payload, DEVICE)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut payload = vec![0; HEADER];
        payload[DESTINATION..DESTINATION + 4].copy_from_slice(&[0, 0x64, 0xff, 0x9b]);
        payload[DESTINATION_LENGTH] = 96;
        payload[FAMILY..FAMILY + 2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
        payload[DIRECTION] = OUT;
        wire::push(&mut payload, XFRMA_TMPL, &[0; 64]);
        change(&mut payload);
        payload
    }

    #[test]
    fn encrypts_what_leaves() {
        let found = parse(&message(|_| {}));
        let expected = Policy {
            from: "::/0".parse().unwrap(),
            to: "64:ff9b::/96".parse().unwrap(),
            forwarded: false,
            device: 0,
        };
        assert_eq!(found, Some(expected));
    }

    #[test]
    fn others_do_not_count() {
        for change in [
            |payload: &mut Vec<u8>| payload[DIRECTION] = 0,
            |payload: &mut Vec<u8>| payload[FAMILY..FAMILY + 2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes()),
            |payload: &mut Vec<u8>| payload.truncate(HEADER),
            |payload: &mut Vec<u8>| wire::push(payload, XFRMA_IF_ID, &7u32.to_ne_bytes()),
            |payload: &mut Vec<u8>| wire::push(payload, XFRMA_MARK, &[1, 0, 0, 0, 255, 0, 0, 0]),
            |payload: &mut Vec<u8>| payload.truncate(HEADER - 1),
        ] {
            assert_eq!(parse(&message(change)), None);
        }
    }

    #[test]
    fn one_that_blocks_needs_no_template() {
        let found = parse(&message(|payload| {
            payload.truncate(HEADER);
            payload[ACTION] = BLOCK;
        }));
        assert!(found.is_some());
    }
}
