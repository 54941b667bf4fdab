//! Which way packets go, as the kernel and the routers that are silent have it.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv6Addr};

use clatd_stages::net::{Link, MAIN_TABLE, Route};
use clatd_stages::world::{RouteAnswer, World, WorldError};

use super::{SystemWorld, routers};
use crate::kernel::{NetlinkError, source_prefix};

impl SystemWorld {
    pub(super) async fn route(
        &self,
        destination: Ipv6Addr,
        device: Option<&str>,
        source: Option<Ipv6Addr>,
    ) -> Result<Option<RouteAnswer>, WorldError> {
        let index = match device {
            Some(device) => match self.index(device).await? {
                None => return Ok(None),
                index => index,
            },
            None => None,
        };
        let failed = |error: NetlinkError| WorldError::new(format!("looking up the route to {destination}"), error);
        let found = self
            .netlink
            .route_to(destination.into(), index, source)
            .await
            .map_err(failed)?;
        // With a source, the kernel takes the device only as a preference: other rules may lead elsewhere.
        let by_device = found.filter(|found| device.is_none_or(|device| device == found.device));
        let mut answer = match (by_device, device, source) {
            (Some(answer), _, _) => answer,
            (None, Some(device), Some(source)) => return self.route_in_table(destination, device, source).await,
            (None, _, _) => return Ok(None),
        };
        if let (Some(IpAddr::V6(gateway)), Some(link)) = (answer.gateway, self.link(&answer.device).await?) {
            let mut routes = self.leading_to(&link, destination).await?;
            routes.retain(|route| is_for(route, source));
            let next_hop = routers::next_hop(&self.netlink, &self.silent, link.index, &routes, destination, gateway);
            answer.gateway = Some(next_hop.await.map_err(failed)?.into());
        }
        Ok(Some(answer))
    }

    /// The routes in the table of this device that lead to a destination.
    pub(super) async fn leading_to(&self, link: &Link, destination: Ipv6Addr) -> Result<Vec<Route>, WorldError> {
        let table = self.table_of(link).await?;
        let routes = self.netlink.leading_to(table, link.index, destination).await;
        routes.map_err(|error| WorldError::new(format!("reading the routes to {destination}"), error))
    }

    /// The route by this device in its own table, whatever the rules say.
    pub(super) async fn route_in_table(
        &self,
        destination: Ipv6Addr,
        device: &str,
        source: Ipv6Addr,
    ) -> Result<Option<RouteAnswer>, WorldError> {
        let Some(link) = self.link(device).await? else {
            return Ok(None);
        };
        let mut routes = self.leading_to(&link, destination).await?;
        routes.retain(|route| {
            let leads_there = route.destination.contains(&IpAddr::V6(destination)) && !route.dead;
            leads_there && route.device.as_deref() == Some(device) && is_for(route, Some(source))
        });
        let best = routes.iter().min_by_key(|route| {
            let for_source = source_prefix(route).map_or(0, |prefix| prefix.prefix_len());
            (
                Reverse(route.destination.prefix_len()),
                Reverse(for_source),
                route.metric,
            )
        });
        Ok(best.map(|route| RouteAnswer {
            device: device.to_owned(),
            gateway: route.gateway,
            source: Some(source.into()),
        }))
    }

    /// The IPv6 default gateways of a device, or of all: which network it is in.
    pub(super) async fn gateways(&self, device: Option<&str>) -> Result<Vec<(String, Option<IpAddr>)>, WorldError> {
        let link = match device {
            Some(device) => self.link(device).await?,
            None => None,
        };
        let table = match &link {
            Some(link) => self.table_of(link).await?,
            None => MAIN_TABLE,
        };
        let defaults = self.routes6(table).await?;
        let mut gateways: Vec<_> = defaults
            .iter()
            .filter_map(|route| Some((route.device.as_ref()?, route.gateway)))
            .filter(|(name, _)| device.is_none_or(|device| device == *name))
            .map(|(name, gateway)| (name.clone(), gateway))
            .collect();
        gateways.sort();
        gateways.dedup();
        Ok(gateways)
    }

    /// The table with the routes of a device: the main table, or that of its VRF.
    pub(super) async fn table_of(&self, link: &Link) -> Result<u32, WorldError> {
        let Some(master) = link.master else {
            return Ok(MAIN_TABLE);
        };
        let links = self.links().await?;
        let vrf = links.iter().find(|link| link.index == master);
        Ok(vrf.and_then(|vrf| vrf.vrf_table).unwrap_or(MAIN_TABLE))
    }
}

/// Whether a route is for packets from this source, or for all where none is given.
fn is_for(route: &Route, source: Option<Ipv6Addr>) -> bool {
    let prefix = source_prefix(route);
    prefix.is_none_or(|prefix| source.is_some_and(|source| prefix.contains(&IpAddr::V6(source))))
}
