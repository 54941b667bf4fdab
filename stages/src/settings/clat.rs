//! The CLAT: its device, addresses, rules and packet filters.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{ClatV6Addr, FirewallChoice, NdChoice};

section! {
    /// The CLAT: its device, addresses, rules and packet filters.
    Clat {
        /// Name of the CLAT's TUN device.
        clat_dev: String = "clat".into(),
        /// IPv4 address of the CLAT.
        clat_v4_addr: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 1),
        /// The pool of IPv4 addresses for instances without one of their own.
        clat_v4_pool: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 0, 0), 29),
        /// IPv6 address of the CLAT, or how to find one.
        clat_v6_addr: ClatV6Addr = ClatV6Addr::Derived,
        /// Conntrack mark of the CLAT's flows with `clat-v6-addr=shared`; none = 0xc1a7 if shared, else 0.
        ctmark: Option<u32> = None,
        /// Routing table of the CLAT's own routes.
        route_table: u32 = 0xc1a7,
        /// Priority of the first policy rule; none = before others' rules that would take the CLAT's packets.
        rule_priority: Option<u32> = None,
        /// Whether IPv6 forwarding is switched on.
        forwarding_enable: bool = true,
        /// Whether a proxy neighbour entry is added for the CLAT's IPv6 address.
        proxynd_enable: bool = true,
        /// How the uplink answers them.
        nd: NdChoice = NdChoice::Auto,
        /// Which packet filter is told to let the CLAT's packets through.
        firewall: FirewallChoice = FirewallChoice::Auto,
        /// Whether ip6tables rules are inserted; none = where the FORWARD chain would drop.
        ip6tables_enable: Option<bool> = None,
    }
}
