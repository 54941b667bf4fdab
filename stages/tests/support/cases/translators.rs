//! Who translates, and how.

use clatd_stages::fast_path::Attachment;
use clatd_stages::fixed_world::FixedWorld;
use serde_json::json;

use super::{Case, case, chain, link, with_fast_path, with_nft, with_source, world};

/// All of them.
pub fn all() -> Vec<Case> {
    [userspace(), tayga(), fast_path(), scripts()]
        .into_iter()
        .flatten()
        .collect()
}

fn userspace() -> Vec<Case> {
    vec![
        case("default", &[], with_fast_path(Attachment::Tcx)),
        case("no-fast-path", &[], world()),
        case(
            "no-fast-path-wanted",
            &[("translator", json!("userspace"))],
            with_fast_path(Attachment::Tcx),
        ),
        case(
            "siit-dc-edge-relay",
            &[
                ("clat-v4-addr", json!("198.51.100.7")),
                ("clat-v6-addr", json!("2001:db8:1::7")),
                ("plat-prefix", json!("2001:db8:64::/96")),
                ("v4-conncheck-enable", json!(false)),
                ("v4-defaultroute-mtu", json!("1480")),
                (
                    "map",
                    json!(["198.51.100.8/32 2001:db8:1::8/128", "203.0.113.0/28 2001:db8:1:f::/124"]),
                ),
                ("proxynd-enable", json!(false)),
            ],
            world(),
        ),
        case(
            "translator-settings",
            &[
                ("translator", json!("userspace")),
                ("translator-queues", json!(4)),
                ("udp-zero-checksum", json!("pass")),
                ("traffic-class", json!("0")),
                ("tos", json!("184")),
                ("icmp-error-rate", json!("0")),
                ("wkp-strict", json!(true)),
                ("unmapped-source", json!("prefix")),
                ("lowest-ipv6-mtu", json!(1400)),
            ],
            world(),
        ),
        case("jumbo-uplink", &[], {
            let mut world = world();
            world.links = vec![link(2, "wan0", 9000)];
            world.sysctls.insert("net/ipv6/conf/wan0/mtu".into(), "9000".into());
            world
        }),
    ]
}

fn tayga() -> Vec<Case> {
    vec![
        case("tayga", &[("translator", json!("tayga"))], world()),
        case(
            "tayga-debug",
            &[
                ("translator", json!("tayga")),
                ("debug", json!(1)),
                ("cmd-tayga", json!("tayga")),
            ],
            world(),
        ),
        case(
            "tayga-conffile",
            &[
                ("translator", json!("tayga")),
                ("tayga-conffile", json!("/etc/tayga.conf")),
                ("tayga-v4-addr", json!("192.0.0.6")),
            ],
            world(),
        ),
        case(
            "tayga-translator-v6-addr",
            &[
                ("translator", json!("tayga")),
                ("translator-v6-addr", json!("2001:db8:1::6464")),
                ("map", json!(["198.51.100.0/28 2001:db8:2::/124"])),
            ],
            world(),
        ),
    ]
}

fn fast_path() -> Vec<Case> {
    vec![
        case(
            "ebpf",
            &[("translator", json!("ebpf"))],
            with_fast_path(Attachment::Tcx),
        ),
        case(
            "ebpf-clsact",
            &[("translator", json!("ebpf"))],
            with_fast_path(Attachment::Clsact),
        ),
        case("auto-would-bypass", &[], bypassing()),
        case("ebpf-bypasses", &[("translator", json!("ebpf"))], bypassing()),
        case("ebpf-does-not-load", &[("translator", json!("ebpf"))], world()),
        case(
            "ebpf-shared",
            &[("translator", json!("ebpf")), ("clat-v6-addr", json!("shared"))],
            with_source(with_fast_path(Attachment::Tcx)),
        ),
        case(
            "ebpf-shared-by-addresses-alone",
            &[("clat-v6-addr", json!("shared")), ("ctmark", json!(0))],
            with_source(with_fast_path(Attachment::Tcx)),
        ),
        case(
            "ebpf-with-firewall-and-maps",
            &[
                ("translator", json!("ebpf")),
                (
                    "map",
                    json!(["198.51.100.8 2001:db8:46::8", "198.51.100.16 2001:db8:1::16"]),
                ),
            ],
            FixedWorld {
                nft: with_nft(vec![chain("inet", "filter", "forward", "forward", "drop")]).nft,
                ..with_fast_path(Attachment::Tcx)
            },
        ),
        case(
            "ebpf-address-routed-here",
            &[
                ("translator", json!("ebpf")),
                ("clat-v6-addr", json!("2001:db8:46::464")),
            ],
            with_fast_path(Attachment::Tcx),
        ),
        case(
            "ebpf-nd-proxy",
            &[("translator", json!("ebpf")), ("nd", json!("proxy"))],
            with_fast_path(Attachment::Tcx),
        ),
    ]
}

fn scripts() -> Vec<Case> {
    vec![
        case("script-up", &[("script-up", json!("echo up"))], world()),
        case("script-down", &[("script-down", json!("echo down"))], world()),
        case(
            "scripts-tayga",
            &[
                ("script-up", json!("up")),
                ("script-down", json!("down")),
                ("translator", json!("tayga")),
            ],
            world(),
        ),
    ]
}

/// Somebody encrypts what goes to the PLAT.
fn bypassing() -> FixedWorld {
    let policy = "the IPsec policy for packets from ::/0 to 64:ff9b::/96";
    FixedWorld {
        bypassed: [("wan0".to_owned(), policy.to_owned())].into(),
        ..with_fast_path(Attachment::Tcx)
    }
}
