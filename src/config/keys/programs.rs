//! Keys that name programs.

use super::{FirstIn, Key, PLAIN, Text};
use crate::config::field::field;

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "cmd-ip6tables",
        field: field!(programs.cmd_ip6tables, Text::Program),
        brief: "the ip6tables program",
        full: "The name of the ip6tables program, searched in the path, or its path.",
        ..PLAIN
    },
    Key {
        name: "cmd-nft",
        field: field!(programs.cmd_nft, Text::Program),
        brief: "the nft program",
        full: "The name of the nft program, searched in the path, or its path.",
        origin: FirstIn::Clatd2,
        ..PLAIN
    },
    Key {
        name: "cmd-tayga",
        field: field!(programs.cmd_tayga, Text::Program),
        brief: "the TAYGA program",
        full: "The name of the TAYGA program, searched in the path, or its path.\n\
               This has an effect with `translator=tayga` only.",
        ..PLAIN
    },
    Key {
        name: "cmd-ip",
        field: field!(programs.cmd_ip, Text::FormerProgram),
        brief: "unused, for scripts only: the ip program",
        full: "Accepted for configurations of older clatds and given to scripts.\n\
               The daemon speaks netlink with the kernel and needs no ip program.",
        unused: Some("the kernel is spoken to by netlink"),
        ..PLAIN
    },
    Key {
        name: "cmd-networkctl",
        field: field!(programs.cmd_networkctl, Text::FormerProgram),
        brief: "unused, for scripts only: the networkctl program",
        full: "Accepted for configurations of clatd 2.x and given to scripts.\n\
               The daemon finds PLAT prefixes without networkctl.",
        origin: FirstIn::Clatd2,
        unused: Some("PLAT prefixes are found without networkctl"),
        ..PLAIN
    },
    Key {
        name: "cmd-ufw",
        field: field!(programs.cmd_ufw, Text::FormerProgram),
        brief: "unused, for scripts only: the ufw program",
        full: "Accepted for configurations of clatd 2.x and given to scripts.\n\
               The daemon finds the chains of UFW like those of any other packet filter.",
        origin: FirstIn::Clatd2,
        unused: Some("UFW's chains are found like those of any other packet filter"),
        ..PLAIN
    },
];
