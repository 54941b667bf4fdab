// What is done with the fuzzer's bytes, by the fuzzer and by the ordinary test that replays its corpus.

/// A script: each step is the sender (one of 32), the seconds that pass, and an option area of the length given.
/// Whatever routers say, the table stays within its bounds, its order and its times.
pub fn ra(mut script: &[u8]) {
    use super::{Advertisements, MAX_PREFIXES, MAX_ROUTERS, MAX_SERVERS, parse};

    let mut table = Advertisements::default();
    let mut now = 0u64;
    while let [who, seconds, flags, lifetime, length, rest @ ..] = script {
        let (options, after) = rest.split_at(usize::from(*length).min(rest.len()));
        script = after;
        now += u64::from(*seconds) * 1000;
        let router = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, u16::from(who % 32));
        match who / 32 {
            0 => table.doubt(),
            1 => {
                table.forget_doubted();
            }
            _ => {}
        }
        let mut packet = vec![134, 0, 0, 0, 64, *flags, *lifetime, *lifetime, 0, 0, 0, 0, 0, 0, 0, 0];
        packet.extend_from_slice(options);
        let said = match parse(&packet, router, 255) {
            Ok(said) => said,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                continue;
            }
        };
        assert!(!said.to_string().is_empty());
        let outcome = table.update(now, router, &said);
        assert!(
            outcome.next_expiry.is_none_or(|end| end > now),
            "something has ended already"
        );
        assert_eq!(outcome.next_expiry, table.next_expiry());
        let (prefixes, servers) = (table.pref64s(now), table.rdnss(now));
        assert!(table.routers(now).len() <= MAX_ROUTERS);
        assert!(
            prefixes
                .iter()
                .all(|learned| learned.lifetime_s.is_some_and(|left| left > 0))
        );
        for learned in &prefixes {
            let of_router = prefixes.iter().filter(|other| other.router == learned.router);
            assert!(of_router.count() <= MAX_PREFIXES);
            let same = |other: &&_| *other == learned;
            assert_eq!(prefixes.iter().filter(same).count(), 1, "{learned:?} comes twice");
        }
        for learned in &servers {
            let of_router = servers.iter().filter(|other| other.router == learned.router);
            assert!(of_router.count() <= MAX_SERVERS);
        }
        assert!(!table.forget_expired(now), "it had forgotten all that has ended");
    }
    if let Some(end) = table.next_expiry() {
        table.forget_expired(end);
        assert!(table.next_expiry().is_none_or(|next| next > end));
    }
}
