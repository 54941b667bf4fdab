//! The cases: every corner of configuration x facts that changes a plan.

use std::collections::BTreeMap;

use clatd_stages::facts::{Fact, Source};
use clatd_stages::fast_path::{Attachment, LinkHeader, Way};
use clatd_stages::fixed_world::FixedWorld;
use clatd_stages::net::{Address6, Link, MAIN_TABLE, Route};
use clatd_stages::settings::Settings;
use clatd_stages::stage::Instance;
use clatd_stages::world::{DnsAnswer, RouteAnswer};
use serde_json::{Value, json};

/// One case.
pub struct Case {
    /// Its name, which is the snapshot's.
    pub name: &'static str,
    /// The settings.
    pub settings: Settings,
    /// The world.
    pub world: FixedWorld,
}

impl Case {
    /// The instance under test.
    pub fn instance(&self) -> Instance {
        Instance {
            name: "clat".into(),
            settings: self.settings.clone(),
            runtime_dir: "/run/clatd".into(),
            ordinal: 0,
            seed: 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef,
        }
    }
}

/// A device.
pub fn link(index: u32, name: &str, mtu: u32) -> Link {
    Link {
        index,
        name: name.into(),
        mtu,
        up: true,
        carrier: true,
        alias: None,
        master: None,
        vrf_table: None,
    }
}

/// An address that can serve.
pub fn address(text: &str, prefix_len: u8) -> Address6 {
    Address6 {
        address: text.parse().unwrap(),
        prefix_len,
        global: true,
        tentative: false,
        deprecated: false,
        temporary: false,
        valid_s: None,
    }
}

/// An IPv4 default route of somebody else's.
pub fn native(gateway: &str, device: &str, metric: u32) -> Route {
    Route {
        gateway: Some(gateway.parse().unwrap()),
        metric,
        protocol: 16,
        raw: Some(format!("02000000fe10000{metric}")),
        ..Route::ours("0.0.0.0/0".parse().unwrap(), device)
    }
}

fn conf(uplink: &str, pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| {
            let key = format!("net/ipv6/conf/{}", key.replace("UP", uplink)).replace("conf/../", "");
            (key, (*value).to_owned())
        })
        .collect()
}

/// Linux 6.17 or later, IPv6-only uplink with SLAAC, DNS64 with the well-known prefix, no firewall.
pub fn world() -> FixedWorld {
    FixedWorld {
        links: vec![link(1, "lo", 65536), link(2, "wan0", 1500)],
        addresses6: [("wan0".to_owned(), vec![address("2001:db8:1::211:22ff:fe33:4455", 64)])].into(),
        route_to: ["", "wan0"]
            .map(|device| {
                let gateway = Some("fe80::1".parse().unwrap());
                (
                    device.to_owned(),
                    RouteAnswer {
                        device: "wan0".into(),
                        gateway,
                        source: None,
                    },
                )
            })
            .into(),
        sysctls: conf(
            "wan0",
            &[
                ("all/forwarding", "0"),
                ("default/accept_ra", "1"),
                ("default/forwarding", "0"),
                ("lo/accept_ra", "1"),
                ("lo/forwarding", "0"),
                ("UP/accept_ra", "1"),
                ("UP/forwarding", "0"),
                ("UP/force_forwarding", "0"),
                ("UP/proxy_ndp", "0"),
                ("../neigh/UP/proxy_delay", "80"),
            ],
        ),
        nft: Some(json!({"nftables": [{"metainfo": {"version": "1.0.6"}}]})),
        dns: [(String::new(), dns64("64:ff9b::c000:aa", "64:ff9b::c000:ab"))].into(),
        programs: ["tayga", "nft", "ip6tables"].map(String::from).into(),
        ..FixedWorld::default()
    }
}

fn dns64(a: &str, b: &str) -> DnsAnswer {
    DnsAnswer::Addresses {
        addresses: vec![a.parse().unwrap(), b.parse().unwrap()],
        ttl_s: 3600,
    }
}

fn records<T>(record: T) -> DnsAnswer<T> {
    DnsAnswer::Addresses {
        addresses: vec![record],
        ttl_s: 60,
    }
}

/// The operator calls these addresses nat64.example, which has a server to check with.
fn with_check_servers(addresses: &[&str]) -> FixedWorld {
    let named = |address: &&str| (address.parse().unwrap(), records("nat64.example.".to_owned()));
    FixedWorld {
        names: addresses.iter().map(named).collect(),
        ipv4_of: [("nat64.example.".to_owned(), records([198, 51, 100, 1].into()))].into(),
        ..with_default_route()
    }
}

/// The programs of the fast path load.
fn with_fast_path(attachment: Attachment) -> FixedWorld {
    let way = Way {
        attachment,
        header: LinkHeader::Ethernet,
    };
    FixedWorld {
        fast_path: [("wan0".to_owned(), way)].into(),
        ..world()
    }
}

/// Linux before 6.17: no force_forwarding; a second device forwards already.
fn old_kernel() -> FixedWorld {
    let mut world = world();
    world.links.push(link(3, "br0", 1500));
    world.sysctls.remove("net/ipv6/conf/wan0/force_forwarding");
    world
        .sysctls
        .extend(conf("", &[("br0/accept_ra", "1"), ("br0/forwarding", "1")]));
    world
}

fn chain(family: &str, table: &str, name: &str, hook: &str, policy: &str) -> Value {
    json!({"chain": {"family": family, "table": table, "name": name, "handle": 1, "type": "filter", "hook": hook, "prio": 0, "policy": policy}})
}

fn rule(family: &str, table: &str, chain: &str, expr: Value) -> Value {
    json!({"rule": {"family": family, "table": table, "chain": chain, "handle": 2, "expr": expr}})
}

fn with_nft(objects: Vec<Value>) -> FixedWorld {
    FixedWorld {
        nft: Some(json!({ "nftables": objects })),
        ..world()
    }
}

fn with_routes(routes: Vec<Route>) -> FixedWorld {
    FixedWorld {
        routes4: [(MAIN_TABLE, routes)].into(),
        ..world()
    }
}

fn with_addresses(addresses: Vec<Address6>) -> FixedWorld {
    FixedWorld {
        addresses6: [("wan0".to_owned(), addresses)].into(),
        ..world()
    }
}

fn advertised(prefixes: &[&str]) -> Vec<Fact<clatd_translator::Pref64>> {
    let source = || Source::RouterAdvertisement("fe80::1".parse().unwrap());
    prefixes
        .iter()
        .map(|prefix| Fact::lasting(prefix.parse().unwrap(), source(), 1800))
        .collect()
}

fn with_default_route() -> FixedWorld {
    FixedWorld {
        routes6: [(MAIN_TABLE, vec![Route::ours("::/0".parse().unwrap(), "wan0")])].into(),
        ..world()
    }
}

/// The default route is of a router advertisement, but no more of them are accepted.
fn advertised_once(mut world: FixedWorld) -> FixedWorld {
    let route = Route {
        protocol: 9,
        ..Route::ours("::/0".parse().unwrap(), "wan0")
    };
    world.routes6.insert(MAIN_TABLE, vec![route]);
    world.sysctls.insert("net/ipv6/conf/wan0/accept_ra".into(), "0".into());
    world
}

/// Routers advertise themselves on two other devices; on a third one their advertisements are taken in, too.
fn with_other_uplinks(mut world: FixedWorld) -> FixedWorld {
    let mut routes = Vec::new();
    for (index, name) in [(11, "wan1"), (12, "wan2"), (13, "lan0")] {
        world.links.push(link(index, name, 1500));
        let takes_in = [("UP/accept_ra", "1"), ("UP/forwarding", "0")];
        world.sysctls.extend(conf(name, &takes_in));
        if name != "lan0" {
            routes.push(Route {
                protocol: 9,
                ..Route::ours("::/0".parse().unwrap(), name)
            });
        }
    }
    world.routes6.insert(MAIN_TABLE, routes);
    world
}

fn with_source(mut world: FixedWorld) -> FixedWorld {
    for route in world.route_to.values_mut() {
        route.source = Some("2001:db8:1::5".parse().unwrap());
    }
    world
}

fn with_dns(servers: &[(&str, DnsAnswer)]) -> FixedWorld {
    FixedWorld {
        dns: servers
            .iter()
            .map(|(server, answer)| ((*server).to_owned(), answer.clone()))
            .collect(),
        ..world()
    }
}

/// Settings by key, as the configuration would give them.
pub fn settings(pairs: &[(&str, Value)]) -> Settings {
    let mut all = serde_json::to_value(Settings::default()).unwrap();
    for (key, value) in pairs {
        assert!(all.get(*key).is_some(), "no such key: {key}");
        all[*key] = value.clone();
    }
    serde_json::from_value(all).unwrap()
}

fn case(name: &'static str, pairs: &[(&str, Value)], world: FixedWorld) -> Case {
    Case {
        name,
        settings: settings(pairs),
        world,
    }
}

/// All cases.
pub fn all() -> Vec<Case> {
    let mut cases = translators_and_routes();
    cases.extend(firewalls());
    cases.extend(sysctls());
    cases.extend(discovery_and_addresses());
    cases.extend(idle());
    cases
}

fn translators_and_routes() -> Vec<Case> {
    let replaced = || vec![native("192.0.2.1", "wan0", 100), native("192.0.2.2", "wan0", 200)];
    vec![
        case("default", &[], with_fast_path(Attachment::Tcx)),
        case("no-fast-path", &[], world()),
        case(
            "no-fast-path-wanted",
            &[("translator", json!("userspace"))],
            with_fast_path(Attachment::Tcx),
        ),
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
        case(
            "jumbo-uplink",
            &[],
            FixedWorld {
                links: vec![link(2, "wan0", 9000)],
                ..world()
            },
        ),
    ]
}

fn firewalls() -> Vec<Case> {
    let jumping = || {
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
    };
    let dropping_ip6tables = || FixedWorld {
        ip6tables: Some("*filter\n:FORWARD DROP [0:0]\nCOMMIT\n".into()),
        ..world()
    };
    let compat = || FixedWorld {
        nft: Some(json!({"nftables": [chain("ip6", "filter", "FORWARD", "forward", "drop")]})),
        ..dropping_ip6tables()
    };
    let rpfilter = || {
        with_nft(vec![
            chain("inet", "fw", "rpf", "prerouting", "accept"),
            rule(
                "inet",
                "fw",
                "rpf",
                json!([{"match": {"op": "==", "left": {"fib": {"result": "oif", "flags": ["saddr", "iif"]}}, "right": false}}, {"drop": null}]),
            ),
        ])
    };
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
        case("nft-reverse-path-filter", &[], rpfilter()),
        case(
            "nft-reverse-path-filter-with-maps",
            &[("map", json!(["203.0.113.0/28 2001:db8:1:f::/124"]))],
            rpfilter(),
        ),
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
            "tayga-nft-policy-drop",
            &[("translator", json!("tayga"))],
            with_nft(vec![chain("inet", "filter", "forward", "forward", "drop")]),
        ),
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

fn sysctls() -> Vec<Case> {
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

fn discovery_and_addresses() -> Vec<Case> {
    let servers = |list: &[&str]| ("dns64-servers", json!(list));
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
            with_source(with_nft(vec![
                chain("inet", "fw", "rpf", "prerouting", "accept"),
                rule(
                    "inet",
                    "fw",
                    "rpf",
                    json!([{"match": {"op": "==", "left": {"fib": {"result": "oif", "flags": ["saddr", "iif"]}}, "right": false}}, {"drop": null}]),
                ),
            ])),
        ),
        case(
            "shared-without-nft",
            &[("clat-v6-addr", json!("shared"))],
            FixedWorld {
                programs: Default::default(),
                ..with_source(world())
            },
        ),
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
        case("pd-without-lease", &[("clat-v6-addr", json!("pd"))], world()),
        case(
            "device-of-another",
            &[],
            FixedWorld {
                links: vec![link(2, "wan0", 1500), link(9, "clat", 1500)],
                ..world()
            },
        ),
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
        case("ebpf-does-not-load", &[("translator", json!("ebpf"))], world()),
        case(
            "ebpf-shared",
            &[("translator", json!("ebpf")), ("clat-v6-addr", json!("shared"))],
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

fn idle() -> Vec<Case> {
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
