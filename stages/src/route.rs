//! Stage route: the CLAT's IPv6 address leads to its device, the IPv4 default route into it.

use async_trait::async_trait;
use ipnet::{IpNet, Ipv4Net};

use crate::conncheck::native_defaults;
use crate::facts::{Fact, Facts, Source};
use crate::net::Route as NetRoute;
use crate::op::Op;
use crate::plan::{StageName, Step};
use crate::settings::Settings;
use crate::stage::{Instance, ObserveError, PlanError, Stage, Verdict, world_error};
use crate::translator::mappings;
use crate::world::World;

/// The stage.
pub struct Route;

#[async_trait]
impl Stage for Route {
    fn name(&self) -> StageName {
        StageName::Route
    }

    async fn observe(
        &self,
        instance: &Instance,
        world: &dyn World,
        facts: &mut Facts,
    ) -> Result<Verdict, ObserveError> {
        if instance.settings.v4_defaultroute_enable && instance.settings.v4_defaultroute_replace {
            let routes = native_defaults(world).await.map_err(world_error(self.name()))?;
            facts.replaced_routes = Some(Fact::new(routes, Source::Kernel("IPv4 default routes in table main")));
        }
        Ok(Verdict::Ready)
    }

    fn plan(&self, instance: &Instance, facts: &Facts) -> Result<Vec<Step>, PlanError> {
        let settings = &instance.settings;
        let clat_v6 = facts.clat_v6_addr.as_ref().ok_or_else(|| PlanError {
            stage: self.name(),
            what: "no CLAT IPv6 address".into(),
        })?;
        let mut steps = Vec::new();
        for map in mappings(settings, clat_v6.value) {
            let to_clat = NetRoute::ours(IpNet::V6(map.v6), &settings.clat_dev);
            steps.push(added("packets from the PLAT to the CLAT go to the translator", to_clat));
        }
        if settings.v4_defaultroute_enable {
            let replaced = facts.replaced_routes.iter().flat_map(|routes| routes.value.iter());
            steps.extend(
                replaced.map(|route| removed("v4-defaultroute-replace: the CLAT takes its place", route.clone())),
            );
            steps.push(added("IPv4 goes through the CLAT", default_route(settings)));
        }
        Ok(steps)
    }
}

fn default_route(settings: &Settings) -> NetRoute {
    NetRoute {
        metric: settings.v4_defaultroute_metric,
        mtu: Some(settings.v4_defaultroute_mtu).filter(|&mtu| mtu > 0),
        advmss: settings.advmss(),
        ..NetRoute::ours(IpNet::V4(Ipv4Net::default()), &settings.clat_dev)
    }
}

fn added(why: &str, route: NetRoute) -> Step {
    Step::new(
        StageName::Route,
        why,
        Op::AddRoute { route: route.clone() },
        Op::RemoveRoute { route },
    )
}

fn removed(why: &str, route: NetRoute) -> Step {
    Step::new(
        StageName::Route,
        why,
        Op::RemoveRoute { route: route.clone() },
        Op::AddRoute { route },
    )
}
