//! Changes that come too fast, or cannot be recorded.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clatd::instance::{End, State};
use clatd_stages::journal::{Journal, JournalError, MemoryJournal, Outcome, Pending};
use clatd_stages::plan::Step;
use clatd_stages::settings::Settings;
use clatd_stages::world::DnsAnswer;

use super::bed::{Life, a_moment, dns64};
use crate::support::cases;

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
    // In the end the last prefix of the flood is used.
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
