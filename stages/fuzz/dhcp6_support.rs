// What is done with the fuzzer's bytes, by the fuzzer and by the ordinary test that replays its corpus.

/// A script: each step is what happens, the time that passes, and a message of the length given. Whatever servers say
/// and whenever they say it, the client asks for its next look in the future, sends no more than it may, and holds
/// nothing that has ended.
pub fn dhcp6(mut script: &[u8]) {
    use std::time::Duration;

    use super::{Client, ClientConfig, ClientInput, Dhcp6Message, DhcpOption, Duid, Phase};

    let duid = Duid::from_machine(b"fuzz");
    let mut client = Client::new(ClientConfig {
        duid: duid.clone(),
        iaid: 1,
        seed: 1,
        first_delay: Duration::from_millis(250),
    });
    let mut now = Duration::from_secs(1000);
    let (mut sent, mut transaction) = (0u64, 0);
    let mut out = client.handle(now, ClientInput::Start(None));
    let begun = now;
    while let [what, time, length, rest @ ..] = script {
        let (octets, after) = rest.split_at(usize::from(*length).min(rest.len()));
        script = after;
        // Until the client's own timer, or some time of any size.
        match (time, out.timer) {
            (0..=127, Some(timer)) => now = now.max(timer),
            _ => now += Duration::from_millis(u64::from(time & 127).pow(3)),
        }
        let decoded = Dhcp6Message::decode(octets);
        if let Ok(message) = &decoded {
            assert_eq!(
                Dhcp6Message::decode(&message.encode()).as_ref(),
                Ok(message),
                "it does not come back"
            );
        }
        let message = match (what % 8, decoded) {
            (0 | 1, _) => {
                out = client.handle(now, ClientInput::Timer);
                None
            }
            (2, _) => {
                out = client.handle(now, ClientInput::Relinked);
                None
            }
            (3, _) if what >= &248 => {
                out = client.handle(now, ClientInput::Stop);
                None
            }
            // As it is, or as a server would say it that knows whom it talks to.
            (4, _) | (_, Err(_)) => Some(octets.to_vec()),
            (_, Ok(mut message)) => {
                message.transaction = transaction;
                message
                    .options
                    .retain(|option| !matches!(option, DhcpOption::ClientId(_)));
                message.options.push(DhcpOption::ClientId(duid.clone()));
                for option in &mut message.options {
                    if let DhcpOption::IaPd(ia) = option {
                        ia.iaid &= 1;
                    }
                }
                Some(message.encode())
            }
        };
        if let Some(message) = message {
            out = client.handle(now, ClientInput::Received(&message));
        }
        for message in &out.send {
            sent += 1;
            let message = Dhcp6Message::decode(message).expect("what we send is well formed");
            transaction = message.transaction;
        }
        assert!(
            sent <= 25 + (now - begun).as_secs(),
            "{sent} messages in {:?}",
            now - begun
        );
        assert!(out.timer.is_none_or(|timer| timer > now), "it would look again at once");
        assert!(
            out.timer.is_some() || client.phase() == Phase::Ended || never_changes(&client),
            "it waits for ever"
        );
        if let Some(lease) = client.lease() {
            assert!(!lease.prefixes.is_empty());
            assert!(lease.prefixes.iter().all(|prefix| prefix.valid_left(now) > 0));
            assert!(lease.is_sound(1, now));
            assert!(lease.t1_s <= lease.t2_s);
        }
        assert!(client.problem().is_none_or(|text| !text.chars().any(char::is_control)));
    }
}

/// A lease for ever needs no timer.
fn never_changes(client: &super::Client) -> bool {
    let for_ever = |lease: &super::Lease| lease.prefixes.iter().all(|prefix| prefix.valid_s == u32::MAX);
    client.phase() == super::Phase::Bound && client.lease().is_some_and(for_ever)
}
