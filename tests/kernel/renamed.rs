//! Devices that others rename: what was done to a device is taken back from it, and from no other.

use std::collections::BTreeMap;

use clatd::kernel::Kernel;
use clatd_stages::apply::System;
use clatd_stages::journal::Left;
use clatd_stages::net::Route;
use clatd_stages::op::{NewTun, Op, SysctlRelease};
use clatd_stages::world::World;
use tokio::sync::mpsc::unbounded_channel;

use crate::support::{Bed, in_namespace, sh};

fn accept_ra(device: &str) -> String {
    format!("net/ipv6/conf/{device}/accept_ra")
}

fn read(key: &str) -> String {
    sh(&format!("cat /proc/sys/{key}")).trim().to_owned()
}

fn hold(device: &str) -> Op {
    let (value, before) = ("2".into(), "1".into());
    let key = accept_ra(device);
    Op::HoldSysctl { key, value, before }
}

fn release(device: &str) -> Op {
    Op::ReleaseSysctl(SysctlRelease {
        key: accept_ra(device),
        value: "2".into(),
        before: "1".into(),
        give_back: BTreeMap::new(),
    })
}

fn kernel(bed: &Bed, instance: &str, holds: clatd::kernel::Holds) -> Kernel {
    Kernel::new(instance, bed.netlink.clone(), holds, unbounded_channel().0)
}

/// Another device gets the old name, set as ours was.
fn rename() {
    sh("ip link set up0 name wan0; ip link add up0 type bridge; echo 2 >/proc/sys/net/ipv6/conf/up0/accept_ra");
}

#[test]
fn a_hold_follows_its_device() {
    in_namespace(|mut bed| async move {
        let first = bed.apply(hold("up0")).await;
        rename();
        let found = bed.world.sysctl(&accept_ra("wan0")).await.unwrap();
        assert_eq!(found.as_deref(), Some("1"), "as before the hold");
        let found = bed.world.sysctl(&accept_ra("up0")).await.unwrap();
        assert_eq!(found.as_deref(), Some("2"), "nobody holds that");
        // A second holder of the same sysctl, which knows the device by its new name only.
        let mut other = kernel(&bed, "other", bed.holds.clone());
        let second = other.apply(&hold("wan0"), None).await.unwrap();
        bed.undo(release("up0"), &first).await;
        assert_eq!(read(&accept_ra("wan0")), "2", "the other one holds it");
        other.apply(&release("wan0"), Some(&second)).await.unwrap();
        assert_eq!(read(&accept_ra("wan0")), "1");
        assert_eq!(read(&accept_ra("up0")), "2");
    });
}

#[test]
fn a_hold_goes_with_its_device() {
    in_namespace(|mut bed| async move {
        let outcome = bed.apply(hold("up0")).await;
        sh("ip link del up0; ip link add up0 type bridge; echo 2 >/proc/sys/net/ipv6/conf/up0/accept_ra");
        bed.undo(release("up0"), &outcome).await;
        assert_eq!(read(&accept_ra("up0")), "2", "that is another device");
        // Nothing is left in the table: a new hold is a first one.
        sh("echo 1 >/proc/sys/net/ipv6/conf/up0/accept_ra");
        let outcome = bed.apply(hold("up0")).await;
        bed.undo(release("up0"), &outcome).await;
        assert_eq!(read(&accept_ra("up0")), "1");
    });
}

/// Of a killed daemon only the journal is left. That of an older version has no indexes, and is undone by name.
#[test]
fn a_killed_daemons_hold_follows_its_device() {
    in_namespace(|bed| async move {
        let fresh = clatd::kernel::Holds::default;
        let outcome = kernel(&bed, "killed", fresh()).apply(&hold("up0"), None).await.unwrap();
        rename();
        let mut cleaner = kernel(&bed, "killed", fresh());
        cleaner.apply(&release("up0"), Some(&outcome)).await.unwrap();
        assert_eq!(read(&accept_ra("wan0")), "1");
        assert_eq!(read(&accept_ra("up0")), "2");
        let left = Left::Hold {
            before: "1".into(),
            devices: BTreeMap::new(),
        };
        let old = left.into();
        cleaner.apply(&release("up0"), Some(&old)).await.unwrap();
        assert_eq!(read(&accept_ra("up0")), "1");
    });
}

/// `all/forwarding` resets each device, and is given back to those that forwarded, whatever they are called.
#[test]
fn devices_that_forwarded_forward_again() {
    in_namespace(|bed| async move {
        sh("ip link add br0 type bridge; echo 1 >/proc/sys/net/ipv6/conf/br0/forwarding");
        let key = "net/ipv6/conf/all/forwarding".to_owned();
        let give_back = BTreeMap::from([("net/ipv6/conf/br0/forwarding".to_owned(), "1".to_owned())]);
        let (value, before) = ("1".to_owned(), "0".to_owned());
        let hold = Op::HoldSysctl {
            key: key.clone(),
            value: value.clone(),
            before: before.clone(),
        };
        let release = Op::ReleaseSysctl(SysctlRelease {
            key,
            value,
            before,
            give_back,
        });
        let fresh = clatd::kernel::Holds::default;
        let outcome = kernel(&bed, "killed", fresh()).apply(&hold, None).await.unwrap();
        sh("ip link set br0 name lan0; ip link add br0 type bridge");
        kernel(&bed, "killed", fresh())
            .apply(&release, Some(&outcome))
            .await
            .unwrap();
        assert_eq!(read("net/ipv6/conf/lan0/forwarding"), "1");
        assert_eq!(read("net/ipv6/conf/br0/forwarding"), "0");
    });
}

#[test]
fn entries_and_routes_follow_their_device() {
    in_namespace(|mut bed| async move {
        let address = "2001:db8:1::c1a7".parse().unwrap();
        let device = || "up0".to_owned();
        let mut ours = Route::ours("2001:db8:64::/96".parse().unwrap(), "up0");
        ours.gateway = Some("fe80::1".parse().unwrap());
        sh("ip route add default via 192.0.2.1 dev up0 metric 7");
        let theirs = bed.netlink.defaults(false, 254).await.unwrap();
        let theirs = theirs.into_iter().find(|route| route.metric == 7).unwrap();
        let steps = [
            (
                Op::AddProxyNeighbour {
                    device: device(),
                    address,
                },
                Op::RemoveProxyNeighbour {
                    device: device(),
                    address,
                },
            ),
            (Op::AddRoute { route: ours.clone() }, Op::RemoveRoute { route: ours }),
            (
                Op::RemoveRoute { route: theirs.clone() },
                Op::AddRoute { route: theirs },
            ),
        ];
        let mut outcomes = Vec::new();
        for (apply, _) in &steps {
            outcomes.push(bed.apply(apply.clone()).await);
        }
        sh(
            "ip link set up0 name wan0; ip link add up0 type bridge; ip link set up0 up; ip -6 neigh add proxy 2001:db8:1::c1a7 dev up0",
        );
        for ((_, undo), outcome) in steps.into_iter().zip(&outcomes) {
            bed.undo(undo, outcome).await;
        }
        assert_eq!(
            sh("ip -6 neigh show proxy | cut -d' ' -f1-3"),
            "2001:db8:1::c1a7 dev up0\n"
        );
        assert_eq!(sh("ip -6 route show proto 46"), "");
        assert!(sh("ip route show metric 7").contains("via 192.0.2.1 dev wan0"));
    });
}

/// TAYGA's device stays when its program goes, so it is deleted, by whatever name.
#[test]
fn a_renamed_clat_device_is_deleted() {
    in_namespace(|mut bed| async move {
        let (device, alias) = ("clat".to_owned(), "clatd:clat".to_owned());
        let outcome = bed
            .apply(Op::CreateTun(NewTun {
                device: device.clone(),
                alias: alias.clone(),
                persistent: true,
                queues: 1,
            }))
            .await;
        sh("ip link set clat name other");
        bed.undo(Op::DeleteTun { device, alias }, &outcome).await;
        assert!(!sh("ip -o link").contains("other"));
    });
}
