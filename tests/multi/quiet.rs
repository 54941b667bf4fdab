//! Nobody is woken for nothing, and what all instances need is read once.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::bed::{Lab, Uplink, poll};
use crate::home::{PATIENCE, instance, raise, readvertise, start, stop};

/// How long something that must not happen is waited for.
const A_WHILE: Duration = Duration::from_secs(3);

/// The system's nft, which notes every run in a file.
fn noting_nft(lab: &Lab) -> String {
    let (program, runs) = (lab.file("noting-nft"), lab.file("runs"));
    let script = format!("#!/bin/sh\necho \"$*\" >>{}\nexec nft \"$@\"\n", runs.display());
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(&runs, "").unwrap();
    program.display().to_string()
}

fn runs(lab: &Lab) -> Vec<String> {
    let runs = std::fs::read_to_string(lab.file("runs")).unwrap();
    runs.lines().map(str::to_owned).collect()
}

fn listings(lab: &Lab) -> usize {
    runs(lab).iter().filter(|run| run.contains("list ruleset")).count()
}

/// Waits until nothing was run for a while.
fn settled(lab: &Lab) -> usize {
    let mut last = usize::MAX;
    let calm = poll(PATIENCE, || {
        let before = std::mem::replace(&mut last, runs(lab).len());
        std::thread::sleep(A_WHILE);
        last == before
    });
    assert!(calm, "it never comes to rest: {:?}", runs(lab));
    last
}

#[test]
fn programs_are_run_for_news_only() {
    let lab = raise(&[Uplink::new(), Uplink::new()]);
    lab.host("nft 'table inet filter { set s { type ipv4_addr; }; chain forward { type filter hook forward priority filter; policy drop; }; }'");
    let before = crate::home::sorted_state(&lab);
    let nft = noting_nft(&lab);
    instance(&lab, "clat", &format!("plat-dev=up*\ncmd-nft={nft}\n"));
    // With the fast path no packet filter is looked at.
    let mut daemon = start(&lab, &["translator=userspace"], 2);
    let rest = settled(&lab);

    for _ in 0..3 {
        for k in 0..2 {
            readvertise(&lab, k);
        }
        std::thread::sleep(A_WHILE / 3);
    }
    lab.host("nft add element inet filter s '{ 192.0.2.7 }'; ip -6 route add 2001:db8:77::/48 dev up0; ip -6 route del 2001:db8:77::/48");
    std::thread::sleep(A_WHILE);
    assert_eq!(runs(&lab).len(), rest, "nothing of it is news: {:?}", runs(&lab));

    let listed = listings(&lab);
    lab.host("nft add rule inet filter forward iifname nosuch drop");
    assert!(poll(PATIENCE, || listings(&lab) > listed), "the rule is seen");
    settled(&lab);
    assert_eq!(listings(&lab), listed + 1, "once for both: {:?}", runs(&lab));

    lab.host("nft -a list chain inet filter forward | sed -n 's/.*clatd:.*:out.*# handle //p' | while read handle; do nft delete rule inet filter forward handle $handle; done");
    let back = || lab.host("nft list chain inet filter forward").matches(":out").count() == 2;
    assert!(poll(PATIENCE, back), "what somebody took away comes back");
    settled(&lab);
    assert_eq!(
        listings(&lab),
        listed + 1,
        "that our rules come and go is followed without a listing"
    );
    lab.host("nft -a list chain inet filter forward | sed -n 's/.*nosuch.*# handle //p' | while read handle; do nft delete rule inet filter forward handle $handle; done; nft flush set inet filter s");
    stop(&lab, &mut daemon, &before, &[]);
}
