//! Stage script: the user's script-up is the last step before the translator starts. script-down is its undo, so it
//! runs right after the translator has stopped.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::claims::Claims;
use crate::facts::Facts;
use crate::op::{Op, ScriptRun, Undo};
use crate::plan::{StageName, Step};
use crate::route::default_route_mtu;
use crate::settings::RouteMtu;
use crate::stage::{Delay, Instance, ObserveError, PlanError, Readiness, Stage};
use crate::world::World;

/// The stage.
pub struct ScriptStage;

#[async_trait]
impl Stage for ScriptStage {
    fn name(&self) -> StageName {
        StageName::Script
    }

    fn delay(&self, _instance: &Instance) -> Option<Delay> {
        None
    }

    async fn observe(
        &self,
        _instance: &Instance,
        _world: &dyn World,
        _claims: &dyn Claims,
        _facts: &mut Facts,
    ) -> Result<Readiness, ObserveError> {
        Ok(Readiness::Ready)
    }

    fn keep(&self, _old: &Facts, _new: &mut Facts) {}

    fn plan(&self, instance: &Instance, facts: &Facts) -> Result<Vec<Step>, PlanError> {
        let settings = &instance.settings;
        let run = |event: &str, command: &String| {
            Op::RunScript(ScriptRun {
                event: event.to_owned(),
                command: command.clone(),
                environment: environment(instance, facts),
                timeout_s: settings.general.script_timeout,
                user: settings.general.script_user.clone(),
            })
        };
        if settings.general.script_up.is_none() && settings.general.script_down.is_none() {
            return Ok(Vec::new());
        }
        let apply = match &settings.general.script_up {
            Some(command) => run("script-up", command),
            None => Op::Nothing {
                what: "no script-up".into(),
            },
        };
        let undo = match &settings.general.script_down {
            Some(command) => Undo::Op(run("script-down", command)),
            None => Undo::nothing("no script-down"),
        };
        Ok(vec![Step {
            stage: self.name(),
            why: "the user asked for it".into(),
            apply,
            undo,
        }])
    }
}

/// Every setting under its key, with `_` for `-` and with detected values, and `instance`.
fn environment(instance: &Instance, facts: &Facts) -> BTreeMap<String, String> {
    let mut settings = instance.settings.clone();
    let mtu = default_route_mtu(&settings, facts);
    settings.ipv4.v4_defaultroute_mtu = RouteMtu::Bytes(mtu.unwrap_or(0));
    settings.ipv4.v4_defaultroute_advmss = Some(settings.advmss(mtu).unwrap_or(0));
    let mut environment: BTreeMap<String, String> = settings
        .to_text()
        .into_iter()
        .map(|(key, value)| (key.replace('-', "_"), value))
        .collect();
    let detected = [
        (
            "plat_prefix",
            facts.plat_prefix.as_ref().map(|fact| fact.value.to_string()),
        ),
        ("plat_dev", facts.uplink.as_ref().map(|fact| fact.value.name.clone())),
        (
            "clat_v6_addr",
            facts.clat_v6_addr.as_ref().map(|fact| fact.value.to_string()),
        ),
        (
            "v4_defaultroute_metric",
            facts.metric.as_ref().map(|fact| fact.value.to_string()),
        ),
        ("instance", Some(instance.name.clone())),
    ];
    environment.extend(
        detected
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?))),
    );
    environment
}
