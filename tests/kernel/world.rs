//! What the read side says of the system.

use std::net::SocketAddr;

use clatd_stages::settings::DnsServer;
use clatd_stages::world::{DnsAnswer, World};
use tokio::net::UdpSocket;

use crate::support::{in_namespace, sh};

#[test]
fn links() {
    in_namespace(|bed| async move {
        sh(
            "ip link add vrf9 type vrf table 909 2>/dev/null && ip link set isp0 master vrf9 || true
            ip link set up0 alias clatd:x; ip link set up0 mtu 1400; ip link set isp0 down",
        );
        let up = bed.world.link("up0").await.unwrap().unwrap();
        assert_eq!(
            (up.mtu, up.up, up.carrier, up.alias.as_deref()),
            (1400, true, false, Some("clatd:x"))
        );
        assert!(up.is_clat());
        let isp = bed.world.link("isp0").await.unwrap().unwrap();
        assert!(!isp.up && isp.alias.is_none());
        if let Some(vrf) = bed.world.link("vrf9").await.unwrap() {
            assert_eq!(vrf.vrf_table, Some(909));
            assert_eq!(isp.master, Some(vrf.index));
        }
        assert!(bed.world.links().await.unwrap().iter().any(|link| link.name == "lo"));
        for none in ["", "nodev", "a-name-that-no-device-can-have"] {
            assert_eq!(bed.world.link(none).await.unwrap(), None, "{none}");
        }
    });
}

#[test]
fn addresses() {
    in_namespace(|bed| async move {
        sh(
            "ip addr add 2001:db8:2::2/64 dev up0 valid_lft 600 preferred_lft 0 nodad
            ip addr add fd00::1/64 dev up0 nodad
            ip addr add 2001:db8:3::3 peer 2001:db8:3::4/128 dev up0 nodad",
        );
        let addresses = bed.world.addresses6("up0").await.unwrap();
        let find = |text: &str| {
            addresses
                .iter()
                .find(|a| a.address == text.parse::<std::net::Ipv6Addr>().unwrap())
                .unwrap()
        };
        let stable = find("2001:db8:1::2");
        assert!(stable.global && !stable.deprecated && !stable.tentative && !stable.temporary);
        assert_eq!((stable.prefix_len, stable.valid_s), (64, None));
        let deprecated = find("2001:db8:2::2");
        assert!(deprecated.deprecated && deprecated.valid_s.is_some_and(|seconds| (590..=600).contains(&seconds)));
        assert!(find("fd00::1").global);
        find("2001:db8:3::3");
        assert!(addresses.iter().any(|address| !address.global), "the link-local one");
        assert!(bed.world.addresses6("nodev").await.unwrap().is_empty());
    });
}

/// A router that failed is avoided where another one leads there, until it answers.
#[test]
fn a_router_that_does_not_answer_is_avoided() {
    in_namespace(|bed| async move {
        let target = "64:ff9b::1".parse().unwrap();
        let by = async || {
            bed.world
                .route_to(target, Some("up0"))
                .await
                .unwrap()
                .unwrap()
                .gateway
                .unwrap()
                .to_string()
        };
        sh("ip -6 route add 64:ff9b::/96 via fe80::1 dev up0
            ip -6 neigh add fe80::1 dev up0 nud failed");
        assert_eq!(by().await, "fe80::1", "there is no other");
        sh(
            "ip -6 route add default nexthop via fe80::2 dev up0 nexthop via fe80::3 dev up0
            ip -6 neigh add fe80::2 dev up0 nud failed",
        );
        assert_eq!(by().await, "fe80::3", "the only one of the three that did not fail");
        sh("ip -6 neigh replace fe80::1 dev up0 lladdr 02:00:5e:00:00:99 nud stale");
        assert_eq!(by().await, "fe80::3", "it was heard, but did not answer");
        sh("ip -6 neigh replace fe80::1 dev up0 lladdr 02:00:5e:00:00:99 nud reachable");
        assert_eq!(by().await, "fe80::1", "it answers again");
    });
}

#[test]
fn routes_and_look_ups() {
    in_namespace(|bed| async move {
        let world = &bed.world;
        let target = "64:ff9b::1".parse().unwrap();
        assert_eq!(world.route_to(target, None).await.unwrap(), None, "no route");
        sh(
            "ip -6 route add default via fe80::1 dev up0 proto ra metric 1024 expires 1000
            ip -6 route add 2001:db8:bad::/48 via fe80::2 dev up0 table 77
            ip -6 route add default via fe80::2 dev up0 table 77
            ip -6 route add unreachable 2001:db8:dead::/48
            ip -6 route add blackhole 2001:db8:beef::/48
            ip -6 route add prohibit 2001:db8:f00d::/48
            ip route add default via 192.0.2.1 dev up0 src 192.0.2.2 metric 3 mtu 1400 advmss 1300",
        );
        let answer = world.route_to(target, None).await.unwrap().unwrap();
        assert_eq!(
            (answer.device.as_str(), answer.gateway),
            ("up0", Some("fe80::1".parse().unwrap()))
        );
        assert_eq!(answer.source, Some("2001:db8:1::2".parse().unwrap()));
        assert!(world.route_to(target, Some("up0")).await.unwrap().is_some());
        assert_eq!(world.route_to(target, Some("isp0")).await.unwrap(), None);
        assert_eq!(world.route_to(target, Some("nodev")).await.unwrap(), None);
        for none in ["2001:db8:dead::1", "2001:db8:beef::1", "2001:db8:f00d::1"] {
            assert_eq!(
                world.route_to(none.parse().unwrap(), None).await.unwrap(),
                None,
                "{none}"
            );
        }
        let routes = world.routes6(254).await.unwrap();
        let default = routes.iter().find(|route| route.is_default()).unwrap();
        assert_eq!(
            (default.protocol, default.metric, default.gateway),
            (9, 1024, Some("fe80::1".parse().unwrap()))
        );
        assert!(default.raw.is_some());
        assert!(routes.iter().all(|route| route.table == 254));
        assert!(
            !routes.iter().any(|route| route.to_string().contains("dead")),
            "unicast ones only"
        );
        assert_eq!(world.routes6(77).await.unwrap().len(), 1, "default routes only");
        assert!(world.routes6(12345).await.unwrap().is_empty());
        assert_eq!(world.routes4(12345).await.unwrap(), []);
        let v4 = world.routes4(254).await.unwrap();
        assert_eq!(
            v4[0].to_string(),
            "default via 192.0.2.1 dev up0 src 192.0.2.2 metric 3 mtu 1400 advmss 1300"
        );
    });
}

#[test]
fn sysctls_programs_and_rulesets() {
    in_namespace(|bed| async move {
        let world = &bed.world;
        assert_eq!(
            world.sysctl("net/ipv6/conf/up0/accept_ra").await.unwrap().as_deref(),
            Some("1")
        );
        assert_eq!(world.sysctl("net/ipv6/conf/nodev/accept_ra").await.unwrap(), None);
        assert!(world.sysctl("kernel/../hostname").await.is_err());
        assert!(
            world
                .program("sh")
                .await
                .unwrap()
                .is_some_and(|path| path.ends_with("/sh"))
        );
        assert_eq!(world.program("no-such-program").await.unwrap(), None);
        assert_eq!(world.nft_ruleset("no-such-nft").await.unwrap(), None);
        sh("nft add table inet x");
        let ruleset = world.nft_ruleset("nft").await.unwrap().unwrap();
        assert!(
            ruleset["nftables"]
                .as_array()
                .unwrap()
                .iter()
                .any(|object| object["table"]["name"] == "x")
        );
        let error = world.nft_ruleset("false").await.unwrap_err();
        assert!(crate::support::chain(&error).contains("`false -j -t -a list ruleset` failed"));
    });
}

#[test]
fn many_reads_at_once() {
    in_namespace(|bed| async move {
        sh("ip -6 route add default via fe80::1 dev up0");
        let mut reads = tokio::task::JoinSet::new();
        for _ in 0..32 {
            let world = bed.world.clone();
            reads.spawn(async move { world.links().await.unwrap().len() + world.routes6(254).await.unwrap().len() });
        }
        let counts = reads.join_all().await;
        assert!(
            counts.iter().all(|count| *count == counts[0] && *count > 3),
            "{counts:?}"
        );
    });
}

/// A DNS server that answers by the name that it is asked for.
async fn serve(socket: UdpSocket) {
    let mut buffer = [0; 1500];
    loop {
        let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
        if let Some(answer) = answer(&buffer[..length]) {
            socket.send_to(&answer, peer).await.unwrap();
        }
    }
}

fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let label = |at: usize| String::from_utf8_lossy(&query[at + 1..at + 1 + usize::from(query[at])]).to_lowercase();
    let end = 12 + query[12..].iter().position(|&byte| byte == 0).unwrap() + 5;
    assert_eq!(query[3] & 0x10, 0, "CD is not set");
    assert_eq!(query[11], 0, "no EDNS, so no DO");
    let mut reply = query[..end].to_vec();
    reply[2] |= 0x84;
    let aaaa = |name: &[u8], last: u8| {
        let head = [
            0, 28, 0, 1, 0, 0, 1, 44, 0, 16, 0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        [name, &head, &[192, 0, 0, last]].concat()
    };
    let soa = [
        &[0xc0, 12][..],
        &[0, 6, 0, 1, 0, 0, 0, 60, 0, 22, 0, 0],
        &[0, 0, 0, 9].repeat(5),
    ]
    .concat();
    match label(12).as_str() {
        "two" => {
            reply[7] = 2;
            reply.extend(aaaa(&[0xc0, 12], 170));
            reply.extend(aaaa(&[0xc0, 12], 171));
        }
        "alias" => {
            reply[7] = 2;
            // alias -> b, with a shorter life than b's address.
            reply.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 30, 0, 3, 1, b'b', 0]);
            let target = u8::try_from(reply.len() - 3).unwrap();
            reply.extend(aaaa(&[0xc0, target], 170));
        }
        "nodata" => {
            reply[9] = 1;
            reply.extend(soa);
        }
        "nx" => {
            reply[3] |= 3;
            reply[9] = 1;
            reply.extend(soa);
        }
        "servfail" => reply[3] |= 2,
        _ => return None,
    }
    Some(reply)
}

#[test]
fn aaaa_questions() {
    in_namespace(|bed| async move {
        let link_local = sh("ip -6 -o addr show dev isp0 scope link | sed 's/.*inet6 //; s,/.*,,'")
            .trim()
            .to_owned();
        let index = bed.world.link("isp0").await.unwrap().unwrap().index;
        let scoped: SocketAddr = std::net::SocketAddrV6::new(link_local.parse().unwrap(), 53, 0, index).into();
        tokio::spawn(serve(UdpSocket::bind("[::1]:53").await.unwrap()));
        tokio::spawn(serve(UdpSocket::bind(scoped).await.unwrap()));
        let local: DnsServer = "::1".parse().unwrap();
        let ask =
            async |name: &str, server: &DnsServer, device| bed.world.aaaa(name, Some(server), device).await.unwrap();

        let both = DnsAnswer::Addresses {
            addresses: [
                "64:ff9b::192.0.0.170".parse().unwrap(),
                "64:ff9b::192.0.0.171".parse().unwrap(),
            ]
            .to_vec(),
            ttl_s: 300,
        };
        assert_eq!(ask("two.test.", &local, None).await, both);
        assert_eq!(
            ask("two.test", &local, Some("up0")).await,
            both,
            "a server on this host needs no device"
        );
        let alias = DnsAnswer::Addresses {
            addresses: ["64:ff9b::192.0.0.170".parse().unwrap()].to_vec(),
            ttl_s: 30,
        };
        assert_eq!(ask("alias.test.", &local, None).await, alias);
        let none = |nxdomain, answer: DnsAnswer| {
            assert!(
                matches!(answer, DnsAnswer::NoRecords { nxdomain: found, .. } if found == nxdomain),
                "{answer:?}"
            );
        };
        none(false, ask("nodata.test.", &local, None).await);
        none(true, ask("nx.test.", &local, None).await);
        let failed = |answer: DnsAnswer| match answer {
            DnsAnswer::Failed(why) => why,
            other => panic!("{other:?}"),
        };
        let why = failed(ask("servfail.test.", &local, None).await);
        assert!(why.to_lowercase().contains("server failure"), "{why}");
        let begin = std::time::Instant::now();
        let why = failed(ask("silent.test.", &local, None).await);
        assert!(why.contains("no answer"), "{why}");
        assert!((4..8).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());

        // A link-local server by its device: up0's peer is in the same namespace here.
        let scoped: DnsServer = format!("{link_local}%up0").parse().unwrap();
        let wrong: DnsServer = format!("{link_local}%nodev").parse().unwrap();
        assert_eq!(ask("two.test.", &scoped, None).await, both);
        failed(ask("two.test.", &wrong, None).await);
    });
}
