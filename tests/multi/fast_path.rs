//! Several instances that take the fast path.

use crate::home::{EVERY_UPLINK, device, leaves_by, sorted_state, start, status_of, stop, three};

const FAST: &str = "translator=ebpf";

/// Two of the three uplinks have the same PLAT prefix, and the kernel forwards nothing.
#[test]
fn each_uplink_has_its_own_programs_and_next_hop() {
    let lab = three();
    lab.host(
        "nft add table ip6 strict; nft add chain ip6 strict forward '{ type filter hook forward priority 0; policy drop; }'",
    );
    let before = sorted_state(&lab);
    let of_others = || {
        lab.host("ip -6 rule; ip -6 neigh show proxy; sysctl -a 2>/dev/null | grep 'ipv6.*forwarding' | grep -v clat")
    };
    let untouched = of_others();
    let mut daemon = start(&lab, &[FAST, EVERY_UPLINK], 3);
    assert_eq!(of_others(), untouched);
    for k in 0..3 {
        leaves_by(&lab, Some(&device(k)), k);
        let status = status_of(&lab, &format!("clat@up{k}"));
        for direction in ["4to6", "6to4"] {
            let fast = &status["counters"]["fast_path"][direction]["packets"]["tcp"];
            assert!(fast.as_u64().unwrap() > 0, "{direction} of up{k}: {status}");
        }
    }
    stop(&lab, &mut daemon, &before, &[]);
}
