//! What happens in this host: clatd's own work, packet filters, routes.

use super::Judge;
use crate::doctor::{Check, Judgement};
use crate::facts::{Ip6tablesChain, NftChain};
use crate::plan::StageName;

impl Judge<'_> {
    /// What clatd did in this host and somebody else undid.
    pub(super) fn own_work(&mut self) {
        if !self.seen.is_up() {
            return;
        }
        let clat = self.instance.settings.clat.clat_dev.clone();
        let forwarding = match self.by_fast_path() {
            true => "the CLAT's sysctls are as it set them; the fast path needs no forwarding",
            false => "forwarding is on where the CLAT needs it",
        };
        for (check, stages, good) in [
            (
                Check::Device,
                &[StageName::Device][..],
                format!("the CLAT device {clat} is up"),
            ),
            (
                Check::Claim,
                &[StageName::ProxyNd],
                "the uplink answers for the CLAT's IPv6 address".to_owned(),
            ),
            (Check::Forwarding, &[StageName::Sysctl], forwarding.to_owned()),
            (
                Check::Filter,
                &[StageName::Firewall],
                "clatd's rules are in place".to_owned(),
            ),
            (
                Check::Route,
                &[StageName::Route],
                "clatd's routes and rules are in place".to_owned(),
            ),
        ] {
            let undone = self.seen.undone.iter().filter(|(stage, _)| stages.contains(stage));
            let undone: Vec<&str> = undone.map(|(_, op)| op.as_str()).collect();
            if undone.is_empty() {
                // Where the plan has no rules, none are in place.
                if check != Check::Filter || self.seen.accepts > 0 {
                    self.say(check, Judgement::Good, good);
                }
            } else {
                self.wrong(
                    check,
                    format!("somebody undid what the CLAT needs: {}", undone.join("; ")),
                    "clatd does it again within seconds; if it stays undone, find out who undoes it (clatd's log tells when)",
                );
            }
        }
    }

    pub(super) fn filters(&mut self) {
        let Some(found) = &self.seen.firewall else { return };
        let by_fast_path = self.by_fast_path();
        let mut chains: Vec<String> = found.nft_chains.iter().map(named).collect();
        if found.ip6tables == Ip6tablesChain::Drops {
            chains.push("the ip6tables chain FORWARD".to_owned());
        }
        if chains.is_empty() {
            let good = match by_fast_path {
                true => "the CLAT's IPv6 packets pass no packet filter of this host: the fast path forwards none",
                false => "no packet filter stands in the way of forwarded IPv6",
            };
            return self.say(Check::Filter, Judgement::Good, good);
        }
        let chains = chains.join(" and ");
        if by_fast_path {
            return self.say(
                Check::Filter,
                Judgement::Good,
                format!("{chains} would drop forwarded packets, which does not matter: the fast path forwards none"),
            );
        }
        match (self.seen.is_up(), self.seen.accepts) {
            (true, 0) if self.works() => self.say(
                Check::Filter,
                Judgement::Note,
                format!("{chains} might drop packets of the CLAT, but does not drop all"),
            ),
            (true, 0) => self.wrong(
                Check::Filter,
                format!("{chains} would drop the CLAT's packets between it and the uplink: packets stop in this host"),
                "firewall=auto (the default) and ip6tables-enable unset let clatd accept exactly these packets; or accept them \
                 yourself, from and to the CLAT device",
            ),
            (true, _) => self.say(
                Check::Filter,
                Judgement::Good,
                format!("{chains} would drop the CLAT's packets, and clatd's rules in it let them pass"),
            ),
            (false, _) => self.say(
                Check::Filter,
                Judgement::Note,
                format!("{chains} would drop the CLAT's packets; clatd lets them pass while it runs, unless told otherwise"),
            ),
        }
    }

    /// Which IPv4 default route wins, and why.
    pub(super) fn routes(&mut self) {
        let clat = self.instance.settings.clat.clat_dev.clone();
        for (route, answers) in &self.seen.native4 {
            if *answers == Some(false) {
                self.wrong(
                    Check::Route,
                    format!("the IPv4 default route \"{route}\" leads to a router that does not answer"),
                    "take it away (ip route del), or let the CLAT take its place (v4-defaultroute-replace=yes)",
                );
            }
        }
        let Some(way) = &self.seen.route4 else {
            if self.seen.is_up() && self.instance.settings.ipv4.v4_defaultroute_enable {
                self.wrong(
                    Check::Route,
                    "this host has no route for IPv4: packets stop before the CLAT",
                    "look at ip -4 rule and ip -4 route: a rule or a route of somebody else's leads to nothing",
                );
            }
            return;
        };
        if way.device == clat {
            return self.say(
                Check::Route,
                Judgement::Good,
                format!("IPv4 leaves this host by {clat}"),
            );
        }
        let by_clat = self
            .seen
            .links
            .iter()
            .any(|link| link.name == way.device && link.is_clat());
        if by_clat {
            return self.say(
                Check::Route,
                Judgement::Good,
                format!(
                    "IPv4 leaves this host by the CLAT {}, which is preferred to {clat}",
                    way.device
                ),
            );
        }
        self.foreign_route(&way.device, &clat);
    }

    /// IPv4 leaves by a device that is no CLAT.
    fn foreign_route(&mut self, device: &str, clat: &str) {
        let seen = self.seen;
        let route = seen
            .native4
            .iter()
            .map(|(route, _)| route)
            .filter(|route| route.device.as_deref() == Some(device) && !route.dead)
            .min_by_key(|route| route.metric);
        let wanted = seen.is_up() && self.instance.settings.ipv4.v4_defaultroute_enable;
        if !wanted {
            let what = match route {
                Some(route) => format!("IPv4 leaves this host by the native route \"{route}\""),
                None => format!("IPv4 leaves this host by {device}"),
            };
            return self.say(Check::Route, Judgement::Note, what);
        }
        let own = self
            .seen
            .running
            .as_ref()
            .and_then(|running| running.facts.metric.as_ref());
        let metric = own.map_or(0, |metric| metric.value);
        let (what, advice) = match route {
            Some(route) => (
                format!(
                    "IPv4 leaves this host by {device}, not by {clat}: the default route \"{route}\" wins, because its \
                     metric {} is lower than {metric}",
                    route.metric
                ),
                "take that route away, or give the CLAT a lower metric (v4-defaultroute-metric), or let it take the route's \
                 place (v4-defaultroute-replace=yes)",
            ),
            None => (
                format!(
                    "IPv4 leaves this host by {device}, not by {clat}: a rule or a more specific route of another program \
                     comes before the CLAT's default route"
                ),
                "look for it with ip -4 rule and ip -4 route, and take it away",
            ),
        };
        self.wrong(Check::Route, what, advice);
    }
}

pub(super) fn named(chain: &NftChain) -> String {
    format!(
        "the nft chain {} {} {} (hook {}, {})",
        chain.family, chain.table, chain.chain, chain.hook, chain.reason
    )
}
