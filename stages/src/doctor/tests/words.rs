//! Whether the words lead to the cause, and not beside it.

use super::*;
use crate::settings::TranslatorChoice;

/// What the user set is looked at first, and what the network tells is beside it.
#[test]
fn a_configured_prefix_that_is_wrong() {
    let set = |seen: &mut Examined| {
        let network = seen.plats[0].clone();
        seen.plats[0].prefix = Fact::new("2001:db8:64::/96".parse().unwrap(), Source::Configuration);
        seen.plats[0].answers.pop();
        seen.through_clat = Some(Vec::new());
        network
    };
    case(
        |seen| {
            let network = set(seen);
            seen.plats.push(network);
        },
        &[(
            Check::Plat,
            "plat-prefix sets this prefix, but the network has another one, which answers: 64:ff9b::/96 (DNS64 server 2001:db8::53)",
        )],
    );
    case(
        |seen| {
            let mut network = set(seen);
            network.answers.clear();
            seen.plats.push(network);
        },
        &[(
            Check::Plat,
            "the network tells of 64:ff9b::/96 (DNS64 server 2001:db8::53), which does not answer either",
        )],
    );
    case(
        |seen| _ = set(seen),
        &[(
            Check::Plat,
            "plat-prefix sets this prefix, and the network tells of none: check that it is right",
        )],
    );
}

/// A filter of the host's own stops the doctor's probes, but not the CLAT's packets.
#[test]
fn a_plat_that_works_for_the_clat_is_not_blamed() {
    let mut seen = working();
    seen.plats[0].answers.clear();
    seen.own_filters = vec![input_chain_that_drops("ip6")];
    let findings = judge(&instance(), &seen);
    assert_eq!(wrong(&findings), []);
    let said = findings.iter().find(|finding| finding.check == Check::Plat).unwrap();
    assert_eq!(said.verdict, Judgement::Note);
    assert!(
        said.what
            .ends_with("the nft chain ip6 fw in (hook input, policy drop) may drop the answers"),
        "{said:?}"
    );
}

fn by_fast_path(seen: &mut Examined) {
    let facts = &mut seen.running.as_mut().unwrap().facts;
    facts.translator = Some(Fact::new(TranslatorChoice::Ebpf, Source::Configuration));
    let address = "2001:db8::464".parse().unwrap();
    facts.clat_v6_addr = Some(Fact::new(address, Source::Configuration));
}

/// The CLAT's packets pass neither filters of IPv6 nor forwarding.
#[test]
fn the_fast_path_forwards_nothing() {
    let mut seen = working();
    by_fast_path(&mut seen);
    let filters = |seen: &Examined| {
        let findings = judge(&instance(), seen).into_iter();
        let filters = findings.filter(|finding| finding.check == Check::Filter);
        filters
            .map(|finding| (finding.verdict, finding.what))
            .collect::<Vec<_>>()
    };
    let none = "the CLAT's IPv6 packets pass no packet filter of this host: the fast path forwards none";
    assert_eq!(filters(&seen), [(Judgement::Good, none.to_owned())]);
    let forwarding = "the CLAT's sysctls are as it set them; the fast path needs no forwarding";
    let findings = judge(&instance(), &seen);
    assert!(
        findings.iter().any(|finding| finding.what == forwarding),
        "{findings:#?}"
    );

    seen.through_clat = Some(vec![hop(1, "192.0.0.2", Says::TimeExceeded)]);
    seen.firewall.as_mut().unwrap().ip6tables = Ip6tablesChain::Drops;
    let drops =
        "the ip6tables chain FORWARD would drop forwarded packets, which does not matter: the fast path forwards none";
    assert_eq!(filters(&seen), [(Judgement::Good, drops.to_owned())]);
    let found = wrong(&judge(&instance(), &seen));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].1.contains("packets stop behind the translator"), "{found:#?}");
    assert!(found[0].1.contains("tcpdump on up0"), "{found:#?}");
    assert!(!found[0].1.contains("nft list ruleset"), "{found:#?}");
}

/// Rules that the plan does not have are not praised.
#[test]
fn rules_are_in_place_where_there_are_some() {
    let says_so = |accepts| {
        let seen = Examined { accepts, ..working() };
        let findings = judge(&instance(), &seen);
        findings
            .iter()
            .any(|finding| finding.what == "clatd's rules are in place")
    };
    assert_eq!([0, 1, 2].map(says_so), [false, true, true]);
}

/// Many providers carry packets from the one address that they gave.
#[test]
fn a_network_may_carry_packets_of_the_host_alone() {
    let lost = |seen: &mut Examined| {
        by_fast_path(seen);
        seen.through_clat = Some(vec![hop(1, "192.0.0.2", Says::TimeExceeded)]);
    };
    case(
        lost,
        &[(
            Check::Ipv4,
            "the network may drop packets from 2001:db8::464: some providers give a server one address and drop all \
             others; try clat-v6-addr=shared",
        )],
    );
    let mut seen = working();
    lost(&mut seen);
    seen.running.as_mut().unwrap().facts.shared = true;
    let found = wrong(&judge(&instance(), &seen));
    assert!(!found[0].1.contains("clat-v6-addr"), "{found:#?}");
}

/// What keeps an instance from starting is wrong, even where native IPv4 would let it rest. What only follows from
/// another fault is not told as a second one.
#[test]
fn why_an_instance_does_not_run() {
    let idle = |seen: &mut Examined, reason: &str| {
        let running = seen.running.as_mut().unwrap();
        (running.state, running.reason) = ("idle".into(), reason.into());
        (seen.route4, seen.through_clat) = (None, None);
    };
    let taken = "device: clat-dev clat exists already";
    case(
        |seen| {
            idle(seen, taken);
            seen.running.as_mut().unwrap().last_error = Some(taken.into());
            seen.native4 = vec![(route("0.0.0.0/0", "", "clat", 3000), None)];
        },
        &[(
            Check::Daemon,
            "the instance cannot start: device: clat-dev clat exists already",
        )],
    );
    case(
        |seen| {
            idle(seen, "no PLAT prefix");
            seen.running.as_mut().unwrap().last_error = Some(taken.into());
            seen.defaults6.clear();
        },
        &[(Check::Uplink, "has no IPv6 default route")],
    );
    let mut seen = working();
    let running = seen.running.as_mut().unwrap();
    (running.state, running.last_error) = ("observing".into(), Some(taken.into()));
    let said = judge(&instance(), &seen).remove(0);
    assert_eq!(
        said.what,
        format!("the instance is observing (its last error: {taken}); look again in a moment")
    );
}
