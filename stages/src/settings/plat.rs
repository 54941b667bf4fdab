//! The PLAT: where it is and how it is found.

use super::{DiscoveryWay, DnsServer, PlatCheck, Pref64Setting};

section! {
    /// The PLAT: where it is and how it is found.
    Plat {
        /// The uplink; none = the device of the route to the PLAT prefix.
        plat_dev: Option<String> = None,
        /// The PLAT prefix; none = discovered.
        plat_prefix: Option<Pref64Setting> = None,
        /// The PLAT prefix where none is configured or discovered.
        plat_fallback_prefix: Option<Pref64Setting> = None,
        /// The ways in which the PLAT prefix is discovered, in order.
        discovery: Vec<DiscoveryWay> = vec![DiscoveryWay::Ra, DiscoveryWay::Dns],
        /// Whether the PLAT must answer before it is used.
        plat_check: PlatCheck = PlatCheck::Auto,
        /// DNS64 servers asked for the PLAT prefix, in order; empty = the system's resolvers.
        dns64_servers: Vec<DnsServer> = Vec::new(),
    }
}
