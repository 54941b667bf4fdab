# fish completion for clatd; made from its tables, see tests/manual.rs
function __clatd_devices
    command ls /sys/class/net 2>/dev/null
end
function __clatd_instances
    clatd status --json 2>/dev/null | sed -n 's/^      "name": "\(.*\)",*$/\1/p'
    command ls /etc/clatd/instances.d 2>/dev/null | sed -n 's/\.\(conf\|toml\)$//p'
end

# Keys with =, or what may stand behind the = that is there.
function __clatd_settings
    set -l token (commandline -ct)
    set -l key (string split -m 1 = -- $token)[1]
    if not string match -q '*=*' -- $token
        printf '%s\t%s\n' \
            'quiet=' '1 suppresses normal output, 2 also warnings and errors' \
            'debug=' '1 prints debugging output, 2 more of it' \
            'script-up=' 'shell command run as the last step before the translator starts' \
            'script-down=' 'shell command run right after the translator has stopped' \
            'script-timeout=' 'seconds that a script or a helper program may take' \
            'script-user=' 'user who runs scripts and helper programs' \
            'metrics-listen=' 'address:port on which the daemon serves Prometheus metrics' \
            'control-group=' 'group whose members may ask the daemon how it is' \
            'hardening=' 'whether the daemon gives up the rights that it does not need' \
            'when-idle=' 'what to do while there is no use for the CLAT: exit or wait' \
            'clat-dev=' 'name of the CLAT'\''s network device' \
            'clat-v4-addr=' 'IPv4 address of the CLAT' \
            'clat-v4-pool=' 'IPv4 addresses for instances that have none of their own' \
            'clat-v6-addr=' 'IPv6 address of the CLAT, or how to find one' \
            'ctmark=' 'connection mark of the CLAT'\''s flows; 0 = none' \
            'route-table=' 'routing table for the CLAT'\''s own routes' \
            'rule-priority=' 'priority of the first of the CLAT'\''s policy rules' \
            'forwarding-enable=' 'whether IPv6 forwarding is switched on' \
            'proxynd-enable=' 'whether the uplink answers neighbour solicitations for the CLAT' \
            'nd=' 'how the uplink answers neighbour solicitations for the CLAT' \
            'firewall=' 'which packet filter is told to let the CLAT'\''s packets through' \
            'ip6tables-enable=' 'whether rules are inserted into ip6tables'\'' FORWARD chain' \
            'plat-dev=' 'the uplink: the network device that faces the PLAT' \
            'plat-prefix=' 'the PLAT prefix (NAT64 prefix) with its length' \
            'plat-fallback-prefix=' 'the PLAT prefix where none is configured or discovered' \
            'discovery=' 'where the PLAT prefix is looked for, in order' \
            'plat-check=' 'whether and when it is checked that the PLAT leads somewhere' \
            'dns64-servers=' 'DNS64 servers asked for the PLAT prefix, in order' \
            'v4-conncheck-enable=' 'whether native IPv4 connectivity makes the CLAT unnecessary' \
            'v4-conncheck-delay=' 'seconds to wait before looking for native IPv4 connectivity' \
            'v4-conncheck-scope=' 'where native IPv4 counts: on the whole host or on the uplink' \
            'v4-defaultroute-enable=' 'whether an IPv4 default route to the CLAT is added' \
            'v4-defaultroute-replace=' 'whether existing IPv4 default routes are taken away meanwhile' \
            'v4-defaultroute-metric=' 'metric of the IPv4 default route; 0 = the kernel'\''s default' \
            'v4-defaultroute-mtu=' 'MTU of the IPv4 default route in bytes; 0 = none, auto = fits the uplink' \
            'v4-defaultroute-advmss=' 'TCP MSS of the IPv4 default route in bytes; 0 = none' \
            'translator=' 'which translator moves the packets' \
            'translator-queues=' 'packet queues (threads) of the userspace translator; 0 = one per core' \
            'map=' 'explicit address mapping; may be repeated' \
            'translator-v6-addr=' 'the translator'\''s own IPv6 address: source of its ICMPv6 errors' \
            'lowest-ipv6-mtu=' 'smallest MTU on the IPv6 side in bytes' \
            'udp-zero-checksum=' 'what becomes of UDP over IPv4 without a checksum' \
            'traffic-class=' 'traffic class of packets to IPv6: IPv4'\''s TOS, or this value' \
            'tos=' 'TOS of packets to IPv4: IPv6'\''s traffic class, or this value' \
            'icmp-error-rate=' 'ICMP errors a second that the translator sends; 0 = none' \
            'wkp-strict=' 'whether 64:ff9b::/96 carries global IPv4 addresses only' \
            'unmapped-source=' 'what becomes of addresses of this host that have no mapping' \
            'tayga-v4-addr=' 'the translator'\''s own IPv4 address: source of its ICMPv4 errors' \
            'tayga-conffile=' 'where TAYGA'\''s configuration file is written' \
            'cmd-ip6tables=' 'the ip6tables program' \
            'cmd-nft=' 'the nft program' \
            'cmd-tayga=' 'the TAYGA program' \
            'cmd-ip=' 'unused, for scripts only: the ip program' \
            'cmd-networkctl=' 'unused, for scripts only: the networkctl program' \
            'cmd-ufw=' 'unused, for scripts only: the ufw program'
        return
    end
    switch $key
        case v4-defaultroute-mtu
            printf '%s\n' $key={auto}
        case translator
            printf '%s\n' $key={auto,ebpf,userspace,tayga}
        case firewall
            printf '%s\n' $key={auto,nftables,ip6tables,none}
        case nd
            printf '%s\n' $key={auto,proxy,anycast,none}
        case udp-zero-checksum
            printf '%s\n' $key={compute,drop,pass}
        case traffic-class tos
            printf '%s\n' $key={copy}
        case clat-v6-addr
            printf '%s\n' $key={derived,stable,checksum-neutral,shared,pd}
        case unmapped-source
            printf '%s\n' $key={drop,prefix}
        case when-idle
            printf '%s\n' $key={exit,wait}
        case v4-conncheck-scope
            printf '%s\n' $key={host,uplink}
        case icmp-error-rate
            printf '%s\n' $key={unlimited}
        case hardening forwarding-enable proxynd-enable ip6tables-enable plat-check v4-conncheck-enable v4-defaultroute-enable v4-defaultroute-replace wkp-strict
            printf '%s\n' $key={yes,no}
        case discovery
            printf '%s\n' (string replace -r '[^=,]*$' '' -- $token){ra,dns}
        case plat-dev
            printf '%s\n' $key=(__clatd_devices)
        case tayga-conffile
            printf '%s\n' $key=(__fish_complete_path (string split -m 1 = -- $token)[2] | string replace -r '\t.*' '')
        case script-up script-down cmd-ip6tables cmd-nft cmd-tayga cmd-ip cmd-networkctl cmd-ufw
            printf '%s\n' $key=(complete -C(string split -m 1 = -- $token)[2] | string replace -r '\t.*' '')
    end
end

complete -c clatd -f
complete -c clatd -n 'not __fish_seen_subcommand_from run plan check discover status doctor events metrics reload cleanup translate help version' -a run -d 'run in the foreground until SIGINT or SIGTERM (what clatd does without a command)'
complete -c clatd -n 'not __fish_seen_subcommand_from run plan check discover status doctor events metrics reload cleanup translate help version' -a plan -d 'observe and print the plan, change nothing (also: clatd --dry-run)'
complete -c clatd -n 'not __fish_seen_subcommand_from run plan check discover status doctor events metrics reload cleanup translate help version' -a check -d 'read the configuration and print all that is wrong with it'
complete -c clatd -n 'not __fish_seen_subcommand_from run plan check discover status doctor events metrics reload cleanup translate help version' -a discover -d 'look for PLAT prefixes on each uplink, or on DEV'
complete -c clatd -n 'not __fish_seen_subcommand_from run plan check discover status doctor events metrics reload cleanup translate help version' -a status -d 'show the state of the running daemon'\''s instances'
complete -c clatd -n 'not __fish_seen_subcommand_from run plan check discover status doctor events metrics reload cleanup translate help version' -a doctor -d 'walk the path of the packets, say where they stop and what to do'
complete -c clatd -n 'not __fish_seen_subcommand_from run plan check discover status doctor events metrics reload cleanup translate help version' -a events -d 'follow what happens to the running daemon'\''s instances'
complete -c clatd -n 'not __fish_seen_subcommand_from run plan check discover status doctor events metrics reload cleanup translate help version' -a metrics -d 'print the running daemon'\''s metrics as Prometheus text'
complete -c clatd -n 'not __fish_seen_subcommand_from run plan check discover status doctor events metrics reload cleanup translate help version' -a reload -d 'make the running daemon read its configuration again (also: SIGHUP)'
complete -c clatd -n 'not __fish_seen_subcommand_from run plan check discover status doctor events metrics reload cleanup translate help version' -a cleanup -d 'undo what a killed clatd left behind'
complete -c clatd -n 'not __fish_seen_subcommand_from run plan check discover status doctor events metrics reload cleanup translate help version' -a translate -d 'run the packets of a file through the translator; needs --config'
complete -c clatd -n 'not __fish_seen_subcommand_from run plan check discover status doctor events metrics reload cleanup translate help version' -a help -d 'print this, or what there is to know about a command or a key'
complete -c clatd -n 'not __fish_seen_subcommand_from run plan check discover status doctor events metrics reload cleanup translate help version' -a version -d 'print the version'
complete -c clatd -n 'not __fish_seen_subcommand_from run plan check discover status doctor events metrics reload cleanup translate help version' -a '(__clatd_settings)'
complete -c clatd -n '__fish_seen_subcommand_from run' -a '(__clatd_settings)'
complete -c clatd -n '__fish_seen_subcommand_from plan' -a '(__clatd_instances)'
complete -c clatd -n '__fish_seen_subcommand_from plan' -a '(__clatd_settings)'
complete -c clatd -n '__fish_seen_subcommand_from check' -a '(__clatd_settings)'
complete -c clatd -n '__fish_seen_subcommand_from discover' -a '(__clatd_devices)'
complete -c clatd -n '__fish_seen_subcommand_from discover' -a '(__clatd_settings)'
complete -c clatd -n '__fish_seen_subcommand_from status' -a '(__clatd_instances)'
complete -c clatd -n '__fish_seen_subcommand_from doctor' -a '(__clatd_instances)'
complete -c clatd -n '__fish_seen_subcommand_from doctor' -a '(__clatd_settings)'
complete -c clatd -n '__fish_seen_subcommand_from cleanup' -a '(__clatd_settings)'
complete -c clatd -n '__fish_seen_subcommand_from translate' -F
complete -c clatd -n '__fish_seen_subcommand_from translate' -a '(__clatd_settings)'
complete -c clatd -n '__fish_seen_subcommand_from help' -a 'run plan check discover status doctor events metrics reload cleanup translate help version'
complete -c clatd -s q -d 'less output: once no normal output, twice no warnings and errors either'
complete -c clatd -s d -d 'debugging output; twice for more'
complete -c clatd -s c -l config -r -F -d 'configuration file, instead of /etc/clatd.conf; a later one wins over an earlier one'
complete -c clatd -l instances-dir -r -a '(__fish_complete_directories)' -d 'directory of instance files, instead of /etc/clatd/instances.d'
complete -c clatd -n '__fish_seen_subcommand_from run plan cleanup' -l dry-run -d 'say what would be done, change nothing'
complete -c clatd -n '__fish_seen_subcommand_from plan discover status doctor events' -l json -d 'print JSON'
complete -c clatd -n '__fish_seen_subcommand_from status' -l watch -d 'show it again and again, with rates and graphs'
complete -c clatd -n '__fish_seen_subcommand_from translate' -l mtu4 -r -d 'MTU of the IPv4 side in bytes, 1500 if not given'
complete -c clatd -n '__fish_seen_subcommand_from translate' -l mtu6 -r -d 'MTU of the IPv6 side in bytes, 1500 if not given'
complete -c clatd -s h -l help -d 'print this and exit'
complete -c clatd -s V -l version -d 'print the version and exit'
