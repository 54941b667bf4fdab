//! Keys about the PLAT: where it is and how it is found.

use super::{Key, Kind, Origin, PLAIN};

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "plat-dev",
        kind: Kind::Device,
        optional: true,
        unset: "the device of the route to the PLAT prefix",
        brief: "the uplink: the network device that faces the PLAT",
        full: "The uplink, that is, the network device that faces the PLAT.\n\
               The PLAT prefix is asked for through it, the CLAT's IPv6 address is derived from its addresses, \
               and the CLAT's packets leave by it.\n\
               If unset it is the device of the route to the PLAT prefix.\n\
               \n\
               A pattern, in which `*` stands for any characters and `?` for one, makes an instance for each uplink that matches, \
               as uplinks come and go.\n\
               An uplink is a device with an IPv6 default route.\n\
               The instance for wwan0 of the file modems.conf is called modems@wwan0.",
        ..PLAIN
    },
    Key {
        name: "plat-prefix",
        kind: Kind::Prefix,
        optional: true,
        unset: "discovered",
        brief: "the PLAT prefix (NAT64 prefix) with its length",
        full: "The prefix of the PLAT, that is, the NAT64 prefix: IPv4 addresses are embedded in it as RFC 6052 says.\n\
               Its length is 32, 40, 48, 56, 64 or 96, and bits 64 to 71 are zero.\n\
               If unset it is discovered by asking DNS64 servers for the addresses of ipv4only.arpa (RFC 7050).",
        ..PLAIN
    },
    Key {
        name: "plat-fallback-prefix",
        kind: Kind::Prefix,
        optional: true,
        unset: "none",
        brief: "the PLAT prefix where none is configured or discovered",
        full: "The PLAT prefix to use where `plat-prefix` is unset and discovery finds none.\n\
               Without it such an instance has nothing to do.",
        origin: Origin::Clatd2,
        ..PLAIN
    },
    Key {
        name: "dns64-servers",
        kind: Kind::DnsServers,
        optional: true,
        unset: "the system's resolvers",
        brief: "DNS64 servers asked for the PLAT prefix, in order",
        full: "IP addresses of DNS64 servers, separated by commas, asked in order for the PLAT prefix; the first that knows one wins.\n\
               A link-local address is followed by `%` and its device.\n\
               If unset the system's resolvers are asked.",
        ..PLAIN
    },
];
