//! The mirror of the network is what the kernel has, whatever happened to it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use clatd_stages::net::Rule;
use clatd_stages::world::World;

use crate::support::{Bed, in_namespace, json, sh};

/// A small generator of numbers that a seed repeats (splitmix64).
struct Dice(u64);

impl Dice {
    fn of(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// One thing that may happen to a host; much of it fails, which is as good.
fn event(dice: &mut Dice) -> String {
    let device = ["up0", "isp0", "up1", "isp1"][dice.of(4) as usize];
    let (gateway, metric) = (dice.of(3) + 1, [0, 100, 1024][dice.of(3) as usize]);
    let verb = ["add", "append", "replace", "del", "add", "del"][dice.of(6) as usize];
    let default = format!("ip -6 route {verb} default via fe80::{gateway} dev {device} metric {metric}");
    let table = ["", "table 77"][dice.of(2) as usize];
    match dice.of(17) {
        0..=3 => format!("{default} {table}"),
        4 => format!("{default} proto ra expires 100"),
        5 => format!(
            "ip -6 route {verb} default metric {metric} nexthop via fe80::{gateway} dev up0 nexthop via fe80::9 dev {device}"
        ),
        6 => format!("ip -6 route del default {table}"),
        7 => format!("ip link set {device} down; ip link set {device} up"),
        8 => format!("ip link set {device} down"),
        9 => format!("ip link set {device} up"),
        10 => format!("ip -4 route {verb} default via 192.0.2.{gateway} dev {device} metric {metric} {table}"),
        11 => format!(
            "ip addr {} 192.0.2.{}/24 dev {device}",
            ["add", "del"][dice.of(2) as usize],
            gateway + 10
        ),
        12 => format!(
            "ip addr {} 2001:db8:{gateway}::7/64 dev {device} nodad",
            ["add", "del"][dice.of(2) as usize]
        ),
        13 => format!("ip -6 route {verb} unreachable default metric {metric} {table}"),
        14 => format!("ip -4 route {verb} blackhole default metric {metric} {table}"),
        15 => format!(
            "ip -6 route {verb} default from 2001:db8:{gateway}::/{} via fe80::1 dev {device} metric {metric} {table}",
            32 + 16 * dice.of(2)
        ),
        _ => format!(
            "ip link set {device} mtu {}; ip -6 rule {verb} priority {metric} from 2001:db8:{gateway}::/48",
            1400 + gateway
        ),
    }
}

fn routes_of_kernel(version: &str, table: u32) -> Vec<String> {
    let list = format!("ip -j {version} route show default table {table} 2>/dev/null");
    let listed = json(&format!("listed=$({list}) && echo \"$listed\" || echo '[]'"));
    let mut routes = Vec::new();
    // Of those that carry packets.
    for route in listed
        .as_array()
        .unwrap()
        .iter()
        .filter(|route| route["type"].is_null())
    {
        let first = route["nexthops"].get(0).unwrap_or(route);
        let word = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
        routes.push(format!(
            "{} {} {} {}",
            word(&first["gateway"]),
            word(&first["dev"]),
            route["metric"].as_u64().unwrap_or(0),
            word(&route["prefsrc"])
        ));
    }
    routes
}

async fn routes_of_mirror(bed: &Bed, v6: bool, table: u32) -> Vec<String> {
    let routes = match v6 {
        true => bed.world.routes6(table).await.unwrap().to_vec(),
        false => bed.world.routes4(table).await.unwrap(),
    };
    let text = |address: Option<IpAddr>| address.map_or("-".to_owned(), |address| address.to_string());
    let words = routes.iter().map(|route| {
        let device = route.device.as_deref().unwrap_or("-");
        format!(
            "{} {device} {} {}",
            text(route.gateway),
            route.metric,
            text(route.source)
        )
    });
    words.collect()
}

async fn assert_same_routes(bed: &Bed, context: &str) {
    for (v6, version) in [(true, "-6"), (false, "-4")] {
        for table in [254, 77] {
            let mirrored = routes_of_mirror(bed, v6, table).await;
            let kernel = routes_of_kernel(version, table);
            assert_eq!(mirrored, kernel, "IP{version} table {table}, {context}");
        }
    }
}

fn rules_of_kernel() -> Vec<String> {
    let listed = json("ip -j -6 rule");
    let rules = listed.as_array().unwrap().iter().map(|rule| {
        let from = rule["src"].as_str().unwrap();
        format!("{} {from}", rule["priority"])
    });
    rules.collect()
}

fn in_words(rule: &Rule) -> String {
    let from = rule.from.map_or("all".to_owned(), |from| from.addr().to_string());
    format!("{} {from}", rule.priority)
}

fn addresses_of_kernel(device: &str) -> Vec<String> {
    let listed = json(&format!("ip -j -6 addr show dev {device}"));
    let infos = listed[0]["addr_info"].as_array().cloned().unwrap_or_default();
    let local = infos.iter().filter_map(|info| Some(info["local"].as_str()?.to_owned()));
    local.collect()
}

#[test]
fn whatever_happens_it_is_what_the_kernel_has() {
    let seed = std::env::var("CLATD_SEED").map_or(464, |text| text.parse().expect("CLATD_SEED is a number"));
    in_namespace(move |bed| async move {
        sh("ip link add up1 type veth peer name isp1; ip link set up1 up; ip link set isp1 up");
        let mut dice = Dice(seed);
        let mut done = Vec::new();
        for _ in 0..150 {
            let event = event(&mut dice);
            done.push(event.clone());
            let _ = std::process::Command::new("sh").arg("-c").arg(&event).output().unwrap();
            if dice.of(3) > 0 {
                continue;
            }
            let context = || format!("seed {seed}, after\n{}", done.join("\n"));
            assert_same_routes(&bed, &context()).await;
            let rules = bed.netlink.plain_rules(true).await.unwrap();
            let rules: Vec<String> = rules.iter().map(in_words).collect();
            assert_eq!(rules, rules_of_kernel(), "{}", context());
            for device in ["up0", "up1", "isp1"] {
                // The kernel tells of an address that needs no detection of duplicates a moment after it has it.
                let mut seen = (Vec::new(), Vec::new());
                for _ in 0..100 {
                    let addresses = bed.world.addresses6(device).await.unwrap();
                    let mirrored = addresses.iter().map(|address| address.address.to_string());
                    seen = (mirrored.collect(), addresses_of_kernel(device));
                    if seen.0 == seen.1 {
                        break;
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
                assert_eq!(seen.0, seen.1, "{device}, {}", context());
            }
            let links: BTreeSet<(String, u32, bool)> = bed
                .world
                .links()
                .await
                .unwrap()
                .iter()
                .map(|link| (link.name.clone(), link.mtu, link.up))
                .collect();
            let listed = json("ip -j link");
            let kernel: BTreeSet<(String, u32, bool)> = listed
                .as_array()
                .unwrap()
                .iter()
                .map(|link| {
                    let flags = link["flags"].as_array().unwrap();
                    (
                        link["ifname"].as_str().unwrap().to_owned(),
                        u32::try_from(link["mtu"].as_u64().unwrap()).unwrap(),
                        flags.iter().any(|flag| flag == "UP"),
                    )
                })
                .collect();
            assert_eq!(links, kernel, "{}", context());
        }
    });
}

/// Changes for which the kernel sends no event of their own, and routes that differ only by their sources.
#[test]
fn it_knows_what_the_kernel_does_not_tell() {
    let events = [
        "ip -6 route add default via fe80::1 dev up0 metric 1024",
        "ip -6 route replace unreachable default metric 1024",
        "ip -6 route del unreachable default metric 1024",
        "ip -4 route add default via 192.0.2.1 dev up0 metric 10",
        "ip -4 route replace blackhole default metric 10",
        "ip -4 route del blackhole default",
        "ip addr add 2001:db8:1::55/64 dev up0 nodad",
        "until ip -6 route add default via fe80::1 dev up0 src 2001:db8:1::55 metric 7; do sleep 0.02; done",
        "ip addr del 2001:db8:1::55/64 dev up0",
        // Without event routes go when IPv6 is switched off.
        "sysctl -qw net.ipv6.route.skip_notify_on_dev_down=1",
        "sysctl -qw net.ipv6.conf.up0.disable_ipv6=1",
        "sysctl -qw net.ipv6.conf.up0.disable_ipv6=0",
        "ip addr add 2001:db8:1::2/64 dev up0 nodad",
        // Two networks behind one router, each for its own addresses.
        "ip -6 route add default from 2001:db8:1::/48 via fe80::4 dev up0 metric 5",
        "ip -6 route add default from 2001:db8:2::/48 via fe80::4 dev up0 metric 5",
        "ip -6 route add default from 2001:db8::/32 via fe80::4 dev up0 metric 3",
        "ip -6 route add default via fe80::4 dev up0 metric 5",
        "ip -6 route del default from 2001:db8:1::/48 via fe80::4 dev up0 metric 5",
        "ip -6 route replace default from 2001:db8:2::/48 via fe80::6 dev up0 metric 5",
    ];
    in_namespace(move |bed| async move {
        assert_same_routes(&bed, "before").await;
        for event in events {
            sh(event);
            assert_same_routes(&bed, event).await;
        }
    });
}
