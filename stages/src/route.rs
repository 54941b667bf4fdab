//! Stage route: which packets go where.
//!
//! Each instance has a routing table of its own in both families, so that its packets leave and enter by its uplink,
//! whatever the main table prefers and whatever other instances do:
//!
//! | rule | selects | leads to |
//! |---|---|---|
//! | IPv4 specific | from the CLAT's addresses, where main has a more specific route than the default | table main |
//! | IPv6 in | from the uplink (or this host) to the CLAT's addresses, unless it shares the host's | the CLAT device |
//! | IPv6 out | from the CLAT device | the uplink's own gateway |
//! | IPv4 out | from the CLAT's addresses, or of sockets bound to its device | the CLAT device |
//!
//! The main table gets the IPv4 default route, with a metric in the order of the uplinks' IPv6 default routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use async_trait::async_trait;
use clatd_translator::Pref64;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::claims::Claims;
use crate::conncheck::{link_local_metric, native_defaults};
use crate::device::{IPV6_MIN_MTU, own_addresses};
use crate::facts::{Fact, Facts, Source};
use crate::net::{LOCAL_TABLE, Link, MAIN_TABLE, Route, Rule};
use crate::op::Op;
use crate::plan::{StageName, Step};
use crate::settings::{RouteMtu, Settings};
use crate::shared;
use crate::stage::{Delay, Instance, ObserveError, PlanError, Readiness, Stage, world_error};
use crate::translator::mappings;
use crate::world::{World, WorldError};

/// The usual priority of the first rule: before the rule of VRFs (1000) and the usual rules of other programs.
const FIRST_PRIORITY: u32 = 464;

/// Places of the rules, counted from the first priority.
mod place {
    pub(super) const V4_SPECIFIC: u32 = 0;
    pub(super) const V4_TABLE: u32 = 1;
    pub(super) const V6_IN: u32 = 2;
    pub(super) const V6_OUT: u32 = 3;
}

/// Routes with a prefix this short do not count as more specific than a default route: VPNs have 0.0.0.0/1 and
/// 128.0.0.0/1. With 0 here, a program that deletes a rule such as `table main suppress_prefixlength 0` would delete
/// ours.
const HALF_OF_EVERYTHING: u32 = 1;

/// The kernel's metric of an IPv6 default route where none is given.
const USUAL_METRIC6: u32 = 1024;
/// How many instances fit between two metrics of uplinks.
const METRIC_ROOM: u32 = 16;

/// This is added to the metric of a CLAT whose uplink leads nowhere. Its default route stays, since it may be the
/// only one.
const BEHIND_ALL_OTHERS: u32 = 1 << 30;

/// An IPv6 header is larger than an IPv4 header by this many bytes.
pub(crate) const HEADER_DIFFERENCE: u32 = 20;
/// A fragment needs this many bytes more: IPv6 has a Fragment Header for fields of IPv4's header (RFC 7915 section
/// 4.1).
const FRAGMENT_HEADER: u32 = 8;

/// The stage.
pub struct RouteStage;

#[async_trait]
impl Stage for RouteStage {
    fn name(&self) -> StageName {
        StageName::Route
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
        let settings = &instance.settings;
        if settings.ipv4.v4_defaultroute_enable && settings.ipv4.v4_defaultroute_replace {
            let routes = native_defaults(MAIN_TABLE, world)
                .await
                .map_err(world_error(self.name()))?;
            facts.replaced_routes = Some(Fact::new(routes, Source::Kernel("IPv4 default routes in table main")));
        }
        let uplink = facts.uplink.as_ref().map(|uplink| uplink.value.clone());
        if let Some(uplink) = uplink {
            choose_gateway(&uplink, facts, world)
                .await
                .map_err(world_error(self.name()))?;
            facts.uplink_mtu = Some(ipv6_mtu(&uplink, world).await.map_err(world_error(self.name()))?);
            let metric = usual_metric(instance, &uplink, facts.uplink_table(), world)
                .await
                .map_err(world_error(self.name()))?;
            facts.metric = Some(match silent_gateway(&uplink, facts, world).await {
                Ok(None) => match silent_plat(&uplink, facts, world).await {
                    Ok(None) => metric,
                    Ok(Some(prefix)) => {
                        facts.notes.push(format!(
                            "the PLAT of {prefix} does not answer through {}; IPv4 leaves by other uplinks, if there are any",
                            uplink.name
                        ));
                        let last = metric.value.saturating_add(BEHIND_ALL_OTHERS);
                        Fact::new(last, Source::Derived("the PLAT does not answer"))
                    }
                    Err(failure) => return Err(world_error(self.name())(failure)),
                },
                Ok(Some(gateway)) => {
                    facts.notes.push(format!(
                        "the router {gateway} of {} does not answer; IPv4 leaves by other uplinks, if there are any",
                        uplink.name
                    ));
                    let last = metric.value.saturating_add(BEHIND_ALL_OTHERS);
                    Fact::new(last, Source::Derived("the uplink's router does not answer"))
                }
                Err(failure) => return Err(world_error(self.name())(failure)),
            });
        }
        Ok(Readiness::Ready)
    }

    /// The routes that were there before we replaced them.
    fn keep(&self, old: &Facts, new: &mut Facts) {
        let name = |facts: &Facts| facts.uplink.as_ref().map(|uplink| uplink.value.name.clone());
        let (before, now) = (name(old), name(new));
        new.replaced_routes.clone_from(&old.replaced_routes);
        let replaced = new.replaced_routes.iter_mut().flat_map(|routes| &mut routes.value);
        for route in replaced.filter(|route| route.device == before) {
            route.device.clone_from(&now);
        }
    }

    fn plan(&self, instance: &Instance, facts: &Facts) -> Result<Vec<Step>, PlanError> {
        let missing = |what: &str| PlanError {
            stage: self.name(),
            what: format!("no {what}"),
        };
        let clat_v6 = facts
            .clat_v6_addr
            .as_ref()
            .ok_or_else(|| missing("CLAT IPv6 address"))?;
        let uplink = facts.uplink.as_ref().ok_or_else(|| missing("uplink"))?;
        let planner = RoutePlanner {
            settings: &instance.settings,
            facts,
            uplink: &uplink.value.name,
            v6_networks: v6_networks(&instance.settings, facts, clat_v6.value),
        };
        let mut steps = Vec::new();
        // The fast path takes its packets directly from the uplink, and knows their next hop.
        if facts.fast_path.is_none() {
            steps.extend(planner.v6_in());
            steps.extend(planner.v6_out());
        }
        steps.extend(planner.v4_table());
        steps.extend(planner.v4_default());
        Ok(steps)
    }
}

/// The IPv6 networks that lead to the translator: the CLAT's own and the mapped ones. A delegated prefix leads there
/// as a whole: packets to the rest of it would loop between this host and its router (RFC 7084 WPD-5).
fn v6_networks(settings: &Settings, facts: &Facts, clat_v6: Ipv6Addr) -> Vec<Ipv6Net> {
    let delegated = facts.delegated_prefix.as_ref().map(|prefix| prefix.value);
    let mapped = mappings(settings, clat_v6).into_iter().map(|map| map.v6);
    let outside = mapped.filter(|network| !delegated.is_some_and(|prefix| prefix.contains(network)));
    delegated.into_iter().chain(outside).collect()
}

/// The gateway for packets from the CLAT's address. With several routers, each may serve the addresses of its own
/// prefix only (RFC 8028 section 3.2).
async fn choose_gateway(uplink: &Link, facts: &mut Facts, world: &dyn World) -> Result<(), WorldError> {
    let (Some(clat), Some(prefix)) = (&facts.clat_v6_addr, &facts.plat_prefix) else {
        return Ok(());
    };
    let route = world
        .route_from(clat.value, prefix.value.address(), &uplink.name)
        .await?;
    if let Some(route) = route {
        let source = Source::Kernel("route to the PLAT prefix");
        facts.plat_gateway = route.gateway.map(|gateway| Fact::new(gateway, source));
    }
    Ok(())
}

/// The uplink's router, if it does not answer. With several routers the fact names one that answers, if there is one.
async fn silent_gateway(uplink: &Link, facts: &Facts, world: &dyn World) -> Result<Option<IpAddr>, WorldError> {
    let Some(gateway) = facts.plat_gateway.as_ref().map(|gateway| gateway.value) else {
        return Ok(None);
    };
    Ok(world.is_silent(&uplink.name, gateway).await?.then_some(gateway))
}

/// The PLAT's prefix, if nothing comes back from it and it does not answer probes.
async fn silent_plat(uplink: &Link, facts: &Facts, world: &dyn World) -> Result<Option<Pref64>, WorldError> {
    let Some(prefix) = facts.plat_prefix.as_ref().map(|prefix| prefix.value) else {
        return Ok(None);
    };
    let gateway = facts.plat_gateway.as_ref().map(|gateway| gateway.value);
    let silent = world.is_plat_silent(&uplink.name, gateway, prefix).await?;
    Ok(silent.then_some(prefix))
}

/// The MTU of the uplink: the kernel's IPv6 MTU, which a router can lower, but not more than the link's.
async fn ipv6_mtu(uplink: &Link, world: &dyn World) -> Result<Fact<u32>, WorldError> {
    let said = world.sysctl(&format!("net/ipv6/conf/{}/mtu", uplink.name)).await?;
    let said = said.and_then(|text| text.parse().ok()).filter(|mtu| *mtu < uplink.mtu);
    Ok(match said {
        Some(mtu) => Fact::new(mtu, Source::Kernel("IPv6 MTU of the uplink")),
        None => Fact::new(uplink.mtu, Source::Kernel("MTU of the uplink")),
    })
}

/// The metric of the default route: the configured one, or one by rank. A route that leads no farther than the link
/// must not come before it.
async fn usual_metric(
    instance: &Instance,
    uplink: &Link,
    table: u32,
    world: &dyn World,
) -> Result<Fact<u32>, WorldError> {
    let rank = metric_of_uplink(uplink, table, world).await?;
    let metric = match instance.settings.ipv4.v4_defaultroute_metric {
        Some(metric) => Fact::new(metric, Source::Configuration),
        None => Fact::new(
            rank.saturating_mul(METRIC_ROOM).saturating_add(instance.ordinal),
            Source::Derived("metric of the uplink's IPv6 default route"),
        ),
    };
    match link_local_metric(MAIN_TABLE, world).await? {
        Some(limit) if metric.value >= limit => Ok(Fact::new(
            metric_below(limit, rank, instance.ordinal),
            Source::Derived("before an IPv4 default route that leads no farther than the link"),
        )),
        _ => Ok(metric),
    }
}

/// Default routes of CLATs stand in the order of their uplinks' IPv6 default routes. The place of an uplink depends
/// on its own route only, so other uplinks can come and go.
async fn metric_of_uplink(uplink: &Link, table: u32, world: &dyn World) -> Result<u32, WorldError> {
    let routes = world.routes6(table).await?;
    let own = routes
        .iter()
        .filter(|route| route.is_default())
        .filter(|route| route.device.as_ref() == Some(&uplink.name))
        .map(|route| route.metric)
        .min();
    Ok(own.unwrap_or(USUAL_METRIC6))
}

/// A metric below `limit`. CLATs stand in the order of their uplinks' metrics, as far as there are numbers below `limit`.
/// The metric is never 0, since the kernel prefers that to all others.
fn metric_below(limit: u32, own: u32, ordinal: u32) -> u32 {
    let ranks = (limit / METRIC_ROOM).saturating_sub(1);
    let rank = u64::from(ranks) * u64::from(own) / (u64::from(own) + u64::from(USUAL_METRIC6));
    let rank = u32::try_from(rank).unwrap_or(ranks);
    let metric = (rank * METRIC_ROOM).saturating_add(ordinal % METRIC_ROOM + 1);
    metric.min(limit.saturating_sub(1))
}

/// MTU of the IPv4 default route in bytes; `None` = none set.
pub fn default_route_mtu(settings: &Settings, facts: &Facts) -> Option<u32> {
    match settings.ipv4.v4_defaultroute_mtu {
        RouteMtu::Bytes(bytes) => Some(bytes).filter(|&bytes| bytes > 0),
        RouteMtu::Auto => {
            let mtu = facts.uplink_mtu.as_ref()?.value.max(IPV6_MIN_MTU);
            // Below that MTU the translator cuts every fragment to `lowest-ipv6-mtu` in any case, so a smaller route
            // MTU would gain nothing.
            let fragments_pass_uncut = settings.translator.lowest_ipv6_mtu >= mtu;
            Some(mtu - HEADER_DIFFERENCE - if fragments_pass_uncut { FRAGMENT_HEADER } else { 0 })
        }
    }
}

struct RoutePlanner<'a> {
    settings: &'a Settings,
    facts: &'a Facts,
    uplink: &'a str,
    v6_networks: Vec<Ipv6Net>,
}

impl RoutePlanner<'_> {
    fn table(&self) -> u32 {
        self.settings.clat.route_table
    }

    /// A rule at this place that leads to `table`. Without `rule-priority` it stays before other programs' rules,
    /// also before later ones.
    fn rule(&self, v6: bool, place: u32, table: u32) -> Rule {
        let first = self.settings.clat.rule_priority.unwrap_or(FIRST_PRIORITY);
        Rule {
            ahead: self.settings.clat.rule_priority.is_none(),
            ..Rule::ours(v6, first.saturating_add(place), table)
        }
    }

    fn clat(&self) -> &str {
        &self.settings.clat.clat_dev
    }

    fn v6_in(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut networks = self.v6_networks.as_slice();
        if let (true, Some((_, others))) = (self.facts.shared, networks.split_first()) {
            steps.push(self.next_hop_of_copies());
            networks = others;
        }
        let from = self.facts.incoming().unwrap_or(self.uplink);
        for network in networks {
            let route = Route {
                table: self.table(),
                ..Route::ours(IpNet::V6(*network), self.clat())
            };
            steps.push(route_added("packets to the CLAT go to the translator", route));
            // The kernel sends its own errors about packets of the CLAT from this host (iif lo).
            for (device, why) in [
                (from, "what the uplink brings for the CLAT"),
                ("lo", "what this host itself sends to the CLAT"),
            ] {
                steps.push(rule_added(
                    why,
                    Rule {
                        iif: Some(device.to_owned()),
                        to: Some(IpNet::V6(*network)),
                        ..self.rule(true, place::V6_IN, self.table())
                    },
                ));
            }
        }
        steps
    }

    /// The CLAT's address is the host's own, so the packet filter picks the CLAT's packets and sends copies to this next
    /// hop. The route stands in table local, since no rule of others comes before that table.
    fn next_hop_of_copies(&self) -> Step {
        let next_hop = Ipv6Net::from(shared::next_hop(self.settings));
        let route = Route {
            table: LOCAL_TABLE,
            ..Route::ours(IpNet::V6(next_hop), self.clat())
        };
        route_added("the packet filter hands replies to the CLAT by this next hop", route)
    }

    fn v6_out(&self) -> Vec<Step> {
        let gateway = self.facts.plat_gateway.as_ref().map(|gateway| gateway.value);
        let route = Route {
            gateway,
            table: self.table(),
            ..Route::ours(IpNet::V6(Ipv6Net::default()), self.uplink)
        };
        let rule = Rule {
            iif: Some(self.clat().to_owned()),
            ..self.rule(true, place::V6_OUT, self.table())
        };
        vec![
            route_added("the CLAT's packets leave by its uplink's own gateway", route),
            rule_added("whatever the main table prefers", rule),
        ]
    }

    fn v4_table(&self) -> Vec<Step> {
        let mut steps = vec![route_added(
            "IPv4 of this instance",
            self.default_route(self.table(), 0),
        )];
        for address in own_addresses(self.settings) {
            let from = Some(IpNet::from(IpAddr::from(address)));
            steps.push(rule_added(
                "more specific routes come first",
                Rule {
                    from,
                    suppress_prefixlen: Some(HALF_OF_EVERYTHING),
                    ..self.rule(false, place::V4_SPECIFIC, MAIN_TABLE)
                },
            ));
            steps.push(rule_added(
                "sockets bound to the CLAT's address leave by its uplink",
                Rule {
                    from,
                    ..self.rule(false, place::V4_TABLE, self.table())
                },
            ));
        }
        steps.push(rule_added(
            "sockets bound to the CLAT's device leave by its uplink",
            Rule {
                oif: Some(self.clat().to_owned()),
                ..self.rule(false, place::V4_TABLE, self.table())
            },
        ));
        steps
    }

    fn v4_default(&self) -> Vec<Step> {
        if !self.settings.ipv4.v4_defaultroute_enable {
            return Vec::new();
        }
        let replaced = self.facts.replaced_routes.iter().flat_map(|routes| routes.value.iter());
        let mut steps: Vec<Step> = replaced
            .map(|route| route_removed("v4-defaultroute-replace: the CLAT takes its place", route.clone()))
            .collect();
        let metric = self.facts.metric.as_ref().map_or(0, |metric| metric.value);
        steps.push(route_added(
            "IPv4 goes through the CLAT",
            self.default_route(MAIN_TABLE, metric),
        ));
        steps
    }

    fn default_route(&self, table: u32, metric: u32) -> Route {
        let everything = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0));
        let mtu = default_route_mtu(self.settings, self.facts);
        Route {
            metric,
            table,
            mtu,
            advmss: self.settings.advmss(mtu),
            ..Route::ours(everything, self.clat())
        }
    }
}

fn route_added(why: &str, route: Route) -> Step {
    Step::new(
        StageName::Route,
        why,
        Op::AddRoute { route: route.clone() },
        Op::RemoveRoute { route },
    )
}

fn route_removed(why: &str, route: Route) -> Step {
    Step::new(
        StageName::Route,
        why,
        Op::RemoveRoute { route: route.clone() },
        Op::AddRoute { route },
    )
}

fn rule_added(why: &str, rule: Rule) -> Step {
    Step::new(
        StageName::Route,
        why,
        Op::AddRule { rule: rule.clone() },
        Op::RemoveRule { rule },
    )
}

#[cfg(test)]
mod tests {
    use super::metric_below;

    #[test]
    fn metrics_below_a_limit_keep_the_order_of_the_uplinks() {
        let metrics = [100, 600, 1024, 20100].map(|own| metric_below(202, own, 0));
        assert!(metrics.is_sorted(), "{metrics:?}");
        assert_eq!((metrics[0], metrics[3] < 202), (1, true), "{metrics:?}");
        for (limit, ordinal) in [(1, 0), (2, 0), (5, 3), (16, 15), (202, 15)] {
            let metric = metric_below(limit, 1024, ordinal);
            assert!(metric < limit, "{metric} is below {limit}");
        }
        assert_ne!(metric_below(202, 1024, 0), metric_below(202, 1024, 1));
        // The room is used: the worst uplink comes last but one rank.
        assert_eq!(metric_below(2048, u32::MAX, 0), 2048 - 2 * 16 + 1);
        assert_eq!(metric_below(0, 1024, 0), 0);
    }
}
