# bash completion for clatd; made from its tables, see tests/manual.rs
_clatd()
{
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
    COMPREPLY=()
    case $prev in
        -c | --config) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
        --instances-dir) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
    esac
    case $cur in
        -*) mapfile -t COMPREPLY < <(compgen -W '-q -d -c -h -V --config --instances-dir --dry-run --json --watch --mtu4 --mtu6 --help --version' -- "$cur") ;;
        *) mapfile -t COMPREPLY < <(compgen -W 'run plan check discover status doctor events metrics reload cleanup translate quiet= debug= script-up= script-down= metrics-listen= control-group= when-idle= clat-dev= clat-v4-addr= clat-v4-pool= clat-v6-addr= ctmark= route-table= forwarding-enable= proxynd-enable= nd= firewall= ip6tables-enable= plat-dev= plat-prefix= plat-fallback-prefix= discovery= plat-check= dns64-servers= v4-conncheck-enable= v4-conncheck-delay= v4-conncheck-scope= v4-defaultroute-enable= v4-defaultroute-replace= v4-defaultroute-metric= v4-defaultroute-mtu= v4-defaultroute-advmss= translator= translator-queues= map= translator-v6-addr= lowest-ipv6-mtu= udp-zero-checksum= traffic-class= tos= icmp-error-rate= wkp-strict= unmapped-source= tayga-v4-addr= tayga-conffile= cmd-ip6tables= cmd-nft= cmd-tayga= cmd-ip= cmd-networkctl= cmd-ufw=' -- "$cur") ;;
    esac
    [[ ${COMPREPLY[0]-} == *= ]] && compopt -o nospace
}
complete -F _clatd clatd
