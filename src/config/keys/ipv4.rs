//! Keys about native IPv4 connectivity and the IPv4 default route.

use clatd_stages::settings::ConncheckScope;

use super::{Key, Kind, Origin, PLAIN};

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "v4-conncheck-enable",
        kind: Kind::Bool,
        default: "yes",
        brief: "whether native IPv4 connectivity makes the CLAT unnecessary",
        full: "Whether the presence of an IPv4 default route that is not clatd's own means that there is no need for a CLAT.\n\
               `v4-defaultroute-replace=yes` switches the check off.",
        ..PLAIN
    },
    Key {
        name: "v4-conncheck-delay",
        kind: Kind::Integer {
            or_zero: false,
            min: 0,
            max: 3600,
        },
        optional: true,
        unset: "0 with when-idle=wait, else 10",
        brief: "seconds to wait before looking for native IPv4 connectivity",
        full: "How many seconds to wait at the start before looking for native IPv4 connectivity, so that DHCPv4 has time to finish.\n\
               If unset it is 10 with `when-idle=exit`, and 0 with `when-idle=wait`, since native IPv4 that comes later is followed.\n\
               A dry run does not wait.",
        ..PLAIN
    },
    Key {
        name: "v4-conncheck-scope",
        kind: Kind::Words(ConncheckScope::WORDS),
        default: "host",
        brief: "where native IPv4 counts: on the whole host or on the uplink",
        full: "With `host` an IPv4 default route on any device makes the CLAT unnecessary, with `uplink` only one on the instance's own uplink.\n\
               Routes of other CLATs never count.",
        origin: Origin::Ours,
        ..PLAIN
    },
    Key {
        name: "v4-defaultroute-enable",
        kind: Kind::Bool,
        default: "yes",
        brief: "whether an IPv4 default route to the CLAT is added",
        full: "Whether an IPv4 default route to the CLAT is added.\n\
               An SIIT-DC edge relay whose service address has native IPv4 beside it says `no`.",
        ..PLAIN
    },
    Key {
        name: "v4-defaultroute-replace",
        kind: Kind::Bool,
        default: "no",
        brief: "whether existing IPv4 default routes are taken away meanwhile",
        full: "Whether existing IPv4 default routes are taken away while the CLAT runs, and put back with all their attributes afterwards.\n\
               Implies `v4-conncheck-enable=no`.",
        ..PLAIN
    },
    Key {
        name: "v4-defaultroute-metric",
        kind: Kind::Integer {
            or_zero: false,
            min: 0,
            max: u32::MAX,
        },
        optional: true,
        unset: "2048; by the uplinks with several instances",
        brief: "metric of the IPv4 default route; 0 = the kernel's default",
        full: "The metric of the IPv4 default route to the CLAT; with 0 none is given and the kernel's default holds.\n\
               If unset it is 2048 for an instance without instance files.\n\
               With them, or with a pattern in `plat-dev`, it is sixteen times the metric of the uplink's IPv6 default route, \
               and the instance's number among its like is added: the CLATs stand in the order of their uplinks.",
        ..PLAIN
    },
    Key {
        name: "v4-defaultroute-mtu",
        kind: Kind::Mtu,
        default: "1260",
        brief: "MTU of the IPv4 default route in bytes; 0 = none, auto = fits the uplink",
        full: "The MTU of the IPv4 default route to the CLAT in bytes; with 0 none is given.\n\
               The default is the smallest MTU of IPv6, less 20 for the larger header, which fits every path.\n\
               With `auto` it is the IPv6 MTU of the uplink, which routers may lower, less 20: it follows changes, \
               and larger packets than some path carries are told so by path MTU discovery.\n\
               \n\
               Fragments need 8 bytes more, since IPv6 keeps in a Fragment Header what IPv4 has in its header (RFC 7915 section 4.1).\n\
               Only fragments, and packets that may be fragmented (DF=0), are concerned, and the translator cuts those to \
               `lowest-ipv6-mtu` in any case: with its default of 1280, on an uplink with an MTU of 1500, no MTU of the route \
               that is worth having would save that, so whole packets get all there is.\n\
               Where `lowest-ipv6-mtu` is as large as the uplink's MTU, `auto` is 28 less, and what this host fragments \
               passes without being cut again.",
        ..PLAIN
    },
    Key {
        name: "v4-defaultroute-advmss",
        kind: Kind::Integer {
            or_zero: true,
            min: 1,
            max: 65495,
        },
        optional: true,
        unset: "v4-defaultroute-mtu less 40",
        brief: "TCP MSS of the IPv4 default route in bytes; 0 = none",
        full: "The TCP maximum segment size that is advertised to peers beyond the IPv4 default route, in bytes; with 0 none is given.\n\
               If unset it is what fits `v4-defaultroute-mtu`, that is, 40 less, and none where that is 0.",
        ..PLAIN
    },
];
