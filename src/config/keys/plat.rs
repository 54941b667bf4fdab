//! Keys about the PLAT: where it is and how it is found.

use clatd_stages::settings::DiscoveryWay;

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
               A file that names an uplink goes before a pattern, and of several patterns that match the one whose file's name sorts first.\n\
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
        name: "discovery",
        kind: Kind::WordList(DiscoveryWay::WORDS),
        default: "ra,dns",
        brief: "where the PLAT prefix is looked for, in order",
        full: "The ways in which the PLAT prefix is looked for if `plat-prefix` is unset, in order, separated by commas; the first that finds one wins.\n\
               `ra` is the PREF64 option of router advertisements (RFC 8781) on the uplink, whoever manages that, \
               `dns` the AAAA records of ipv4only.arpa (RFC 7050).",
        origin: Origin::Ours,
        ..PLAIN
    },
    Key {
        name: "plat-check",
        kind: Kind::PlatCheck,
        default: "auto",
        brief: "whether and when it is checked that the PLAT leads somewhere",
        full: "With `auto` the PLAT is used unchecked, and watched: where packets are sent and nothing comes back for 30 seconds, it is asked.\n\
               That is done by echo requests with a limited number of hops, to nobody's address (192.88.99.1); \
               what answers from within the PLAT prefix is behind the PLAT.\n\
               If nothing does, the CLAT's default route goes behind all others until the PLAT answers again or something comes back.\n\
               A host that sends nothing asks nothing.\n\
               TAYGA's packets are not counted, so it is not watched.\n\
               With `no` nothing is asked.\n\
               \n\
               With an IPv4 address, the PLAT is used only if that address answers an ICMPv6 echo through it; \
               with an address and a port, if it answers TCP there, be it by a reset.\n\
               With `yes` the address is what the network publishes for this purpose (RFC 7050 section 3.2): \
               the name of the PLAT prefix's 192.0.0.170 or 192.0.0.171 (PTR) is asked for, and that name's first IPv4 address (A), \
               of the same servers as the prefix.\n\
               Most networks publish none; that is said, and the PLAT is used unchecked.\n\
               Of several prefixes the first that leads there is used, and while the CLAT runs this is checked again and again.\n\
               The addresses of ipv4only.arpa cannot be given (RFC 7050 section 3.2.1).",
        origin: Origin::Ours,
        ..PLAIN
    },
    Key {
        name: "dns64-servers",
        kind: Kind::DnsServers,
        optional: true,
        unset: "the uplink's resolvers, else the system's",
        brief: "DNS64 servers asked for the PLAT prefix, in order",
        full: "IP addresses of DNS64 servers, separated by commas, asked in order for the PLAT prefix; the first that knows one wins.\n\
               A link-local address is followed by `%` and its device.\n\
               If unset the uplink's own servers are asked: those that its routers advertise (RFC 8106), then those that \
               systemd-resolved and NetworkManager have for it, by D-Bus; neither has to be there, and what changes there is followed at once.\n\
               The system's resolvers (/etc/resolv.conf) are asked where the uplink has no servers of its own.\n\
               If `plat-dev` names the uplink, then only there, be the answer of its own servers \"no\" or silence: \
               the prefix belongs to the uplink, and no other resolver may speak for it (RFC 8880 section 7.1).\n\
               A resolver on this host (127.0.0.53, say) is asked for such an uplink only if there is no other.\n\
               Without `plat-dev` the system's resolvers are always the last to be asked.",
        ..PLAIN
    },
];
