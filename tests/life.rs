//! The life of an instance: events in, states and the state of the system out. Time is the test's, so waits take none.

#![allow(clippy::unwrap_used, reason = "test support")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use clatd::instance::{End, Repairs, Runner, State, Status};
use clatd::kernel::{Start, TranslatorExit};
use clatd_stages::apply::{OpError, System};
use clatd_stages::fixed_world::{FixedClaims, FixedWorld};
use clatd_stages::journal::{Journal, JournalError, MemoryJournal, Outcome, Pending};
use clatd_stages::net::MAIN_TABLE;
use clatd_stages::op::Op;
use clatd_stages::plan::Step;
use clatd_stages::settings::Settings;
use clatd_stages::stage::Instance;
use clatd_stages::world::{DnsAnswer, RouteAnswer};
use serde_json::json;
use support::cases::{self, address, native, settings};
use support::changing_world::ChangingWorld;
use support::model::{Fault, Model, State as SystemState};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The model, shared with the test; asks for a stop at the n-th call where told so.
#[derive(Clone)]
struct Shared {
    model: Arc<Mutex<Model>>,
    stop_at: Option<(usize, CancellationToken)>,
}

#[async_trait]
impl System for Shared {
    async fn apply(&mut self, op: &Op, outcome: Option<&Outcome>) -> Result<Outcome, OpError> {
        let mut model = self.model.lock().unwrap().clone();
        let result = model.apply(op, outcome).await;
        if let Some((at, token)) = &self.stop_at
            && model.calls.len() == *at + 1
        {
            token.cancel();
        }
        *self.model.lock().unwrap() = model;
        result
    }
}

/// An instance that lives, and the strings to pull.
struct Life {
    world: ChangingWorld,
    model: Arc<Mutex<Model>>,
    before: SystemState,
    changes: watch::Sender<u64>,
    exits: mpsc::UnboundedSender<TranslatorExit>,
    stop: CancellationToken,
    status: watch::Receiver<Status>,
    task: JoinHandle<End>,
}

impl Life {
    fn begin(world: FixedWorld, settings: Settings, waits: bool) -> Self {
        Self::begin_with(world, settings, waits, Fault::None, None)
    }

    fn begin_with(world: FixedWorld, settings: Settings, waits: bool, fault: Fault, stop_at: Option<usize>) -> Self {
        let journal = Box::new(MemoryJournal::default());
        Self::begin_whole(world, settings, waits, fault, stop_at, journal)
    }

    fn begin_on(world: FixedWorld, settings: Settings, waits: bool, journal: Box<dyn Journal>) -> Self {
        Self::begin_whole(world, settings, waits, Fault::None, None, journal)
    }

    fn begin_whole(
        world: FixedWorld,
        settings: Settings,
        waits: bool,
        fault: Fault,
        stop_at: Option<usize>,
        journal: Box<dyn Journal>,
    ) -> Self {
        let model = Model {
            fault,
            ..Model::of(&world)
        };
        let before = model.state.clone();
        let model = Arc::new(Mutex::new(model));
        let world = ChangingWorld::new(world);
        let (changes, changed) = watch::channel(0);
        let (exits, exited) = mpsc::unbounded_channel();
        let (status_sender, status) = watch::channel(Status::default());
        let stop = CancellationToken::new();
        let runner = Runner {
            instance: Instance {
                name: "clat".into(),
                settings,
                runtime_dir: "/run/clatd".into(),
                ordinal: 0,
                seed: 7,
            },
            waits,
            world: Arc::new(world.clone()),
            claims: Arc::new(FixedClaims::new(world.clone(), "clat")),
            system: Box::new(Shared {
                model: model.clone(),
                stop_at: stop_at.map(|at| (at, stop.clone())),
            }),
            journal,
            exits: exited,
            changes: changed.into(),
            stop: stop.clone(),
            status: status_sender,
            repairs: Repairs::default(),
            pace: Default::default(),
            said: Default::default(),
            past: Default::default(),
            claimed: None,
        };
        let task = tokio::spawn(runner.run());
        Self {
            world,
            model,
            before,
            changes,
            exits,
            stop,
            status,
            task,
        }
    }

    async fn reaches(&mut self, state: State) {
        let reached = tokio::time::timeout(
            Duration::from_secs(600),
            self.status.wait_for(|status| status.state == state),
        )
        .await
        .is_ok();
        assert!(reached, "{state:?} is not reached: {:?}", self.status.borrow());
    }

    /// Changes the world and tells the instance.
    fn change(&self, change: impl FnOnce(&mut FixedWorld)) {
        self.world.change(change);
        self.changes.send_modify(|count| *count += 1);
    }

    fn system(&self) -> SystemState {
        self.model.lock().unwrap().state.clone()
    }

    fn calls(&self) -> Vec<String> {
        self.model.lock().unwrap().calls.clone()
    }

    async fn ends(self) -> End {
        let end = tokio::time::timeout(Duration::from_secs(600), self.task)
            .await
            .expect("it ends")
            .unwrap();
        assert_eq!(
            self.model.lock().unwrap().state,
            self.before,
            "the state after is the state before"
        );
        end
    }

    async fn stopped(self) -> End {
        self.stop.cancel();
        self.ends().await
    }
}

/// Makes two tests of each: a running instance does the same whatever `when-idle` says.
macro_rules! in_both_modes {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[tokio::test(start_paused = true)]
            async fn when_idle_wait() {
                super::$name(true).await;
            }
            #[tokio::test(start_paused = true)]
            async fn when_idle_exit() {
                super::$name(false).await;
            }
        }
    )+};
}

in_both_modes!(
    the_death_of_the_translator_is_undone_and_repaired,
    an_uplink_that_is_lost_for_a_moment_is_taken_up_again,
    a_changed_prefix_redoes_only_what_depends_on_it,
    another_address_or_uplink_is_taken_over,
    an_unrelated_change_touches_nothing,
    replaced_routes_come_back_after_changes,
    a_prefix_that_changes_without_an_event_is_found_before_its_ttl_ends,
    what_somebody_undoes_is_put_back_but_not_for_ever,
);

fn native_ipv4(world: &mut FixedWorld) {
    world.routes4.insert(MAIN_TABLE, vec![native("192.0.2.1", "wan0", 100)]);
}

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

fn dns64(number: u32) -> DnsAnswer {
    DnsAnswer::Addresses {
        addresses: vec![format!("2001:db8:{number:x}::c000:aa").parse().unwrap()],
        ttl_s: 600,
    }
}

/// Waits as long as events are apart, so that each is looked at.
async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(500)).await;
}

/// The first switch is made at once; 40 of them in 20 seconds are not.
#[tokio::test(start_paused = true)]
async fn a_flood_of_prefixes_makes_a_few_switches_only() {
    let mut life = Life::begin(cases::world(), Settings::default(), true);
    life.reaches(State::Running).await;
    let starts = |life: &Life| life.calls().iter().filter(|call| call.starts_with("start ")).count();
    assert_eq!(starts(&life), 1);
    for number in 1..=40 {
        life.change(|world| _ = world.dns.insert(String::new(), dns64(number)));
        a_moment().await;
        if number == 1 {
            assert_eq!(starts(&life), 2, "an honest change is followed at once");
        }
    }
    assert!(starts(&life) <= 6, "{} starts", starts(&life));
    // What the flood ended with is taken up in the end.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let status = life.status.borrow().clone();
    assert_eq!(status.facts.plat_prefix.unwrap().value.to_string(), "2001:db8:28::/96");
    assert_eq!(life.stopped().await, End::Clean);
}

/// A prefix that works stays while it is offered, whatever is offered beside it.
#[tokio::test(start_paused = true)]
async fn a_prefix_that_works_is_held_while_it_lasts() {
    let mut life = Life::begin(cases::world(), Settings::default(), true);
    life.reaches(State::Running).await;
    let calls = life.calls();
    for number in 1..=40u32 {
        let both = [
            "2001:db8:ff::c000:aa".replace("ff", &format!("{number:x}")),
            "64:ff9b::c000:aa".into(),
        ];
        let addresses = both.iter().map(|text| text.parse().unwrap()).collect();
        life.change(|world| {
            _ = world
                .dns
                .insert(String::new(), DnsAnswer::Addresses { addresses, ttl_s: 600 })
        });
        a_moment().await;
    }
    assert_eq!(life.calls(), calls, "nothing is done");
    assert_eq!(life.stopped().await, End::Clean);
}

/// A prefix that comes and goes: the first returns are quick, further ones are not.
#[tokio::test(start_paused = true)]
async fn what_comes_and_goes_makes_it_rest() {
    let mut life = Life::begin(cases::world(), Settings::default(), true);
    life.reaches(State::Running).await;
    for number in 0..40 {
        life.change(|world| world.dns.clear());
        a_moment().await;
        life.change(|world| _ = world.dns.insert(String::new(), dns64(1)));
        a_moment().await;
        if number == 0 {
            assert_eq!(life.status.borrow().state, State::Running, "an honest return is quick");
        }
    }
    let starts = life.calls().iter().filter(|call| call.starts_with("start ")).count();
    assert!(starts <= 12, "{starts} starts in 40 s");
    life.reaches(State::Running).await;
    assert_eq!(life.stopped().await, End::Clean);
}

/// A change that cannot be recorded is not begun, and tried again later.
#[tokio::test(start_paused = true)]
async fn with_a_full_journal_the_running_plan_stays() {
    let full = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let journal = Full(MemoryJournal::default(), full.clone());
    let mut life = Life::begin_on(cases::world(), Settings::default(), true, Box::new(journal));
    life.reaches(State::Running).await;
    let calls = life.calls();
    full.store(true, std::sync::atomic::Ordering::SeqCst);
    life.change(|world| _ = world.dns.insert(String::new(), dns64(1)));
    a_moment().await;
    assert_eq!(life.calls(), calls, "nothing is begun");
    assert_eq!(life.status.borrow().state, State::Running);
    full.store(false, std::sync::atomic::Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(40)).await;
    let status = life.status.borrow().clone();
    assert_eq!(status.facts.plat_prefix.unwrap().value.to_string(), "2001:db8:1::/96");
    assert_ne!(life.calls(), calls);
    assert_eq!(life.stopped().await, End::Clean);
}

/// A journal that has no room while it is told so.
struct Full(MemoryJournal, Arc<std::sync::atomic::AtomicBool>);

#[async_trait]
impl Journal for Full {
    async fn intend(&mut self, step: &Step) -> Result<u64, JournalError> {
        self.make_room(0, &[]).await?;
        self.0.intend(step).await
    }
    async fn done(&mut self, seq: u64, outcome: &Outcome) -> Result<(), JournalError> {
        self.0.done(seq, outcome).await
    }
    async fn undone(&mut self, seq: u64) -> Result<(), JournalError> {
        self.0.undone(seq).await
    }
    fn pending(&self) -> Vec<Pending> {
        self.0.pending()
    }
    async fn make_room(&mut self, _keep: usize, _steps: &[Step]) -> Result<(), JournalError> {
        if !self.1.load(std::sync::atomic::Ordering::SeqCst) {
            return Ok(());
        }
        Err(JournalError::Io {
            doing: "making room in",
            path: "here".into(),
            source: std::io::ErrorKind::StorageFull.into(),
        })
    }
}
