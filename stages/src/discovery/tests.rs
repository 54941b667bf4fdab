use super::*;

fn found(records: &[&str]) -> Vec<String> {
    let records: Vec<Ipv6Addr> = records.iter().map(|text| text.parse().unwrap()).collect();
    synthesised_prefixes(&records).iter().map(ToString::to_string).collect()
}

#[test]
fn all_six_lengths_are_found() {
    for prefix in [
        "2001:db8::/32",
        "2001:db8:100::/40",
        "2001:db8:122::/48",
        "2001:db8:122:300::/56",
        "2001:db8:122:344::/64",
        "64:ff9b::/96",
    ] {
        let parsed: Pref64 = prefix.parse().unwrap();
        let records: Vec<Ipv6Addr> = WELL_KNOWN_ADDRESSES.iter().map(|known| parsed.embed(*known)).collect();
        assert_eq!(synthesised_prefixes(&records), [parsed], "{prefix}");
        assert_eq!(
            synthesised_prefixes(&records[1..]),
            [parsed],
            "{prefix}, only 192.0.0.171"
        );
    }
}

#[test]
fn records_that_no_dns64_made_are_skipped() {
    assert_eq!(found(&["2001:db8::1", "64:ff9b::c000:aa"]), ["64:ff9b::/96"]);
    assert_eq!(found(&["2001:db8::1"]), [""; 0]);
    assert_eq!(found(&[]), [""; 0]);
    // 192.0.0.172 is no well-known address, 192.0.0.170 at an odd place no standard format.
    assert_eq!(found(&["64:ff9b::c000:ac", "2001:c000:aa::1"]), [""; 0]);
}

#[test]
fn several_prefixes_come_in_order_and_once() {
    assert_eq!(
        found(&[
            "2001:db8:1::c000:aa",
            "64:ff9b::c000:aa",
            "2001:db8:1::c000:ab",
            "64:ff9b::c000:ab"
        ]),
        ["2001:db8:1::/96", "64:ff9b::/96"]
    );
}

/// RFC 7050 section 3: a prefix that itself holds 192.0.0.170 is found by way of 192.0.0.171.
#[test]
fn a_well_known_address_inside_the_prefix_does_not_mislead() {
    assert_eq!(
        found(&["2001:db8:c000:aa::c000:aa", "2001:db8:c000:aa::c000:ab"]),
        ["2001:db8:c000:aa::/96"]
    );
    assert_eq!(
        found(&["2001:db8:c000:ab::c000:aa", "2001:db8:c000:ab::c000:ab"]),
        ["2001:db8:c000:ab::/96"]
    );
    // Around the "u" octet: 192.0.0.170 in bytes 5, 6, 7 and 9 of a /96 prefix.
    assert_eq!(
        found(&["2001:db8:c0:0:aa:0:c000:aa", "2001:db8:c0:0:aa:0:c000:ab"]),
        ["2001:db8:c0:0:aa::/96"]
    );
}

#[test]
fn one_record_with_both_addresses_ends_in_zeros() {
    assert_eq!(found(&["2001:db8:c000:aa::c000:ab"]), ["2001:db8:c000:aa::/96"]);
}

/// Where IPv6 is switched off nothing else is looked for; that it is on elsewhere does not matter.
#[tokio::test]
async fn a_device_without_ipv6_is_told() {
    let mut on = On {
        named: Some("up0".into()),
        running: None,
        first: None,
    };
    let mut world = crate::fixed_world::FixedWorld::default();
    assert_eq!(on.lacks_ipv6(&world).await.unwrap(), None);
    for (key, value) in [("up0", "0"), ("all", "1")] {
        world
            .sysctls
            .insert(format!("net/ipv6/conf/{key}/disable_ipv6"), value.into());
    }
    assert_eq!(on.lacks_ipv6(&world).await.unwrap(), None);
    on.named = None;
    let told = on.lacks_ipv6(&world).await.unwrap().unwrap();
    assert!(told.contains("net.ipv6.conf.all.disable_ipv6=1"), "{told}");
}

/// A PLAT translates where something answers from behind it. If nothing does and no server is published, it does not.
#[tokio::test]
async fn what_answers_from_behind_the_plat_shows_that_it_translates() {
    let instance = Instance {
        name: "clat".into(),
        settings: crate::settings::Settings::default(),
        runtime_dir: "/run/clatd".into(),
        ordinal: 0,
        seed: 0,
    };
    let prefix = Fact::new("64:ff9b::/96".parse().unwrap(), Source::Configuration);
    for (from, translates) in [
        (None, false),
        (Some("2001:db8::1"), false),
        (Some("64:ff9b::c633:6401"), true),
    ] {
        let world = crate::fixed_world::FixedWorld {
            hops: from
                .map(|from| crate::path::Hop {
                    hops: 3,
                    from: from.parse().unwrap(),
                    says: crate::path::Says::Unreachable(0),
                })
                .into_iter()
                .collect(),
            ..Default::default()
        };
        let found = plat_translates(&instance, &prefix, "up0", &world).await.unwrap();
        assert_eq!(found, translates, "{from:?}");
    }
}
