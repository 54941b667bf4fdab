//! Keys about the CLAT: its device and addresses.

use super::{FirstIn, Key, Number, PLAIN, Text};
use crate::config::field::field;

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "clat-dev",
        field: field!(clat.clat_dev, Text::NewDevice),
        brief: "name of the CLAT's network device",
        full: "The name of the CLAT's network device, to which the host routes IPv4 packets.\n\
               clatd makes it at start; it must not exist before.\n\
               \n\
               With instance files and this key unset, each instance's device is called `clat-` and the name of the instance, cut to 15 characters.",
        ..PLAIN
    },
    Key {
        name: "clat-v4-addr",
        field: field!(clat.clat_v4_addr),
        brief: "IPv4 address of the CLAT",
        full: "The IPv4 address that is put on the CLAT's device and that programs of the host use as their source.\n\
               The default is reserved for this purpose by RFC 7335.\n\
               An SIIT-DC edge relay (RFC 7756) gets its service address here.\n\
               \n\
               With instance files and this key unset, each instance gets an address of `clat-v4-pool`, in the order of the files: \
               192.0.0.1, 192.0.0.3 to 192.0.0.7, then 192.0.0.0.\n\
               When no address is left, an error says so, and that instance does not start.",
        ..PLAIN
    },
    Key {
        name: "clat-v4-pool",
        field: field!(clat.clat_v4_pool),
        brief: "IPv4 addresses for instances that have none of their own",
        full: "The prefix from which an instance gets its `clat-v4-addr` if that is unset.\n\
               The default is the block of RFC 7335: seven instances and `tayga-v4-addr` fit in.\n\
               For more instances, choose a larger prefix.\n\
               No peer of this host may use an address of it.",
        origin: FirstIn::Ours,
        ..PLAIN
    },
    Key {
        name: "clat-v6-addr",
        field: field!(clat.clat_v6_addr),
        brief: "IPv6 address of the CLAT, or how to find one",
        full: "The IPv6 address that `clat-v4-addr` is translated to.\n\
               \n\
               With `derived` clatd makes the address from one of the uplink's addresses, as the clatd of 2016 does.\n\
               If that address has a modified EUI-64 interface identifier, its middle bits ff:fe become c1:a7.\n\
               If not, the new interface identifier is random.\n\
               Of several addresses clatd takes the one that RFC 6724 prefers towards the PLAT prefix: first one with the same label \
               (a unique local address for a unique local PLAT prefix, and for no other), then the one with the longest common prefix, then the oldest.\n\
               Among addresses with the same label, `derived` prefers those with a modified EUI-64 interface identifier.\n\
               Deprecated and temporary addresses do not count.\n\
               An address that the kernel still checks for duplicates does count: its prefix is known already.\n\
               \n\
               Some uplinks have single addresses and no prefix (DHCPv6, many virtual servers).\n\
               Then the CLAT shares the host's own address, and a warning says so.\n\
               \n\
               With `stable` the interface identifier is a hash (RFC 7217) of the uplink's prefix and name, the instance's name and \
               the host's machine-id.\n\
               So the address is the same after a restart.\n\
               With `checksum-neutral` the interface identifier also makes translation leave transport checksums as they are.\n\
               This needs a PLAT prefix of length 32 or 96.\n\
               \n\
               With `shared` the CLAT uses the host's own address towards the PLAT, as clatd 2.x does.\n\
               With `translator=ebpf` a map in the kernel tells the CLAT's flows from those of the host.\n\
               Where the host has the same flow, the CLAT's flow gets another port.\n\
               With other translators the mark `ctmark` tells them apart; this needs nft.\n\
               \n\
               With `pd` clatd asks for a prefix on the uplink by DHCPv6 (RFC 8415), and takes an address of its first /64.\n\
               \n\
               With `derived`, `stable` and `checksum-neutral` clatd asks whether a neighbour has the address already (RFC 4862).\n\
               If a neighbour has the address, clatd tries the next candidate, four at most.\n\
               The CLAT uses the address when nobody has answered for a tenth of a second.\n\
               If somebody answers later (RFC 4429), within a second or the retransmission time that routers advertise, the CLAT gives the address up.\n\
               For ten minutes after that, the CLAT uses a new address on that link only after the whole of that time.\n\
               \n\
               clatd defends an address in use: when a neighbour advertises it, clatd advertises it too, once a second at most.\n\
               When the neighbour goes on for five seconds, the CLAT moves to the next candidate, three times an hour at most.\n\
               Where no candidate is free, or the CLAT has moved too often, it keeps the address and defends it.\n\
               A warning names a neighbour that claims every address; use `shared` then, or an address that is routed to the host.\n\
               Several instances on one uplink get different addresses.\n\
               \n\
               Any other value is an IPv6 address that the network routes to the host, or that `nd` attracts.",
        ..PLAIN
    },
    Key {
        name: "ctmark",
        field: field!(clat.ctmark, Number::Range(0, u32::MAX)),
        unset: "0xc1a7 with clat-v6-addr=shared, else 0",
        brief: "connection mark of the CLAT's flows; 0 = none",
        full: "The connection-tracking mark of flows from the CLAT to the PLAT.\n\
               Only packets of flows with this mark come back to the CLAT: nft sends the CLAT a copy of each reply and drops the original.\n\
               `clat-v6-addr=shared` works by this mark, except with `translator=ebpf`, which needs none.\n\
               An SIIT-DC edge relay must leave the mark at 0, since its flows begin on the other side.\n\
               With instance files and this key unset, each instance with a shared address gets its own mark, from 0xc1a7 upwards.",
        origin: FirstIn::Clatd2,
        ..PLAIN
    },
    Key {
        name: "route-table",
        field: field!(clat.route_table, Number::RouteTable),
        brief: "routing table for the CLAT's own routes",
        full: "The number of the routing table that holds the CLAT's own routes.\n\
               The tables 253, 254 and 255 are the system's.\n\
               With instance files and this key unset, each instance gets its own table, from the default upwards.",
        origin: FirstIn::Clatd2,
        ..PLAIN
    },
    Key {
        name: "rule-priority",
        field: field!(clat.rule_priority, Number::Range(1, 32762)),
        unset: "464, or before others' rules",
        brief: "priority of the first of the CLAT's policy rules",
        full: "The priority of the first of the CLAT's policy rules; they use up to four priorities in a row.\n\
               \n\
               If this key is unset, the rules have the priorities 464 to 467.\n\
               Where another program's rule would take the CLAT's packets, the CLAT's rules go before it, with lower numbers.\n\
               A VPN's rules are an example: the kernel puts them before all rules but the first.\n\
               Rules that select by a packet mark may stay in front, since somebody set the mark on purpose.\n\
               \n\
               If this key is set, the rules stay where it says.\n\
               So you can put a rule of yours in front: with `rule-priority=1000` a rule with priority 900 comes first.",
        origin: FirstIn::Ours,
        ..PLAIN
    },
    Key {
        name: "forwarding-enable",
        field: field!(clat.forwarding_enable),
        brief: "whether IPv6 forwarding is switched on",
        full: "Whether clatd switches IPv6 forwarding on while the CLAT runs.\n\
               The CLAT needs it, except with the fast path (`translator=ebpf`, or `auto` where that loads), where this key has no effect.\n\
               Devices that accept router advertisements go on to do so: clatd sets their accept_ra to 2 first.\n\
               When the last instance stops, clatd restores all of these values.",
        ..PLAIN
    },
    Key {
        name: "proxynd-enable",
        field: field!(clat.proxynd_enable),
        brief: "whether the uplink answers neighbour solicitations for the CLAT",
        full: "Whether the uplink answers neighbour solicitations for the CLAT's IPv6 address, so that its router can find the CLAT; `nd` says how.\n\
               This is needed where the address is on-link, and not where the network routes a prefix to the host.\n\
               With `clat-v6-addr=shared` the default is `no`.",
        ..PLAIN
    },
    Key {
        name: "nd",
        field: field!(clat.nd),
        brief: "how the uplink answers neighbour solicitations for the CLAT",
        full: "How the uplink answers neighbour solicitations for the CLAT's IPv6 address.\n\
               With `proxynd-enable=no` it does not answer.\n\
               \n\
               With `proxy` clatd adds a proxy neighbour entry to the uplink.\n\
               The kernel heeds it only where the uplink's proxy_ndp and forwarding are on; clatd switches them on.\n\
               \n\
               With `anycast` clatd joins the address as an anycast address.\n\
               This needs no sysctl, but the address must be in a prefix of the uplink.\n\
               The kernel would take it for the host's own address, so clatd removes the kernel's route for it from the IPv6 local table.\n\
               \n\
               With `auto` it is `anycast` with the fast path, which needs no forwarding.\n\
               It is also `anycast` where the uplink's forwarding must stay off: with `forwarding-enable=no`, \
               and where forwarding would remove default routes that router advertisements brought to a device with accept_ra=0.\n\
               Otherwise it is `proxy`.\n\
               With `none` nobody answers.",
        origin: FirstIn::Ours,
        ..PLAIN
    },
    Key {
        name: "firewall",
        field: field!(clat.firewall),
        brief: "which packet filter is told to let the CLAT's packets through",
        full: "In which packet filter clatd lets the CLAT's packets through.\n\
               With `auto` these are all nftables chains that would drop them, and the FORWARD chain of ip6tables if that would drop them.\n\
               With `nftables` or `ip6tables` it is that filter alone, with `none` it is none.\n\
               clatd puts accept rules at the head of the chains, and removes exactly these rules at the end.",
        origin: FirstIn::Ours,
        ..PLAIN
    },
    Key {
        name: "ip6tables-enable",
        field: field!(clat.ip6tables_enable),
        unset: "yes where the FORWARD chain would drop the CLAT's packets",
        brief: "whether rules are inserted into ip6tables' FORWARD chain",
        full: "Whether clatd inserts rules that accept the CLAT's packets into the FORWARD chain of ip6tables.\n\
               With `yes` it always does, with `no` never.",
        ..PLAIN
    },
];
