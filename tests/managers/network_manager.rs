//! NetworkManager has the servers of the devices that it manages.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::bed::{Lab, poll};
use crate::daemon::{Daemon, clatd};
use crate::home::{self, EVERY_UPLINK, PATIENCE, raise, running};
use crate::service::{Service, nmcli, nmcli_dns, resolvectl_dns};
use crate::{GOOD, LIE, OTHER, discovered, follows, prefix, two_prefixes, uplink};

/// Takes a device over, with this server in its profile.
fn take_over(lab: &Lab, device: &str, server: &str) {
    nmcli(lab, &["connection", "modify", device, "ipv6.dns", server]);
    nmcli(lab, &["--wait", "30", "connection", "up", device]);
    let has_route = || !lab.host(&format!("ip -6 route show default dev {device}")).is_empty();
    assert!(poll(PATIENCE, has_route), "{}", lab.read("services.log"));
    // Duplicate address detection, too, is over.
    std::thread::sleep(Duration::from_secs(1));
}

#[test]
fn its_list_is_asked_and_followed() {
    let lab = Lab::raise(&two_prefixes());
    let _bus = Service::bus(&lab);
    let _network_manager = Service::network_manager(&lab, &["up0"]);
    take_over(&lab, "up0", "3fff:1::61");
    let told = (GOOD.to_owned(), "DNS64 server 3fff:1::61".to_owned());
    assert_eq!(discovered(&lab), told, "not {LIE}");

    let mut daemon = Daemon::up(&lab, &["plat-dev=up0", "when-idle=wait", "debug=1"]);
    let now = |lab: &Lab| home::status(lab)["instances"][0]["facts"]["plat_prefix"]["value"].clone();
    assert_eq!(now(&lab), GOOD);
    let other = || nmcli_dns(&lab, "up0", "3fff:1::62");
    follows(&mut daemon, "the prefix of the other server", other, || {
        now(&lab) == OTHER
    });
    let said = daemon.output();
    assert!(
        said.contains("NetworkManager has these DNS servers for up0: 3fff:1::62\n"),
        "{said}"
    );
    assert!(!said.contains("2001:db8:bad"), "{said}");
    daemon.stop(Signal::SIGTERM);
}

/// One uplink is in the hands of systemd-resolved, the other in those of NetworkManager; where both know some,
/// systemd-resolved's come first.
#[test]
fn both_managers_are_asked() {
    let lab = raise(&[
        uplink().plat(GOOD).resolver("3fff:1::61", Some(GOOD)),
        uplink()
            .plat(OTHER)
            .resolver("3fff:2::61", Some(OTHER))
            .resolver("3fff:2::62", Some(LIE)),
    ]);
    let _bus = Service::bus(&lab);
    let _resolved = Service::resolved(&lab, "host");
    let _network_manager = Service::network_manager(&lab, &["up1"]);
    resolvectl_dns(&lab, "host", "up0", &["3fff:1::61"]);
    take_over(&lab, "up1", "3fff:2::61");
    let mut daemon = Daemon::start(&lab, &[EVERY_UPLINK]);
    running(&lab, &mut daemon, 2);
    assert_eq!(prefix(&lab, "clat@up0"), GOOD);
    assert_eq!(prefix(&lab, "clat@up1"), OTHER);
    daemon.stop(Signal::SIGTERM);

    resolvectl_dns(&lab, "host", "up1", &["3fff:2::62"]);
    let shown = clatd(&lab, &["discover", "up1"]).ok("clatd discover");
    assert!(shown.contains("DNS64 server 3fff:2::62"), "{shown}");
}
