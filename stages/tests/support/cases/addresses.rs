//! The CLAT's address.

use clatd_stages::facts::{Fact, Source};
use clatd_stages::fixed_world::FixedWorld;
use clatd_stages::net::Address6;
use serde_json::json;

use super::firewalls::rpfilter;
use super::{Case, address, case, with_addresses, with_source, world};

/// All of them.
pub fn all() -> Vec<Case> {
    [own(), shared(), delegated()].into_iter().flatten().collect()
}

fn own() -> Vec<Case> {
    vec![
        case("address-given", &[("clat-v6-addr", json!("2001:db8:1::464"))], world()),
        case(
            "address-random",
            &[],
            with_addresses(vec![address("2001:db8:1::5", 64)]),
        ),
        case(
            "address-deprecated-only",
            &[],
            with_addresses(vec![Address6 {
                deprecated: true,
                ..address("2001:db8:1::5", 64)
            }]),
        ),
        case(
            "address-host-route-only",
            &[],
            with_addresses(vec![address("2001:db8:1::5", 128)]),
        ),
        case(
            "address-tentative",
            &[],
            with_addresses(vec![Address6 {
                tentative: true,
                ..address("2001:db8:1::5", 64)
            }]),
        ),
        case(
            "address-tentative-and-single",
            &[],
            with_addresses(vec![Address6 {
                tentative: true,
                ..address("2001:db8:1::5", 128)
            }]),
        ),
        case("address-none", &[], with_addresses(Vec::new())),
        case(
            "single-address",
            &[],
            with_source(with_addresses(vec![address("2001:db8:1::5", 128)])),
        ),
        case("stable", &[("clat-v6-addr", json!("stable"))], world()),
        case(
            "checksum-neutral",
            &[("clat-v6-addr", json!("checksum-neutral"))],
            world(),
        ),
        case(
            "checksum-neutral-impossible",
            &[
                ("clat-v6-addr", json!("checksum-neutral")),
                ("plat-prefix", json!("2001:db8:64::/64")),
            ],
            world(),
        ),
        case(
            "address-taken",
            &[],
            FixedWorld {
                duplicates: [(
                    "2001:db8:1::211:22c1:a733:4455".parse().unwrap(),
                    "02:00:5e:00:00:01".to_owned(),
                )]
                .into(),
                ..world()
            },
        ),
    ]
}

fn shared() -> Vec<Case> {
    vec![
        case("shared", &[("clat-v6-addr", json!("shared"))], with_source(world())),
        case("shared-without-source", &[("clat-v6-addr", json!("shared"))], world()),
        case("shared-while-only-link-local", &[("clat-v6-addr", json!("shared"))], {
            let mut world = world();
            for route in world.route_to.values_mut() {
                route.source = Some("fe80::5".parse().unwrap());
            }
            world
        }),
        case(
            "shared-by-addresses-alone",
            &[("clat-v6-addr", json!("shared")), ("ctmark", json!(0))],
            with_source(world()),
        ),
        case(
            "shared-behind-a-reverse-path-filter",
            &[("clat-v6-addr", json!("shared")), ("ctmark", json!(7))],
            with_source(rpfilter()),
        ),
        case(
            "shared-without-nft",
            &[("clat-v6-addr", json!("shared"))],
            FixedWorld {
                programs: Default::default(),
                ..with_source(world())
            },
        ),
    ]
}

fn delegated() -> Vec<Case> {
    vec![
        case(
            "pd",
            &[
                ("clat-v6-addr", json!("pd")),
                ("map", json!(["198.51.100.7/32 2001:db8:9::7/128"])),
            ],
            FixedWorld {
                delegated: [(
                    "wan0".to_owned(),
                    Fact::lasting(
                        "2001:db8:f00::/56".parse().unwrap(),
                        Source::Dhcp6("000300".into()),
                        3600,
                    ),
                )]
                .into(),
                ..world()
            },
        ),
        case("pd-without-lease", &[("clat-v6-addr", json!("pd"))], world()),
    ]
}
