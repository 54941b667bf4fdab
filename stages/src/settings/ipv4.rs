//! Native IPv4 connectivity and the IPv4 default route.

use super::{ConncheckScope, RouteMtu};

section! {
    /// Native IPv4 connectivity and the IPv4 default route.
    Ipv4 {
        /// Whether native IPv4 connectivity makes the instance idle.
        v4_conncheck_enable: bool = true,
        /// Seconds to wait before looking for native IPv4 connectivity; none = 0 with `when-idle=wait`, else 10.
        v4_conncheck_delay: Option<u32> = None,
        /// Whether native IPv4 counts on the whole host or on the uplink only.
        v4_conncheck_scope: ConncheckScope = ConncheckScope::Host,
        /// Whether an IPv4 default route through the CLAT is added.
        v4_defaultroute_enable: bool = true,
        /// Whether existing IPv4 default routes are taken away while the CLAT runs.
        v4_defaultroute_replace: bool = false,
        /// Metric of the IPv4 default route; 0 = the kernel's default; none = 2048 and up, in the order of the uplinks.
        v4_defaultroute_metric: Option<u32> = None,
        /// MTU of the IPv4 default route.
        v4_defaultroute_mtu: RouteMtu = RouteMtu::Auto,
        /// TCP MSS of the IPv4 default route in bytes; none = MTU - 40, 0 = none set.
        v4_defaultroute_advmss: Option<u32> = None,
    }
}
