//! What becomes of a lease: prolonged, moved, lost, kept over a restart, given back.

use std::time::Duration;

use super::tests_client::{Talk, given, of, prefix, refused, seconds};
use super::*;

#[test]
fn renew_then_rebind_then_the_end() {
    let mut talk = Talk::bound();
    let obtained = talk.now;
    talk.tick();
    assert_eq!(
        (talk.now, talk.last().kind),
        (obtained + seconds(1000), MessageType::Renew)
    );
    assert!(talk.last().options.contains(&DhcpOption::ServerId(Talk::server())));
    talk.until(Phase::Rebinding);
    assert_eq!(
        (talk.now, talk.last().kind),
        (obtained + seconds(2000), MessageType::Rebind)
    );
    assert!(
        !talk
            .last()
            .options
            .iter()
            .any(|option| matches!(option, DhcpOption::ServerId(_)))
    );
    talk.until(Phase::Soliciting);
    assert_eq!(talk.now, obtained + seconds(4000));
    assert_eq!(talk.client.lease(), None);
    assert!(talk.client.problem().unwrap().contains("ended"));
}

#[test]
fn the_client_chooses_times_that_the_server_leaves_to_it() {
    let t = |preferred, valid, t1, t2| {
        let mut talk = Talk::requesting();
        let ia = of(vec![prefix(5, 64, preferred, valid)], t1, t2);
        talk.say(MessageType::Reply, &Talk::server(), ia, None);
        let lease = talk.client.lease().unwrap();
        (lease.t1_s, lease.t2_s)
    };
    assert_eq!(t(1000, 4000, 0, 0), (500, 800));
    assert_eq!(t(1000, 4000, 300, 0), (300, 800));
    assert_eq!(t(1000, 4000, 900, 0), (900, 900));
    assert_eq!(t(1000, 4000, 0, 400), (400, 400));
    assert_eq!(t(1000, 4000, 0, 900), (500, 900));
    assert_eq!(t(0, 4000, 0, 0), (2000, 3200));
    assert_eq!(t(1, 1, 0, 0), (1, 1));
    assert_eq!(t(u32::MAX, u32::MAX, 0, 0), (u32::MAX, u32::MAX));
}

#[test]
fn a_lease_for_ever_waits_for_nothing() {
    let mut talk = Talk::requesting();
    let ia = of(vec![prefix(5, 64, u32::MAX, u32::MAX)], u32::MAX, u32::MAX);
    talk.say(MessageType::Reply, &Talk::server(), ia, None);
    assert_eq!((talk.client.phase(), talk.timer), (Phase::Bound, None));
}

#[test]
fn a_renewed_lease_lasts_longer() {
    let mut talk = Talk::bound();
    talk.until(Phase::Renewing);
    // Another server answers: not what was asked.
    talk.say(
        MessageType::Reply,
        &Duid::from_machine(b"other"),
        given(1000, 2000),
        None,
    );
    assert_eq!(talk.client.phase(), Phase::Renewing);
    let out = talk.say(MessageType::Reply, &Talk::server(), given(1000, 2000), None);
    assert!(out.lease_changed && talk.client.phase() == Phase::Bound);
    assert_eq!(talk.timer, Some(talk.now + seconds(1000)));
    assert_eq!(talk.client.lease().unwrap().prefixes[0].valid_left(talk.now), 4000);
}

#[test]
fn a_server_that_knows_nothing_of_the_lease_is_asked_for_it() {
    let mut talk = Talk::bound();
    talk.until(Phase::Renewing);
    talk.say(
        MessageType::Reply,
        &Talk::server(),
        refused(StatusCode::NO_BINDING),
        None,
    );
    assert_eq!(talk.last().kind, MessageType::Request);
    assert!(
        talk.last()
            .options
            .contains(&DhcpOption::IaPd(of(vec![prefix(5, 64, 0, 0)], 0, 0)))
    );
    assert_eq!(talk.prefixes(), ["2001:db8:0:5::/64"], "it is kept until the answer");
    let other = of(vec![prefix(6, 64, 3000, 4000)], 0, 0);
    talk.say(MessageType::Reply, &Talk::server(), other, None);
    assert_eq!(talk.prefixes(), ["2001:db8:0:6::/64"]);
}

#[test]
fn a_server_that_will_not_give_the_lease_again_ends_it() {
    let mut talk = Talk::bound();
    talk.until(Phase::Renewing);
    talk.say(
        MessageType::Reply,
        &Talk::server(),
        refused(StatusCode::NO_BINDING),
        None,
    );
    let out = talk.say(
        MessageType::Reply,
        &Talk::server(),
        refused(StatusCode::NO_PREFIX_AVAIL),
        None,
    );
    assert!(out.lease_changed && talk.client.lease().is_none());
    assert_eq!(talk.client.phase(), Phase::Soliciting);
}

#[test]
fn renumbering_moves_to_the_new_prefix() {
    // At once where the old one is withdrawn ...
    let mut talk = Talk::bound();
    talk.until(Phase::Renewing);
    let both = of(vec![prefix(5, 64, 0, 0), prefix(6, 64, 3000, 4000)], 0, 0);
    talk.say(MessageType::Reply, &Talk::server(), both, None);
    assert_eq!(talk.prefixes(), ["2001:db8:0:6::/64"]);
    // ... also where it is only deprecated or not mentioned, and then it is still prolonged.
    for old in [vec![prefix(5, 64, 0, 4000)], vec![]] {
        let mut talk = Talk::bound();
        talk.until(Phase::Renewing);
        let both = of(old.into_iter().chain([prefix(6, 64, 3000, 4000)]).collect(), 0, 0);
        talk.say(MessageType::Reply, &Talk::server(), both, None);
        assert_eq!(talk.prefixes(), ["2001:db8:0:6::/64", "2001:db8:0:5::/64"]);
    }
    // Of two that are as good the one in use stays.
    let mut talk = Talk::bound();
    talk.until(Phase::Renewing);
    let both = of(vec![prefix(4, 64, 3000, 4000), prefix(5, 64, 3000, 4000)], 0, 0);
    talk.say(MessageType::Reply, &Talk::server(), both, None);
    assert_eq!(talk.prefixes(), ["2001:db8:0:5::/64", "2001:db8:0:4::/64"]);
}

#[test]
fn a_prefix_that_is_taken_back_is_lost() {
    let mut talk = Talk::bound();
    talk.until(Phase::Renewing);
    let out = talk.say(
        MessageType::Reply,
        &Talk::server(),
        of(vec![prefix(5, 64, 0, 0)], 0, 0),
        None,
    );
    assert!(out.lease_changed && talk.client.lease().is_none());
    assert_eq!(talk.client.phase(), Phase::Soliciting);
}

#[test]
fn a_kept_lease_is_confirmed_by_rebind_or_kept_on() {
    let mut talk = Talk::with_kept_lease();
    assert_eq!(talk.kinds(), [MessageType::Rebind]);
    assert_eq!(talk.prefixes(), ["2001:db8:0:5::/64"], "it serves meanwhile");
    talk.say(
        MessageType::Reply,
        &Duid::from_machine(b"other"),
        given(1000, 2000),
        None,
    );
    assert_eq!((talk.client.phase(), talk.kinds().len()), (Phase::Bound, 1));

    let mut talk = Talk::with_kept_lease();
    let begun = talk.now;
    talk.until(Phase::Bound);
    assert_eq!(talk.now, begun + seconds(10));
    assert!((3..=6).contains(&talk.kinds().len()), "{:?}", talk.kinds());
    talk.tick();
    assert_eq!(talk.last().kind, MessageType::Renew);
}

#[test]
fn a_kept_lease_that_cannot_be_is_none() {
    let lease = || Talk::bound().client.lease().cloned().unwrap();
    let later = |by| lease().obtained + seconds(by);
    let start = |lease: Lease, now| {
        let mut talk = Talk::new();
        talk.now = now;
        talk.handle(ClientInput::Start(Some(lease)));
        talk.client.phase()
    };
    assert_eq!(start(lease(), later(3999)), Phase::Confirming);
    assert_eq!(start(lease(), later(4000)), Phase::Soliciting, "over");
    assert_eq!(start(lease(), Duration::ZERO), Phase::Soliciting, "from the future");
    let other = Lease { iaid: 1, ..lease() };
    assert_eq!(start(other, later(1)), Phase::Soliciting, "of another uplink");
    let none = Lease {
        prefixes: vec![],
        ..lease()
    };
    assert_eq!(start(none, later(1)), Phase::Soliciting, "of nothing");
    let mut multicast = lease();
    multicast.prefixes[0].prefix = "ff02::/64".parse().unwrap();
    assert_eq!(
        start(multicast, later(1)),
        Phase::Soliciting,
        "of what is no unicast prefix"
    );
}

#[test]
fn another_link_is_asked_anew() {
    let mut talk = Talk::begun();
    for _ in 0..8 {
        talk.tick();
    }
    talk.handle(ClientInput::Relinked);
    assert!(talk.timer.unwrap() - talk.now <= seconds(2));
    let mut talk = Talk::bound();
    talk.handle(ClientInput::Relinked);
    assert_eq!(
        (talk.client.phase(), talk.last().kind),
        (Phase::Confirming, MessageType::Rebind)
    );
}

#[test]
fn a_release_is_short() {
    let mut talk = Talk::bound();
    let begun = talk.now;
    let out = talk.handle(ClientInput::Stop);
    assert!(out.lease_changed && talk.client.lease().is_none());
    assert_eq!(talk.last().kind, MessageType::Release);
    assert!(
        talk.last()
            .options
            .contains(&DhcpOption::IaPd(of(vec![prefix(5, 64, 0, 0)], 0, 0)))
    );
    assert!(talk.last().options.contains(&DhcpOption::ServerId(Talk::server())));
    talk.until(Phase::Ended);
    assert_eq!((talk.now - begun, talk.timer), (seconds(1), None));
    assert_eq!(
        talk.kinds()
            .iter()
            .filter(|kind| **kind == MessageType::Release)
            .count(),
        2
    );

    let mut talk = Talk::bound();
    talk.handle(ClientInput::Stop);
    talk.say(
        MessageType::Reply,
        &Talk::server(),
        refused(StatusCode::NO_BINDING),
        None,
    );
    assert_eq!(talk.client.phase(), Phase::Ended);

    for mut talk in [Talk::new(), Talk::begun(), Talk::requesting()] {
        assert_eq!(talk.handle(ClientInput::Stop).send.len(), 0);
        assert_eq!((talk.client.phase(), talk.timer), (Phase::Ended, None));
        assert_eq!(talk.handle(ClientInput::Relinked), ClientActions::default());
    }
}
