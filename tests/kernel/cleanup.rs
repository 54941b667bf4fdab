//! `clatd cleanup`.

use clatd::kernel::{FileJournal, RuntimeLock, cleanup};
use clatd_stages::apply::apply;
use clatd_stages::op::{NewTun, NftRule, Op, SysctlRelease};
use clatd_stages::plan::{StageName, Step};
use clatd_stages::settings::Settings;
use serde_json::json;

use crate::support::{assert_unchanged, chain, in_namespace, sh, state};

#[test]
fn journals_first_then_whatever_has_our_label() {
    in_namespace(|mut bed| async move {
        sh("nft add table inet theirs; nft add chain inet theirs forward '{ type filter hook forward priority 0; policy drop; }'
            nft add rule inet theirs forward counter packets 0 bytes 0 accept comment '\"not clatd:\"'
            ip6tables -A FORWARD -j DROP");
        let before = state();
        let directory = tempfile::tempdir().unwrap();
        let runtime = directory.path().join("clatd");
        // A daemon was killed after these steps...
        let mut journal = FileJournal::open(&runtime, "wan0").unwrap();
        apply(&planned(), &mut bed.kernel, &mut journal, &|| false)
            .await
            .unwrap();
        drop(journal);
        // ... and these are in no journal.
        sh("ip tuntap add dev clat7 mode tun; ip link set clat7 alias clatd:lost
            ip -6 route add 2001:db8:7::/64 dev up0 proto 46 table 464; ip route add 198.51.100.0/24 dev up0 proto 46
            ip -6 rule add from 2001:db8:7::1 lookup 464 protocol 46; ip rule add from 192.0.0.1 lookup 464 protocol 46
            nft insert rule inet theirs forward iifname clat accept comment '\"clatd:lost:in\"'
            nft add table inet clatd_lost
            ip6tables -I FORWARD -i clat -m comment --comment clatd:lost:out -j ACCEPT");
        let left = state();

        let settings = Settings::default();
        let dry = cleanup::run(&runtime, &settings, true).await.unwrap();
        assert!(dry.errors.is_empty(), "{:?}", dry.errors);
        assert_unchanged(&left);
        assert_eq!(FileJournal::list(&runtime).unwrap(), ["wan0"]);

        let report = cleanup::run(&runtime, &settings, false).await.unwrap();
        assert!(report.errors.is_empty(), "{:?}", report.errors);
        assert_unchanged(&before);
        assert!(FileJournal::list(&runtime).unwrap().is_empty());
        assert!(
            report.done[0].contains("nft rule") && report.done[0].contains("instance wan0"),
            "{:?}",
            report.done
        );
        assert!(report.done.len() >= 11, "{:#?}", report.done);

        let again = cleanup::run(&runtime, &settings, false).await.unwrap();
        assert!(again.done.is_empty() && again.errors.is_empty(), "{again:?}");
    });
}

/// A device, a hold and a rule, as an instance plans them.
fn planned() -> [Step; 3] {
    let key = "net/ipv6/conf/up0/proxy_ndp".to_owned();
    let rule = NftRule {
        family: "inet".into(),
        table: "theirs".into(),
        chain: "forward".into(),
        statements: json!([{ "accept": null }]),
        comment: "clatd:wan0:out".into(),
    };
    [
        Step::new(
            StageName::Device,
            "",
            Op::CreateTun(NewTun {
                device: "clat".into(),
                alias: "clatd:wan0".into(),
                persistent: true,
                queues: 0,
            }),
            Op::DeleteTun {
                device: "clat".into(),
                alias: "clatd:wan0".into(),
            },
        ),
        Step::new(
            StageName::Sysctl,
            "",
            Op::HoldSysctl {
                key: key.clone(),
                value: "1".into(),
                before: "0".into(),
            },
            Op::ReleaseSysctl(SysctlRelease {
                key,
                value: "1".into(),
                before: "0".into(),
                give_back: Default::default(),
            }),
        ),
        Step::new(
            StageName::Firewall,
            "",
            Op::InsertNftRule {
                command: "nft".into(),
                rule: rule.clone(),
            },
            Op::RemoveNftRule {
                command: "nft".into(),
                rule,
            },
        ),
    ]
}

#[test]
fn not_under_a_running_daemon() {
    in_namespace(|_bed| async move {
        let runtime = tempfile::tempdir().unwrap();
        let _lock = RuntimeLock::acquire(runtime.path()).unwrap();
        for dry_run in [true, false] {
            let error = cleanup::run(runtime.path(), &Settings::default(), dry_run)
                .await
                .unwrap_err();
            assert!(
                chain(&error).starts_with("another clatd (process "),
                "{}",
                chain(&error)
            );
        }
        let nowhere = runtime.path().join("none");
        assert!(
            cleanup::run(&nowhere, &Settings::default(), false)
                .await
                .unwrap()
                .done
                .is_empty()
        );
        assert!(!nowhere.exists());
    });
}
