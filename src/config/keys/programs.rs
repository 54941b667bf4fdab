//! Keys that name programs.

use super::{Key, Kind, Origin, PLAIN};

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "cmd-ip6tables",
        kind: Kind::Program,
        default: "ip6tables",
        brief: "the ip6tables program",
        full: "The name of the ip6tables program, searched in the path, or its path.",
        ..PLAIN
    },
    Key {
        name: "cmd-nft",
        kind: Kind::Program,
        default: "nft",
        brief: "the nft program",
        full: "The name of the nft program, searched in the path, or its path.",
        origin: Origin::Clatd2,
        ..PLAIN
    },
    Key {
        name: "cmd-tayga",
        kind: Kind::Program,
        default: "tayga",
        brief: "the TAYGA program",
        full: "The name of the TAYGA program, searched in the path, or its path.\n\
               This has an effect with `translator=tayga` only.",
        ..PLAIN
    },
    Key {
        name: "cmd-ip",
        kind: Kind::Program,
        optional: true,
        default: "ip",
        brief: "unused, for scripts only: the ip program",
        full: "Accepted for configurations of older clatds and given to scripts.\n\
               The daemon speaks netlink with the kernel and needs no ip program.",
        unused: Some("the kernel is spoken to by netlink"),
        ..PLAIN
    },
    Key {
        name: "cmd-networkctl",
        kind: Kind::Program,
        optional: true,
        default: "networkctl",
        brief: "unused, for scripts only: the networkctl program",
        full: "Accepted for configurations of clatd 2.x and given to scripts.\n\
               The daemon finds PLAT prefixes without networkctl.",
        origin: Origin::Clatd2,
        unused: Some("PLAT prefixes are found without networkctl"),
        ..PLAIN
    },
    Key {
        name: "cmd-ufw",
        kind: Kind::Program,
        optional: true,
        default: "ufw",
        brief: "unused, for scripts only: the ufw program",
        full: "Accepted for configurations of clatd 2.x and given to scripts.\n\
               The daemon finds the chains of UFW like those of any other packet filter.",
        origin: Origin::Clatd2,
        unused: Some("UFW's chains are found like those of any other packet filter"),
        ..PLAIN
    },
];
