//! Stage conncheck: is there native IPv4 connectivity? As in the 2016 clatd, an IPv4 default route counts as such.
//! Routes of CLATs never count, nor do routes that lead no farther than the link (RFC 3927 section 2.7).
//!
//! For a running CLAT only its own uplink counts: an IPv4 default route by another device may be that of a VPN which
//! runs over the CLAT.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;

use crate::claims::Claims;
use crate::facts::{Fact, Facts, Source};
use crate::net::{MAIN_TABLE, ROUTE_PROTOCOL, Route};
use crate::plan::{StageName, Step};
use crate::settings::{ConncheckScope, Settings};
use crate::stage::{Delay, Instance, ObserveError, PlanError, Readiness, Stage, world_error};
use crate::uplink;
use crate::world::{World, WorldError};

/// The stage.
pub struct ConncheckStage;

/// Whether the check is made. If the CLAT replaces the default routes, it is pointless.
fn enabled(settings: &Settings) -> bool {
    settings.ipv4.v4_conncheck_enable && !settings.ipv4.v4_defaultroute_replace
}

#[async_trait]
impl Stage for ConncheckStage {
    fn name(&self) -> StageName {
        StageName::Conncheck
    }

    fn delay(&self, instance: &Instance) -> Option<Delay> {
        let seconds = instance
            .settings
            .ipv4
            .v4_conncheck_delay
            .filter(|_| enabled(&instance.settings))?;
        (seconds > 0).then_some(Delay {
            time: Duration::from_secs(seconds.into()),
            what_for: "native IPv4 connectivity (v4-conncheck-delay)",
        })
    }

    async fn observe(
        &self,
        instance: &Instance,
        world: &dyn World,
        _claims: &dyn Claims,
        facts: &mut Facts,
    ) -> Result<Readiness, ObserveError> {
        match instance.settings.ipv4.v4_conncheck_scope {
            ConncheckScope::Host => judge(&instance.settings, None, world, facts)
                .await
                .map_err(world_error(self.name())),
            // The uplink is not known before discovery, which calls `judge_uplink`.
            ConncheckScope::Uplink => Ok(Readiness::Ready),
        }
    }

    fn keep(&self, _old: &Facts, _new: &mut Facts) {}

    fn plan(&self, _instance: &Instance, _facts: &Facts) -> Result<Vec<Step>, PlanError> {
        Ok(Vec::new())
    }
}

/// The check of `v4-conncheck-scope=uplink`, once the uplink is known.
pub(crate) async fn judge_uplink(
    instance: &Instance,
    uplink: &str,
    world: &dyn World,
    facts: &mut Facts,
) -> Result<Readiness, WorldError> {
    match instance.settings.ipv4.v4_conncheck_scope {
        ConncheckScope::Uplink => judge(&instance.settings, Some(uplink), world, facts).await,
        ConncheckScope::Host => Ok(Readiness::Ready),
    }
}

async fn judge(
    settings: &Settings,
    uplink: Option<&str>,
    world: &dyn World,
    facts: &mut Facts,
) -> Result<Readiness, WorldError> {
    if !enabled(settings) {
        return Ok(Readiness::Ready);
    }
    let table = uplink.map_or(MAIN_TABLE, |_| facts.uplink_table());
    let mut native = native_defaults(table, world).await?;
    if let Some(uplink) = uplink {
        native.retain(|route| route.device.as_deref() == Some(uplink));
    }
    leave_out_others(&mut native, world, facts).await?;
    let shown: Vec<String> = native
        .iter()
        .filter(|route| !route.dead)
        .map(ToString::to_string)
        .collect();
    let where_looked = match table {
        MAIN_TABLE => "IPv4 default routes in table main",
        _ => "IPv4 default routes in the table of the uplink's VRF",
    };
    let verdict = match shown.first() {
        Some(route) => Readiness::idle(format!(
            "this system already has IPv4 connectivity ({route}); no need for a CLAT"
        )),
        None => Readiness::Ready,
    };
    facts.native_ipv4 = Some(Fact::new(shown, Source::Kernel(where_looked)));
    Ok(verdict)
}

/// Leaves out routes by other devices that came while the CLAT ran.
async fn leave_out_others(native: &mut Vec<Route>, world: &dyn World, facts: &mut Facts) -> Result<(), WorldError> {
    let with_route: BTreeSet<String> = native.iter().filter_map(|route| route.device.clone()).collect();
    facts.memory.beside.retain(|device| with_route.contains(device));
    if let Some(uplink) = uplink::running(world, facts).await? {
        facts.memory.beside = with_route;
        facts.memory.beside.remove(&uplink.name);
    }
    native.retain(|route| {
        !route
            .device
            .as_ref()
            .is_some_and(|device| facts.memory.beside.contains(device))
    });
    Ok(())
}

/// The smallest metric of the IPv4 default routes that lead no farther than the link; `None` = there is none.
pub(crate) async fn link_local_metric(table: u32, world: &dyn World) -> Result<Option<u32>, WorldError> {
    let mut smallest = None;
    for route in foreign_defaults(table, world).await? {
        if is_link_local(&route, world).await? {
            smallest = Some(smallest.map_or(route.metric, |metric: u32| metric.min(route.metric)));
        }
    }
    Ok(smallest)
}

/// Whether packets on this route have a link-local source, which no router forwards (RFC 3927 section 2.7).
async fn is_link_local(route: &Route, world: &dyn World) -> Result<bool, WorldError> {
    if let Some(IpAddr::V4(source)) = route.source {
        return Ok(source.is_link_local());
    }
    let Some(device) = &route.device else { return Ok(false) };
    let addresses = world.addresses4(device).await?;
    Ok(!addresses.is_empty() && addresses.iter().all(std::net::Ipv4Addr::is_link_local))
}

/// The IPv4 default routes of a table that no CLAT made and that lead to the internet.
pub(crate) async fn native_defaults(table: u32, world: &dyn World) -> Result<Vec<Route>, WorldError> {
    let mut native = Vec::new();
    for route in foreign_defaults(table, world).await? {
        if !is_link_local(&route, world).await? {
            native.push(route);
        }
    }
    Ok(native)
}

/// The IPv4 default routes of a table that no CLAT made.
async fn foreign_defaults(table: u32, world: &dyn World) -> Result<Vec<Route>, WorldError> {
    let clats: BTreeSet<String> = world
        .links()
        .await?
        .iter()
        .filter(|link| link.is_clat())
        .map(|link| link.name.clone())
        .collect();
    let mut routes = world.routes4(table).await?;
    routes.retain(|route| {
        let ours =
            route.protocol == ROUTE_PROTOCOL || route.device.as_ref().is_some_and(|device| clats.contains(device));
        route.is_default() && !ours
    });
    Ok(routes)
}
