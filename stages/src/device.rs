//! Stage device: the CLAT's TUN device, up, with the CLAT's IPv4 address.

use std::net::{IpAddr, Ipv4Addr};

use async_trait::async_trait;
use ipnet::IpNet;

use crate::claims::Claims;
use crate::facts::Facts;
use crate::fast_path;
use crate::op::{NewTun, Op};
use crate::plan::{StageName, Step};
use crate::route::HEADER_DIFFERENCE;
use crate::settings::{RouteMtu, Settings};
use crate::stage::{Delay, Instance, ObserveError, PlanError, Readiness, Stage, world_error};
use crate::world::World;

/// The smallest MTU of an IPv6 link, in bytes (RFC 8200 section 5).
pub(crate) const IPV6_MIN_MTU: u32 = 1280;

/// MTU of the CLAT device: packets that fit the uplink must fit here, since both IP versions pass through it.
pub(crate) fn mtu(uplink_mtu: u32) -> u32 {
    uplink_mtu.clamp(IPV6_MIN_MTU, 65535)
}

/// Where it is 1, a new device has no IPv6.
const NEW_DEVICES_LACK_IPV6: &str = "net/ipv6/conf/default/disable_ipv6";

/// Warns of an MTU of the IPv4 default route that is too large for the uplink once the packets are IPv6. Each large
/// packet is lost once, until path MTU discovery has told its sender.
fn too_large_for_the_uplink(settings: &Settings, facts: &Facts) -> Option<String> {
    let uplink = &facts.uplink.as_ref()?.value;
    let fits = mtu(uplink.mtu) - HEADER_DIFFERENCE;
    match settings.ipv4.v4_defaultroute_mtu {
        RouteMtu::Bytes(bytes) if bytes > fits && settings.ipv4.v4_defaultroute_enable => Some(format!(
            "v4-defaultroute-mtu={bytes} is more than the uplink carries: {fits} fit the MTU of {} of {} (auto follows it)",
            uplink.mtu, uplink.name
        )),
        RouteMtu::Bytes(_) | RouteMtu::Auto => None,
    }
}

/// The stage.
pub struct DeviceStage;

#[async_trait]
impl Stage for DeviceStage {
    fn name(&self) -> StageName {
        StageName::Device
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
        // The translator is chosen here, since this is the first stage that depends on it.
        fast_path::choose(self.name(), instance, world, facts).await?;
        facts.notes.extend(too_large_for_the_uplink(&instance.settings, facts));
        let born_without_ipv6 = world.sysctl(NEW_DEVICES_LACK_IPV6).await;
        let born_without_ipv6 = born_without_ipv6.map_err(world_error(self.name()))?;
        if let Some(value) = born_without_ipv6.filter(|value| value != "0") {
            facts.sysctls.insert(NEW_DEVICES_LACK_IPV6.to_owned(), value);
        }
        let name = &instance.settings.clat.clat_dev;
        match world.link(name).await.map_err(world_error(self.name()))? {
            Some(link) if link.alias.as_deref() != Some(instance.alias().as_str()) => Err(ObserveError::Unusable {
                stage: self.name(),
                what: format!(
                    "clat-dev {name} exists already and is not ours; choose another name, or delete it with `ip link delete {name}`"
                ),
            }),
            _ => Ok(Readiness::Ready),
        }
    }

    fn keep(&self, _old: &Facts, _new: &mut Facts) {}

    fn plan(&self, instance: &Instance, facts: &Facts) -> Result<Vec<Step>, PlanError> {
        let settings = &instance.settings;
        let device = settings.clat.clat_dev.clone();
        let uplink = facts.uplink.as_ref().ok_or_else(|| PlanError {
            stage: self.name(),
            what: "no uplink".into(),
        })?;
        let mut steps = vec![
            create(self.name(), instance, facts),
            Step::on_device(
                self.name(),
                "the CLAT needs no link-local address",
                Op::SetDeviceSysctl {
                    key: format!("net/ipv6/conf/{device}/addr_gen_mode"),
                    value: "1".into(),
                },
                &device,
            ),
        ];
        if facts.sysctls.contains_key(NEW_DEVICES_LACK_IPV6) {
            steps.push(Step::on_device(
                self.name(),
                "the CLAT needs IPv6, which new devices of this host are made without",
                Op::SetDeviceSysctl {
                    key: format!("net/ipv6/conf/{device}/disable_ipv6"),
                    value: "0".into(),
                },
                &device,
            ));
        }
        steps.push(Step::on_device(
            self.name(),
            "packets that fit the uplink must fit the CLAT",
            Op::SetLinkUp {
                device: device.clone(),
                mtu: mtu(uplink.value.mtu),
            },
            &device,
        ));
        steps.extend(own_addresses(settings).map(|address| {
            let (device, address) = (device.clone(), IpNet::from(IpAddr::from(address)));
            Step::new(
                self.name(),
                "an IPv4 address of this host, reached through the CLAT",
                Op::AddAddress {
                    device: device.clone(),
                    address,
                },
                Op::RemoveAddress { device, address },
            )
        }));
        Ok(steps)
    }
}

fn create(stage: StageName, instance: &Instance, facts: &Facts) -> Step {
    let device = &instance.settings.clat.clat_dev;
    let external = facts.chosen_translator().is_external();
    let (why, queues) = if external {
        ("TAYGA opens its TUN device by name, so it must be persistent", 1)
    } else {
        let queues = instance.settings.translator.translator_queues;
        ("carries IPv4 to the translator and IPv6 from it", queues)
    };
    Step::new(
        stage,
        why,
        Op::CreateTun(NewTun {
            device: device.clone(),
            alias: instance.alias(),
            persistent: external,
            queues,
        }),
        Op::DeleteTun {
            device: device.clone(),
            alias: instance.alias(),
        },
    )
}

/// The CLAT's IPv4 address, and those of single-address mappings: the service addresses of an edge relay on the node
/// itself (RFC 7756 section 3.1). Wider mappings are networks behind this host (section 3.2).
pub(crate) fn own_addresses(settings: &Settings) -> impl Iterator<Item = Ipv4Addr> {
    let hosts = settings
        .translator
        .map
        .iter()
        .filter(|map| map.v4.prefix_len() == 32)
        .map(|map| map.v4.addr());
    let own = settings.clat.clat_v4_addr;
    std::iter::once(own).chain(hosts.filter(move |address| *address != own))
}
