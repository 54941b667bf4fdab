//! Devices.

use std::sync::Arc;

use clatd_stages::net::Link;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

use super::mirror::Need;
use super::wire::{self, Attributes};
use super::{Netlink, NetlinkError, emit};

/// Length of `struct ifinfomsg`.
const HEADER: usize = 16;
/// Leave the counters out of the answer.
const RTEXT_FILTER_SKIP_STATS: u32 = 8;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VRF_TABLE: u16 = 1;
const IFLA_CARRIER_DOWN_COUNT: u16 = 48;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;

impl Netlink {
    /// All devices, by index.
    pub async fn links(&self) -> Result<Arc<[Link]>, NetlinkError> {
        self.hub.read(&[Need::Links], |mirror, _| mirror.links()).await
    }

    /// One device by name.
    pub async fn link(&self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let name = name.to_owned();
        self.hub.read(&[Need::Links], move |mirror, _| mirror.link(&name)).await
    }

    /// The name that a device has now; `None` = it is gone.
    pub(crate) async fn name(&self, index: u32) -> Result<Option<String>, NetlinkError> {
        self.hub.read(&[Need::Links], move |mirror, _| mirror.name(index)).await
    }

    /// The kind of a device's link layer (`ARPHRD_*`); `None` = there is no such device.
    pub async fn link_layer(&self, index: u32) -> Result<Option<u16>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        match self.request(libc::RTM_GETLINK, 0, emit(&message)).await {
            Ok(messages) => {
                let found = messages.iter().find(|message| message.kind == libc::RTM_NEWLINK);
                let kind = found.and_then(|message| message.payload.get(2..4)?.first_chunk().copied());
                Ok(kind.map(u16::from_ne_bytes))
            }
            Err(error) if error.errno() == libc::ENODEV => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Brings a device up with this MTU.
    pub async fn set_link_up(&self, index: u32, mtu: u32) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes.push(LinkAttribute::Mtu(mtu));
        self.request(libc::RTM_SETLINK, 0, emit(&message)).await.map(drop)
    }

    /// The sysctl `addr_gen_mode` of a device; `None` = it has no IPv6, or is gone. While anybody changes devices, those who
    /// read or write the file of this sysctl try again and again without a pause. This way they sleep.
    pub(crate) async fn addr_gen_mode(&self, index: u32) -> Result<Option<u8>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        match self.request(libc::RTM_GETLINK, 0, emit(&message)).await {
            Ok(messages) => {
                let found = messages.iter().find(|message| message.kind == libc::RTM_NEWLINK);
                Ok(found.and_then(|message| addr_gen_mode(&message.payload)))
            }
            Err(error) if error.errno() == libc::ENODEV => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets it.
    pub(crate) async fn set_addr_gen_mode(&self, index: u32, mode: u8) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let mut payload = emit(&message);
        let (mut family, mut families) = (Vec::new(), Vec::new());
        wire::push(&mut family, IFLA_INET6_ADDR_GEN_MODE, &[mode]);
        wire::push(&mut families, u16::from(wire::family(true)), &family);
        wire::push(&mut payload, libc::IFLA_AF_SPEC, &families);
        self.request(libc::RTM_SETLINK, 0, payload).await.map(drop)
    }

    /// Sets the ifalias.
    pub async fn set_link_alias(&self, index: u32, alias: &str) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
        self.changes.link().set(message).execute().await?;
        // While a device is down, the kernel does not report changes of its alias.
        let mut payload = dump_of_all();
        payload[4..8].copy_from_slice(&index.to_ne_bytes());
        for link in self.request(libc::RTM_GETLINK, 0, payload).await? {
            self.hub.take(link);
        }
        Ok(())
    }

    /// Deletes a device.
    pub async fn delete_link(&self, index: u32) -> Result<(), NetlinkError> {
        Ok(self.changes.link().del(index).execute().await?)
    }
}

/// The request for all devices.
pub(super) fn dump_of_all() -> Vec<u8> {
    let mut payload = vec![0; HEADER];
    let mask = RTEXT_FILTER_SKIP_STATS.to_ne_bytes();
    wire::push(&mut payload, libc::IFLA_EXT_MASK, &mask);
    payload
}

/// A device from `struct ifinfomsg` and its attributes. In a message that has only some of them, the MTU is 0.
pub(super) fn parse(payload: &[u8]) -> Option<Link> {
    let flags = wire::u32_at(payload, 8)?;
    let mut link = Link {
        index: wire::u32_at(payload, 4)?,
        name: String::new(),
        mtu: 0,
        up: flags & libc::IFF_UP.cast_unsigned() != 0,
        carrier: flags & libc::IFF_RUNNING.cast_unsigned() != 0,
        alias: None,
        master: None,
        vrf_table: None,
    };
    for attribute in Attributes(payload.get(HEADER..)?) {
        match attribute.kind {
            libc::IFLA_IFNAME => link.name = attribute.text(),
            libc::IFLA_MTU => link.mtu = attribute.u32()?,
            libc::IFLA_CARRIER => link.carrier = attribute.u8()? != 0,
            libc::IFLA_IFALIAS => link.alias = Some(attribute.text()).filter(|alias| !alias.is_empty()),
            libc::IFLA_MASTER => link.master = attribute.u32().filter(|&index| index != 0),
            libc::IFLA_LINKINFO => link.vrf_table = vrf_table(attribute.nested()),
            _ => {}
        }
    }
    Some(link)
}

/// Of a device that has IPv6.
fn addr_gen_mode(payload: &[u8]) -> Option<u8> {
    let families = Attributes(payload.get(HEADER..)?)
        .find(|attribute| attribute.kind == libc::IFLA_AF_SPEC)?
        .nested();
    let family = u16::from(wire::family(true));
    let mut ipv6 = families
        .into_iter()
        .find(|attribute| attribute.kind == family)?
        .nested();
    ipv6.find(|attribute| attribute.kind == IFLA_INET6_ADDR_GEN_MODE)?.u8()
}

/// How often a device lost its carrier since it was made.
pub(super) fn carrier_losses(payload: &[u8]) -> Option<u32> {
    let mut attributes = Attributes(payload.get(HEADER..)?);
    attributes
        .find(|attribute| attribute.kind == IFLA_CARRIER_DOWN_COUNT)?
        .u32()
}

fn vrf_table(mut info: Attributes<'_>) -> Option<u32> {
    if info.clone().find(|attribute| attribute.kind == IFLA_INFO_KIND)?.text() != "vrf" {
        return None;
    }
    let data = info.find(|attribute| attribute.kind == IFLA_INFO_DATA)?;
    data.nested().find(|attribute| attribute.kind == IFLA_VRF_TABLE)?.u32()
}
