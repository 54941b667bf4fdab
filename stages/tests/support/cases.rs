//! The cases: every corner of configuration x facts that changes a plan.

#[path = "cases/addresses.rs"]
mod addresses;
#[path = "cases/discovery.rs"]
mod discovery;
#[path = "cases/firewalls.rs"]
mod firewalls;
#[path = "cases/idle.rs"]
mod idle;
#[path = "cases/routes.rs"]
mod routes;
#[path = "cases/sysctls.rs"]
mod sysctls;
#[path = "cases/translators.rs"]
mod translators;

use std::collections::BTreeMap;

use clatd_stages::facts::{Fact, Source};
use clatd_stages::fast_path::{Attachment, LinkHeader, Placement};
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
        raw: Some(format!("02000000fe10000{metric}").try_into().unwrap()),
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
                ("UP/mtu", "1500"),
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
pub fn with_fast_path(attachment: Attachment) -> FixedWorld {
    let placement = Placement {
        attachment,
        header: LinkHeader::Ethernet,
    };
    FixedWorld {
        fast_path: [("wan0".to_owned(), placement)].into(),
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
    let mut cases = Vec::new();
    cases.extend(translators::all());
    cases.extend(routes::all());
    cases.extend(firewalls::all());
    cases.extend(sysctls::all());
    cases.extend(discovery::all());
    cases.extend(addresses::all());
    cases.extend(idle::all());
    cases
}
