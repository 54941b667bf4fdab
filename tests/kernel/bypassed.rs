//! What other programs set up and the fast path would bypass, read from the kernel.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clatd::world::SystemWorld;
use clatd_stages::fast_path::Attachment;
use clatd_stages::world::World;
use clatd_translator::Pref64;

use crate::fast_path::{attach, detach, tun};
use crate::support::{Bed, in_namespace, sh};

async fn bypassed(bed: &Bed) -> Option<String> {
    // All instances share a look for a moment.
    tokio::time::sleep(Duration::from_millis(150)).await;
    let uplink = bed.world.link("up0").await.unwrap().unwrap();
    let address = "2001:db8:1::c1a7".parse().unwrap();
    bed.world.bypassed(&uplink, address, Pref64::WELL_KNOWN).await.unwrap()
}

#[test]
fn policies_count_that_are_for_the_clats_packets() {
    in_namespace(async |bed| {
        assert_eq!(bypassed(&bed).await, None);
        for (policy, counts) in [
            ("dir out src ::/0 dst ::/0 action block", true),
            (
                "dir out src 2001:db8:1::/64 dst 64:ff9b::/96 tmpl proto esp mode transport",
                true,
            ),
            // Some of the IPv4 internet.
            (
                "dir out src ::/0 dst 64:ff9b::c000:200/120 tmpl proto esp mode transport",
                true,
            ),
            ("dir out src ::/0 dst ::/0 dev up0 action block", true),
            ("dir out src ::/0 dst ::/0 dev lo action block", false),
            ("dir out src 2001:db8:2::/64 dst ::/0 action block", false),
            ("dir out src ::/0 dst 2001:db8::/32 action block", false),
            ("dir out src ::/0 dst ::/0 action allow", false),
            ("dir out src ::/0 dst ::/0 mark 0 mask 0xff action block", true),
            ("dir out src ::/0 dst ::/0 mark 1 mask 0xff action block", false),
            ("dir out src ::/0 dst ::/0 if_id 7 action block", false),
            ("dir in src ::/0 dst ::/0 action block", false),
            ("dir fwd src 64:ff9b::/96 dst ::/0 action block", true),
            ("dir fwd src 2001:db8:1::/64 dst 64:ff9b::/96 action block", true),
            ("dir fwd src 2001:db8:2::/64 dst 64:ff9b::/96 action block", false),
            ("dir out src 0.0.0.0/0 dst 0.0.0.0/0 action block", false),
        ] {
            sh(&format!("ip xfrm policy add {policy}"));
            let found = bypassed(&bed).await;
            assert_eq!(found.is_some(), counts, "{policy}: {found:?}");
            sh("ip xfrm policy flush");
        }
        for (default, counts) in [("in block", false), ("out block", true), ("fwd block", true)] {
            sh(&format!("ip xfrm policy setdefault {default}"));
            let found = bypassed(&bed).await;
            assert_eq!(found.is_some(), counts, "{default}: {found:?}");
            sh("ip xfrm policy setdefault in accept fwd accept out accept");
        }
        assert_eq!(bypassed(&bed).await, None);
    });
}

#[test]
fn chains_count_that_see_the_uplinks_packets() {
    in_namespace(async |bed| {
        assert_eq!(bypassed(&bed).await, None);
        for (family, hook, counts) in [
            ("netdev", "ingress device up0", true),
            ("netdev", "ingress devices = { lo, up0 }", true),
            ("netdev", "ingress device lo", false),
            ("netdev", "egress device up0", true),
            ("netdev", "egress device lo", false),
            ("inet", "ingress device up0", true),
            ("inet", "ingress device lo", false),
            ("inet", "input", false),
            ("inet", "forward", false),
        ] {
            sh(&format!(
                "nft 'add table {family} t; add chain {family} t c {{ type filter hook {hook} priority 0; }}'"
            ));
            let found = bypassed(&bed).await;
            assert_eq!(found.is_some(), counts, "{family} {hook}: {found:?}");
            let place = hook.split_whitespace().next().unwrap();
            if let Some(found) = found {
                assert_eq!(found, format!("chain c of nft table {family} t at the {place} of up0"));
            }
            sh(&format!("nft delete table {family} t"));
        }
        assert_eq!(bypassed(&bed).await, None);
    });
}

#[test]
fn filters_count_that_packets_come_to() {
    in_namespace(async |bed| {
        let all = "bpf direct-action bytecode '1,6 0 0 4294967295'";
        for (filter, counts) in [
            (format!("ingress {all}"), true),
            (format!("ingress protocol ipv6 {all}"), true),
            ("ingress protocol all u32 match u32 0 0".into(), true),
            (format!("ingress protocol ip {all}"), false),
            (format!("ingress protocol all chain 5 {all}"), false),
            (format!("egress {all}"), false),
        ] {
            sh(&format!("tc qdisc add dev up0 clsact; tc filter add dev up0 {filter}"));
            let found = bypassed(&bed).await;
            assert_eq!(found.is_some(), counts, "{filter}: {found:?}");
            sh("tc qdisc del dev up0 clsact");
        }
        sh("tc qdisc add dev up0 ingress; tc filter add dev up0 parent ffff: protocol all u32 match u32 0 0");
        assert!(bypassed(&bed).await.is_some(), "the older queueing discipline");
    });
}

/// Our own programs are not of others, in whatever way they are attached.
#[test]
fn the_fast_path_does_not_bypass_itself() {
    for attachment in [Attachment::Tcx, Attachment::Clsact] {
        in_namespace(async |mut bed| {
            tun(&mut bed, "clat0").await;
            let outcome = bed.apply(attach("clat0", "2001:db8:1::c1a7", attachment)).await;
            assert_eq!(bypassed(&bed).await, None, "{attachment}");
            sh("tc qdisc add dev up0 clsact || true
                tc filter add dev up0 ingress bpf direct-action bytecode '1,6 0 0 4294967295'");
            assert!(bypassed(&bed).await.is_some(), "{attachment}");
            sh("tc qdisc del dev up0 clsact");
            bed.undo(detach("clat0", attachment), &outcome).await;
        });
    }
}

/// What others have is not read without a limit.
#[test]
fn where_there_are_too_many_nobody_is_bypassed() {
    in_namespace(async |bed| {
        sh(
            "for i in $(seq 1025); do echo xfrm policy add dir fwd src ::/0 dst 2001:db8::$(printf %x $i)/128; done | ip -batch -",
        );
        let found = bypassed(&bed).await.unwrap();
        assert!(found.contains("more than the 1024"), "{found}");
        sh("ip xfrm policy flush");
        assert_eq!(bypassed(&bed).await, None);
        sh("{ echo add table netdev t; for i in $(seq 4097); do echo add chain netdev t c$i; done; } | nft -f -");
        let found = bypassed(&bed).await.unwrap();
        assert!(found.contains("more than clatd reads"), "{found}");
    });
}

/// Until it is noticed, packets leave unencrypted.
#[test]
fn the_kernel_tells_of_a_new_policy() {
    in_namespace(async |bed| {
        let told = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told);
        let notify = move |_: Option<&str>| _ = count.fetch_add(1, Ordering::SeqCst);
        let _world = SystemWorld::new(bed.netlink.clone(), bed.holds.clone(), notify);
        sh("ip xfrm policy add dir in src ::/0 dst ::/0 action block
            ip xfrm policy add dir out src 0.0.0.0/0 dst 0.0.0.0/0 action block");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(told.load(Ordering::SeqCst), 0);
        sh("for i in 1 2 3; do ip xfrm policy add dir out src ::/0 dst 64:ff9b::$i/128 action block; done");
        let wait = async {
            while told.load(Ordering::SeqCst) == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .expect("it is told of");
    });
}
