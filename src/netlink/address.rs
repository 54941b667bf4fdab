//! Addresses.

use std::net::{IpAddr, Ipv4Addr};

use clatd_stages::net::Address6;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};

use super::mirror::Need;
use super::socket::Connection;
use super::wire::{self, Attributes};
use super::{KernelMessage, Netlink, NetlinkError};

/// Length of `struct ifaddrmsg`.
const HEADER: usize = 8;

impl Netlink {
    /// The IPv4 addresses of a device, in the kernel's order.
    pub async fn addresses4(&self, index: u32) -> Result<Vec<Ipv4Addr>, NetlinkError> {
        let messages = self.addresses(index, false).await?;
        let found = messages.iter().filter_map(|message| match local(&message.payload)? {
            (IpAddr::V4(address), _) => Some(address),
            (IpAddr::V6(_), _) => None,
        });
        Ok(found.collect())
    }

    /// The IPv6 addresses of a device, in the kernel's order.
    pub async fn addresses6(&self, index: u32) -> Result<Vec<Address6>, NetlinkError> {
        let needs = [Need::Links, Need::Addresses6(index)];
        self.hub
            .read(&needs, move |mirror, now| mirror.addresses6(index, now))
            .await
    }

    /// Whether a device has exactly this address with this prefix length.
    pub async fn has_address(&self, index: u32, address: IpNet) -> Result<bool, NetlinkError> {
        let messages = self.addresses(index, address.addr().is_ipv6()).await?;
        Ok(messages
            .iter()
            .any(|message| local(&message.payload) == Some((address.addr(), address.prefix_len()))))
    }

    /// Adds an address.
    pub async fn add_address(&self, index: u32, address: IpNet) -> Result<(), NetlinkError> {
        let mut message = message(index, address);
        if address.addr().is_ipv6() {
            // On a device of ours nobody else can have the address. Without this flag it could not be used for a
            // second.
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let mut request = self.changes.address().add(index, address.addr(), address.prefix_len());
        // By itself it would give a device of ours a broadcast address.
        *request.message_mut() = message;
        Ok(request.execute().await?)
    }

    /// Removes an address.
    pub async fn remove_address(&self, index: u32, address: IpNet) -> Result<(), NetlinkError> {
        Ok(self.changes.address().del(message(index, address)).execute().await?)
    }

    async fn addresses(&self, index: u32, v6: bool) -> Result<Vec<KernelMessage>, NetlinkError> {
        self.with_connection(move |connection| dump(connection, index, v6))
            .await
    }
}

/// The addresses of a device.
pub(super) fn dump(connection: &mut Connection, index: u32, v6: bool) -> Result<Vec<KernelMessage>, NetlinkError> {
    let mut payload = vec![0; HEADER];
    payload[0] = wire::family(v6);
    payload[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut messages = match connection.dump(libc::RTM_GETADDR, &payload) {
        // The device has gone since its index was looked up.
        Err(error) if error.errno() == libc::ENODEV => Vec::new(),
        other => other?,
    };
    messages.retain(|message| message.kind == libc::RTM_NEWADDR && wire::u32_at(&message.payload, 4) == Some(index));
    Ok(messages)
}

fn message(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = address.prefix_len();
    message.header.family = match address.addr() {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.attributes.push(AddressAttribute::Local(address.addr()));
    message.attributes.push(AddressAttribute::Address(address.addr()));
    message
}

/// The device's own address, which on a point-to-point device is `IFA_LOCAL`, and its prefix length.
fn local(payload: &[u8]) -> Option<(IpAddr, u8)> {
    let find = |kind| Attributes(payload.get(HEADER..).unwrap_or_default()).find(|attribute| attribute.kind == kind);
    let address = find(libc::IFA_LOCAL).or_else(|| find(libc::IFA_ADDRESS))?.address()?;
    Some((address, *payload.get(1)?))
}

/// An IPv6 address from `struct ifaddrmsg` and its attributes.
pub(super) fn parse6(payload: &[u8]) -> Option<Address6> {
    let (IpAddr::V6(address), prefix_len) = local(payload)? else {
        return None;
    };
    let mut flags = u32::from(*payload.get(2)?);
    let mut valid_s = None;
    for attribute in Attributes(payload.get(HEADER..)?) {
        match attribute.kind {
            libc::IFA_FLAGS => flags = attribute.u32()?,
            // struct ifa_cacheinfo: preferred lifetime, then valid lifetime.
            libc::IFA_CACHEINFO => valid_s = wire::u32_at(attribute.value, 4).filter(|&seconds| seconds != u32::MAX),
            _ => {}
        }
    }
    Some(Address6 {
        address,
        prefix_len,
        global: *payload.get(3)? == libc::RT_SCOPE_UNIVERSE,
        tentative: flags & (libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED) != 0,
        deprecated: flags & libc::IFA_F_DEPRECATED != 0,
        temporary: flags & libc::IFA_F_TEMPORARY != 0,
        valid_s,
    })
}
