//! Tables: facts in, the check that is blamed and its words out.

mod words;

use std::net::{IpAddr, Ipv4Addr};

use super::{Check, Examined, Finding, Judgement, Large, Plat, RunningInstance, judge};
use crate::discovery::Checked;
use crate::facts::{Fact, Facts, FirewallFacts, Ip6tablesChain, NftChain, Source};
use crate::net::{Address6, Link, Route};
use crate::path::{Hop, Says};
use crate::plan::StageName;
use crate::settings::{Ipv4, RouteMtu, Settings};
use crate::stage::Instance;
use crate::world::RouteAnswer;

fn instance() -> Instance {
    Instance {
        name: "clat".into(),
        settings: Settings {
            ipv4: Ipv4 {
                v4_defaultroute_mtu: RouteMtu::Bytes(1260),
                ..Ipv4::default()
            },
            ..Settings::default()
        },
        runtime_dir: "/run/clatd".into(),
        ordinal: 0,
        seed: 0,
    }
}

fn link(index: u32, name: &str) -> Link {
    Link {
        index,
        name: name.into(),
        mtu: 1500,
        up: true,
        carrier: true,
        alias: (name == "clat").then(|| "clatd:clat".into()),
        master: None,
        vrf_table: None,
    }
}

fn route(destination: &str, gateway: &str, device: &str, metric: u32) -> Route {
    Route {
        gateway: gateway.parse().ok(),
        metric,
        protocol: 3,
        ..Route::ours(destination.parse().unwrap(), device)
    }
}

fn hop(hops: u8, from: &str, says: Says) -> Hop {
    Hop {
        hops,
        from: from.parse().unwrap(),
        says,
    }
}

/// A CLAT that works.
fn working() -> Examined {
    let router: IpAddr = "fe80::1".parse().unwrap();
    let source = Source::Dns64("2001:db8::53".parse().ok());
    let prefix = Fact::new("64:ff9b::/96".parse().unwrap(), source);
    let facts = Facts {
        plat_prefix: Some(prefix.clone()),
        uplink: Some(Fact::new(link(2, "up0"), Source::Configuration)),
        uplink_mtu: Some(Fact::new(1500, Source::Kernel("MTU"))),
        metric: Some(Fact::new(2048, Source::Configuration)),
        ..Facts::default()
    };
    Examined {
        running: Some(RunningInstance {
            state: "running".into(),
            facts,
            ..RunningInstance::default()
        }),
        links: vec![link(2, "up0"), link(3, "clat")],
        uplink: Some(link(2, "up0")),
        addresses: vec![Address6 {
            address: "2001:db8::2".parse().unwrap(),
            prefix_len: 64,
            global: true,
            tentative: false,
            deprecated: false,
            temporary: false,
            valid_s: None,
        }],
        defaults6: vec![route("::/0", "fe80::1", "up0", 1024)],
        gateway: Some((router, Some(true))),
        plats: vec![Plat {
            prefix,
            route: true,
            answers: vec![
                hop(1, "2001:db8::1", Says::TimeExceeded),
                hop(3, "64:ff9b::c633:6401", Says::Unreachable(0)),
            ],
        }],
        route4: Some(RouteAnswer {
            device: "clat".into(),
            gateway: None,
            source: None,
        }),
        firewall: Some(FirewallFacts::default()),
        through_clat: Some(vec![hop(4, "198.51.100.1", Says::TimeExceeded)]),
        large: Some(Large {
            length: 1500,
            from: router,
            answered: true,
            fits: Some(1500),
        }),
        ..Examined::default()
    }
}

fn wrong(findings: &[Finding]) -> Vec<(Check, String)> {
    let wrong = findings.iter().filter(|finding| finding.verdict == Judgement::Wrong);
    wrong
        .map(|finding| {
            let advice = finding.advice.as_deref().expect("advice goes with what is wrong");
            (finding.check, format!("{} -> {advice}", finding.what))
        })
        .collect()
}

/// Changes what was seen of a working CLAT: these checks are wrong, in this order, with these words.
fn case(change: impl FnOnce(&mut Examined), expected: &[(Check, &str)]) {
    let mut seen = working();
    change(&mut seen);
    let found = wrong(&judge(&instance(), &seen));
    let checks: Vec<Check> = found.iter().map(|(check, _)| *check).collect();
    let wanted: Vec<Check> = expected.iter().map(|(check, _)| *check).collect();
    assert_eq!(checks, wanted, "{found:#?}");
    for ((_, said), (_, words)) in found.iter().zip(expected) {
        assert!(said.contains(words), "{said:?} must say {words:?}");
    }
}

#[test]
fn nothing_is_wrong_with_what_works() {
    case(|_| {}, &[]);
    let findings = judge(&instance(), &working());
    let good = |check| {
        findings
            .iter()
            .any(|found| found.check == check && found.verdict == Judgement::Good)
    };
    for check in [
        Check::Daemon,
        Check::Uplink,
        Check::Carrier,
        Check::Address,
        Check::Gateway,
        Check::Prefix,
        Check::Plat,
        Check::Device,
        Check::Forwarding,
        Check::Filter,
        Check::Route,
        Check::Mtu,
        Check::Ipv4,
    ] {
        assert!(good(check), "{check:?}: {findings:#?}");
    }
    let without_daemon = Examined {
        running: None,
        through_clat: None,
        route4: None,
        ..working()
    };
    let findings = judge(&instance(), &without_daemon);
    assert_eq!(wrong(&findings), []);
    assert_eq!(findings[0].verdict, Judgement::Note);
}

#[test]
fn the_uplink_and_its_router() {
    case(
        |seen| seen.uplink = None,
        &[(Check::Uplink, "no device has an IPv6 default route")],
    );
    case(
        |seen| seen.uplink.as_mut().unwrap().up = false,
        &[(Check::Carrier, "ip link set up0 up")],
    );
    case(
        |seen| seen.uplink.as_mut().unwrap().carrier = false,
        &[(Check::Carrier, "up0 has no carrier: packets cannot leave this host")],
    );
    case(
        |seen| seen.defaults6.clear(),
        &[(Check::Uplink, "has no IPv6 default route")],
    );
    case(
        |seen| seen.addresses.clear(),
        &[(Check::Address, "up0 has no global IPv6 address")],
    );
    case(
        |seen| seen.addresses[0].tentative = true,
        &[(Check::Address, "duplicate address detection")],
    );
    case(
        |seen| seen.gateway.as_mut().unwrap().1 = Some(false),
        &[(Check::Gateway, "packets stop before the first hop")],
    );
}

fn input_chain_that_drops(family: &str) -> NftChain {
    NftChain {
        family: family.into(),
        table: "fw".into(),
        chain: "in".into(),
        hook: "input".into(),
        reason: "policy drop".into(),
    }
}

#[test]
fn the_plat_and_who_tells_of_it() {
    case(
        |seen| {
            seen.plats.clear();
            seen.failures = vec!["2001:db8::53 has no AAAA record for ipv4only.arpa.; it does no DNS64".into()];
        },
        &[(Check::Prefix, "it does no DNS64 -> ")],
    );
    case(
        |seen| seen.plats[0].route = false,
        &[(Check::Plat, "has no route to the PLAT prefix")],
    );
    case(
        |seen| {
            seen.plats[0].answers.pop();
            seen.through_clat = Some(Vec::new());
        },
        &[(Check::Plat, "packets get as far as 2001:db8::1 and no further")],
    );
    case(
        |seen| {
            seen.plats[0].answers.clear();
            seen.through_clat = Some(Vec::new());
        },
        &[(Check::Plat, "nobody on the way says anything -> tell whoever")],
    );
    case(
        |seen| {
            seen.plats[0].answers.clear();
            seen.through_clat = Some(Vec::new());
            seen.own_filters = ["ip6", "ip"].map(input_chain_that_drops).into();
        },
        &[(
            Check::Plat,
            "-> the nft chain ip6 fw in (hook input, policy drop) may drop the answers: let ICMPv6 in and out; otherwise, tell",
        )],
    );
    // A host that answers through it speaks for it, too.
    case(
        |seen| {
            seen.plats[0].answers.clear();
            seen.through_clat = None;
            seen.host = Some(Checked::Answers(Ipv4Addr::new(198, 51, 100, 7)));
        },
        &[],
    );
    case(
        |seen| seen.host = Some(Checked::Silent(Ipv4Addr::new(198, 51, 100, 7))),
        &[(Check::Host, "198.51.100.7 does not answer through the PLAT")],
    );
    case(
        |seen| {
            let mut lie = seen.plats[0].clone();
            lie.prefix.value = "2001:db8:bad::/96".parse().unwrap();
            lie.answers.pop();
            seen.plats[0].prefix.source = Source::RouterAdvertisement("fe80::1".parse().unwrap());
            seen.plats.push(lie);
        },
        &[(
            Check::Dns64,
            "the DNS64 server 2001:db8::53 synthesises with 2001:db8:bad::/96, where nothing answers, while 64:ff9b::/96",
        )],
    );
    case(
        |seen| {
            seen.failures = vec!["x answered ipv4only.arpa. with 2001:db8::1, which no DNS64 synthesised".into()];
        },
        &[(Check::Dns64, "a resolver gives false answers")],
    );
}

#[test]
fn this_host() {
    case(
        |seen| seen.running.as_mut().unwrap().state = "stuck".into(),
        &[(Check::Daemon, "clatd cleanup")],
    );
    case(
        |seen| {
            let running = seen.running.as_mut().unwrap();
            (running.state, running.reason) = ("idle".into(), "no PLAT prefix".into());
            seen.route4 = None;
            seen.through_clat = None;
        },
        &[(Check::Daemon, "nothing to work with: no PLAT prefix")],
    );
    for (stage, check) in [
        (StageName::Device, Check::Device),
        (StageName::ProxyNd, Check::Claim),
        (StageName::Sysctl, Check::Forwarding),
        (StageName::Firewall, Check::Filter),
        (StageName::Route, Check::Route),
    ] {
        case(
            |seen| seen.undone = vec![(stage, "the operation".into())],
            &[(check, "somebody undid what the CLAT needs: the operation")],
        );
    }
    let chain = NftChain {
        family: "ip6".into(),
        table: "filter".into(),
        chain: "forward".into(),
        hook: "forward".into(),
        reason: "policy drop".into(),
    };
    let drops = |seen: &mut Examined| seen.firewall.as_mut().unwrap().nft_chains.push(chain.clone());
    // A filter is not blamed while packets pass it.
    case(drops, &[]);
    case(
        |seen| {
            drops(seen);
            seen.through_clat = Some(vec![hop(1, "192.0.0.2", Says::TimeExceeded)]);
        },
        &[
            (
                Check::Filter,
                "ip6 filter forward (hook forward, policy drop) would drop",
            ),
            (Check::Ipv4, "the translator answers, so packets are lost behind it"),
        ],
    );
    case(
        |seen| {
            seen.firewall.as_mut().unwrap().ip6tables = Ip6tablesChain::Drops;
            seen.through_clat = Some(Vec::new());
        },
        &[
            (Check::Filter, "the ip6tables chain FORWARD"),
            (Check::Ipv4, "packets stop in this host"),
        ],
    );
    let own = NftChain {
        family: "ip".into(),
        hook: "output".into(),
        ..chain.clone()
    };
    // Nor is this one.
    case(|seen| seen.own_filters = vec![own.clone()], &[]);
    case(
        |seen| {
            seen.own_filters = vec![own.clone()];
            seen.through_clat = Some(Vec::new());
        },
        &[(
            Check::Ipv4,
            "the nft chain ip filter forward (hook output, policy drop) may drop IPv4 of this host: let it pass to and from clat",
        )],
    );
    case(
        |seen| {
            seen.through_clat = Some(Vec::new());
            seen.sysctls.insert("net/ipv4/conf/all/rp_filter".into(), "1".into());
        },
        &[(Check::Ipv4, "net/ipv4/conf/all/rp_filter=1")],
    );
}

#[test]
fn ipv4_routes() {
    let stray = |seen: &mut Examined, metric, answers| {
        seen.links.push(link(4, "eth9"));
        seen.native4 = vec![(route("0.0.0.0/0", "10.0.0.1", "eth9", metric), answers)];
        seen.route4.as_mut().unwrap().device = "eth9".into();
    };
    case(
        |seen| stray(seen, 50, Some(true)),
        &[(
            Check::Route,
            "the default route \"default via 10.0.0.1 dev eth9 metric 50\" wins, because its metric 50 is lower than 2048",
        )],
    );
    case(
        |seen| {
            stray(seen, 50, Some(true));
            seen.native4.clear();
        },
        &[(
            Check::Route,
            "comes before the CLAT's default route -> look for it with ip -4 rule",
        )],
    );
    case(|seen| seen.route4 = None, &[(Check::Route, "no route for IPv4")]);
    // Native IPv4 lets the instance rest, unless it leads nowhere.
    let rests = |seen: &mut Examined, answers| {
        stray(seen, 50, answers);
        let running = seen.running.as_mut().unwrap();
        (running.state, running.reason) = ("idle".into(), "this system already has IPv4 connectivity".into());
        seen.through_clat = None;
    };
    case(|seen| rests(seen, Some(true)), &[]);
    case(|seen| rests(seen, None), &[]);
    case(
        |seen| rests(seen, Some(false)),
        &[(Check::Route, "leads to a router that does not answer")],
    );
    // Another CLAT that is preferred is as good.
    case(
        |seen| {
            let mut other = link(5, "clat-up1");
            other.alias = Some("clatd:up1".into());
            seen.links.push(other);
            seen.route4.as_mut().unwrap().device = "clat-up1".into();
        },
        &[],
    );
}

#[test]
fn a_black_hole_matters_where_packets_are_larger() {
    let hole = |fits| {
        move |seen: &mut Examined| {
            let large = seen.large.as_mut().unwrap();
            (large.answered, large.fits) = (false, fits);
        }
    };
    case(hole(Some(1280)), &[]);
    case(hole(None), &[]);
    let mut seen = working();
    hole(Some(1400))(&mut seen);
    let mut instance = instance();
    instance.settings.ipv4.v4_defaultroute_mtu = RouteMtu::Auto;
    let found = wrong(&judge(&instance, &seen));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].1.contains("packets of 1500 bytes are lost"), "{found:#?}");
    assert!(found[0].1.contains("v4-defaultroute-mtu=1380"), "{found:#?}");
}

/// Packet filters are examined, whether or not a CLAT runs.
#[tokio::test]
async fn packet_filters_are_examined() {
    let world = crate::fixed_world::FixedWorld {
        ip6tables: Some("*filter\n:FORWARD DROP [0:0]\nCOMMIT\n".into()),
        ..Default::default()
    };
    let seen = super::examine(&instance(), None, &world).await;
    let found = seen.firewall.expect("what is in the way of packets");
    assert_eq!(found.ip6tables, Ip6tablesChain::Drops);
}
