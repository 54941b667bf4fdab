//! Packet filters.

use clatd_stages::fixed_world::FixedWorld;
use serde_json::json;

use super::{Case, case, chain, rule, with_nft, world};

/// All of them.
pub fn all() -> Vec<Case> {
    let mut cases = nftables();
    cases.extend(reverse_path_filters());
    cases.extend(ip6tables());
    cases.extend(without_programs());
    cases
}

fn nftables() -> Vec<Case> {
    vec![
        case(
            "nft-policy-drop",
            &[],
            with_nft(vec![chain("inet", "filter", "forward", "forward", "drop")]),
        ),
        case(
            "nft-ip6-and-inet",
            &[],
            with_nft(vec![
                chain("ip6", "a", "f", "forward", "drop"),
                chain("inet", "b", "f", "forward", "drop"),
            ]),
        ),
        case(
            "nft-ipv4-only-and-accepting",
            &[],
            with_nft(vec![
                chain("ip", "a", "f", "forward", "drop"),
                chain("inet", "b", "f", "forward", "accept"),
                chain("inet", "b", "in", "input", "drop"),
            ]),
        ),
        case("nft-jump-to-vmap-drop", &[], jumping()),
        case(
            "nft-named-map",
            &[],
            with_nft(vec![
                chain("inet", "fw", "fwd", "forward", "accept"),
                json!({"map": {"family": "inet", "table": "fw", "name": "m", "map": "verdict", "elem": [["wan0", {"reject": null}]]}}),
                rule(
                    "inet",
                    "fw",
                    "fwd",
                    json!([{"vmap": {"key": {"meta": {"key": "iifname"}}, "data": "@m"}}]),
                ),
            ]),
        ),
        case(
            "tayga-nft-policy-drop",
            &[("translator", json!("tayga"))],
            with_nft(vec![chain("inet", "filter", "forward", "forward", "drop")]),
        ),
    ]
}

fn reverse_path_filters() -> Vec<Case> {
    vec![
        case("nft-reverse-path-filter", &[], rpfilter()),
        case(
            "nft-reverse-path-filter-with-maps",
            &[("map", json!(["203.0.113.0/28 2001:db8:1:f::/124"]))],
            rpfilter(),
        ),
    ]
}

fn ip6tables() -> Vec<Case> {
    vec![
        case("ip6tables-drop", &[], compat()),
        case(
            "ip6tables-drop-but-disabled",
            &[("ip6tables-enable", json!(false))],
            compat(),
        ),
        case(
            "ip6tables-forced",
            &[("ip6tables-enable", json!(true)), ("cmd-ip6tables", json!("ip6tables"))],
            world(),
        ),
        case(
            "ip6tables-only",
            &[("firewall", json!("ip6tables"))],
            FixedWorld {
                ip6tables: dropping_ip6tables().ip6tables,
                ..jumping()
            },
        ),
        case("nftables-only", &[("firewall", json!("nftables"))], compat()),
    ]
}

/// Where there is no packet filter, or clatd may not use one.
fn without_programs() -> Vec<Case> {
    vec![
        case(
            "firewall-none",
            &[("firewall", json!("none"))],
            FixedWorld {
                ip6tables: dropping_ip6tables().ip6tables,
                ..jumping()
            },
        ),
        case("no-nft-program", &[], FixedWorld { nft: None, ..world() }),
        case(
            "ip6tables-program-missing",
            &[("ip6tables-enable", json!(true))],
            FixedWorld {
                programs: ["nft".to_owned()].into(),
                ..world()
            },
        ),
    ]
}

fn jumping() -> FixedWorld {
    with_nft(vec![
        chain("inet", "fw", "fwd", "forward", "accept"),
        rule("inet", "fw", "fwd", json!([{"jump": {"target": "zones"}}])),
        rule(
            "inet",
            "fw",
            "zones",
            json!([{"vmap": {"key": {"meta": {"key": "iifname"}}, "data": {"set": [["wan0", {"drop": null}]]}}}]),
        ),
    ])
}

fn dropping_ip6tables() -> FixedWorld {
    FixedWorld {
        ip6tables: Some("*filter\n:FORWARD DROP [0:0]\nCOMMIT\n".into()),
        ..world()
    }
}

/// ip6tables, which writes to nftables.
fn compat() -> FixedWorld {
    FixedWorld {
        nft: Some(json!({"nftables": [chain("ip6", "filter", "FORWARD", "forward", "drop")]})),
        ..dropping_ip6tables()
    }
}

pub(super) fn rpfilter() -> FixedWorld {
    with_nft(vec![
        chain("inet", "fw", "rpf", "prerouting", "accept"),
        rule(
            "inet",
            "fw",
            "rpf",
            json!([{"match": {"op": "==", "left": {"fib": {"result": "oif", "flags": ["saddr", "iif"]}}, "right": false}}, {"drop": null}]),
        ),
    ])
}
