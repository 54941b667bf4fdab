//! Stage firewall. An accept in a table of clatd's own does not override a drop in another base chain. So accept
//! rules go to the head of each chain that would drop, and exactly these rules are removed again.

pub mod ip6tables;
pub mod nftables;

use async_trait::async_trait;

use crate::claims::Claims;
use crate::facts::{Facts, FirewallFacts, Ip6tablesChain};
use crate::plan::{StageName, Step};
use crate::settings::{FirewallChoice, Settings};
use crate::shared;
use crate::stage::{Delay, Instance, ObserveError, PlanError, Readiness, Stage, world_error};
use crate::world::{World, WorldError};

/// The stage.
pub struct FirewallStage;

#[async_trait]
impl Stage for FirewallStage {
    fn name(&self) -> StageName {
        StageName::Firewall
    }

    fn delay(&self, _instance: &Instance) -> Option<Delay> {
        None
    }

    async fn observe(
        &self,
        instance: &Instance,
        world: &dyn World,
        _claims: &dyn Claims,
        facts: &mut Facts,
    ) -> Result<Readiness, ObserveError> {
        if facts.shared && facts.fast_path.is_none() {
            let command = &instance.settings.programs.cmd_nft;
            if world
                .program(command)
                .await
                .map_err(world_error(self.name()))?
                .is_none()
            {
                let what = format!(
                    "the CLAT shares the host's address, so its flows must be told from the host's, but the program `{command}` was not found; \
                     install nftables, set cmd-nft, or give the CLAT an address of its own by clat-v6-addr"
                );
                return Err(ObserveError::Unusable {
                    stage: self.name(),
                    what,
                });
            }
        }
        // A packet of the fast path passes no hook of IPv6 packet filters.
        if instance.settings.clat.firewall == FirewallChoice::None || facts.fast_path.is_some() {
            return Ok(Readiness::Ready);
        }
        let found = look(&instance.settings, facts.shared, world)
            .await
            .map_err(world_error(self.name()))?;
        if (wants_ip6tables(&instance.settings, found.ip6tables)
            || wants_ip6tables(&instance.settings, found.ip6tables_output))
            && world
                .program(&instance.settings.programs.cmd_ip6tables)
                .await
                .map_err(world_error(self.name()))?
                .is_none()
        {
            return Err(ObserveError::Unusable {
                stage: self.name(),
                what: format!(
                    "ip6tables rules are wanted, but the program `{}` was not found; install it, set cmd-ip6tables, or use \
                     ip6tables-enable=no",
                    instance.settings.programs.cmd_ip6tables
                ),
            });
        }
        facts.firewall = Some(found);
        Ok(Readiness::Ready)
    }

    fn keep(&self, _old: &Facts, _new: &mut Facts) {}

    fn plan(&self, instance: &Instance, facts: &Facts) -> Result<Vec<Step>, PlanError> {
        let mut steps: Vec<Step> = Vec::new();
        // The fast path tells the flows itself.
        if facts.shared && facts.fast_path.is_none() {
            steps.extend(shared::steering(&instance.settings, facts));
        }
        let Some(found) = &facts.firewall else { return Ok(steps) };
        let uplink = facts.uplink.as_ref().ok_or_else(|| PlanError {
            stage: self.name(),
            what: "no uplink".into(),
        })?;
        let path = Path {
            instance,
            uplink: &uplink.value.name,
            incoming: facts.incoming().unwrap_or(&uplink.value.name),
            facts,
        };
        for chain in &found.nft_chains {
            steps.extend(nftables::accept(&path, chain));
        }
        if wants_ip6tables(&instance.settings, found.ip6tables) {
            steps.extend(ip6tables::accept(&path, found.ip6tables));
        }
        if facts.shared && wants_ip6tables(&instance.settings, found.ip6tables_output) {
            steps.push(ip6tables::accept_output(&path));
        }
        Ok(steps)
    }
}

/// Between which devices packets must pass.
pub(crate) struct Path<'a> {
    pub(crate) instance: &'a Instance,
    pub(crate) uplink: &'a str,
    /// The input device of packets from the uplink, as a chain on hook forward sees it: the uplink's VRF if it is in
    /// one.
    pub(crate) incoming: &'a str,
    pub(crate) facts: &'a Facts,
}

fn wants_ip6tables(settings: &Settings, chain: Ip6tablesChain) -> bool {
    match (settings.clat.firewall, settings.clat.ip6tables_enable) {
        (FirewallChoice::None | FirewallChoice::Nftables, _) | (_, Some(false)) => false,
        (_, Some(true)) => true,
        (_, None) => chain == Ip6tablesChain::Drops,
    }
}

pub(crate) async fn look(settings: &Settings, shared: bool, world: &dyn World) -> Result<FirewallFacts, WorldError> {
    let mut found = FirewallFacts::default();
    let mut ip6tables_owns_filter = false;
    if settings.clat.firewall != FirewallChoice::Nftables
        && let Some(saved) = world.ip6tables_filter(&settings.programs.cmd_ip6tables).await?
    {
        found.ip6tables = ip6tables::judge(&saved);
        if shared {
            found.ip6tables_output = ip6tables::judge_output(&saved);
        }
        ip6tables_owns_filter = true;
        if found.ip6tables == Ip6tablesChain::Drops && !wants_ip6tables(settings, found.ip6tables) {
            found.notes.push(
                "the ip6tables FORWARD chain drops the CLAT's packets, and ip6tables-enable=no forbids clatd to change that"
                    .into(),
            );
        }
    }
    if settings.clat.firewall != FirewallChoice::Ip6tables {
        match world.nft_ruleset(&settings.programs.cmd_nft).await? {
            Some(ruleset) => found.nft_chains = nftables::judge(&ruleset, ip6tables_owns_filter, shared),
            None => found.notes.push(format!(
                "the program `{}` was not found, so nft chains were not examined",
                settings.programs.cmd_nft
            )),
        }
    }
    Ok(found)
}
