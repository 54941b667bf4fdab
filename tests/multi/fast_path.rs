//! Several instances that take the fast path.

use std::thread;
use std::time::Duration;

use crate::bed::{Lab, SERVER};
use crate::home::{EVERY_UPLINK, device, leaves_by, sorted_state, start, status_of, stop, three};
use crate::traffic;

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

/// All sorts of traffic by one uplink: through the programs, around them, and back as errors.
fn mixed(lab: &Lab, k: usize) {
    let device = &device(k);
    thread::scope(|scope| {
        scope.spawn(|| traffic::download_by(lab, Some(device), 20_000_000));
        scope.spawn(|| traffic::upload_by(lab, Some(device), 20_000_000));
        scope.spawn(|| traffic::udp_by(lab, device, "", &[0, 1, 1232, 1233, 1472, 1473, 3000, 20_000, 60_000]));
        scope.spawn(|| {
            traffic::udp_by(lab, device, "--no-checksum", &[100, 1200]);
            // Options; a port without a listener, by TCP and by UDP.
            lab.host(&format!("ping -n -c 10 -i 0.2 -R -W 2 -I {device} {SERVER}"));
            let ran = lab.run(
                "host",
                &format!("curl -sS -m 5 --interface {device} http://{SERVER}:81/"),
            );
            assert_eq!(ran.code, Some(7), "refused, not timed out: {ran}");
            let ran = lab.run(
                "host",
                &format!("traceroute -n -U -p 99 -f 6 -m 6 -q 3 -w 2 -i {device} {SERVER}"),
            );
            assert!(ran.out.contains(&format!("{SERVER}  ")), "port unreachable: {ran}");
        });
    });
}

/// Three uplinks at once. Two have the same PLAT prefix, and the path of one gets a smaller MTU meanwhile. The host's
/// firewall drops forwarded packets. While clatd runs, nothing of the host's changes except its IPv4.
#[test]
fn mixed_traffic_by_three_uplinks_at_once() {
    let lab = three();
    lab.host(
        "nft add table ip6 strict; nft add chain ip6 strict forward '{ type filter hook forward priority 0; policy drop; }'",
    );
    let before = sorted_state(&lab);
    let words = [EVERY_UPLINK, "v4-defaultroute-mtu=1480", "v4-defaultroute-advmss=1440"];
    let mut daemon = start(&lab, &words, 3);
    for k in 0..3 {
        leaves_by(&lab, Some(&device(k)), k);
    }
    thread::scope(|scope| {
        let lab = &lab;
        for k in 0..3 {
            scope.spawn(move || mixed(lab, k));
        }
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(500));
            lab.run("net", "ip link set isp1 mtu 1300").ok("a narrower path");
            lab.run("isp1", "ip link set wan mtu 1300").ok("its other end");
        });
    });
    only_ours_is_new(&before, &sorted_state(&lab));
    for k in 0..3 {
        let fast = status_of(&lab, &format!("clat@up{k}"))["counters"]["fast_path"].clone();
        for counter in [
            "/4to6/packets/tcp",
            "/6to4/packets/udp",
            "/4to6/left/too-big",
            "/4to6/left/options",
        ] {
            let count = fast.pointer(counter).and_then(serde_json::Value::as_u64);
            assert!(count.unwrap() > 0, "{counter} of up{k}: {fast}");
        }
    }
    stop(&lab, &mut daemon, &before, &[]);
}

/// New are the CLATs' devices with what is theirs, IPv4 routes and rules, and nothing else; nothing is gone.
fn only_ours_is_new(before: &[String], now: &[String]) {
    let gone: Vec<_> = before.iter().filter(|line| !now.contains(line)).collect();
    let is_ours = |line: &&String| line.contains("clat-up") || line.contains(r#""protocol":"46""#);
    let foreign: Vec<_> = now
        .iter()
        .filter(|line| !before.contains(line))
        .filter(|line| !is_ours(line))
        .collect();
    assert!(
        gone.is_empty() && foreign.is_empty(),
        "gone: {gone:#?}\nnew: {foreign:#?}"
    );
}
