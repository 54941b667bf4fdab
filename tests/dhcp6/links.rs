//! Links that come and go, and others that use the port.

use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::time::Duration;

use clatd_stages::dhcp6::{CLIENT_PORT, MessageType, Phase};

use super::bed::{in_namespaces, sh};
use super::kea::{Kea, Serve};
use super::refusing::{answer, ia};
use super::server::Server;

#[test]
fn it_waits_for_the_link_and_asks_again_when_it_is_back() {
    in_namespaces(|bed| async move {
        let kea = Kea::start(&bed, &Serve::default());
        sh("ip link set up0 down");
        let asking = bed.ask();
        let state = asking.until("an error", 5, |state| state.last_error.is_some()).await;
        assert!(state.last_error.unwrap().contains("up0 is down"));
        assert_eq!(state.phase, Phase::Idle);

        sh("ip link set up0 up");
        let lease = asking.lease(6).await;
        assert_eq!(asking.client.state().last_error, None);

        bed.there("ip link set isp0 down; sleep 0.3");
        let state = asking.until("an error", 5, |state| state.last_error.is_some()).await;
        assert_eq!(state.lease.unwrap().prefix, lease.prefix, "the lease still runs");
        bed.there("ip link set isp0 up");
        asking
            .until("the way back", 5, |state| state.last_error.is_none())
            .await;
        asking
            .until("the answer", 8, |state| {
                state.phase == Phase::Bound && kea.logged("REBIND") > 0
            })
            .await;
        assert_eq!(asking.client.state().lease.unwrap().prefix, lease.prefix);
    });
}

#[test]
fn a_short_loss_of_the_carrier_counts() {
    in_namespaces(|bed| async move {
        let server = Server::start(&bed, |asked| match asked.kind {
            MessageType::Solicit => vec![answer(asked, MessageType::Advertise, ia(asked, None), Some(255))],
            _ => vec![answer(asked, MessageType::Reply, ia(asked, None), None)],
        });
        let asking = bed.ask();
        asking.lease(5).await;
        // The client's thread is this one, so that it hears of both at once.
        bed.there("ip link set isp0 down; ip link set isp0 up");
        let rebound = || server.heard().iter().any(|message| message.kind == MessageType::Rebind);
        asking
            .until("a Rebind", 6, |state| rebound() && state.phase == Phase::Bound)
            .await;
    });
}

#[test]
fn a_device_may_come_later_and_as_another() {
    in_namespaces(|bed| async move {
        let _kea = Kea::start(&bed, &Serve::default());
        sh("ip link set up0 name later0");
        let asking = bed.ask();
        let state = asking.until("an error", 5, |state| state.last_error.is_some()).await;
        assert_eq!(state.last_error.unwrap(), "there is no device up0");
        sh("ip link set later0 down; ip link set later0 name up0; ip link set up0 up");
        asking.lease(6).await;
    });
}

#[test]
fn other_clients_on_the_port_keep_their_answers() {
    in_namespaces(|bed| async move {
        let server = Server::start(&bed, |asked| match asked.kind {
            MessageType::Solicit => vec![answer(asked, MessageType::Advertise, ia(asked, None), Some(255))],
            _ => vec![answer(asked, MessageType::Reply, ia(asked, None), None)],
        });
        let local: Ipv6Addr = sh("ip -6 -o addr show dev up0 scope link | sed 's/.*inet6 //; s,/.*,,'")
            .trim()
            .parse()
            .unwrap();
        let index = super::bed::index("up0");
        let bind = || {
            // As systemd-networkd and NetworkManager do.
            let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            socket
                .bind(&SocketAddrV6::new(local, CLIENT_PORT, 0, index).into())
                .unwrap();
            let socket = UdpSocket::from(socket);
            socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            socket
        };
        let hears = |socket: &UdpSocket| {
            while server.heard().is_empty() {
                std::thread::sleep(Duration::from_millis(10));
            }
            let mut buffer = [0; 2048];
            socket.recv_from(&mut buffer).is_ok()
        };

        let first = bind();
        let asking = bed.ask();
        asking.lease(5).await;
        assert!(hears(&first), "one that was there before us hears nothing any more");
        asking.client.release().await;
        assert_eq!(server.heard().last().unwrap().kind, MessageType::Release);
        drop(first);

        let asking = bed.ask();
        asking.lease(5).await;
        let later = bind();
        // A Rebind.
        bed.there("ip link set isp0 down; ip link set isp0 up");
        let rebound = || server.heard().iter().any(|message| message.kind == MessageType::Rebind);
        asking
            .until("a Rebind", 6, |state| rebound() && state.phase == Phase::Bound)
            .await;
        assert!(hears(&later), "one that came after us hears nothing");
    });
}
