//! Routes and policy rules.

use clatd_stages::journal::Outcome;
use clatd_stages::net::{ROUTE_PROTOCOL, Route, Rule};

use super::addresses::link;
use super::failure::{Done, Failure, NOTHING, changed_nothing, existed, gone};
use super::netlink::{FoundRule, Netlink, NetlinkError, raw_of, same};

/// Adds a route, or puts back one that was read from the kernel. `waiting` are the routes whose next hop is reached by
/// one that is yet to be put back.
pub(crate) async fn add(netlink: &Netlink, route: &Route, outcome: Option<&Outcome>, waiting: &mut Vec<Route>) -> Done {
    if changed_nothing(outcome) {
        return Ok(NOTHING);
    }
    if route.raw.is_some() {
        let mut next = vec![route.clone()];
        next.append(waiting);
        for route in next {
            if !restore(netlink, &route).await? {
                waiting.push(route);
            }
        }
        return Ok(NOTHING);
    }
    let index = match &route.device {
        Some(device) => Some(link(netlink, device).await?.index),
        None => None,
    };
    match netlink.add_route(route, index).await {
        Ok(()) => Ok(NOTHING),
        Err(error) if error.errno() == libc::EEXIST => conflict(netlink, route, error).await,
        Err(error) if error.errno() == libc::ENETDOWN => Err(Failure::new(error).hint("its device is down")),
        Err(error) => Err(error.into()),
    }
}

/// Removes exactly this route.
pub(crate) async fn remove(netlink: &Netlink, route: &Route, outcome: Option<&Outcome>) -> Done {
    if changed_nothing(outcome) {
        return Ok(NOTHING);
    }
    let routes = netlink.routes_like(route).await?;
    let Some(raw) = routes.iter().find(|found| same(route, found)).and_then(raw_of) else {
        return Ok(gone());
    };
    match netlink.delete_route(&raw).await {
        Ok(()) => Ok(NOTHING),
        Err(error) if matches!(error.errno(), libc::ESRCH | libc::ENODEV) => Ok(gone()),
        Err(error) => Err(error.into()),
    }
}

/// Puts a route back; `false` = its next hop cannot be reached. A route that the kernel would have dropped by itself
/// while it was away is not brought back.
async fn restore(netlink: &Netlink, route: &Route) -> Result<bool, Failure> {
    let raw = raw_of(route).ok_or_else(|| Failure::new("its message is not in hex"))?;
    let index = match &route.device {
        Some(device) => match netlink.link(device).await? {
            Some(link) => Some(link.index),
            None => {
                tracing::info!(%route, "not put back: its device is gone");
                return Ok(true);
            }
        },
        None => None,
    };
    let Err(error) = netlink.restore_route(&raw, index).await else {
        return Ok(true);
    };
    match error.errno() {
        libc::EEXIST => Ok(true),
        libc::ENODEV | libc::ENETDOWN => {
            tracing::warn!(%route, %error, "not put back: its device is down or gone");
            Ok(true)
        }
        libc::ENETUNREACH | libc::EHOSTUNREACH => {
            tracing::warn!(%route, %error, "not put back unless another route makes its next hop reachable");
            Ok(false)
        }
        _ => Err(error.into()),
    }
}

async fn conflict(netlink: &Netlink, route: &Route, error: NetlinkError) -> Done {
    let routes = netlink.routes_to(route).await?;
    if routes.iter().any(|found| same(route, found)) {
        return Ok(if route.protocol == ROUTE_PROTOCOL {
            NOTHING
        } else {
            existed()
        });
    }
    let rival = routes
        .iter()
        .find(|found| found.destination.trunc() == route.destination.trunc() && found.metric == route.metric);
    let hint = match rival {
        Some(rival) => format!("`{rival}` has the same destination and metric; choose another metric"),
        None => "another route has the same destination and metric; choose another metric".to_owned(),
    };
    Err(Failure::new(error).hint(hint))
}

/// Adds a policy rule.
pub(crate) async fn add_rule(netlink: &Netlink, rule: &Rule, outcome: Option<&Outcome>) -> Done {
    if changed_nothing(outcome) {
        return Ok(NOTHING);
    }
    match netlink.add_rule(rule).await {
        Ok(()) => Ok(NOTHING),
        Err(error) if error.errno() == libc::EEXIST => match find_rule(netlink, rule).await? {
            Some(_) if rule.protocol == ROUTE_PROTOCOL => Ok(NOTHING),
            Some(_) => Ok(existed()),
            None => Err(Failure::new(error)
                .hint("a rule that differs only in its protocol number exists; delete it or leave the work to it")),
        },
        Err(error) => Err(error.into()),
    }
}

/// Removes exactly this policy rule.
pub(crate) async fn remove_rule(netlink: &Netlink, rule: &Rule, outcome: Option<&Outcome>) -> Done {
    if changed_nothing(outcome) {
        return Ok(NOTHING);
    }
    let rules = netlink.rules(rule.v6).await?;
    let Some(found) = rules.iter().find(|found| found.plain && found.rule == *rule) else {
        return Ok(gone());
    };
    // The kernel deletes the first rule that has all that it is told; it cannot be told what a rule must not have.
    if rules
        .iter()
        .take_while(|rival| *rival != found)
        .any(|rival| rival.rule == *rule)
    {
        let what = "the kernel would delete the rule before it in its place, which differs only in selecting more";
        return Err(Failure::new(what).hint(format!("delete the other rule with priority {} first", rule.priority)));
    }
    match netlink.delete_rule(found).await {
        Ok(()) => Ok(NOTHING),
        Err(error) if error.errno() == libc::ENOENT => Ok(gone()),
        Err(error) => Err(error.into()),
    }
}

async fn find_rule(netlink: &Netlink, rule: &Rule) -> Result<Option<FoundRule>, NetlinkError> {
    Ok(netlink
        .rules(rule.v6)
        .await?
        .into_iter()
        .find(|found| found.plain && found.rule == *rule))
}
