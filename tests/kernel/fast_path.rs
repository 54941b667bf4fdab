//! The fast path's programs on devices, by either way of attaching them.

use clatd_stages::fast_path::{Attachment, FastPathSpec, LinkHeader, Way};
use clatd_stages::journal::{Left, Outcome};
use clatd_stages::op::Op;
use clatd_stages::settings::{Pref64Setting, Settings};
use clatd_stages::translator::UserspaceSpec;
use clatd_translator::Pref64;

use crate::support::{Bed, in_namespace, sh};

fn attach(device: &str, clat_v6: &str, attachment: Attachment) -> Op {
    let mut settings = Settings::default();
    settings.clat.clat_dev = device.into();
    let prefix = Pref64Setting(Pref64::WELL_KNOWN).0;
    let translation = UserspaceSpec::of(&settings, prefix, Some(clat_v6.parse().unwrap()), (1500, 1500));
    Op::AttachFastPath {
        fast_path: FastPathSpec {
            uplink: "up0".into(),
            way: Way {
                attachment,
                header: LinkHeader::Ethernet,
            },
            translation,
            delegated: None,
            shared: None,
        },
    }
}

fn detach(device: &str, attachment: Attachment) -> Op {
    Op::DetachFastPath {
        device: device.into(),
        uplink: "up0".into(),
        attachment,
    }
}

async fn tun(bed: &mut Bed, device: &str) {
    bed.apply(Op::CreateTun {
        device: device.into(),
        alias: "clatd:test".into(),
        persistent: false,
        queues: 1,
    })
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
        assert!(
            !on_uplink().contains("clatd_in"),
            "others' devices keep TCX: {}",
            on_uplink()
        );
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
