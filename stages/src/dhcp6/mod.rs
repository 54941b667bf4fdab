//! A DHCPv6 client for delegated prefixes (RFC 8415, IA_PD), for `clat-v6-addr=pd`: the CLAT takes an address of its
//! own /64 out of what the uplink's server delegates.
//!
//! Packets and the time go in, packets and the next time to look come out: no I/O, no clock. Time is a [`Duration`]
//! since some moment that stays the same for as long as a lease is kept; `clatd` takes the boot of the machine.
//!
//! | file | what |
//! |---|---|
//! | `message` | the wire format (section 8, 21) |
//! | `duid` | who we are: DUID and IAID (sections 11, 12) |
//! | `lease` | what was delegated, and for how long |
//! | `retransmit` | when to say it again (section 15), and how often at most (section 14.1) |
//! | `client` | the exchanges (section 18.2), and all that is sent |
//! | `reply` | what servers say, and what comes of it (sections 16, 18.2.9, 18.2.10) |
//! | `address` | the CLAT's address out of the prefix |
//!
//! [`Duration`]: std::time::Duration

mod address;
mod client;
mod duid;
mod lease;
mod message;
mod reply;
mod retransmit;

pub use address::{choose_address, stable_seed};
pub use client::{Client, ClientActions, ClientConfig, ClientInput, Phase};
pub use duid::{Duid, iaid};
pub use lease::{Delegated, FOREVER, Lease};
pub use message::{DecodeError, Dhcp6Message, DhcpOption, IaPd, IaPrefix, MessageType, ServerStatus, StatusCode};

/// Where clients listen (section 7.2).
pub const CLIENT_PORT: u16 = 546;
/// Where servers and relays listen (section 7.2).
pub const SERVER_PORT: u16 = 547;
/// All_DHCP_Relay_Agents_and_Servers (section 7.1).
pub const ALL_SERVERS: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_client;
#[cfg(test)]
mod tests_lease;
