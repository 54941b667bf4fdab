//! Routes, policy rules, proxy neighbours.

use clatd::kernel::Kernel;
use clatd_stages::apply::System;
use clatd_stages::journal::Outcome;
use clatd_stages::net::{Route, Rule};
use clatd_stages::op::Op;
use clatd_stages::world::World;
use futures_util::future::join_all;
use tokio::sync::mpsc::unbounded_channel;

use crate::support::{Bed, assert_unchanged, chain, in_namespace, json, settled_state, sh, state};

fn add(route: &Route) -> Op {
    Op::AddRoute { route: route.clone() }
}

fn remove(route: &Route) -> Op {
    Op::RemoveRoute { route: route.clone() }
}

#[test]
fn the_default_route_is_as_ip_would_add_it() {
    in_namespace(|mut bed| async move {
        sh(
            "ip link add clat type veth peer name clatp; ip link set clatp up; ip link set clat up; until [ $(ip -o -6 addr show scope link | wc -l) = 4 ]; do sleep 0.02; done",
        );
        sh("ip route add default dev clat proto 46 metric 2048 mtu 1260 advmss 1220");
        let wanted = sh("ip -d route show table all proto 46");
        sh("ip route del default dev clat metric 2048");
        let before = state();

        let mut route = Route::ours("0.0.0.0/0".parse().unwrap(), "clat");
        route.metric = 2048;
        route.mtu = Some(1260);
        route.advmss = Some(1220);
        let outcome = bed.apply(add(&route)).await;
        assert_eq!(sh("ip -d route show table all proto 46"), wanted);
        let again = bed.apply(add(&route)).await;
        assert!(!again.changed_nothing(), "ours already: {again:?}");
        bed.undo(remove(&route), &outcome).await;
        assert_unchanged(&before);
    });
}

#[test]
fn routes_of_both_versions_in_any_table() {
    in_namespace(|mut bed| async move {
        let before = state();
        let mut routes = Vec::new();
        for (destination, gateway, table, metric) in [
            ("2001:db8:1::c1a7/128", None, 254, 0),
            ("64:ff9b::/96", Some("2001:db8:1::1"), 49575, 100),
            ("::/0", Some("2001:db8:1::1"), 464, 0),
            ("198.51.100.0/24", Some("192.0.2.1"), 254, 7),
            ("198.51.100.0/24", Some("2001:db8:1::1"), 70000, 0),
            ("203.0.113.9/32", None, 254, 0),
        ] {
            let mut route = Route::ours(destination.parse().unwrap(), "up0");
            route.gateway = gateway.map(|gateway| gateway.parse().unwrap());
            route.table = table;
            route.metric = metric;
            routes.push(route);
        }
        for route in &routes {
            let outcome = bed.apply(add(route)).await;
            assert!(!outcome.changed_nothing(), "{outcome:?}");
        }
        let shown = sh("ip -4 route show table all proto 46; ip -6 route show table all proto 46");
        assert_eq!(shown.lines().count(), routes.len(), "{shown}");
        assert!(
            shown.contains("198.51.100.0/24 via inet6 2001:db8:1::1 dev up0 table 70000"),
            "{shown}"
        );
        for route in &routes {
            bed.undo(remove(route), &Outcome::NOTHING).await;
        }
        assert_unchanged(&before);
    });
}

/// Takes every default route away and puts all of them back.
async fn replace_defaults(bed: &mut Bed) {
    let before = settled_state().await;
    let routes: Vec<Route> = bed
        .world
        .routes4(254)
        .await
        .unwrap()
        .into_iter()
        .filter(Route::is_default)
        .collect();
    let mut done = Vec::new();
    for route in &routes {
        done.push((route.clone(), bed.apply(remove(route)).await));
    }
    assert_eq!(sh("ip -4 route show default"), "");
    for (route, outcome) in done.iter().rev() {
        bed.undo(add(route), outcome).await;
    }
    assert_unchanged(&before);
}

#[test]
fn exotic_default_routes_come_back_whole_and_in_order() {
    in_namespace(|mut bed| async move {
        sh("ip link add up1 type veth peer name isp1; ip link set isp1 up; ip link set up1 up; until [ $(ip -o -6 addr show scope link | wc -l) = 4 ]; do sleep 0.02; done; ip addr add 198.51.100.2/24 dev up1
            ip addr add 192.0.2.77/32 dev lo
            ip nexthop add id 77 via 192.0.2.3 dev up0
            ip route add default via 192.0.2.1 dev up0 proto dhcp src 192.0.2.77 metric 100
            ip route add default via 192.0.2.9 dev up0 metric 200 mtu lock 1400 advmss 1300 window 20000 initcwnd 20 quickack 1
            ip route append default via 192.0.2.8 dev up0 metric 200 mtu 1300
            ip route append default via 192.0.2.7 dev up0 metric 200 congctl reno
            ip route add default via 203.0.113.1 dev up1 onlink metric 300
            ip route add default metric 400 nexthop via 192.0.2.1 dev up0 weight 3 nexthop via 203.0.113.1 dev up1 weight 1 onlink
            ip route add default nhid 77 metric 500
            ip route add default tos 0x10 via 192.0.2.4 dev up0 metric 100
            ip route add default via inet6 2001:db8:1::1 dev up0 metric 600
            ip route add default dev up1 scope link metric 700 realm 5
            ip route add default via 192.0.2.1 dev up0");
        replace_defaults(&mut bed).await;
    });
}

#[test]
fn a_default_route_by_way_of_another_comes_back() {
    in_namespace(|mut bed| async move {
        sh(
            "ip route add default dev up0 metric 5; ip route add default via 203.0.113.1 dev up0 metric 10
            ip route add default via 203.0.113.2 dev up0 metric 20",
        );
        replace_defaults(&mut bed).await;
    });
}

#[test]
fn a_dead_route_is_known_and_comes_back() {
    in_namespace(|mut bed| async move {
        sh("ip route add default via 192.0.2.1 dev up0 metric 5; ip link set isp0 down");
        let dead = |routes: Vec<Route>| routes.iter().find(|route| route.is_default()).map(|route| route.dead);
        // The kernel tells of a lost carrier once a second at most, and later if it is busy.
        for _ in 0..200 {
            if dead(bed.world.routes4(254).await.unwrap()) == Some(true) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!(dead(bed.world.routes4(254).await.unwrap()), Some(true));
        replace_defaults(&mut bed).await;
    });
}

#[test]
fn a_route_is_not_put_back_where_the_kernel_would_have_dropped_it() {
    in_namespace(|mut bed| async move {
        sh(
            "ip link add up1 type veth peer name isp1; ip link set isp1 up; ip link set up1 up; until [ $(ip -o -6 addr show scope link | wc -l) = 4 ]; do sleep 0.02; done; ip route add default dev up1 metric 9",
        );
        let route = bed
            .world
            .routes4(254)
            .await
            .unwrap()
            .into_iter()
            .find(Route::is_default)
            .unwrap();
        let outcome = bed.apply(remove(&route)).await;
        sh("ip link del up1");
        let before = state();
        bed.undo(add(&route), &outcome).await;
        assert_unchanged(&before);
    });
}

#[test]
fn the_device_of_a_restored_route_may_have_another_index() {
    in_namespace(|mut bed| async move {
        sh(
            "ip link add up1 type veth peer name isp1; ip link set isp1 up; ip link set up1 up; until [ $(ip -o -6 addr show scope link | wc -l) = 4 ]; do sleep 0.02; done; ip route add default dev up1 metric 9",
        );
        let wanted = sh("ip route show default");
        let route = bed
            .world
            .routes4(254)
            .await
            .unwrap()
            .into_iter()
            .find(Route::is_default)
            .unwrap();
        let outcome = bed.apply(remove(&route)).await;
        sh(
            "ip link del up1; ip link add up1 type veth peer name isp1; ip link set isp1 up; ip link set up1 up; until [ $(ip -o -6 addr show scope link | wc -l) = 4 ]; do sleep 0.02; done",
        );
        bed.undo(add(&route), &outcome).await;
        assert_eq!(sh("ip route show default"), wanted);
    });
}

#[test]
fn a_route_that_was_gone_is_not_brought() {
    in_namespace(|mut bed| async move {
        sh("ip route add default via 192.0.2.1 dev up0");
        let route = bed
            .world
            .routes4(254)
            .await
            .unwrap()
            .into_iter()
            .find(Route::is_default)
            .unwrap();
        sh("ip route del default");
        let before = state();
        let outcome = bed.apply(remove(&route)).await;
        bed.undo(add(&route), &outcome).await;
        assert_unchanged(&before);
    });
}

#[test]
fn a_rival_route_is_named() {
    in_namespace(|mut bed| async move {
        sh("ip route add default via 192.0.2.1 dev up0 metric 2048");
        let before = state();
        let mut route = Route::ours("0.0.0.0/0".parse().unwrap(), "up0");
        route.metric = 2048;
        let error = bed.fail(add(&route)).await;
        assert!(
            chain(&error).contains("default via 192.0.2.1 dev up0 metric 2048"),
            "{}",
            chain(&error)
        );
        bed.apply(remove(&route)).await;
        assert_unchanged(&before);
    });
}

fn rule(v6: bool, priority: u32) -> Rule {
    Rule::ours(v6, priority, 464)
}

#[test]
fn rules_come_and_go() {
    in_namespace(|mut bed| async move {
        // Rules that differ from ours in one selector only.
        sh(
            "ip -6 rule add from 2001:db8:1::c1a7 ipproto tcp lookup 464 pref 1000 protocol static
            ip -6 rule add from 2001:db8:1::c1a7 lookup 464 pref 1000 protocol static
            ip -4 rule add oif clat fwmark 7/0xff lookup 464 pref 10 protocol static",
        );
        let before = state();
        let rules = [
            Rule {
                from: Some("2001:db8:1::c1a7/128".parse().unwrap()),
                ..rule(true, 1000)
            },
            Rule {
                from: Some("64:ff9b::/96".parse().unwrap()),
                to: Some("2001:db8:1::c1a7/128".parse().unwrap()),
                fwmark: Some(0xc1a7),
                table: 49575,
                ..rule(true, 5)
            },
            Rule {
                from: Some("192.0.0.1/32".parse().unwrap()),
                ..rule(false, 100)
            },
            Rule {
                oif: Some("clat".into()),
                fwmark: Some(7),
                ..rule(false, 10)
            },
            Rule {
                iif: Some("clat".into()),
                suppress_prefixlen: Some(0),
                ..rule(true, 20)
            },
        ];
        for rule in &rules {
            assert_eq!(bed.apply(Op::AddRule { rule: rule.clone() }).await, Outcome::NOTHING);
            assert_eq!(
                bed.apply(Op::AddRule { rule: rule.clone() }).await,
                Outcome::NOTHING,
                "ours already"
            );
        }
        let shown = sh("ip -6 rule; ip -4 rule");
        assert!(
            shown.contains("from 64:ff9b::/96 to 2001:db8:1::c1a7 fwmark 0xc1a7 lookup 49575"),
            "{shown}"
        );
        assert_eq!(shown.lines().count(), before_rules() + rules.len(), "{shown}");
        for rule in &rules {
            bed.undo(Op::RemoveRule { rule: rule.clone() }, &Outcome::NOTHING).await;
        }
        assert_unchanged(&before);
    });

    fn before_rules() -> usize {
        3 + 3 + 2
    }
}

#[test]
fn the_local_rule_can_be_moved_and_comes_back() {
    in_namespace(|mut bed| async move {
        let before = sh("ip -6 rule");
        let local = |priority, protocol| Rule {
            table: 255,
            protocol,
            ..rule(true, priority)
        };
        let added = bed.apply(Op::AddRule { rule: local(1, 46) }).await;
        let removed = bed.apply(Op::RemoveRule { rule: local(0, 2) }).await;
        assert!(
            sh("ip -6 rule").starts_with("1:\tfrom all lookup local"),
            "{}",
            sh("ip -6 rule")
        );
        bed.undo(Op::AddRule { rule: local(0, 2) }, &removed).await;
        bed.undo(Op::RemoveRule { rule: local(1, 46) }, &added).await;
        assert_eq!(sh("ip -6 rule"), before);
    });
}

/// Versions that moved the rule of table local to 1 left it there when they were killed. A VPN that came then has rules at 0.
#[test]
fn the_local_rule_of_an_old_journal_is_the_first_again() {
    let old = "ip -6 rule add pref 1 lookup local protocol kernel
        ip -6 rule del pref 0 lookup local
        ip -6 rule add pref 0 from all to 2001:db8:1::2 fwmark 0xc1a7 lookup 49575 protocol 46";
    let vpn = "ip -6 rule add not fwmark 51820 lookup 51820
        ip -6 rule add lookup main suppress_prefixlength 0";
    in_namespace(|mut bed| async move {
        let before = sh("ip -6 rule");
        sh(old);
        bed.apply(Op::ReleaseLocalRule {}).await;
        bed.apply(Op::ReleaseLocalRule {}).await;
        sh("ip -6 rule del lookup 49575");
        assert_eq!(sh("ip -6 rule"), before);

        sh(old);
        sh(vpn);
        assert!(sh("ip -6 rule").starts_with("0:\tfrom all to"), "as it was found");
        bed.apply(Op::ReleaseLocalRule {}).await;
        let after = sh("ip -6 rule");
        let lines: Vec<&str> = after
            .lines()
            .map(|line| line.split_once('\t').unwrap().1.trim())
            .collect();
        assert_eq!(
            lines,
            [
                "from all lookup local",
                "from all to 2001:db8:1::2 fwmark 0xc1a7 lookup 49575 proto 46",
                "not from all fwmark 0xca6c lookup 51820",
                "from all lookup main suppress_prefixlength 0",
                "from all lookup main"
            ],
            "{after}"
        );
    });
}

#[test]
fn anycast_addresses_come_and_go() {
    in_namespace(|mut bed| async move {
        let before = state();
        let (device, address) = ("up0".to_owned(), "2001:db8:1::c1a7".parse().unwrap());
        let join = Op::JoinAnycast { device, address };
        assert_eq!(bed.world.undone(&[(7, &join)]).await.unwrap(), [7]);
        let outcome = bed.apply(join.clone()).await;
        // Packets to it must not be the host's own.
        assert!(!sh("ip -6 route show table local").contains("2001:db8:1::c1a7"));
        assert!(sh("cat /proc/thread-self/net/anycast6").contains("20010db800010000000000000000c1a7"));
        assert_eq!(bed.world.undone(&[(7, &join)]).await.unwrap(), [0; 0]);
        sh("ip -6 route add anycast 2001:db8:1::c1a7 dev up0 table local");
        assert_eq!(
            bed.world.undone(&[(7, &join)]).await.unwrap(),
            [7],
            "it would be the host's own"
        );
        sh("ip -6 route del anycast 2001:db8:1::c1a7 dev up0 table local");
        // Done again, as after it was lost.
        bed.apply(join.clone()).await;
        let leave = |device: &str| Op::LeaveAnycast {
            device: device.into(),
            address,
        };
        bed.undo(leave("up0"), &outcome).await;
        assert_eq!(bed.world.undone(&[(7, &join)]).await.unwrap(), [7]);
        assert_unchanged(&before);
        // It is left when this process ends, so another one finds nothing to undo.
        bed.undo(leave("absent0"), &outcome).await;

        let failed = bed.fail(Op::JoinAnycast {
            device: "up0".into(),
            address: "2001:db8:2::c1a7".parse().unwrap(),
        });
        let failed = failed.await;
        assert!(
            chain(&failed).contains("has no prefix with 2001:db8:2::c1a7"),
            "{}",
            chain(&failed)
        );
        let failed = bed.fail(Op::JoinAnycast {
            device: "up0".into(),
            address: "2001:db8:1::2".parse().unwrap(),
        });
        assert!(chain(&failed.await).contains("is an address of this host"));
        bed.apply(join).await;
        drop(bed);
        assert_unchanged(&before);
    });
}

#[test]
fn proxy_neighbours_come_and_go() {
    in_namespace(|mut bed| async move {
        let before = state();
        let (device, address) = ("up0".to_owned(), "2001:db8:1::c1a7".parse().unwrap());
        let outcome = bed
            .apply(Op::AddProxyNeighbour {
                device: device.clone(),
                address,
            })
            .await;
        assert_eq!(json("ip -j -6 neigh show proxy")[0]["dst"], "2001:db8:1::c1a7");
        bed.apply(Op::AddProxyNeighbour {
            device: device.clone(),
            address,
        })
        .await;
        bed.undo(
            Op::RemoveProxyNeighbour {
                device: device.clone(),
                address,
            },
            &outcome,
        )
        .await;
        assert_unchanged(&before);

        sh("ip -6 neigh add proxy 2001:db8:1::c1a7 dev up0");
        let before = state();
        let outcome = bed
            .apply(Op::AddProxyNeighbour {
                device: device.clone(),
                address,
            })
            .await;
        bed.undo(
            Op::RemoveProxyNeighbour {
                device: device.clone(),
                address,
            },
            &outcome,
        )
        .await;
        assert_unchanged(&before);
        // Killed before the outcome was known: the entry does not say that it is ours.
        bed.apply(Op::RemoveProxyNeighbour { device, address }).await;
        assert_unchanged(&before);
    });
}

/// So many rules that the kernel lists them in several messages, and starts anew if they change meanwhile.
#[test]
fn many_instances_add_rules_at_once_where_there_are_many() {
    in_namespace(|bed| async move {
        let others: String = (0..1500)
            .map(|n| {
                format!(
                    "rule add priority {} from 10.0.{}.{} lookup 77\n",
                    10_000 + n,
                    n / 250,
                    n % 250
                )
            })
            .collect();
        sh(&format!("ip -batch - <<END\n{others}END"));
        let adding = (0..150).map(|n| {
            let (exits, _) = unbounded_channel();
            let mut kernel = Kernel::new(format!("test{n}"), bed.netlink.clone(), bed.holds.clone(), exits);
            let rule = Rule {
                ahead: true,
                from: format!("198.18.0.{n}/32").parse().ok(),
                ..rule(false, 464)
            };
            async move { kernel.apply(&Op::AddRule { rule }, None).await }
        });
        for added in join_all(adding).await {
            added.unwrap_or_else(|error| panic!("{}", chain(&error)));
        }
        let rules = bed.netlink.plain_rules(false).await.unwrap();
        assert_eq!(rules.iter().filter(|rule| rule.priority == 464).count(), 150);
        assert_eq!(rules.len(), 3 + 1500 + 150, "none twice");
    });
}
