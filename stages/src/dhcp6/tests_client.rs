//! The exchanges, with a clock and a server of the test's.

use std::time::Duration;

use ipnet::Ipv6Net;

use super::*;

/// A client and its clock.
pub(super) struct Talk {
    pub(super) client: Client,
    pub(super) now: Duration,
    pub(super) timer: Option<Duration>,
    sent: Vec<Message>,
}

impl Talk {
    pub(super) const IAID: u32 = 0x0a0b_0c0d;

    pub(super) fn duid() -> Duid {
        Duid::from_machine(b"client")
    }

    pub(super) fn server() -> Duid {
        Duid::from_machine(b"server")
    }

    fn new() -> Self {
        Self {
            client: Client::new(Config {
                duid: Self::duid(),
                iaid: Self::IAID,
                seed: 42,
                first_delay: Duration::from_secs(1),
            }),
            now: Duration::from_secs(100),
            timer: None,
            sent: Vec::new(),
        }
    }

    /// Its first Solicit is out.
    pub(super) fn begun() -> Self {
        let mut talk = Self::new();
        assert_eq!(talk.handle(Event::Start(None)).send.len(), 0);
        assert!(talk.timer.unwrap() <= talk.now + Duration::from_secs(1));
        talk.tick();
        talk
    }

    pub(super) fn requesting() -> Self {
        let mut talk = Self::begun();
        talk.say(MessageType::Advertise, &Self::server(), given(1000, 2000), Some(255));
        assert_eq!(talk.client.phase(), Phase::Requesting);
        talk
    }

    pub(super) fn bound() -> Self {
        let mut talk = Self::requesting();
        talk.say(MessageType::Reply, &Self::server(), given(1000, 2000), None);
        assert_eq!(talk.client.phase(), Phase::Bound);
        talk
    }

    pub(super) fn with_kept_lease() -> Self {
        let lease = Self::bound().client.lease().cloned();
        let mut talk = Self::new();
        talk.now += Duration::from_secs(500);
        assert!(talk.handle(Event::Start(lease)).lease_changed);
        talk
    }

    pub(super) fn handle(&mut self, event: Event<'_>) -> Output {
        let out = self.client.handle(self.now, event);
        self.timer = out.timer;
        self.sent
            .extend(out.send.iter().map(|octets| Message::decode(octets).unwrap()));
        out
    }

    /// Goes on to the client's timer.
    pub(super) fn tick(&mut self) -> Output {
        self.now = self.timer.expect("it waits for nothing");
        self.handle(Event::Timer)
    }

    pub(super) fn until(&mut self, phase: Phase) {
        for _ in 0..1000 {
            if self.client.phase() == phase {
                return;
            }
            self.tick();
        }
        panic!("{:?} does not become {phase:?}", self.client.phase());
    }

    pub(super) fn transaction(&self) -> u32 {
        self.last().transaction
    }

    fn last(&self) -> &Message {
        self.sent.last().expect("nothing was sent")
    }

    fn kinds(&self) -> Vec<MessageType> {
        self.sent.iter().map(|message| message.kind).collect()
    }

    fn say(&mut self, kind: MessageType, server: &Duid, ia: IaPd, preference: Option<u8>) -> Output {
        self.say_with(kind, server, ia, preference.map(DhcpOption::Preference))
    }

    fn say_with(&mut self, kind: MessageType, server: &Duid, ia: IaPd, option: Option<DhcpOption>) -> Output {
        let options = [
            DhcpOption::ClientId(Self::duid()),
            DhcpOption::ServerId(server.clone()),
            DhcpOption::IaPd(ia),
        ];
        let message = Message {
            kind,
            transaction: self.transaction(),
            options: options.into_iter().chain(option).collect(),
        };
        self.handle(Event::Received(&message.encode()))
    }

    fn prefixes(&self) -> Vec<String> {
        let lease = self.client.lease();
        let prefixes = lease.iter().flat_map(|lease| &lease.prefixes);
        prefixes.map(|prefix| prefix.prefix.to_string()).collect()
    }
}

pub(super) fn prefix(bits: u32, length: u8, preferred: u32, valid: u32) -> IaPrefix {
    let address = 0x2001_0db8_u128 << 96 | u128::from(bits) << 64;
    IaPrefix {
        preferred,
        valid,
        prefix: Ipv6Net::new(address.into(), length).unwrap().trunc(),
        status: None,
    }
}

fn of(prefixes: Vec<IaPrefix>, t1: u32, t2: u32) -> IaPd {
    IaPd {
        iaid: Talk::IAID,
        t1,
        t2,
        prefixes,
        status: None,
    }
}

fn given(t1: u32, t2: u32) -> IaPd {
    of(vec![prefix(5, 64, 3000, 4000)], t1, t2)
}

fn refused(code: StatusCode) -> IaPd {
    let message = "no".into();
    IaPd {
        status: Some(Status { code, message }),
        ..of(vec![], 0, 0)
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn what_a_solicit_says() {
    let talk = Talk::begun();
    let solicit = talk.last();
    assert_eq!(solicit.kind, MessageType::Solicit);
    let hint = IaPrefix {
        preferred: 0,
        valid: 0,
        prefix: "::/64".parse().unwrap(),
        status: None,
    };
    assert_eq!(
        solicit.options,
        [
            DhcpOption::ClientId(Talk::duid()),
            DhcpOption::ElapsedTime(0),
            DhcpOption::OptionRequest(vec![82]),
            DhcpOption::RapidCommit,
            DhcpOption::IaPd(of(vec![hint], 0, 0)),
        ]
    );
}

#[test]
fn advertisements_are_collected_and_the_preferred_server_is_asked() {
    let mut talk = Talk::begun();
    let [low, high] = [Duid::from_machine(b"low"), Duid::from_machine(b"high")];
    for (server, preference) in [(&low, None), (&high, Some(7))] {
        assert_eq!(
            talk.say(MessageType::Advertise, server, given(0, 0), preference)
                .send
                .len(),
            0
        );
    }
    talk.tick();
    assert_eq!(talk.last().kind, MessageType::Request);
    assert!(talk.last().options.contains(&DhcpOption::ServerId(high.clone())));
    assert!(
        talk.last()
            .options
            .contains(&DhcpOption::IaPd(of(vec![prefix(5, 64, 0, 0)], 0, 0)))
    );
    // The other server has nothing to say in this.
    talk.say(MessageType::Reply, &low, given(0, 0), None);
    assert_eq!(talk.client.phase(), Phase::Requesting);
    // The one that was asked has changed its mind: the next one.
    talk.say(MessageType::Reply, &high, refused(StatusCode::NO_PREFIX_AVAIL), None);
    assert!(talk.last().options.contains(&DhcpOption::ServerId(low.clone())));
    talk.say(MessageType::Reply, &low, given(0, 0), None);
    assert_eq!(talk.client.phase(), Phase::Bound);
    assert_eq!(talk.client.problem(), None);
}

#[test]
fn a_late_advertisement_is_taken_at_once() {
    let mut talk = Talk::begun();
    talk.tick();
    assert_eq!(talk.kinds(), [MessageType::Solicit; 2]);
    talk.say(MessageType::Advertise, &Talk::server(), given(0, 0), None);
    assert_eq!(talk.last().kind, MessageType::Request);
}

#[test]
fn solicits_go_on_for_ever_and_say_for_how_long() {
    let mut talk = Talk::begun();
    let mut elapsed = Vec::new();
    for _ in 0..20 {
        talk.tick();
        elapsed.extend(talk.last().options.iter().find_map(|option| match option {
            DhcpOption::ElapsedTime(time) => Some(*time),
            _ => None,
        }));
    }
    assert!(elapsed.is_sorted() && elapsed[19] == u16::MAX);
    assert_eq!(talk.sent.len(), 21);
    assert!(talk.timer.unwrap() - talk.now <= seconds(3960));
    assert_eq!(talk.client.problem(), Some("no DHCPv6 server answers our Solicit"));
}

#[test]
fn a_server_may_set_the_longest_pause_even_where_it_has_no_prefix() {
    let mut talk = Talk::begun();
    for (offered, longest) in [(59, 3960), (86_401, 3960), (60, 66)] {
        let none = refused(StatusCode::NO_PREFIX_AVAIL);
        talk.say_with(
            MessageType::Advertise,
            &Talk::server(),
            none,
            Some(DhcpOption::SolMaxRt(offered)),
        );
        assert!(
            talk.client
                .problem()
                .unwrap()
                .ends_with("offers no prefix: NoPrefixAvail (no)")
        );
        for _ in 0..15 {
            talk.tick();
        }
        assert!(talk.timer.unwrap() - talk.now <= seconds(longest));
    }
    assert!(talk.kinds().iter().all(|kind| *kind == MessageType::Solicit));
}

#[test]
fn rapid_commit_needs_its_option() {
    let mut talk = Talk::begun();
    talk.say(MessageType::Reply, &Talk::server(), given(0, 0), None);
    assert_eq!(talk.client.phase(), Phase::Soliciting);
    let out = talk.say_with(
        MessageType::Reply,
        &Talk::server(),
        given(0, 0),
        Some(DhcpOption::RapidCommit),
    );
    assert!(out.lease_changed && talk.client.phase() == Phase::Bound);
}

#[test]
fn requests_end_after_ten() {
    let mut talk = Talk::requesting();
    talk.until(Phase::Soliciting);
    let requests = talk
        .kinds()
        .iter()
        .filter(|kind| **kind == MessageType::Request)
        .count();
    assert_eq!(requests, 10);
}

#[test]
fn refusals_make_it_ask_ever_later() {
    let mut talk = Talk::begun();
    let mut pauses = Vec::new();
    for _ in 0..10 {
        talk.say(MessageType::Advertise, &Talk::server(), given(0, 0), Some(255));
        talk.say(
            MessageType::Reply,
            &Talk::server(),
            refused(StatusCode::NO_PREFIX_AVAIL),
            None,
        );
        let begun = talk.now;
        talk.tick();
        assert_eq!(talk.last().kind, MessageType::Solicit);
        pauses.push(talk.now - begun);
    }
    assert!(
        pauses[0] <= seconds(1) && pauses[9] >= seconds(60) && pauses[9] <= seconds(120),
        "{pauses:?}"
    );
}

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
        talk.handle(Event::Start(Some(lease)));
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
    talk.handle(Event::Relinked);
    assert!(talk.timer.unwrap() - talk.now <= seconds(2));
    let mut talk = Talk::bound();
    talk.handle(Event::Relinked);
    assert_eq!(
        (talk.client.phase(), talk.last().kind),
        (Phase::Confirming, MessageType::Rebind)
    );
}

#[test]
fn a_release_is_short() {
    let mut talk = Talk::bound();
    let begun = talk.now;
    let out = talk.handle(Event::Stop);
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
    talk.handle(Event::Stop);
    talk.say(
        MessageType::Reply,
        &Talk::server(),
        refused(StatusCode::NO_BINDING),
        None,
    );
    assert_eq!(talk.client.phase(), Phase::Ended);

    for mut talk in [Talk::new(), Talk::begun(), Talk::requesting()] {
        assert_eq!(talk.handle(Event::Stop).send.len(), 0);
        assert_eq!((talk.client.phase(), talk.timer), (Phase::Ended, None));
        assert_eq!(talk.handle(Event::Relinked), Output::default());
    }
}
