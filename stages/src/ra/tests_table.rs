//! What the table makes of what routers say, in order of time.

use super::*;

const FIRST: &str = "fe80::1";
const SECOND: &str = "fe80::2";

fn address(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// An advertisement: router lifetime, preference, and `PREFIX=SECONDS` or `SERVER=SECONDS` for each option.
fn says(router_lifetime_s: u16, preference: Preference, options: &[&str]) -> RouterAdvertisement {
    let mut said = RouterAdvertisement {
        router_lifetime_s,
        preference,
        ..RouterAdvertisement::default()
    };
    for option in options {
        let (value, seconds) = option.split_once('=').unwrap();
        let lifetime_s = seconds.parse().unwrap_or(INFINITY);
        match value.parse() {
            Ok(value) => said.pref64s.push(Offered { value, lifetime_s }),
            Err(_) => said.rdnss.push(Offered {
                value: address(value),
                lifetime_s,
            }),
        }
    }
    said
}

fn default(options: &[&str]) -> RouterAdvertisement {
    says(1800, Preference::Medium, options)
}

#[derive(Default)]
struct TestLink {
    now: u64,
    table: Advertisements,
}

impl TestLink {
    /// Whether it changed anything.
    fn hears(&mut self, router: &str, said: &RouterAdvertisement) -> bool {
        let outcome = self.table.update(self.now, address(router), said);
        assert_eq!(outcome.next_expiry, self.table.next_expiry());
        outcome.changed
    }

    /// Lets time pass; whether something that ended changed anything.
    fn wait(&mut self, seconds: u64) -> bool {
        self.now += seconds * 1000;
        self.table.forget_expired(self.now)
    }

    fn knows(&self) -> Vec<String> {
        let prefixes = self
            .table
            .pref64s(self.now)
            .into_iter()
            .map(|l| shown(l.value.to_string(), l.router, l.lifetime_s));
        let servers = self
            .table
            .rdnss(self.now)
            .into_iter()
            .map(|l| shown(l.value.to_string(), l.router, l.lifetime_s));
        prefixes.chain(servers).collect()
    }
}

fn shown(value: String, router: Ipv6Addr, lifetime_s: Option<u32>) -> String {
    let left = lifetime_s.map_or("ever".to_owned(), |seconds| seconds.to_string());
    format!("{value} {router} {left}")
}

#[test]
fn values_are_renewed_and_end() {
    let mut link = TestLink::default();
    assert!(link.hears(FIRST, &default(&["64:ff9b::/96=600", "2001:db8::53=300"])));
    assert_eq!(link.knows(), ["64:ff9b::/96 fe80::1 600", "2001:db8::53 fe80::1 300"]);
    assert_eq!(link.table.next_expiry(), Some(300_000));
    assert!(!link.wait(200));
    assert!(
        !link.hears(FIRST, &default(&["64:ff9b::/96=600"])),
        "a renewed lifetime is no change"
    );
    assert_eq!(link.knows(), ["64:ff9b::/96 fe80::1 600", "2001:db8::53 fe80::1 100"]);
    assert!(link.wait(100));
    assert_eq!(link.knows(), ["64:ff9b::/96 fe80::1 500"]);
    assert!(link.wait(500));
    assert_eq!(link.knows(), [""; 0]);
}

#[test]
fn what_has_ended_is_not_shown_even_before_it_is_forgotten() {
    let mut link = TestLink::default();
    link.hears(FIRST, &default(&["64:ff9b::/96=8", "2001:db8::53=8"]));
    link.now += 7_999;
    assert_eq!(
        link.knows(),
        ["64:ff9b::/96 fe80::1 1", "2001:db8::53 fe80::1 1"],
        "rounded up"
    );
    link.now += 1;
    assert_eq!(link.knows(), [""; 0]);
}

#[test]
fn lifetime_0_withdraws_what_that_router_said() {
    let mut link = TestLink::default();
    link.hears(
        FIRST,
        &default(&["64:ff9b::/96=600", "2001:db8:64::/96=600", "2001:db8::53=600"]),
    );
    link.hears(SECOND, &default(&["64:ff9b::/96=600"]));
    assert!(link.hears(FIRST, &default(&["64:ff9b::/96=0", "2001:db8::53=0"])));
    assert_eq!(
        link.knows(),
        ["2001:db8:64::/96 fe80::1 600", "64:ff9b::/96 fe80::2 600"]
    );
    assert!(
        !link.hears(FIRST, &default(&["64:ff9b::/96=0"])),
        "it is withdrawn already"
    );
}

/// RFC 4861 section 4.2: the router lifetime says nothing of the options.
#[test]
fn a_router_that_resigns_withdraws_nothing() {
    let mut link = TestLink::default();
    link.hears(FIRST, &default(&["64:ff9b::/96=600"]));
    assert!(!link.hears(FIRST, &says(0, Preference::Medium, &[])));
    assert_eq!(link.knows(), ["64:ff9b::/96 fe80::1 600"]);
    assert_eq!(link.table.routers(0)[0].lifetime_s, None);
    // It was no default router to begin with.
    assert!(link.hears(SECOND, &says(0, Preference::Medium, &["2001:db8:64::/96=600"])));
    assert_eq!(link.knows().len(), 2);
}

#[test]
fn absence_withdraws_nothing() {
    let mut link = TestLink::default();
    link.hears(FIRST, &default(&["64:ff9b::/96=600"]));
    assert!(!link.hears(FIRST, &default(&[])));
    assert!(link.hears(FIRST, &default(&["2001:db8:64::/96=600"])));
    assert_eq!(
        link.knows(),
        ["64:ff9b::/96 fe80::1 600", "2001:db8:64::/96 fe80::1 600"]
    );
}

#[test]
fn preferred_routers_come_first_then_those_heard_first() {
    let mut link = TestLink::default();
    link.hears("fe80::a", &says(0, Preference::Medium, &["2001:db8:a::/96=600"]));
    link.hears("fe80::b", &says(1800, Preference::Low, &["2001:db8:b::/96=600"]));
    link.hears("fe80::c", &says(1800, Preference::Medium, &["2001:db8:c::/96=600"]));
    link.hears("fe80::d", &says(1800, Preference::High, &["2001:db8:d::/96=600"]));
    link.hears("fe80::e", &says(1800, Preference::Medium, &["2001:db8:e::/96=600"]));
    let order = |link: &TestLink| {
        link.knows()
            .iter()
            .map(|line| line[9..10].to_owned())
            .collect::<String>()
    };
    assert_eq!(order(&link), "dceba");
    // A renewal keeps its place, a new preference takes another.
    assert!(!link.hears("fe80::c", &says(1800, Preference::Medium, &["2001:db8:c::/96=600"])));
    assert_eq!(order(&link), "dceba");
    assert!(link.hears("fe80::b", &says(1800, Preference::High, &[])));
    assert_eq!(order(&link), "bdcea");
    assert!(link.hears("fe80::d", &says(0, Preference::Medium, &[])));
    assert_eq!(order(&link), "bcead");
}

#[test]
fn a_router_whose_time_is_over_falls_behind() {
    let mut link = TestLink::default();
    link.hears(FIRST, &says(30, Preference::High, &["2001:db8:a::/96=600"]));
    link.hears(SECOND, &says(1800, Preference::Low, &["2001:db8:b::/96=600"]));
    assert_eq!(link.table.next_expiry(), Some(30_000));
    assert!(link.wait(30));
    assert_eq!(
        link.knows(),
        ["2001:db8:b::/96 fe80::2 570", "2001:db8:a::/96 fe80::1 570"]
    );
}

#[test]
fn infinity_never_ends() {
    let mut link = TestLink::default();
    link.hears(FIRST, &says(0, Preference::Medium, &["2001:db8::53=ever"]));
    assert_eq!(link.table.next_expiry(), None);
    assert!(!link.wait(1 << 40));
    assert_eq!(link.knows(), ["2001:db8::53 fe80::1 ever"]);
    assert!(link.hears(FIRST, &says(0, Preference::Medium, &["2001:db8::53=0"])));
}

#[test]
fn an_offer_made_twice_counts_as_made_last() {
    let mut link = TestLink::default();
    assert!(!link.hears(FIRST, &default(&["64:ff9b::/96=600", "64:ff9b::/96=0"])));
    assert!(link.hears(
        FIRST,
        &default(&["64:ff9b::/96=0", "64:ff9b::/96=600", "64:ff9b::/96=800"])
    ));
    assert_eq!(link.knows(), ["64:ff9b::/96 fe80::1 800"]);
}

#[test]
fn a_flood_of_prefixes_leaves_room_for_the_latest() {
    let mut link = TestLink::default();
    let prefix = |number: usize| format!("2001:db8:{number:x}::/96=600");
    let many: Vec<String> = (0..100).map(prefix).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    link.hears(FIRST, &default(&many));
    let known = link.table.pref64s(link.now);
    assert_eq!(known.len(), MAX_PREFIXES);
    assert_eq!(
        known[0].value.to_string(),
        "2001:db8::/96",
        "of one packet the first are kept"
    );
    link.wait(1);
    assert!(link.hears(FIRST, &default(&["64:ff9b::/96=600"])));
    let known = link.table.pref64s(link.now);
    assert_eq!(known.len(), MAX_PREFIXES);
    assert_eq!(known[MAX_PREFIXES - 1].value, Pref64::WELL_KNOWN);
}

#[test]
fn a_flood_of_prefixes_does_not_drive_out_the_first() {
    let mut link = TestLink::default();
    link.hears(FIRST, &default(&["64:ff9b::/96=600"]));
    for number in 0..100 {
        link.wait(1);
        link.hears(FIRST, &default(&[&format!("2001:db8:{number:x}::/96=600")]));
        let known = link.table.pref64s(link.now);
        assert_eq!(known[0].value, Pref64::WELL_KNOWN, "after {number} others");
    }
}

#[test]
fn a_flood_of_routers_drops_the_most_silent() {
    let mut link = TestLink::default();
    for number in 0..1000 {
        link.now += 1;
        link.hears(
            &format!("fe80::{number:x}"),
            &default(&["64:ff9b::/96=600", "2001:db8::53=600"]),
        );
        link.hears("fe80:0:0:1::", &default(&["64:ff9b::/96=600"]));
    }
    assert_eq!(link.table.routers(link.now).len(), MAX_ROUTERS);
    assert_eq!(link.table.pref64s(link.now).len(), MAX_ROUTERS);
    let faithful = address("fe80:0:0:1::");
    assert!(
        link.table
            .routers(link.now)
            .iter()
            .any(|router| router.address == faithful)
    );
}

#[test]
fn the_smallest_mtu_of_the_routers_counts() {
    let mut link = TestLink::default();
    let with_mtu = |mtu| RouterAdvertisement { mtu, ..default(&[]) };
    assert!(link.hears(FIRST, &with_mtu(Some(1500))));
    assert!(link.hears(SECOND, &with_mtu(Some(1400))));
    assert_eq!(link.table.mtu(), Some(1400));
    assert!(!link.hears(SECOND, &with_mtu(None)), "silence keeps it");
    assert!(link.wait(1800));
    assert_eq!(link.table.mtu(), None);
}

/// The carrier was away: another link perhaps, or the same.
#[test]
fn what_is_not_said_again_after_a_doubt_is_forgotten() {
    let mut link = TestLink::default();
    link.hears(
        FIRST,
        &default(&["2001:db8:a::/96=600", "2001:db8:b::/96=600", "2001:db8::53=600"]),
    );
    link.table.doubt();
    assert_eq!(link.knows().len(), 3, "doubt takes nothing away");
    assert!(link.hears(SECOND, &default(&["64:ff9b::/96=600"])));
    assert!(!link.hears(FIRST, &default(&["2001:db8::53=600"])));
    assert!(link.hears(FIRST, &default(&["2001:db8:b::/96=600"])));
    let order: Vec<String> = link.table.pref64s(0).iter().map(|l| l.value.to_string()).collect();
    assert_eq!(order, ["2001:db8:b::/96", "64:ff9b::/96", "2001:db8:a::/96"]);
    assert!(link.table.forget_doubted());
    assert_eq!(
        link.knows(),
        [
            "2001:db8:b::/96 fe80::1 600",
            "64:ff9b::/96 fe80::2 600",
            "2001:db8::53 fe80::1 600"
        ]
    );
    assert!(!link.table.forget_doubted());
    // Nobody speaks at all.
    link.table.doubt();
    assert!(link.table.forget_doubted());
    assert_eq!((link.knows().len(), link.table.routers(0).len()), (0, 0));
}
