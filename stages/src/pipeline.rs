//! The stages in order, and the two walks over them: observe and plan.

use async_trait::async_trait;

use crate::address::AddressStage;
use crate::claims::Claims;
use crate::conncheck::ConncheckStage;
use crate::device::DeviceStage;
use crate::discovery::DiscoveryStage;
use crate::facts::Facts;
use crate::fast_path;
use crate::firewall::FirewallStage;
use crate::plan::{Plan, StageName};
use crate::proxynd::ProxyNdStage;
use crate::route::RouteStage;
use crate::script::ScriptStage;
use crate::stage::{Delay, Instance, ObserveError, PlanError, Readiness, Stage};
use crate::sysctl::SysctlStage;
use crate::translator::TranslatorStage;
use crate::world::World;

/// The stages in order.
fn stages() -> [&'static dyn Stage; 10] {
    [
        &ConncheckStage,
        &DiscoveryStage,
        &AddressStage,
        &DeviceStage,
        &SysctlStage,
        &ProxyNdStage,
        &FirewallStage,
        &RouteStage,
        &ScriptStage,
        &TranslatorStage,
    ]
}

/// Makes the plan of an instance out of what was observed.
pub fn plan(instance: &Instance, facts: Facts) -> Result<Plan, PlanError> {
    let mut steps = Vec::new();
    for stage in stages() {
        steps.extend(stage.plan(instance, &facts)?);
    }
    Ok(Plan {
        instance: instance.name.clone(),
        not_needed: fast_path::not_needed(instance, &facts),
        facts,
        steps,
    })
}

/// Takes the facts that show our own changes from the plan that made them.
pub fn keep_what_we_changed(old: &Facts, new: &mut Facts) {
    let uplink = |facts: &Facts| facts.uplink.as_ref().map(|uplink| uplink.value.index);
    if uplink(new) != uplink(old) {
        return;
    }
    for stage in stages() {
        stage.keep(old, new);
    }
}

/// What an observation does around its stages.
#[async_trait]
pub trait Walk: Send {
    /// A stage is next, and perhaps asks for a wait before it observes.
    async fn before(&mut self, delay: Option<Delay>);

    /// What a stage needs will come soon. Waits and returns true if the stage is to observe again.
    async fn again(&mut self, stage: StageName, what: &str) -> bool;

    /// A stage has observed.
    async fn observed(&mut self, facts: &Facts, verdict: &Result<Readiness, ObserveError>);
}

/// The walk of a dry run, which waits for nothing.
pub struct WithoutWaiting;

#[async_trait]
impl Walk for WithoutWaiting {
    async fn before(&mut self, _delay: Option<Delay>) {}

    async fn again(&mut self, _stage: StageName, _what: &str) -> bool {
        false
    }

    async fn observed(&mut self, _facts: &Facts, _verdict: &Result<Readiness, ObserveError>) {}
}

/// Observes stage after stage until one is not ready. `facts` then has what was found so far.
pub async fn observe(
    instance: &Instance,
    world: &dyn World,
    claims: &dyn Claims,
    facts: &mut Facts,
    walk: &mut dyn Walk,
) -> Result<Readiness, ObserveError> {
    for stage in stages() {
        walk.before(stage.delay(instance)).await;
        let verdict = loop {
            match stage.observe(instance, world, claims, facts).await {
                Err(ObserveError::NotYet { stage, what }) if walk.again(stage, &what).await => {}
                verdict => break verdict,
            }
        };
        walk.observed(facts, &verdict).await;
        if !matches!(verdict, Ok(Readiness::Ready)) {
            return verdict;
        }
    }
    Ok(Readiness::Ready)
}
