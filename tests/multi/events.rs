//! What the network does to a host with several uplinks while it is used.

use std::time::Duration;

use crate::bed::{Lab, SERVER, Uplink, poll};
use crate::daemon::Daemon;
use crate::home::{
    EVERY_UPLINK, PATIENCE, assert_plainly_same, best, device, fails_over, gateway_of, isp_file, leaves_by, plain,
    raise, readvertise, running, seen, sorted_state, start, status_of, stop, three,
};
use crate::reload::Download;

/// A CLAT gone bad leaves the IPv4 default route to the next best uplink within this time of the kernel's event.
const FAIL_OVER: Duration = Duration::from_secs(2);
/// What a busy machine may add to it: measuring takes programs that have to be started first.
const SLACK: Duration = Duration::from_millis(1500);

fn ready(lab: &Lab, device: &str) -> bool {
    lab.host(&format!("ip -j -6 address show dev {device}"))
        .contains("\"scope\":\"global\"")
}

/// The first uplink goes down, loses its carrier, loses its router: each time IPv4 goes on by the next, and comes back.
#[test]
fn an_uplink_that_fails_leaves_the_way_to_the_next() {
    let lab = three();
    let before = sorted_state(&lab);
    let mut daemon = start(&lab, &[EVERY_UPLINK], 3);
    leaves_by(&lab, None, 0);

    let failures: [(&str, &str, &str); 3] = [
        ("host", "ip link set up0 down", "ip link set up0 up"),
        (
            "isp0",
            "sysctl -qw net.ipv6.conf.cust.keep_addr_on_down=1; ip link set cust down",
            "ip link set cust up",
        ),
        ("host", "ip -6 route del default dev up1", ""),
    ];
    for (node, down, up) in failures {
        let first = best(&lab).expect("a default route");
        let k: usize = first.trim_start_matches("clat-up").parse().unwrap();
        // Those behind the first one move up; which of them is next is the order of the IPv6 default routes.
        let node = if node == "host" {
            node.to_owned()
        } else {
            format!("isp{k}")
        };
        let down = down.replace("up0", &format!("up{k}")).replace("up1", &format!("up{k}"));
        let up = up.replace("up0", &format!("up{k}"));
        lab.run(&node, &down).ok(&down);
        let begin = std::time::Instant::now();
        let moved = poll(PATIENCE, || best(&lab).is_some_and(|now| now != first));
        assert!(moved, "{down}: {first} stays the best:\n{}", lab.host("ip route"));
        assert!(
            begin.elapsed() <= FAIL_OVER + SLACK,
            "{down}: took {:?}",
            begin.elapsed()
        );
        // Which of the others is next settles in a moment: each takes its new place by itself.
        let by_best = || {
            let next: Option<usize> = best(&lab).and_then(|next| next.trim_start_matches("clat-up").parse().ok());
            next.is_some_and(|next| next != k && seen(&lab, None) == Some(next))
        };
        assert!(poll(PATIENCE, by_best), "{down}: {}", lab.host("ip route"));
        if up.is_empty() {
            readvertise(&lab, k);
        } else {
            lab.run(&node, &up).ok(&up);
        }
        running(&lab, &mut daemon, 3);
        leaves_by(&lab, Some(&device(k)), k);
    }
    assert!(poll(PATIENCE, || ready(&lab, "up0")));
    stop(&lab, &mut daemon, &before, &[]);
}

/// A router that brings something for the CLAT right when its carrier is back, for packets that had waited, asks for the
/// CLAT's address before that is there, and would ask again a second later only. It is told, so that nothing has to wait.
#[test]
fn an_uplink_that_is_back_lets_nothing_wait_for_its_router() {
    let lab = raise(&[Uplink::new(), Uplink::new()]);
    lab.run("isp0", "sysctl -qw net.ipv6.conf.cust.keep_addr_on_down=1")
        .ok("the router keeps its address");
    let before = sorted_state(&lab);
    let mut daemon = start(&lab, &[EVERY_UPLINK, "plat-prefix=64:ff9b::/96"], 2);
    leaves_by(&lab, None, 0);
    lab.run("isp0", "ip link set cust down").ok("carrier lost");
    fails_over(&lab, &device(1), FAIL_OVER + SLACK);
    leaves_by(&lab, None, 1);

    let mut traffic = lab
        .command("host")
        .args([
            "python3",
            "-u",
            concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lab-net.py"),
        ])
        .args(["outage", SERVER, "--limit", "5"])
        .stdout(std::fs::File::create(lab.file("outage")).unwrap())
        .spawn()
        .unwrap();
    assert!(poll(PATIENCE, || lab.read("outage").contains("up ")));
    // Somebody out there goes on sending to the CLAT's address, for as long as it takes to be on line again.
    let derived = crate::bed::DERIVED_V6;
    let mut sender = lab
        .command("isp0")
        .args(["timeout", "20", "sh", "-c"])
        .arg(format!(
            "until ip route get {derived} oif cust; do sleep 0.01; done; ping -n -c 1 -W 1 {derived}"
        ))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    lab.run("isp0", "ip link set cust up").ok("carrier back");
    let back = poll(PATIENCE, || best(&lab) == Some(device(0)));
    assert!(back, "{}\n{}", lab.host("ip route; ip -6 address"), daemon.output());
    std::thread::sleep(Duration::from_secs(2));
    traffic.kill().unwrap();
    traffic.wait().unwrap();
    // Nothing answers, for it is no PLAT that asks.
    assert_eq!(sender.wait().unwrap().code(), Some(1), "it could ask");
    let gaps = lab.read("outage");
    let longest = gaps
        .lines()
        .filter_map(|line| line.strip_prefix("gap ")?.parse::<f64>().ok())
        .fold(0.0, f64::max);
    assert!(longest < 0.5, "nothing for {longest} s:\n{gaps}");
    assert_eq!(seen(&lab, None), Some(0));
    stop(&lab, &mut daemon, &before, &[]);
}

/// An uplink that is unplugged, withdrawn by its router, without addresses, or whose router is silent: each time the best
/// IPv4 default route leaves it in time (of a silent router from when the kernel knows it), and returns.
#[test]
fn whatever_fails_the_default_route_leaves_in_time() {
    let lab = raise(&[Uplink::new(), Uplink::new()]);
    let before = plain(sorted_state(&lab));
    shorten_answers(&lab);
    let mut daemon = start(&lab, &[EVERY_UPLINK], 2);
    for failure in failures(&lab) {
        running(&lab, &mut daemon, 2);
        is_best(&lab, &daemon, 0, failure.what);
        let silent = failure.what == "silent";
        if silent {
            // An entry that is there already keeps its time: what passes confirms it, as it does with native IPv6.
            time_neighbours(&lab, 3000, 1);
            lab.host("ip -6 neigh flush dev up0");
        }
        leaves_by(&lab, None, 0);
        let mut traffic = lab
            .command("host")
            .args(["ping", "-q", "-n", "-i", "0.01", SERVER])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        lab.run(failure.node, &failure.fail).ok(failure.what);
        left_in_time(&lab, &daemon, &failure);
        leaves_by(&lab, None, 1);
        lab.run("isp0", &failure.restore).ok(failure.what);
        is_best(&lab, &daemon, 0, failure.what);
        leaves_by(&lab, None, 0);
        if silent {
            time_neighbours(&lab, 30000, 5);
        }
        traffic.kill().unwrap();
        traffic.wait().unwrap();
    }
    assert!(poll(PATIENCE, || ready(&lab, "up0")));
    let ran = daemon.stop(nix::sys::signal::Signal::SIGTERM);
    assert_plainly_same(&lab, &before, &ran.to_string());
}

/// DNS answers that end soon: a question that cannot be answered must not delay anything.
fn shorten_answers(lab: &Lab) {
    let (zone, named) = (isp_file(lab, 0, "ipv4only.zone"), isp_file(lab, 0, "named.conf"));
    let (zone, named) = (zone.display(), named.display());
    lab.run(
        "isp0",
        &format!(
            "sed -i 's/TTL 60/TTL 5/' {zone} && touch -d '+1 minute' {zone} && kill -HUP $(pgrep -f '^named .*{named}')"
        ),
    )
    .ok("a short TTL");
    let ttl_is_short = || {
        lab.host("dig +noall +answer @3fff:1::53 ipv4only.arpa AAAA")
            .contains("\t5\t")
    };
    let short = poll(PATIENCE, ttl_is_short);
    assert!(short, "{}", lab.host("dig @3fff:1::53 ipv4only.arpa AAAA"));
}

/// What happens to the first uplink.
struct Failure {
    what: &'static str,
    /// Where `fail` is run.
    node: &'static str,
    fail: String,
    /// The commands of the ISP that mend it.
    restore: String,
}

fn failures(lab: &Lab) -> [Failure; 4] {
    let (conf, pid) = (isp_file(lab, 0, "radvd.conf"), isp_file(lab, 0, "radvd.pid"));
    let radvd = std::fs::read_to_string(&conf).unwrap();
    let advertise = |name: &str, text: &str| {
        let file = lab.file(name);
        std::fs::write(&file, text).unwrap();
        format!(
            "cat {} >{} && kill -HUP $(cat {})",
            file.display(),
            conf.display(),
            pid.display()
        )
    };
    let withdrawn = radvd.replace("AdvDefaultLifetime 3600", "AdvDefaultLifetime 0");
    let lab_name = crate::home::name(lab);
    let host = format!("{lab_name}-host");
    [
        Failure {
            what: "unplugged",
            node: "host",
            fail: format!("ip link set up0 netns {lab_name}-isp0"),
            restore: format!("ip link set up0 netns {host} && ip -n {host} link set up0 up"),
        },
        Failure {
            what: "withdrawn",
            node: "isp0",
            fail: advertise("withdrawn.conf", &withdrawn),
            restore: advertise("radvd.conf", &radvd),
        },
        Failure {
            what: "no address",
            node: "host",
            fail: "ip -6 address flush dev up0 scope global".to_owned(),
            restore: advertise("radvd.conf", &radvd),
        },
        Failure {
            what: "silent",
            node: "isp0",
            fail: "nft 'table netdev silent { chain in { type filter hook ingress device cust priority 0; drop; }; }'"
                .to_owned(),
            restore: "nft delete table netdev silent".to_owned(),
        },
    ]
}

/// How long the kernel believes in a neighbour, and how soon it asks it again.
fn time_neighbours(lab: &Lab, reachable_ms: u32, delay_s: u32) {
    let neighbours = "net.ipv6.neigh.up0";
    lab.host(&format!(
        "sysctl -qw {neighbours}.base_reachable_time_ms={reachable_ms} {neighbours}.delay_first_probe_time={delay_s}"
    ));
}

fn is_best(lab: &Lab, daemon: &Daemon, uplink: usize, what: &str) {
    assert!(
        poll(PATIENCE, || best(lab) == Some(device(uplink))),
        "{what}: {}\n{}",
        lab.host("ip route; ip -6 neigh"),
        daemon.output()
    );
}

/// Waits until the default route has left the first uplink, and sees how long that took. The time of a silent router counts
/// from when the kernel knows it.
fn left_in_time(lab: &Lab, daemon: &Daemon, failure: &Failure) {
    let what = failure.what;
    let kernel_knows = || {
        lab.host("ip -6 neigh show dev up0 nud failed; ip -6 neigh show dev up0 nud incomplete")
            .contains("fe80::")
    };
    let mut begin = std::time::Instant::now();
    let moved = poll(PATIENCE, || {
        if what == "silent" && !kernel_knows() {
            begin = std::time::Instant::now();
        }
        best(lab) == Some(device(1))
    });
    let took = begin.elapsed();
    assert!(
        moved,
        "{what}: {}\n{}",
        lab.host("ip route; ip -6 neigh"),
        daemon.output()
    );
    assert!(took <= FAIL_OVER + SLACK, "{what}: took {took:?}");
}

/// What runs on one uplink does not suffer from another that comes and goes.
#[test]
fn a_download_survives_another_uplink_that_flaps() {
    let lab = raise(&[Uplink::new(), Uplink::new()]);
    let before = sorted_state(&lab);
    let mut daemon = start(&lab, &[EVERY_UPLINK], 2);
    let download = Download::begin(&lab, &device(1));
    for _ in 0..2 {
        lab.host("ip link set up0 down");
        fails_over(&lab, &device(1), FAIL_OVER + SLACK);
        daemon.wait_for("the end of the other", || {
            lab.run("host", "ip link show clat-up0").code != Some(0)
        });
        lab.host("ip link set up0 up");
        running(&lab, &mut daemon, 2);
        leaves_by(&lab, Some(&device(0)), 0);
    }
    download.arrives_whole();
    stop(&lab, &mut daemon, &before, &[]);
}

/// The ISP's radvd announces another prefix and deprecates the old one.
#[test]
fn renumbering_is_followed() {
    let lab = raise(&[Uplink::new(), Uplink::new()]);
    let mut daemon = start(&lab, &[EVERY_UPLINK], 2);
    leaves_by(&lab, Some(&device(0)), 0);
    let download = Download::begin(&lab, &device(1));
    let file = isp_file(&lab, 0, "radvd.conf");
    let text = std::fs::read_to_string(&file).unwrap();
    let (old, new) = (
        "prefix 3fff:1:0:1::/64 { AdvValidLifetime 86400; AdvPreferredLifetime 14400; };",
        "prefix 3fff:1:0:1::/64 { AdvValidLifetime 86400; AdvPreferredLifetime 0; };
         prefix 3fff:1:0:2::/64 { AdvValidLifetime 86400; AdvPreferredLifetime 14400; };",
    );
    assert!(text.contains(old), "{text}");
    std::fs::write(&file, text.replace(old, new)).unwrap();
    lab.run("isp0", "ip address add 3fff:1:0:2::1/64 dev cust nodad")
        .ok("new prefix");
    readvertise(&lab, 0);
    daemon.wait_for("an address of the new prefix", || {
        let status = status_of(&lab, "clat@up0");
        status["state"] == "running"
            && status["addresses"][1]
                .as_str()
                .is_some_and(|v6| v6.starts_with("3fff:1:0:2:"))
    });
    leaves_by(&lab, Some(&device(0)), 0);
    leaves_by(&lab, Some("192.0.0.1"), 0);
    download.arrives_whole();

    // Nothing of either address is left, on nobody's device.
    daemon.stop(nix::sys::signal::Signal::SIGTERM);
    nothing_of_ours(&lab);
}

/// The router's link-local address changes: announced by a farewell of the old one, or found out the hard way.
#[test]
fn another_gateway_is_followed() {
    let lab = raise(&[Uplink::new(), Uplink::new()]);
    let mut daemon = start(&lab, &[EVERY_UPLINK], 2);
    let download = Download::begin(&lab, &device(1));

    let gateway = |new: &str| {
        format!(
            "old=$(ip -6 -o address show dev cust scope link | sed -E 's/.*inet6 ([^ ]+).*/\\1/');
             ip address add {new}/64 dev cust nodad && ip address del $old dev cust"
        )
    };
    // The old one says farewell (router lifetime 0), the new one is there a moment later.
    let conf = isp_file(&lab, 0, "radvd.conf");
    let pid = isp_file(&lab, 0, "radvd.pid");
    let (conf, pid) = (conf.display(), pid.display());
    lab.run(
        "isp0",
        &format!("kill $(cat {pid}); while kill -0 $(cat {pid}); do sleep 0.1; done 2>/dev/null; true"),
    )
    .ok("radvd ends");
    lab.run("isp0", &gateway("fe80::77")).ok("another link-local address");
    lab.run(
        "isp0",
        &format!("radvd --config {conf} --pidfile {pid} --logmethod none"),
    )
    .ok("radvd");
    follows(&lab, &mut daemon, "fe80::77");

    // The old one falls silent. Only the neighbour cache learns that, and the CLAT must leave with the kernel.
    lab.run("isp0", &gateway("fe80::78")).ok("another link-local address");
    readvertise(&lab, 0);
    assert!(poll(PATIENCE, || lab
        .host("ip -6 route show default dev up0")
        .contains("fe80::78")));
    lab.host("ip -6 neigh flush dev up0");
    // One packet finds out that the old one is gone. (While more come, the kernel asks for it again and again, and
    // takes it for a gateway meanwhile.)
    let found = (0..6).any(|_| {
        lab.run("host", &format!("ping -n -c 1 -W 1 -I {} {SERVER}", device(0)));
        poll(Duration::from_secs(8), || gateway_of(&lab, "clat@up0") == "fe80::78")
    });
    assert!(
        found,
        "the CLAT follows the kernel to the other gateway:\n{}\n{}",
        gateway_of(&lab, "clat@up0"),
        daemon.output()
    );
    leaves_by(&lab, Some(&device(0)), 0);
    download.arrives_whole();
    daemon.stop(nix::sys::signal::Signal::SIGTERM);
    nothing_of_ours(&lab);
}

fn follows(lab: &Lab, daemon: &mut Daemon, gateway: &str) {
    daemon.wait_for(&format!("traffic by {gateway}"), || {
        // The traffic is what finds out that the old gateway is gone.
        let by = seen(lab, Some(&device(0)));
        by == Some(0) && gateway_of(lab, "clat@up0") == gateway
    });
}

/// After an event that changed the host for good there is no state to compare with; but nothing of ours may be left.
fn nothing_of_ours(lab: &Lab) {
    let state = sorted_state(lab);
    let ours: Vec<_> = state
        .iter()
        .filter(|line| line.contains("clat") || line.contains("\"protocol\":\"46\"") || line.contains("49575"))
        .collect();
    assert!(ours.is_empty(), "{ours:#?}");
    let sysctls = lab.host("sysctl -n net.ipv6.conf.up0.forwarding net.ipv6.conf.up0.accept_ra net.ipv6.conf.up0.proxy_ndp net.ipv6.conf.all.forwarding");
    assert_eq!(sysctls, "0\n1\n0\n0\n");
    assert_eq!(lab.host("ip -6 neigh show proxy"), "");
    lab.assert_no_process_left("after the stop");
}
