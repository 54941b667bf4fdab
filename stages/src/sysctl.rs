//! Stage sysctl: IPv6 forwarding between uplink and CLAT, with no more side effects than it must have.
//!
//! Linux 6.17 brought `force_forwarding` per device, which forwards without making the host a router elsewhere;
//! before, `all/forwarding` is the only way. Proxy neighbour discovery answers only where the uplink's own
//! `forwarding` is on; an address that is joined as an anycast address needs no sysctl.
//!
//! Switching any `forwarding` on purges the routes that the kernel learned from router advertisements on every device
//! whose `accept_ra` is not 2. So `accept_ra=2` comes first, but only where something would be lost. One step does it
//! for all such devices, since a host may have hundreds.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use crate::claims::Claims;
use crate::facts::{Fact, Facts, Source};
use crate::op::{OnDevices, Op, SysctlRelease};
use crate::plan::{StageName, Step};
use crate::proxynd::{self, Neighbours};
use crate::settings::{NdChoice, Settings};
use crate::stage::{Delay, Instance, ObserveError, PlanError, Readiness, Stage, world_error};
use crate::world::{World, WorldError};

/// The stage.
pub struct SysctlStage;

pub(crate) const ALL_FORWARDING: &str = "net/ipv6/conf/all/forwarding";

/// The key of an IPv6 sysctl of a device.
pub fn key(device: &str, name: &str) -> String {
    format!("net/ipv6/conf/{device}/{name}")
}

/// The longest random delay of an answer for a proxied neighbour; by default 0.8 s, which the first packets would wait.
fn proxy_delay(device: &str) -> String {
    format!("net/ipv6/neigh/{device}/proxy_delay")
}

#[async_trait]
impl Stage for SysctlStage {
    fn name(&self) -> StageName {
        StageName::Sysctl
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
        let Some(uplink) = facts.uplink.as_ref().map(|uplink| uplink.value.name.clone()) else {
            return Ok(Readiness::Ready);
        };
        let settings = &instance.settings;
        let mut keys = Vec::new();
        if settings.clat.proxynd_enable && (facts.fast_path.is_none() || settings.clat.nd == NdChoice::Proxy) {
            keys.extend([
                key(&uplink, "proxy_ndp"),
                proxy_delay(&uplink),
                key(&uplink, "forwarding"),
                key(&uplink, "accept_ra"),
            ]);
        }
        if settings.clat.forwarding_enable && facts.fast_path.is_none() {
            keys.extend([
                ALL_FORWARDING.to_owned(),
                key(&uplink, "force_forwarding"),
                key(&uplink, "forwarding"),
                key(&uplink, "accept_ra"),
            ]);
        }
        read(world, keys, facts).await.map_err(world_error(self.name()))?;
        proxynd::choose(settings, world, facts)
            .await
            .map_err(world_error(self.name()))?;
        look_at_others(&uplink, switched(settings, facts), world, facts)
            .await
            .map_err(world_error(self.name()))?;
        Ok(Readiness::Ready)
    }

    /// Our own changes show in the sysctls, and in what they would do to other devices.
    fn keep(&self, old: &Facts, new: &mut Facts) {
        let name = |facts: &Facts| facts.uplink.as_ref().map(|uplink| uplink.value.name.clone());
        // With the fast path other sysctls are read, and their keys have the uplink's name. If either is another one
        // now, the new facts stay: they have the values from before our changes.
        if new.fast_path.is_some() == old.fast_path.is_some() && name(new) == name(old) {
            new.sysctls.clone_from(&old.sysctls);
            new.endangered.clone_from(&old.endangered);
        }
    }

    fn plan(&self, instance: &Instance, facts: &Facts) -> Result<Vec<Step>, PlanError> {
        let settings = &instance.settings;
        let uplink = facts.uplink.as_ref().ok_or_else(|| PlanError {
            stage: self.name(),
            what: "no uplink".into(),
        })?;
        let planner = SysctlPlanner {
            facts,
            uplink: &uplink.value.name,
            clat: &settings.clat.clat_dev,
            proxynd: Neighbours::are_proxied(facts),
            forwards_in: !facts.shared || !settings.translator.map.is_empty(),
        };
        let mut steps = vec![planner.loose_rp_filter()];
        let switched = switched(settings, facts);
        if let Some(switched) = switched {
            steps.extend(planner.keep_accepting_advertisements(switched));
        }
        if settings.clat.forwarding_enable && facts.fast_path.is_none() {
            steps.extend(planner.forwarding(switched));
        }
        if switched == Some(Switched::Uplink) {
            let why = "the kernel answers for proxied neighbours only where forwarding is on";
            steps.extend(planner.hold(&key(planner.uplink, "forwarding"), "1", why));
        }
        if planner.proxynd {
            let why = "the uplink answers neighbour solicitations for the CLAT's address";
            steps.extend(planner.hold(&key(planner.uplink, "proxy_ndp"), "1", why));
        }
        // The fast path sees to it that answers for anycast addresses do not wait.
        if planner.proxynd || facts.fast_path.is_none() && Neighbours::find_anycast(facts) {
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

/// Which `forwarding` is switched on. Both purge default routes that router advertisements brought, of all devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Switched {
    /// That of the uplink.
    Uplink,
    /// That of all devices, which take in no router advertisements from then on.
    All,
}

fn switched(settings: &Settings, facts: &Facts) -> Option<Switched> {
    let uplink = &facts.uplink.as_ref()?.value.name;
    let value = |key: &str| facts.sysctls.get(key).map(String::as_str);
    let forwards = settings.clat.forwarding_enable && facts.fast_path.is_none();
    let per_device = value(&key(uplink, "force_forwarding")).is_some();
    if forwards && value(ALL_FORWARDING) == Some("0") && !per_device {
        return Some(Switched::All);
    }
    let proxied = Neighbours::are_proxied(facts) && value(&key(uplink, "forwarding")) == Some("0");
    (proxied && (forwards || facts.fast_path.is_some())).then_some(Switched::Uplink)
}

/// Finds what switching forwarding on would do to other devices than the uplink. Where nothing is switched on, none is
/// looked at.
async fn look_at_others(
    uplink: &str,
    switched: Option<Switched>,
    world: &dyn World,
    facts: &mut Facts,
) -> Result<(), WorldError> {
    facts.endangered = None;
    let (devices, source) = match switched {
        None => return Ok(()),
        Some(Switched::Uplink) => (
            proxynd::advertised_uplinks(world).await?,
            Source::Kernel("default routes of router advertisements, accept_ra=1"),
        ),
        Some(Switched::All) => {
            let links = world.links().await?;
            read(
                world,
                vec![key("default", "accept_ra"), key("default", "forwarding")],
                facts,
            )
            .await?;
            (
                links
                    .iter()
                    .filter(|link| !link.is_clat())
                    .map(|link| link.name.clone())
                    .collect(),
                Source::Kernel("accept_ra=1 and forwarding=0"),
            )
        }
    };
    let mut endangered = Vec::new();
    for device in devices.into_iter().filter(|device| device != "lo" && device != uplink) {
        let forwarding = key(&device, "forwarding");
        match world.sysctl_lately(&forwarding).await? {
            // Switching `all/forwarding` off again resets it, so it is to be given back.
            Some(on) if on == "1" && switched == Some(Switched::All) => {
                facts.sysctls.insert(forwarding, on);
            }
            Some(off) if off == "0" => {
                let accepts = world.sysctl_lately(&key(&device, "accept_ra")).await?;
                endangered.extend((accepts.as_deref() == Some("1")).then_some(device));
            }
            Some(_) | None => {}
        }
    }
    if !endangered.is_empty() {
        facts.endangered = Some(Fact::new(endangered.into(), source));
    }
    Ok(())
}

struct SysctlPlanner<'a> {
    facts: &'a Facts,
    uplink: &'a str,
    clat: &'a str,
    proxynd: bool,
    /// Whether the kernel forwards what the uplink brings for the CLAT. With a shared address this host sends it a copy.
    forwards_in: bool,
}

impl SysctlPlanner<'_> {
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
        let release = Op::ReleaseSysctl(SysctlRelease {
            key: key.clone(),
            value: value.clone(),
            before: before.clone(),
            give_back,
        });
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

    fn forwarding(&self, switched: Option<Switched>) -> Vec<Step> {
        if switched == Some(Switched::All) {
            let why = "packets are forwarded between the CLAT and the uplink";
            return self.hold(ALL_FORWARDING, "1", why).into_iter().collect();
        }
        let mut steps = Vec::new();
        if self.value(ALL_FORWARDING) == Some("0") {
            let why = "packets from the PLAT are forwarded to the CLAT; other devices stay as they are";
            if self.forwards_in {
                steps.extend(self.hold(&key(self.uplink, "force_forwarding"), "1", why));
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
        steps
    }

    /// accept_ra=2 where router advertisements are accepted now, as their routes would be lost.
    fn keep_accepting_advertisements(&self, switched: Switched) -> Vec<Step> {
        let why = "router advertisements are accepted although forwarding is on";
        let mut steps = Vec::new();
        if switched == Switched::All {
            steps.extend(self.hold_if_accepting("default", why));
        }
        steps.extend(self.hold_if_accepting(self.uplink, why));
        if let Some(endangered) = &self.facts.endangered {
            let on = OnDevices {
                devices: Arc::clone(&endangered.value),
                name: "accept_ra".to_owned(),
                value: "2".to_owned(),
                before: "1".to_owned(),
            };
            let (apply, undo) = (Op::HoldOnDevices(on.clone()), Op::ReleaseOnDevices(on));
            let why = "forwarding would take away what router advertisements gave these devices";
            steps.push(Step::new(StageName::Sysctl, why, apply, undo));
        }
        steps
    }

    fn hold_if_accepting(&self, device: &str, why: &str) -> Option<Step> {
        let accepts = key(device, "accept_ra");
        let does = self.value(&accepts) == Some("1") && self.value(&key(device, "forwarding")) == Some("0");
        does.then(|| self.hold(&accepts, "2", why))?
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
