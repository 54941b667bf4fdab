//! Sysctls and the holds on them, files, scripts.

use std::collections::BTreeMap;

use clatd::kernel::Kernel;
use clatd_stages::apply::System;
use clatd_stages::journal::Outcome;
use clatd_stages::op::{Op, ScriptRun, SysctlRelease};
use clatd_stages::world::World;
use tokio::sync::mpsc::unbounded_channel;

use crate::support::{Bed, assert_unchanged, chain, in_namespace, sh, state};

const FORWARDING: &str = "net/ipv6/conf/all/forwarding";
const ACCEPT_RA: &str = "net/ipv6/conf/up0/accept_ra";

fn hold(key: &str, value: &str, before: &str) -> (Op, Op) {
    let (key, value, before) = (key.to_owned(), value.to_owned(), before.to_owned());
    (
        Op::HoldSysctl {
            key: key.clone(),
            value: value.clone(),
            before: before.clone(),
        },
        Op::ReleaseSysctl(SysctlRelease {
            key,
            value,
            before,
            give_back: BTreeMap::new(),
        }),
    )
}

fn another(bed: &Bed, instance: &str) -> Kernel {
    Kernel::new(instance, bed.netlink.clone(), bed.holds.clone(), unbounded_channel().0)
}

fn read(key: &str) -> String {
    sh(&format!("cat /proc/sys/{key}")).trim().to_owned()
}

#[test]
fn the_last_holder_restores() {
    in_namespace(|mut bed| async move {
        let before = state();
        let (acquire, release) = hold(ACCEPT_RA, "2", "1");
        let mut other = another(&bed, "other");
        let first = bed.apply(acquire.clone()).await;
        assert_eq!(read(ACCEPT_RA), "2");
        assert_eq!(
            bed.world.sysctl(ACCEPT_RA).await.unwrap().unwrap(),
            "1",
            "as before the first hold"
        );
        let second = other.apply(&acquire, None).await.unwrap();
        bed.undo(release.clone(), &first).await;
        assert_eq!(read(ACCEPT_RA), "2", "the other one holds it");
        assert_eq!(bed.world.sysctl(ACCEPT_RA).await.unwrap().unwrap(), "1");
        other.apply(&release, Some(&second)).await.unwrap();
        other.apply(&release, Some(&second)).await.unwrap();
        assert_unchanged(&before);
    });
}

#[test]
fn what_somebody_else_has_set_since_stays() {
    in_namespace(|mut bed| async move {
        let (acquire, release) = hold(ACCEPT_RA, "2", "1");
        let outcome = bed.apply(acquire).await;
        sh(&format!("echo 0 > /proc/sys/{ACCEPT_RA}"));
        bed.undo(release, &outcome).await;
        assert_eq!(read(ACCEPT_RA), "0");
    });
}

#[test]
fn two_values_at_once_are_refused_and_the_refused_one_releases_nothing() {
    in_namespace(|mut bed| async move {
        let (acquire, release) = hold(ACCEPT_RA, "2", "1");
        let outcome = bed.apply(acquire).await;
        let mut other = another(&bed, "other");
        let (different, undo) = hold(ACCEPT_RA, "0", "1");
        let error = other.apply(&different, None).await.unwrap_err();
        assert!(
            chain(&error).contains("instance test holds this sysctl at 2"),
            "{}",
            chain(&error)
        );
        other.apply(&undo, None).await.unwrap();
        assert_eq!(read(ACCEPT_RA), "2");
        bed.undo(release, &outcome).await;
        assert_eq!(read(ACCEPT_RA), "1");
    });
}

#[test]
fn a_killed_daemons_hold_is_released_from_its_journal() {
    in_namespace(|mut bed| async move {
        let before = state();
        let (acquire, release) = hold(ACCEPT_RA, "2", "1");
        let outcome = another(&bed, "killed").apply(&acquire, None).await.unwrap();
        let fresh = clatd::kernel::Holds::default();
        let mut cleaner = Kernel::new("killed", bed.netlink.clone(), fresh, unbounded_channel().0);
        cleaner.apply(&release, Some(&outcome)).await.unwrap();
        assert_unchanged(&before);
        // Its device may have gone in the meantime.
        sh("ip link del up0");
        bed.apply(release).await;
    });
}

#[test]
fn releasing_forwarding_gives_back_what_that_resets() {
    in_namespace(|mut bed| async move {
        sh("echo 1 > /proc/sys/net/ipv6/conf/isp0/forwarding");
        let before = state();
        let (acquire, _) = hold(FORWARDING, "1", "0");
        let release = Op::ReleaseSysctl(SysctlRelease {
            key: FORWARDING.into(),
            value: "1".into(),
            before: "0".into(),
            give_back: BTreeMap::from([
                ("net/ipv6/conf/isp0/forwarding".to_owned(), "1".to_owned()),
                ("net/ipv6/conf/gone0/forwarding".to_owned(), "1".to_owned()),
            ]),
        });
        let outcome = bed.apply(acquire).await;
        assert_eq!(read("net/ipv6/conf/up0/forwarding"), "1");
        bed.undo(release, &outcome).await;
        assert_unchanged(&before);
    });
}

#[test]
fn files_are_private_and_go() {
    in_namespace(|mut bed| async move {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tayga.conf").display().to_string();
        let outcome = bed
            .apply(Op::WriteFile {
                path: path.clone(),
                contents: "map\n".into(),
            })
            .await;
        assert_eq!(sh(&format!("stat -c %a {path}; cat {path}")), "600\nmap\n");
        bed.undo(Op::RemoveFile { path }, &outcome).await;
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        let error = bed
            .fail(Op::WriteFile {
                path: "/no/such/place/x".into(),
                contents: String::new(),
            })
            .await;
        assert!(error.hint.unwrap().contains("/no/such/place"));
    });
}

#[test]
fn scripts_have_their_environment_and_their_failures_are_named() {
    in_namespace(|mut bed| async move {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("out").display().to_string();
        let script = |command: &str| {
            Op::RunScript(ScriptRun {
                event: "script-up".into(),
                command: command.into(),
                environment: BTreeMap::from([
                    ("clat_dev".to_owned(), "clat".to_owned()),
                    ("quiet".to_owned(), String::new()),
                ]),
                timeout_s: 60,
                user: None,
            })
        };
        assert_eq!(
            bed.apply(script(&format!(
                "echo \"$clat_dev,${{quiet-unset}},$PATH\" >{out}; cat >>{out}"
            )))
            .await,
            Outcome::NOTHING
        );
        assert!(std::fs::read_to_string(&out).unwrap().starts_with("clat,,/"));
        let error = bed.fail(script("exit 7")).await;
        assert!(
            chain(&error).contains("the script-up command exited with status 7"),
            "{}",
            chain(&error)
        );
        let error = bed.fail(script("kill -9 $$")).await;
        assert!(chain(&error).contains("killed by signal 9"), "{}", chain(&error));
    });
}

/// It is read for all instances at once, so nothing of it may change by what one of them holds.
#[test]
fn what_was_read_lately_shows_no_hold() {
    in_namespace(async |mut bed| {
        sh(&format!("echo 1 >/proc/sys/{ACCEPT_RA}"));
        let lately = async |bed: &Bed| bed.world.sysctl_lately(ACCEPT_RA).await.unwrap();
        let (acquire, release) = hold(ACCEPT_RA, "2", "1");
        assert_eq!(lately(&bed).await.as_deref(), Some("1"));
        let outcome = bed.apply(acquire).await;
        assert_eq!(lately(&bed).await.as_deref(), Some("1"), "at once");
        tokio::time::sleep(std::time::Duration::from_millis(120)).await;
        assert_eq!(lately(&bed).await.as_deref(), Some("1"), "while it is held");
        bed.undo(release, &outcome).await;
        sh(&format!("echo 0 >/proc/sys/{ACCEPT_RA}"));
        tokio::time::sleep(std::time::Duration::from_millis(120)).await;
        assert_eq!(lately(&bed).await.as_deref(), Some("0"), "what others write is seen");
    });
}
