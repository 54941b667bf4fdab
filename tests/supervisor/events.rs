//! What can happen around an instance, in words: the language of the recorded cases and of the random ones.

use clatd_stages::fixed_world::FixedWorld;
use clatd_stages::net::{Address6, Link, MAIN_TABLE, Route};
use clatd_stages::world::{DnsAnswer, RouteAnswer};

use crate::support::cases;

/// The world of the cases: `wan0` as ever, and `wan1` behind it in the order of the default routes.
pub fn two_uplinks() -> FixedWorld {
    let mut world = cases::world();
    happens(&mut world, "wan1 appears");
    world.sysctls.extend(sysctls_of("wan1"));
    happens(&mut world, "default routes wan0 wan1");
    world
}

/// Changes the world as the words say; panics where it does not know them.
///
/// ```text
/// DEV appears | DEV vanishes             a device with an address and a route by fe80::1
/// DEV down | DEV up
/// carrier DEV lost | carrier DEV back
/// address DEV ADDRESS...                 its addresses from now on; `old:ADDRESS` is deprecated, `new:ADDRESS` tentative
/// gateway DEV ADDRESS                    the next hop of its default route
/// way by DEV | no way                    the only route to the PLAT
/// way too by DEV                         the better one; the others stay
/// default routes DEV...                  IPv6 default routes of the main table, best first
/// native DEV | native gone               an IPv4 default route
/// prefix PREFIX ttl SECONDS              what the DNS64 synthesises with, a /96
/// no dns64 | dns fails
/// unreadable WHAT | readable             reads that fail
/// ```
pub fn happens(world: &mut FixedWorld, event: &str) {
    let words: Vec<&str> = event.split_whitespace().collect();
    match words.as_slice() {
        [device, "appears"] => appears(world, device),
        [device, "vanishes"] => vanishes(world, device),
        [device, "down"] => link(world, device, |link| link.up = false),
        [device, "up"] => link(world, device, |link| link.up = true),
        ["carrier", device, "lost"] => link(world, device, |link| link.carrier = false),
        ["carrier", device, "back"] => link(world, device, |link| link.carrier = true),
        ["address", device, addresses @ ..] => {
            let addresses = addresses.iter().map(|text| address(text)).collect();
            world.addresses6.insert((*device).to_owned(), addresses);
        }
        ["gateway", device, gateway] => {
            for route in world.route_to.values_mut().filter(|route| route.device == *device) {
                route.gateway = Some(gateway.parse().unwrap());
            }
        }
        ["way", "too", "by", device] => way(world, "", device),
        ["way", "by", device] => {
            world.route_to.clear();
            way(world, "", device);
            way(world, device, device);
        }
        ["no", "way"] => world.route_to.clear(),
        ["default", "routes", devices @ ..] => {
            let default = |(metric, device): (u32, &&str)| Route {
                metric,
                gateway: Some("fe80::1".parse().unwrap()),
                protocol: 9,
                ..Route::ours("::/0".parse().unwrap(), device)
            };
            let routes = (1024..).zip(devices).map(default).collect();
            world.routes6.insert(MAIN_TABLE, routes);
        }
        ["native", "gone"] => _ = world.routes4.remove(&MAIN_TABLE),
        ["native", device] => {
            let route = cases::native("192.0.2.1", device, 100);
            world.routes4.insert(MAIN_TABLE, vec![route]);
        }
        ["prefix", prefix, "ttl", seconds] => {
            let base = prefix.strip_suffix("::/96").expect("a /96 that ends in ::");
            let addresses = vec![format!("{base}::c000:aa").parse().unwrap()];
            let ttl_s = seconds.parse().unwrap();
            world
                .dns
                .insert(String::new(), DnsAnswer::Addresses { addresses, ttl_s });
        }
        ["no", "dns64"] => {
            let answer = DnsAnswer::NoRecords {
                nxdomain: false,
                ttl_s: Some(60),
            };
            world.dns.insert(String::new(), answer);
        }
        ["dns", "fails"] => _ = world.dns.remove(""),
        ["unreadable", what] => {
            let known = ["links", "addresses6", "routes4", "route_to", "aaaa", "undone"];
            let what = known.into_iter().find(|known| known == what).expect("a read");
            world.broken.insert(what);
        }
        ["readable"] => world.broken.clear(),
        _ => panic!("no such event: {event}"),
    }
}

fn link(world: &mut FixedWorld, device: &str, change: impl FnOnce(&mut Link)) {
    if let Some(link) = world.links.iter_mut().find(|link| link.name == device) {
        change(link);
    }
}

fn appears(world: &mut FixedWorld, device: &str) {
    let number: u32 = device.trim_start_matches(char::is_alphabetic).parse().unwrap();
    if world.links.iter().any(|link| link.name == device) {
        return;
    }
    world.links.push(cases::link(number + 2, device, 1500));
    let own = format!("2001:db8:{}::211:22ff:fe33:4455", number + 1);
    world
        .addresses6
        .insert(device.to_owned(), vec![cases::address(&own, 64)]);
    way(world, device, device);
}

fn vanishes(world: &mut FixedWorld, device: &str) {
    world.links.retain(|link| link.name != device);
    world.addresses6.remove(device);
    world.route_to.retain(|_, route| route.device != device);
    for routes in world.routes4.values_mut().chain(world.routes6.values_mut()) {
        routes.retain(|route| route.device.as_deref() != Some(device));
    }
}

fn way(world: &mut FixedWorld, asked: &str, device: &str) {
    let answer = RouteAnswer {
        device: device.to_owned(),
        gateway: Some("fe80::1".parse().unwrap()),
        source: None,
    };
    world.route_to.insert(asked.to_owned(), answer);
}

fn address(text: &str) -> Address6 {
    let (kind, address) = text
        .split_once("old:")
        .map(|(_, rest)| ("old", rest))
        .unwrap_or_else(|| text.split_once("new:").map_or(("", text), |(_, rest)| ("new", rest)));
    Address6 {
        deprecated: kind == "old",
        tentative: kind == "new",
        ..cases::address(address, 64)
    }
}

/// The sysctls that an uplink has, as the kernel makes them with the device.
pub fn sysctls_of(device: &str) -> Vec<(String, String)> {
    let conf = [
        ("accept_ra", "1"),
        ("forwarding", "0"),
        ("force_forwarding", "0"),
        ("proxy_ndp", "0"),
    ];
    conf.iter()
        .map(|(key, value)| (format!("net/ipv6/conf/{device}/{key}"), (*value).to_owned()))
        .chain([(format!("net/ipv6/neigh/{device}/proxy_delay"), "80".to_owned())])
        .collect()
}
