//! Anycast addresses. A socket joins each; when the socket is closed, also by the death of this process, the kernel
//! leaves the address.
//!
//! The kernel adds a route in table local for each, which makes packets to the address the host's own. clatd removes
//! that route: the kernel answers neighbours by the device's list of anycast addresses, and our rules, which come
//! after table local, find the packets. The kernel can leave the address without that route.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv6Addr;

use socket2::{Domain, Socket, Type};

use super::failure::{Failure, NOTHING, OpResult};
use super::netlink::Netlink;
use super::ops::link;
use crate::sys::socket::join_anycast;

/// The kernel's list of them, for the calling thread's network namespace.
const LISTING: &str = "/proc/thread-self/net/anycast6";

/// The addresses that one instance has joined.
#[derive(Debug, Default)]
pub(super) struct Anycast(BTreeMap<(String, Ipv6Addr), Socket>);

impl Anycast {
    pub(super) async fn join(&mut self, netlink: &Netlink, device: &str, address: Ipv6Addr) -> OpResult {
        let key = (device.to_owned(), address);
        // The address was lost with its device, but the socket still exists.
        self.0.remove(&key);
        let index = link(netlink, device).await?.index;
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
        join_anycast(&socket, index, address).map_err(|error| explained(error, device, address))?;
        netlink.delete_anycast_route(index, address).await?;
        self.0.insert(key, socket);
        Ok(NOTHING)
    }

    pub(super) fn leave(&mut self, device: &str, address: Ipv6Addr) -> OpResult {
        self.0.remove(&(device.to_owned(), address));
        Ok(NOTHING)
    }
}

/// Whether the address is joined on the device with this index, and packets to it are not the host's own.
pub(crate) async fn stands(netlink: &Netlink, index: u32, address: Ipv6Addr) -> Result<bool, Failure> {
    Ok(is_joined(index, address)? && !netlink.has_anycast_route(index, address).await?)
}

fn is_joined(index: u32, address: Ipv6Addr) -> io::Result<bool> {
    Ok(is_listed(&std::fs::read_to_string(LISTING)?, index, address))
}

fn is_listed(listing: &str, index: u32, address: Ipv6Addr) -> bool {
    let (index, address) = (index.to_string(), format!("{:032x}", address.to_bits()));
    listing.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some(index.as_str()) && words.nth(1) == Some(address.as_str())
    })
}

fn explained(error: io::Error, device: &str, address: Ipv6Addr) -> Failure {
    let hint = match error.raw_os_error() {
        Some(libc::EADDRNOTAVAIL) => {
            format!("{device} has no prefix with {address}; if the network routes it to this host, set nd=none")
        }
        Some(libc::EINVAL) => format!("{address} is an address of this host; set another clat-v6-addr, or shared"),
        _ => return error.into(),
    };
    Failure::new(error).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_listing_is_read() {
        let listing = "2    up0             20010db8000000000000000000000000     1\n\
                       12   wan0            20010db80001000000000000c1a70001     2\n";
        let is_listed = |index, address: &str| is_listed(listing, index, address.parse().unwrap());
        assert!(is_listed(12, "2001:db8:1::c1a7:1"));
        assert!(!is_listed(2, "2001:db8:1::c1a7:1"));
        assert!(!is_listed(12, "2001:db8:1::c1a7:2"));
    }
}
