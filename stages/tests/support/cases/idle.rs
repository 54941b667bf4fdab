//! Where there is nothing to do, or nothing can be done.

use clatd_stages::fixed_world::FixedWorld;
use clatd_stages::net::{Link, Route};
use clatd_stages::world::DnsAnswer;
use serde_json::json;

use super::{Case, case, dns64, link, native, with_dns, with_routes, world};

/// All of them.
pub fn all() -> Vec<Case> {
    [native_ipv4(), nothing_there(), refused()]
        .into_iter()
        .flatten()
        .collect()
}

fn native_ipv4() -> Vec<Case> {
    let ours = Route::ours("0.0.0.0/0".parse().unwrap(), "clat-b");
    let other_clat = Link {
        alias: Some("clatd:b".into()),
        ..link(7, "clat-b", 1500)
    };
    let uplink_scope = ("v4-conncheck-scope", json!("uplink"));
    vec![
        case("native-ipv4", &[], with_routes(vec![native("192.0.2.1", "eth0", 100)])),
        case(
            "native-ipv4-check-off",
            &[("v4-conncheck-enable", json!(false))],
            with_routes(vec![native("192.0.2.1", "eth0", 100)]),
        ),
        case(
            "native-ipv4-dead",
            &[],
            with_routes(vec![Route {
                dead: true,
                ..native("192.0.2.1", "eth0", 100)
            }]),
        ),
        case(
            "native-ipv4-on-another-device",
            std::slice::from_ref(&uplink_scope),
            with_routes(vec![native("192.0.2.1", "eth0", 100)]),
        ),
        case(
            "native-ipv4-on-the-uplink",
            &[uplink_scope],
            with_routes(vec![native("192.0.2.1", "wan0", 100)]),
        ),
        case(
            "another-clat-is-no-native-ipv4",
            &[],
            FixedWorld {
                links: vec![link(2, "wan0", 1500), other_clat],
                ..with_routes(vec![ours])
            },
        ),
    ]
}

fn nothing_there() -> Vec<Case> {
    vec![
        case(
            "no-dns64",
            &[],
            with_dns(&[(
                "",
                DnsAnswer::NoRecords {
                    nxdomain: true,
                    ttl_s: None,
                },
            )]),
        ),
        case("no-dns-answer", &[], with_dns(&[])),
        case(
            "answer-not-synthesised",
            &[],
            with_dns(&[("", dns64("2001:db8::1", "2001:db8::2"))]),
        ),
        case(
            "no-route-to-plat",
            &[],
            FixedWorld {
                route_to: Default::default(),
                ..world()
            },
        ),
        case(
            "uplink-without-carrier",
            &[],
            FixedWorld {
                links: vec![Link {
                    carrier: false,
                    ..link(2, "wan0", 1500)
                }],
                ..world()
            },
        ),
        case(
            "uplink-down",
            &[],
            FixedWorld {
                links: vec![Link {
                    up: false,
                    carrier: false,
                    ..link(2, "wan0", 1500)
                }],
                ..world()
            },
        ),
        case("no-such-uplink", &[("plat-dev", json!("wwan9"))], world()),
    ]
}

fn refused() -> Vec<Case> {
    vec![
        case(
            "device-of-another",
            &[],
            FixedWorld {
                links: vec![link(2, "wan0", 1500), link(9, "clat", 1500)],
                ..world()
            },
        ),
        case(
            "tayga-missing",
            &[("translator", json!("tayga"))],
            FixedWorld {
                programs: Default::default(),
                ..world()
            },
        ),
        case(
            "nft-unreadable",
            &[],
            FixedWorld {
                broken: ["nft_ruleset"].into(),
                ..world()
            },
        ),
        case(
            "links-unreadable",
            &[],
            FixedWorld {
                broken: ["links"].into(),
                ..world()
            },
        ),
    ]
}
