//! Every operation: done, found standing, undone by somebody, found missing, taken back, swept, printed.

use std::collections::BTreeSet;
use std::time::Duration;

use clatd::kernel::cleanup;
use clatd_stages::apply::System;
use clatd_stages::op::{NftRule, Op};
use clatd_stages::settings::Settings;
use clatd_stages::translator::{TranslatorSpec, UserspaceSpec};
use clatd_stages::world::World;
use serde_json::{Value, json};

use crate::support::{Bed, assert_unchanged, chain, in_namespace, sh, state};

/// A number for each variant: a new one has no place here until somebody gives it one, and a row in [`rows`].
fn number(op: &Op) -> usize {
    match op {
        Op::CreateTun { .. } => 0,
        Op::DeleteTun { .. } => 1,
        Op::SetLinkUp { .. } => 2,
        Op::AddAddress { .. } => 3,
        Op::RemoveAddress { .. } => 4,
        Op::SetDeviceSysctl { .. } => 5,
        Op::HoldSysctl { .. } => 6,
        Op::ReleaseSysctl { .. } => 7,
        Op::AddProxyNeighbour { .. } => 8,
        Op::RemoveProxyNeighbour { .. } => 9,
        Op::JoinAnycast { .. } => 10,
        Op::LeaveAnycast { .. } => 11,
        Op::AddRoute { .. } => 12,
        Op::RemoveRoute { .. } => 13,
        Op::AddRule { .. } => 14,
        Op::RemoveRule { .. } => 15,
        Op::HoldLocalRule {} => 16,
        Op::ReleaseLocalRule {} => 17,
        Op::InsertNftRule { .. } => 18,
        Op::RemoveNftRule { .. } => 19,
        Op::CreateNftTable { .. } => 20,
        Op::DeleteNftTable { .. } => 21,
        Op::InsertIp6tables { .. } => 22,
        Op::DeleteIp6tables { .. } => 23,
        Op::WriteFile { .. } => 24,
        Op::RemoveFile { .. } => 25,
        Op::RunScript { .. } => 26,
        Op::Nothing { .. } => 27,
        Op::StartTranslator { .. } => 28,
        Op::StopTranslator { .. } => 29,
        Op::AttachFastPath { .. } => 30,
        Op::DetachFastPath { .. } => 31,
        Op::SetNextHop { .. } => 32,
        Op::HoldOnDevices(_) => 33,
        Op::ReleaseOnDevices(_) => 34,
    }
}
const VARIANTS: usize = 35;

/// An operation, its undo, and how somebody undoes it.
struct Row {
    apply: Op,
    undo: Option<Op>,
    /// `None` = nobody can, or what they do is looked after elsewhere.
    meddle: Option<&'static str>,
    /// Whether a sweep without a journal finds it.
    swept: bool,
}

fn op(value: Value) -> Op {
    serde_json::from_value(value).unwrap()
}

fn row(apply: Value, undo: Value, meddle: &'static str, swept: bool) -> Row {
    Row {
        apply: op(apply),
        undo: (!undo.is_null()).then(|| op(undo)),
        meddle: (!meddle.is_empty()).then_some(meddle),
        swept,
    }
}

fn on_link() -> Value {
    json!({ "destination": "2001:db8:7::/64", "device": "up0", "gateway": null, "metric": 5, "table": 464, "protocol": 46 })
}

/// In the order in which a plan has them: later rows need what earlier ones made.
fn rows(file: &str) -> Vec<Row> {
    let rule = NftRule {
        family: "ip6".into(),
        table: "theirs".into(),
        chain: "forward".into(),
        statements: json!([{ "accept": null }]),
        comment: "clatd:test:out".into(),
    };
    let policy = json!({ "v6": true, "priority": 466, "from": "2001:db8:7::1/128", "table": 464, "protocol": 46 });
    let ip6 = [
        "-i",
        "clat",
        "-m",
        "comment",
        "--comment",
        "clatd:test:out",
        "-j",
        "ACCEPT",
    ];
    let table = json!({ "command": "nft", "family": "ip6", "table": "clatd_464" });
    let mut create_table = table.clone();
    create_table["op"] = json!("create-nft-table");
    create_table["ruleset"] = json!([
        { "add": { "chain": { "family": "ip6", "table": "clatd_464", "name": "prerouting", "type": "filter",
            "hook": "prerouting", "prio": -150, "policy": "accept" } } },
        { "add": { "rule": { "family": "ip6", "table": "clatd_464", "chain": "prerouting",
            "expr": [{ "counter": null }], "comment": "clatd:test:mark" } } },
    ]);
    let mut delete_table = table;
    delete_table["op"] = json!("delete-nft-table");
    delete_table["only_if_empty"] = json!(false);
    let key = "net/ipv6/conf/up0/proxy_ndp";
    let held = json!({ "key": key, "value": "1", "before": "0" });
    let sysctl = |word: &str| {
        let mut value = held.clone();
        value["op"] = json!(word);
        value
    };
    let on_devices = |word: &str| json!({ "op": word, "devices": ["gone0", "isp0", "up0"], "name": "accept_ra", "value": "2", "before": "1" });
    let anycast = |word: &str| json!({ "op": word, "device": "up0", "address": "2001:db8:1::c1a7" });
    let proxy = |word: &str| json!({ "op": word, "device": "up0", "address": "2001:db8:1::7" });
    let address = |word: &str| json!({ "op": word, "device": "clat", "address": "192.0.0.1/32" });
    let script = json!({ "op": "run-script", "event": "script-up", "command": "true", "environment": {} });
    let start = json!({ "op": "start-translator", "translator": translator() });
    vec![
        row(
            json!({ "op": "create-tun", "device": "clat", "alias": "clatd:test", "persistent": false, "queues": 1 }),
            json!({ "op": "delete-tun", "device": "clat", "alias": "clatd:test" }),
            "",
            false,
        ),
        row(
            json!({ "op": "set-device-sysctl", "key": "net/ipv6/conf/clat/addr_gen_mode", "value": "1" }),
            Value::Null,
            "echo 0 >/proc/sys/net/ipv6/conf/clat/addr_gen_mode",
            false,
        ),
        row(
            json!({ "op": "set-link-up", "device": "clat", "mtu": 1500 }),
            Value::Null,
            "ip link set clat mtu 1400",
            false,
        ),
        row(
            address("add-address"),
            address("remove-address"),
            "ip addr del 192.0.0.1/32 dev clat",
            false,
        ),
        row(
            sysctl("hold-sysctl"),
            sysctl("release-sysctl"),
            "echo 0 >/proc/sys/net/ipv6/conf/up0/proxy_ndp",
            false,
        ),
        row(
            on_devices("hold-on-devices"),
            on_devices("release-on-devices"),
            "echo 1 >/proc/sys/net/ipv6/conf/isp0/accept_ra",
            false,
        ),
        row(
            proxy("add-proxy-neighbour"),
            proxy("remove-proxy-neighbour"),
            "ip -6 neigh del proxy 2001:db8:1::7 dev up0",
            true,
        ),
        row(anycast("join-anycast"), anycast("leave-anycast"), "", false),
        row(
            json!({ "op": "add-route", "route": on_link() }),
            json!({ "op": "remove-route", "route": on_link() }),
            "ip -6 route del 2001:db8:7::/64 table 464",
            true,
        ),
        row(
            json!({ "op": "add-rule", "rule": policy }),
            json!({ "op": "remove-rule", "rule": policy }),
            "ip -6 rule del priority 466",
            true,
        ),
        row(
            json!({ "op": "insert-nft-rule", "command": "nft", "rule": rule }),
            json!({ "op": "remove-nft-rule", "command": "nft", "rule": rule }),
            "nft flush chain ip6 theirs forward",
            true,
        ),
        row(create_table, delete_table, "nft delete table ip6 clatd_464", true),
        row(
            json!({ "op": "insert-ip6tables", "command": "ip6tables", "chain": "FORWARD", "rule": ip6 }),
            json!({ "op": "delete-ip6tables", "command": "ip6tables", "chain": "FORWARD", "rule": ip6 }),
            "ip6tables -F FORWARD",
            true,
        ),
        row(
            json!({ "op": "write-file", "path": file, "contents": "# TAYGA configuration written by clatd\n" }),
            json!({ "op": "remove-file", "path": file }),
            "echo x >$FILE",
            false,
        ),
        row(script.clone(), script, "", false),
        row(
            json!({ "op": "nothing", "what": "nothing at all" }),
            Value::Null,
            "",
            false,
        ),
        // Programs that somebody detaches are put back: tests/fastpath.
        row(
            json!({ "op": "attach-fast-path", "fast_path": {
                "uplink": "up0", "way": { "attachment": "tcx", "header": "ethernet" }, "translation": userspace() } }),
            json!({ "op": "detach-fast-path", "device": "clat", "uplink": "up0", "attachment": "tcx" }),
            "",
            false,
        ),
        row(
            json!({ "op": "set-next-hop", "device": "clat", "uplink": "up0", "gateway": "fe80::1" }),
            Value::Null,
            "",
            false,
        ),
        row(
            start,
            json!({ "op": "stop-translator", "device": "clat" }),
            "ip link set clat carrier off",
            false,
        ),
    ]
}

fn userspace() -> UserspaceSpec {
    let prefix = "64:ff9b::/96".parse().unwrap();
    UserspaceSpec::of(
        &Settings::default(),
        prefix,
        Some("2001:db8:1::7".parse().unwrap()),
        (1500, 1500),
    )
}

fn translator() -> Value {
    serde_json::to_value(TranslatorSpec::Userspace(userspace())).unwrap()
}

async fn stands(bed: &Bed, op: &Op) -> bool {
    bed.world.undone(&[op]).await.unwrap().is_empty()
}

/// Whether it soon stands, or soon does not.
async fn comes_to(bed: &Bed, op: &Op, standing: bool) -> bool {
    for _ in 0..60 {
        if stands(bed, op).await == standing {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

#[test]
fn every_operation_is_done_checked_and_taken_back() {
    in_namespace(|mut bed| async move {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tayga.conf").display().to_string();
        sh(
            "nft add table ip6 theirs; nft add chain ip6 theirs forward; ip6tables -A FORWARD -j ACCEPT; ip6tables -F FORWARD",
        );
        let before = state();
        let mut seen = BTreeSet::new();
        let mut done = Vec::new();
        for row in rows(&file) {
            let (apply, name) = (&row.apply, row.apply.to_string());
            assert!(!name.is_empty());
            seen.insert(number(apply));
            let mut outcome = bed.apply(apply.clone()).await;
            assert!(stands(&bed, apply).await, "{name}: it is done");
            if let Some(meddle) = row.meddle {
                sh(&meddle.replace("$FILE", &file));
                // The kernel tells of a carrier within a second.
                assert!(comes_to(&bed, apply, false).await, "{name}: {meddle}");
                if !matches!(apply, Op::StartTranslator { .. }) {
                    outcome = bed.apply(apply.clone()).await;
                } else {
                    sh("ip link set clat carrier on");
                }
                assert!(comes_to(&bed, apply, true).await, "{name}: it is done again");
            }
            done.push((row, outcome));
        }
        for (row, outcome) in done.into_iter().rev() {
            let Some(undo) = row.undo else { continue };
            seen.insert(number(&undo));
            assert!(stands(&bed, &undo).await, "{undo}: nothing to look after");
            bed.undo(undo, &outcome).await;
        }
        assert_unchanged(&before);

        // The device goes with its process; what is not bound to it is found by its mark alone.
        for row in rows(&file).into_iter().filter(|row| row.swept) {
            let name = row.apply.to_string();
            bed.kernel
                .apply(&row.apply, None)
                .await
                .unwrap_or_else(|error| panic!("{name}: {}", chain(&error)));
        }
        let settings = Settings::default();
        let report = cleanup::run(directory.path(), &settings, false).await.unwrap();
        assert!(report.errors.is_empty(), "{report:?}");
        assert_unchanged(&before);

        // Those that the routes of this test do not need.
        let elsewhere = [
            Op::HoldLocalRule {},
            Op::ReleaseLocalRule {},
            op(json!({ "op": "remove-route", "route": on_link() })),
        ];
        seen.extend(elsewhere.iter().map(number));
        assert_eq!(seen, (0..VARIANTS).collect(), "every variant has a row");
    });
}
