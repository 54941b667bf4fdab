//! nft and ip6tables.

use clatd_stages::journal::{Left, Outcome};
use clatd_stages::op::{NewNftTable, NftRule, NftTableDeletion, Op};
use clatd_stages::world::World;
use serde_json::json;

use crate::support::{assert_unchanged, chain, in_namespace, sh, state};

/// Statements that the nftables crate cannot parse, and a drop policy.
const FOREIGN: &str = "
table inet theirs {
    ct helper ftp { type \"ftp\" protocol tcp; }
    set seen { type ipv6_addr; flags dynamic,timeout; timeout 1m; }
    counter hits { packets 3 bytes 7 }
    chain later { notrack; return; }
    chain forward {
        type filter hook forward priority filter; policy drop;
        tcp dport 21 ct helper set \"ftp\"
        udp dport 53 add @seen { ip6 saddr timeout 10s }
        tcp flags syn tcp option maxseg size set rt mtu
        meta l4proto tcp synproxy mss 1460 wscale 7
        ip6 saddr 2001:db8::/32 counter name hits accept comment \"clatd:test is not at the beginning... it is\"
        jump later comment \"about clatd:test:out\"
        fib saddr . iif oif missing drop
        ct state vmap { established : accept, invalid : drop }
        limit rate 5/second burst 9 packets log prefix \"x\" level warn
        meta mark set jhash ip6 saddr . ip6 daddr mod 2
    }
}";

fn rule(direction: &str) -> NftRule {
    NftRule {
        family: "inet".into(),
        table: "theirs".into(),
        chain: "forward".into(),
        statements: json!([
            { "match": { "op": "==", "left": { "meta": { "key": "iifname" } }, "right": "clat" } },
            { "accept": null }
        ]),
        comment: format!("clatd:test:{direction}"),
    }
}

fn insert(rule: &NftRule) -> Op {
    Op::InsertNftRule {
        command: "nft".into(),
        rule: rule.clone(),
    }
}

fn remove(rule: &NftRule) -> Op {
    Op::RemoveNftRule {
        command: "nft".into(),
        rule: rule.clone(),
    }
}

fn foreign() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), FOREIGN).unwrap();
    sh(&format!("nft -f {}", file.path().display()));
}

#[test]
fn foreign_rules_stay_byte_for_byte() {
    in_namespace(|mut bed| async move {
        foreign();
        let before = state();
        let (out, back) = (rule("out"), rule("in"));
        let first = bed.apply(insert(&out)).await;
        let second = bed.apply(insert(&back)).await;
        let has_handle = |outcome: &Outcome| matches!(outcome.left, Left::Rule(_));
        assert!(has_handle(&first) && has_handle(&second), "{first:?} {second:?}");
        let listed = sh("nft list chain inet theirs forward");
        let lines: Vec<_> = listed.lines().map(str::trim).skip(3).collect();
        assert_eq!(
            lines[0], "iifname \"clat\" accept comment \"clatd:test:in\"",
            "{listed}"
        );
        assert_eq!(
            lines[1], "iifname \"clat\" accept comment \"clatd:test:out\"",
            "{listed}"
        );
        bed.undo(remove(&back), &second).await;
        bed.undo(remove(&out), &first).await;
        assert_unchanged(&before);
    });
}

#[test]
fn without_a_handle_the_comment_finds_the_rule() {
    in_namespace(|mut bed| async move {
        foreign();
        let before = state();
        bed.apply(insert(&rule("out"))).await;
        bed.apply(insert(&rule("out"))).await;
        // Killed between intend and done: there is no outcome.
        bed.apply(remove(&rule("out"))).await;
        assert_unchanged(&before);
    });
}

#[test]
fn a_rule_with_our_handle_but_not_our_comment_stays() {
    in_namespace(|mut bed| async move {
        foreign();
        let outcome = bed.apply(insert(&rule("out"))).await;
        sh("nft flush ruleset");
        foreign();
        let before = state();
        bed.undo(remove(&rule("out")), &outcome).await;
        bed.undo(remove(&rule("out")), &Left::Rule(4).into()).await;
        assert_unchanged(&before);
        sh("nft delete table inet theirs");
        bed.undo(remove(&rule("out")), &outcome).await;
    });
}

#[test]
fn a_missing_chain_is_reported_in_nfts_words() {
    in_namespace(|mut bed| async move {
        let error = bed.fail(insert(&rule("out"))).await;
        assert!(chain(&error).contains("No such file or directory"), "{}", chain(&error));
        let error = bed
            .fail(Op::InsertNftRule {
                command: "no-nft".into(),
                rule: rule("out"),
            })
            .await;
        assert!(chain(&error).contains("`no-nft` was not found"), "{}", chain(&error));
        assert!(error.hint.is_some());
    });
}

#[test]
fn a_table_of_ours_is_made_at_once_and_deleted() {
    in_namespace(|mut bed| async move {
        let before = state();
        let chain = json!({ "add": { "chain": { "family": "inet", "table": "clatd_test", "name": "forward",
            "type": "filter", "hook": "forward", "prio": -10, "policy": "accept" } } });
        let rule = json!({ "add": { "rule": { "family": "inet", "table": "clatd_test", "chain": "forward",
            "expr": [{ "counter": null }, { "accept": null }], "comment": "clatd:test:mark" } } });
        let create = Op::CreateNftTable(NewNftTable {
            command: "nft".into(),
            family: "inet".into(),
            table: "clatd_test".into(),
            ruleset: json!([chain, rule]),
        });
        let delete = |only_if_empty| {
            Op::DeleteNftTable(NftTableDeletion {
                command: "nft".into(),
                family: "inet".into(),
                table: "clatd_test".into(),
                only_if_empty,
            })
        };
        bed.apply(create.clone()).await;
        bed.apply(create).await;
        assert_eq!(sh("nft list table inet clatd_test").matches("accept").count(), 2);
        bed.apply(delete(true)).await;
        assert!(sh("nft list tables").contains("clatd_test"), "it has a rule");
        bed.undo(delete(false), &Outcome::NOTHING).await;
        assert_unchanged(&before);
    });
}

#[test]
fn a_table_of_that_name_that_is_not_ours_is_left_alone() {
    in_namespace(|mut bed| async move {
        sh("nft add table ip6 clatd_466; nft add chain ip6 clatd_466 mine; nft add rule ip6 clatd_466 mine counter");
        let before = state();
        let chain = json!({ "add": { "chain": { "family": "ip6", "table": "clatd_466", "name": "prerouting" } } });
        let (command, family, table) = ("nft".to_owned(), "ip6".to_owned(), "clatd_466".to_owned());
        let create = Op::CreateNftTable(NewNftTable {
            command: command.clone(),
            family: family.clone(),
            table: table.clone(),
            ruleset: json!([chain]),
        });
        let error = bed.fail(create).await;
        assert!(error.untouched, "{}", crate::support::chain(&error));
        assert!(error.hint.is_some_and(|hint| hint.contains("route-table")));
        let delete = Op::DeleteNftTable(NftTableDeletion {
            command,
            family,
            table,
            only_if_empty: false,
        });
        bed.undo(delete, &Outcome::NOTHING).await;
        assert_unchanged(&before);
        let nowhere = std::path::Path::new("/nonexistent");
        let settings = clatd_stages::settings::Settings::default();
        clatd::kernel::cleanup::run(nowhere, &settings, false).await.unwrap();
        assert_unchanged(&before);
    });
}

fn ip6tables(command: &str) -> (Op, Op) {
    let rule: Vec<String> = "-i clat -o up0 -m comment --comment clatd:test:out -j ACCEPT"
        .split(' ')
        .map(Into::into)
        .collect();
    (
        Op::InsertIp6tables {
            command: command.into(),
            chain: "FORWARD".into(),
            rule: rule.clone(),
        },
        Op::DeleteIp6tables {
            command: command.into(),
            chain: "FORWARD".into(),
            rule,
        },
    )
}

#[test]
fn ip6tables_rules_come_and_go_in_both_kinds() {
    for command in ["ip6tables", "ip6tables-legacy"] {
        std::thread::spawn(move || {
            in_namespace(|mut bed| async move {
                sh(&format!(
                    "{command} -A FORWARD -i eth7 -j DROP; {command} -P FORWARD DROP"
                ));
                let saved = || sh(&format!("{command}-save -t filter | sed '/^#/d; s/\\[.*//'"));
                let before = saved();
                let (insert, delete) = ip6tables(command);
                let outcome = bed.apply(insert).await;
                let text = bed.world.ip6tables_filter(command).await.unwrap().unwrap();
                let rules: Vec<_> = text.lines().filter(|line| line.starts_with("-A")).collect();
                assert!(rules[0].contains("clatd:test:out"), "{text}");
                bed.undo(delete, &outcome).await;
                assert_eq!(saved(), before);
            });
        })
        .join()
        .unwrap();
    }
}

/// Nobody is told of changes of the old kind of tables, and hundreds of instances look at them.
#[test]
fn many_who_look_at_once_run_one_program() {
    in_namespace(|mut bed| async move {
        let folder = tempfile::tempdir().unwrap();
        let (command, ran) = (folder.path().join("ip6tables"), folder.path().join("ran"));
        for suffix in ["", "-save"] {
            let script = format!(
                "#!/bin/sh\necho {suffix} >>{}\nexec ip6tables-legacy{suffix} \"$@\"\n",
                ran.display()
            );
            let program = format!("{}{suffix}", command.display());
            std::fs::write(&program, script).unwrap();
            sh(&format!("chmod +x {program}"));
        }
        let command = command.to_str().unwrap();
        sh("ip6tables-legacy -P FORWARD DROP");
        let (insert, _) = ip6tables(command);
        let runs = || std::fs::read_to_string(&ran).unwrap().matches("-save").count();
        let begin = std::time::Instant::now();
        for _ in 0..200 {
            let saved = bed.world.ip6tables_filter(command).await.unwrap().unwrap();
            assert!(saved.contains(":FORWARD DROP"), "{saved}");
        }
        // On a machine that stood still for seconds it is read again.
        assert!(runs() <= 1 + begin.elapsed().as_secs() as usize, "{} runs", runs());
        // What this process changes shows at once.
        bed.apply(insert).await;
        let saved = bed.world.ip6tables_filter(command).await.unwrap().unwrap();
        assert!(saved.contains("clatd:test:out"), "{saved}");
    });
}

#[test]
fn looking_at_ip6tables_makes_no_table() {
    for command in ["ip6tables", "ip6tables-legacy"] {
        std::thread::spawn(move || {
            in_namespace(|mut bed| async move {
                let before = state_of_tables();
                assert_eq!(bed.world.ip6tables_filter(command).await.unwrap(), None);
                assert_eq!(bed.world.ip6tables_filter("no-ip6tables").await.unwrap(), None);
                // Undoing what a killed daemon had only meant to do makes none either.
                let (insert, delete) = ip6tables(command);
                bed.apply(delete.clone()).await;
                assert_eq!(state_of_tables(), before);

                // The table that the first rule makes goes by the undo of its own step.
                let outcome = bed.apply(insert).await;
                bed.undo(delete, &outcome).await;
                if command == "ip6tables" {
                    let table = Op::DeleteNftTable(NftTableDeletion {
                        command: "nft".into(),
                        family: "ip6".into(),
                        table: "filter".into(),
                        only_if_empty: true,
                    });
                    bed.undo(table, &Outcome::NOTHING).await;
                    assert_eq!(state_of_tables(), before);
                }
            });
        })
        .join()
        .unwrap();
    }

    fn state_of_tables() -> String {
        sh("nft list ruleset; cat /proc/thread-self/net/ip6_tables_names 2>/dev/null || true")
    }
}

#[test]
fn a_shared_filter_table_stays() {
    in_namespace(|mut bed| async move {
        sh("ip6tables -N theirs");
        let before = state();
        let table = Op::DeleteNftTable(NftTableDeletion {
            command: "nft".into(),
            family: "ip6".into(),
            table: "filter".into(),
            only_if_empty: true,
        });
        bed.apply(table).await;
        assert_unchanged(&before);
    });
}
