//! The ip6tables FORWARD and OUTPUT chains: whether they would drop the CLAT's packets, and the rules that let them
//! pass.

use std::collections::{BTreeMap, BTreeSet};

use crate::facts::Ip6tablesChain;
use crate::firewall::Path;
use crate::op::{NftTableDeletion, Op, Undo};
use crate::plan::{StageName, Step};

/// Judges the FORWARD chain of the filter table as `ip6tables-save` prints it.
pub fn judge(saved: &str) -> Ip6tablesChain {
    judge_chain("FORWARD", saved)
}

/// Judges the OUTPUT chain.
pub(crate) fn judge_output(saved: &str) -> Ip6tablesChain {
    judge_chain("OUTPUT", saved)
}

fn judge_chain(chain: &str, saved: &str) -> Ip6tablesChain {
    let mut chains: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut policy = None;
    for line in saved.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some(word) if word.strip_prefix(':') == Some(chain) => policy = words.next(),
            Some("-A") => {
                if let Some(chain) = words.next() {
                    chains.entry(chain).or_default().push(line);
                }
            }
            _ => {}
        }
    }
    match policy {
        None => Ip6tablesChain::Absent,
        Some("ACCEPT") if !drops(chain, &chains, &mut BTreeSet::new()) => Ip6tablesChain::Open,
        Some(_) => Ip6tablesChain::Drops,
    }
}

/// Targets that let a packet go on.
const HARMLESS: &[&str] = &[
    "ACCEPT", "RETURN", "LOG", "NFLOG", "MARK", "CONNMARK", "TCPMSS", "TRACE", "SET",
];

fn drops<'a>(chain: &'a str, chains: &BTreeMap<&'a str, Vec<&'a str>>, seen: &mut BTreeSet<&'a str>) -> bool {
    if !seen.insert(chain) {
        return false;
    }
    let targets = chains.get(chain).into_iter().flatten().filter_map(|rule| {
        let mut words = rule.split_whitespace();
        words.find(|word| matches!(*word, "-j" | "-g"))?;
        words.next()
    });
    let mut targets = targets.filter(|target| !HARMLESS.contains(target));
    targets.any(|target| !chains.contains_key(target) && is_builtin(target) || drops(target, chains, seen))
}

/// Targets in capitals belong to the kernel or an extension (DROP, REJECT, NFQUEUE ...). Others are user chains,
/// which may be empty.
fn is_builtin(target: &str) -> bool {
    !target.is_empty() && target.chars().all(|c| c.is_ascii_uppercase())
}

/// The two rules that the 2016 clatd inserts, with a comment that names the instance.
pub(crate) fn accept(path: &Path<'_>, forward: Ip6tablesChain) -> Vec<Step> {
    let settings = &path.instance.settings;
    let mut steps = Vec::new();
    if forward == Ip6tablesChain::Absent {
        steps.push(Step {
            stage: StageName::Firewall,
            why: "ip6tables makes the filter table when the first rule is inserted".into(),
            apply: Op::Nothing {
                what: "note that the ip6tables filter table does not exist yet".into(),
            },
            undo: Undo::Op(Op::DeleteNftTable(NftTableDeletion {
                command: settings.programs.cmd_nft.clone(),
                family: "ip6".into(),
                table: "filter".into(),
                only_if_empty: true,
            })),
        });
    }
    let clat = settings.clat.clat_dev.as_str();
    for (direction, from, to, why) in [
        ("out", clat, path.uplink, "packets from the CLAT pass to the PLAT"),
        ("in", path.incoming, clat, "packets from the PLAT pass to the CLAT"),
    ] {
        steps.push(insert(path, "FORWARD", direction, &["-i", from, "-o", to], why));
    }
    steps
}

/// The rule for replies that this host itself sends to the CLAT.
pub(crate) fn accept_output(path: &Path<'_>) -> Step {
    let clat = path.instance.settings.clat.clat_dev.as_str();
    insert(
        path,
        "OUTPUT",
        "in",
        &["-o", clat],
        "packets from the PLAT pass to the CLAT",
    )
}

fn insert(path: &Path<'_>, chain: &str, direction: &str, selectors: &[&str], why: &str) -> Step {
    let comment = format!("clatd:{}:{direction}", path.instance.name);
    let rest = ["-m", "comment", "--comment", comment.as_str(), "-j", "ACCEPT"];
    let rule: Vec<String> = selectors.iter().chain(&rest).map(|word| (*word).to_owned()).collect();
    let (command, chain) = (path.instance.settings.programs.cmd_ip6tables.clone(), chain.to_owned());
    Step::new(
        StageName::Firewall,
        why,
        Op::InsertIp6tables {
            command: command.clone(),
            chain: chain.clone(),
            rule: rule.clone(),
        },
        Op::DeleteIp6tables { command, chain, rule },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(rules: &str) -> Ip6tablesChain {
        judge(&format!("*filter\n:INPUT DROP [0:0]\n{rules}\nCOMMIT\n"))
    }

    #[test]
    fn policy_decides_an_empty_chain() {
        assert_eq!(judged(":FORWARD ACCEPT [0:0]"), Ip6tablesChain::Open);
        assert_eq!(judged(":FORWARD DROP [5:300]"), Ip6tablesChain::Drops);
        assert_eq!(judged(""), Ip6tablesChain::Absent);
    }

    #[test]
    fn rules_and_the_chains_they_lead_to_count() {
        assert_eq!(
            judged(":FORWARD ACCEPT [0:0]\n-A FORWARD -j REJECT --reject-with icmp6-adm-prohibited"),
            Ip6tablesChain::Drops
        );
        assert_eq!(
            judged(":FORWARD ACCEPT [0:0]\n-A FORWARD -j LOG\n-A INPUT -j DROP"),
            Ip6tablesChain::Open
        );
        let chained = ":FORWARD ACCEPT [0:0]\n:a - [0:0]\n:b - [0:0]\n-A FORWARD -j a\n-A a -g b\n-A b -j a\n";
        assert_eq!(judged(chained), Ip6tablesChain::Open);
        assert_eq!(judged(&format!("{chained}-A b -j DROP")), Ip6tablesChain::Drops);
    }
}
