//! Chains of nf_tables that see packets as they come in by a device. A program would print the rules, too.

use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::NetlinkError;
use super::socket::read_some;
use super::wire::Attributes;

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
const NFPROTO_NETDEV: u8 = 5;
/// `NF_NETDEV_INGRESS`.
const NETDEV_INGRESS: u32 = 0;

/// A chain that sees all packets that come in by its devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IngressChain {
    pub(crate) table: String,
    pub(crate) name: String,
    pub(crate) devices: Vec<String>,
}

/// The chains of family netdev at the hook ingress; `None` = there are more than `most` chains of this family.
pub(crate) async fn ingress_chains(most: usize) -> Result<Option<Vec<IngressChain>>, NetlinkError> {
    let read = move || read_some(NETLINK_NETFILTER, GET_CHAIN, &[NFPROTO_NETDEV, 0, 0, 0], most);
    let read = tokio::task::spawn_blocking(read).await;
    let messages = read.map_err(|error| NetlinkError::Socket(io::Error::other(error)))??;
    Ok(messages.map(|messages| {
        messages
            .iter()
            .filter_map(|message| ingress_chain(&message.payload))
            .collect()
    }))
}

fn ingress_chain(payload: &[u8]) -> Option<IngressChain> {
    let attributes = Attributes(payload.get(HEADER..)?);
    let find = |kind| attributes.clone().find(|attribute| attribute.kind == kind);
    let hook = find(NFTA_CHAIN_HOOK)?.nested();
    let of_hook = |kind| hook.clone().find(|attribute| attribute.kind == kind);
    if of_hook(NFTA_HOOK_HOOKNUM)?.u32().map(u32::from_be) != Some(NETDEV_INGRESS) {
        return None;
    }
    let several = of_hook(NFTA_HOOK_DEVS).map(|devices| devices.nested());
    let one = of_hook(NFTA_HOOK_DEV);
    Some(IngressChain {
        table: find(NFTA_CHAIN_TABLE)?.text(),
        name: find(NFTA_CHAIN_NAME)?.text(),
        devices: one
            .into_iter()
            .chain(several.into_iter().flatten())
            .map(|device| device.text())
            .collect(),
    })
}
