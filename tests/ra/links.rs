//! Devices that come and go.

use std::time::Duration;

use crate::bed::{Bed, has_address, in_namespace, sh, until};
use crate::packets::ra;

const KNOWN: [&str; 1] = ["2001:db8:1::/96 fe80::1:1"];

async fn know_something(bed: &Bed) {
    bed.watch.watch("up0");
    bed.until_solicited("up0").await;
    bed.isp.send(&ra("fe80::1:1").pref64("2001:db8:1::", 600));
    bed.until_known("up0", &KNOWN).await;
}

async fn lose_carrier(bed: &Bed) {
    bed.routers.sh("ip link set isp0 down");
    until("the carrier is gone", || {
        (!bed.watch.state("up0").heard).then_some(()).ok_or("it is there")
    })
    .await;
}

#[test]
fn another_link_behind_the_carrier_replaces_what_was_known() {
    in_namespace(|mut bed| async move {
        know_something(&bed).await;
        bed.isp.solicitations();
        lose_carrier(&bed).await;
        assert_eq!(bed.knows("up0"), KNOWN, "it may come back as it was");
        assert_eq!(bed.watch.state("up0").solicited_since, None);
        bed.routers.sh("ip link set isp0 up");
        bed.isp.next_solicitation().await;
        bed.isp.send(&ra("fe80::2:1").pref64("2001:db8:2::", 600));
        // What is said now comes first, and what is not said again goes.
        bed.until_known("up0", &["2001:db8:2::/96 fe80::2:1", KNOWN[0]]).await;
        let before = bed.notified();
        bed.until_known("up0", &["2001:db8:2::/96 fe80::2:1"]).await;
        assert!(bed.notified() > before);
    });
}

#[test]
fn the_same_link_behind_the_carrier_changes_nothing() {
    in_namespace(|bed| async move {
        know_something(&bed).await;
        let before = bed.notified();
        lose_carrier(&bed).await;
        bed.routers.sh("ip link set isp0 up");
        bed.until_solicited("up0").await;
        bed.isp.send(&ra("fe80::1:1").pref64("2001:db8:1::", 600));
        until("the router is heard", || {
            bed.watch.state("up0").heard.then_some(()).ok_or("silence")
        })
        .await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(bed.knows("up0"), KNOWN);
        assert_eq!(bed.notified(), before);
    });
}

/// Both changes of the carrier are there before either is looked at.
#[test]
fn a_carrier_that_comes_back_within_an_instant_raises_the_doubt_too() {
    in_namespace(|bed| async move {
        know_something(&bed).await;
        // This blocks the thread that the listener runs on too; the kernel tells of a lost carrier up to a second late.
        bed.routers
            .sh("ip link set isp0 down; sleep 1.2; ip link set isp0 up; sleep 1.2");
        until("the carrier is doubted", || {
            (!bed.watch.state("up0").heard).then_some(()).ok_or("it is not")
        })
        .await;
        bed.until_solicited("up0").await;
        bed.isp.send(&ra("fe80::2:1").pref64("2001:db8:2::", 600));
        bed.until_known("up0", &["2001:db8:2::/96 fe80::2:1"]).await;
    });
}

#[test]
fn a_device_that_goes_down_takes_all_with_it() {
    in_namespace(|bed| async move {
        know_something(&bed).await;
        let before = bed.notified();
        sh("ip link set up0 down");
        bed.until_known("up0", &[]).await;
        assert_eq!(bed.notified(), before + 1);
        sh(&format!("ip link set up0 up; {}", has_address("up0")));
        bed.until_solicited("up0").await;
        bed.isp.send(&ra("fe80::1:1").pref64("2001:db8:1::", 600));
        bed.until_known("up0", &KNOWN).await;
    });
}

#[test]
fn a_device_that_is_made_anew_is_followed() {
    in_namespace(|bed| async move {
        know_something(&bed).await;
        sh("ip link del up0");
        bed.until_known("up0", &[]).await;
        // Other devices first, so that the index is another one.
        sh("ip link add d0 type veth peer name d1");
        let isp = bed.routers.link("up0", "isp0");
        bed.until_solicited("up0").await;
        isp.send(&ra("fe80::1:1").pref64("2001:db8:1::", 600));
        bed.until_known("up0", &KNOWN).await;
    });
}

#[test]
fn a_device_that_is_renamed_is_another_one() {
    in_namespace(|bed| async move {
        know_something(&bed).await;
        bed.watch.watch("wan0");
        sh("ip link set up0 name wan0");
        bed.until_known("up0", &[]).await;
        // It is the same link, on which the router was overheard.
        bed.until_known("wan0", &KNOWN).await;
        bed.settle().await;
        assert_eq!(bed.knows("up0"), [""; 0]);
    });
}

#[test]
fn a_device_may_come_after_it_is_watched() {
    in_namespace(|bed| async move {
        bed.watch.watch("up1");
        bed.settle().await;
        let isp = bed.routers.link("up1", "isp1");
        bed.until_solicited("up1").await;
        isp.send(&ra("fe80::1:1").pref64("2001:db8:1::", 600));
        bed.until_known("up1", &KNOWN).await;
    });
}
