//! systemd-resolved has the servers of each link.

use nix::sys::signal::Signal;

use crate::bed::Lab;
use crate::daemon::{Daemon, clatd};
use crate::home::{self, EVERY_UPLINK, raise, running, sorted_state, status_of, stop};
use crate::service::{Service, resolvectl_dns};
use crate::{GOOD, LIE, OTHER, discovered, follows, prefix, two_prefixes, uplink};

/// The DNS64 is known to systemd-resolved alone, and what changes there is followed at once.
#[test]
fn its_list_is_asked_and_followed() {
    let lab = Lab::raise(&two_prefixes().resolver("3fff:1::63", None));
    // So that the resolver in question is the only one that would tell the good prefix.
    assert_eq!(discovered(&lab).0, LIE);
    let _bus = Service::bus(&lab);
    let _resolved = Service::resolved(&lab, "host");
    resolvectl_dns(&lab, "host", "up0", &["3fff:1::61"]);
    let told = (GOOD.to_owned(), "DNS64 server 3fff:1::61".to_owned());
    assert_eq!(discovered(&lab), told);
    let unnamed = clatd(&lab, &["plan", "--json"]).ok("clatd plan");
    assert!(unnamed.contains("DNS64 server 3fff:1::61"), "{unnamed}");

    let before = sorted_state(&lab);
    let mut daemon = Daemon::up(&lab, &["plat-dev=up0", "when-idle=wait", "debug=1"]);
    let now = |lab: &Lab| home::status(lab)["instances"][0]["facts"]["plat_prefix"]["value"].clone();
    assert_eq!(now(&lab), GOOD);
    let set = |servers: &'static [&str]| resolvectl_dns(&lab, "host", "up0", servers);
    let other = || set(&["3fff:1::62"]);
    follows(&mut daemon, "the prefix of the other server", other, || {
        now(&lab) == OTHER
    });

    // RFC 8880 section 7.1: where the uplink's server knows none, the liar does not step in.
    let is_idle = || home::status(&lab)["instances"][0]["state"] == "idle";
    follows(&mut daemon, "an idle instance", || set(&["3fff:1::63"]), is_idle);
    let again = || set(&["3fff:1::63", "127.0.0.1", "3fff:1::61"]);
    follows(&mut daemon, "the first prefix", again, || now(&lab) == GOOD);
    let said = daemon.output();
    assert!(!said.contains("2001:db8:bad"), "{said}");
    assert!(
        said.contains("systemd-resolved has these DNS servers for up0: 3fff:1::63, 3fff:1::61\n"),
        "without the resolver on this host: {said}"
    );
    let ran = daemon.stop(Signal::SIGTERM);
    home::assert_same(&lab, &before, &[], &format!("after the stop:\n{ran}"));
}

/// A link-local server is on the link that it is listed for.
#[test]
fn a_link_local_server_is_asked_on_its_link() {
    let lab = raise(&[
        uplink().plat(GOOD).resolver("fe80::53", Some(GOOD)),
        uplink().plat(OTHER).resolver("fe80::53", Some(OTHER)),
    ]);
    let _bus = Service::bus(&lab);
    let _resolved = Service::resolved(&lab, "host");
    for device in ["up0", "up1"] {
        resolvectl_dns(&lab, "host", device, &["fe80::53"]);
    }
    let mut daemon = Daemon::start(&lab, &[EVERY_UPLINK]);
    running(&lab, &mut daemon, 2);
    assert_eq!(prefix(&lab, "clat@up0"), GOOD);
    assert_eq!(prefix(&lab, "clat@up1"), OTHER);
    daemon.stop(Signal::SIGTERM);
}

/// Each uplink's prefix comes from its own servers, though those of both are within reach of the host.
#[test]
fn the_lists_of_two_uplinks_are_kept_apart() {
    let lab = raise(&[
        uplink().plat(GOOD).resolver("3fff:1::61", Some(GOOD)),
        uplink().plat(OTHER).resolver("3fff:2::61", Some(OTHER)),
    ]);
    let _bus = Service::bus(&lab);
    let _resolved = Service::resolved(&lab, "host");
    resolvectl_dns(&lab, "host", "up0", &["3fff:1::61"]);
    resolvectl_dns(&lab, "host", "up1", &["3fff:2::61"]);
    let before = sorted_state(&lab);
    let mut daemon = Daemon::start(&lab, &[EVERY_UPLINK]);
    running(&lab, &mut daemon, 2);
    for (k, (expected, server)) in [(GOOD, "3fff:1::61"), (OTHER, "3fff:2::61")].into_iter().enumerate() {
        let fact = &status_of(&lab, &format!("clat@up{k}"))["facts"]["plat_prefix"];
        assert_eq!(fact["value"], expected, "{fact}");
        assert_eq!(fact["source"], format!("DNS64 server {server}"), "{fact}");
        home::leaves_by(&lab, Some(&home::device(k)), k);
    }
    drop((_resolved, _bus));
    stop(&lab, &mut daemon, &before, &[]);
}
