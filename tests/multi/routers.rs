//! Two routers on one link, of which the preferred one falls silent while packets are sent.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::bed::{Lab, SERVER, Uplink, poll};
use crate::home::{EVERY_UPLINK, PATIENCE, device, gateway_of, leaves_by, raise, start};

/// The link-local address of the second router; the first has one that its device came with.
const SECOND: &str = "fe80::2";

/// One more router on the link of uplink 0, less preferred (RFC 4191), which from now on carries what comes back.
fn second_router(lab: &Lab) {
    let conf = lab.file("second.conf");
    std::fs::write(
        &conf,
        "interface cust2 { AdvSendAdvert on; MinRtrAdvInterval 300; MaxRtrAdvInterval 900; AdvDefaultLifetime 3600;
         AdvDefaultPreference low; };",
    )
    .unwrap();
    let script = format!(
        "ip link add cust2 link cust type macvlan mode bridge && ip link set cust2 addrgenmode none &&
         ip address add {SECOND}/64 dev cust2 nodad && ip address add 3fff:1:0:1::2/64 dev cust2 nodad &&
         ip link set cust2 up &&
         ip -6 route add 3fff:1:0:1::/64 dev cust2 metric 1 &&
         radvd --config {} --pidfile {} --logmethod none",
        conf.display(),
        lab.file("second.pid").display()
    );
    lab.run("isp0", &script).ok("a second router");
    let heard = poll(PATIENCE, || {
        lab.host("ip -6 route show default dev up0")
            .matches("via fe80::")
            .count()
            == 2
    });
    assert!(heard, "{}", lab.host("ip -6 route"));
    // A router may advertise such times. The kernel's own would make this test wait for half a minute.
    lab.host("sysctl -qw net.ipv6.neigh.up0.base_reachable_time_ms=3000 net.ipv6.neigh.up0.delay_first_probe_time=1");
}

fn gateway(lab: &Lab) -> String {
    gateway_of(lab, "clat@up0")
}

/// With constant traffic the neighbour entry of a silent router goes from FAILED to INCOMPLETE at once, again and again.
#[test]
fn a_router_that_falls_silent_under_traffic_is_left_and_returned_to() {
    let lab = raise(&[Uplink::new()]);
    let mut daemon = start(&lab, &[EVERY_UPLINK], 1);
    leaves_by(&lab, Some(&device(0)), 0);
    second_router(&lab);
    let first = gateway(&lab);
    assert!(
        first.starts_with("fe80::") && first != SECOND,
        "the first is preferred: {first}"
    );

    let mut flood = lab
        .command("host")
        .args(["ping", "-n", "-i", "0.01", "-I", &device(0), SERVER])
        .stdout(std::fs::File::create(lab.file("flood")).unwrap())
        .spawn()
        .unwrap();
    let mac = lab
        .run("isp0", "cat /sys/class/net/cust/address")
        .ok("the address of the first");
    lab.run(
        "isp0",
        &format!("nft 'table netdev silent {{ chain in {{ type filter hook ingress device cust priority 0; ether daddr {} drop; }}; }}'
                  ip address del {first}/64 dev cust", mac.trim()),
    )
    .ok("the first falls silent");
    let begin = Instant::now();
    let left = poll(PATIENCE, || gateway(&lab) == SECOND);
    assert!(
        left,
        "{}\n{}",
        lab.host("ip -6 neigh; ip -6 route show table all"),
        daemon.output()
    );
    // Up to 4.5 s reachable, 1 s of delay, three solicitations a second apart; and what a busy machine adds.
    assert!(begin.elapsed() < Duration::from_secs(14), "took {:?}", begin.elapsed());
    leaves_by(&lab, Some(&device(0)), 0);

    // It stays there while the kernel's entry of the first goes back and forth.
    let stays = Instant::now() + Duration::from_secs(10);
    while Instant::now() < stays {
        assert_eq!(gateway(&lab), SECOND, "{}", lab.host("ip -6 neigh"));
        std::thread::sleep(Duration::from_millis(100));
    }

    lab.run(
        "isp0",
        &format!("nft delete table netdev silent && ip address add {first}/64 dev cust nodad"),
    )
    .ok("the first answers again");
    let returned = poll(Duration::from_secs(90), || gateway(&lab) == first);
    assert!(
        returned,
        "{}\n{}",
        lab.host("ip -6 neigh; ip -6 route show table all"),
        daemon.output()
    );
    leaves_by(&lab, Some(&device(0)), 0);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(flood.id().try_into().unwrap()),
        Signal::SIGINT,
    )
    .unwrap();
    flood.wait().unwrap();
    eprintln!(
        "{}",
        lab.read("flood").lines().rev().take(3).collect::<Vec<_>>().join("\n")
    );
    daemon.stop(Signal::SIGTERM);
}
