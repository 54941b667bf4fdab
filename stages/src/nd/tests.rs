//! The messages byte by byte, what is refused, and the detector event by event.

use std::net::Ipv6Addr;
use std::time::Duration;

use clatd_translator::internet_checksum;
use proptest::prelude::*;

use super::*;

const MALFORMED: &str = include_str!("malformed.txt");
const NONCE: Nonce = Nonce([1, 2, 3, 4, 5, 6]);
const SECOND: Duration = Duration::from_secs(1);

fn target() -> Ipv6Addr {
    "2001:db8::c1a7:12:3456".parse().unwrap()
}

fn mac(last: u8) -> LinkAddress {
    LinkAddress::new(&[2, 0, 0, 0, 0, last])
}

fn detecting(nonce: Nonce) -> NdMessage {
    NdMessage::Solicitation(Solicitation::detecting(target(), nonce))
}

fn advertising(owner: Option<LinkAddress>) -> NdMessage {
    NdMessage::Advertisement(Advertisement {
        source: "fe80::2".parse().unwrap(),
        destination: "ff02::1".parse().unwrap(),
        target: target(),
        router: false,
        solicited: false,
        overriding: true,
        target_link_address: owner,
    })
}

fn looking() -> NdMessage {
    NdMessage::Solicitation(Solicitation {
        source: "fe80::2".parse().unwrap(),
        destination: solicited_node(target()),
        target: target(),
        source_link_address: Some(mac(2)),
        nonce: None,
    })
}

#[test]
fn a_solicitation_byte_by_byte() {
    let expected = [
        &[0x60, 0, 0, 0, 0, 32, 58, 255][..],
        &[0; 16],
        &[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0x12, 0x34, 0x56],
        &[135, 0, 0, 0, 0, 0, 0, 0],
        &[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0xc1, 0xa7, 0, 0x12, 0x34, 0x56],
        &[14, 1, 1, 2, 3, 4, 5, 6],
    ]
    .concat();
    let mut packet = detecting(NONCE).packet();
    let mut pseudo = packet[8..40].to_vec();
    pseudo.extend([0, 0, 0, 32, 0, 0, 0, 58]);
    pseudo.extend(&packet[40..]);
    assert_eq!(internet_checksum(&pseudo), 0);
    packet[42..44].fill(0);
    assert_eq!(packet, expected);
}

#[test]
fn what_is_built_is_read_again() {
    for message in [
        detecting(NONCE),
        advertising(Some(mac(2))),
        advertising(None),
        looking(),
    ] {
        let mut packet = message.packet();
        assert_eq!(NdMessage::parse(&packet).as_ref(), Ok(&message));
        packet.extend([0xaa; 7]);
        assert_eq!(NdMessage::parse(&packet), Ok(message), "padding of the link layer");
    }
}

#[test]
fn an_option_that_is_not_known_or_has_another_size_is_passed_over() {
    let mut packet = detecting(NONCE).packet();
    packet[64] = 200;
    correct(&mut packet);
    let Ok(NdMessage::Solicitation(solicitation)) = NdMessage::parse(&packet) else {
        panic!("it is valid");
    };
    assert_eq!(solicitation.nonce, None);
    packet[5] = 40;
    packet[64..66].copy_from_slice(&[14, 2]);
    packet.extend([9; 8]);
    correct(&mut packet);
    let Ok(NdMessage::Solicitation(solicitation)) = NdMessage::parse(&packet) else {
        panic!("it is valid");
    };
    assert_eq!(solicitation.nonce, None, "a long nonce of RFC 3971 is none of ours");
}

#[test]
fn malformed_packets_are_refused() {
    let mut seen = 0;
    for line in MALFORMED.lines().filter(|line| !line.starts_with('#')) {
        let [message, changes, expected] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let mut packet = match message {
            "ns" => detecting(NONCE).packet(),
            "na" => advertising(Some(mac(2))).packet(),
            _ => panic!("{line}"),
        };
        let mut sum = true;
        for change in changes.split_whitespace() {
            match change.split_once('=') {
                None => sum = false,
                Some(("length", value)) => packet[5] = value.parse().unwrap(),
                Some(("cut", value)) => packet.truncate(value.parse().unwrap()),
                Some((place, value)) => packet[place.parse::<usize>().unwrap()] = value.parse().unwrap(),
            }
        }
        if sum {
            correct(&mut packet);
        }
        let invalid = NdMessage::parse(&packet).expect_err(line);
        assert_eq!(invalid.to_string(), expected, "{line}");
        seen += 1;
    }
    assert!(seen > 25);
}

/// Puts the checksum right, as far as there is one.
fn correct(packet: &mut [u8]) {
    let Some(length) = packet
        .get(4..6)
        .map(|bytes| usize::from(bytes[0]) << 8 | usize::from(bytes[1]))
    else {
        return;
    };
    let end = (40 + length).min(packet.len());
    if end < 44 {
        return;
    }
    packet[42..44].fill(0);
    let mut pseudo = packet[8..40].to_vec();
    pseudo.extend(u32::try_from(length).unwrap().to_be_bytes());
    pseudo.extend([0, 0, 0, 58]);
    pseudo.extend(&packet[40..end]);
    let sum = internet_checksum(&pseudo);
    packet[42..44].copy_from_slice(&sum.to_be_bytes());
}

fn detector(transmits: u32) -> Detector {
    let parameters = Parameters {
        transmits,
        ..Parameters::default()
    };
    Detector::new(target(), Some(mac(1)), parameters, NONCE)
}

fn receive(detector: &mut Detector, message: &NdMessage, from: u8) -> Next {
    let event = Input::Received {
        message,
        link_source: Some(&mac(from)),
    };
    let output = detector.handle(SECOND / 2, event);
    assert_eq!(output.send, None, "nothing is ever answered");
    output.next
}

fn duplicate(by: u8, source: &str, how: ConflictSign) -> Next {
    Next::Duplicate(Conflict {
        address: target(),
        by: Some(mac(by)),
        source: source.parse().unwrap(),
        how,
    })
}

#[test]
fn silence_means_free() {
    let mut detector = detector(2);
    let first = detector.handle(SECOND, Input::Start);
    assert_eq!(first.send, Some(Solicitation::detecting(target(), NONCE)));
    assert_eq!(first.next, Next::Wait(SECOND * 2));
    let early = detector.handle(SECOND * 3 / 2, Input::Timer);
    assert_eq!((early.send, early.next), (None, Next::Wait(SECOND * 2)));
    let second = detector.handle(SECOND * 2, Input::Timer);
    let nonce = second.send.and_then(|solicitation| solicitation.nonce);
    assert_eq!(nonce, Some(Nonce([1, 2, 3, 4, 5, 7])), "each has a nonce of its own");
    let end = detector.handle(SECOND * 3, Input::Timer);
    assert_eq!((end.send, end.next), (None, Next::Free));
}

#[test]
fn no_transmissions_means_no_detection() {
    let output = detector(0).handle(SECOND, Input::Start);
    assert_eq!((output.send, output.next), (None, Next::Free));
}

#[test]
fn an_advertisement_means_duplicate_and_ends_it() {
    let mut detector = detector(1);
    detector.handle(Duration::ZERO, Input::Start);
    let next = receive(&mut detector, &advertising(Some(mac(7))), 2);
    assert_eq!(
        next,
        duplicate(7, "fe80::2", ConflictSign::Advertisement),
        "named by its option"
    );
    let late = detector.handle(SECOND * 9, Input::Timer);
    assert_eq!((late.send, late.next), (None, next));
    let mut detector = super::tests::detector(1);
    let next = receive(&mut detector, &advertising(None), 2);
    assert_eq!(
        next,
        duplicate(2, "fe80::2", ConflictSign::Advertisement),
        "named by its frame"
    );
}

#[test]
fn another_detection_means_duplicate_also_before_the_first_solicitation() {
    let mut detector = detector(1);
    let next = receive(&mut detector, &detecting(NONCE), 2);
    assert_eq!(
        next,
        duplicate(2, "::", ConflictSign::Detection),
        "we have sent no nonce yet"
    );
}

#[test]
fn our_own_packets_and_searches_mean_nothing() {
    let mut detector = detector(1);
    let waiting = detector.handle(Duration::ZERO, Input::Start).next;
    assert_eq!(
        receive(&mut detector, &detecting(NONCE), 2),
        waiting,
        "looped back: our nonce"
    );
    assert_eq!(
        receive(&mut detector, &detecting(Nonce([9; 6])), 1),
        waiting,
        "our link-layer source"
    );
    assert_eq!(
        receive(&mut detector, &looking(), 2),
        waiting,
        "somebody looks for the owner"
    );
    let of_ours = advertising(Some(mac(1)));
    assert_eq!(
        receive(&mut detector, &of_ours, 2),
        waiting,
        "somebody answers in our place"
    );
    let NdMessage::Advertisement(mut other) = advertising(Some(mac(2))) else {
        unreachable!()
    };
    other.target = "2001:db8::1".parse().unwrap();
    assert_eq!(
        receive(&mut detector, &NdMessage::Advertisement(other), 2),
        waiting,
        "another address"
    );
    assert_eq!(
        receive(&mut detector, &detecting(Nonce([9; 6])), 2),
        duplicate(2, "::", ConflictSign::Detection)
    );
}

#[test]
fn conflicts_in_words() {
    let Next::Duplicate(mut conflict) = duplicate(2, "fe80::2", ConflictSign::Advertisement) else {
        unreachable!()
    };
    assert_eq!(conflict.to_string(), "02:00:00:00:00:02 has 2001:db8::c1a7:12:3456");
    conflict.by = None;
    assert_eq!(conflict.to_string(), "fe80::2 has 2001:db8::c1a7:12:3456");
    (conflict.source, conflict.how) = (Ipv6Addr::UNSPECIFIED, ConflictSign::Detection);
    assert_eq!(conflict.to_string(), "a neighbour wants 2001:db8::c1a7:12:3456 too");
}

#[test]
fn the_solicited_node_address() {
    let expected: Ipv6Addr = "ff02::1:ff12:3456".parse().unwrap();
    assert_eq!(solicited_node(target()), expected);
}

fn any_event() -> impl Strategy<Value = (u8, u64, usize, u8)> {
    (0..3u8, any::<u64>(), 0..4usize, 0..3u8)
}

proptest! {
    #[test]
    fn no_bytes_cause_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = NdMessage::parse(&bytes);
    }

    #[test]
    fn nor_do_nearly_valid_packets(
        changes in proptest::collection::vec((0..90usize, any::<u8>()), 0..6),
        more in proptest::collection::vec(any::<u8>(), 0..40),
        cut in 0..120usize,
    ) {
        let mut packet = detecting(NONCE).packet();
        packet.extend(&more);
        packet[5] = u8::try_from(32 + more.len()).unwrap();
        for (place, value) in changes {
            if let Some(byte) = packet.get_mut(place) {
                *byte = value;
            }
        }
        packet.truncate(cut);
        correct(&mut packet);
        if let Ok(message) = NdMessage::parse(&packet) {
            prop_assert!(!message.target().is_multicast());
            prop_assert!(!message.source().is_multicast());
            prop_assert!(NdMessage::parse(&message.packet()).is_ok());
        }
    }

    #[test]
    fn any_message_survives(target in any::<u128>(), source in any::<u128>(), flags in any::<[bool; 3]>(),
                            link in proptest::option::of(any::<[u8; 6]>())) {
        let [router, solicited, overriding] = flags;
        let message = NdMessage::Advertisement(Advertisement {
            source: Ipv6Addr::from_bits(source >> 1),
            destination: "fe80::1".parse().unwrap(),
            target: Ipv6Addr::from_bits(target >> 1),
            router,
            solicited,
            overriding,
            target_link_address: link.map(|bytes| LinkAddress::new(&bytes)),
        });
        prop_assert_eq!(NdMessage::parse(&message.packet()), Ok(message));
    }

    #[test]
    fn the_detector_ends_once_and_sends_no_more_than_it_may(
        transmits in 0..5u32,
        events in proptest::collection::vec(any_event(), 0..40),
    ) {
        let messages = [detecting(NONCE), detecting(Nonce([8; 6])), advertising(Some(mac(2))), looking()];
        let mut detector = detector(transmits);
        let (mut sent, mut verdict) = (0, None);
        for (kind, at, message, from) in events {
            let link_source = mac(from);
            let event = match kind {
                0 => Input::Start,
                1 => Input::Timer,
                _ => Input::Received { message: &messages[message], link_source: Some(&link_source) },
            };
            let output = detector.handle(Duration::from_millis(at), event);
            sent += u32::from(output.send.is_some());
            prop_assert!(sent <= transmits);
            if let Some(before) = &verdict {
                prop_assert_eq!(before, &output.next);
            }
            if matches!(output.next, Next::Free | Next::Duplicate(_)) {
                verdict = Some(output.next);
            }
        }
    }
}
