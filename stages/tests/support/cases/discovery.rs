//! Where the PLAT prefix comes from, and whether the PLAT translates.

use clatd_stages::fixed_world::FixedWorld;
use clatd_stages::world::DnsAnswer;
use serde_json::json;

use super::{Case, advertised, case, dns64, records, with_check_servers, with_default_route, with_dns, world};

/// All of them.
pub fn all() -> Vec<Case> {
    [prefixes(), checks()].into_iter().flatten().collect()
}

fn prefixes() -> Vec<Case> {
    let servers = |list: &[&str]| ("dns64-servers", json!(list));
    vec![
        case("plat-dev", &[("plat-dev", json!("wan0"))], world()),
        case("plat-prefix-32", &[("plat-prefix", json!("2001:db8::/32"))], world()),
        case(
            "plat-prefix-40",
            &[
                ("plat-prefix", json!("2001:db8:100::/40")),
                ("translator", json!("tayga")),
            ],
            world(),
        ),
        case(
            "second-dns64-server",
            &[servers(&["2001:db8::53", "2001:db8::54"])],
            with_dns(&[
                (
                    "2001:db8::53",
                    DnsAnswer::NoRecords {
                        nxdomain: false,
                        ttl_s: Some(60),
                    },
                ),
                ("2001:db8::54", dns64("2001:db8:1::c000:aa", "64:ff9b::c000:aa")),
            ]),
        ),
        case(
            "fallback-prefix",
            &[("plat-fallback-prefix", json!("64:ff9b::/96"))],
            with_dns(&[]),
        ),
        case(
            "prefixes-advertised",
            &[],
            FixedWorld {
                advertised: [("wan0".to_owned(), advertised(&["2001:db8:64::/96", "2001:db8:65::/96"]))].into(),
                ..with_default_route()
            },
        ),
        case(
            "prefix-by-dns-before-advertisements",
            &[("discovery", json!(["dns", "ra"]))],
            FixedWorld {
                advertised: [("wan0".to_owned(), advertised(&["2001:db8:64::/96"]))].into(),
                ..with_default_route()
            },
        ),
    ]
}

fn checks() -> Vec<Case> {
    vec![
        case(
            "first-plat-does-not-answer",
            &[("plat-check", json!("198.51.100.1"))],
            FixedWorld {
                advertised: [("wan0".to_owned(), advertised(&["2001:db8:64::/96", "2001:db8:65::/96"]))].into(),
                silent: ["2001:db8:64::198.51.100.1".parse().unwrap()].into(),
                ..with_default_route()
            },
        ),
        case(
            "no-plat-answers",
            &[("plat-check", json!("198.51.100.1:443"))],
            FixedWorld {
                silent: ["64:ff9b::198.51.100.1".parse().unwrap()].into(),
                ..world()
            },
        ),
        case(
            "published-check-server-does-not-answer",
            &[("plat-check", json!("yes"))],
            FixedWorld {
                advertised: [("wan0".to_owned(), advertised(&["2001:db8:64::/96", "2001:db8:65::/96"]))].into(),
                silent: ["2001:db8:64::198.51.100.1".parse().unwrap()].into(),
                ..with_check_servers(&["2001:db8:64::192.0.0.170", "2001:db8:65::192.0.0.171"])
            },
        ),
        // What a DNS64 makes of the reverse names of ipv4only.arpa (RFC 8880 section 7.2).
        case(
            "no-check-server-published",
            &[("plat-check", json!("yes"))],
            FixedWorld {
                names: [(
                    "64:ff9b::192.0.0.170".parse().unwrap(),
                    records("ipv4only.arpa.".into()),
                )]
                .into(),
                ipv4_of: [("ipv4only.arpa.".to_owned(), records([192, 0, 0, 170].into()))].into(),
                silent: ["64:ff9b::192.0.0.170".parse().unwrap()].into(),
                ..world()
            },
        ),
        case(
            "check-server-is-that-of-ipv4only-arpa",
            &[("plat-check", json!("yes"))],
            FixedWorld {
                ipv4_of: [("nat64.example.".to_owned(), records([192, 0, 0, 171].into()))].into(),
                ..with_check_servers(&["64:ff9b::192.0.0.170"])
            },
        ),
        case(
            "check-server-unknown-since-dns-fails",
            &[("plat-check", json!("yes"))],
            FixedWorld {
                names: [(
                    "64:ff9b::192.0.0.170".parse().unwrap(),
                    DnsAnswer::Failed("timed out".into()),
                )]
                .into(),
                ..world()
            },
        ),
    ]
}
