//! Routes and their MTU.

use serde_json::json;

use super::{Case, case, native, with_routes, world};

/// All of them.
pub fn all() -> Vec<Case> {
    [default_routes(), mtu()].into_iter().flatten().collect()
}

fn default_routes() -> Vec<Case> {
    let replaced = || vec![native("192.0.2.1", "wan0", 100), native("192.0.2.2", "wan0", 200)];
    vec![
        case("no-defaultroute", &[("v4-defaultroute-enable", json!(false))], world()),
        case(
            "defaultroute-bare",
            &[
                ("v4-defaultroute-metric", json!(0)),
                ("v4-defaultroute-mtu", json!("0")),
            ],
            world(),
        ),
        case(
            "defaultroute-advmss",
            &[
                ("v4-defaultroute-mtu", json!("1480")),
                ("v4-defaultroute-advmss", json!(1400)),
            ],
            world(),
        ),
        case(
            "replace",
            &[("v4-defaultroute-replace", json!(true))],
            with_routes(replaced()),
        ),
        case(
            "replace-nothing-there",
            &[("v4-defaultroute-replace", json!(true))],
            world(),
        ),
        case(
            "replace-tayga",
            &[("v4-defaultroute-replace", json!(true)), ("translator", json!("tayga"))],
            with_routes(replaced()),
        ),
        case(
            "replace-without-defaultroute",
            &[
                ("v4-defaultroute-replace", json!(true)),
                ("v4-defaultroute-enable", json!(false)),
            ],
            with_routes(replaced()),
        ),
    ]
}

fn mtu() -> Vec<Case> {
    vec![
        case("mtu-auto", &[("v4-defaultroute-mtu", json!("auto"))], world()),
        case(
            "mtu-auto-with-fragments-uncut",
            &[("v4-defaultroute-mtu", json!("auto")), ("lowest-ipv6-mtu", json!(1500))],
            world(),
        ),
        case(
            "mtu-auto-lowered-by-a-router",
            &[("v4-defaultroute-mtu", json!("auto"))],
            {
                let mut world = world();
                world.sysctls.insert("net/ipv6/conf/wan0/mtu".into(), "1400".into());
                world
            },
        ),
    ]
}
