//! The fast path's programs on devices, by either way of attaching them.

use clatd_stages::fast_path::{Attachment, FastPathSpec, LinkHeader, Offer, Placement};
use clatd_stages::journal::{Left, Outcome};
use clatd_stages::op::{NewTun, Op};
use clatd_stages::settings::{Pref64Setting, Settings};
use clatd_stages::translator::UserspaceSpec;
use clatd_stages::world::World;
use clatd_translator::Pref64;

use crate::support::{Bed, in_namespace, sh};

pub fn attach(device: &str, clat_v6: &str, attachment: Attachment) -> Op {
    attach_to("up0", device, clat_v6, attachment)
}

fn attach_to(uplink: &str, device: &str, clat_v6: &str, attachment: Attachment) -> Op {
    let mut settings = Settings::default();
    settings.clat.clat_dev = device.into();
    let prefix = Pref64Setting(Pref64::WELL_KNOWN).0;
    let translation = UserspaceSpec::of(&settings, prefix, Some(clat_v6.parse().unwrap()), (1500, 1500));
    Op::AttachFastPath {
        fast_path: FastPathSpec {
            uplink: uplink.into(),
            placement: Placement {
                attachment,
                header: LinkHeader::Ethernet,
            },
            translation,
            delegated: None,
            shared: None,
        },
    }
}

pub fn detach(device: &str, attachment: Attachment) -> Op {
    detach_from("up0", device, attachment)
}

fn detach_from(uplink: &str, device: &str, attachment: Attachment) -> Op {
    Op::DetachFastPath {
        device: device.into(),
        uplink: uplink.into(),
        attachment,
    }
}

pub async fn tun(bed: &mut Bed, device: &str) {
    bed.apply(Op::CreateTun(NewTun {
        device: device.into(),
        alias: "clatd:test".into(),
        persistent: false,
        queues: 1,
    }))
    .await;
}

fn on_uplink() -> String {
    sh("tc qdisc show dev up0; tc filter show dev up0 ingress")
}

#[test]
fn clsact_is_made_shared_and_taken_away() {
    in_namespace(async |mut bed| {
        let before = on_uplink();
        for (device, address) in [("clat0", "2001:db8:1::c1a7:1"), ("clat1", "2001:db8:1::c1a7:2")] {
            tun(&mut bed, device).await;
            let outcome = bed.apply(attach(device, address, Attachment::Clsact)).await;
            assert!(matches!(outcome.left, Left::Clsact { made: true, .. }), "{outcome:?}");
        }
        assert_eq!(on_uplink().matches("name clatd_in").count(), 1, "{}", on_uplink());
        assert!(sh("tc filter show dev clat1 egress").contains("clatd_out"));
        let left = Left::Clsact {
            made: true,
            program: None,
        };
        let outcome = Outcome::from(left);
        bed.undo(detach("clat0", Attachment::Clsact), &outcome).await;
        assert_eq!(on_uplink().matches("name clatd_in").count(), 1, "{}", on_uplink());
        bed.undo(detach("clat1", Attachment::Clsact), &outcome).await;
        assert_eq!(on_uplink(), before);
    });
}

/// Each attachment by TCX keeps all others waiting, so where there are many the devices of our own do without.
#[test]
fn the_devices_of_many_instances_have_filters() {
    in_namespace(async |mut bed| {
        let filters = |number: u32| sh(&format!("tc filter show dev clat{number} egress"));
        for number in 0..18 {
            tun(&mut bed, &format!("clat{number}")).await;
            let address = format!("2001:db8:1::c1a7:{number}");
            bed.apply(attach(&format!("clat{number}"), &address, Attachment::Tcx))
                .await;
        }
        assert!(!filters(15).contains("clatd_out"), "{}", filters(15));
        assert!(filters(16).contains("clatd_out"), "{}", filters(16));
        assert!(!on_uplink().contains("clatd_in"), "it is only one: {}", on_uplink());
        for number in 0..18 {
            bed.undo(detach(&format!("clat{number}"), Attachment::Tcx), &Outcome::NOTHING)
                .await;
        }
        assert!(!filters(16).contains("clatd_out"), "{}", filters(16));
    });
}

#[test]
fn filters_of_a_killed_daemon_are_found_by_another() {
    in_namespace(async |mut bed| {
        sh("tc qdisc add dev up0 clsact");
        let before = on_uplink();
        tun(&mut bed, "clat0").await;
        let attached = attach("clat0", "2001:db8:1::c1a7:1", Attachment::Clsact);
        let outcome = bed.apply(attached).await;
        assert!(
            matches!(outcome.left, Left::Clsact { made: false, .. }),
            "it was there already"
        );
        assert!(on_uplink().contains("clatd_in"), "{}", on_uplink());
        // What this process holds is unknown to the next one.
        let mut next = Bed::new();
        next.undo(detach("clat0", Attachment::Clsact), &outcome).await;
        assert_eq!(on_uplink(), before);
    });
}

#[test]
fn links_go_with_their_last_user() {
    in_namespace(async |mut bed| {
        tun(&mut bed, "clat0").await;
        bed.apply(attach("clat0", "2001:db8:1::c1a7:1", Attachment::Tcx)).await;
        // The same again takes the place of what was there.
        bed.apply(attach("clat0", "2001:db8:1::c1a7:1", Attachment::Tcx)).await;
        tun(&mut bed, "clat1").await;
        let clash = bed.fail(attach("clat1", "2001:db8:1::c1a7:1", Attachment::Tcx)).await;
        assert!(
            crate::support::chain(&clash).contains("attach the fast path to clat1"),
            "{clash}"
        );
        let gateway = Some("fe80::1".parse().unwrap());
        let next_hop = |device: &str| Op::SetNextHop {
            device: device.into(),
            uplink: "up0".into(),
            gateway,
        };
        bed.apply(next_hop("clat0")).await;
        bed.fail(next_hop("clat1")).await;
        bed.undo(detach("clat0", Attachment::Tcx), &Outcome::NOTHING).await;
        bed.fail(next_hop("clat0")).await;
    });
}

/// On others' devices, too: the first sixteen have TCX. What stays of the others is known, and taken away.
#[test]
fn the_uplinks_of_many_instances_have_filters() {
    in_namespace(async |mut bed| {
        let count = 20;
        for number in 0..count {
            sh(&format!("ip link add wan{number} type veth peer name isp{number}x"));
        }
        sh("tc qdisc add dev wan17 clsact");
        // No clsact can be made where another queueing discipline has its handle.
        sh("ip link set wan18 up; tc qdisc add dev wan18 root handle ffff: pfifo");
        let show = || {
            let each = (0..count).map(|number| {
                sh(&format!(
                    "tc qdisc show dev wan{number}; tc filter show dev wan{number} ingress"
                ))
            });
            each.collect::<Vec<_>>()
        };
        let before = show();
        let mut done = Vec::new();
        for number in 0..count {
            let link = bed.world.link(&format!("wan{number}")).await.unwrap().unwrap();
            let Offer::Loads(placement) = bed.world.fast_path(&link).await.unwrap() else {
                panic!("it loads elsewhere")
            };
            let expected = if number < 16 {
                Attachment::Tcx
            } else {
                Attachment::Clsact
            };
            assert_eq!(placement.attachment, expected, "{number}");
            let device = format!("clat{number}");
            tun(&mut bed, &device).await;
            let op = attach_to(&link.name, &device, "2001:db8:1::c1a7:1", placement.attachment);
            let outcome = bed.apply(op.clone()).await;
            assert!(bed.world.undone(&[(1, &op)]).await.unwrap().is_empty(), "{op}");
            let made = match outcome.left {
                Left::Clsact { made, program } => program.map(|_| made),
                _ => None,
            };
            let (filter, wanted) = match number {
                18 => (false, None),
                17 => (true, Some(false)),
                0..=15 => (false, None),
                _ => (true, Some(true)),
            };
            assert_eq!(made, wanted, "{number}");
            assert_eq!(show()[number].contains("clatd_in"), filter, "{number}: {:?}", show());
            done.push((link, device, placement, outcome));
        }
        // It is told the same again, also when there is room.
        let (_, device, placement, outcome) = done.remove(0);
        bed.undo(detach_from("wan0", &device, placement.attachment), &outcome)
            .await;
        for (link, _, placement, _) in &done {
            assert_eq!(
                bed.world.fast_path(link).await.unwrap(),
                Offer::Loads(*placement),
                "{}",
                link.name
            );
        }
        for (link, device, placement, outcome) in done {
            bed.undo(detach_from(&link.name, &device, placement.attachment), &outcome)
                .await;
        }
        assert_eq!(show(), before);
    });
}

/// Filters have numbers, which somebody else's may get.
#[test]
fn a_filter_in_the_place_of_ours_stays() {
    in_namespace(async |mut bed| {
        let before = on_uplink();
        tun(&mut bed, "clat0").await;
        let op = attach("clat0", "2001:db8:1::c1a7:1", Attachment::Clsact);
        bed.apply(op.clone()).await;
        let theirs = "tc qdisc add dev up0 clsact; tc filter add dev up0 ingress bpf bytecode '1,6 0 0 4294967295' direct-action";
        sh(&format!("tc qdisc del dev up0 clsact; {theirs}"));
        let meanwhile = on_uplink();
        assert_eq!(bed.world.undone(&[(1, &op)]).await.unwrap(), [1]);
        let outcome = bed.apply(op).await;
        assert!(on_uplink().contains("clatd_in"), "{}", on_uplink());
        bed.undo(detach("clat0", Attachment::Clsact), &outcome).await;
        assert_eq!(on_uplink(), meanwhile);
        sh("tc qdisc del dev up0 clsact");
        // Whatever is attached twice is taken away once.
        let op = attach("clat0", "2001:db8:1::c1a7:1", Attachment::Clsact);
        bed.apply(op.clone()).await;
        let outcome = bed.apply(op).await;
        bed.undo(detach("clat0", Attachment::Clsact), &outcome).await;
        assert_eq!(on_uplink(), before);
    });
}

/// A filter in front may hand packets to another device, as shaping does. Ours would not see them then.
#[test]
fn filters_stand_in_front_of_those_of_others() {
    in_namespace(async |mut bed| {
        let order = || {
            let shown = sh("tc filter show dev up0 ingress");
            let priorities = shown.lines().filter(|line| line.contains("handle")).map(|line| {
                let pref = line
                    .split_whitespace()
                    .skip_while(|word| *word != "pref")
                    .nth(1)
                    .unwrap();
                (pref.parse::<u32>().unwrap(), line.contains("clatd_in"))
            });
            priorities.collect::<Vec<_>>()
        };
        let add = |further: &str| {
            sh(&format!(
                "tc filter add dev up0 ingress {further} bpf bytecode '1,6 0 0 4294967295' direct-action"
            ));
        };
        tun(&mut bed, "clat0").await;
        let op = attach("clat0", "2001:db8:1::c1a7:1", Attachment::Clsact);
        bed.apply(op.clone()).await;
        add("");
        let [(first, true), (_, false)] = order()[..] else {
            panic!("{:?}", order());
        };
        assert!(bed.world.undone(&[(1, &op)]).await.unwrap().is_empty());

        add(&format!("prio {}", first - 7));
        add("chain 5 prio 1");
        assert_eq!(bed.world.undone(&[(1, &op)]).await.unwrap(), [1]);
        bed.apply(op.clone()).await;
        let main = order().into_iter().filter(|(priority, _)| *priority > 1);
        assert!(
            main.collect::<Vec<_>>()
                .starts_with(&[(first - 8, true), (first - 7, false)]),
            "{:?}",
            order()
        );
        assert!(bed.world.undone(&[(1, &op)]).await.unwrap().is_empty());

        add("prio 1");
        assert_eq!(bed.world.undone(&[(1, &op)]).await.unwrap(), [1]);
        // No filter can stand in front of that one. TCX does, in kernels that have it.
        let outcome = bed.apply(op.clone()).await;
        assert_eq!(outcome.left, Left::Nothing);
        assert!(bed.world.undone(&[(1, &op)]).await.unwrap().is_empty());
        assert!(!on_uplink().contains("clatd_in"), "{}", on_uplink());
    });
}
