//! Changes of the network, as the kernel reports them.

use std::net::Ipv6Addr;

use clatd_stages::net::Link;

use super::neighbour::Reachability;

/// A change. Events that say nothing new are left out: those of renewed lifetimes, and of counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NetworkChange {
    /// Events were lost: anything may be another now.
    Anything,
    /// A device came, went, or is another now.
    Link(LinkChange),
    /// An address of a device.
    Address {
        /// The device's index.
        index: u32,
        /// Its name, where it is known.
        device: Option<String>,
        /// IPv6 or IPv4.
        v6: bool,
        /// It is a link-local one.
        link_local: bool,
        /// More than a lifetime is new.
        news: bool,
    },
    /// A default route, one of ours, or a route to a watched destination.
    Route {
        /// IPv6 or IPv4.
        v6: bool,
        /// Its table.
        table: u32,
        /// The name of its device; `None` = none, or several.
        device: Option<String>,
        /// It bears our protocol number.
        ours: bool,
        /// It is not there any more.
        gone: bool,
    },
    /// A policy rule.
    Rule {
        /// The table that it leads to.
        table: u32,
        /// It bears our protocol number.
        ours: bool,
        /// It is not there any more.
        gone: bool,
    },
    /// The state of an IPv6 neighbour that may be a router.
    Neighbour {
        /// The device's index.
        index: u32,
        /// Its name, where it is known.
        device: Option<String>,
        /// The neighbour.
        address: Ipv6Addr,
        /// Whether it answers.
        says: Reachability,
        /// The kernel forgot it.
        gone: bool,
    },
    /// `forwarding`, `proxy_ndp` or the like of a device.
    Settings {
        /// The device's name; `None` = all devices, or those to come.
        device: Option<String>,
    },
}

/// What became of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkChange {
    /// The device as it is now, or as it was last.
    pub(crate) link: Link,
    /// The name that it had before.
    pub(crate) former_name: Option<String>,
    /// It is not there any more.
    pub(crate) gone: bool,
    /// It had no carrier, if only for an instant.
    pub(crate) lost_carrier: bool,
    /// It differs from before by more than that.
    pub(crate) news: bool,
}
