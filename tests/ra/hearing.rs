//! What is heard, and what is not.

use std::time::Duration;

use crate::bed::{has_address, in_namespace, router, sh, until};
use crate::packets::ra;

#[test]
fn an_advertisement_is_known_at_once_whatever_the_kernel_makes_of_it() {
    in_namespace(|bed| async move {
        bed.watch.watch("up0");
        bed.watch.watch("up0");
        assert_eq!(bed.watch.watched(), ["up0"]);
        bed.until_solicited("up0").await;
        for (accept_ra, forwarding) in [(1, 0), (2, 1), (0, 0), (1, 1)] {
            sh(&format!(
                "cd /proc/sys/net/ipv6/conf/up0; echo {accept_ra} >accept_ra; echo {forwarding} >forwarding"
            ));
            let prefix = format!("2001:db8:a{accept_ra}{forwarding}::");
            let before = bed.notified();
            bed.isp
                .send(&ra("fe80::1:1").pref64(&prefix, 600).rdnss("2001:db8::53", 600));
            let expected = [&*format!("{prefix}/96 fe80::1:1"), "2001:db8::53 fe80::1:1"];
            let time = bed.until_known("up0", &expected).await;
            assert!(time < Duration::from_secs(2), "it took {time:?}");
            assert_eq!(bed.notified(), before + 1);
            let state = bed.watch.state("up0");
            assert!(state.heard && state.problem.is_none(), "{state:?}");
            let left = state.pref64s[0].lifetime_s.unwrap();
            assert!((595..=600).contains(&left), "{left} s left");
            // A renewal is no change.
            bed.isp.send(&ra("fe80::1:1").pref64(&prefix, 600));
            bed.isp
                .send(&ra("fe80::1:1").pref64(&prefix, 0).rdnss("2001:db8::53", 0));
            bed.until_known("up0", &[]).await;
            assert_eq!(bed.notified(), before + 2);
        }
        bed.watch.unwatch("up0");
        assert_eq!(bed.watch.watched(), [""; 0]);
        bed.isp.send(&ra("fe80::1:1").pref64("64:ff9b::", 600));
        bed.settle().await;
        assert!(!bed.watch.state("up0").heard);
    });
}

#[test]
fn several_routers_and_prefixes_come_in_order() {
    in_namespace(|bed| async move {
        bed.watch.watch("up0");
        bed.until_solicited("up0").await;
        bed.isp
            .send(&ra("fe80::1:1").pref64("2001:db8:1::", 600).pref64("2001:db8:2::", 600));
        bed.isp.send(&ra("fe80::1:2").pref64("2001:db8:1::", 600));
        bed.isp.send(&ra("fe80::1:3").high().pref64("2001:db8:3::", 600));
        bed.isp
            .send(&ra("fe80::1:4").router_lifetime(0).pref64("2001:db8:4::", 600));
        bed.until_known(
            "up0",
            &[
                "2001:db8:3::/96 fe80::1:3",
                "2001:db8:1::/96 fe80::1:1",
                "2001:db8:2::/96 fe80::1:1",
                "2001:db8:1::/96 fe80::1:2",
                "2001:db8:4::/96 fe80::1:4",
            ],
        )
        .await;
        // One prefix of one router is withdrawn, and the preferred router resigns, which withdraws nothing.
        bed.isp.send(&ra("fe80::1:1").pref64("2001:db8:1::", 0));
        bed.isp.send(&ra("fe80::1:3").router_lifetime(0));
        bed.until_known(
            "up0",
            &[
                "2001:db8:2::/96 fe80::1:1",
                "2001:db8:1::/96 fe80::1:2",
                "2001:db8:3::/96 fe80::1:3",
                "2001:db8:4::/96 fe80::1:4",
            ],
        )
        .await;
        let routers = bed.watch.state("up0").routers;
        let lifetimes: Vec<bool> = routers.iter().map(|router| router.lifetime_s.is_some()).collect();
        assert_eq!(lifetimes, [true, true, false, false]);
    });
}

#[test]
fn a_router_that_is_renumbered_takes_its_old_prefix_back() {
    in_namespace(|bed| async move {
        bed.watch.watch("up0");
        bed.until_solicited("up0").await;
        bed.isp
            .send(&ra("fe80::1:1").pref64("2001:db8:1::", 600).rdnss("2001:db8:1::53", 600));
        bed.until_known("up0", &["2001:db8:1::/96 fe80::1:1", "2001:db8:1::53 fe80::1:1"])
            .await;
        let before = bed.notified();
        bed.isp.send(
            &ra("fe80::1:1")
                .pref64("2001:db8:1::", 0)
                .pref64("2001:db8:2::", 600)
                .rdnss("2001:db8:1::53", 0)
                .rdnss("2001:db8:2::53", 600),
        );
        bed.until_known("up0", &["2001:db8:2::/96 fe80::1:1", "2001:db8:2::53 fe80::1:1"])
            .await;
        assert_eq!(bed.notified(), before + 1, "one advertisement is one change");
    });
}

#[test]
fn what_ends_is_forgotten_and_told() {
    in_namespace(|bed| async move {
        bed.watch.watch("up0");
        bed.until_solicited("up0").await;
        bed.isp
            .send(&ra("fe80::1:1").pref64("64:ff9b::", 8).rdnss("2001:db8::53", 2));
        bed.until_known("up0", &["64:ff9b::/96 fe80::1:1", "2001:db8::53 fe80::1:1"])
            .await;
        let before = bed.notified();
        bed.until_known("up0", &["64:ff9b::/96 fe80::1:1"]).await;
        until("the end of the server is told", || {
            (bed.notified() == before + 1).then_some(()).ok_or(bed.notified())
        })
        .await;
        bed.until_known("up0", &[]).await;
        until("the end of the prefix is told", || {
            (bed.notified() == before + 2).then_some(()).ok_or(bed.notified())
        })
        .await;
    });
}

#[test]
fn what_must_be_discarded_is() {
    in_namespace(|bed| async move {
        bed.watch.watch("up0");
        bed.until_solicited("up0").await;
        let good = ra("fe80::1:1").pref64("64:ff9b::", 600);
        bed.isp.send(&good.clone().hop_limit(254));
        bed.isp.send(&good.clone().hop_limit(64));
        bed.isp.send(&ra("2001:db8::1").pref64("64:ff9b::", 600));
        bed.isp.send(&ra("::").pref64("64:ff9b::", 600));
        bed.isp.send(&good.clone().bytes(&[38, 0, 0, 0, 0, 0, 0, 0]));
        bed.isp.send(&good.clone().bytes(&[38, 3, 0, 0, 0, 0, 0, 0]));
        bed.isp.send_packet(&good.corrupted());
        // RFC 6980 section 5.
        good.fragments()
            .iter()
            .for_each(|fragment| bed.isp.send_packet(fragment));
        bed.settle().await;
        let state = bed.watch.state("up0");
        assert!(state.is_empty() && !state.heard, "{state:?}");
        assert_eq!(bed.notified(), 0);
        bed.isp.send(&good);
        bed.until_known("up0", &["64:ff9b::/96 fe80::1:1"]).await;
    });
}

#[test]
fn a_flood_neither_grows_without_bound_nor_deafens() {
    in_namespace(|bed| async move {
        // The kernel remembers each router as a neighbour, and its table of them is shared by all namespaces. A full one makes
        // the tests fail that run beside this one. Routers that it does not use can be flushed.
        sh("echo 0 >/proc/sys/net/ipv6/conf/up0/accept_ra");
        bed.watch.watch("up0");
        bed.until_solicited("up0").await;
        for number in 0..3000u16 {
            let prefix = format!("2001:db8:{number:x}::");
            bed.isp.send(
                &ra(&router(number))
                    .pref64(&prefix, 65_528)
                    .rdnss(&format!("{prefix}53"), 600),
            );
            if number % 50 == 0 {
                sh("ip -6 neigh flush nud all dev up0");
                tokio::task::yield_now().await;
            }
        }
        bed.settle().await;
        bed.isp.send(&ra("fe80::1").high().pref64("64:ff9b::", 600));
        until("the real router comes first", || {
            let known = bed.knows("up0");
            (known.first().is_some_and(|first| first == "64:ff9b::/96 fe80::1"))
                .then_some(())
                .ok_or(known)
        })
        .await;
        let state = bed.watch.state("up0");
        assert_eq!(state.routers.len(), 16);
        assert!(state.pref64s.len() <= 16 && state.rdnss.len() <= 16);
    });
}

#[test]
fn each_device_has_its_own() {
    in_namespace(|bed| async move {
        let other = bed.routers.link("up1", "isp1");
        bed.watch.watch("up0");
        bed.watch.watch("up1");
        bed.until_solicited("up0").await;
        bed.until_solicited("up1").await;
        // The same router address and the same prefix on both is no conflict.
        bed.isp.send(&ra("fe80::1:1").pref64("64:ff9b::", 600));
        other.send(&ra("fe80::1:1").pref64("64:ff9b::", 600).pref64("2001:db8::", 600));
        bed.until_known("up0", &["64:ff9b::/96 fe80::1:1"]).await;
        bed.until_known("up1", &["64:ff9b::/96 fe80::1:1", "2001:db8::/96 fe80::1:1"])
            .await;
        bed.watch.unwatch("up1");
        assert_eq!(bed.knows("up0").len(), 1);
    });
}

/// Runs the next test, which needs a kernel with VRFs.
#[test]
fn devices_in_a_vrf() {
    crate::other_kernel::run_ignored("hearing::in_a_vrf");
}

#[test]
#[ignore = "devices_in_a_vrf runs it"]
fn in_a_vrf() {
    in_namespace(|bed| async move {
        sh("ip link add red type vrf table 100 && ip link set red up && ip link set up0 master red");
        sh(&has_address("up0"));
        bed.watch.watch("up0");
        bed.until_solicited("up0").await;
        bed.isp.send(&ra("fe80::1:1").pref64("64:ff9b::", 600));
        bed.until_known("up0", &["64:ff9b::/96 fe80::1:1"]).await;
    });
}
