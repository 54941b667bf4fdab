//! Servers that give nothing, say nothing, or say what makes no sense.

use std::time::Duration;

use clatd_stages::dhcp6::{
    Dhcp6Message, DhcpOption, Duid, IaPd, IaPrefix, MessageType, Phase, ServerStatus, StatusCode,
};

use super::bed::in_namespaces;
use super::kea::{Kea, Serve};
use super::server::Server;

#[test]
fn a_server_without_prefixes_is_named() {
    in_namespaces(|bed| async move {
        let kea = Kea::start(
            &bed,
            &Serve {
                pool: None,
                ..Serve::default()
            },
        );
        let asking = bed.ask();
        let state = asking.until("an error", 5, |state| state.last_error.is_some()).await;
        let error = state.last_error.unwrap();
        assert!(error.contains("aa:01") && error.contains("NoPrefixAvail"), "{error}");
        tokio::time::sleep(Duration::from_secs(4)).await;
        // At 0, 1, 3 s; every message is logged on a few lines.
        assert!(asking.client.state().lease.is_none());
        assert!(
            kea.logged("DHCP6_PACKET_RECEIVED") <= 5,
            "{}",
            kea.logged("DHCP6_PACKET_RECEIVED")
        );
        kea.stop();
        let _kea = Kea::start(&bed, &Serve::default());
        asking.lease(10).await;
        assert_eq!(asking.client.state().last_error, None);
    });
}

#[test]
fn silence_is_met_with_patience() {
    in_namespaces(|bed| async move {
        let server = Server::start(&bed, |_| Vec::new());
        let asking = bed.ask();
        let before = cpu_time();
        let state = asking.until("an error", 12, |state| state.last_error.is_some()).await;
        assert!(state.last_error.unwrap().contains("no DHCPv6 server answers"));
        assert!(cpu_time() - before < Duration::from_millis(500));
        let heard = server.heard();
        assert!(heard.iter().all(|message| message.kind == MessageType::Solicit));
        assert_eq!(heard.len(), 4, "{heard:?}");
        // One exchange, with a clock in it.
        assert!(heard.iter().all(|message| message.transaction == heard[0].transaction));
        let elapsed: Vec<u16> = heard.iter().map(elapsed).collect();
        assert_eq!(elapsed[0], 0);
        assert!((100..=115).contains(&elapsed[1]), "{elapsed:?}");
        assert!((285..=350).contains(&elapsed[2]), "{elapsed:?}");
        assert!((630..=840).contains(&elapsed[3]), "{elapsed:?}");
        // With nothing to give back there is nothing to wait for.
        let begun = std::time::Instant::now();
        asking.client.release().await;
        assert!(begun.elapsed() < Duration::from_millis(100));
    });
}

#[test]
fn a_server_that_offers_and_refuses_is_not_asked_in_circles() {
    in_namespaces(|bed| async move {
        let server = Server::start(&bed, |asked| {
            let refused = ServerStatus {
                code: StatusCode::NO_PREFIX_AVAIL,
                message: "gone\x1b[2J\nnow".into(),
            };
            let (kind, ia) = match asked.kind {
                MessageType::Solicit => (MessageType::Advertise, ia(asked, None)),
                _ => (MessageType::Reply, ia(asked, Some(refused))),
            };
            vec![answer(asked, kind, ia, Some(255))]
        });
        let asking = bed.ask();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let error = asking.client.state().last_error.unwrap();
        assert!(error.ends_with("NoPrefixAvail (gone [2J now)"), "{error:?}");
        let heard = server.heard().len();
        assert!((4..=10).contains(&heard), "{heard} messages in 5 s");
    });
}

#[test]
fn no_server_makes_us_flood() {
    in_namespaces(|bed| async move {
        // Lifetimes that end at once, and a lease that is unknown as soon as it is to be prolonged.
        let server = Server::start(&bed, |asked| {
            let unknown = ServerStatus {
                code: StatusCode::NO_BINDING,
                message: String::new(),
            };
            let mut given = ia(asked, None);
            given.t1 = 0;
            for prefix in &mut given.prefixes {
                (prefix.preferred, prefix.valid) = (1, 1);
            }
            let given = match asked.kind {
                MessageType::Renew | MessageType::Rebind => ia(asked, Some(unknown)),
                _ => given,
            };
            let kind = match asked.kind {
                MessageType::Solicit => MessageType::Advertise,
                _ => MessageType::Reply,
            };
            (0..10).map(|_| answer(asked, kind, given.clone(), Some(255))).collect()
        });
        let asking = bed.ask();
        asking.lease(5).await;
        tokio::time::sleep(Duration::from_secs(15)).await;
        let heard = server.heard().len();
        assert!(heard <= 20 + 18, "{heard} messages in some 16 s");
    });
}

#[test]
fn of_two_servers_the_preferred_one_is_asked() {
    in_namespaces(|bed| async move {
        let server = Server::start(&bed, |asked| {
            let kind = match asked.kind {
                MessageType::Solicit => MessageType::Advertise,
                _ => MessageType::Reply,
            };
            let of = |name: &[u8], preference| {
                let mut message = answer(asked, kind, ia(asked, None), Some(preference));
                message.options[1] = DhcpOption::ServerId(Duid::from_machine(name));
                message
            };
            let addressee = asked.options.iter().find_map(|option| match option {
                DhcpOption::ServerId(duid) => Some(duid.clone()),
                _ => None,
            });
            let all = [of(b"one", 3), of(b"two", 200), of(b"three", 0)];
            all.into_iter()
                .filter(|message| match &addressee {
                    Some(addressee) => message.options[1] == DhcpOption::ServerId(addressee.clone()),
                    None => true,
                })
                .collect()
        });
        let asking = bed.ask();
        let lease = asking.lease(5).await;
        assert_eq!(lease.server, Duid::from_machine(b"two").to_string());
        let kinds: Vec<_> = server.heard().iter().map(|message| message.kind).collect();
        assert_eq!(kinds, [MessageType::Solicit, MessageType::Request]);
        asking.client.release().await;
        assert_eq!(server.heard().last().unwrap().kind, MessageType::Release);
    });
}

#[test]
fn a_release_is_tried_twice() {
    in_namespaces(|bed| async move {
        let server = Server::start(&bed, |asked| match asked.kind {
            MessageType::Solicit => vec![answer(asked, MessageType::Advertise, ia(asked, None), Some(255))],
            MessageType::Request => vec![answer(asked, MessageType::Reply, ia(asked, None), None)],
            _ => Vec::new(),
        });
        let asking = bed.ask();
        asking.lease(5).await;
        assert_eq!(asking.client.state().phase, Phase::Bound);
        let begun = std::time::Instant::now();
        asking.client.release().await;
        let took = begun.elapsed();
        assert!(
            (Duration::from_millis(900)..Duration::from_millis(1200)).contains(&took),
            "{took:?}"
        );
        let releases = server
            .heard()
            .iter()
            .filter(|message| message.kind == MessageType::Release)
            .count();
        assert_eq!(releases, 2);
        assert_eq!(bed.kept(), None);
    });
}

/// An answer with this IA.
pub fn answer(asked: &Dhcp6Message, kind: MessageType, ia: IaPd, preference: Option<u8>) -> Dhcp6Message {
    let client = asked
        .options
        .iter()
        .find(|option| matches!(option, DhcpOption::ClientId(_)));
    let mut options = vec![
        client.unwrap().clone(),
        DhcpOption::ServerId(Duid::from_machine(b"server")),
        DhcpOption::IaPd(ia),
    ];
    options.extend(preference.map(DhcpOption::Preference));
    Dhcp6Message {
        kind,
        transaction: asked.transaction,
        options,
    }
}

/// The IA that was asked for, with a prefix or a refusal.
pub fn ia(asked: &Dhcp6Message, refused: Option<ServerStatus>) -> IaPd {
    let asked = asked.options.iter().find_map(|option| match option {
        DhcpOption::IaPd(ia) => Some(ia.clone()),
        _ => None,
    });
    let given = IaPrefix {
        preferred: 3000,
        valid: 4000,
        prefix: "2001:db8:5::/64".parse().unwrap(),
        status: None,
    };
    IaPd {
        t1: 1000,
        t2: 2000,
        prefixes: if refused.is_some() { vec![] } else { vec![given] },
        status: refused,
        ..asked.unwrap()
    }
}

fn elapsed(message: &Dhcp6Message) -> u16 {
    let time = message.options.iter().find_map(|option| match option {
        DhcpOption::ElapsedTime(time) => Some(*time),
        _ => None,
    });
    time.unwrap()
}

/// What this thread has computed, which is the one that the client runs on.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}
