//! What an instance takes for itself on a link: an address that nobody else has, a prefix that a server delegates.
//! `src/claims` does it on real links, and for a dry run without a word to anybody. Tests do it with data.

use std::net::Ipv6Addr;

use async_trait::async_trait;

use crate::facts::Fact;
use crate::world::WorldError;

/// The claims of one instance. They end with the value.
#[async_trait]
pub trait Claims: Send + Sync {
    /// The address that the instance has on this device, from an earlier [`Self::reserve`].
    async fn reserved(&self, device: &str) -> Result<Option<Ipv6Addr>, WorldError>;

    /// Gives this address to the instance in place of its earlier one. If another instance of this daemon has it,
    /// returns that one's name.
    async fn reserve(&self, device: &str, address: Ipv6Addr) -> Result<Option<String>, WorldError>;

    /// Who has this address on the device's link already, by duplicate address detection (RFC 4862 section 5.4).
    /// `None` = nobody, nobody in time (it may become known later, RFC 4429), or the link has no such detection.
    async fn duplicate_of(&self, device: &str, address: Ipv6Addr) -> Result<Option<String>, WorldError>;

    /// An address for which [`Self::duplicate_of`] found nobody is no longer in use, so it need not be defended.
    async fn give_back(&self, device: &str, address: Ipv6Addr);

    /// An address for which [`Self::duplicate_of`] found nobody is in use from now on. The announcement (RFC 9131)
    /// is for routers that asked for it before, when nobody answered: they would not ask again for up to a second.
    async fn announce(&self, device: &str, address: Ipv6Addr);

    /// The first /64 of the prefix that DHCPv6 delegated on a device (RFC 8415); `None` = none yet. It is requested
    /// if that was not done before.
    async fn delegated_prefix(&self, device: &str) -> Result<Option<Fact<ipnet::Ipv6Net>>, WorldError>;
}
