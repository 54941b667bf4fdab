//! A running instance follows the network, and repairs itself.

use std::time::Duration;

use clatd::instance::{End, State};
use clatd_stages::fast_path::Attachment;
use clatd_stages::net::MAIN_TABLE;
use clatd_stages::settings::Settings;
use clatd_stages::world::{DnsAnswer, RouteAnswer};
use serde_json::json;

use super::bed::Life;
use crate::support::cases;
use crate::support::cases::{address, native, settings};

in_both_modes!(
    a_changed_prefix_redoes_only_what_depends_on_it,
    another_address_or_uplink_is_taken_over,
    an_unrelated_change_touches_nothing,
    replaced_routes_come_back_after_changes,
    a_prefix_that_changes_without_an_event_is_found_before_its_ttl_ends,
    what_somebody_undoes_is_put_back_but_not_for_ever,
    a_translator_that_became_the_wrong_one_is_replaced,
);

/// DESIGN rule 8: the common head of both plans stays.
async fn a_changed_prefix_redoes_only_what_depends_on_it(waits: bool) {
    let mut life = Life::begin(cases::world(), Settings::default(), waits);
    life.reaches(State::Running).await;
    let calls = life.calls().len();
    life.change(|world| {
        let addresses = vec!["2001:db8:64::c000:aa".parse().unwrap()];
        world
            .dns
            .insert(String::new(), DnsAnswer::Addresses { addresses, ttl_s: 60 });
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    let redone = life.calls().split_off(calls);
    assert_eq!(redone.len(), 2, "{redone:?}");
    assert!(redone[0].starts_with("stop the translator"), "{redone:?}");
    assert!(redone[1].contains("2001:db8:64::/96"), "{redone:?}");
    assert_eq!(life.stopped().await, End::Clean);
}

async fn another_address_or_uplink_is_taken_over(waits: bool) {
    let mut life = Life::begin(cases::world(), Settings::default(), waits);
    life.reaches(State::Running).await;
    life.change(|world| {
        world
            .addresses6
            .insert("wan0".into(), vec![address("2001:db8:2::211:22ff:fe33:4455", 64)]);
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(
        life.calls()
            .iter()
            .any(|call| call == "add route 2001:db8:2:0:211:22c1:a733:4455 dev clat table 49575")
    );
    life.change(|world| {
        world.links.push(cases::link(3, "wan1", 1492));
        world
            .addresses6
            .insert("wan1".into(), vec![address("2001:db8:3::5", 64)]);
        world.route_to.clear();
        world.route_to.insert(
            String::new(),
            RouteAnswer {
                device: "wan1".into(),
                gateway: None,
                source: None,
            },
        );
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(life.calls().iter().any(|call| call == "bring clat up with MTU 1492"));
    assert_eq!(life.status.borrow().state, State::Running);
    assert_eq!(life.stopped().await, End::Clean);
}

/// Devices that come and go beside the uplink (containers) must not interrupt anything.
async fn an_unrelated_change_touches_nothing(waits: bool) {
    let mut life = Life::begin(cases::world(), Settings::default(), waits);
    life.reaches(State::Running).await;
    let calls = life.calls();
    life.change(|world| {
        world.links.push(cases::link(9, "veth1", 1500));
        for (key, value) in [("accept_ra", "1"), ("forwarding", "0")] {
            world.sysctls.insert(format!("net/ipv6/conf/veth1/{key}"), value.into());
        }
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(life.calls(), calls);
    assert_eq!(life.stopped().await, End::Clean);
}

/// What was replaced is not seen any more while the CLAT runs, but must still come back at the end.
async fn replaced_routes_come_back_after_changes(waits: bool) {
    let mut world = cases::world();
    world.routes4.insert(
        MAIN_TABLE,
        vec![native("192.0.2.1", "wan0", 100), native("192.0.2.2", "wan0", 200)],
    );
    let mut life = Life::begin(world, settings(&[("v4-defaultroute-replace", json!(true))]), waits);
    life.reaches(State::Running).await;
    life.change(|world| {
        world.routes4.clear();
        world
            .addresses6
            .insert("wan0".into(), vec![address("2001:db8:2::211:22ff:fe33:4455", 64)]);
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(life.status.borrow().state, State::Running);
    assert_eq!(life.stopped().await, End::Clean);
}

/// RFC 7050 section 3: asked again ten seconds before the TTL ends.
async fn a_prefix_that_changes_without_an_event_is_found_before_its_ttl_ends(waits: bool) {
    let mut life = Life::begin(cases::world(), Settings::default(), waits);
    life.reaches(State::Running).await;
    let prefix = || DnsAnswer::Addresses {
        addresses: vec!["2001:db8:64::c000:aa".parse().unwrap()],
        ttl_s: 60,
    };
    life.world.change(|world| _ = world.dns.insert(String::new(), prefix()));
    tokio::time::sleep(Duration::from_secs(3580)).await;
    assert!(!life.calls().iter().any(|call| call.contains("2001:db8:64::/96")));
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(life.calls().iter().any(|call| call.contains("2001:db8:64::/96")));
    assert_eq!(life.stopped().await, End::Clean);
}

/// Somebody deletes our route once; then somebody who never gives up.
async fn what_somebody_undoes_is_put_back_but_not_for_ever(waits: bool) {
    let mut life = Life::begin(cases::world(), Settings::default(), waits);
    life.reaches(State::Running).await;
    let (running, calls) = (life.system(), life.calls().len());
    let undo = |life: &Life| {
        life.model
            .lock()
            .unwrap()
            .state
            .objects
            .retain(|(_, object)| !object.starts_with("route default dev clat metric"));
        life.change(|world| {
            _ = world
                .undone_by_others
                .insert("route default dev clat metric 16384".into())
        });
    };
    undo(&life);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(life.calls().len(), calls + 1, "the route alone is added");
    assert_eq!(life.system(), running);
    for _ in 0..200 {
        undo(&life);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let fought = life.calls().len() - calls;
    assert!((10..60).contains(&fought), "{fought}");
    assert_eq!(life.status.borrow().state, State::Running);
    assert_eq!(life.stopped().await, End::Clean);
}

/// No event tells of what the fast path would bypass.
async fn a_translator_that_became_the_wrong_one_is_replaced(waits: bool) {
    let mut life = Life::begin(cases::with_fast_path(Attachment::Tcx), Settings::default(), waits);
    life.reaches(State::Running).await;
    let before = life.system();
    let is_fast = |life: &Life| {
        life.system()
            .objects
            .iter()
            .any(|(_, object)| object == "fast path clat")
    };
    assert!(is_fast(&life), "{before:?}");
    let filter = "a filter (u32) at the ingress of wan0".to_owned();
    life.world
        .change(|world| _ = world.bypassed.insert("wan0".into(), filter));
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(!is_fast(&life), "{:?}", life.system());
    assert_eq!(life.status.borrow().state, State::Running);
    let calls = life.calls().len();
    // What cannot be told is no reason for a change.
    life.world.change(|world| _ = world.broken.insert("bypassed"));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(life.calls().len(), calls);
    life.world.change(|world| {
        world.broken.clear();
        world.bypassed.clear();
    });
    tokio::time::sleep(Duration::from_secs(11)).await;
    let mut after = life.system();
    assert_eq!(after.sysctls, before.sysctls);
    // A setting of the CLAT's own device goes with that.
    let own = ("clat".to_owned(), "net/ipv6/conf/clat/force_forwarding=1".to_owned());
    after.objects.remove(&own);
    assert_eq!(after, before);
    assert_eq!(life.stopped().await, End::Clean);
}
