//! The CLAT shares the host's only address: the map of flows in the fast path tells whose a packet is.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use nix::sys::signal::Signal;

use crate::bed::{Lab, SERVER, Uplink};
use crate::daemon::{Daemon, around, clatd};
use crate::fast_path::{FAST, counted, of_others, take_off};
use crate::traffic;

/// The server as the host's own IPv6 knows it.
const SERVER6: &str = "64:ff9b::192.88.99.10";

/// The host has one address and no prefix, as many virtual servers have.
fn raise(uplink: &Uplink) -> Lab {
    let lab = Lab::raise(uplink);
    lab.host(
        "address=$(ip -6 -j addr show dev up0 scope global | jq -r '.[0].addr_info[0].local'); \
         gateway=$(ip -6 -j route show default | jq -r '.[0].gateway'); sysctl -qw net.ipv6.conf.up0.accept_ra=0; \
         ip -6 addr flush dev up0 scope global; ip -6 addr add $address/128 dev up0 nodad; \
         ip -6 route replace default via $gateway dev up0",
    );
    lab
}

/// Two sockets with the same port towards the same server, one by IPv4, one by IPv6, which talk in turns.
const TALK: &str = r#"
import socket, sys
FOUR, SIX = "192.88.99.10", "64:ff9b::192.88.99.10"
def made(family, kind, port, to):
    end = socket.socket(family, kind)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    end.settimeout(5)
    if family == socket.AF_INET6: end.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    end.bind(("", port))
    end.connect((SIX if family == socket.AF_INET6 else FOUR, to))
    return end
def hears(end, words):
    got = b""
    while len(got) < len(words):
        more = end.recv(1 << 16)
        assert more, "closed"
        got += more
    assert got == words, (len(got), len(words))
def talk(ends, size):
    said = [(end, (b"%d" % number) * size) for number, end in enumerate(ends)]
    for end, words in said: end.sendall(words)
    for end, words in said: hears(end, words)
what, port = sys.argv[1], int(sys.argv[2])
S, D, V4, V6 = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.AF_INET, socket.AF_INET6
if what == "together":
    for kind in S, D:
        ends = [made(V6, kind, port, 7), made(V4, kind, port, 7)]
        for size in 1, 1000, 3000, 9000: talk(ends, size)
elif what == "refused":
    for end in made(V6, D, port, 9), made(V4, D, port, 9):
        end.send(b"?")
        try: sys.exit(f"an answer: {end.recv(9)}")
        except ConnectionRefusedError: pass
elif what == "after":
    end = made(V4, S, port, 7)
    talk([end], 10)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    end.close()
    talk([made(V6, S, port, 7)], 1000)
elif what in ("keep", "keep-both"):
    ends = [made(V6, S, port, 7)]
    if what == "keep-both": ends.append(made(V4, S, port, 7))
    for line in sys.stdin:
        talk(ends, 1000)
        print("talked", flush=True)
"#;

fn talk(lab: &Lab, what: &str, port: u16) {
    let script = lab.file("talk.py");
    std::fs::write(&script, TALK).unwrap();
    lab.host(&format!("python3 {} {what} {port}", script.display()));
}

#[test]
fn host_and_clat_use_the_same_ports_at_the_same_time() {
    let lab = raise(&Uplink::new());
    around(&lab, &[FAST], |_| {
        talk(&lab, "together", 5000);
        talk(&lab, "refused", 5001);
        talk(&lab, "after", 5002);
        assert!(counted(&lab, "/4to6/packets/tcp") > 0 && counted(&lab, "/6to4/packets/udp") > 0);
    });
}

#[test]
fn nothing_of_the_hosts_is_touched() {
    let lab = raise(&Uplink::new());
    let before = of_others(&lab);
    around(&lab, &[FAST], |_| {
        assert_eq!(of_others(&lab), before, "while it runs");
        traffic::works(&lab);
        traffic::udp(&lab, &[0, 1, 1232, 1233, 1472, 1473, 20_000, 60_000]);
        traffic::udp_without_checksum(&lab, 100);
        traffic::traceroute(&lab, "192.0.0.2");
        let ran = lab.run("host", &format!("curl -sS -m 5 http://{SERVER}:81/"));
        assert_eq!(ran.code, Some(7), "refused, not timed out: {ran}");
        // The host's own, towards the same server and elsewhere, and what others begin towards it.
        lab.host(&format!("ping -6 -n -c 2 -i 0.2 -W 2 {SERVER6}"));
        lab.host(&format!(
            "curl -g -sSf -m 20 -o /dev/null 'http://[{SERVER6}]/blob?size=1000000'"
        ));
        let address = lab.host("ip -6 -j addr show dev up0 scope global | jq -r '.[0].addr_info[0].local'");
        lab.run("isp0", &format!("ping -6 -n -c 2 -i 0.2 -W 2 {}", address.trim()))
            .ok("a ping from outside");
        assert_eq!(of_others(&lab), before, "after traffic");
    });
}

#[test]
fn the_path_mtu_reaches_whose_it_is() {
    let lab = raise(&Uplink::new().wan_mtu(1400));
    around(&lab, &[FAST], |_| {
        traffic::upload(&lab, 1_000_000);
        traffic::download(&lab, 1_000_000);
        traffic::udp(&lab, &[1372, 1400, 1452, 3000]);
        let file = lab.file("upload");
        std::fs::write(&file, vec![0; 1_000_000]).unwrap();
        lab.host(&format!(
            "curl -g -sSf -m 20 -o /dev/null -T {} 'http://[{SERVER6}]/upload'",
            file.display()
        ));
    });
}

/// A script that talks once for each line that it gets.
struct Talker {
    child: Child,
    to: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
}

impl Talker {
    fn new(lab: &Lab, what: &str, port: u16) -> Self {
        let script = lab.file("talk.py");
        std::fs::write(&script, TALK).unwrap();
        let mut command = lab.command("host");
        command.arg("python3").arg(&script).args([what, &port.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        Self {
            to: child.stdin.take().unwrap(),
            said: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
        }
    }

    fn talks(&mut self, when: &str) {
        writeln!(self.to, "talk").unwrap();
        let line = self.said.next().unwrap_or_else(|| panic!("{when}")).unwrap();
        assert_eq!(line, "talked", "{when}");
    }

    fn end(mut self) {
        drop(self.to);
        self.child.wait().unwrap();
    }
}

/// What the host does by IPv6 goes on, whatever the daemon does.
#[test]
fn a_connection_of_the_hosts_survives_the_daemon() {
    let lab = raise(&Uplink::new());
    let before = lab.state();
    let mut talker = Talker::new(&lab, "keep", 5003);
    talker.talks("before");
    let mut daemon = Daemon::up(&lab, &[FAST]);
    talk(&lab, "together", 5000);
    talker.talks("beside it");
    daemon.stop(Signal::SIGTERM);
    talker.talks("after a stop");
    let mut daemon = Daemon::up(&lab, &[FAST]);
    traffic::ping(&lab);
    talker.talks("beside another one");
    daemon.kill();
    talker.talks("after a kill");
    clatd(&lab, &["cleanup"]).ok("cleanup");
    talker.end();
    lab.assert_state_is(&before, "after a kill and cleanup");
}

/// Without its entry a connection would get another port on the wire.
#[test]
fn flows_outlive_an_attachment() {
    let lab = raise(&Uplink::new());
    let mut daemon = Daemon::up(&lab, &[FAST, "when-idle=wait"]);
    let mut talker = Talker::new(&lab, "keep-both", 5004);
    talker.talks("before");
    take_off(&lab, &daemon, "clat");
    daemon.wait_for("the program to be back", || {
        lab.run("host", &format!("ping -n -c 1 -W 1 {SERVER}")).code == Some(0)
    });
    talker.talks("after");
    talker.end();
    daemon.stop(Signal::SIGTERM);
}
