//! Leases from Kea.

use std::time::{Duration, Instant};

use clatd::dhcp6::{self, PdState, choose_address};

use super::bed::{in_namespaces, wait_until};
use super::kea::{Kea, Serve};

#[test]
fn a_prefix_is_obtained_and_kept_and_given_back() {
    in_namespaces(|bed| async move {
        let kea = Kea::start(&bed, &Serve::default());
        let asking = bed.ask();
        let begun = Instant::now();
        let lease = asking.lease(5).await;
        // The pause before the first Solicit, and the wait for better offers (RFC 8415 section 18.2.1).
        assert!(begun.elapsed() < Duration::from_millis(1600), "{:?}", begun.elapsed());
        assert!(
            "2001:db8:100::/48"
                .parse::<ipnet::Ipv6Net>()
                .unwrap()
                .contains(&lease.prefix)
        );
        assert_eq!(lease.prefix.prefix_len(), 64);
        assert!((2995..=3000).contains(&lease.preferred_s) && (3995..=4000).contains(&lease.valid_s));
        assert!(lease.server.contains("aa:01"), "{}", lease.server);
        assert_eq!(asking.client.state().last_error, None);
        assert!(asking.notified() >= 1);
        assert!(lease.prefix.contains(&choose_address(lease.prefix, 7)));

        wait_until("the lease at Kea", || kea.leases() == [lease.prefix.to_string()]);
        assert!(bed.kept().unwrap().contains(&lease.prefix.to_string()));
        assert_eq!(dhcp6::kept("up0", bed.path()).unwrap().prefix, lease.prefix);

        let begun = Instant::now();
        asking.client.release().await;
        assert!(begun.elapsed() < Duration::from_millis(1200), "{:?}", begun.elapsed());
        wait_until("the lease gone at Kea", || kea.leases().is_empty());
        assert_eq!(bed.kept(), None);
        assert_eq!(dhcp6::kept("up0", bed.path()), None);
    });
}

#[test]
fn rapid_commit_spares_the_wait() {
    in_namespaces(|bed| async move {
        let _kea = Kea::start(
            &bed,
            &Serve {
                rapid_commit: true,
                ..Serve::default()
            },
        );
        let begun = Instant::now();
        bed.ask().lease(5).await;
        assert!(begun.elapsed() < Duration::from_millis(600), "{:?}", begun.elapsed());
    });
}

#[test]
fn a_larger_prefix_is_taken() {
    in_namespaces(|bed| async move {
        let _kea = Kea::start(
            &bed,
            &Serve {
                pool: Some(("2001:db8:1000::", 48, 60)),
                ..Serve::default()
            },
        );
        let lease = bed.ask().lease(5).await;
        assert_eq!(lease.prefix.prefix_len(), 60);
        let first = ipnet::Ipv6Net::new(lease.prefix.addr(), 64).unwrap();
        assert!(first.contains(&choose_address(lease.prefix, 1)));
    });
}

#[test]
fn the_lease_is_renewed() {
    in_namespaces(|bed| async move {
        let kea = Kea::start(
            &bed,
            &Serve {
                times: [2, 4, 6, 8],
                ..Serve::default()
            },
        );
        let asking = bed.ask();
        let lease = asking.lease(5).await;
        let notified = asking.notified();
        // Longer than it would be valid.
        for _ in 0..90 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = asking.client.state().lease.expect("the lease was lost");
            assert_eq!(now.prefix, lease.prefix);
        }
        assert!(kea.logged("received message of type 5") + kea.logged("RENEW") >= 3);
        assert!(asking.notified() >= notified + 3, "{}", asking.notified());
    });
}

#[test]
fn another_server_takes_over_by_rebind() {
    in_namespaces(|bed| async move {
        let times = [2, 4, 20, 30];
        let first = Kea::start(
            &bed,
            &Serve {
                times,
                ..Serve::default()
            },
        );
        let asking = bed.ask();
        let lease = asking.lease(5).await;
        first.stop();
        let second = Kea::start(
            &bed,
            &Serve {
                server: "BB02",
                times,
                ..Serve::default()
            },
        );
        let state = asking
            .until("the second server", 10, |state| {
                let server = state.lease.as_ref().map(|lease| lease.server.as_str());
                server.expect("the lease was lost").contains("bb:02")
            })
            .await;
        assert_eq!(state.lease.unwrap().prefix, lease.prefix);
        assert!(second.logged("REBIND") >= 1);
    });
}

#[test]
fn a_kept_lease_is_taken_up_again_by_rebind() {
    in_namespaces(|bed| async move {
        let kea = Kea::start(&bed, &Serve::default());
        let asking = bed.ask();
        let lease = asking.lease(5).await;
        // As when the daemon is killed.
        drop(asking);
        let solicited = kea.logged("SOLICIT");

        let asking = bed.ask();
        // At once, not only when the server has answered.
        let again = asking.lease(1).await;
        assert_eq!(again.prefix, lease.prefix);
        asking
            .until("the answer", 5, |state| {
                state.phase == clatd_stages::dhcp6::Phase::Bound
            })
            .await;
        assert!(kea.logged("REBIND") >= 1);
        assert_eq!(kea.logged("SOLICIT"), solicited, "it began anew");
        asking.client.release().await;
        wait_until("the lease gone at Kea", || kea.leases().is_empty());
    });
}

#[test]
fn a_kept_lease_serves_while_no_server_answers() {
    in_namespaces(|bed| async move {
        let kea = Kea::start(&bed, &Serve::default());
        let lease = bed.ask().lease(5).await;
        kea.stop();
        let asking = bed.ask();
        assert_eq!(asking.lease(1).await.prefix, lease.prefix);
        asking
            .until("the end of the waiting", 12, |state| {
                assert!(state.lease.is_some());
                state.phase == clatd_stages::dhcp6::Phase::Bound
            })
            .await;
        let begun = Instant::now();
        asking.client.release().await;
        assert!(begun.elapsed() < Duration::from_millis(1300), "{:?}", begun.elapsed());
    });
}

#[test]
fn a_lease_that_nobody_prolongs_ends() {
    in_namespaces(|bed| async move {
        let kea = Kea::start(
            &bed,
            &Serve {
                times: [1, 2, 3, 4],
                ..Serve::default()
            },
        );
        let asking = bed.ask();
        asking.lease(5).await;
        kea.stop();
        // The lifetime ends by the clock, the client says so when it has looked at that.
        let over = |state: &PdState| state.lease.is_none() && state.last_error.is_some();
        let state = asking.until("the end", 8, over).await;
        assert!(state.last_error.unwrap().contains("prolonged"));
        assert_eq!(bed.kept(), None);
        // And another server is found.
        let _kea = Kea::start(
            &bed,
            &Serve {
                server: "BB02",
                ..Serve::default()
            },
        );
        assert!(asking.lease(10).await.server.contains("bb:02"));
    });
}

#[test]
fn renumbering_leads_to_the_new_prefix() {
    in_namespaces(|bed| async move {
        let times = [2, 4, 20, 30];
        let kea = Kea::start(
            &bed,
            &Serve {
                times,
                ..Serve::default()
            },
        );
        let asking = bed.ask();
        let old = asking.lease(5).await.prefix;
        kea.stop();
        // The same server, with the same leases, and another pool.
        let _kea = Kea::start(
            &bed,
            &Serve {
                times,
                pool: Some(("2001:db8:200::", 48, 64)),
                ..Serve::default()
            },
        );
        let state = asking
            .until("the new prefix", 10, |state| {
                state.lease.as_ref().expect("no prefix meanwhile").prefix != old
            })
            .await;
        assert!(state.lease.unwrap().prefix.to_string().starts_with("2001:db8:200:"));
    });
}
