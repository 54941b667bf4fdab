//! Events as the kernel sends them, and what the mirror makes of them.

use std::net::{IpAddr, Ipv6Addr};

use clatd_stages::net::MAIN_TABLE;
use tokio::time::{Duration, Instant};

use super::change::NetworkChange;
use super::events::NetlinkEvent;
use super::mirror::{Mirror, Need};
use super::socket::KernelMessage;
use super::wire;

const UP0: u32 = 3;
const UP1: u32 = 4;

fn link(index: u32, name: &str, up: bool) -> Vec<u8> {
    let mut payload = vec![0; 16];
    payload[4..8].copy_from_slice(&index.to_ne_bytes());
    let flags = if up { libc::IFF_UP | libc::IFF_RUNNING } else { 0 };
    payload[8..12].copy_from_slice(&flags.to_ne_bytes());
    wire::push(&mut payload, libc::IFLA_IFNAME, format!("{name}\0").as_bytes());
    wire::push(&mut payload, libc::IFLA_MTU, &1500u32.to_ne_bytes());
    wire::push(&mut payload, libc::IFLA_CARRIER, &[u8::from(up)]);
    payload
}

fn address(index: u32, address: &str, flags: u32, valid: u32) -> Vec<u8> {
    let mut payload = vec![10, 64, 0, 0];
    payload.extend(index.to_ne_bytes());
    let address: Ipv6Addr = address.parse().unwrap();
    wire::push(&mut payload, libc::IFA_ADDRESS, &address.octets());
    wire::push(&mut payload, libc::IFA_FLAGS, &flags.to_ne_bytes());
    let times = [valid, valid, 0, 0].map(u32::to_ne_bytes).concat();
    wire::push(&mut payload, libc::IFA_CACHEINFO, &times);
    payload
}

struct TestRoute<'a> {
    to: &'a str,
    metric: u32,
    gateway: &'a str,
    device: u32,
    expires: u32,
}

const DEFAULT: TestRoute<'_> = TestRoute {
    to: "::/0",
    metric: 1024,
    gateway: "fe80::1",
    device: UP0,
    expires: 0,
};

impl TestRoute<'_> {
    fn payload(&self) -> Vec<u8> {
        let to: ipnet::Ipv6Net = self.to.parse().unwrap();
        let main = u8::try_from(MAIN_TABLE).unwrap();
        let mut payload = vec![10, to.prefix_len(), 0, 0, main, 9, 0, libc::RTN_UNICAST, 0, 0, 0, 0];
        wire::push(&mut payload, libc::RTA_TABLE, &MAIN_TABLE.to_ne_bytes());
        if to.prefix_len() > 0 {
            wire::push(&mut payload, libc::RTA_DST, &to.addr().octets());
        }
        wire::push(&mut payload, libc::RTA_PRIORITY, &self.metric.to_ne_bytes());
        let gateway: Ipv6Addr = self.gateway.parse().unwrap();
        wire::push(&mut payload, libc::RTA_GATEWAY, &gateway.octets());
        wire::push(&mut payload, libc::RTA_OIF, &self.device.to_ne_bytes());
        let times = [0, 0, self.expires, 0].map(u32::to_ne_bytes).concat();
        wire::push(&mut payload, libc::RTA_CACHEINFO, &times);
        payload
    }
}

struct Bed {
    mirror: Mirror,
    now: Instant,
}

impl Bed {
    /// Two devices; addresses of the first and IPv6 routes were asked for.
    fn new() -> Self {
        let now = Instant::now();
        let mut mirror = Mirror::default();
        let message = |payload| KernelMessage { kind: 0, payload };
        let links = vec![message(link(UP0, "up0", true)), message(link(UP1, "up1", true))];
        mirror.load(Need::Links, links, now);
        mirror.load(Need::Addresses6(UP0), Vec::new(), now);
        mirror.load(Need::Routes6, Vec::new(), now);
        Self { mirror, now }
    }

    fn event(&mut self, kind: u16, flags: u16, payload: &[u8]) -> Vec<NetworkChange> {
        self.mirror.take(NetlinkEvent { kind, flags, payload }, self.now)
    }

    fn addresses(&self) -> Vec<String> {
        let addresses = self.mirror.addresses6(UP0, self.now);
        addresses.iter().map(|address| address.address.to_string()).collect()
    }

    fn gateways(&self) -> Vec<String> {
        let routes = self.mirror.defaults6(MAIN_TABLE);
        let gateways = routes
            .iter()
            .filter_map(|route| Some((route.gateway?, route.device.clone()?)));
        gateways
            .map(|(gateway, device)| format!("{gateway} {device}"))
            .collect()
    }
}

fn is_news(changes: &[NetworkChange]) -> bool {
    changes.iter().any(|change| match change {
        NetworkChange::Address { news, .. } => *news,
        NetworkChange::Link(change) => change.news,
        _ => true,
    })
}

#[tokio::test(start_paused = true)]
async fn an_advertisement_that_says_nothing_new_is_no_news() {
    let mut bed = Bed::new();
    let new = address(UP0, "2001:db8::1", 0, 3600);
    assert!(is_news(&bed.event(libc::RTM_NEWADDR, 0, &new)));
    bed.now += Duration::from_secs(60);
    assert_eq!(
        bed.mirror.addresses6(UP0, bed.now)[0].valid_s,
        Some(3540),
        "it grows old"
    );
    assert!(!is_news(&bed.event(libc::RTM_NEWADDR, 0, &new)), "its life begins anew");
    assert_eq!(bed.mirror.addresses6(UP0, bed.now)[0].valid_s, Some(3600));
    let shorter = address(UP0, "2001:db8::1", 0, 600);
    assert!(is_news(&bed.event(libc::RTM_NEWADDR, 0, &shorter)), "it ends sooner");
    let deprecated = address(UP0, "2001:db8::1", libc::IFA_F_DEPRECATED, 600);
    assert!(is_news(&bed.event(libc::RTM_NEWADDR, 0, &deprecated)));
    let unasked = address(UP1, "2001:db8:1::1", 0, 3600);
    assert!(
        is_news(&bed.event(libc::RTM_NEWADDR, 0, &unasked)),
        "nobody asked for them, but it is new"
    );
    assert!(!is_news(&bed.event(libc::RTM_NEWADDR, 0, &unasked)));
    assert!(!bed.mirror.has(Need::Addresses6(UP1)), "there may be others");
}

#[test]
fn addresses_stand_in_the_kernels_order() {
    let mut bed = Bed::new();
    for text in ["fe80::1", "2001:db8::1", "2001:db8::2"] {
        bed.event(libc::RTM_NEWADDR, 0, &address(UP0, text, 0, u32::MAX));
    }
    assert_eq!(bed.addresses(), ["2001:db8::2", "2001:db8::1", "fe80::1"]);
    let gone = address(UP0, "2001:db8::2", 0, 0);
    assert!(is_news(&bed.event(libc::RTM_DELADDR, 0, &gone)));
    assert!(!is_news(&bed.event(libc::RTM_DELADDR, 0, &gone)));
    assert_eq!(bed.addresses(), ["2001:db8::1", "fe80::1"]);
}

#[test]
fn default_routes_come_and_go() {
    let mut bed = Bed::new();
    let second = TestRoute {
        gateway: "fe80::2",
        ..DEFAULT
    };
    let better = TestRoute {
        metric: 100,
        device: UP1,
        ..DEFAULT
    };
    for route in [&DEFAULT, &second, &better] {
        assert!(is_news(&bed.event(libc::RTM_NEWROUTE, 0, &route.payload())));
    }
    assert_eq!(bed.gateways(), ["fe80::1 up1", "fe80::1 up0", "fe80::2 up0"]);
    let refreshed = TestRoute {
        expires: 1000,
        ..DEFAULT
    };
    assert_eq!(
        bed.event(libc::RTM_NEWROUTE, 0, &refreshed.payload()),
        [],
        "a life that begins anew is no news"
    );
    assert!(is_news(&bed.event(libc::RTM_DELROUTE, 0, &DEFAULT.payload())));
    assert_eq!(bed.event(libc::RTM_DELROUTE, 0, &DEFAULT.payload()), []);
    assert_eq!(bed.gateways(), ["fe80::1 up1", "fe80::2 up0"]);
    let instead = TestRoute {
        gateway: "fe80::3",
        ..DEFAULT
    };
    bed.event(libc::RTM_NEWROUTE, 0x100, &instead.payload());
    assert_eq!(bed.gateways(), ["fe80::1 up1", "fe80::3 up0"]);
}

#[test]
fn what_is_not_simple_is_read_again() {
    for flags in [0x100, 0x800] {
        let mut bed = Bed::new();
        for gateway in ["fe80::1", "fe80::2"] {
            bed.event(libc::RTM_NEWROUTE, 0, &TestRoute { gateway, ..DEFAULT }.payload());
        }
        bed.event(
            libc::RTM_NEWROUTE,
            flags,
            &TestRoute {
                gateway: "fe80::3",
                ..DEFAULT
            }
            .payload(),
        );
        assert!(!bed.mirror.has(Need::Routes6), "{flags:#x}");
    }
}

#[test]
fn other_routes_are_left() {
    let mut bed = Bed::new();
    let foreign = TestRoute {
        to: "2001:db8::/32",
        ..DEFAULT
    }
    .payload();
    assert_eq!(bed.event(libc::RTM_NEWROUTE, 0, &foreign), []);
    let destination = "2001:db8:64::1".parse().unwrap();
    assert!(bed.mirror.watch(destination, false));
    assert!(bed.mirror.has(Need::Routes6), "only what is to come is watched for");
    assert!(is_news(&bed.event(libc::RTM_NEWROUTE, 0, &foreign)));
    let leading = bed.mirror.leading_to(MAIN_TABLE, UP0, destination);
    assert_eq!(leading.len(), 1);
    assert!(leading[0].destination.contains(&IpAddr::V6(destination)));
    assert_eq!(bed.gateways(), [""; 0], "it is no default route");
}

#[test]
fn a_device_that_goes_takes_its_routes_with_it() {
    let mut bed = Bed::new();
    for device in [UP0, UP1] {
        bed.event(libc::RTM_NEWROUTE, 0, &TestRoute { device, ..DEFAULT }.payload());
    }
    // As where net.ipv6.route.skip_notify_on_dev_down is 1.
    bed.event(libc::RTM_NEWLINK, 0, &link(UP0, "up0", false));
    assert_eq!(bed.gateways(), ["fe80::1 up1"]);
    bed.event(libc::RTM_NEWADDR, 0, &address(UP0, "2001:db8::1", 0, 3600));
    assert!(is_news(&bed.event(libc::RTM_DELLINK, 0, &link(UP0, "up0", false))));
    assert_eq!(bed.mirror.link("up0"), None);
    assert_eq!(bed.addresses(), [""; 0]);
    // The same name comes back under another index, and an index under another name.
    bed.event(libc::RTM_NEWLINK, 0, &link(9, "up0", true));
    assert_eq!(bed.mirror.link("up0").unwrap().index, 9);
    bed.event(libc::RTM_NEWLINK, 0, &link(UP0, "other", true));
    assert!(!bed.mirror.has(Need::Addresses6(UP0)), "they are another device's");
}

#[test]
fn a_device_that_is_renamed_keeps_what_it_has() {
    let mut bed = Bed::new();
    bed.event(libc::RTM_NEWROUTE, 0, &DEFAULT.payload());
    let changes = bed.event(libc::RTM_NEWLINK, 0, &link(UP0, "wan", true));
    let [NetworkChange::Link(change)] = changes.as_slice() else {
        panic!("{changes:?}")
    };
    assert_eq!(
        (change.link.name.as_str(), change.former_name.as_deref()),
        ("wan", Some("up0"))
    );
    assert_eq!(bed.gateways(), ["fe80::1 wan"]);
}

#[test]
fn bridges_and_wireless_events_change_no_device() {
    let mut bed = Bed::new();
    let mut port = link(UP0, "up0", true);
    port[0] = 7;
    assert_eq!(
        bed.event(libc::RTM_DELLINK, 0, &port),
        [],
        "AF_BRIDGE: it left a bridge"
    );
    let mut wireless = link(UP0, "up0", true)[..16].to_vec();
    wire::push(&mut wireless, libc::IFLA_IFNAME, b"up0\0");
    wire::push(&mut wireless, libc::IFLA_CARRIER, &[1]);
    assert!(!is_news(&bed.event(libc::RTM_NEWLINK, 0, &wireless)));
    assert_eq!(bed.mirror.link("up0").unwrap().mtu, 1500);
}

#[test]
fn a_carrier_that_came_back_at_once_was_lost() {
    const IFLA_CARRIER_DOWN_COUNT: u16 = 48;
    let with = |losses: u32| {
        let mut payload = link(UP0, "up0", true);
        wire::push(&mut payload, IFLA_CARRIER_DOWN_COUNT, &losses.to_ne_bytes());
        payload
    };
    let mut bed = Bed::new();
    for (losses, lost) in [(1, false), (1, false), (2, true), (2, false)] {
        let changes = bed.event(libc::RTM_NEWLINK, 0, &with(losses));
        let seen = changes
            .iter()
            .any(|change| matches!(change, NetworkChange::Link(change) if change.lost_carrier));
        assert_eq!(seen, lost, "{losses}");
    }
}

#[test]
fn a_lost_carrier_is_seen_on_its_routes() {
    let mut bed = Bed::new();
    bed.event(libc::RTM_NEWROUTE, 0, &DEFAULT.payload());
    assert!(!bed.mirror.defaults6(MAIN_TABLE)[0].dead);
    let mut without = link(UP0, "up0", true);
    let last = without.len() - 4;
    without[last] = 0;
    assert!(is_news(&bed.event(libc::RTM_NEWLINK, 0, &without)));
    assert!(bed.mirror.defaults6(MAIN_TABLE)[0].dead);
}

#[test]
fn after_lost_events_all_is_read_again() {
    let mut bed = Bed::new();
    bed.mirror.watch("2001:db8:64::1".parse().unwrap(), true);
    bed.mirror.forget();
    for need in [
        Need::Links,
        Need::Routes6,
        Need::Rules(true),
        Need::Defaults4(MAIN_TABLE),
    ] {
        assert!(!bed.mirror.has(need), "{need:?}");
    }
    assert_eq!(bed.mirror.watched().len(), 1, "what is watched for is ours to know");
}

#[test]
fn events_that_end_early_are_left() {
    let whole = [
        (libc::RTM_NEWLINK, link(UP0, "up0", true)),
        (libc::RTM_NEWADDR, address(UP0, "2001:db8::1", 0, 3600)),
        (libc::RTM_NEWROUTE, DEFAULT.payload()),
        (libc::RTM_NEWRULE, vec![10; 12]),
        (libc::RTM_NEWNEIGH, vec![10; 12]),
    ];
    for (kind, payload) in whole {
        for length in 0..payload.len() {
            Bed::new().event(kind, 0, &payload[..length]);
        }
    }
}

#[test]
fn routes_that_change_all_the_time_are_not_collected() {
    let mut bed = Bed::new();
    let route = |table: u8, gateway: u32| {
        let mut payload = vec![2, 0, 0, 0, table, 9, 0, libc::RTN_UNICAST, 0, 0, 0, 0];
        wire::push(&mut payload, libc::RTA_GATEWAY, &gateway.to_be_bytes());
        wire::push(&mut payload, libc::RTA_OIF, &UP0.to_ne_bytes());
        payload
    };
    bed.mirror.load(Need::Defaults4(7), Vec::new(), bed.now);
    for gateway in 0..1000 {
        for table in [7, 8] {
            assert!(is_news(&bed.event(libc::RTM_NEWROUTE, 0x100, &route(table, gateway))));
        }
    }
    assert!(!bed.mirror.has(Need::Defaults4(7)));
    assert_eq!(bed.mirror.remembered4(7), 64);
    assert_eq!(bed.mirror.remembered4(8), 0, "nobody asked for that table");
}

/// A rule of a priority that leads to a table, `detached` from a device that is not there.
fn rule(priority: u32, table: u32, detached: bool) -> Vec<u8> {
    const TO_TABLE: u8 = 1;
    const IIF_DETACHED: u32 = 8;
    const FRA_PRIORITY: u16 = 6;
    const FRA_TABLE: u16 = 15;
    let mut payload = vec![10, 0, 0, 0, 0, 0, 0, TO_TABLE];
    payload.extend(if detached { IIF_DETACHED } else { 0 }.to_ne_bytes());
    wire::push(&mut payload, FRA_PRIORITY, &priority.to_ne_bytes());
    wire::push(&mut payload, FRA_TABLE, &table.to_ne_bytes());
    payload
}

#[tokio::test(start_paused = true)]
async fn rules_follow_their_events_and_are_read_again_only_where_these_are_not_clear() {
    let mut bed = Bed::new();
    let rules = [(0, 255), (464, 1), (32766, 254)];
    let load = |bed: &mut Bed| {
        let dumped = rules.map(|(priority, table)| KernelMessage {
            kind: 0,
            payload: rule(priority, table, false),
        });
        bed.mirror.load(Need::Rules(true), Vec::from(dumped), bed.now);
    };
    let tables = |bed: &Bed| -> Vec<u32> { bed.mirror.rules(true).iter().map(|found| found.rule.table).collect() };
    load(&mut bed);
    bed.event(libc::RTM_NEWRULE, 0, &rule(464, 2, true));
    bed.event(libc::RTM_NEWRULE, 0, &rule(100, 3, false));
    assert!(bed.mirror.has(Need::Rules(true)), "no dump");
    assert_eq!(tables(&bed), [255, 3, 1, 2, 254]);
    // Its device came meanwhile, of which there is no event.
    bed.event(libc::RTM_DELRULE, 0, &rule(464, 2, false));
    assert!(bed.mirror.has(Need::Rules(true)), "no dump");
    assert_eq!(tables(&bed), [255, 3, 1, 254]);

    let unclear = [
        (libc::RTM_NEWRULE, 464, "the dump may have had it, or there are two now"),
        (libc::RTM_DELRULE, 465, "the dump came after that"),
    ];
    for (kind, priority, why) in unclear {
        load(&mut bed);
        bed.event(kind, 0, &rule(priority, 1, false));
        assert!(!bed.mirror.has(Need::Rules(true)), "{why}");
    }
}
