//! What discovery believes: one rule for the prefixes of all sources, and only devices that a filter can name.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use clatd_stages::discovery::DiscoveryStage;
use clatd_stages::facts::{Fact, Facts, Source};
use clatd_stages::fixed_world::{FixedClaims, FixedWorld};
use clatd_stages::net::{MAIN_TABLE, Route};
use clatd_stages::settings::Settings;
use clatd_stages::stage::{Readiness, Stage};
use clatd_stages::world::DnsAnswer;
use serde_json::json;

use crate::support::cases::{Case, settings, world};

/// No PLAT can have them; each is of a kind of its own.
const BAD: [&str; 6] = [
    "::/96",
    "::ffff:0:0/96",
    "fe80::/96",
    "ff00::/32",
    "fec0::/48",
    "100::/64",
];

async fn observe(settings: Settings, world: FixedWorld) -> (Readiness, Facts) {
    let case = Case {
        name: "believed",
        settings,
        world,
    };
    let mut facts = Facts::default();
    let claims = FixedClaims::new(case.world.clone(), "clat");
    let verdict = DiscoveryStage
        .observe(&case.instance(), &case.world, &claims, &mut facts)
        .await;
    (verdict.unwrap(), facts)
}

fn reason(verdict: &Readiness) -> &str {
    match verdict {
        Readiness::Idle { reason } => reason,
        Readiness::Ready => panic!("it is ready"),
    }
}

fn synthesised(prefix: &str) -> DnsAnswer {
    let prefix: clatd_translator::Pref64 = prefix.parse().unwrap();
    DnsAnswer::Addresses {
        addresses: vec![prefix.embed("192.0.0.170".parse().unwrap())],
        ttl_s: 60,
    }
}

/// wan0, whose router advertises these.
fn advertising(prefixes: &[&str]) -> FixedWorld {
    let default: Route = serde_json::from_value(json!({
        "destination": "::/0", "device": "wan0", "gateway": "fe80::1", "metric": 100, "table": MAIN_TABLE, "protocol": 9
    }))
    .unwrap();
    let router = || Source::RouterAdvertisement("fe80::1".parse().unwrap());
    let facts = prefixes
        .iter()
        .map(|text| Fact::lasting(text.parse().unwrap(), router(), 600));
    FixedWorld {
        routes6: [(MAIN_TABLE, vec![default])].into(),
        advertised: [("wan0".to_owned(), facts.collect())].into(),
        ..world()
    }
}

#[tokio::test]
async fn a_dns_server_cannot_name_a_prefix_that_no_plat_has() {
    for bad in BAD {
        let world = FixedWorld {
            dns: [(String::new(), synthesised(bad))].into(),
            ..world()
        };
        let (verdict, facts) = observe(settings(&[]), world).await;
        let reason = reason(&verdict);
        assert!(reason.contains("is refused"), "{bad}: {reason}");
        assert_eq!(facts.plat_prefix, None, "{bad}");
    }
}

#[tokio::test]
async fn a_router_cannot_either_and_what_others_say_counts() {
    for bad in BAD {
        // DNS has 64:ff9b::/96.
        let (verdict, facts) = observe(settings(&[]), advertising(&[bad])).await;
        assert_eq!(verdict, Readiness::Ready, "{bad}");
        assert_eq!(facts.plat_prefix.unwrap().value.to_string(), "64:ff9b::/96", "{bad}");
        assert!(facts.notes[0].contains("is refused"), "{bad}: {:?}", facts.notes);
        let both = advertising(&[bad, "2001:db8:64::/96"]);
        let (_, facts) = observe(settings(&[]), both).await;
        assert_eq!(facts.plat_prefix.unwrap().value.to_string(), "2001:db8:64::/96");
    }
}

#[tokio::test]
async fn a_server_that_names_a_bad_prefix_does_not_keep_the_next_from_being_asked() {
    let world = FixedWorld {
        dns: [
            ("2001:db8::a".to_owned(), synthesised("fe80::/96")),
            ("2001:db8::b".to_owned(), synthesised("2001:db8:64::/96")),
        ]
        .into(),
        ..world()
    };
    let servers = json!(["2001:db8::a", "2001:db8::b"]);
    let (_, facts) = observe(settings(&[("dns64-servers", servers)]), world).await;
    assert_eq!(facts.plat_prefix.unwrap().value.to_string(), "2001:db8:64::/96");
}

/// Any number of them makes a few words only.
#[tokio::test]
async fn a_flood_of_bad_prefixes_is_named_in_short() {
    let flood: Vec<String> = (0..100).map(|number| format!("fe80:0:{number:x}::/96")).collect();
    let flood: Vec<&str> = flood.iter().map(String::as_str).collect();
    let (_, facts) = observe(settings(&[]), advertising(&flood)).await;
    assert_eq!(facts.notes.len(), 4, "{:?}", facts.notes);
    assert_eq!(facts.notes[3], "97 more PLAT prefixes are refused");
}

#[tokio::test]
async fn an_uplink_that_no_filter_can_name_is_refused_by_name() {
    for bad in ["w\"n0", "wan*", "wan+", "w\\n0"] {
        let mut world = world();
        world.links[1].name = bad.to_owned();
        for answer in world.route_to.values_mut() {
            answer.device = bad.to_owned();
        }
        let (verdict, facts) = observe(settings(&[]), world).await;
        let reason = reason(&verdict);
        assert!(
            reason.contains(&format!("{bad:?}")) && reason.contains("rename it"),
            "{reason}"
        );
        assert_eq!(facts.uplink, None);
    }
}
