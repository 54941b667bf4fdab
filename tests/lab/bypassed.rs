//! With no configuration at all, the fast path is taken only where it bypasses nothing of others', and as long as that is so.

use std::process::Child;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::bed::{Lab, SERVER, Uplink, poll};
use crate::daemon::Daemon;
use crate::fast_path::translator;
use crate::traffic;

fn start(lab: &Lab) -> Daemon {
    std::fs::write(lab.file("clatd.conf"), "").unwrap();
    Daemon::up(lab, &[])
}

fn answers(lab: &Lab) -> bool {
    lab.run("host", &format!("ping -n -c 1 -W 1 {SERVER}")).code == Some(0)
}

/// Something comes that takes echo replies, or all packets, out of those to the CLAT, and goes again.
fn gives_way(come: &str, why: &str, go: &str) {
    let lab = Lab::raise(&Uplink::new());
    let before = lab.state();
    let mut daemon = start(&lab);
    assert_eq!(translator(&lab).0, "ebpf");
    lab.host(come);
    daemon.wait_for("the userspace translator", || translator(&lab).0 == "userspace");
    let told = translator(&lab).1;
    assert!(told.contains(&format!("no fast path: it would bypass {why}")), "{told}");
    // It is told once all steps are done.
    let is_told = poll(Duration::from_secs(30), || daemon.output().contains(why));
    assert!(is_told, "{}", daemon.output());
    daemon.wait_for("lost packets", || !answers(&lab));
    lab.host(go);
    daemon.wait_for("the fast path", || translator(&lab).0 == "ebpf");
    daemon.wait_for("IPv4 by it", || answers(&lab));
    traffic::works(&lab);
    daemon.stop(Signal::SIGTERM);
    lab.assert_state_is(&before, "after the stop");
}

#[test]
fn a_filter_at_the_ingress_sees_the_clats_packets() {
    // Drops ICMPv6 (58) echo replies (129).
    gives_way(
        "tc qdisc add dev up0 clsact
         tc filter add dev up0 ingress bpf direct-action \
         bytecode '6,48 0 0 20,21 0 3 58,48 0 0 54,21 0 1 129,6 0 0 2,6 0 0 4294967295'",
        "a filter (bpf) at the ingress of up0: tc filter show dev up0 ingress",
        "tc qdisc del dev up0 clsact",
    );
}

#[test]
fn a_chain_of_family_netdev_sees_the_clats_packets() {
    gives_way(
        "nft add table netdev theirs
         nft add chain netdev theirs guard '{ type filter hook ingress device up0 priority 0; }'
         nft add rule netdev theirs guard icmpv6 type echo-reply drop",
        "chain guard of nft table netdev theirs at the ingress of up0",
        "nft delete table netdev theirs",
    );
}

#[test]
fn a_chain_at_the_egress_sees_the_clats_packets() {
    gives_way(
        "nft add table netdev theirs
         nft add chain netdev theirs guard '{ type filter hook egress device up0 priority 0; }'
         nft add rule netdev theirs guard icmpv6 type echo-request drop",
        "chain guard of nft table netdev theirs at the egress of up0",
        "nft delete table netdev theirs",
    );
}

#[test]
fn an_ipsec_policy_holds_for_the_clats_packets() {
    gives_way(
        "ip xfrm policy add dir out src ::/0 dst 64:ff9b::/96 action block",
        "the IPsec policy for packets from ::/0 to 64:ff9b::/96",
        "ip xfrm policy del dir out src ::/0 dst 64:ff9b::/96",
    );
}

/// Nothing of the CLAT's passes these.
#[test]
fn what_sees_none_of_its_packets_does_not_matter() {
    let lab = Lab::raise(&Uplink::new());
    lab.host(
        "ip xfrm policy add dir out src ::/0 dst 2001:db8:bbbb::/48 action block
         ip xfrm policy add dir out src 0.0.0.0/0 dst 203.0.113.0/24 action block
         ip xfrm policy add dir out src ::/0 dst 64:ff9b::/96 action allow priority 1
         ip link add other0 type veth peer name other1
         nft add table netdev theirs
         nft add chain netdev theirs guard '{ type filter hook ingress device other0 priority 0; policy drop; }'
         tc qdisc add dev up0 clsact
         tc filter add dev up0 egress bpf direct-action bytecode '1,6 0 0 4294967295'
         tc filter add dev up0 ingress protocol ip bpf direct-action bytecode '1,6 0 0 2'",
    );
    let mut daemon = start(&lab);
    assert_eq!(translator(&lab).0, "ebpf", "{}", translator(&lab).1);
    traffic::works(&lab);
    daemon.stop(Signal::SIGTERM);
}

/// Attaches a program that gives all packets to the host (TCX_PASS), so that none behind it sees one.
const PASSES_ALL: &str = r#"
import ctypes, os, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def bpf(command, attributes):
    attributes = ctypes.create_string_buffer(attributes, 128)
    result = libc.syscall(321, command, attributes, 128)
    if result < 0: raise OSError(ctypes.get_errno(), "bpf")
    return result
code = ctypes.create_string_buffer(bytes.fromhex("b700000000000000" "9500000000000000"))  # r0 = 0; exit
license = ctypes.create_string_buffer(b"GPL")
program = bpf(5, struct.pack("=IIQQ", 3, 2, ctypes.addressof(code), ctypes.addressof(license)))
link = bpf(28, struct.pack("=IIII", program, socket.if_nametoindex(sys.argv[1]), 46, 0))
print("attached", flush=True)
sys.stdin.read()
"#;

#[test]
fn a_program_that_ends_the_chain_takes_no_packet_from_the_clat() {
    let lab = Lab::raise(&Uplink::new());
    let mut passing = Passing::attach(&lab, "up0");
    let mut daemon = start(&lab);
    let (kind, why) = translator(&lab);
    assert_eq!(kind, "userspace");
    assert!(why.contains("somebody attached to the ingress of up0"), "{why}");
    traffic::works(&lab);
    passing.end();
    daemon.wait_for("the fast path", || translator(&lab).0 == "ebpf");
    daemon.wait_for("IPv4 by it", || answers(&lab));
    traffic::works(&lab);
    daemon.stop(Signal::SIGTERM);
}

/// A process that has that program attached.
struct Passing(Child);

impl Passing {
    fn attach(lab: &Lab, device: &str) -> Self {
        let script = lab.file("passes.py");
        std::fs::write(&script, PASSES_ALL).unwrap();
        let mut child = lab
            .command("host")
            .args(["python3", &script.to_string_lossy(), device])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut out, &mut said).unwrap();
        assert_eq!(said, "attached\n");
        Self(child)
    }

    fn end(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        self.end();
    }
}
