//! What it waits for, and for how long.

use std::time::Duration;

use clatd::instance::{End, State};
use clatd_stages::fixed_world::FixedWorld;
use clatd_stages::settings::Settings;
use serde_json::json;

use super::bed::{Life, native_ipv4};
use crate::support::cases;
use crate::support::cases::settings;

in_both_modes!(an_uplink_that_is_lost_for_a_moment_is_taken_up_again,);

/// A link that flaps, a router that starts anew.
async fn an_uplink_that_is_lost_for_a_moment_is_taken_up_again(waits: bool) {
    let mut life = Life::begin(cases::world(), Settings::default(), waits);
    life.reaches(State::Running).await;
    for _ in 0..3 {
        let mut route = Default::default();
        life.change(|world| route = std::mem::take(&mut world.route_to));
        life.reaches(State::Idle).await;
        assert_eq!(
            life.system(),
            life.before,
            "what is of no use does not stand in the way"
        );
        tokio::time::sleep(Duration::from_secs(25)).await;
        life.change(|world| world.route_to = route);
        life.reaches(State::Running).await;
    }
    assert_eq!(life.stopped().await, End::Clean);
}

#[tokio::test(start_paused = true)]
async fn an_uplink_that_is_lost_for_good_is_the_end_where_it_does_not_wait() {
    let mut life = Life::begin(cases::world(), Settings::default(), false);
    life.reaches(State::Running).await;
    let lost = tokio::time::Instant::now();
    life.change(|world| world.route_to.clear());
    assert_eq!(life.ends().await, End::Clean);
    let passed = lost.elapsed().as_secs();
    assert!((29..=32).contains(&passed), "{passed} s");
}

/// Told again and again (each router advertisement is an event), and no news.
#[tokio::test(start_paused = true)]
async fn events_do_not_put_off_the_end() {
    let mut life = Life::begin(cases::world(), Settings::default(), false);
    life.reaches(State::Running).await;
    life.change(|world| world.route_to.clear());
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        life.change(|_| ());
    }
    assert!(life.task.is_finished());
    assert_eq!(life.ends().await, End::Clean);
}

#[tokio::test(start_paused = true)]
async fn native_ipv4_that_comes_and_goes_is_followed_where_it_waits() {
    let mut life = Life::begin(cases::world(), Settings::default(), true);
    life.reaches(State::Running).await;
    life.change(native_ipv4);
    life.reaches(State::Idle).await;
    assert!(life.status.borrow().reason.contains("already has IPv4 connectivity"));
    assert_eq!(life.system(), life.before);
    life.change(|world| world.routes4.clear());
    life.reaches(State::Running).await;
    assert_eq!(life.stopped().await, End::Clean);
}

#[tokio::test(start_paused = true)]
async fn native_ipv4_that_comes_is_the_end_where_it_does_not_wait() {
    let mut life = Life::begin(cases::world(), Settings::default(), false);
    life.reaches(State::Running).await;
    let came = tokio::time::Instant::now();
    life.change(native_ipv4);
    assert_eq!(life.ends().await, End::Clean);
    assert!(came.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn an_uplink_that_appears_ends_idleness() {
    let mut world = cases::world();
    let route = std::mem::take(&mut world.route_to);
    let mut life = Life::begin(world, Settings::default(), true);
    life.reaches(State::Idle).await;
    life.change(|world| world.route_to = route);
    life.reaches(State::Running).await;
    assert_eq!(life.stopped().await, End::Clean);
}

#[tokio::test(start_paused = true)]
async fn a_dns64_that_appears_without_any_event_is_found() {
    let mut world = cases::world();
    let dns = std::mem::take(&mut world.dns);
    let mut life = Life::begin(world, Settings::default(), true);
    life.reaches(State::Idle).await;
    life.world.change(|world| world.dns = dns);
    life.reaches(State::Running).await;
    assert_eq!(life.stopped().await, End::Clean);
}

#[tokio::test(start_paused = true)]
async fn duplicate_address_detection_is_waited_for_but_not_for_ever() {
    // Single addresses: there is nothing to derive from, and sharing one must wait.
    let tentative = |world: &mut FixedWorld| {
        for address in world.addresses6.values_mut().flatten() {
            (address.tentative, address.prefix_len) = (true, 128);
        }
    };
    let mut world = cases::world();
    tentative(&mut world);
    let life = Life::begin(world.clone(), Settings::default(), false);
    assert_eq!(life.ends().await, End::Failed);

    let mut life = Life::begin(world, settings(&[("v4-conncheck-delay", json!(0))]), false);
    tokio::time::sleep(Duration::from_secs(2)).await;
    life.world.change(|world| {
        for address in world.addresses6.values_mut().flatten() {
            address.tentative = false;
        }
        for route in world.route_to.values_mut() {
            route.source = Some("2001:db8:1::5".parse().unwrap());
        }
    });
    life.reaches(State::Running).await;
    assert_eq!(life.stopped().await, End::Clean);
}
