//! TUN devices and addresses.

use clatd_stages::journal::Outcome;
use clatd_stages::op::{NewTun, Op};

use crate::support::{assert_unchanged, chain, in_namespace, json, sh, state};

fn create(persistent: bool, queues: u32) -> Op {
    Op::CreateTun(NewTun {
        device: "clat".into(),
        alias: "clatd:test".into(),
        persistent,
        queues,
    })
}

fn delete() -> Op {
    Op::DeleteTun {
        device: "clat".into(),
        alias: "clatd:test".into(),
    }
}

#[test]
fn a_tun_device_comes_and_goes() {
    in_namespace(|mut bed| async move {
        let before = state();
        for queues in [0, 1, 2] {
            let outcome = bed.apply(create(false, queues)).await;
            let link = &json("ip -d -j link show clat")[0];
            assert_eq!(link["ifalias"], "clatd:test");
            assert_eq!(link["linkinfo"]["info_data"]["type"], "tun");
            assert_eq!(link["linkinfo"]["info_data"]["persist"], false);
            assert_eq!(link["linkinfo"]["info_data"]["vnet_hdr"], true);
            assert_eq!(link["linkinfo"]["info_data"]["multi_queue"], queues != 1);
            assert!(!link["flags"].as_array().unwrap().contains(&"UP".into()));
            bed.undo(delete(), &outcome).await;
            assert_unchanged(&before);
        }
    });
}

#[test]
fn a_persistent_device_survives_and_is_deleted() {
    in_namespace(|mut bed| async move {
        let before = state();
        let outcome = bed.apply(create(true, 0)).await;
        let link = &json("ip -d -j link show clat")[0];
        assert_eq!(link["linkinfo"]["info_data"]["persist"], true);
        assert_eq!(link["linkinfo"]["info_data"]["vnet_hdr"], false);
        assert_eq!(link["linkinfo"]["info_data"]["multi_queue"], false);
        assert_eq!(link["ifalias"], "clatd:test");
        bed.undo(delete(), &outcome).await;
        assert_unchanged(&before);
    });
}

#[test]
fn somebody_elses_device_is_neither_taken_nor_deleted() {
    in_namespace(|mut bed| async move {
        sh("ip tuntap add dev clat mode tun");
        let error = bed.fail(create(false, 1)).await;
        assert!(chain(&error).contains("exists already"), "{}", chain(&error));
        assert!(error.hint.unwrap().contains("clat-dev"));
        bed.apply(delete()).await;
        assert_eq!(json("ip -j link show clat")[0]["ifname"], "clat");
    });
}

#[test]
fn up_with_mtu_address_and_no_link_local() {
    in_namespace(|mut bed| async move {
        let before = state();
        bed.apply(create(false, 1)).await;
        bed.apply(Op::SetDeviceSysctl {
            key: "net/ipv6/conf/clat/addr_gen_mode".into(),
            value: "1".into(),
        })
        .await;
        bed.apply(Op::SetLinkUp {
            device: "clat".into(),
            mtu: 1460,
        })
        .await;
        let v4 = "192.0.0.1/32".parse().unwrap();
        let v6 = "2001:db8:1::464/128".parse().unwrap();
        for address in [v4, v6] {
            bed.apply(Op::AddAddress {
                device: "clat".into(),
                address,
            })
            .await;
            // Once more: it is there, and it is ours.
            bed.apply(Op::AddAddress {
                device: "clat".into(),
                address,
            })
            .await;
        }
        let link = &json("ip -j addr show clat")[0];
        assert_eq!(link["mtu"], 1460);
        let addresses: Vec<_> = link["addr_info"]
            .as_array()
            .unwrap()
            .iter()
            .map(|a| a["local"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(addresses, ["192.0.0.1", "2001:db8:1::464"]);
        for address in [v4, v6] {
            bed.undo(
                Op::RemoveAddress {
                    device: "clat".into(),
                    address,
                },
                &Outcome::NOTHING,
            )
            .await;
        }
        assert!(
            json("ip -j addr show clat")[0]["addr_info"]
                .as_array()
                .unwrap()
                .is_empty()
        );
        bed.undo(delete(), &Outcome::NOTHING).await;
        bed.undo(
            Op::RemoveAddress {
                device: "clat".into(),
                address: v4,
            },
            &Outcome::NOTHING,
        )
        .await;
        assert_unchanged(&before);
    });
}

#[test]
fn an_address_of_the_users_stays() {
    in_namespace(|mut bed| async move {
        let before = state();
        let address = "192.0.2.2/24".parse().unwrap();
        let outcome = bed
            .apply(Op::AddAddress {
                device: "up0".into(),
                address,
            })
            .await;
        bed.undo(
            Op::RemoveAddress {
                device: "up0".into(),
                address,
            },
            &outcome,
        )
        .await;
        assert_unchanged(&before);
    });
}

#[test]
fn a_missing_device_is_named() {
    in_namespace(|mut bed| async move {
        let error = bed
            .fail(Op::SetLinkUp {
                device: "nodev".into(),
                mtu: 1500,
            })
            .await;
        assert_eq!(
            chain(&error),
            "cannot bring nodev up with MTU 1500: there is no device nodev"
        );
        let key = "net/ipv6/conf/nodev/addr_gen_mode".to_owned();
        let error = bed.fail(Op::SetDeviceSysctl { key, value: "1".into() }).await;
        assert!(error.hint.is_some());
    });
}
