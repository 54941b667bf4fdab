//! Keys about native IPv4 connectivity and the IPv4 default route.

use super::{FirstIn, Key, Number, PLAIN};
use crate::config::field::field;

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "v4-conncheck-enable",
        field: field!(ipv4.v4_conncheck_enable),
        brief: "whether native IPv4 connectivity makes the CLAT unnecessary",
        full: "Whether an IPv4 default route that is not clatd's own makes the CLAT unnecessary.\n\
               `v4-defaultroute-replace=yes` switches this check off.",
        ..PLAIN
    },
    Key {
        name: "v4-conncheck-delay",
        field: field!(ipv4.v4_conncheck_delay, Number::Range(0, 3600)),
        unset: "0 with when-idle=wait, else 10",
        brief: "seconds to wait before looking for native IPv4 connectivity",
        full: "How many seconds clatd waits at the start before it looks for native IPv4 connectivity, so that DHCPv4 can finish.\n\
               If unset, it is 10 with `when-idle=exit`, and 0 with `when-idle=wait`, since clatd then notices native IPv4 that comes later.\n\
               A dry run does not wait.",
        ..PLAIN
    },
    Key {
        name: "v4-conncheck-scope",
        field: field!(ipv4.v4_conncheck_scope),
        brief: "where native IPv4 counts: on the whole host or on the uplink",
        full: "With `host` an IPv4 default route on any device makes the CLAT unnecessary.\n\
               With `uplink` only a default route on the instance's own uplink does.\n\
               Routes of other CLATs never count.",
        origin: FirstIn::Ours,
        ..PLAIN
    },
    Key {
        name: "v4-defaultroute-enable",
        field: field!(ipv4.v4_defaultroute_enable),
        brief: "whether an IPv4 default route to the CLAT is added",
        full: "Whether clatd adds an IPv4 default route to the CLAT.\n\
               Say `no` on an SIIT-DC edge relay that has native IPv4 beside its service address.",
        ..PLAIN
    },
    Key {
        name: "v4-defaultroute-replace",
        field: field!(ipv4.v4_defaultroute_replace),
        brief: "whether existing IPv4 default routes are taken away meanwhile",
        full: "Whether clatd removes existing IPv4 default routes while the CLAT runs.\n\
               Afterwards it restores them with all their attributes.\n\
               This implies `v4-conncheck-enable=no`.",
        ..PLAIN
    },
    Key {
        name: "v4-defaultroute-metric",
        field: field!(ipv4.v4_defaultroute_metric, Number::Range(0, u32::MAX)),
        unset: "2048; by the uplinks with several instances",
        brief: "metric of the IPv4 default route; 0 = the kernel's default",
        full: "The metric of the IPv4 default route to the CLAT; with 0 it is the kernel's default.\n\
               If unset, it is 2048 where there are no instance files.\n\
               With instance files, or with a pattern in `plat-dev`, it is sixteen times the metric of the uplink's IPv6 default route, \
               plus the number of the instance among those with the same metric.\n\
               So the CLATs are preferred in the order of their uplinks.",
        ..PLAIN
    },
    Key {
        name: "v4-defaultroute-mtu",
        field: field!(ipv4.v4_defaultroute_mtu),
        brief: "MTU of the IPv4 default route in bytes; 0 = none, auto = fits the uplink",
        full: "The MTU of the IPv4 default route to the CLAT in bytes; with 0 the route has none.\n\
               With `auto` it is the IPv6 MTU of the uplink less 20, and follows it when a router lowers it.\n\
               Where a path carries less, path MTU discovery tells the sender.\n\
               1260, the default of the clatd of 2016, fits every path: it is the smallest MTU of IPv6, 1280, less 20 bytes for the \
               larger header.\n\
               With 1260, a tunnel over the CLAT's IPv4 carries less than the 1280 bytes that IPv6 needs.\n\
               \n\
               Fragments need 8 bytes more, since IPv6 has a Fragment Header for what stands in IPv4's own header (RFC 7915 section 4.1).\n\
               Where `lowest-ipv6-mtu` is smaller than the uplink's MTU, the translator cuts fragments and packets that may be \
               fragmented (DF=0) to `lowest-ipv6-mtu` in any case, so `auto` leaves no room for that header.\n\
               Where `lowest-ipv6-mtu` is as large as the uplink's MTU, `auto` is 28 less than it.\n\
               Then the translator need not cut again what this host has fragmented.",
        ..PLAIN
    },
    Key {
        name: "v4-defaultroute-advmss",
        field: field!(ipv4.v4_defaultroute_advmss, Number::ZeroOr(1, 65495)),
        unset: "v4-defaultroute-mtu less 40",
        brief: "TCP MSS of the IPv4 default route in bytes; 0 = none",
        full: "The TCP maximum segment size that the host advertises to peers beyond the IPv4 default route, in bytes; with 0 the route has none.\n\
               If unset, it is `v4-defaultroute-mtu` less 40, and none where that is 0.",
        ..PLAIN
    },
];
