//! Every operation: done, found standing, undone by somebody, found missing, taken back, swept, printed.

use std::collections::BTreeSet;
use std::time::Duration;

use clatd::kernel::{cleanup, nature};
use clatd_stages::journal::Outcome;
use clatd_stages::op::{NftRule, Op};
use clatd_stages::settings::Settings;
use clatd_stages::translator::{TranslatorSpec, UserspaceSpec};
use clatd_stages::world::World;
use serde_json::{Value, json};

use crate::support::{Bed, in_namespace, sh, state};

/// The name of an operation, and all names. A new variant has no place here until somebody gives it one, and then needs a
/// row in [`rows`].
macro_rules! variants {
    ($($variant:ident),* $(,)?) => {
        fn variant(op: &Op) -> &'static str {
            match op {
                $(Op::$variant { .. } => stringify!($variant),)*
            }
        }
        pub const VARIANTS: &[&str] = &[$(stringify!($variant)),*];
    };
}
variants![
    CreateTun,
    DeleteTun,
    SetLinkUp,
    AddAddress,
    RemoveAddress,
    SetDeviceSysctl,
    HoldSysctl,
    ReleaseSysctl,
    HoldOnDevices,
    ReleaseOnDevices,
    AddProxyNeighbour,
    RemoveProxyNeighbour,
    JoinAnycast,
    LeaveAnycast,
    AddRoute,
    RemoveRoute,
    AddRule,
    RemoveRule,
    HoldLocalRule,
    ReleaseLocalRule,
    InsertNftRule,
    RemoveNftRule,
    CreateNftTable,
    DeleteNftTable,
    InsertIp6tables,
    DeleteIp6tables,
    WriteFile,
    RemoveFile,
    RunScript,
    Nothing,
    StartTranslator,
    StopTranslator,
    AttachFastPath,
    DetachFastPath,
    SetNextHop,
];

/// What older versions did by `HoldLocalRule`. This one only undoes it.
const MOVE_LOCAL_RULE: &str = "ip -6 rule add pref 1 lookup local protocol kernel; ip -6 rule del pref 0";

/// An operation, its undo, and how somebody undoes it.
struct Row {
    apply: Op,
    undo: Option<Op>,
    /// The shell command with which somebody undoes it; `None` = nobody can, or another test covers it.
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

fn tun(word: &str, device: &str, persistent: bool) -> Value {
    match word {
        "create-tun" => {
            json!({ "op": word, "device": device, "alias": "clatd:test", "persistent": persistent, "queues": 1 })
        }
        _ => json!({ "op": word, "device": device, "alias": "clatd:test" }),
    }
}

/// Somebody else's route.
fn foreign() -> Value {
    json!({ "destination": "2001:db8:9::/64", "device": "up0", "metric": 5, "table": 254, "protocol": 4 })
}

fn attach(device: &str, uplink: &str, attachment: &str) -> Value {
    json!({ "op": "attach-fast-path", "fast_path": {
        "uplink": uplink, "way": { "attachment": attachment, "header": "ethernet" }, "translation": userspace(device) } })
}

fn detach(device: &str, uplink: &str, attachment: &str) -> Value {
    json!({ "op": "detach-fast-path", "device": device, "uplink": uplink, "attachment": attachment })
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
            tun("create-tun", "clat", false),
            tun("delete-tun", "clat", false),
            "",
            false,
        ),
        row(
            tun("create-tun", "clat9", true),
            tun("delete-tun", "clat9", true),
            "",
            true,
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
            json!({ "op": "remove-route", "route": foreign() }),
            json!({ "op": "add-route", "route": foreign() }),
            "",
            false,
        ),
        row(
            json!({ "op": "hold-local-rule" }),
            json!({ "op": "release-local-rule" }),
            "",
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
        row(attach("clat", "up0", "tcx"), detach("clat", "up0", "tcx"), "", false),
        row(
            attach("clat9", "isp0", "clsact"),
            detach("clat9", "isp0", "clsact"),
            "tc filter del dev isp0 ingress",
            true,
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

fn userspace(device: &str) -> UserspaceSpec {
    let mut settings = Settings::default();
    settings.clat.clat_dev = device.into();
    let (prefix, address) = ("64:ff9b::/96".parse().unwrap(), "2001:db8:1::7".parse().unwrap());
    UserspaceSpec::of(&settings, prefix, Some(address), (1500, 1500))
}

fn translator() -> Value {
    serde_json::to_value(TranslatorSpec::Userspace(userspace("clat"))).unwrap()
}

async fn stands(bed: &Bed, op: &Op) -> bool {
    bed.world.undone(&[(7, op)]).await.unwrap().is_empty()
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

/// The state, with the filters of clsact.
fn all() -> String {
    state() + &sh("tc filter show dev isp0 ingress")
}

async fn apply(bed: &mut Bed, op: &Op) -> Outcome {
    if matches!(op, Op::HoldLocalRule {}) {
        sh(MOVE_LOCAL_RULE);
    }
    bed.apply(op.clone()).await
}

#[test]
fn every_operation_is_done_checked_and_taken_back() {
    in_namespace(|mut bed| async move {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tayga.conf").display().to_string();
        sh(
            "nft add table ip6 theirs; nft add chain ip6 theirs forward; ip6tables -A FORWARD -j ACCEPT; ip6tables -F FORWARD
            ip -6 route add 2001:db8:9::/64 dev up0 metric 5 proto static",
        );
        let before = all();
        let mut seen = BTreeSet::new();
        let mut done = Vec::new();
        for row in rows(&file) {
            let (op, name) = (&row.apply, row.apply.to_string());
            assert!(!name.is_empty());
            seen.insert(variant(op));
            let mut outcome = apply(&mut bed, op).await;
            assert!(stands(&bed, op).await, "{name}: it is done");
            if let Some(meddle) = row.meddle {
                sh(&meddle.replace("$FILE", &file));
                // The kernel tells of a carrier within a second.
                assert!(comes_to(&bed, op, false).await, "{name}: {meddle}");
                if !matches!(op, Op::StartTranslator { .. }) {
                    outcome = apply(&mut bed, op).await;
                } else {
                    sh("ip link set clat carrier on");
                }
                assert!(comes_to(&bed, op, true).await, "{name}: it is done again");
            }
            done.push((row, outcome));
        }
        for (row, outcome) in done.into_iter().rev() {
            let Some(undo) = row.undo else { continue };
            seen.insert(variant(&undo));
            assert!(!undo.to_string().is_empty());
            // Plans add routes, too.
            let is_planned = matches!(undo, Op::AddRoute { .. });
            assert!(is_planned || stands(&bed, &undo).await, "{undo}: nothing to look after");
            bed.undo(undo, &outcome).await;
        }
        assert_eq!(all(), before);
        let missing: Vec<_> = VARIANTS.iter().filter(|variant| !seen.contains(*variant)).collect();
        assert!(missing.is_empty(), "these have no row: {missing:?}");
    });
}

/// The mirror tells instances of default routes that others make. It drops other routes, since full tables have too many.
#[test]
fn a_route_whose_place_somebody_takes_is_looked_after() {
    in_namespace(|mut bed| async move {
        let route = op(json!({ "op": "add-route", "route": on_link() }));
        apply(&mut bed, &route).await;
        sh("ip -6 route replace 2001:db8:7::/64 dev lo table 464 metric 5");
        assert!(!stands(&bed, &route).await, "it is somebody's now");
        assert!(nature(&route).untold);
        sh("ip -6 route del 2001:db8:7::/64 table 464");
        apply(&mut bed, &route).await;
        assert!(stands(&bed, &route).await);
        let mut default = on_link();
        default["destination"] = json!("::/0");
        let default = op(json!({ "op": "add-route", "route": default }));
        assert!(!nature(&default).untold);
    });
}

/// A device goes with its process. What outlives it has our label, and by that alone a cleanup finds it.
#[test]
fn every_operation_that_leaves_a_label_is_swept() {
    in_namespace(|mut bed| async move {
        let directory = tempfile::tempdir().unwrap();
        sh(
            "nft add table ip6 theirs; nft add chain ip6 theirs forward; ip6tables -A FORWARD -j ACCEPT; ip6tables -F FORWARD",
        );
        let before = all();
        for row in rows("") {
            assert_eq!(nature(&row.apply).swept, row.swept, "{}", row.apply);
            if row.swept {
                let earlier = all();
                apply(&mut bed, &row.apply).await;
                assert_ne!(all(), earlier, "{}: it is not seen here", row.apply);
            }
            if let Some(undo) = &row.undo {
                let restores = matches!(undo, Op::AddRoute { .. });
                assert_eq!(nature(undo).swept, restores, "{undo}: it leaves nothing of ours");
            }
        }
        let settings = Settings::default();
        let report = cleanup::run(directory.path(), &settings, true).await.unwrap();
        let told = report.done;
        assert_ne!(all(), before, "a dry run changes nothing");
        let report = cleanup::run(directory.path(), &settings, false).await.unwrap();
        assert!(report.errors.is_empty(), "{report:?}");
        assert_eq!(report.done, told, "a dry run tells the same");
        assert_eq!(all(), before);
    });
}
