//! Keys about the translator.

use super::{FirstIn, Key, Number, PLAIN, Text};
use crate::config::field::field;

const OURS: Key = Key {
    origin: FirstIn::Ours,
    ..PLAIN
};

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "translator",
        field: field!(translator.translator),
        brief: "which translator moves the packets",
        full: "Which translator moves the packets.\n\
               With `userspace` it is clatd's own, in the daemon's process.\n\
               With `tayga` it is the external program of that name.\n\
               With `ebpf` programs in the kernel translate plain packets: TCP, UDP and echoes without options and \
               extension headers, and fragments of TCP and UDP that need not be cut.\n\
               The translator in the daemon's process translates all others.\n\
               This is nearly as fast as native IPv6.\n\
               It needs no forwarding, no IPv6 rules and routes, no proxy neighbour entry and no rule in a packet filter.\n\
               The IPv4 packet filter of this host sees all packets on the CLAT's device, and queueing disciplines of the uplink (tc) shape them.\n\
               But as IPv6 the CLAT's packets bypass the IPv6 hooks of the packet filter, nft chains at the hooks `ingress` and `egress` of the \
               uplink, IPsec policies (ip xfrm), and programs, filters and shaping where packets come in by the uplink (tc); \
               as IPv4 they bypass a queueing discipline of the CLAT's device.\n\
               With `auto` it is `ebpf` where that works here, else `userspace`; plan, status and log say which, and why.\n\
               It is `userspace`, too, where `ebpf` would bypass something that another program set up: an nft chain at the ingress or egress of the \
               uplink, a program or filter (tc) at its ingress, or an IPsec policy for packets between the CLAT and the PLAT prefix.\n\
               New chains and policies are noticed at once; for programs and filters clatd looks every 10 seconds.\n\
               Where the CLAT shares the host's address (`clat-v6-addr`), its TCP connections may be reset when the translator changes.\n\
               Set `userspace` if the CLAT's packets must never bypass any of them, and `ebpf` if they may.",
        ..OURS
    },
    Key {
        name: "translator-queues",
        field: field!(translator.translator_queues, Number::ZeroOr(1, 256)),
        brief: "packet queues (threads) of the userspace translator; 0 = one per core",
        full: "How many packet queues the CLAT's device has; each has a thread of the userspace translator.\n\
               With 0 there is one per processor core.",
        ..OURS
    },
    Key {
        name: "map",
        field: field!(translator.map),
        unset: "none",
        brief: "explicit address mapping; may be repeated",
        full: "An explicit address mapping (RFC 7757): an IPv4 prefix, a blank, and an IPv6 prefix, such as \
               `198.51.100.8/30 2001:db8:46::8/126`.\n\
               A prefix without a length is a single address.\n\
               The key may be repeated; of several mappings the longest match wins, and all of them win over the PLAT prefix.\n\
               So an SIIT-DC edge relay can have more than one service address.\n\
               clatd puts a mapped single IPv4 address on the CLAT's device; a wider prefix is a network behind this host.\n\
               \n\
               Mappings in an instance file replace those in clatd.conf, and mappings on the command line replace both; an empty value removes them.",
        ..OURS
    },
    Key {
        name: "translator-v6-addr",
        field: field!(translator.translator_v6_addr),
        unset: "the CLAT's IPv6 address",
        brief: "the translator's own IPv6 address: source of its ICMPv6 errors",
        full: "The translator's own IPv6 address: the source of its ICMPv6 errors.\n\
               If unset, it is the CLAT's own address, since a PLAT discards packets from addresses in its prefix.\n\
               TAYGA then uses `tayga-v4-addr` embedded in the PLAT prefix.",
        ..OURS
    },
    Key {
        name: "lowest-ipv6-mtu",
        field: field!(translator.lowest_ipv6_mtu, Number::Range(1280, 65535)),
        brief: "smallest MTU on the IPv6 side in bytes",
        full: "The smallest MTU on the way to the PLAT in bytes (RFC 7915 section 4).\n\
               The translator cuts IPv4 packets that may be fragmented so that they fit.\n\
               Raise it where you know that the network carries more.",
        ..OURS
    },
    Key {
        name: "udp-zero-checksum",
        field: field!(translator.udp_zero_checksum),
        brief: "what becomes of UDP over IPv4 without a checksum",
        full: "What becomes of UDP packets over IPv4 without a checksum; IPv6 demands one.\n\
               With `compute` the translator computes the checksum; it drops fragments, since it cannot compute theirs.\n\
               With `drop` it drops and counts such packets.\n\
               With `pass` they go through without a checksum, which tunnels that follow RFC 6936 accept.",
        ..OURS
    },
    Key {
        name: "traffic-class",
        field: field!(translator.traffic_class),
        brief: "traffic class of packets to IPv6: IPv4's TOS, or this value",
        full: "The traffic class of IPv6 packets that were IPv4 (RFC 7915 section 4.1).\n\
               With `copy` it is the TOS octet of the IPv4 packet, both DSCP and ECN.\n\
               With a number it is that number, for example 0 in a network where IPv4's octet still has its old meaning.\n\
               A number switches ECN off across the translator.",
        ..OURS
    },
    Key {
        name: "tos",
        field: field!(translator.tos),
        brief: "TOS of packets to IPv4: IPv6's traffic class, or this value",
        full: "The TOS octet of IPv4 packets that were IPv6 (RFC 7915 section 5.1).\n\
               With `copy` it is the traffic class of the IPv6 packet, both DSCP and ECN; with a number it is that number.",
        ..OURS
    },
    Key {
        name: "icmp-error-rate",
        field: field!(translator.icmp_error_rate),
        brief: "ICMP errors a second that the translator sends; 0 = none",
        full: "How many ICMP errors a second the translator itself sends on average (RFC 7915 sections 4.4 and 5.4).\n\
               Traceroute and path MTU discovery need such errors.\n\
               At most 50 are sent at once.\n\
               With 0 the translator sends none, with `unlimited` it sends all.\n\
               Errors of others, which pass through, do not count.",
        ..OURS
    },
    Key {
        name: "wkp-strict",
        field: field!(translator.wkp_strict),
        brief: "whether 64:ff9b::/96 carries global IPv4 addresses only",
        full: "Whether private and other non-global IPv4 addresses are kept out of the well-known prefix 64:ff9b::/96, \
               as RFC 6052 section 3.1 demands.\n\
               \n\
               The default is `no`, against that section.\n\
               Some networks have private IPv4 servers behind a NAT64 with the well-known prefix, and a host cannot know whether its network does.\n\
               If the CLAT drops a packet, it is lost; if the CLAT translates it, a PLAT that does not want it can still drop it.\n\
               The IETF's v6ops working group has adopted the same change \
               (draft-ietf-v6ops-nat64-wkp-1918): by default such addresses are translated.",
        ..OURS
    },
    Key {
        name: "unmapped-source",
        field: field!(translator.unmapped_source),
        brief: "what becomes of addresses of this host that have no mapping",
        full: "What becomes of a packet whose IPv4 source or IPv6 destination, on the host's side, has no mapping.\n\
               With `drop`, which is right for a CLAT, the translator drops and counts it.\n\
               With `prefix`, which is right for an SIIT translator, it maps the address by the PLAT prefix.",
        ..OURS
    },
    Key {
        name: "tayga-v4-addr",
        field: field!(translator.tayga_v4_addr),
        brief: "the translator's own IPv4 address: source of its ICMPv4 errors",
        full: "The translator's own IPv4 address: the source of its ICMPv4 errors.\n\
               The key is for every translator, not only for TAYGA.\n\
               Traceroute shows this address as its first hop.",
        ..PLAIN
    },
    Key {
        name: "tayga-conffile",
        field: field!(translator.tayga_conffile, Text::Path),
        unset: "a temporary file",
        brief: "where TAYGA's configuration file is written",
        full: "Where clatd writes the configuration file for TAYGA.\n\
               A file that is named here stays after the end; clatd removes a temporary one.\n\
               This has an effect with `translator=tayga` only.",
        ..PLAIN
    },
];
