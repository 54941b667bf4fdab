//! Where the prefix and the CLAT's IPv6 address come from.

use serde_json::Value;

use crate::bed::{DERIVED_V6, Lab, Uplink};
use crate::daemon::{around, clatd};
use crate::traffic;

with_each_translator!(
    prefix_32,
    prefix_40,
    prefix_48,
    prefix_56,
    prefix_64,
    prefix_96,
    prefix_well_known
);

fn prefix_32(translator: &str) {
    prefix(translator, "2001:db8::/32");
}
fn prefix_40(translator: &str) {
    prefix(translator, "2001:db8:100::/40");
}
fn prefix_48(translator: &str) {
    prefix(translator, "2001:db8:122::/48");
}
fn prefix_56(translator: &str) {
    prefix(translator, "2001:db8:122:300::/56");
}
fn prefix_64(translator: &str) {
    prefix(translator, "2001:db8:122:344::/64");
}
fn prefix_96(translator: &str) {
    prefix(translator, "2001:db8:122:344::/96");
}
fn prefix_well_known(translator: &str) {
    prefix(translator, "64:ff9b::/96");
}

/// The one instance's facts, as `clatd plan --json` tells them.
fn facts(lab: &Lab, words: &[&str]) -> Value {
    let words: Vec<_> = ["plan", "--json"].iter().chain(words).copied().collect();
    let text = clatd(lab, &words).ok("clatd plan --json");
    let plan: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("plan --json is JSON: {error}\n{text}"));
    let instances = plan["instances"]
        .as_array()
        .unwrap_or_else(|| panic!("instances in {text}"));
    assert_eq!(instances.len(), 1, "one instance in {text}");
    instances[0]["facts"].clone()
}

/// The CLAT's address, by the status of the one instance.
fn clat_v6(lab: &Lab) -> String {
    let status: Value = serde_json::from_str(&clatd(lab, &["status", "--json"]).ok("status")).unwrap();
    let address = status.pointer("/instances/0/facts/clat_v6_addr/value");
    address.and_then(Value::as_str).expect("an address").to_owned()
}

/// DNS64 tells the prefix, the plan shows it, and traffic flows through it.
fn prefix(translator: &str, prefix: &str) {
    let lab = Lab::raise(&Uplink::new().plat(prefix));
    let translator = format!("translator={translator}");
    let facts = facts(&lab, &[&translator]).to_string();
    assert!(
        facts.contains(&format!("\"{prefix}\"")),
        "{prefix} in the facts: {facts}"
    );
    assert!(facts.contains(DERIVED_V6), "{DERIVED_V6} in the facts: {facts}");
    around(&lab, &[&translator], |_| traffic::works(&lab));
}

#[test]
fn configured_prefix_needs_no_dns() {
    let lab = Lab::raise(&Uplink::new().plat("2001:db8:122:344::/64").without_dns64());
    around(&lab, &["plat-prefix=2001:db8:122:344::/64"], |_| traffic::works(&lab));
}

/// Three resolvers beside the host's own: one without DNS64, then two with a prefix each.
#[test]
fn dns64_servers_are_asked_in_order() {
    let uplink = Uplink::new()
        .plat("2001:db8:a::/96")
        .plat("2001:db8:b::/96")
        .plat("2001:db8:c::/96")
        .resolver("3fff:1::60", None)
        .resolver("3fff:1::61", Some("2001:db8:b::/96"))
        .resolver("3fff:1::62", Some("2001:db8:c::/96"));
    let lab = Lab::raise(&uplink);
    for (servers, prefix) in [
        ("3fff:1::61,3fff:1::62", "2001:db8:b::/96"),
        ("3fff:1::62,3fff:1::61", "2001:db8:c::/96"),
        ("3fff:1::60,3fff:1::62,3fff:1::61", "2001:db8:c::/96"),
        // Nobody lives at ::66.
        ("3fff:1::66,3fff:1::61", "2001:db8:b::/96"),
    ] {
        let servers = format!("dns64-servers={servers}");
        let facts = facts(&lab, &[&servers]).to_string();
        assert!(
            facts.contains(&format!("\"{prefix}\"")),
            "{servers} must find {prefix}: {facts}"
        );
        for other in ["2001:db8:a::/96", "2001:db8:b::/96", "2001:db8:c::/96"] {
            assert!(
                other == prefix || !facts.contains(&format!("\"{other}\"")),
                "{servers} must find only {prefix}: {facts}"
            );
        }
        around(&lab, &[&servers], |_| traffic::works(&lab));
    }
}

/// No prefix: said, exit 0, nothing touched.
#[test]
fn without_dns64_there_is_nothing_to_do() {
    let lab = Lab::raise(&Uplink::new().without_dns64());
    let before = lab.state();
    let ran = clatd(&lab, &[]);
    assert_eq!(ran.code, Some(0), "{ran}");
    let said = format!("{}{}", ran.out, ran.err).to_lowercase();
    assert!(
        said.contains("prefix") || said.contains("dns64"),
        "says what is missing: {ran}"
    );
    lab.assert_state_is(&before, "after a start without DNS64");

    // The same where no resolver answers at all.
    let ran = clatd(&lab, &["dns64-servers=3fff:1::66"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    lab.assert_state_is(&before, "after a start without a resolver");
}

/// RFC 7217 addresses: no EUI-64 to substitute in, so a random identifier in the same /64.
#[test]
fn stable_privacy_addresses_give_a_random_identifier() {
    let lab = Lab::raise(&Uplink::new().stable_privacy());
    let own = lab.host("ip -6 -o address show dev up0 scope global");
    around(&lab, &[], |_| {
        traffic::works(&lab);
        let address = clat_v6(&lab);
        assert!(
            address.starts_with("3fff:1:0:1:"),
            "{address} is in the uplink's prefix"
        );
        assert!(
            !own.contains(&format!(" {address}/")),
            "{address} is not the host's own: {own}"
        );
    });
}

#[test]
fn configured_addresses_and_device_are_used() {
    let lab = Lab::raise(&Uplink::new());
    around(
        &lab,
        &[
            "clat-v6-addr=3fff:1:0:1::c1a7",
            "clat-v4-addr=192.0.0.4",
            "clat-dev=v4-up0",
        ],
        |_| {
            traffic::works(&lab);
            assert_eq!(clat_v6(&lab), "3fff:1:0:1::c1a7");
            assert!(lab.host("ip -4 -o address show dev v4-up0").contains("192.0.0.4/32"));
        },
    );
}

/// Not heard is not the same as not said.
#[test]
fn discover_says_where_it_could_not_listen() {
    let lab = Lab::raise(&Uplink::new().without_dns64());
    let output = lab
        .command("host")
        .args(["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw", "env"])
        .arg(format!("CLATD_RUNTIME_DIR={}", lab.file("run").display()))
        .args([&crate::daemon::program(), "discover"])
        .output()
        .unwrap();
    let ran = crate::bed::Ran::from(output);
    assert!(ran.out.contains("cannot receive router advertisements on up0"), "{ran}");
    assert!(!ran.out.contains("no router on up0 advertises one"), "{ran}");
    assert!(ran.out.contains("plat-prefix="), "the next step is named: {ran}");
}
