//! The fast path: programs in the kernel (`stages/translator/bpf`) that translate plain packets around the userspace
//! translator, which gets all others. What they take in and send goes straight between the CLAT's device and the uplink,
//! so that nothing of the host's has to be changed for it: no forwarding, no IPv6 rule, no hole in a packet filter.

use std::fmt;

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};

use crate::facts::{Fact, Facts, Source};
use crate::op::Op;
use crate::plan::{NotNeeded, StageName, Step};
use crate::proxynd::Neighbours;
use crate::settings::{Settings, TranslatorChoice};
use crate::shared;
use crate::stage::{Instance, ObserveError, world_error};
use crate::translator::UserspaceSpec;
use crate::world::{World, WorldError};

/// How the programs are attached to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attachment {
    /// By links (Linux 6.6), which go with the daemon.
    Tcx,
    /// As filters of the queueing discipline clsact.
    Clsact,
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcx => "TCX",
            Self::Clsact => "clsact",
        })
    }
}

/// What stands in front of the IP packets of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkHeader {
    /// An Ethernet header; next hops are neighbours.
    Ethernet,
    /// Nothing: the device has one neighbour, and no address of it.
    None,
}

/// What the programs need of an uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// How they are attached.
    pub attachment: Attachment,
    /// What stands in front of its packets.
    pub header: LinkHeader,
}

/// Whether the fast path can be taken on an uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    /// The programs load here.
    Loads(Placement),
    /// They cannot be used, and why.
    Refused(String),
}

/// What tells packets of the CLAT from the host's own, where both have the same address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// The flows that the CLAT began.
    Flows,
    /// The prefix of the other side alone (`ctmark=0`): all that comes from there is the CLAT's.
    Prefix,
}

/// What the programs are to do for one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FastPathSpec {
    /// The uplink.
    pub uplink: String,
    /// How they are attached there, and what they find.
    #[serde(rename = "way")]
    pub placement: Placement,
    /// Addresses and sizes: the same as those of the userspace translator behind them.
    pub translation: UserspaceSpec,
    /// A network whose packets all go to the translator, whatever the mappings say (RFC 7084 WPD-5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegated: Option<Ipv6Net>,
    /// The CLAT's own mapping, the first one, is of an address that the host has, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<Sharing>,
}

impl FastPathSpec {
    /// The CLAT device.
    pub fn device(&self) -> &str {
        &self.translation.device
    }

    /// The networks whose packets are taken from the uplink.
    pub fn networks(&self) -> impl Iterator<Item = Ipv6Net> + '_ {
        self.delegated
            .into_iter()
            .chain(self.translation.maps.iter().map(|map| map.v6))
    }
}

impl fmt::Display for FastPathSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "attach the fast path to {} and {} by {}: prefix {}",
            self.device(),
            self.uplink,
            self.placement.attachment,
            self.translation.plat_prefix
        )?;
        for network in self.networks() {
            write!(f, ", for {network}")?;
        }
        match self.shared {
            None => Ok(()),
            Some(Sharing::Flows) => f.write_str(", shared with the host: by a map of flows"),
            Some(Sharing::Prefix) => f.write_str(", shared with the host: by the prefix"),
        }
    }
}

/// Whether this one may translate by these settings. Who does is known once a plan is made, as a fact.
pub fn may_run(settings: &Settings, translator: TranslatorChoice) -> bool {
    let asked = settings.translator.translator;
    let of_auto = [TranslatorChoice::Ebpf, TranslatorChoice::Userspace];
    asked == translator || asked == TranslatorChoice::Auto && of_auto.contains(&translator)
}

/// Decides who translates, once uplink and address are known.
pub(crate) async fn choose(
    stage: StageName,
    instance: &Instance,
    world: &dyn World,
    facts: &mut Facts,
) -> Result<(), ObserveError> {
    facts.fast_path = None;
    let asked = instance.settings.translator.translator;
    if !may_run(&instance.settings, TranslatorChoice::Ebpf) {
        facts.translator = Some(Fact::new(asked, Source::Configuration));
        return Ok(());
    }
    let (chosen, why) = match offer(world, facts).await.map_err(world_error(stage))? {
        Offer::Loads(placement) => {
            if let Some(what) = bypassed(asked, world, facts).await.map_err(world_error(stage))? {
                let why = format!("no fast path: it would bypass {what}; translator=ebpf takes it all the same");
                (TranslatorChoice::Userspace, why)
            } else {
                facts.fast_path = Some(placement);
                let why = format!("the programs load here, attached by {}", placement.attachment);
                (TranslatorChoice::Ebpf, why)
            }
        }
        Offer::Refused(why) if asked == TranslatorChoice::Ebpf => {
            return Err(ObserveError::Unusable {
                stage,
                what: format!("translator=ebpf cannot be used here: {why}; translator=auto takes the best that works"),
            });
        }
        Offer::Refused(why) => (TranslatorChoice::Userspace, format!("no fast path: {why}")),
    };
    facts.translator = Some(Fact::new(chosen, Source::Judged(why)));
    Ok(())
}

/// Whether a running instance would choose its translator again. No event tells that others attach a filter, so this has to
/// be asked from time to time.
pub async fn is_still_chosen(settings: &Settings, world: &dyn World, facts: &Facts) -> Result<bool, WorldError> {
    let asked = settings.translator.translator;
    match (asked, facts.chosen_translator()) {
        (TranslatorChoice::Auto, TranslatorChoice::Ebpf) => Ok(bypassed(asked, world, facts).await?.is_none()),
        (TranslatorChoice::Auto, TranslatorChoice::Userspace) => Ok(match offer(world, facts).await? {
            Offer::Loads(_) => bypassed(asked, world, facts).await?.is_some(),
            Offer::Refused(_) => true,
        }),
        (TranslatorChoice::Auto, TranslatorChoice::Auto | TranslatorChoice::Tayga)
        | (TranslatorChoice::Ebpf | TranslatorChoice::Userspace | TranslatorChoice::Tayga, _) => Ok(true),
    }
}

async fn offer(world: &dyn World, facts: &Facts) -> Result<Offer, WorldError> {
    let Some(uplink) = &facts.uplink else {
        return Ok(Offer::Refused("there is no uplink".into()));
    };
    world.fast_path(&uplink.value).await
}

/// What other programs set up and the fast path would bypass. Whoever asks for the fast path by name gets it all the same.
async fn bypassed(asked: TranslatorChoice, world: &dyn World, facts: &Facts) -> Result<Option<String>, WorldError> {
    let (TranslatorChoice::Auto, Some(uplink), Some(plat_prefix), Some(address)) =
        (asked, &facts.uplink, &facts.plat_prefix, &facts.clat_v6_addr)
    else {
        return Ok(None);
    };
    world.bypassed(&uplink.value, address.value, plat_prefix.value).await
}

/// The steps that come after the start of the userspace translator. The next hop is a step of its own, so that it can
/// change while the rest stays.
pub(crate) fn steps(instance: &Instance, facts: &Facts, translation: UserspaceSpec) -> Vec<Step> {
    let (Some(placement), Some(uplink)) = (facts.fast_path, &facts.uplink) else {
        return Vec::new();
    };
    let (device, uplink) = (instance.settings.clat.clat_dev.clone(), uplink.value.name.clone());
    let gateway = facts.plat_gateway.as_ref().and_then(|gateway| match gateway.value {
        std::net::IpAddr::V6(gateway) => Some(gateway),
        std::net::IpAddr::V4(_) => None,
    });
    let fast_path = FastPathSpec {
        uplink: uplink.clone(),
        placement,
        translation,
        delegated: facts.delegated_prefix.as_ref().map(|prefix| prefix.value),
        shared: facts.shared.then(|| match shared::ctmark(&instance.settings) {
            Some(_) => Sharing::Flows,
            None => Sharing::Prefix,
        }),
    };
    vec![
        Step::new(
            StageName::Translator,
            "translates plain packets in the kernel; the translator above gets all others",
            Op::AttachFastPath { fast_path },
            Op::DetachFastPath {
                device: device.clone(),
                uplink: uplink.clone(),
                attachment: placement.attachment,
            },
        ),
        Step::on_device(
            StageName::Translator,
            "the CLAT's packets leave by its uplink's own gateway, whatever the routing tables prefer",
            Op::SetNextHop {
                device: device.clone(),
                uplink,
                gateway,
            },
            &device,
        ),
    ]
}

/// What is left undone because of the fast path, and why.
pub(crate) fn not_needed(instance: &Instance, facts: &Facts) -> Vec<NotNeeded> {
    let (true, Some(uplink)) = (facts.fast_path.is_some(), &facts.uplink) else {
        return Vec::new();
    };
    let uplink = &uplink.value.name;
    let mut left = Vec::new();
    let mut leave = |stage, what: String, why: &str| {
        let why = why.to_owned();
        left.push(NotNeeded { stage, what, why });
    };
    if instance.settings.clat.forwarding_enable {
        leave(
            StageName::Sysctl,
            format!("IPv6 forwarding, and with it accept_ra=2 on {uplink}"),
            "the fast path carries packets between the CLAT and the uplink; the kernel forwards none",
        );
    }
    if Neighbours::find_anycast(facts) {
        leave(
            StageName::ProxyNd,
            format!("proxy_ndp, proxy_delay and a proxy neighbour entry on {uplink}"),
            "the CLAT's address is joined as an anycast address, for which the kernel answers anyway",
        );
    }
    leave(
        StageName::Firewall,
        "accept rules in IPv6 packet filters".into(),
        "the CLAT's IPv6 packets pass none of their hooks; IPv4 filters see all traffic on the CLAT's device",
    );
    let table = instance.settings.clat.route_table;
    if facts.shared {
        leave(
            StageName::Firewall,
            format!("nft table ip6 clatd_{table}, which marks flows and takes their replies out of the host's packets"),
            "the programs themselves tell the CLAT's packets from the host's",
        );
    }
    leave(
        StageName::Route,
        format!("IPv6 routes and rules of table {table}"),
        "the programs find the CLAT's packets by their addresses and know the next hop",
    );
    left
}
