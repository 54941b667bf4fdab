//! Plans as snapshots, and what becomes of them when something fails: for every case and every place of failure the
//! state of the system afterwards is the state before.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

#[path = "plans/accepted.rs"]
mod accepted;
#[path = "plans/believed.rs"]
mod believed;
#[path = "plans/leftover.rs"]
mod leftover;
#[path = "plans/shown.rs"]
mod shown;
mod support;
#[path = "plans/whom_to_ask.rs"]
mod whom_to_ask;

use clatd_stages::apply::{self, ApplyError};
use clatd_stages::facts::Facts;
use clatd_stages::fixed_world::FixedClaims;
use clatd_stages::journal::{Journal, Ledger, MemoryJournal};
use clatd_stages::pipeline::{self, WithoutWaiting};
use clatd_stages::plan::{Idle, Plan, PlanDocument, common_head};
use clatd_stages::stage::Readiness;
use support::cases::{self, Case};
use support::model::{Fault, Model};

/// The error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

async fn document(case: &Case) -> Result<PlanDocument, String> {
    let instance = case.instance();
    let claims = FixedClaims::new(case.world.clone(), &instance.name);
    let mut facts = Facts::default();
    let verdict = pipeline::observe(&instance, &case.world, &claims, &mut facts, &mut WithoutWaiting)
        .await
        .map_err(|error| chain(&error))?;
    let mut document = PlanDocument {
        version: PlanDocument::VERSION,
        instances: Vec::new(),
        idle: Vec::new(),
    };
    match verdict {
        Readiness::Ready => document
            .instances
            .push(pipeline::plan(&instance, facts).map_err(|error| chain(&error))?),
        Readiness::Idle { reason } => document.idle.push(Idle {
            instance: instance.name.clone(),
            reason,
        }),
    }
    Ok(document)
}

async fn plans() -> Vec<(Case, Plan)> {
    let mut plans = Vec::new();
    for case in cases::all() {
        if let Ok(mut document) = document(&case).await
            && let Some(plan) = document.instances.pop()
        {
            plans.push((case, plan));
        }
    }
    plans
}

#[tokio::test]
async fn every_case_has_its_snapshot() {
    let cases = cases::all();
    assert!(cases.len() >= 60, "only {} cases", cases.len());
    for case in &cases {
        let text = match document(case).await {
            Ok(document) => document.to_string(),
            Err(error) => format!("error: {error}\n"),
        };
        insta::with_settings!({ snapshot_path => "plans", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(case.name, text);
        });
    }
}

/// The text is short; what it leaves out, such as rulesets and what the translator is told, is here.
#[tokio::test]
async fn every_document_has_its_snapshot() {
    for case in &cases::all() {
        let Ok(document) = document(case).await else { continue };
        let text = support::json::text(&serde_json::to_value(document).unwrap());
        insta::with_settings!({ snapshot_path => "plans", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(format!("json-{}", case.name), text);
        });
    }
}

#[tokio::test]
async fn what_is_applied_is_what_is_planned_and_comes_off_again() {
    for (case, plan) in plans().await {
        let before = Model::of(&case.world);
        let (mut system, mut journal) = (before.clone(), MemoryJournal::default());
        apply::apply(&plan.steps, &mut system, &mut journal, &|| false)
            .await
            .unwrap();
        let planned: Vec<String> = plan.steps.iter().map(|step| step.apply.to_string()).collect();
        assert_eq!(system.calls, planned, "{}", case.name);
        assert_ne!(system.state, before.state, "{}", case.name);
        assert!(
            apply::unwind(&mut system, &mut journal, &[]).await.is_empty(),
            "{}",
            case.name
        );
        assert_eq!(system.state, before.state, "{}", case.name);
        assert!(journal.pending().is_empty(), "{}", case.name);
    }
}

#[tokio::test]
async fn a_fault_at_any_step_undoes_exactly_the_steps_up_to_it() {
    for (case, plan) in plans().await {
        for at in 0..plan.steps.len() {
            for fault in [Fault::Before(at), Fault::After(at)] {
                let before = Model::of(&case.world);
                let (mut system, mut journal) = (
                    Model {
                        fault,
                        ..before.clone()
                    },
                    MemoryJournal::default(),
                );
                let failure = apply::apply(&plan.steps, &mut system, &mut journal, &|| false)
                    .await
                    .unwrap_err();
                assert!(matches!(failure, ApplyError::Step { .. }), "{}: {failure}", case.name);
                assert_eq!(journal.pending().len(), at + 1, "{}", case.name);
                assert!(
                    apply::unwind(&mut system, &mut journal, &[]).await.is_empty(),
                    "{}",
                    case.name
                );
                assert_eq!(system.state, before.state, "{} {fault:?}", case.name);
            }
        }
    }
}

#[tokio::test]
async fn a_stop_between_any_two_steps_undoes_what_was_done() {
    for (case, plan) in plans().await {
        for at in 0..plan.steps.len() {
            let before = Model::of(&case.world);
            let (mut system, mut journal) = (before.clone(), MemoryJournal::default());
            let asked = std::sync::atomic::AtomicUsize::new(0);
            let stop = || asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) >= at;
            let left = apply::apply(&plan.steps, &mut system, &mut journal, &stop)
                .await
                .unwrap_err();
            assert!(matches!(left, ApplyError::Stopped));
            assert_eq!(system.calls.len(), at, "{}", case.name);
            assert!(apply::unwind(&mut system, &mut journal, &[]).await.is_empty());
            assert_eq!(system.state, before.state, "{} stopped before step {at}", case.name);
        }
    }
}

/// A daemon killed at any moment: its journal ends after some line, and the step begun last had its effect or had not.
#[tokio::test]
async fn what_a_killed_daemon_left_is_undone_from_its_journal() {
    for (case, plan) in plans().await {
        for begun in 1..=plan.steps.len() {
            for had_effect in [false, true] {
                let before = Model::of(&case.world);
                let (mut system, mut journal) = (before.clone(), MemoryJournal::default());
                apply::apply(&plan.steps[..begun - 1], &mut system, &mut journal, &|| false)
                    .await
                    .unwrap();
                journal.intend(&plan.steps[begun - 1]).await.unwrap();
                if had_effect {
                    let op = &plan.steps[begun - 1].apply;
                    clatd_stages::apply::System::apply(&mut system, op, None).await.unwrap();
                }
                // Its process and all that goes with it are gone; the next one reads the text.
                let torn = format!("{}{{\"v\":1,\"event\":\"int", journal.text);
                let ledger = Ledger::parse("killed.jsonl", &torn).unwrap();
                assert_eq!(ledger.pending(), journal.pending());
                assert!(apply::unwind(&mut system, &mut journal, &[]).await.is_empty());
                assert_eq!(
                    system.state, before.state,
                    "{} killed at step {begun}, effect: {had_effect}",
                    case.name
                );
            }
        }
    }
}

/// Undo goes on past errors and reports them all; what failed stays in the journal and is tried again.
#[tokio::test]
async fn an_undo_that_fails_stays_in_the_journal() {
    for (case, plan) in plans().await {
        let undos = plan
            .steps
            .iter()
            .filter(|step| matches!(step.undo, clatd_stages::op::Undo::Op(_)))
            .count();
        for at in 0..undos {
            let before = Model::of(&case.world);
            let (mut system, mut journal) = (before.clone(), MemoryJournal::default());
            apply::apply(&plan.steps, &mut system, &mut journal, &|| false)
                .await
                .unwrap();
            system.fault = Fault::Before(plan.steps.len() + at);
            let failures = apply::unwind(&mut system, &mut journal, &[]).await;
            assert_eq!(failures.len(), 1, "{}", case.name);
            assert_eq!(
                system.calls.len(),
                plan.steps.len() + undos,
                "{}: every other undo is done",
                case.name
            );
            let script = chain(&failures[0]).contains("script-down");
            assert_eq!(journal.pending().len(), usize::from(!script), "{}", case.name);
            system.fault = Fault::None;
            assert!(apply::unwind(&mut system, &mut journal, &[]).await.is_empty());
            assert_eq!(system.state, before.state, "{}", case.name);
        }
    }
}

#[tokio::test]
async fn what_stays_is_told_by_its_number_in_the_journal() {
    let (case, plan) = plans()
        .await
        .into_iter()
        .find(|(_, plan)| plan.steps.len() > 3)
        .unwrap();
    let (mut system, mut journal) = (Model::of(&case.world), MemoryJournal::default());
    let done = apply::apply(&plan.steps, &mut system, &mut journal, &|| false)
        .await
        .unwrap();
    assert!(done.iter().zip(&plan.steps).all(|(done, step)| done.step == *step));
    let second = done[1].seq;
    assert!(apply::unwind(&mut system, &mut journal, &[second]).await.is_empty());
    let left: Vec<u64> = journal.pending().iter().map(|pending| pending.seq).collect();
    assert_eq!(left, [second]);
}

#[tokio::test]
async fn a_plan_shares_its_head_with_a_changed_one() {
    let cases = cases::all();
    let find = |name: &str| cases.iter().find(|case| case.name == name).unwrap();
    let plan = |name: &'static str| async move { document(find(name)).await.unwrap().instances.remove(0) };
    let (default, bare) = (plan("no-fast-path").await, plan("defaultroute-bare").await);
    assert_eq!(common_head(&default.steps, &default.steps), default.steps.len());
    let head = common_head(&default.steps, &bare.steps);
    assert!(
        default.steps[head].apply.to_string().starts_with("add route default"),
        "{}",
        default.steps[head].apply
    );
}
