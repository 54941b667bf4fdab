//! The wire format and the client against `malformed/`, the fuzzer's corpus and chance.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::tests_client::{Talk, prefix};
use super::*;

#[path = "../../fuzz/dhcp6_support.rs"]
mod fuzz;

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

/// The octets of a file: hex, with words for what only the test knows.
fn octets(lines: &str, transaction: u32) -> Vec<u8> {
    let option = |option: DhcpOption| {
        let message = Dhcp6Message {
            kind: MessageType::Reply,
            transaction: 0,
            options: vec![option],
        };
        hex(&message.encode()[4..])
    };
    let hex = lines
        .replace("CLIENT", &option(DhcpOption::ClientId(Talk::duid())))
        .replace("SERVER", &option(DhcpOption::ServerId(Talk::server())))
        .replace("TXN", &hex(&transaction.to_be_bytes()[1..]))
        .replace("IAID", &hex(&Talk::IAID.to_be_bytes()));
    let digits: String = hex.split_whitespace().collect();
    (0..digits.len() / 2)
        .map(|place| u8::from_str_radix(&digits[2 * place..2 * place + 2], 16).unwrap())
        .collect()
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[test]
fn malformed_messages_are_told_apart_and_change_nothing() {
    let files = files("src/dhcp6/malformed");
    assert!(files.len() >= 60);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let (head, lines) = text.split_once("expect: ").unwrap();
        assert!(head.starts_with("# "), "{}", file.display());
        let (expected, lines) = lines.split_once('\n').unwrap();
        // In each phase in which a server's word counts.
        let soliciting = Talk::begun();
        let requesting = Talk::requesting();
        let mut renewing = Talk::bound();
        renewing.until(Phase::Renewing);
        let mut confirming = Talk::with_kept_lease();
        confirming.until(Phase::Confirming);
        for mut talk in [soliciting, requesting, renewing, confirming] {
            let (phase, lease) = (talk.client.phase(), talk.client.lease().cloned());
            let message = octets(lines, talk.transaction());
            match Dhcp6Message::decode(&message) {
                Err(error) => assert_eq!(error.to_string(), expected, "{}", file.display()),
                Ok(_) => assert_eq!(expected, "ignored", "{}", file.display()),
            }
            let out = talk.handle(ClientInput::Received(&message));
            // A server that gives nothing usable of what it offered is asked no more.
            let refused = phase == Phase::Requesting && talk.client.phase() == Phase::Soliciting;
            assert!(refused || talk.client.phase() == phase, "{}: {phase:?}", file.display());
            assert_eq!(talk.client.lease().cloned(), lease, "{}: {phase:?}", file.display());
            assert_eq!(out.send.len(), 0, "{}: {phase:?}", file.display());
        }
    }
}

#[test]
fn the_corpus_of_the_fuzzer_holds() {
    let files = files("fuzz/corpus/dhcp6");
    assert!(files.len() >= 10);
    for file in files {
        fuzz::dhcp6(&fs::read(file).unwrap());
    }
}

#[test]
fn words_of_servers_cannot_act_on_a_terminal() {
    let status = |message: &str| Dhcp6Message {
        kind: MessageType::Reply,
        transaction: 1,
        options: vec![DhcpOption::Status(ServerStatus {
            code: StatusCode::NO_PREFIX_AVAIL,
            message: message.to_owned(),
        })],
    };
    let read = Dhcp6Message::decode(&status(&format!("a\x1b[2J\r\n\u{9b}b{}", "x".repeat(500))).encode()).unwrap();
    let [DhcpOption::Status(read)] = &read.options[..] else {
        panic!("{read:?}")
    };
    assert!(read.message.starts_with("a [2J   bxx") && read.message.len() <= 120);
    assert_eq!(status("").options.len(), 1);
    assert!(read.to_string().starts_with("NoPrefixAvail (a [2J"));
}

fn any_message() -> impl Strategy<Value = Dhcp6Message> {
    let kind = prop_oneof![
        Just(MessageType::Advertise),
        Just(MessageType::Reply),
        Just(MessageType::Reply)
    ];
    let status = (0u16..8, "[ -~]{0,10}").prop_map(|(code, message)| ServerStatus {
        code: StatusCode(code),
        message: message.trim().to_owned(),
    });
    let seconds = prop_oneof![Just(0u32), Just(1), Just(u32::MAX), 0u32..100, any::<u32>()];
    let delegated = (seconds.clone(), seconds.clone(), any::<u32>(), 0u8..=128)
        .prop_map(|(preferred, valid, bits, length)| prefix(bits, length, preferred, valid));
    let ia = (seconds.clone(), seconds.clone(), prop::collection::vec(delegated, 0..4));
    let ia = (ia, prop::option::weighted(0.2, status.clone())).prop_map(|((t1, t2, prefixes), status)| {
        DhcpOption::IaPd(IaPd {
            iaid: Talk::IAID,
            t1,
            t2,
            prefixes,
            status,
        })
    });
    let other = prop_oneof![
        any::<u8>().prop_map(DhcpOption::Preference),
        status.prop_map(DhcpOption::Status),
        seconds.prop_map(DhcpOption::SolMaxRt),
        Just(DhcpOption::RapidCommit),
        (1000u16..1010, any::<[u8; 4]>()).prop_map(|(code, data)| DhcpOption::Other {
            code,
            data: data.to_vec()
        }),
    ];
    (kind, ia, prop::option::of(other)).prop_map(|(kind, ia, other)| Dhcp6Message {
        kind,
        transaction: 0,
        options: [DhcpOption::ServerId(Talk::server()), ia]
            .into_iter()
            .chain(other)
            .collect(),
    })
}

proptest! {
    #[test]
    fn no_octets_make_it_panic(octets in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = Dhcp6Message::decode(&octets);
        fuzz::dhcp6(&octets);
    }

    #[test]
    fn a_message_comes_back_as_it_went(message in any_message()) {
        prop_assert_eq!(Dhcp6Message::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn a_cut_message_is_an_error_or_a_shorter_one(message in any_message(), cut in 0usize..200) {
        let octets = message.encode();
        let cut = cut.min(octets.len());
        if let Ok(shorter) = Dhcp6Message::decode(&octets[..cut]) {
            prop_assert!(message.options.starts_with(&shorter.options));
        }
    }

    #[test]
    fn whatever_servers_say_the_client_keeps_its_bounds(
        said in prop::collection::vec((any_message(), 0u64..200_000, any::<bool>()), 0..60),
    ) {
        let mut talk = Talk::begun();
        let (begun, mut sent) = (talk.now, 0);
        for (mut message, later, at_timer) in said {
            match talk.timer.filter(|_| at_timer) {
                Some(timer) => talk.now = timer,
                None => talk.now += Duration::from_millis(later),
            }
            message.transaction = talk.transaction();
            message.options.insert(0, DhcpOption::ClientId(Talk::duid()));
            for event in [ClientInput::Timer, ClientInput::Received(&message.encode())] {
                let out = talk.handle(event);
                sent += out.send.len() as u64;
                prop_assert!(out.timer.is_none_or(|timer| timer > talk.now));
            }
            prop_assert!(sent <= 25 + (talk.now - begun).as_secs());
            if let Some(lease) = talk.client.lease() {
                prop_assert!(lease.prefixes.iter().all(|prefix| prefix.valid_left(talk.now) > 0));
            }
        }
    }
}
