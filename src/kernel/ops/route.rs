//! Routes: ours, and those of others that clatd replaces.

use std::borrow::Cow;

use clatd_stages::journal::Outcome;
use clatd_stages::net::{ROUTE_PROTOCOL, Route};
use clatd_stages::world::WorldError;

use super::super::Kernel;
use super::super::failure::{Failure, NOTHING, OpResult, changed_nothing, existed, gone};
use super::super::netlink::{Netlink, NetlinkError, raw_of, same};
use super::{Look, Nature, Operation, Sweep, failed, link};

/// A route, and what its device is called now.
pub(super) struct Of<'a> {
    route: &'a Route,
    device: Option<&'a str>,
}

impl<'a> From<&'a Route> for Of<'a> {
    fn from(route: &'a Route) -> Self {
        let device = route.device.as_deref();
        Self { route, device }
    }
}

impl Of<'_> {
    fn now(&self) -> Cow<'_, Route> {
        if self.route.device.as_deref() == self.device {
            return Cow::Borrowed(self.route);
        }
        Cow::Owned(Route {
            device: self.device.map(str::to_owned),
            ..self.route.clone()
        })
    }
}

pub(super) enum Change<'a> {
    Add(Of<'a>),
    Remove(Of<'a>),
}

impl<'a> Operation<'a> for Change<'a> {
    fn nature(&self) -> Nature {
        match self {
            Self::Add(of) => Nature {
                // Somebody else's route may take its place. The mirror drops the events of such routes, except default routes.
                untold: !of.route.is_default(),
                atomic: true,
                swept: true,
                // A route of somebody else's goes back on a device that was unplugged and plugged in again, too.
                outlives_device: true,
            },
            Self::Remove(_) => Nature {
                untold: false,
                atomic: true,
                swept: false,
                outlives_device: false,
            },
        }
    }

    fn device(&mut self) -> Option<&mut &'a str> {
        match self {
            Self::Add(of) | Self::Remove(of) => of.device.as_mut(),
        }
    }

    async fn carry_out(&self, kernel: &mut Kernel, outcome: Option<&Outcome>) -> OpResult {
        let netlink = &kernel.netlink;
        match self {
            Self::Add(of) => add(netlink, &of.now(), outcome, &mut kernel.waiting).await,
            Self::Remove(of) => remove(netlink, &of.now(), outcome).await,
        }
    }

    async fn stands(&self, look: &mut Look<'_>) -> Result<bool, WorldError> {
        match self {
            Self::Add(Of { route, .. }) => {
                let routes = look.netlink.routes_like(route).await;
                let routes = routes.map_err(|error| failed("a route", error))?;
                Ok(routes.iter().any(|found| same(route, found)))
            }
            // A removed route that is back is a change of the network: the next plan sees it.
            Self::Remove(_) => Ok(true),
        }
    }
}

/// Removes routes with our protocol number.
pub(super) async fn sweep(sweep: &mut Sweep<'_>) -> Result<(), Failure> {
    let netlink = sweep.netlink.clone();
    for v6 in [false, true] {
        for route in netlink.routes_by_protocol(v6, ROUTE_PROTOCOL).await? {
            let removed = async {
                match raw_of(&route) {
                    Some(raw) => Ok(netlink.delete_route(raw).await?),
                    None => Ok(()),
                }
            };
            sweep.remove(format!("remove route {route}"), removed).await;
        }
    }
    Ok(())
}

/// Adds a route, or restores one that was read from the kernel. `waiting` are routes whose next hop needs another
/// route that is not restored yet.
async fn add(netlink: &Netlink, route: &Route, outcome: Option<&Outcome>, waiting: &mut Vec<Route>) -> OpResult {
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
async fn remove(netlink: &Netlink, route: &Route, outcome: Option<&Outcome>) -> OpResult {
    if changed_nothing(outcome) {
        return Ok(NOTHING);
    }
    let routes = netlink.routes_like(route).await?;
    let Some(raw) = routes.iter().find(|found| same(route, found)).and_then(raw_of) else {
        return Ok(gone());
    };
    match netlink.delete_route(raw).await {
        Ok(()) => Ok(NOTHING),
        Err(error) if matches!(error.errno(), libc::ESRCH | libc::ENODEV) => Ok(gone()),
        Err(error) => Err(error.into()),
    }
}

/// Restores a route; `false` = its next hop cannot be reached. A route that the kernel itself would have removed
/// meanwhile is not restored.
async fn restore(netlink: &Netlink, route: &Route) -> Result<bool, Failure> {
    let raw = raw_of(route).ok_or_else(|| Failure::new("the route was not read from the kernel"))?;
    let index = match &route.device {
        Some(device) => match netlink.link(device).await? {
            Some(link) => Some(link.index),
            None => {
                tracing::info!(%route, "not restored: its device is gone");
                return Ok(true);
            }
        },
        None => None,
    };
    let Err(error) = netlink.restore_route(raw, index).await else {
        return Ok(true);
    };
    match error.errno() {
        libc::EEXIST => Ok(true),
        libc::ENODEV | libc::ENETDOWN => {
            tracing::warn!(%route, %error, "not restored: its device is down or gone");
            Ok(true)
        }
        libc::ENETUNREACH | libc::EHOSTUNREACH => {
            tracing::warn!(%route, %error, "not restored unless another route makes its next hop reachable");
            Ok(false)
        }
        _ => Err(error.into()),
    }
}

async fn conflict(netlink: &Netlink, route: &Route, error: NetlinkError) -> OpResult {
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
