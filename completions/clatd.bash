# bash completion for clatd; made from its tables, see tests/manual.rs
_clatd_devices() { command ls /sys/class/net 2>/dev/null; }
_clatd_instances() { clatd status --json 2>/dev/null | sed -n 's/^      "name": "\(.*\)",*$/\1/p'; command ls /etc/clatd/instances.d 2>/dev/null | sed -n 's/\.\(conf\|toml\)$//p'; }
_clatd_commands=(run plan check discover status doctor events metrics reload cleanup translate help version)
_clatd_keys=(quiet= debug= script-up= script-down= script-timeout= script-user= metrics-listen= control-group= hardening= when-idle= clat-dev= clat-v4-addr= clat-v4-pool= clat-v6-addr= ctmark= route-table= rule-priority= forwarding-enable= proxynd-enable= nd= firewall= ip6tables-enable= plat-dev= plat-prefix= plat-fallback-prefix= discovery= plat-check= dns64-servers= v4-conncheck-enable= v4-conncheck-delay= v4-conncheck-scope= v4-defaultroute-enable= v4-defaultroute-replace= v4-defaultroute-metric= v4-defaultroute-mtu= v4-defaultroute-advmss= translator= translator-queues= map= translator-v6-addr= lowest-ipv6-mtu= udp-zero-checksum= traffic-class= tos= icmp-error-rate= wkp-strict= unmapped-source= tayga-v4-addr= tayga-conffile= cmd-ip6tables= cmd-nft= cmd-tayga= cmd-ip= cmd-networkctl= cmd-ufw=)

# _clatd_match BEGINNING WORD... -> what fits. Not compgen -W, which would run what stands in a device's name.
_clatd_match()
{
    local word
    for word in "${@:2}"; do
        [[ $word != "$1"* ]] || COMPREPLY+=("$word")
    done
}

_clatd()
{
    # The words as people see them: bash itself also cuts at = and :.
    local line=${COMP_LINE:0:COMP_POINT} words=() listed cur prev command='' at
    read -ra words <<<"$line"
    [[ $line != *[[:space:]] ]] || words+=('')
    cur=${words[-1]} prev=${words[-2]-}
    for ((at = 1; at < ${#words[@]} - 1; at++)); do
        case ${words[at]} in
            -c | --config | --instances-dir | --mtu4 | --mtu6) ((at++)) ;;
            -* | *=*) ;;
            *) command=${words[at]}; break ;;
        esac
    done
    COMPREPLY=()
    case $prev in
        -c | --config) mapfile -t listed < <(compgen -f -- "$cur"); _clatd_match "$cur" "${listed[@]}"; return ;;
        --instances-dir) mapfile -t listed < <(compgen -d -- "$cur"); _clatd_match "$cur" "${listed[@]}"; return ;;
        --mtu4) :; return ;;
        --mtu6) :; return ;;
    esac
    case $cur in
        -*)
            case $command in
                run) _clatd_match "$cur" -q -d -c --config --instances-dir --dry-run -h --help -V --version ;;
                plan) _clatd_match "$cur" -q -d -c --config --instances-dir --dry-run --json -h --help -V --version ;;
                check) _clatd_match "$cur" -q -d -c --config --instances-dir -h --help -V --version ;;
                discover) _clatd_match "$cur" -q -d -c --config --instances-dir --json -h --help -V --version ;;
                status) _clatd_match "$cur" -q -d -c --config --instances-dir --json --watch -h --help -V --version ;;
                doctor) _clatd_match "$cur" -q -d -c --config --instances-dir --json -h --help -V --version ;;
                events) _clatd_match "$cur" -q -d -c --config --instances-dir --json -h --help -V --version ;;
                metrics) _clatd_match "$cur" -q -d -c --config --instances-dir -h --help -V --version ;;
                reload) _clatd_match "$cur" -q -d -c --config --instances-dir -h --help -V --version ;;
                cleanup) _clatd_match "$cur" -q -d -c --config --instances-dir --dry-run -h --help -V --version ;;
                translate) _clatd_match "$cur" -q -d -c --config --instances-dir --mtu4 --mtu6 -h --help -V --version ;;
                help) _clatd_match "$cur" -q -d -c --config --instances-dir -h --help -V --version ;;
                version) _clatd_match "$cur" -q -d -c --config --instances-dir -h --help -V --version ;;
                *) _clatd_match "$cur" -q -d -c --config --instances-dir --dry-run --json --watch --mtu4 --mtu6 -h --help -V --version ;;
            esac ;;
        *=*) _clatd_value "${cur%%=*}" "${cur#*=}" ;;
        *)
            case $command in
                '') _clatd_match "$cur" "${_clatd_commands[@]}" "${_clatd_keys[@]}" ;;
                run) _clatd_match "$cur" "${_clatd_keys[@]}" ;;
                plan) mapfile -t listed < <(_clatd_instances); _clatd_match "$cur" "${listed[@]}"; _clatd_match "$cur" "${_clatd_keys[@]}" ;;
                check) _clatd_match "$cur" "${_clatd_keys[@]}" ;;
                discover) mapfile -t listed < <(_clatd_devices); _clatd_match "$cur" "${listed[@]}"; _clatd_match "$cur" "${_clatd_keys[@]}" ;;
                status) mapfile -t listed < <(_clatd_instances); _clatd_match "$cur" "${listed[@]}"; ;;
                doctor) mapfile -t listed < <(_clatd_instances); _clatd_match "$cur" "${listed[@]}"; _clatd_match "$cur" "${_clatd_keys[@]}" ;;
                events) : ;;
                metrics) : ;;
                reload) : ;;
                cleanup) _clatd_match "$cur" "${_clatd_keys[@]}" ;;
                translate) mapfile -t listed < <(compgen -f -- "$cur"); _clatd_match "$cur" "${listed[@]}"; _clatd_match "$cur" "${_clatd_keys[@]}" ;;
                help) _clatd_match "$cur" run plan check discover status doctor events metrics reload cleanup translate help version; ;;
                version) : ;;
            esac ;;
    esac
    [[ ${COMPREPLY[0]-} != *= ]] || compopt -o nospace 2>/dev/null
}

# _clatd_value KEY BEGINNING
_clatd_value()
{
    local listed head='' cur=$2
    case $1 in
        v4-defaultroute-mtu) _clatd_match "$cur" auto; ;;
        translator) _clatd_match "$cur" auto ebpf userspace tayga; ;;
        firewall) _clatd_match "$cur" auto nftables ip6tables none; ;;
        nd) _clatd_match "$cur" auto proxy anycast none; ;;
        udp-zero-checksum) _clatd_match "$cur" compute drop pass; ;;
        traffic-class | tos) _clatd_match "$cur" copy; ;;
        clat-v6-addr) _clatd_match "$cur" derived stable checksum-neutral shared pd; ;;
        unmapped-source) _clatd_match "$cur" drop prefix; ;;
        when-idle) _clatd_match "$cur" exit wait; ;;
        v4-conncheck-scope) _clatd_match "$cur" host uplink; ;;
        icmp-error-rate) _clatd_match "$cur" unlimited; ;;
        hardening | forwarding-enable | proxynd-enable | ip6tables-enable | plat-check | v4-conncheck-enable | v4-defaultroute-enable | v4-defaultroute-replace | wkp-strict) _clatd_match "$cur" yes no; ;;
        discovery) [[ $cur != *,* ]] || head=${cur%,*},; cur=${cur##*,}; _clatd_match "$cur" ra dns; ;;
        plat-dev) mapfile -t listed < <(_clatd_devices); _clatd_match "$cur" "${listed[@]}"; ;;
        tayga-conffile) mapfile -t listed < <(compgen -f -- "$cur"); _clatd_match "$cur" "${listed[@]}"; ;;
        script-up | script-down | cmd-ip6tables | cmd-nft | cmd-tayga | cmd-ip | cmd-networkctl | cmd-ufw) mapfile -t listed < <(compgen -c -- "$cur"); _clatd_match "$cur" "${listed[@]}"; ;;
    esac
    COMPREPLY=("${COMPREPLY[@]/#/$head}")
    # Where bash cuts at =, it completes what is behind it.
    [[ $COMP_WORDBREAKS == *=* ]] || COMPREPLY=("${COMPREPLY[@]/#/$1=}")
}
complete -F _clatd clatd
