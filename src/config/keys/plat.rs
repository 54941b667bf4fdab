//! Keys about the PLAT: where it is and how it is found.

use super::{FirstIn, Key, PLAIN, Text};
use crate::config::field::field;

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "plat-dev",
        field: field!(plat.plat_dev, Text::Device),
        unset: "the device of the route to the PLAT prefix",
        brief: "the uplink: the network device that faces the PLAT",
        full: "The uplink, that is, the network device that faces the PLAT.\n\
               clatd asks for the PLAT prefix through it, derives the CLAT's IPv6 address from its addresses, \
               and sends the CLAT's packets by it.\n\
               If unset, it is the device of the route to the PLAT prefix.\n\
               \n\
               A pattern makes an instance for each uplink that matches, as uplinks come and go.\n\
               In a pattern `*` stands for any characters and `?` for one character.\n\
               An uplink is a device with an IPv6 default route.\n\
               A file that names an uplink wins over a pattern; of several patterns that match, the one whose file sorts first wins.\n\
               The instance for wwan0 of the file modems.conf is called modems@wwan0.",
        ..PLAIN
    },
    Key {
        name: "plat-prefix",
        field: field!(plat.plat_prefix),
        unset: "discovered",
        brief: "the PLAT prefix (NAT64 prefix) with its length",
        full: "The prefix of the PLAT, that is, of the NAT64: IPv4 addresses are embedded in it (RFC 6052).\n\
               Its length is 32, 40, 48, 56, 64 or 96, and bits 64 to 71 are zero.\n\
               If unset, clatd discovers it; `discovery` says how.",
        ..PLAIN
    },
    Key {
        name: "plat-fallback-prefix",
        field: field!(plat.plat_fallback_prefix),
        unset: "none",
        brief: "the PLAT prefix where none is configured or discovered",
        full: "The PLAT prefix to use where `plat-prefix` is unset and discovery finds none.\n\
               Without it, such an instance has nothing to do.",
        origin: FirstIn::Clatd2,
        ..PLAIN
    },
    Key {
        name: "discovery",
        field: field!(plat.discovery),
        brief: "where the PLAT prefix is looked for, in order",
        full: "How clatd looks for the PLAT prefix if `plat-prefix` is unset: ways, in order, separated by commas.\n\
               The first way that finds a prefix wins.\n\
               `ra` is the PREF64 option of router advertisements on the uplink (RFC 8781); it does not matter which program manages the uplink.\n\
               `dns` is the AAAA records of ipv4only.arpa (RFC 7050).",
        origin: FirstIn::Ours,
        ..PLAIN
    },
    Key {
        name: "plat-check",
        field: field!(plat.plat_check),
        brief: "whether and when it is checked that the PLAT leads somewhere",
        full: "With `auto` clatd uses the PLAT unchecked, and watches it: when packets go out and nothing comes back for 30 seconds, clatd probes the PLAT.\n\
               The probe is an echo request with a limited number of hops, to an address that nobody has (192.88.99.1).\n\
               An answer from within the PLAT prefix has passed the PLAT.\n\
               If no answer comes, the CLAT's default route goes behind all others until the PLAT answers again or something comes back.\n\
               A host that sends nothing probes nothing.\n\
               With TAYGA packets are not counted, so clatd does not watch the PLAT.\n\
               With `no` clatd probes nothing.\n\
               \n\
               With an IPv4 address, clatd uses the PLAT only if that address answers an ICMPv6 echo through it.\n\
               With an address and a port, the address must answer by TCP on that port; a reset is an answer.\n\
               With `yes` the address is the one that the network publishes for this purpose (RFC 7050 section 3.2).\n\
               clatd asks the servers that told the prefix: for the name (PTR) of 192.0.0.170 or 192.0.0.171 in the PLAT prefix, \
               then for that name's first IPv4 address (A).\n\
               Most networks publish none; then clatd says so and uses the PLAT unchecked.\n\
               Of several prefixes clatd uses the first through which the address answers, and checks it again while the CLAT runs.\n\
               The addresses of ipv4only.arpa cannot be given (RFC 7050 section 3.2.1).",
        origin: FirstIn::Ours,
        ..PLAIN
    },
    Key {
        name: "dns64-servers",
        field: field!(plat.dns64_servers),
        unset: "the uplink's resolvers, else the system's",
        brief: "DNS64 servers asked for the PLAT prefix, in order",
        full: "IP addresses of DNS64 servers, separated by commas.\n\
               clatd asks them for the PLAT prefix in this order; the first that knows a prefix wins.\n\
               A link-local address is followed by `%` and its device.\n\
               \n\
               If unset, clatd asks the uplink's own servers: those that its routers advertise (RFC 8106), then those that \
               systemd-resolved and NetworkManager have for it, by D-Bus.\n\
               Neither program has to run, and clatd follows changes in them at once.\n\
               \n\
               clatd asks the system's resolvers (/etc/resolv.conf) where the uplink has no servers of its own.\n\
               If `plat-dev` names the uplink and the uplink has servers of its own, clatd never asks the system's resolvers, \
               not even if those servers know no prefix or do not answer: \
               the prefix belongs to the uplink, and no other resolver may speak for it (RFC 8880 section 7.1).\n\
               For such an uplink, clatd asks a resolver on this host (such as 127.0.0.53) only if there is no other.\n\
               Without `plat-dev`, clatd always asks the system's resolvers last.",
        ..PLAIN
    },
];
