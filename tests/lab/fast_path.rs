//! The fast path in the kernel: traffic of all sorts at once, and a host to which nothing is done.

use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::bed::{Lab, SERVER, Uplink, poll};
use crate::daemon::{Daemon, around, clatd};
use crate::traffic;

pub const FAST: &str = "translator=ebpf";

/// Takes the programs of a daemon off the devices of this name, as somebody with the rights of root can.
const DETACH: &str = r#"
import ctypes, glob, os, re, sys
libc, attribute = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(16)
def bpf(command, number):
    attribute[:4] = number.to_bytes(4, sys.byteorder)
    result = libc.syscall(321, command, attribute, 16)
    if result < 0: raise OSError(ctypes.get_errno(), "bpf")
    return result
for info in glob.glob(f"/proc/{sys.argv[1]}/fdinfo/*"):
    found = dict(re.findall(r"(\w+):\s*(\S+)", open(info).read()))
    if found.get("link_type") == "tcx" and found.get("ifindex") == sys.argv[2]:
        descriptor = bpf(30, int(found["link_id"]))  # BPF_LINK_GET_FD_BY_ID
        bpf(34, descriptor)  # BPF_LINK_DETACH
        print("detached", found["link_id"])
"#;

/// Takes them off one device: links of TCX, or filters of clsact where the kernel has no TCX.
pub fn take_off(lab: &Lab, daemon: &Daemon, device: &str) {
    let detach = lab.file("detach.py");
    std::fs::write(&detach, DETACH).unwrap();
    let done = lab.host(&format!(
        "python3 {} {} $(cat /sys/class/net/{device}/ifindex)
         for way in ingress egress; do tc filter del dev {device} $way 2>/dev/null && echo detached; done; true",
        detach.display(),
        daemon.pid()
    ));
    assert!(done.contains("detached"), "{done}");
}

/// What the fast path counted for the one instance.
pub fn counted(lab: &Lab, pointer: &str) -> u64 {
    let counters = counters(lab);
    let value = counters.pointer(pointer).and_then(serde_json::Value::as_u64);
    value.unwrap_or_else(|| panic!("no {pointer} in {counters}"))
}

fn counters(lab: &Lab) -> serde_json::Value {
    let status = clatd(lab, &["status", "--json"]).ok("status");
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    status["instances"][0]["counters"]["fast_path"].clone()
}

/// What a CLAT must not touch with the fast path. Sysctls of the CLAT's device are its own, and the anycast address is in
/// table local.
pub fn of_others(lab: &Lab) -> String {
    lab.host(
        "sysctl -a 2>/dev/null | grep '^net.ipv[46].*\\(conf\\|neigh\\)' | grep -v '[./]clat[./]'
        ip -6 rule; ip -6 neigh show proxy; nft list ruleset
        ip -6 route show table all | grep -v '^anycast' | grep -v ' dev clat ' | sed 's/ expires [0-9]*sec//'",
    )
}

#[test]
fn plain_packets_take_it_and_all_others_arrive_too() {
    let lab = Lab::raise(&Uplink::new());
    around(&lab, &[FAST], |_: &mut Daemon| {
        traffic::works(&lab);
        traffic::udp_without_checksum(&lab, 100);
        for way in [
            "/4to6/packets/tcp",
            "/6to4/packets/tcp",
            "/4to6/packets/icmp",
            "/6to4/packets/udp",
        ] {
            assert!(counted(&lab, way) > 0, "{way}");
        }
        // Fragments that the translator has to cut.
        assert!(counted(&lab, "/4to6/left/too-big") > 0);
        assert!(counted(&lab, "/4to6/left/no-checksum") > 0);
    });
}

/// Both ways, since the server sends back what it gets.
#[test]
fn fragments_take_it_where_they_fit() {
    let lab = Lab::raise(&Uplink::new());
    let settings = [FAST, "v4-defaultroute-mtu=auto", "lowest-ipv6-mtu=1500"];
    around(&lab, &settings, |_: &mut Daemon| {
        // The first datagram of a size may be lost while a path MTU is found.
        traffic::udp(&lab, &[3000]);
        let before = ["/4to6/packets/udp", "/6to4/packets/udp"].map(|way| counted(&lab, way));
        traffic::udp(&lab, &[3000, 9000, 60_000]);
        for (way, before) in ["4to6", "6to4"].into_iter().zip(before) {
            let fragments = counted(&lab, &format!("/{way}/packets/udp")) - before;
            assert!(fragments >= 3 + 7 + 42, "{way}: {fragments}");
            let left = &counters(&lab)[way]["left"];
            assert!(
                left.get("fragment").is_none() && left.get("too-big").is_none(),
                "{way}: {left}"
            );
        }
    });
}

/// Ten datagrams that the host gives to the kernel at once (UDP_SEGMENT), which their echoes show to be all there.
#[test]
fn datagrams_given_at_once_take_it_as_one_packet() {
    let lab = Lab::raise(&Uplink::new());
    around(&lab, &[FAST], |_: &mut Daemon| {
        traffic::ping(&lab);
        let before = counted(&lab, "/4to6/packets/udp");
        let got = lab.host(&format!(
            "python3 -c '
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
s.setsockopt(17, 103, 1000)
s.connect((\"{SERVER}\", 7))
s.send(bytes(10000))
print(sum(len(s.recv(2000)) for _ in range(10)))'"
        ));
        assert_eq!(got.trim(), "10000");
        assert_eq!(counted(&lab, "/4to6/packets/udp") - before, 1);
    });
}

#[test]
fn nothing_of_the_hosts_is_touched_and_no_filter_is_in_the_way() {
    let lab = Lab::raise(&Uplink::new());
    lab.host(
        "nft add table ip6 strict; nft add chain ip6 strict forward '{ type filter hook forward priority 0; policy drop; }'",
    );
    let before = of_others(&lab);
    around(&lab, &[FAST], |_| {
        assert_eq!(of_others(&lab), before, "while it runs");
        thread::scope(|scope| {
            let lab = &lab;
            scope.spawn(|| traffic::download(lab, 100_000_000));
            scope.spawn(|| traffic::udp(lab, &[0, 1, 1200, 1232, 1233, 1472, 1473, 3000, 9000, 20_000, 60_000]));
            scope.spawn(|| {
                traffic::udp_without_checksum(lab, 100);
                traffic::udp_without_checksum(lab, 1000);
                traffic::traceroute(lab, "192.0.0.2");
                // Options, and an error about a port without a listener.
                lab.host(&format!("ping -n -c 3 -i 0.2 -R -W 2 {SERVER}"));
                let ran = lab.run("host", &format!("curl -sS -m 5 http://{SERVER}:81/"));
                assert_eq!(ran.code, Some(7), "refused, not timed out: {ran}");
            });
        });
        traffic::upload(&lab, 100_000_000);
        assert_eq!(of_others(&lab), before, "after traffic");
    });
}

#[test]
fn nothing_is_attached_once_it_was_killed() {
    let lab = Lab::raise(&Uplink::new());
    let before = lab.state();
    let mut daemon = Daemon::up(&lab, &[FAST]);
    traffic::ping(&lab);
    // Filters of clsact, by which it is done before Linux 6.6, stay until the clean-up.
    let by_links = daemon.output().contains("attached by TCX");
    daemon.kill();
    let attached = || lab.host("tc filter show dev up0 ingress; ip -d link show dev up0");
    assert!(attached().contains("clatd_") != by_links, "{}", attached());
    clatd(&lab, &["cleanup"]).ok("cleanup");
    assert!(!attached().contains("clatd_"), "{}", attached());
    lab.assert_state_is(&before, "after a kill and cleanup");
}

#[test]
fn it_goes_on_while_the_daemon_is_stopped() {
    let lab = Lab::raise(&Uplink::new());
    around(&lab, &[FAST], |daemon| {
        traffic::ping(&lab);
        daemon.signal(Signal::SIGSTOP);
        traffic::ping(&lab);
        traffic::download(&lab, 10_000_000);
        daemon.signal(Signal::SIGCONT);
    });
}

#[test]
fn a_neighbour_that_asks_is_answered_at_once() {
    let lab = Lab::raise(&Uplink::new());
    around(&lab, &[FAST], |_| {
        traffic::ping(&lab);
        for _ in 0..5 {
            lab.run("isp0", "ip -6 neigh flush to 3fff:1:0:1:0:5ec1:a700:101")
                .ok("flush");
            // The kernel waits up to 0.8 s for others to answer first, 0.4 s on average.
            assert!(
                poll(Duration::from_millis(1), || lab
                    .run("host", &format!("ping -n -c 1 -W 0.3 {SERVER}"))
                    .code
                    == Some(0)),
                "the first packet after a flush"
            );
        }
    });
}

/// Sends echo requests from the PLAT's side in frames with a tag: how many, with which tag, with options or without.
const TAGGED: &str = r#"
import socket, struct, sys
device, to, count, tag, options = sys.argv[1], bytes.fromhex(sys.argv[2].replace(":", "")), *map(int, sys.argv[3:])
source = socket.inet_pton(socket.AF_INET6, "64:ff9b::192.88.99.10")
target = socket.inet_pton(socket.AF_INET6, "3fff:1:0:1:0:5ec1:a700:101")
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
link.bind((device, 0))
for number in range(count):
    echo = struct.pack("!BBHHH", 128, 0, 0, 464, number) + bytes(56)
    words = source + target + struct.pack("!II", len(echo), 58) + echo
    total = sum(struct.unpack(f"!{len(words) // 2}H", words))
    while total >> 16: total = (total & 0xffff) + (total >> 16)
    echo = echo[:2] + struct.pack("!H", ~total & 0xffff) + echo[4:]
    behind = (bytes((58, 0, 1, 4, 0, 0, 0, 0)) if options else b"") + echo
    head = struct.pack("!IHBB", 6 << 28, len(behind), 60 if options else 58, 64) + source + target
    frame = to + link.getsockname()[4] + struct.pack("!HHH", 0x8100, tag, 0x86dd)
    link.send(frame + head + behind)
"#;

/// A tag with the number 0 only says a priority (IEEE 802.1Q): such a packet comes in by the device without a tag. Packets
/// that the engine gets come without theirs.
#[test]
fn frames_with_a_priority_come_in() {
    let lab = Lab::raise(&Uplink::new());
    let script = lab.file("tagged.py");
    std::fs::write(&script, TAGGED).unwrap();
    let address = lab.host("cat /sys/class/net/up0/address");
    around(&lab, &[FAST], |_: &mut Daemon| {
        traffic::ping(&lab);
        let now = || ["/6to4/packets/icmp", "/4to6/packets/icmp"].map(|way| counted(&lab, way));
        let send = |count: u64, tag: u16, options: u8| {
            let words = format!("cust {} {count} {tag} {options}", address.trim());
            lab.run("isp0", &format!("python3 {} {words}", script.display()))
                .ok("frames");
        };
        let before = now();
        send(3, 0x6000, 0);
        send(2, 0xa000, 1);
        // The engine translates two of the five; the host answers all.
        let expected = [before[0] + 3, before[1] + 5];
        assert!(
            poll(Duration::from_secs(5), || now() == expected),
            "{:?} is not {expected:?}",
            now()
        );
        send(2, 0x6005, 0);
        traffic::ping(&lab);
        assert_eq!(now(), expected.map(|count| count + 3), "frames of another network");
    });
}

/// Nobody tells when a program is taken off; it is looked after every ten seconds.
#[test]
fn programs_that_somebody_takes_off_are_put_back() {
    let lab = Lab::raise(&Uplink::new());
    around(&lab, &[FAST, "when-idle=wait"], |daemon| {
        traffic::ping(&lab);
        for device in ["up0", "clat"] {
            take_off(&lab, daemon, device);
            daemon.wait_for("the program to be back", || {
                lab.run("host", &format!("ping -n -c 1 -W 1 {SERVER}")).code == Some(0)
            });
            assert!(daemon.output().contains("somebody undid it"), "{}", daemon.output());
        }
        traffic::works(&lab);
    });
}

/// Another router takes over: one write to a map, and nothing else is done anew.
#[test]
fn the_next_hop_follows_the_gateway() {
    let lab = Lab::raise(&Uplink::new());
    // The second router goes on advertising itself, so the host is not compared.
    let mut daemon = Daemon::up(&lab, &[FAST, "when-idle=wait"]);
    traffic::ping(&lab);
    let index = lab.host("cat /sys/class/net/clat/ifindex");
    // The router's other address, of which nobody knew.
    lab.run("isp0", "ip -6 address add fe80::77/64 dev cust nodad")
        .ok("another address");
    lab.host("ip -6 route add default via fe80::77 dev up0 metric 1");
    let gateway = || {
        let status = clatd(&lab, &["status", "--json"]).ok("status");
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        status["instances"][0]["facts"]["plat_gateway"]["value"].clone()
    };
    assert!(
        poll(Duration::from_secs(20), || gateway() == "fe80::77"),
        "{}\n{}\n{}",
        gateway(),
        lab.host("ip -6 route; ip -6 neigh"),
        daemon.output()
    );
    traffic::works(&lab);
    assert_eq!(lab.host("cat /sys/class/net/clat/ifindex"), index, "the device stayed");
    daemon.stop(Signal::SIGTERM);
}

/// Works on this device, which `make` puts on up0 or in its place, and which has its address and routes from the same
/// router.
pub fn works_on(lab: &Lab, device: &str, make: &str) {
    lab.host(&format!(
        "{make} && if [ -e /sys/class/net/up0 ]; then sysctl -qw net.ipv6.conf.up0.accept_ra=0 && ip -6 address flush dev up0; fi &&
         ip link set {device} up"
    ));
    let on_line = || {
        let routes = lab.host(&format!(
            "ip -6 route show default dev {device}; ip -6 address show dev {device} scope global"
        ));
        routes.contains("via") && routes.contains("inet6") && !routes.contains("tentative")
    };
    lab.advertise();
    assert!(
        poll(Duration::from_secs(20), on_line),
        "{}",
        lab.host("ip -6 address; ip -6 route")
    );
    lab.host("ip -6 route del default dev up0 2>/dev/null || true");
    // The timers of a bridge, which run on, are no part of what clatd must leave as it was.
    let mut daemon = Daemon::up(lab, &[&format!("plat-dev={device}")]);
    traffic::works(lab);
    assert!(counted(lab, "/4to6/packets/tcp") > 0);
    assert!(counted(lab, "/6to4/packets/tcp") > 0);
    daemon.stop(Signal::SIGTERM);
}

#[test]
fn the_uplink_may_be_a_bridge() {
    works_on(
        &Lab::raise(&Uplink::new()),
        "br0",
        "ip link add br0 address $(cat /sys/class/net/up0/address) type bridge && ip link set up0 master br0",
    );
}

#[test]
fn the_uplink_may_be_a_macvlan() {
    works_on(
        &Lab::raise(&Uplink::new()),
        "mv0",
        "ip link add mv0 link up0 type macvlan mode bridge",
    );
}

/// A TUN device at either end, and packets carried from one to the other: RAWIP, as modems have it, or any other kind.
const TUNNEL: &str = r#"
import ctypes, fcntl, os, select, struct, sys
host, isp, device, kind = sys.argv[1:5]
def tun(netns):
    with open(f"/run/netns/{netns}") as file:
        assert ctypes.CDLL(None).setns(file.fileno(), 0x40000000) == 0  # CLONE_NEWNET
    end = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(end, 0x400454ca, struct.pack("16sH22x", device.encode(), 0x1001))  # TUNSETIFF: IFF_TUN, IFF_NO_PI
    fcntl.ioctl(end, 0x400454cd, int(kind))  # TUNSETLINK
    return end
ends = [tun(host), tun(isp)]
print("made", flush=True)
while True:
    for end in select.select(ends, [], [])[0]:
        packet = os.read(end, 1 << 16)
        try: os.write(ends[1 - ends.index(end)], packet)
        except OSError: pass
"#;

/// The ends of it; they go when this is dropped.
struct Tunnel(Child);

impl Tunnel {
    /// From the host to its ISP, with an address and a default route of this metric.
    fn raise(lab: &Lab, device: &str, kind: u16, metric: u32) -> Self {
        let script = lab.file("tunnel.py");
        std::fs::write(&script, TUNNEL).unwrap();
        let [host, isp] = ["host", "isp0"].map(|node| {
            let command = lab.command(node);
            let words: Vec<_> = command
                .get_args()
                .map(|word| word.to_string_lossy().into_owned())
                .collect();
            words[2].clone()
        });
        let child = Command::new("python3")
            .arg(&script)
            .args([&host, &isp, device, &kind.to_string()])
            .spawn()
            .unwrap();
        let tunnel = Self(child);
        let made = || lab.run("isp0", &format!("ip link show {device}")).code == Some(0);
        assert!(poll(Duration::from_secs(10), made), "no {device}");
        lab.run(
            "isp0",
            &format!("ip link set {device} up && ip -6 route add 3fff:1:0:9::/64 dev {device}"),
        )
        .ok("the end of the ISP");
        lab.host(&format!(
            "ip link set {device} up && ip -6 address add 3fff:1:0:9::2/64 dev {device} nodad &&
             ip -6 route add default dev {device} metric {metric}"
        ));
        tunnel
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

const RAWIP: u16 = 519;
/// A kind of devices that the programs do not know: SLIP.
const STRANGE: u16 = 256;

#[test]
fn the_uplink_may_have_no_link_layer() {
    let lab = Lab::raise(&Uplink::new());
    let _tunnel = Tunnel::raise(&lab, "raw0", RAWIP, 2000);
    let words = ["plat-dev=raw0", "plat-prefix=64:ff9b::/96"];
    around(&lab, &words, |_| {
        traffic::works(&lab);
        traffic::udp_without_checksum(&lab, 100);
        traffic::traceroute(&lab, "192.0.0.2");
        for way in ["/4to6/packets/tcp", "/6to4/packets/tcp", "/4to6/left/no-checksum"] {
            assert!(counted(&lab, way) > 0, "{way}");
        }
        assert!(lab.host("ip -s -j link show dev raw0").contains("raw0"));
    });
}

/// Who translates, and why.
pub fn translator(lab: &Lab) -> (String, String) {
    let status = clatd(lab, &["status", "--json"]).out;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_default();
    let translator = &status["instances"][0]["translator"];
    let text = |field: &str| translator[field].as_str().unwrap_or_default().to_owned();
    (text("kind"), text("why"))
}

/// The uplink moves to a device that the programs do not know, and back.
#[test]
fn the_userspace_translator_takes_over_where_the_programs_cannot() {
    let lab = Lab::raise(&Uplink::new());
    let mut daemon = Daemon::up(&lab, &["when-idle=wait", "plat-prefix=64:ff9b::/96"]);
    assert_eq!(translator(&lab).0, "ebpf");
    let tunnel = Tunnel::raise(&lab, "odd0", STRANGE, 2000);
    lab.host("ip link set up0 down");
    daemon.wait_for("the userspace translator", || translator(&lab).0 == "userspace");
    let why = translator(&lab).1;
    assert!(
        why.contains("no fast path: odd0 is a device of an unknown kind"),
        "{why}"
    );
    daemon.wait_for("IPv4 by it", || {
        lab.run("host", &format!("ping -n -c 1 -W 1 {SERVER}")).code == Some(0)
    });
    traffic::works(&lab);
    drop(tunnel);
    lab.host("ip link set up0 up");
    lab.advertise();
    daemon.wait_for("the fast path", || translator(&lab).0 == "ebpf");
    daemon.wait_for("IPv4 by it", || {
        lab.run("host", &format!("ping -n -c 1 -W 1 {SERVER}")).code == Some(0)
    });
    traffic::works(&lab);
    daemon.stop(Signal::SIGTERM);
}
