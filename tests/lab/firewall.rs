//! Firewalls of others that would drop what the CLAT forwards.

use crate::bed::{Lab, Uplink};
use crate::daemon::around;
use crate::traffic;

/// The fast path does not pass the packet filter, so nothing would be seen with it.
const USERSPACE: &str = "translator=userspace";

with_each_translator!(nft_policy_drop, ip6tables_policy_drop, everything_at_once);

/// Loads a ruleset into the host, sees that clatd's traffic passes it and that it is the same afterwards.
fn behind(setup: &str, words: &[&str]) {
    let lab = Lab::raise(&Uplink::new());
    lab.host(setup);
    around(&lab, words, |_| {
        traffic::works(&lab);
        traffic::traceroute(&lab, "192.0.0.2");
        let is_opened = lab.host("nft list ruleset; ip6tables-save").contains("clatd:");
        assert_eq!(is_opened, !words.contains(&"translator=ebpf"), "rules of clatd's");
    });
}

fn nft(ruleset: &str) -> String {
    format!("nft -f - <<'END'\n{ruleset}\nEND")
}

fn nft_policy_drop(translator: &str) {
    let rules = nft(
        "table inet filter { chain forward { type filter hook forward priority filter; policy drop; ct state established,related accept; }; }",
    );
    behind(&rules, &[&format!("translator={translator}")]);
}

fn ip6tables_policy_drop(translator: &str) {
    behind("ip6tables -P FORWARD DROP", &[&format!("translator={translator}")]);
}

/// Both kinds, and a reverse path check in prerouting.
fn everything_at_once(translator: &str) {
    let rules = nft(
        "table inet filter { chain forward { type filter hook forward priority filter; policy drop; }; \
                     chain rpfilter { type filter hook prerouting priority raw; fib saddr . iif oif missing drop; }; }",
    );
    behind(
        &format!("ip6tables -P FORWARD DROP\nip6tables -A FORWARD -j REJECT\n{rules}"),
        &[&format!("translator={translator}")],
    );
}

#[test]
fn nft_rules_that_reject() {
    behind(
        &nft(
            "table ip6 mine { chain fw { type filter hook forward priority 10; policy accept; iifname \"lo\" accept; counter reject with icmpv6 admin-prohibited comment \"all else\"; }; }",
        ),
        &[USERSPACE],
    );
}

#[test]
fn nft_rules_that_jump_to_a_drop() {
    behind(
        &nft(
            "table inet mine {\n chain deep { meta nfproto ipv6 drop\n }\n chain between { jump deep\n }\n \
              chain fw { type filter hook forward priority -5; policy accept; goto between\n }\n}",
        ),
        &[USERSPACE],
    );
}

/// Two tables drop; an accept in one does not help in the other.
#[test]
fn several_base_chains() {
    behind(
        &nft(
            "table inet a { chain forward { type filter hook forward priority -10; policy drop; }; }\n\
              table ip6 b { chain forward { type filter hook forward priority 10; policy drop; }; }\n\
              table ip c { chain forward { type filter hook forward priority 0; policy drop; }; }\n\
              table inet d { chain output { type filter hook output priority 0; policy accept; }; }",
        ),
        &[USERSPACE],
    );
}

/// Statements, sets and maps that a parser of nft's JSON may not know.
#[test]
fn nft_statements_that_few_programs_parse() {
    behind(
        &nft("table inet odd {\n\
              set seen { type ipv6_addr; flags dynamic, timeout; timeout 1m; size 1000; }\n\
              map verdicts { type inet_service : verdict; elements = { 22 : accept, 23 : drop } }\n\
              quota big { over 100000 mbytes\n}\n\
              limit slow { rate 1/second\n}\n\
              chain side { tcp option maxseg size set rt mtu; return\n}\n\
              chain forward { type filter hook forward priority filter; policy drop;\n\
                meta nfproto ipv6 add @seen { ip6 saddr limit rate 1000/second } counter\n\
                meta mark set numgen inc mod 2 offset 100\n\
                tcp flags syn jump side\n\
                th dport vmap @verdicts\n\
                quota name \"big\" drop\n\
                meta l4proto tcp ct count over 10000 drop\n\
                @th,0,16 0x1 counter\n\
                icmpv6 type nd-router-advert drop\n\
                ip6 dscp set cs1\n\
                exthdr hbh exists drop\n\
                limit rate 1/minute burst 1 packets log prefix \"odd: \" level debug flags all\n\
              }\n}"),
        &[USERSPACE],
    );
}

/// Rules by iptables-nft show as `xt` to nft.
#[test]
fn ip6tables_rules_with_extensions() {
    behind(
        "ip6tables -P FORWARD DROP && ip6tables -N ZONE && ip6tables -A FORWARD -m comment --comment 'somebody else' -j ZONE && \
         ip6tables -A ZONE -p tcp -m multiport --dports 1,2,3 -j RETURN && \
         ip6tables -A FORWARD -m state --state ESTABLISHED -j ACCEPT && ip6tables -A FORWARD -j REJECT --reject-with icmp6-adm-prohibited",
        &[USERSPACE],
    );
}

/// What firewalld and NixOS have: reverse path check by fib in prerouting, also strict.
#[test]
fn reverse_path_checks() {
    behind(
        &nft(
            "table inet rp { chain pre { type filter hook prerouting priority -200; policy accept;\n\
              icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept\n\
              fib saddr . iif oif missing drop\n }\n }",
        ),
        &[USERSPACE],
    );
    behind(
        &nft(
            "table inet rp { chain pre { type filter hook prerouting priority -290; policy accept;\n\
              meta nfproto ipv6 fib saddr . mark . iif oif missing log prefix \"rpfilter_DROP: \" drop\n }\n }",
        ),
        &[USERSPACE],
    );
}

/// Told to keep off: the ruleset is not touched while clatd runs.
#[test]
fn firewall_none_touches_nothing() {
    let lab = Lab::raise(&Uplink::new());
    lab.host(&nft(
        "table inet mine { chain forward { type filter hook forward priority 0; policy accept; }; }",
    ));
    let before = lab.host("nft -a list ruleset; ip6tables-save");
    around(&lab, &[USERSPACE, "firewall=none"], |_| {
        traffic::works(&lab);
        assert_eq!(strip(&lab.host("nft -a list ruleset; ip6tables-save")), strip(&before));
    });
}

fn strip(rules: &str) -> Vec<&str> {
    rules.lines().filter(|line| !line.starts_with('#')).collect()
}

/// `ip6tables-enable=yes` with `firewall=ip6tables`: the two rules of clatd, and they go again.
#[test]
fn ip6tables_rules_as_documented() {
    let lab = Lab::raise(&Uplink::new());
    lab.host("ip6tables -P FORWARD DROP");
    let words = [USERSPACE, "firewall=ip6tables", "ip6tables-enable=yes"];
    around(&lab, &words, |_| {
        traffic::works(&lab);
        let rules = lab.host("ip6tables -S FORWARD");
        assert!(
            rules.contains("-i clat -o up0") && rules.contains("-i up0 -o clat"),
            "{rules}"
        );
    });
}
