# shellcheck shell=bash
# shellcheck disable=SC2034  # used by those who source it
# What the scripts of this folder share. Source it; it changes nothing by itself.

REPO=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

# A root shell by plain `su` has no sbin in its PATH.
export PATH=$PATH:/usr/sbin:/sbin

# Each command that the lab and the tests call, and the Debian package it comes from.
LAB_COMMANDS=(
    ip:iproute2 ping:iputils-ping traceroute:traceroute pgrep:procps flock:util-linux
    nft:nftables ip6tables:iptables iptables-save:iptables
    tayga:tayga radvd:radvd named:bind9 dig:bind9-dnsutils
    kea-dhcp6:kea-dhcp6-server
    curl:curl jq:jq ethtool:ethtool tcpdump:tcpdump python3:python3 sysctl:procps sha256sum:coreutils
    dbus-daemon:dbus-daemon
)
# Programs that the lab runs, and their packages, whose installation would change how this machine itself is connected
# (resolv.conf, services that take the devices over). They are unpacked into this folder instead.
UNPACKED=$REPO/target/lab-programs
UNPACKED_PROGRAMS=(systemd-resolved:systemd-resolved resolvectl:systemd-resolved NetworkManager:network-manager nmcli:network-manager prometheus:prometheus promtool:prometheus)
# What scripts/vm needs, besides what it unpacks.
VM_COMMANDS=(qemu-system-x86_64:qemu-system-x86 modprobe:kmod cpio:cpio xz:xz-utils zstd:zstd ethtool:ethtool)
# What only building and checking need.
BUILD_COMMANDS=(cc:build-essential clang:clang mandoc:mandoc zsh:zsh fish:fish)

# Pictures of progress go to standard error, results to standard output.
note() { printf '%s\n' "$*" >&2; }
die() {
    note "${0##*/}: $*"
    exit 1
}

need_root() { [ "$(id -u)" = 0 ] || die "must run as root (network namespaces, TUN devices, firewalls)"; }

# missing_commands COMMAND:PACKAGE... -> the pairs whose command is not there
missing_commands() {
    local pair
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || printf '%s\n' "$pair"
    done
}

# need_commands COMMAND:PACKAGE... -> dies naming everything that is missing
need_commands() {
    local missing
    missing=$(missing_commands "$@" | sed 's/\(.*\):\(.*\)/  \1 (Debian package \2)/')
    [ -z "$missing" ] || die "these commands are missing; ./scripts/test and ./scripts/demo install them:
$missing"
}

# install_commands COMMAND:PACKAGE... -> apt-get installs, by name, what is missing
install_commands() {
    local missing packages
    missing=$(missing_commands "$@")
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null || need_commands "$@"
    need_root
    mapfile -t packages < <(cut -d: -f2 <<<"$missing" | sort -u)
    note "installing: ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    (
        # Services that these packages would start are of no use here and would take ports of the machine.
        policy=/usr/sbin/policy-rc.d
        if [ ! -e "$policy" ]; then
            trap 'rm -f "$policy"' EXIT
            printf '#!/bin/sh\nexit 101\n' >"$policy"
            chmod 755 "$policy"
        fi
        install=(apt-get install -y -q --no-install-recommends "${packages[@]}")
        "${install[@]}" >&2 || { apt-get update -q >&2 && "${install[@]}" >&2; }
    ) || die "apt-get could not install ${packages[*]}"
    need_commands "$@"
}

# unpacked_program NAME -> its path, in the unpacked packages or on this machine
unpacked_program() {
    local path
    for path in "$UNPACKED"/{usr/,}{lib/systemd,sbin,bin}/"$1" /{usr/,}{lib/systemd,sbin,bin}/"$1"; do
        [ -x "$path" ] && echo "$path" && return
    done
    return 1
}

# unpack_programs -> unpacks the packages of UNPACKED_PROGRAMS and those that they need and that are not installed
unpack_programs() {
    local pair packages=() archives=$UNPACKED.archives
    for pair in "${UNPACKED_PROGRAMS[@]}"; do
        unpacked_program "${pair%%:*}" >/dev/null || packages+=("${pair#*:}")
    done
    [ ${#packages[@]} -gt 0 ] || return 0
    need_root
    mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
    note "unpacking: ${packages[*]}"
    mkdir -p "$archives/partial"
    download=(apt-get install -y -q --download-only --no-install-recommends -o "Dir::Cache::archives=$archives" "${packages[@]}")
    "${download[@]}" >&2 || { apt-get update -q >&2 && "${download[@]}" >&2; } || die "apt-get could not download ${packages[*]}"
    for pair in "$archives"/*.deb; do
        # The dynamic loader is this machine's, and its C library belongs to it.
        [[ $pair == */libc6_* ]] || dpkg-deb --extract "$pair" "$UNPACKED"
    done
    rm -rf "$archives"
    need_unpacked
}

# need_unpacked -> dies naming the programs that are neither unpacked nor installed
need_unpacked() {
    local pair missing=()
    for pair in "${UNPACKED_PROGRAMS[@]}"; do
        unpacked_program "${pair%%:*}" >/dev/null || missing+=("${pair%%:*} (Debian package ${pair#*:})")
    done
    [ ${#missing[@]} = 0 ] || die "these programs are missing; ./scripts/test unpacks them: ${missing[*]}"
}

# with_unpacked_libraries COMMAND... -> runs one of them
with_unpacked_libraries() {
    local path=() folder
    for folder in "$UNPACKED"/{usr/,}lib/*-linux-gnu{,/systemd}; do
        [ ! -d "$folder" ] || path+=("$folder")
    done
    LD_LIBRARY_PATH=$(IFS=: && echo "${path[*]-}") exec "$@"
}

# need_cargo -> cargo on the PATH, also in a shell that was open before rustup was installed
need_cargo() {
    command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    command -v cargo >/dev/null || die "cargo is missing: install Rust with rustup first"
}

# install_cargo_tool NAME VERSION -> built from crates.io unless it is there. Without optimisation: it runs for seconds only.
install_cargo_tool() {
    PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    command -v "$1" >/dev/null || cargo install --locked --debug "$1@$2" >&2 || die "cargo could not build $1"
}

# wait_until SECONDS WHAT COMMAND... -> polls until COMMAND succeeds, dies naming WHAT at the deadline; an emulated
# processor (scripts/vm) gets more time
wait_until() {
    local deadline=$((${EPOCHREALTIME/[.,]/} + $1 * 1000000 * ${CLATD_LAB_SLOWNESS:-1})) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "${EPOCHREALTIME/[.,]/}" -lt "$deadline" ] || die "gave up waiting for $what"
        sleep 0.05
    done
}
