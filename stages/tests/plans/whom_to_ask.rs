//! Whom discovery asks for the prefix of an uplink, in which order, and whose answer counts (RFC 7050, RFC 8880).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use clatd_stages::discovery::{DiscoveryStage, survey};
use clatd_stages::facts::Facts;
use clatd_stages::fixed_world::{FixedClaims, FixedWorld};
use clatd_stages::net::{MAIN_TABLE, Route};
use clatd_stages::settings::Settings;
use clatd_stages::stage::{Readiness, Stage};
use clatd_stages::world::DnsAnswer;
use serde_json::json;

use crate::support::cases::{Case, settings, world};

const RDNSS: &str = "2001:db8::a";
const RESOLVED: &str = "2001:db8::b";
const LAST: &str = "fe80::c%wan0";
const SYSTEM: &str = "";

/// wan0 with a server that its router advertises and two that its manager knows.
fn uplink_with_servers(answers: &[(&str, DnsAnswer)]) -> FixedWorld {
    let servers = |list: &[&str]| list.iter().map(|server| server.parse().unwrap()).collect();
    FixedWorld {
        advertised_servers: [("wan0".to_owned(), servers(&[RDNSS]))].into(),
        link_servers: [("wan0".to_owned(), servers(&[RESOLVED, RDNSS, LAST]))].into(),
        ..uplink_without_servers(answers)
    }
}

fn uplink_without_servers(answers: &[(&str, DnsAnswer)]) -> FixedWorld {
    let default: Route = serde_json::from_value(json!({
        "destination": "::/0", "device": "wan0", "gateway": "fe80::1", "metric": 100, "table": MAIN_TABLE, "protocol": 9
    }))
    .unwrap();
    FixedWorld {
        routes6: [(MAIN_TABLE, vec![default])].into(),
        dns: answers
            .iter()
            .map(|(server, answer)| ((*server).to_owned(), answer.clone()))
            .collect(),
        ..world()
    }
}

/// A DNS64 whose prefix ends in this number.
fn dns64(number: u8) -> DnsAnswer {
    DnsAnswer::Addresses {
        addresses: vec![format!("2001:db8:{number}::c000:aa").parse().unwrap()],
        ttl_s: 60,
    }
}

/// "No": a resolver that does no DNS64.
fn no() -> DnsAnswer {
    DnsAnswer::NoRecords {
        nxdomain: false,
        ttl_s: Some(60),
    }
}

/// AAAA records that nobody synthesised.
fn lie() -> DnsAnswer {
    DnsAnswer::Addresses {
        addresses: vec!["2001:db8::1".parse().unwrap()],
        ttl_s: 60,
    }
}

fn named() -> Settings {
    settings(&[("plat-dev", json!("wan0"))])
}

/// The prefix and who told it, or why there is none.
async fn discover(settings: Settings, world: FixedWorld) -> Result<String, String> {
    let case = Case {
        name: "whom-to-ask",
        settings,
        world,
    };
    let mut facts = Facts::default();
    let claims = FixedClaims::new(case.world.clone(), "clat");
    let verdict = DiscoveryStage
        .observe(&case.instance(), &case.world, &claims, &mut facts)
        .await;
    match verdict.unwrap() {
        Readiness::Ready => {
            let fact = facts.plat_prefix.unwrap();
            Ok(format!("{} of {}", fact.value, fact.source))
        }
        Readiness::Idle { reason } => Err(reason),
    }
}

#[tokio::test]
async fn the_routers_server_comes_before_the_managers_and_each_is_asked_once() {
    let all = [
        (RDNSS, dns64(1)),
        (RESOLVED, dns64(2)),
        (LAST, dns64(3)),
        (SYSTEM, dns64(4)),
    ];
    let expected = [
        "2001:db8:1::/96 of DNS64 server 2001:db8::a",
        "2001:db8:2::/96 of DNS64 server 2001:db8::b",
        "2001:db8:3::/96 of DNS64 server fe80::c",
    ];
    for (place, expected) in expected.iter().enumerate() {
        for refusal in [no(), lie(), DnsAnswer::Failed("SERVFAIL".into())] {
            let mut answers = all.clone();
            for (_, answer) in &mut answers[..place] {
                *answer = refusal.clone();
            }
            for settings in [named(), Settings::default()] {
                let found = discover(settings, uplink_with_servers(&answers)).await;
                assert_eq!(found.as_deref(), Ok(*expected), "after {refusal:?}");
            }
        }
    }
    // RDNSS stands in both lists.
    let case = Case {
        name: "whom-to-ask",
        settings: named(),
        world: uplink_with_servers(&[]),
    };
    let (_, failures) = survey(&case.instance(), "wan0", &case.world).await.unwrap();
    let asked: Vec<_> = failures
        .iter()
        .filter(|failure| failure.contains("gave no answer"))
        .collect();
    assert_eq!(asked.len(), 3, "{failures:#?}");
}

/// RFC 8880 section 7.1: other resolvers than the uplink's own must not speak for it, whatever those did.
#[tokio::test]
async fn the_system_does_not_speak_for_a_named_uplink_with_servers_of_its_own() {
    for answer in [Some(no()), Some(lie()), Some(DnsAnswer::Failed("REFUSED".into())), None] {
        let mut answers = vec![(SYSTEM, dns64(4))];
        for server in [RDNSS, RESOLVED, LAST] {
            answers.extend(answer.clone().map(|answer| (server, answer)));
        }
        let found = discover(named(), uplink_with_servers(&answers)).await;
        let reason = found.unwrap_err();
        assert!(
            reason.contains("2001:db8::a") && reason.contains("fe80::c%wan0"),
            "{reason}"
        );
        assert!(
            reason
                .contains("the system's resolvers are not asked, since wan0 has its own (dns64-servers names others)"),
            "{reason}"
        );
    }
}

/// As the clatd of 2016 did, which knew no uplink before it knew the prefix.
#[tokio::test]
async fn without_a_named_uplink_the_system_has_the_last_word() {
    for answer in [Some(no()), Some(lie()), None] {
        let mut answers = vec![(SYSTEM, dns64(4))];
        answers.extend(answer.map(|answer| (RDNSS, answer)));
        let found = discover(Settings::default(), uplink_with_servers(&answers)).await;
        assert_eq!(
            found.as_deref(),
            Ok("2001:db8:4::/96 of DNS64 of the system's resolver")
        );
    }
}

#[tokio::test]
async fn an_uplink_without_servers_of_its_own_asks_the_system() {
    let found = discover(named(), uplink_without_servers(&[(SYSTEM, dns64(4))])).await;
    assert_eq!(
        found.as_deref(),
        Ok("2001:db8:4::/96 of DNS64 of the system's resolver")
    );
    let reason = discover(named(), uplink_without_servers(&[])).await.unwrap_err();
    assert!(!reason.contains("are not asked"), "{reason}");
}

#[tokio::test]
async fn configured_servers_are_the_only_ones() {
    let answers = [(RDNSS, dns64(1)), (SYSTEM, dns64(4)), ("2001:db8::d", dns64(5))];
    for plat_dev in [json!("wan0"), json!(null)] {
        let configured =
            |servers: &[&str]| settings(&[("plat-dev", plat_dev.clone()), ("dns64-servers", json!(servers))]);
        let found = discover(configured(&["2001:db8::d"]), uplink_with_servers(&answers)).await;
        assert_eq!(found.as_deref(), Ok("2001:db8:5::/96 of DNS64 server 2001:db8::d"));
        let reason = discover(configured(&["2001:db8::e"]), uplink_with_servers(&answers))
            .await
            .unwrap_err();
        assert!(!reason.contains("are not asked"), "{reason}");
    }
}
