//! Keys about the CLAT: its device and addresses.

use super::{Key, Kind, Origin, PLAIN};

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "clat-dev",
        kind: Kind::NewDevice,
        default: "clat",
        brief: "name of the CLAT's network device",
        full: "The name of the network device that IPv4 packets of the host are routed to.\n\
               It is made at start and must not exist.\n\
               \n\
               With instance files and this key unset each instance gets `clat-` and its own name, shortened to 15 characters.",
        ..PLAIN
    },
    Key {
        name: "clat-v4-addr",
        kind: Kind::Ipv4,
        default: "192.0.0.1",
        brief: "IPv4 address of the CLAT",
        full: "The IPv4 address that is put on the CLAT's device and that programs of the host use as their source.\n\
               The default is reserved for this purpose by RFC 7335.\n\
               An SIIT-DC edge relay (RFC 7756) gets its service address here.\n\
               \n\
               With instance files and this key unset the instances get, in the order of their files, \
               the addresses of `clat-v4-pool`: 192.0.0.1, 192.0.0.3 to 192.0.0.7 and 192.0.0.0.\n\
               When none is left, the instance is not started and an error says so.",
        ..PLAIN
    },
    Key {
        name: "clat-v4-pool",
        kind: Kind::Pool,
        default: "192.0.0.0/29",
        brief: "IPv4 addresses for instances that have none of their own",
        full: "The prefix from which instances get their `clat-v4-addr` if it is unset.\n\
               The default is the block of RFC 7335, which has room for seven instances beside `tayga-v4-addr`.\n\
               A larger one must be used nowhere else that the host talks to.",
        origin: Origin::Ours,
        ..PLAIN
    },
    Key {
        name: "clat-v6-addr",
        kind: Kind::ClatV6,
        optional: true,
        default: "derived",
        brief: "IPv6 address of the CLAT, or how to find one",
        full: "The IPv6 address that `clat-v4-addr` is translated to.\n\
               \n\
               With `derived` it is made from an address of the uplink, as the clatd of 2016 does: \
               from one with a modified EUI-64 interface identifier by replacing the middle bits ff:fe by c1:a7, \
               else with a random interface identifier.\n\
               The prefix is that of the uplink's address that RFC 6724 prefers towards the PLAT prefix: one with the same label \
               (unique local addresses for a unique local PLAT prefix, and only for that), then the one with the longest common prefix, then the oldest; \
               `derived` takes modified EUI-64 addresses before others of the same label.\n\
               Deprecated and temporary addresses do not count.\n\
               One that the kernel still checks for duplicates tells its prefix already.\n\
               \n\
               Where the uplink has single addresses but no prefix to derive one from (DHCPv6, many virtual servers), \
               the host's own is shared, with a warning.\n\
               \n\
               With `stable` the interface identifier is a hash (RFC 7217) of the uplink's prefix and name, the instance's name and \
               the host's machine-id: the same after a restart.\n\
               With `checksum-neutral` it is chosen, in addition, so that translation leaves transport checksums as they are; \
               this needs a PLAT prefix of length 32 or 96.\n\
               \n\
               With `shared` the CLAT uses the host's own address towards the PLAT, as clatd 2.x does; its flows are told apart by `ctmark`, \
               for which nft is needed.\n\
               \n\
               With `pd` a prefix is asked for on the uplink by DHCPv6 (RFC 8415), and the address is one of its first /64.\n\
               \n\
               What `derived`, `stable` and `checksum-neutral` choose is checked for duplicates (RFC 4862): if somebody has it, the next candidate \
               is tried, four at most.\n\
               It is used when nobody has answered for a tenth of a second, and given up if somebody answers later \
               (RFC 4429), within a second or the retransmission time that routers advertise; on a link where that has happened, all of that \
               time is waited for in the next ten minutes.\n\
               An address in use is defended: when a neighbour advertises it, it is advertised, too, once a second at most.\n\
               It is given up for the next candidate only when the neighbour persists for five seconds, and three times an hour at most; \
               where no candidate is free or this has happened too often, it is kept and defended.\n\
               A neighbour that claims every address is named in a warning; `shared` or an address routed to the host helps then.\n\
               Several instances on one uplink get different ones.\n\
               \n\
               Else it is an IPv6 address that the network routes to the host, or that `nd` attracts.",
        ..PLAIN
    },
    Key {
        name: "ctmark",
        kind: Kind::Integer {
            or_zero: false,
            min: 0,
            max: u32::MAX,
        },
        optional: true,
        unset: "0xc1a7 with clat-v6-addr=shared, else 0",
        brief: "connection mark of the CLAT's flows; 0 = none",
        full: "The connection-tracking mark of flows from the CLAT to the PLAT.\n\
               Only packets of flows that carry it are led back to the CLAT, which is what makes `clat-v6-addr=shared` possible: nft sends the CLAT a copy of their replies and drops the original.\n\
               An SIIT-DC edge relay must leave it at 0, since its flows begin on the other side.\n\
               With instance files and this key unset each instance with a shared address gets a mark of its own, from 0xc1a7 upwards.",
        origin: Origin::Clatd2,
        ..PLAIN
    },
    Key {
        name: "route-table",
        kind: Kind::RouteTable,
        default: "0xc1a7",
        brief: "routing table for the CLAT's own routes",
        full: "The number of the routing table that holds the CLAT's own routes.\n\
               The tables 253, 254 and 255 are the system's.\n\
               With instance files and this key unset each instance gets a table of its own, from the default upwards.",
        origin: Origin::Clatd2,
        ..PLAIN
    },
    Key {
        name: "rule-priority",
        kind: Kind::Integer {
            or_zero: false,
            min: 1,
            max: 32762,
        },
        optional: true,
        unset: "464, or before others' rules",
        brief: "priority of the first of the CLAT's policy rules",
        full: "The priority of the first of the CLAT's policy rules; there are up to four of them in a row.\n\
               \n\
               If it is unset they stand at 464 to 467, and before rules of others that would take the CLAT's packets: those of \
               VPNs, for example, which the kernel puts before all but the first rule.\n\
               Whenever such a rule comes, they are numbered anew, with lower numbers.\n\
               Rules that select by a packet mark are left where they are, since somebody set the mark on purpose.\n\
               \n\
               If it is set they stay where it says.\n\
               So this is the way to put a rule before them on purpose: with `rule-priority=1000` a rule with priority 900 comes first.",
        origin: Origin::Ours,
        ..PLAIN
    },
    Key {
        name: "forwarding-enable",
        kind: Kind::Bool,
        default: "yes",
        brief: "whether IPv6 forwarding is switched on",
        full: "Whether IPv6 forwarding is switched on while the CLAT runs, which the CLAT needs.\n\
               Devices that accept router advertisements keep doing so: their accept_ra is set to 2 first.\n\
               All is put back when the last instance stops.",
        ..PLAIN
    },
    Key {
        name: "proxynd-enable",
        kind: Kind::Bool,
        default: "yes",
        brief: "whether the uplink answers neighbour solicitations for the CLAT",
        full: "Whether the uplink answers neighbour solicitations for the CLAT's IPv6 address, so that its router can find the CLAT; `nd` says how.\n\
               Only needed where the address is on-link, not where a prefix is routed to the host.\n\
               With `clat-v6-addr=shared` the default is `no`.",
        ..PLAIN
    },
    Key {
        name: "nd",
        kind: Kind::Words(clatd_stages::settings::NdChoice::WORDS),
        default: "auto",
        brief: "how the uplink answers neighbour solicitations for the CLAT",
        full: "How the uplink answers neighbour solicitations for the CLAT's IPv6 address, unless `proxynd-enable=no` says that it does not.\n\
               \n\
               With `proxy` a proxy neighbour entry is added to it.\n\
               The kernel minds that only where the uplink's proxy_ndp and forwarding \
               are on, which clatd sees to.\n\
               \n\
               With `anycast` the address is joined as an anycast address, which needs neither, but must be in a prefix of the uplink.\n\
               It would then count as the host's own, so the kernel's route for it is taken out of the IPv6 local table.\n\
               \n\
               With `auto` it is `proxy`, but `anycast` where the uplink's forwarding is off and must stay so: with `forwarding-enable=no`, \
               or where it would take away default routes that router advertisements brought to a device with accept_ra=0.\n\
               With `none` nobody answers.",
        origin: Origin::Ours,
        ..PLAIN
    },
    Key {
        name: "firewall",
        kind: Kind::Words(clatd_stages::settings::FirewallChoice::WORDS),
        default: "auto",
        brief: "which packet filter is told to let the CLAT's packets through",
        full: "Which packet filter is told to let the CLAT's packets through.\n\
               With `auto` these are the nftables chains that would drop them, and the FORWARD chain of ip6tables where it would.\n\
               With `nftables` or `ip6tables` it is that one alone, with `none` none.\n\
               Rules go to the head of the chains that are there, and exactly these rules are taken away again.",
        origin: Origin::Ours,
        ..PLAIN
    },
    Key {
        name: "ip6tables-enable",
        kind: Kind::Bool,
        optional: true,
        unset: "yes where the FORWARD chain would drop the CLAT's packets",
        brief: "whether rules are inserted into ip6tables' FORWARD chain",
        full: "Whether rules that accept the CLAT's packets are inserted into the FORWARD chain of ip6tables.\n\
               With `yes` they are inserted in any case, with `no` never.",
        ..PLAIN
    },
];
