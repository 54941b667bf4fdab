//! A plan shows everything: each setting changes some plan, and each fact that decides is printed.

use std::collections::BTreeMap;

use clatd_stages::facts::{Fact, Facts, FirewallFacts, Ip6tablesChain, Memory, NftChain, Source};
use clatd_stages::fast_path::{Attachment, LinkHeader, Placement};
use clatd_stages::pipeline;
use clatd_stages::plan::Plan;
use clatd_stages::proxynd::{AddressRole, Neighbours};
use clatd_stages::settings::{Settings, TranslatorChoice};
use serde_json::{Value, json};

use crate::document;
use crate::support::cases::{self, Case, link, native, settings};

/// Other values than the default one.
fn other_values(key: &str) -> Vec<Value> {
    match key {
        "debug" | "translator-queues" => vec![json!(1)],
        "script-up" | "script-down" => vec![json!("echo")],
        "script-timeout" => vec![json!(7)],
        "script-user" => vec![json!("nobody")],
        "clat-dev" => vec![json!("clat7")],
        "clat-v4-addr" | "tayga-v4-addr" => vec![json!("192.0.0.5")],
        "clat-v6-addr" => vec![json!("stable"), json!("2001:db8:1::77")],
        "ctmark" => vec![json!(7)],
        "route-table" => vec![json!(777)],
        "rule-priority" => vec![json!(100)],
        "dns64-servers" => vec![json!(["2001:db8::53"])],
        "cmd-ip6tables" => vec![json!("ip6tables-legacy")],
        "cmd-nft" => vec![json!("/usr/sbin/nft")],
        "cmd-tayga" => vec![json!("tayga-ng")],
        "ip6tables-enable"
        | "v4-conncheck-enable"
        | "v4-defaultroute-enable"
        | "forwarding-enable"
        | "proxynd-enable" => vec![json!(false)],
        "plat-dev" => vec![json!("wan7")],
        "plat-prefix" | "plat-fallback-prefix" => vec![json!("2001:db8:64::/96")],
        "discovery" => vec![json!(["dns"])],
        "plat-check" => vec![json!("198.51.100.1")],
        "nd" => vec![json!("none")],
        "tayga-conffile" => vec![json!("/etc/tayga.conf")],
        "v4-conncheck-scope" => vec![json!("uplink")],
        "v4-defaultroute-replace" | "wkp-strict" => vec![json!(true)],
        "v4-defaultroute-metric" => vec![json!(77)],
        "v4-defaultroute-mtu" => vec![json!("1300"), json!("auto")],
        "v4-defaultroute-advmss" => vec![json!(1000)],
        "translator" => vec![json!("tayga"), json!("userspace")],
        "firewall" => vec![json!("none")],
        "map" => vec![json!(["203.0.113.0/28 2001:db8:1:f::/124"])],
        "translator-v6-addr" => vec![json!("2001:db8:1::6464")],
        "lowest-ipv6-mtu" => vec![json!(1500)],
        "udp-zero-checksum" => vec![json!("drop")],
        "traffic-class" | "tos" => vec![json!("0")],
        "icmp-error-rate" => vec![json!("0")],
        "unmapped-source" => vec![json!("prefix")],
        _ => Vec::new(),
    }
}

/// What is for the daemon as a whole, for a time before the plan, or for nothing any more.
const FOR_NO_PLAN: [(&str, &str); 10] = [
    ("quiet", "what is logged"),
    (
        "clat-v4-pool",
        "the addresses of all instances are allotted before there is a plan",
    ),
    ("cmd-ip", "unused"),
    ("cmd-networkctl", "unused"),
    ("cmd-ufw", "unused"),
    ("v4-conncheck-delay", "a wait before the first observation"),
    ("metrics-listen", "of the daemon"),
    ("control-group", "of the daemon"),
    ("hardening", "of the daemon"),
    ("when-idle", "what happens where there is no plan"),
];

async fn shown(case: &Case) -> String {
    match document(case).await {
        Ok(document) => serde_json::to_string(&document).unwrap(),
        Err(error) => error,
    }
}

/// Scripts are told all settings, which would make this true of any.
fn without_scripts() -> Vec<Case> {
    let mut cases = cases::all();
    cases.retain(|case| case.settings.general.script_up.is_none() && case.settings.general.script_down.is_none());
    cases
}

#[tokio::test]
async fn every_setting_changes_some_plan() {
    let mut before = BTreeMap::new();
    for case in without_scripts() {
        before.insert(case.name, shown(&case).await);
    }
    let all = serde_json::to_value(Settings::default()).unwrap();
    for key in all.as_object().unwrap().keys() {
        let values = other_values(key);
        let exempt = FOR_NO_PLAN.iter().any(|(exempt, _)| exempt == key);
        assert_ne!(
            values.is_empty(),
            !exempt,
            "{key} has no other value here, or two places"
        );
        let mut changes = false;
        for mut case in without_scripts() {
            for value in &values {
                let mut settings = serde_json::to_value(&case.settings).unwrap();
                if settings[key] == *value {
                    continue;
                }
                settings[key] = value.clone();
                case.settings = serde_json::from_value(settings).unwrap();
                changes |= before.get(case.name) != Some(&shown(&case).await);
            }
            // A few seconds are saved: one is enough.
            if changes {
                break;
            }
        }
        // Only plans with scripts show these, below.
        let expected = !exempt && !matches!(key.as_str(), "script-timeout" | "script-user");
        assert_eq!(changes, expected, "{key}");
    }
    let with_script = |key: &str, value: Value| {
        let pairs = [("script-up", json!("echo")), (key, value)];
        Case {
            name: "script",
            settings: settings(&pairs),
            world: cases::world(),
        }
    };
    let plain = shown(&with_script("debug", json!(0))).await;
    assert_ne!(plain, shown(&with_script("script-timeout", json!(6))).await);
    assert_ne!(plain, shown(&with_script("script-user", json!("nobody"))).await);
}

/// Each fact changed by itself. A new one has no place here until somebody gives it one.
fn changed(facts: &Facts) -> Vec<(&'static str, Facts)> {
    let Facts {
        // Not observed, and so not shown: what is known from before.
        memory: Memory {
            running: _,
            uplink: _,
            beside: _,
        },
        held_prefix: _,
        native_ipv4: _,
        plat_prefix: _,
        other_plat_prefixes: _,
        uplink: _,
        uplink_vrf: _,
        uplink_mtu: _,
        metric: _,
        plat_gateway: _,
        clat_v6_addr: _,
        delegated_prefix: _,
        shared: _,
        neighbours: _,
        translator: _,
        fast_path: _,
        notes: _,
        sysctls: _,
        endangered: _,
        firewall: _,
        replaced_routes: _,
    } = facts;
    let kernel = || Source::Kernel("a test");
    let with = |change: &dyn Fn(&mut Facts)| {
        let mut facts = facts.clone();
        change(&mut facts);
        facts
    };
    let mut all = vec![
        (
            "native_ipv4",
            with(&|facts| facts.native_ipv4 = Some(Fact::new(vec!["default dev eth7".into()], kernel()))),
        ),
        (
            "plat_prefix",
            with(&|facts| facts.plat_prefix = Some(Fact::new("2001:db8:7::/96".parse().unwrap(), kernel()))),
        ),
        (
            "other_plat_prefixes",
            with(&|facts| {
                facts
                    .other_plat_prefixes
                    .push(Fact::new("2001:db8:7::/96".parse().unwrap(), kernel()))
            }),
        ),
        (
            "uplink",
            with(&|facts| facts.uplink = Some(Fact::new(link(7, "wan7", 1400), kernel()))),
        ),
        (
            "uplink_vrf",
            with(&|facts| facts.uplink_vrf = Some(Fact::new(vrf(), kernel()))),
        ),
        (
            "uplink_mtu",
            with(&|facts| facts.uplink_mtu = Some(Fact::new(1333, kernel()))),
        ),
        ("metric", with(&|facts| facts.metric = Some(Fact::new(77, kernel())))),
        (
            "plat_gateway",
            with(&|facts| facts.plat_gateway = Some(Fact::new("fe80::77".parse().unwrap(), kernel()))),
        ),
        (
            "clat_v6_addr",
            with(&|facts| facts.clat_v6_addr = Some(Fact::new("2001:db8:1::77".parse().unwrap(), kernel()))),
        ),
        (
            "delegated_prefix",
            with(&|facts| facts.delegated_prefix = Some(Fact::new("2001:db8:77::/64".parse().unwrap(), kernel()))),
        ),
        ("shared", with(&|facts| facts.shared = !facts.shared)),
        ("neighbours", with(&|facts| facts.neighbours = Some(joined(None)))),
        (
            "on_link",
            with(&|facts| facts.neighbours = Some(joined(Some(Vec::new())))),
        ),
        (
            "translator",
            with(&|facts| facts.translator = Some(Fact::new(TranslatorChoice::Tayga, kernel()))),
        ),
        (
            "fast_path",
            with(&|facts| {
                facts.fast_path = Some(Placement {
                    attachment: Attachment::Clsact,
                    header: LinkHeader::None,
                });
            }),
        ),
        ("notes", with(&|facts| facts.notes.push("a test".into()))),
        ("firewall", with(&|facts| facts.firewall = Some(firewall()))),
        (
            "replaced_routes",
            with(&|facts| facts.replaced_routes = Some(Fact::new(vec![native("192.0.2.77", "wan0", 177)], kernel()))),
        ),
    ];
    all.push((
        "endangered",
        with(&|facts| facts.endangered = Some(Fact::new(["up7".into()].into(), kernel()))),
    ));
    for key in facts.sysctls.keys() {
        all.push((
            "sysctls",
            with(&|facts| _ = facts.sysctls.insert(key.clone(), "1".into())),
        ));
    }
    all
}

fn vrf() -> clatd_stages::net::Link {
    clatd_stages::net::Link {
        vrf_table: Some(77),
        ..link(77, "blue", 1500)
    }
}

fn joined(on_link: Option<Vec<std::net::Ipv6Addr>>) -> Neighbours {
    Neighbours {
        address: AddressRole::Anycast,
        why: "a test",
        on_link,
    }
}

fn firewall() -> FirewallFacts {
    FirewallFacts {
        nft_chains: vec![NftChain {
            family: "inet".into(),
            table: "filter".into(),
            chain: "f".into(),
            hook: "forward".into(),
            reason: "policy drop".into(),
        }],
        ip6tables: Ip6tablesChain::Drops,
        ip6tables_output: Ip6tablesChain::Drops,
        notes: Vec::new(),
    }
}

/// The lines of facts in a printed plan.
fn fact_lines(plan: &Plan) -> Vec<String> {
    let text = plan.to_string();
    let lines = text.lines().skip_while(|line| *line != "  facts:").skip(1);
    lines
        .take_while(|line| *line != "  steps:")
        .map(str::to_owned)
        .collect()
}

/// Where a line says where the fact comes from: `(source)`, or the name of what was read.
fn has_source(line: &str) -> bool {
    let line = line.trim_start();
    line.ends_with(')')
        || ["sysctl net/", "nft chain ", "firewall ip6tables"]
            .iter()
            .any(|read| line.starts_with(read))
}

#[tokio::test]
async fn every_fact_that_decides_is_printed_with_its_source() {
    let mut decides = BTreeMap::new();
    for case in cases::all() {
        let Some(plan) = document(&case)
            .await
            .ok()
            .and_then(|mut document| document.instances.pop())
        else {
            continue;
        };
        for (name, facts) in changed(&plan.facts) {
            let Ok(other) = pipeline::plan(&case.instance(), facts) else {
                continue;
            };
            if other.steps == plan.steps {
                continue;
            }
            decides.insert(name, case.name);
            let before = fact_lines(&plan);
            let told: Vec<String> = fact_lines(&other)
                .into_iter()
                .filter(|line| !before.contains(line))
                .collect();
            assert!(
                !told.is_empty() || fact_lines(&other) != before,
                "{}: {name} decides and is not shown",
                case.name
            );
            for line in told {
                assert!(has_source(&line), "{}: no source: {line}", case.name);
            }
        }
    }
    for name in [
        "uplink",
        "plat_prefix",
        "clat_v6_addr",
        "shared",
        "neighbours",
        "translator",
        "fast_path",
        "firewall",
        "sysctls",
    ] {
        assert!(decides.contains_key(name), "{name} decides nothing: {decides:?}");
    }
}
