//! What the rules in other people's packet filters let pass: the CLAT's packets, and no others.

use clatd_stages::op::{NftRule, Op};
use clatd_stages::plan::Plan;
use ipnet::Ipv6Net;
use serde_json::Value;

use crate::support::cases::Case;

/// The value that a rule compares with: of `meta iifname`, of `ip6 daddr`, ...; `None` = it does not look at that.
fn compared(rule: &NftRule, kind: &str, name: &str) -> Option<Value> {
    let statements = rule.statements.as_array().expect("statements");
    let matches = statements.iter().filter_map(|statement| statement.get("match"));
    let looks_at = |left: &Value| match kind {
        "meta" => left["meta"]["key"] == name,
        _ => left["payload"]["protocol"] == "ip6" && left["payload"]["field"] == name,
    };
    let mut matches = matches.filter(|found| looks_at(&found["left"]));
    let found = matches.next()?;
    assert_eq!(found["op"], "==", "{rule}");
    assert!(matches.next().is_none(), "{rule}");
    Some(found["right"].clone())
}

/// `ip6 daddr` or `saddr`.
fn network(rule: &NftRule, field: &str) -> Option<Ipv6Net> {
    let value = compared(rule, "payload", field)?;
    let text = match &value["prefix"] {
        Value::Null => format!("{}/128", value.as_str().expect("an address")),
        prefix => format!("{}/{}", prefix["addr"].as_str().expect("an address"), prefix["len"]),
    };
    Some(text.parse().expect("a network"))
}

/// Where a chain on hook forward sees the packets of the uplink come from.
fn incoming(plan: &Plan) -> &str {
    let vrf = plan.facts.uplink_vrf.as_ref();
    let link = vrf.or(plan.facts.uplink.as_ref()).expect("an uplink");
    &link.value.name
}

fn hook<'a>(plan: &'a Plan, rule: &NftRule) -> &'a str {
    let firewall = plan.facts.firewall.as_ref().expect("packet filters were looked at");
    let chain = firewall
        .nft_chains
        .iter()
        .find(|chain| (&chain.family, &chain.table, &chain.chain) == (&rule.family, &rule.table, &rule.chain));
    &chain.expect("a chain that stops packets").hook
}

fn judge_nft(case: &Case, plan: &Plan, rule: &NftRule) {
    let settings = &case.instance().settings;
    let clat = Some(Value::from(settings.clat.clat_dev.as_str()));
    let uplink = Some(Value::from(
        plan.facts.uplink.as_ref().expect("an uplink").value.name.as_str(),
    ));
    let incoming = Some(Value::from(incoming(plan)));
    let (from, to) = (compared(rule, "meta", "iifname"), compared(rule, "meta", "oifname"));
    match hook(plan, rule) {
        "forward" => assert!(
            (&from, &to) == (&clat, &uplink) || (&from, &to) == (&incoming, &clat),
            "{}: {rule}: {from:?} to {to:?}",
            case.name
        ),
        "output" => assert_eq!((&from, &to), (&None, &clat), "{}: {rule}", case.name),
        _ if from == clat => assert_eq!(to, None, "{}: {rule}", case.name),
        // Where they go is not known yet: of all that the uplink brings only the CLAT's may pass.
        _ => {
            assert!(from == uplink || from == incoming, "{}: {rule}: {from:?}", case.name);
            let address = plan.facts.clat_v6_addr.as_ref().expect("an address").value;
            let mut ours: Vec<Ipv6Net> = settings.translator.map.iter().map(|map| map.v6).collect();
            ours.push(address.into());
            let destination = network(rule, "daddr");
            assert!(
                destination.is_some_and(|found| ours.contains(&found)),
                "{}: {rule}: {destination:?}",
                case.name
            );
            let prefix = plan.facts.plat_prefix.as_ref().expect("a prefix").value;
            let prefix = Ipv6Net::new(prefix.address(), prefix.length()).expect("a network");
            // The host's own address: what others send to it stays filtered.
            let wanted = plan.facts.shared.then_some(prefix);
            assert_eq!(network(rule, "saddr"), wanted, "{}: {rule}", case.name);
        }
    }
    let statements = rule.statements.as_array().expect("statements");
    assert_eq!(
        statements.last(),
        Some(&serde_json::json!({ "accept": null })),
        "{}: {rule}",
        case.name
    );
}

fn judge_ip6tables(case: &Case, plan: &Plan, chain: &str, rule: &[String]) {
    let clat = case.instance().settings.clat.clat_dev;
    let uplink = &plan.facts.uplink.as_ref().expect("an uplink").value.name;
    let incoming = incoming(plan);
    let words: Vec<&str> = rule.iter().map(String::as_str).collect();
    let (selectors, rest) = words.split_at(words.iter().position(|word| *word == "-m").expect("a comment"));
    let allowed: &[&[&str]] = match chain {
        "FORWARD" => &[&["-i", &clat, "-o", uplink], &["-i", incoming, "-o", &clat]],
        _ => &[&["-o", &clat]],
    };
    assert!(allowed.contains(&selectors), "{}: {chain} {rule:?}", case.name);
    assert_eq!(rest[..3], ["-m", "comment", "--comment"], "{}", case.name);
    assert_eq!(rest[4..], ["-j", "ACCEPT"], "{}", case.name);
}

#[tokio::test]
async fn no_rule_lets_more_pass_than_the_clats_packets() {
    let (mut prerouting, mut shared, mut by_ip6tables) = (0, 0, 0);
    for (case, plan) in super::plans().await {
        for step in &plan.steps {
            match &step.apply {
                Op::InsertNftRule { rule, .. } => {
                    judge_nft(&case, &plan, rule);
                    prerouting += usize::from(hook(&plan, rule) == "prerouting");
                    shared += usize::from(plan.facts.shared);
                }
                Op::InsertIp6tables { chain, rule, .. } => {
                    judge_ip6tables(&case, &plan, chain, rule);
                    by_ip6tables += 1;
                }
                _ => {}
            }
        }
    }
    assert!(
        prerouting > 0 && shared > 0 && by_ip6tables > 0,
        "{prerouting}, {shared}, {by_ip6tables}"
    );
}
