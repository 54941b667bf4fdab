//! Sysctls, and how neighbours are answered.

use serde_json::json;

use super::{Case, advertised_once, case, conf, old_kernel, with_other_uplinks, with_source, world};

/// All of them.
pub fn all() -> Vec<Case> {
    let mut forwarding_on = world();
    forwarding_on.sysctls.extend(conf(
        "wan0",
        &[("all/forwarding", "1"), ("UP/forwarding", "1"), ("UP/accept_ra", "2")],
    ));
    let mut networkd = world();
    networkd.sysctls.extend(conf("wan0", &[("UP/accept_ra", "0")]));
    let mut uplink_off = world();
    uplink_off.sysctls.extend(conf("wan0", &[("all/forwarding", "1")]));
    vec![
        case("old-kernel", &[], old_kernel()),
        case(
            "old-kernel-no-proxynd",
            &[("proxynd-enable", json!(false))],
            old_kernel(),
        ),
        case("no-proxynd", &[("proxynd-enable", json!(false))], world()),
        case("no-forwarding", &[("forwarding-enable", json!(false))], world()),
        case(
            "no-forwarding-no-proxynd",
            &[("forwarding-enable", json!(false)), ("proxynd-enable", json!(false))],
            world(),
        ),
        case(
            "no-forwarding-of-proxied",
            &[("forwarding-enable", json!(false)), ("nd", json!("proxy"))],
            world(),
        ),
        case(
            "no-forwarding-address-routed-here",
            &[
                ("forwarding-enable", json!(false)),
                ("clat-v6-addr", json!("2001:db8:9::464")),
            ],
            world(),
        ),
        case("nd-anycast", &[("nd", json!("anycast"))], world()),
        case("nd-none", &[("nd", json!("none"))], world()),
        case(
            "nd-anycast-shared",
            &[("nd", json!("anycast")), ("clat-v6-addr", json!("shared"))],
            with_source(world()),
        ),
        case(
            "advertised-route-that-forwarding-would-take",
            &[],
            advertised_once(world()),
        ),
        case(
            "advertised-route-that-forwarding-takes-on-old-kernels",
            &[],
            advertised_once(old_kernel()),
        ),
        case("other-uplinks-with-advertised-routes", &[], with_other_uplinks(world())),
        case(
            "other-uplinks-with-advertised-routes-on-old-kernels",
            &[],
            with_other_uplinks(old_kernel()),
        ),
        case("forwarding-on-already", &[], forwarding_on),
        case("advertisements-in-user-space", &[], networkd),
        case("forwarding-on-but-not-on-the-uplink", &[], uplink_off),
    ]
}
