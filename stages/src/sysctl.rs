//! Stage sysctl: IPv6 forwarding between uplink and CLAT, with no more side effects than it must have.
//!
//! Linux 6.17 brought `force_forwarding` per device, which forwards without making the host a router elsewhere;
//! before, `all/forwarding` is the only way. Proxy neighbour discovery answers only where the uplink's own
//! `forwarding` is on; an address that is joined as an anycast address needs no sysctl. Switching any `forwarding` on purges the routes that the kernel learned from router
//! advertisements on every device whose `accept_ra` is not 2, so `accept_ra=2` comes first.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::facts::Facts;
use crate::op::Op;
use crate::plan::{StageName, Step};
use crate::proxynd::{self, Way, way};
use crate::settings::NdChoice;
use crate::stage::{Instance, ObserveError, PlanError, Stage, Verdict, world_error};
use crate::world::{World, WorldError};

/// The stage.
pub struct Sysctl;

pub(crate) const ALL_FORWARDING: &str = "net/ipv6/conf/all/forwarding";

pub(crate) fn key(device: &str, name: &str) -> String {
    format!("net/ipv6/conf/{device}/{name}")
}

/// The longest random delay of an answer for a proxied neighbour; by default 0.8 s, which the first packets would wait.
fn proxy_delay(device: &str) -> String {
    format!("net/ipv6/neigh/{device}/proxy_delay")
}

#[async_trait]
impl Stage for Sysctl {
    fn name(&self) -> StageName {
        StageName::Sysctl
    }

    async fn observe(
        &self,
        instance: &Instance,
        world: &dyn World,
        facts: &mut Facts,
    ) -> Result<Verdict, ObserveError> {
        let Some(uplink) = facts.uplink.as_ref().map(|uplink| uplink.value.name.clone()) else {
            return Ok(Verdict::Ready);
        };
        let settings = &instance.settings;
        let mut keys = Vec::new();
        if settings.proxynd_enable && (facts.fast_path.is_none() || settings.nd == NdChoice::Proxy) {
            keys.extend([
                key(&uplink, "proxy_ndp"),
                proxy_delay(&uplink),
                key(&uplink, "forwarding"),
                key(&uplink, "accept_ra"),
            ]);
        }
        if settings.forwarding_enable && facts.fast_path.is_none() {
            keys.extend([
                ALL_FORWARDING.to_owned(),
                key(&uplink, "force_forwarding"),
                key(&uplink, "forwarding"),
            ]);
            let links = world.links().await.map_err(world_error(self.name()))?;
            let others = links
                .iter()
                .filter(|link| !link.is_clat())
                .map(|link| link.name.as_str());
            for device in others.chain(["default"]) {
                keys.extend([key(device, "accept_ra"), key(device, "forwarding")]);
            }
        }
        read(world, keys, facts).await.map_err(world_error(self.name()))?;
        proxynd::choose(settings, world, facts)
            .await
            .map_err(world_error(self.name()))?;
        Ok(Verdict::Ready)
    }

    fn plan(&self, instance: &Instance, facts: &Facts) -> Result<Vec<Step>, PlanError> {
        let settings = &instance.settings;
        let uplink = facts.uplink.as_ref().ok_or_else(|| PlanError {
            stage: self.name(),
            what: "no uplink".into(),
        })?;
        let planner = Planner {
            facts,
            uplink: &uplink.value.name,
            clat: &settings.clat_dev,
            proxynd: way(settings, facts) == Some(Way::Proxy),
            forwards_in: !facts.shared || !settings.map.is_empty(),
        };
        let mut steps = vec![planner.loose_rp_filter()];
        if facts.fast_path.is_some() {
            steps.extend(planner.for_proxied_neighbours());
        } else if settings.forwarding_enable {
            steps.extend(planner.forwarding());
        }
        if planner.proxynd {
            let why = "the uplink answers neighbour solicitations for the CLAT's address";
            steps.extend(planner.hold(&key(planner.uplink, "proxy_ndp"), "1", why));
        }
        // The fast path sees to it that answers for anycast addresses do not wait.
        if planner.proxynd || facts.fast_path.is_none() && way(settings, facts).is_some() {
            let why =
                "nobody else answers for the CLAT's address, so there is nobody to wait for (RFC 4861 section 7.2.8)";
            steps.extend(planner.hold(&proxy_delay(planner.uplink), "0", why));
        }
        Ok(steps)
    }
}

async fn read(world: &dyn World, keys: Vec<String>, facts: &mut Facts) -> Result<(), WorldError> {
    for key in keys {
        if let Some(value) = world.sysctl(&key).await? {
            facts.sysctls.insert(key, value);
        }
    }
    Ok(())
}

struct Planner<'a> {
    facts: &'a Facts,
    uplink: &'a str,
    clat: &'a str,
    proxynd: bool,
    /// Whether the kernel forwards what the uplink brings for the CLAT. With a shared address this host sends it a copy.
    forwards_in: bool,
}

impl Planner<'_> {
    fn value(&self, key: &str) -> Option<&str> {
        self.facts.sysctls.get(key).map(String::as_str)
    }

    /// A hold on `key`, unless it has the value already or this kernel lacks it.
    fn hold(&self, key: &str, value: &str, why: &str) -> Option<Step> {
        let before = self.value(key).filter(|before| *before != value)?;
        let (key, value, before) = (key.to_owned(), value.to_owned(), before.to_owned());
        let give_back = match key.as_str() {
            ALL_FORWARDING => self.forwarding_devices(),
            _ => BTreeMap::new(),
        };
        let release = Op::ReleaseSysctl {
            key: key.clone(),
            value: value.clone(),
            before: before.clone(),
            give_back,
        };
        Some(Step::new(
            StageName::Sysctl,
            why,
            Op::HoldSysctl { key, value, before },
            release,
        ))
    }

    /// IPv4 packets from the internet come in by the CLAT, whatever the routes say about their source.
    fn loose_rp_filter(&self) -> Step {
        let op = Op::SetDeviceSysctl {
            key: format!("net/ipv4/conf/{}/rp_filter", self.clat),
            value: "2".into(),
        };
        Step::on_device(
            StageName::Sysctl,
            "answers may come in by the CLAT while another default route is preferred",
            op,
            self.clat,
        )
    }

    /// Where nothing is forwarded, only `nd=proxy` asks for it.
    fn for_proxied_neighbours(&self) -> Vec<Step> {
        let own = key(self.uplink, "forwarding");
        if !self.proxynd || self.value(&own) != Some("0") {
            return Vec::new();
        }
        let mut steps = self.keep_accepting_advertisements(false);
        let why = "the kernel answers for proxied neighbours only where forwarding is on";
        steps.extend(self.hold(&own, "1", why));
        steps
    }

    fn forwarding(&self) -> Vec<Step> {
        let force = key(self.uplink, "force_forwarding");
        let own = key(self.uplink, "forwarding");
        let all_on = self.value(ALL_FORWARDING) != Some("0");
        let per_device = self.value(&force).is_some();
        let router_uplink = self.proxynd && self.value(&own) == Some("0");
        let mut steps = Vec::new();
        let by_all = !all_on && !per_device;
        if by_all || router_uplink {
            steps.extend(self.keep_accepting_advertisements(by_all));
        }
        if by_all {
            steps.extend(self.hold(
                ALL_FORWARDING,
                "1",
                "packets are forwarded between the CLAT and the uplink",
            ));
            return steps;
        }
        if !all_on {
            let why = "packets from the PLAT are forwarded to the CLAT; other devices stay as they are";
            if self.forwards_in {
                steps.extend(self.hold(&force, "1", why));
            }
            let op = Op::SetDeviceSysctl {
                key: key(self.clat, "force_forwarding"),
                value: "1".into(),
            };
            steps.push(Step::on_device(
                StageName::Sysctl,
                "packets from the CLAT are forwarded to the uplink",
                op,
                self.clat,
            ));
        }
        if router_uplink {
            steps.extend(self.hold(
                &own,
                "1",
                "the kernel answers for proxied neighbours only where forwarding is on",
            ));
        }
        steps
    }

    /// accept_ra=2 on every device that accepts router advertisements now, as they would lose their routes.
    fn keep_accepting_advertisements(&self, with_default: bool) -> Vec<Step> {
        let devices = self
            .facts
            .sysctls
            .keys()
            .filter_map(|key| key.strip_prefix("net/ipv6/conf/")?.strip_suffix("/accept_ra"));
        devices
            .filter(|device| *device != "lo" && (with_default || *device != "default"))
            .filter(|device| {
                self.value(&key(device, "accept_ra")) == Some("1")
                    && self.value(&key(device, "forwarding")) == Some("0")
            })
            .filter_map(|device| {
                self.hold(
                    &key(device, "accept_ra"),
                    "2",
                    "router advertisements are accepted although forwarding is on",
                )
            })
            .collect()
    }

    /// Switching `all/forwarding` off again resets every device, also these, which forwarded before.
    fn forwarding_devices(&self) -> BTreeMap<String, String> {
        let forwards = self.facts.sysctls.iter();
        forwards
            .filter(|(key, value)| key.ends_with("/forwarding") && *key != ALL_FORWARDING && *value == "1")
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }
}
