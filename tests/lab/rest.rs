//! The tests' own measure: what the host is like, compared before and after.

use crate::bed::{Lab, Uplink};

/// An address that the kernel still checks for duplicates would differ from itself a second later.
#[test]
fn the_host_is_compared_when_it_is_at_rest() {
    let lab = Lab::raise(&Uplink::new());
    lab.host("sysctl -qw net.ipv6.conf.up0.dad_transmits=3 && ip -6 address add 2001:db8:99::1/64 dev up0");
    assert!(
        lab.host("ip -6 address show dev up0").contains("tentative"),
        "it is checked"
    );
    let first = lab.state();
    lab.assert_state_is(&first, "the same host, a moment later");
    assert!(!lab.host("ip -6 address show dev up0").contains("tentative"));
}
