//! The exchanges that lead to a lease, with a clock and a server of the test's.

use std::time::Duration;

use ipnet::Ipv6Net;

use super::*;

/// A client and its clock.
pub(super) struct Talk {
    pub(super) client: Client,
    pub(super) now: Duration,
    pub(super) timer: Option<Duration>,
    sent: Vec<Dhcp6Message>,
}

impl Talk {
    pub(super) const IAID: u32 = 0x0a0b_0c0d;

    pub(super) fn duid() -> Duid {
        Duid::from_machine(b"client")
    }

    pub(super) fn server() -> Duid {
        Duid::from_machine(b"server")
    }

    pub(super) fn new() -> Self {
        Self {
            client: Client::new(ClientConfig {
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
        assert_eq!(talk.handle(ClientInput::Start(None)).send.len(), 0);
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
        assert!(talk.handle(ClientInput::Start(lease)).lease_changed);
        talk
    }

    pub(super) fn handle(&mut self, event: ClientInput<'_>) -> ClientActions {
        let out = self.client.handle(self.now, event);
        self.timer = out.timer;
        self.sent
            .extend(out.send.iter().map(|octets| Dhcp6Message::decode(octets).unwrap()));
        out
    }

    /// Goes on to the client's timer.
    pub(super) fn tick(&mut self) -> ClientActions {
        self.now = self.timer.expect("it waits for nothing");
        self.handle(ClientInput::Timer)
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

    pub(super) fn last(&self) -> &Dhcp6Message {
        self.sent.last().expect("nothing was sent")
    }

    pub(super) fn kinds(&self) -> Vec<MessageType> {
        self.sent.iter().map(|message| message.kind).collect()
    }

    pub(super) fn say(&mut self, kind: MessageType, server: &Duid, ia: IaPd, preference: Option<u8>) -> ClientActions {
        self.say_with(kind, server, ia, preference.map(DhcpOption::Preference))
    }

    fn say_with(&mut self, kind: MessageType, server: &Duid, ia: IaPd, option: Option<DhcpOption>) -> ClientActions {
        let options = [
            DhcpOption::ClientId(Self::duid()),
            DhcpOption::ServerId(server.clone()),
            DhcpOption::IaPd(ia),
        ];
        let message = Dhcp6Message {
            kind,
            transaction: self.transaction(),
            options: options.into_iter().chain(option).collect(),
        };
        self.handle(ClientInput::Received(&message.encode()))
    }

    pub(super) fn prefixes(&self) -> Vec<String> {
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

pub(super) fn of(prefixes: Vec<IaPrefix>, t1: u32, t2: u32) -> IaPd {
    IaPd {
        iaid: Talk::IAID,
        t1,
        t2,
        prefixes,
        status: None,
    }
}

pub(super) fn given(t1: u32, t2: u32) -> IaPd {
    of(vec![prefix(5, 64, 3000, 4000)], t1, t2)
}

pub(super) fn refused(code: StatusCode) -> IaPd {
    let message = "no".into();
    IaPd {
        status: Some(ServerStatus { code, message }),
        ..of(vec![], 0, 0)
    }
}

pub(super) fn seconds(seconds: u64) -> Duration {
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

/// A prefix that holds no /64 is no use to a CLAT, whatever its server's preference.
#[test]
fn a_prefix_that_holds_a_64_comes_first() {
    let mut talk = Talk::begun();
    let [small, whole] = [Duid::from_machine(b"small"), Duid::from_machine(b"whole")];
    let offered = of(vec![prefix(5, 65, 3000, 4000)], 0, 0);
    talk.say(MessageType::Advertise, &small, offered, Some(200));
    talk.say(MessageType::Advertise, &whole, given(0, 0), Some(7));
    talk.tick();
    assert!(talk.last().options.contains(&DhcpOption::ServerId(whole)));
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
