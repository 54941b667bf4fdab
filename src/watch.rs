//! Watches the network: netlink events of links, addresses, routes and rules, and of routers that do not answer, become
//! one count that goes up.
//! Events come in bursts (an uplink that appears makes dozens), so a burst counts once, when it has calmed down.

use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream, select};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket};
use rtnetlink::MulticastGroup;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};
use tracing::trace;

use crate::kernel::{Reachability, reachability};
use crate::world::SilentRouters;

/// A burst is over after this much silence, in which packets of an uplink that has failed are lost ...
const CALM: Duration = Duration::from_millis(40);
/// ... and is reported after this long in any case.
const LONGEST: Duration = Duration::from_millis(600);

/// Characters of an event that are told at the highest debugging level.
const LONGEST_TOLD: usize = 300;

const GROUPS: &[MulticastGroup] = &[
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Neigh,
];

/// Begins to watch; the task ends with the receiver. Needs a runtime.
///
/// A socket that overran lost events, not state: whoever is told reads the whole state again, so it counts as one.
pub fn start(silent: SilentRouters) -> io::Result<(Teller, watch::Receiver<u64>)> {
    let (connection, _handle, messages) = rtnetlink::new_multicast_connection(GROUPS)?;
    tokio::spawn(connection);
    let (sender, receiver) = watch::channel(0);
    let telling =
        messages.filter_map(move |(message, _)| std::future::ready(tells_something(&message, &silent).then_some(())));
    let (tell, told) = mpsc::unbounded_channel();
    let told = stream::unfold(told, |mut told| async move { told.recv().await.map(|()| ((), told)) });
    let events = select(select(telling, packet_filters()), told);
    tokio::spawn(count_bursts(events.boxed(), sender));
    Ok((Teller(tell), receiver))
}

/// Adds events that the kernel does not tell.
#[derive(Debug, Clone)]
pub struct Teller(mpsc::UnboundedSender<()>);

impl Teller {
    /// Something has changed.
    pub fn tell(&self) {
        // Nobody listens any more: the daemon is stopping.
        let _ = self.0.send(());
    }
}

/// Neighbours come and go all the time, and matter when a router stops to answer or begins again: the kernel turns to
/// another one then, without any event of a route.
fn tells_something(message: &NetlinkMessage<RouteNetlinkMessage>, silent: &SilentRouters) -> bool {
    let (neighbour, gone) = match &message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(neighbour)) => (neighbour, false),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelNeighbour(neighbour)) => (neighbour, true),
        other => {
            trace!(
                "netlink: {}",
                format!("{other:?}").chars().take(LONGEST_TOLD).collect::<String>()
            );
            return true;
        }
    };
    let address = neighbour.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(*address),
        _ => None,
    });
    let (Some(address), device) = (address, neighbour.header.ifindex) else {
        return false;
    };
    // An entry made anew does not know yet whether it is a router, but those are link-local.
    let may_be_router = address.is_unicast_link_local() || neighbour.header.flags.contains(NeighbourFlags::Router);
    if !may_be_router {
        return false;
    }
    match reachability(neighbour.header.state) {
        // The kernel throws entries that failed away after a while, which is no news of the router.
        Reachability::Failed => silent.learn(device, address, Reachability::Failed),
        _ if gone => silent.forget(device, address),
        says => silent.learn(device, address, says),
    }
}

/// Changes of nf_tables rulesets. A kernel without nf_tables has none, and an unprivileged process hears of none.
fn packet_filters() -> BoxStream<'static, ()> {
    const NFNLGRP_NFTABLES: u32 = 7;
    let listen = || {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket.socket_mut().bind_auto()?;
        socket.socket_mut().add_membership(NFNLGRP_NFTABLES)?;
        io::Result::Ok(socket)
    };
    let Ok(socket) = listen() else {
        return stream::pending().boxed();
    };
    stream::unfold(socket, |socket| async move {
        let mut message = Vec::with_capacity(64 * 1024);
        // Lost events (ENOBUFS) are events too; the pause keeps any other error from becoming a busy loop.
        if socket.recv(&mut message).await.is_err() {
            tokio::time::sleep(CALM).await;
        }
        Some(((), socket))
    })
    .boxed()
}

async fn count_bursts(mut events: BoxStream<'static, ()>, sender: watch::Sender<u64>) {
    while events.next().await.is_some() {
        let longest = Instant::now() + LONGEST;
        loop {
            let calm = (Instant::now() + CALM).min(longest);
            match timeout_at(calm, events.next()).await {
                Ok(Some(())) if Instant::now() < longest => {}
                _ => break,
            }
        }
        sender.send_modify(|count| *count += 1);
        if sender.is_closed() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_counts_once() {
        let (sender, mut receiver) = watch::channel(0);
        let burst = stream::iter([(); 50]);
        let later = stream::once(tokio::time::sleep(Duration::from_secs(5)));
        tokio::spawn(count_bursts(burst.chain(later).boxed(), sender));
        receiver.changed().await.unwrap();
        assert_eq!(*receiver.borrow_and_update(), 1);
        receiver.changed().await.unwrap();
        assert_eq!(*receiver.borrow_and_update(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_by_itself_is_reported_at_once() {
        let (sender, mut receiver) = watch::channel(0);
        let event = stream::iter([()]).chain(stream::pending());
        tokio::spawn(count_bursts(event.boxed(), sender));
        let begun = Instant::now();
        receiver.changed().await.unwrap();
        assert!(begun.elapsed() <= Duration::from_millis(50), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_endless_burst_is_reported_in_time() {
        let (sender, mut receiver) = watch::channel(0);
        let endless = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Some(((), ()))
        });
        tokio::spawn(count_bursts(endless.boxed(), sender));
        let begun = Instant::now();
        receiver.changed().await.unwrap();
        assert!(begun.elapsed() < LONGEST + CALM);
    }
}
