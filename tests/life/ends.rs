//! What ends it, and what it then leaves: nothing.

use std::time::Duration;

use clatd::instance::{End, State};
use clatd::kernel::{Start, TranslatorExit};
use clatd_stages::settings::Settings;
use serde_json::json;

use super::bed::Life;
use crate::support::cases;
use crate::support::cases::settings;
use crate::support::model::Fault;

in_both_modes!(the_death_of_the_translator_is_undone_and_repaired,);

#[tokio::test(start_paused = true)]
async fn it_runs_until_it_is_stopped_and_undoes_everything() {
    let mut life = Life::begin(cases::world(), Settings::default(), false);
    life.reaches(State::Running).await;
    assert_ne!(life.system(), life.before);
    assert_eq!(life.stopped().await, End::Clean);
}

#[tokio::test(start_paused = true)]
async fn native_ipv4_and_no_prefix_end_it_where_it_does_not_wait() {
    for name in ["native-ipv4", "no-dns64", "no-route-to-plat", "no-such-uplink"] {
        let case = cases::all().into_iter().find(|case| case.name == name).unwrap();
        let life = Life::begin(case.world, case.settings, false);
        let model = life.model.clone();
        assert_eq!(life.ends().await, End::Clean, "{name}");
        assert!(model.lock().unwrap().calls.is_empty(), "{name}: nothing is touched");
    }
}

#[tokio::test(start_paused = true)]
async fn the_conncheck_delay_is_waited_for_and_a_stop_ends_it() {
    let begun = tokio::time::Instant::now();
    let mut life = Life::begin(cases::world(), settings(&[("v4-conncheck-delay", json!(10))]), false);
    life.reaches(State::Observing).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let said = life.status.borrow().reason.clone();
    assert_eq!(said, "waiting 10 s for native IPv4 connectivity (v4-conncheck-delay)");
    life.reaches(State::Running).await;
    assert!(begun.elapsed() >= Duration::from_secs(10));
    assert_eq!(life.stopped().await, End::Clean);

    let begun = tokio::time::Instant::now();
    let life = Life::begin(cases::world(), settings(&[("v4-conncheck-delay", json!(3600))]), false);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(life.stopped().await, End::Clean);
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_stop_during_any_step_of_the_set_up_undoes_what_was_done() {
    let mut life = Life::begin(cases::world(), Settings::default(), false);
    life.reaches(State::Running).await;
    let steps = life.calls();
    assert_eq!(life.stopped().await, End::Clean);
    for at in 0..steps.len() {
        let life = Life::begin_with(cases::world(), Settings::default(), true, Fault::None, Some(at));
        let model = life.model.clone();
        assert_eq!(life.ends().await, End::Clean, "stopped during step {at}");
        // That step is the last one; what comes behind takes back.
        let calls = model.lock().unwrap().calls.clone();
        let (done, undone) = calls.split_at(at + 1);
        assert_eq!(done, &steps[..=at], "stopped during step {at}");
        assert!(
            undone.iter().all(|call| !steps.contains(call)),
            "stopped during step {at}: {undone:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_step_ends_it_with_a_failure_where_it_does_not_wait() {
    for fault in [Fault::Before(3), Fault::After(3)] {
        let life = Life::begin_with(cases::world(), Settings::default(), false, fault, None);
        let status = life.status.clone();
        assert_eq!(life.ends().await, End::Failed);
        let error = status.borrow().last_error.clone().unwrap();
        assert!(
            error.contains("add address 192.0.0.1/32 to clat") && error.contains("fault injected"),
            "{error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_step_is_tried_again_where_it_waits() {
    let mut life = Life::begin_with(cases::world(), Settings::default(), true, Fault::Before(3), None);
    life.reaches(State::Running).await;
    assert!(life.status.borrow().last_error.is_some());
    assert_eq!(life.stopped().await, End::Clean);
}

async fn the_death_of_the_translator_is_undone_and_repaired(waits: bool) {
    let mut life = Life::begin(cases::world(), Settings::default(), waits);
    life.reaches(State::Running).await;
    let death = TranslatorExit {
        instance: "clat".into(),
        device: "clat".into(),
        detail: "exit status 1: no such prefix".into(),
        start: Start::default(),
    };
    life.exits.send(death).unwrap();
    life.reaches(State::Idle).await;
    assert_eq!(life.system(), life.before);
    let error = life.status.borrow().last_error.clone().unwrap();
    assert!(error.contains("no such prefix"), "{error}");
    life.reaches(State::Running).await;
    assert_eq!(life.stopped().await, End::Clean);
}
