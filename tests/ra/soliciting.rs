//! When routers are asked to speak, and what an observation waits for.

use std::time::{Duration, Instant};

use crate::bed::{in_namespace, sh, shown, until};
use crate::packets::ra;

#[test]
fn routers_are_asked_three_times_until_a_default_router_speaks() {
    in_namespace(|mut bed| async move {
        bed.isp.solicitations();
        let begun = Instant::now();
        bed.watch.watch("up0");
        let first = bed.isp.next_solicitation().await;
        assert!(begun.elapsed() < Duration::from_secs(1), "the first comes at once");
        // Source link-layer address (RFC 4861 section 4.6.1).
        let address = sh("ip -o link show up0 | sed 's/.*ether \\([^ ]*\\).*/\\1/; s/://g'");
        let option: String = first[8..].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((first.len(), option), (16, format!("0101{}", address.trim())));
        // An advertisement with router lifetime 0 does not end the solicitations (RFC 4861 section 6.3.7).
        bed.isp
            .send(&ra("fe80::1:1").router_lifetime(0).pref64("64:ff9b::", 600));
        bed.until_known("up0", &["64:ff9b::/96 fe80::1:1"]).await;
        bed.isp.next_solicitation().await;
        let second = begun.elapsed();
        assert!(second > Duration::from_secs(3), "the second came after {second:?}");
        bed.isp.send(&ra("fe80::1:2"));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(bed.isp.solicitations().len(), 0);
    });
}

/// A device becomes an uplink by the advertisement that tells of the prefix.
#[test]
fn what_was_said_before_the_device_was_watched_counts() {
    in_namespace(|mut bed| async move {
        bed.isp.send(&ra("fe80::1:1").pref64("64:ff9b::", 600));
        bed.isp.send(&ra("fe80::1:2").pref64("2001:db8:1::", 600));
        bed.settle().await;
        bed.isp.solicitations();
        bed.watch.watch("up0");
        let state = bed.watch.wait_first("up0", Duration::from_secs(60)).await;
        assert_eq!(shown(&state), ["64:ff9b::/96 fe80::1:1", "2001:db8:1::/96 fe80::1:2"]);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(bed.isp.solicitations().len(), 0, "there is nothing to ask for");
        // Withdrawn later, heard by the device's own socket.
        bed.isp.send(&ra("fe80::1:1").pref64("64:ff9b::", 0));
        bed.until_known("up0", &["2001:db8:1::/96 fe80::1:2"]).await;
    });
}

#[test]
fn what_was_said_before_the_carrier_went_does_not_count() {
    in_namespace(|bed| async move {
        bed.isp.send(&ra("fe80::1:1").pref64("64:ff9b::", 600));
        bed.settle().await;
        bed.routers
            .sh("ip link set isp0 down; sleep 1.2; ip link set isp0 up; sleep 1.2");
        bed.watch.watch("up0");
        bed.until_solicited("up0").await;
        assert_eq!(bed.knows("up0"), [""; 0]);
    });
}

#[test]
fn a_silent_link_is_asked_three_times() {
    in_namespace(|mut bed| async move {
        bed.isp.solicitations();
        bed.watch.watch("up0");
        tokio::time::sleep(Duration::from_secs(13)).await;
        assert_eq!(bed.isp.solicitations().len(), 3);
    });
}

#[test]
fn a_tentative_address_only_delays() {
    in_namespace(|mut bed| async move {
        sh(
            "ip link set up0 down; cd /proc/sys/net/ipv6/conf; echo 1 >up0/accept_dad; echo 1 >up0/dad_transmits
            ip link set up0 up",
        );
        bed.isp.solicitations();
        bed.watch.watch("up0");
        bed.isp.next_solicitation().await;
        bed.isp.send(&ra("fe80::1:1").pref64("64:ff9b::", 600));
        bed.until_known("up0", &["64:ff9b::/96 fe80::1:1"]).await;
    });
}

#[test]
fn the_first_observation_waits_for_the_first_advertisement() {
    in_namespace(|bed| async move {
        let long = Duration::from_secs(60);
        assert!(
            bed.watch.wait_first("up0", long).await.is_empty(),
            "not watched: nothing to wait for"
        );
        bed.watch.watch("up0");
        let begun = Instant::now();
        let (state, ()) = tokio::join!(bed.watch.wait_first("up0", long), async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            bed.isp.send(&ra("fe80::1:1").pref64("64:ff9b::", 600));
        });
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "it took {:?}",
            begun.elapsed()
        );
        assert_eq!(shown(&state), ["64:ff9b::/96 fe80::1:1"]);
        assert_eq!(shown(&bed.watch.wait_first("up0", long).await), shown(&state));
    });
}

#[test]
fn only_the_first_observation_of_a_silent_link_waits() {
    in_namespace(|bed| async move {
        bed.watch.watch("up0");
        let begun = Instant::now();
        assert!(!bed.watch.wait_first("up0", Duration::from_secs(2)).await.heard);
        assert!(
            begun.elapsed() >= Duration::from_millis(1500),
            "it took {:?}",
            begun.elapsed()
        );
        let begun = Instant::now();
        assert!(!bed.watch.wait_first("up0", Duration::from_secs(2)).await.heard);
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "it took {:?}",
            begun.elapsed()
        );
    });
}

#[test]
fn nothing_is_waited_for_that_cannot_come() {
    in_namespace(|bed| async move {
        bed.routers.sh("ip link set isp0 down");
        let long = Duration::from_secs(60);
        for device in ["up0", "no-such-device", "a-name-that-no-device-can-have", ""] {
            bed.watch.watch(device);
            let waited = tokio::time::timeout(Duration::from_secs(10), bed.watch.wait_first(device, long)).await;
            let state = waited.unwrap_or_else(|_| panic!("{device}: waited"));
            assert!(
                state.is_empty() && !state.heard && state.problem.is_none(),
                "{device}: {state:?}"
            );
        }
    });
}

#[test]
fn without_ipv6_the_problem_is_told_until_it_is_over() {
    in_namespace(|bed| async move {
        sh("ip link set up0 mtu 1000");
        bed.watch.watch("up0");
        until("the problem is told", || {
            let problem = bed.watch.state("up0").problem.ok_or("none")?;
            assert_eq!(problem.to_string(), "opening a socket for router advertisements on up0");
            assert!(problem.hint.is_some_and(|hint| hint.contains("IPv6")), "{problem:?}");
            Ok::<_, &str>(())
        })
        .await;
        sh("ip link set up0 mtu 1500");
        bed.until_solicited("up0").await;
        assert!(bed.watch.state("up0").problem.is_none());
        bed.isp.send(&ra("fe80::1:1").pref64("64:ff9b::", 600));
        bed.until_known("up0", &["64:ff9b::/96 fe80::1:1"]).await;
    });
}

#[test]
fn without_the_capability_the_problem_is_told() {
    in_namespace(|bed| async move {
        drop_net_raw();
        bed.watch.watch("up0");
        let state = bed.watch.wait_first("up0", Duration::from_secs(60)).await;
        let problem = state.problem.unwrap();
        assert_eq!(
            clatd::report::chain(&*problem),
            "opening a socket for router advertisements on up0: Operation not permitted (os error 1)"
        );
        assert_eq!(problem.hint, Some("clatd needs CAP_NET_RAW to hear them"));
    });
}

/// Takes CAP_NET_RAW from this thread alone.
fn drop_net_raw() {
    caps::drop(None, caps::CapSet::Effective, caps::Capability::CAP_NET_RAW).unwrap();
    caps::drop(None, caps::CapSet::Permitted, caps::Capability::CAP_NET_RAW).unwrap();
}
