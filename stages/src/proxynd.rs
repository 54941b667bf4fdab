//! Stage proxy-ND: the uplink answers neighbour solicitations for the CLAT's IPv6 address (RFC 4861 section 7.2.8).

use async_trait::async_trait;

use crate::facts::Facts;
use crate::op::Op;
use crate::plan::{StageName, Step};
use crate::settings::Settings;
use crate::stage::{Instance, PlanError, Stage};
use crate::translator::mappings;

/// Whether the kernel is to answer for the CLAT's address: not for the host's own, for which it does anyway, nor in a
/// delegated prefix, which is routed to this host.
pub(crate) fn answers_neighbours(settings: &Settings, facts: &Facts) -> bool {
    settings.proxynd_enable && !facts.shared && facts.delegated_prefix.is_none()
}

/// The stage.
pub struct ProxyNd;

#[async_trait]
impl Stage for ProxyNd {
    fn name(&self) -> StageName {
        StageName::ProxyNd
    }

    fn plan(&self, instance: &Instance, facts: &Facts) -> Result<Vec<Step>, PlanError> {
        let (Some(uplink), Some(address)) = (&facts.uplink, &facts.clat_v6_addr) else {
            return Err(PlanError {
                stage: self.name(),
                what: "no uplink and CLAT address".into(),
            });
        };
        if !answers_neighbours(&instance.settings, facts) {
            return Ok(Vec::new());
        }
        let device = &uplink.value.name;
        let hosts = mappings(&instance.settings, address.value)
            .into_iter()
            .filter(|map| map.v6.prefix_len() == 128);
        let steps = hosts.map(|map| {
            let address = map.v6.addr();
            Step::new(
                self.name(),
                "the uplink's neighbours must find the CLAT's address",
                Op::AddProxyNeighbour {
                    device: device.clone(),
                    address,
                },
                Op::RemoveProxyNeighbour {
                    device: device.clone(),
                    address,
                },
            )
        });
        Ok(steps.collect())
    }
}
