//! Reachability through one uplink of two. The main default route is the other one's.

use std::net::{Ipv6Addr, TcpListener};
use std::time::{Duration, Instant};

use clatd::probe::{How, ProbeError, answers};

use super::bed::Host;

/// 198.51.100.1 in the well-known prefix.
const SERVER: &str = "64:ff9b::198.51.100.1";

struct Bed {
    us: Host,
    /// What the preferred uplink leads to.
    main: Host,
    /// What the other uplink leads to; it has the server.
    other: Host,
}

impl Bed {
    fn new() -> Self {
        let (us, main, other) = (Host::new(), Host::new(), Host::new());
        for (k, isp) in [&main, &other].into_iter().enumerate() {
            us.link(&format!("up{k}"), isp, "isp");
            isp.sh(&format!(
                "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding; ip addr add 2001:db8:{k}::1/64 dev isp nodad
                until ip -6 route get 2001:db8:{k}::1 2>&1 | grep -q ^local; do sleep 0.02; done"
            ));
            us.sh(&format!(
                "ip addr add 2001:db8:{k}::2/64 dev up{k} nodad
                ip route add default via 2001:db8:{k}::1 dev up{k} metric {}
                until ip -6 route get 2001:db8:{k}::2 2>&1 | grep -q ^local; do sleep 0.02; done",
                100 + k
            ));
        }
        serve(&other);
        Self { us, main, other }
    }

    fn ask(&self, device: &'static str, source: Option<Ipv6Addr>, how: How) -> (bool, Duration) {
        let target = SERVER.parse().unwrap();
        self.us
            .start_async(move || async move {
                let began = Instant::now();
                let answered = answers(device, source, target, how, 3).await.unwrap();
                (answered, began.elapsed())
            })
            .end()
    }
}

/// Gives the server's address to a host. The kernel takes it up a little later.
fn serve(host: &Host) {
    host.sh(&format!(
        "ip addr add {SERVER}/128 dev lo nodad
        until ip -6 route get {SERVER} 2>&1 | grep -q ^local; do sleep 0.02; done"
    ));
}

const EARLY: Duration = Duration::from_millis(2500);
const LATE: Duration = Duration::from_secs(3);

#[test]
fn the_uplink_that_was_named_is_used() {
    let bed = Bed::new();
    bed.main.sh("ip -6 route add blackhole 64:ff9b::/96");
    let own = Some("2001:db8:1::2".parse().unwrap());
    for how in [How::Echo, How::Tcp(7)] {
        assert!(bed.ask("up1", None, how).0, "{how:?}, refused at best");
        assert!(bed.ask("up1", own, how).0, "{how:?} from an address of ours");
        let (answered, took) = bed.ask("up0", None, how);
        assert!(!answered, "{how:?}");
        assert!(took >= LATE && took < Duration::from_secs(8), "{how:?}: {took:?}");
    }
}

#[test]
fn an_open_port_answers() {
    let bed = Bed::new();
    let listener = bed.other.start(|| TcpListener::bind("[::]:8080").unwrap()).end();
    assert!(bed.ask("up1", None, How::Tcp(8080)).0);
    drop(listener);
}

#[test]
fn error_messages_are_a_no_at_once() {
    let bed = Bed::new();
    for kind in ["unreachable", "prohibit"] {
        bed.main.sh(&format!("ip -6 route replace {kind} 64:ff9b::/96"));
        for how in [How::Echo, How::Tcp(7)] {
            let (answered, took) = bed.ask("up0", None, how);
            assert!(!answered && took < EARLY, "{kind}, {how:?}: {took:?}");
        }
        bed.main.sh(&format!("ip -6 route del {kind} 64:ff9b::/96"));
    }
}

#[test]
fn a_firewalls_refusal_is_no_answer() {
    let bed = Bed::new();
    bed.main.sh("nft 'add table ip6 t
            add chain ip6 t f { type filter hook input priority 0; }
            add rule ip6 t f ip6 daddr 64:ff9b::/96 reject with icmpv6 type port-unreachable'");
    serve(&bed.main);
    for how in [How::Echo, How::Tcp(7)] {
        let (answered, took) = bed.ask("up0", None, how);
        assert!(!answered && took < EARLY, "{how:?}: {took:?}");
    }
}

#[test]
fn having_no_route_is_a_no_at_once() {
    let bed = Bed::new();
    for route in ["", "unreachable", "blackhole", "prohibit"] {
        bed.us
            .sh("ip -6 route flush table main proto boot type unicast root ::/0 match ::/0 || true");
        if !route.is_empty() {
            bed.us.sh(&format!("ip -6 route add {route} 64:ff9b::/96"));
        }
        for how in [How::Echo, How::Tcp(7)] {
            let (answered, took) = bed.ask("up1", None, how);
            assert!(!answered && took < EARLY, "`{route}`, {how:?}: {took:?}");
        }
        if !route.is_empty() {
            bed.us.sh(&format!("ip -6 route del {route} 64:ff9b::/96"));
        }
    }
}

#[test]
fn what_cannot_be_asked_is_an_error() {
    let bed = Bed::new();
    let ask = |device: &'static str, source: Option<&str>, target: &str| {
        let (source, target) = (source.map(|source| source.parse().unwrap()), target.parse().unwrap());
        let asked = bed
            .us
            .start_async(move || answers(device, source, target, How::Echo, 1));
        asked.end().unwrap_err()
    };
    for target in ["64:ff9b::192.0.0.170", "2001:db8:c000:ab::"] {
        assert!(
            matches!(ask("up1", None, target), ProbeError::NeverProbed { .. }),
            "{target}"
        );
    }
    assert_eq!(ask("absent0", None, SERVER).to_string(), "absent0 does not exist");
    let foreign = ask("up1", Some("2001:db8:9::9"), SERVER);
    assert!(matches!(foreign, ProbeError::System { .. }), "{foreign:?}");
}
