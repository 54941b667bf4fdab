//! Chains of nf_tables that see all packets of a device. A program would print the rules of all other chains, too.

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::filter::Hook;
use super::socket::{on_blocking_thread, read_some};
use super::wire::Attributes;
use super::{KernelMessage, NetlinkError};

/// Length of `struct nfgenmsg`.
const HEADER: usize = 4;
/// `NFT_MSG_GETCHAIN`.
const GET_CHAIN: u16 = 10 << 8 | 4;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_DEV: u16 = 3;
const NFTA_HOOK_DEVS: u16 = 4;
/// A name that ends in `*`, without that.
const NFTA_DEVICE_PREFIX: u16 = 2;
const NFPROTO_INET: u8 = 1;
const NFPROTO_NETDEV: u8 = 5;
/// `NF_NETDEV_INGRESS` and `NF_NETDEV_EGRESS`.
const NETDEV_INGRESS: u32 = 0;
const NETDEV_EGRESS: u32 = 1;
/// `NF_INET_INGRESS`.
const INET_INGRESS: u32 = 5;

/// A chain that sees all packets of its devices, either those that come in or those that leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceChain {
    /// Family and name of its table, as nft shows them.
    pub(crate) table: String,
    pub(crate) name: String,
    pub(crate) hook: Hook,
    devices: Vec<Devices>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Devices {
    Named(String),
    WithPrefix(String),
}

impl DeviceChain {
    /// Whether it sees the packets of this device.
    pub(crate) fn sees(&self, device: &str) -> bool {
        self.devices.iter().any(|devices| match devices {
            Devices::Named(name) => name == device,
            Devices::WithPrefix(prefix) => device.starts_with(prefix),
        })
    }
}

/// These chains; `None` = the families that have them have more than `most` chains each.
pub(crate) async fn device_chains(most: usize) -> Result<Option<Vec<DeviceChain>>, NetlinkError> {
    let read = move |family: u8| read_some(NETLINK_NETFILTER, GET_CHAIN, &[family, 0, 0, 0], most);
    let read = move || Ok((read(NFPROTO_NETDEV)?, read(NFPROTO_INET)?));
    let (netdev, inet) = on_blocking_thread(read).await?;
    let chains = |messages: Vec<KernelMessage>| messages.into_iter().filter_map(|message| parse(&message.payload));
    Ok(netdev
        .zip(inet)
        .map(|(netdev, inet)| chains(netdev).chain(chains(inet)).collect()))
}

fn parse(payload: &[u8]) -> Option<DeviceChain> {
    let family = *payload.first()?;
    let attributes = Attributes(payload.get(HEADER..)?);
    let find = |kind| attributes.clone().find(|attribute| attribute.kind == kind);
    let hook = find(NFTA_CHAIN_HOOK)?.nested();
    let of_hook = |kind| hook.clone().find(|attribute| attribute.kind == kind);
    let number = of_hook(NFTA_HOOK_HOOKNUM)?.u32().map(u32::from_be)?;
    let (family, hook) = match (family, number) {
        (NFPROTO_NETDEV, NETDEV_INGRESS) => ("netdev", Hook::Ingress),
        (NFPROTO_NETDEV, NETDEV_EGRESS) => ("netdev", Hook::Egress),
        (NFPROTO_INET, INET_INGRESS) => ("inet", Hook::Ingress),
        _ => return None,
    };
    let one = of_hook(NFTA_HOOK_DEV).map(|device| Devices::Named(device.text()));
    let several = of_hook(NFTA_HOOK_DEVS).map(|devices| devices.nested());
    let several = several.into_iter().flatten().map(|device| match device.kind {
        NFTA_DEVICE_PREFIX => Devices::WithPrefix(device.text()),
        _ => Devices::Named(device.text()),
    });
    Some(DeviceChain {
        table: format!("{family} {}", find(NFTA_CHAIN_TABLE)?.text()),
        name: find(NFTA_CHAIN_NAME)?.text(),
        hook,
        devices: one.into_iter().chain(several).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::wire;
    use super::*;

    /// What nft 1.0.6 cannot make yet.
    #[test]
    fn a_prefix_stands_for_all_devices_whose_names_begin_so() {
        let (mut devices, mut hook) = (Vec::new(), Vec::new());
        wire::push(&mut devices, NFTA_DEVICE_PREFIX, b"up\0");
        wire::push(&mut devices, 1, b"wan0\0");
        wire::push(&mut hook, NFTA_HOOK_HOOKNUM, &NETDEV_EGRESS.to_be_bytes());
        wire::push(&mut hook, NFTA_HOOK_DEVS, &devices);
        let mut payload = vec![NFPROTO_NETDEV, 0, 0, 0];
        wire::push(&mut payload, NFTA_CHAIN_TABLE, b"theirs\0");
        wire::push(&mut payload, NFTA_CHAIN_NAME, b"guard\0");
        wire::push(&mut payload, NFTA_CHAIN_HOOK, &hook);
        let chain = parse(&payload).unwrap();
        assert_eq!((&*chain.table, chain.hook), ("netdev theirs", Hook::Egress));
        for (device, seen) in [("up0", true), ("wan0", true), ("wan01", false), ("eth0", false)] {
            assert_eq!(chain.sees(device), seen, "{device}");
        }
    }
}
