//! Keys about the daemon itself.

use super::{FirstIn, Key, Number, PLAIN, Text};
use crate::config::field::field;

const LEVEL: Number = Number::Range(0, 9);

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "quiet",
        field: field!(general.quiet, LEVEL),
        brief: "1 suppresses normal output, 2 also warnings and errors",
        full: "With 1 there is no normal output, with 2 there are no warnings and errors either.\n\
               Debugging output is not affected.\n\
               Each `-q` on the command line adds 1.\n\
               One daemon has one log: in an instance file, only the scripts of that instance see this key.",
        ..PLAIN
    },
    Key {
        name: "debug",
        field: field!(general.debug, LEVEL),
        brief: "1 prints debugging output, 2 more of it",
        full: "With 1 there is debugging output, with 2 there is more of it.\n\
               From 1 on clatd also starts TAYGA with `-d`.\n\
               Each `-d` on the command line adds 1.\n\
               One daemon has one log: in an instance file, only TAYGA and the scripts of that instance see this key.",
        ..PLAIN
    },
    Key {
        name: "script-up",
        field: field!(general.script_up, Text::Shell),
        unset: "none",
        brief: "shell command run as the last step before the translator starts",
        full: "A command run by `sh -c` as the last step before the translator starts.\n\
               Its environment has every key of the instance, see `SCRIPT ENVIRONMENT`.\n\
               If it exits with anything but 0, the instance fails, and clatd undoes all that it has set up.",
        ..PLAIN
    },
    Key {
        name: "script-down",
        field: field!(general.script_down, Text::Shell),
        unset: "none",
        brief: "shell command run right after the translator has stopped",
        full: "A command run by `sh -c` right after the translator has stopped, before clatd undoes anything else.\n\
               It has the same environment as `script-up`.\n\
               If it exits with anything but 0, or takes longer than `script-timeout`, clatd still undoes the rest, then exits with 1.",
        ..PLAIN
    },
    Key {
        name: "script-timeout",
        field: field!(general.script_timeout, Number::Range(1, 3600)),
        brief: "seconds that a script or a helper program may take",
        full: "How many seconds `script-up` or `script-down` may take.\n\
               After that time clatd ends all processes of the script (SIGTERM, five seconds later SIGKILL); the script counts as failed, and clatd undoes the rest.\n\
               The programs that clatd itself runs (nft, ip6tables) have the same time, and ten seconds while clatd stops.\n\
               For these programs, the value in clatd.conf or on the command line counts.\n\
               When clatd has to stop, it ends a running `script-up` at once.",
        origin: FirstIn::Ours,
        ..PLAIN
    },
    Key {
        name: "script-user",
        field: field!(general.script_user, Text::User),
        unset: "the user that clatd runs as",
        brief: "user who runs scripts and helper programs",
        full: "The user who runs `script-up` and `script-down`, in its own group and no other.\n\
               They may then read and write what that user may, and have no capabilities, so they cannot change the network.\n\
               nft, ip6tables and TAYGA are run by the same user, with CAP_NET_ADMIN and no other capability.\n\
               The older ip6tables (ip6tables-legacy) always runs as clatd's own user, since it locks a file of root's; so does TAYGA where `script-user` may not open /dev/net/tun.\n\
               For these programs, the value in clatd.conf or on the command line counts.\n\
               Only a clatd that runs as root, with CAP_SETUID, CAP_SETGID and CAP_KILL, can run anything as somebody else.\n\
               Under systemd it gets these by a drop-in (systemctl edit clatd) with the lines [Service] and CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_KILL.\n\
               A clatd that cannot do so runs the programs as its own user, and its scripts fail.\n\
               The packages make a user clatd for this setting.\n\
               As long as the setting is unset, nothing uses that user, and scripts that were written for root still work.",
        origin: FirstIn::Ours,
        ..PLAIN
    },
    Key {
        name: "metrics-listen",
        field: field!(general.metrics_listen),
        unset: "metrics are not served",
        brief: "address:port on which the daemon serves Prometheus metrics",
        full: "Where the daemon serves metrics by HTTP, on the path /metrics, in the text format of Prometheus.\n\
               Anybody who reaches the address can read them, so an address of this host is best: 127.0.0.1:9464 or [::1]:9464.\n\
               One daemon has one such address: in an instance file, only the scripts of that instance see this key.",
        origin: FirstIn::Ours,
        ..PLAIN
    },
    Key {
        name: "control-group",
        field: field!(general.control_group, Text::Group),
        unset: "only root may ask",
        brief: "group whose members may ask the daemon how it is",
        full: "Members of this group may use `status`, `metrics`, `doctor` and `events`; only root may change anything.\n\
               clatd looks the group up at start.\n\
               One daemon has one socket: in an instance file, only the scripts of that instance see this key.",
        origin: FirstIn::Ours,
        ..PLAIN
    },
    Key {
        name: "hardening",
        field: field!(general.hardening),
        brief: "whether the daemon gives up the rights that it does not need",
        full: "Whether the daemon gives up, before it does anything, what its configuration does not need: capabilities, new \
               privileges, writing to files, and system calls.\n\
               The same holds for all programs that it runs.\n\
               Only `script-up` and `script-down` may write to files, \
               but they have no capabilities except CAP_NET_ADMIN, CAP_NET_RAW, CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_SETUID and \
               CAP_SETGID.\n\
               Set it to no where a script needs more than that, or where the hardening stops something else that you need.\n\
               Only a restart brings back what was given up; a reload whose configuration needs more says so.\n\
               One daemon has one such setting: in an instance file the key reaches only that instance's scripts.",
        origin: FirstIn::Ours,
        ..PLAIN
    },
    Key {
        name: "when-idle",
        field: field!(general.when_idle),
        unset: "wait under a service manager and with instance files, else exit",
        brief: "what to do while there is no use for the CLAT: exit or wait",
        full: "What an instance does when there is nothing to do: with native IPv4, without a PLAT prefix, or without an uplink.\n\
               With `wait` it waits for a change.\n\
               With `exit` clatd says why and ends with 0, as the clatd of 2016 does: at the start, and when native IPv4 comes.\n\
               \n\
               With both, a running CLAT follows the network and repairs itself.\n\
               It follows addresses, prefixes and gateways, does again what others undo, and starts a translator that died.\n\
               With `exit`, an uplink or a PLAT prefix that is lost has 30 seconds to come back.\n\
               With `exit`, when the first start fails, clatd undoes all and exits with 1.\n\
               With `wait`, and at any later time, it tries again after a pause that grows from one second to one minute.\n\
               \n\
               If unset, it is `wait` where a service manager started clatd (`NOTIFY_SOCKET` is in the environment), \
               with instance files, and with a pattern in `plat-dev`; otherwise it is `exit`.",
        origin: FirstIn::Ours,
        ..PLAIN
    },
];
