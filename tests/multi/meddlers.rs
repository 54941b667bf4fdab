//! Somebody else at work on the same host.

use std::time::Duration;

use crate::bed::poll;
use crate::home::{
    EVERY_UPLINK, PATIENCE, device, in_state, leaves_by, running, says, sorted_state, start, stop, three, tool,
};

/// Without the fast path more of ours can be meddled with.
const ENGINE: &str = "translator=userspace";

/// Our route, rule, nft rule, proxy entry, address: whatever is deleted comes back, exactly as it was.
#[test]
fn what_is_deleted_is_put_back() {
    let lab = three();
    lab.host("nft 'table inet filter { chain forward { type filter hook forward priority filter; policy drop; }; }'");
    let before = sorted_state(&lab);
    let mut daemon = start(&lab, &[ENGINE, EVERY_UPLINK], 3);
    leaves_by(&lab, Some(&device(1)), 1);
    let up = sorted_state(&lab);
    for line in [
        "ip route del default dev clat-up1",
        "ip route flush table 49576",
        "ip -6 route flush table 49576",
        "ip rule del from 192.0.0.3 lookup 49576",
        "ip rule del oif clat-up1",
        "ip -6 rule del iif clat-up1",
        "ip -6 rule del iif up1",
        "nft delete rule inet filter forward handle $(nft -a list chain inet filter forward | sed -nE '/clat@up1/ s/.*handle //p' | head -n 1)",
        "ip address del 192.0.0.3/32 dev clat-up1",
        "ip link set clat-up1 down",
    ] {
        lab.host(line);
        let back = poll(PATIENCE, || same(&up, &sorted_state(&lab)));
        assert!(
            back,
            "{line}: not put back\n{}\n{}",
            difference(&up, &sorted_state(&lab)),
            daemon.output()
        );
    }
    for k in 0..3 {
        leaves_by(&lab, Some(&device(k)), k);
    }
    assert!(in_state(&lab, "running").len() == 3);
    stop(&lab, &mut daemon, &before, &[]);
}

/// The kernel tells nobody of proxy neighbour entries and of most sysctls, and nothing else happens: still they come
/// back, also a second time.
#[test]
fn what_nobody_tells_of_is_put_back_too() {
    let lab = three();
    let before = sorted_state(&lab);
    let mut daemon = start(&lab, &[ENGINE, EVERY_UPLINK], 3);
    leaves_by(&lab, Some(&device(1)), 1);
    let up = sorted_state(&lab);
    let entry = lab.host("ip -6 neigh show proxy dev up1");
    assert!(entry.contains("3fff:2:"), "{entry}");
    for _ in 0..2 {
        for line in [
            "for a in $(ip -6 neigh show proxy dev up1 | cut -d' ' -f1); do ip -6 neigh del proxy $a dev up1; done",
            "sysctl -qw net.ipv6.conf.up1.proxy_ndp=0",
        ] {
            let said = daemon_says(&lab, "somebody undid it");
            lab.host(line);
            let begin = std::time::Instant::now();
            let back = poll(PATIENCE, || {
                daemon_says(&lab, "somebody undid it") > said && same(&up, &sorted_state(&lab))
            });
            assert!(
                back,
                "{line}: not put back\n{}\n{}",
                difference(&up, &sorted_state(&lab)),
                daemon.output()
            );
            assert!(
                begin.elapsed() < Duration::from_secs(20),
                "{line}: took {:?}",
                begin.elapsed()
            );
        }
    }
    leaves_by(&lab, Some(&device(1)), 1);
    assert_eq!(in_state(&lab, "running").len(), 3);
    stop(&lab, &mut daemon, &before, &[]);
}

fn same(a: &[String], b: &[String]) -> bool {
    a.iter().all(|line| b.contains(line)) && b.iter().all(|line| a.contains(line))
}

fn difference(a: &[String], b: &[String]) -> String {
    let gone = a
        .iter()
        .filter(|line| !b.contains(line))
        .map(|line| format!("-{line}\n"));
    let new = b
        .iter()
        .filter(|line| !a.contains(line))
        .map(|line| format!("+{line}\n"));
    gone.chain(new).collect()
}

/// The CLAT device is deleted: the instance comes back; the others do not notice.
#[test]
fn a_deleted_device_comes_back() {
    let lab = three();
    let before = sorted_state(&lab);
    let mut daemon = start(&lab, &[EVERY_UPLINK], 3);
    for round in 1..=2 {
        lab.host("ip link del clat-up1");
        says(&mut daemon, "clat-up1");
        daemon.wait_for("the device", || {
            daemon_says(&lab, "clat-up1 is up") > round && lab.run("host", "ip link show clat-up1").code == Some(0)
        });
        running(&lab, &mut daemon, 3);
        leaves_by(&lab, Some(&device(1)), 1);
    }
    assert_eq!(
        daemon_says(&lab, "clat-up2 is up"),
        1,
        "the others stay\n{}",
        daemon.output()
    );
    stop(&lab, &mut daemon, &before, &[]);
}

fn daemon_says(lab: &crate::bed::Lab, text: &str) -> usize {
    let said = ["clatd.out", "clatd.err"].map(|file| lab.read(file)).concat();
    said.matches(text).count()
}

/// A second daemon with the same runtime directory is refused in words and changes nothing.
#[test]
fn a_second_daemon_is_refused() {
    let lab = three();
    let before = sorted_state(&lab);
    let mut daemon = start(&lab, &[EVERY_UPLINK], 3);
    let up = sorted_state(&lab);
    let begin = std::time::Instant::now();
    let ran = tool(&lab, &[EVERY_UPLINK]);
    assert!(begin.elapsed() < Duration::from_secs(20), "it is refused at once");
    assert_eq!(ran.code, Some(1), "{ran}");
    let run = lab.file("run").display().to_string();
    assert!(ran.err.contains(&run) && ran.err.contains("another clatd"), "{ran}");
    let refused = tool(&lab, &["cleanup"]);
    assert_eq!(
        refused.code,
        Some(1),
        "cleanup leaves a running daemon alone: {refused}"
    );
    assert!(
        same(&up, &sorted_state(&lab)),
        "{}",
        difference(&up, &sorted_state(&lab))
    );
    for k in 0..3 {
        leaves_by(&lab, Some(&device(k)), k);
    }
    stop(&lab, &mut daemon, &before, &[]);
}
