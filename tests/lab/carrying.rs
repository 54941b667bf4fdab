//! Real traffic, in volume and at the edges of the MTU.

use std::process::Stdio;

use crate::bed::{Lab, SERVER, Uplink};
use crate::daemon::around;
use crate::traffic;

with_each_translator!(
    carries_100_megabytes_each_way,
    carries_datagrams_up_to_and_above_the_mtu,
    answers_traceroute,
    follows_a_smaller_path_mtu,
    lives_on_a_minimal_uplink,
    errors_come_back,
    carries_a_tunnel
);

/// The bed itself, without clatd: a CLAT made by hand, so that a fault of the lab is not taken for one of clatd.
#[test]
fn bed_carries_a_clat_made_by_hand() {
    let lab = Lab::raise(&Uplink::new().plat("2001:db8:100::/40"));
    let v6 = crate::bed::DERIVED_V6;
    let conf = lab.file("tayga.conf");
    std::fs::write(
        &conf,
        format!("tun-device clat\nprefix 2001:db8:100::/40\nipv4-addr 192.0.0.2\nmap 192.0.0.1 {v6}\n"),
    )
    .unwrap();
    let conf = conf.display();
    lab.host(&format!(
        "sysctl -qw net.ipv6.conf.up0.accept_ra=2 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.up0.proxy_ndp=1 && \
         tayga -c {conf} --mktun && ip link set clat up && ip address add 192.0.0.1 dev clat && ip -6 route add {v6} dev clat && \
         ip -6 neigh add proxy {v6} dev up0 && ip route add default dev clat mtu 1260 advmss 1220 && tayga -c {conf}"
    ));
    assert!(crate::bed::poll(std::time::Duration::from_secs(10), || lab
        .run("host", "ping -n -c 1 -W 1 192.88.99.10")
        .code
        == Some(0)));
    traffic::works(&lab);
    traffic::traceroute(&lab, "192.0.0.2");
}

fn carries_100_megabytes_each_way(translator: &str) {
    let lab = Lab::raise(&Uplink::new());
    around(&lab, &[&format!("translator={translator}")], |_| {
        traffic::ping(&lab);
        traffic::whoami(&lab);
        traffic::download(&lab, 100_000_000);
        traffic::upload(&lab, 100_000_000);
    });
}

/// VXLAN: the inner packet has a checksum that is not computed yet while the outer one is, and super-packets have inner and
/// outer headers.
fn carries_a_tunnel(translator: &str) {
    let lab = Lab::raise(&Uplink::new());
    let file = lab.file("blob");
    lab.host(&format!("head -c 10000000 /dev/urandom >{}", file.display()));
    around(&lab, &[&format!("translator={translator}")], |_| {
        behind_the_nat(&lab);
        // The server's end learns where the other one is.
        let make = |far: &str, k: u8| {
            format!(
                "ip link add vx0 mtu 1300 type vxlan id 7 dstport 4789 {far} &&
                 ip address add 10.77.0.{k}/24 dev vx0 && ip link set vx0 up"
            )
        };
        lab.run("net", &make(&format!("local {SERVER}"), 2))
            .ok("the server's end");
        // The kernel's NAT, in the ISP, breaks packets with an unfinished checksum inside. No network card sends such.
        lab.run("net", "ethtool -K vx0 tx off tso off")
            .ok("the server finishes its checksums");
        lab.host(&make(&format!("remote {SERVER}"), 1));
        lab.host("ping -n -c 3 -i 0.2 -W 2 10.77.0.2");
        for (from, to, k) in [("host", "net", 1), ("net", "host", 2)] {
            let mut server = lab
                .command(from)
                .args(["python3", "-m", "http.server", "8000", "--directory"])
                .arg(file.parent().unwrap())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let fetch = format!(
                "curl -sSf --connect-timeout 3 -m 15 --retry 2 --retry-connrefused --retry-delay 1 http://10.77.0.{k}:8000/blob"
            );
            let ran = lab.run(to, &format!("{fetch} | cmp - {}", file.display()));
            server.kill().unwrap();
            server.wait().unwrap();
            ran.ok(&format!("a file from {from} through the tunnel"));
        }
        lab.run("net", "ip link del vx0").ok("the server's end is gone");
        lab.host("ip link del vx0");
    });
}

/// What comes for the tunnel's port goes to the host: its answers are no flow that the ISP's masquerade knows.
fn behind_the_nat(lab: &Lab) {
    lab.run("isp0", "nft 'table ip hosts { set seen { type ipv4_addr; flags dynamic; }; chain in { type filter hook prerouting priority -300; iifname nat64-0 add @seen { ip saddr }; }; }'")
        .ok("the host's address behind the NAT64 is kept");
    traffic::ping(lab);
    let seen = lab.run("isp0", "nft list set ip hosts seen").ok("the addresses");
    let host = seen.split(['{', '}']).find(|part| part.trim().starts_with("100.64."));
    let host = host.unwrap_or_else(|| panic!("one address: {seen}")).trim();
    lab.run("isp0", &format!("nft 'table ip tunnel {{ chain in {{ type nat hook prerouting priority dstnat; iifname wan udp dport 4789 dnat to {host}; }}; }}'"))
        .ok("the tunnel's port is the host's");
}

fn carries_datagrams_up_to_and_above_the_mtu(translator: &str) {
    let lab = Lab::raise(&Uplink::new());
    around(&lab, &[&format!("translator={translator}")], |_| {
        traffic::udp(&lab, &[1, 2, 1200, 1231, 1232, 1233, 1400, 1472, 1473, 3000, 20_000]);
    });
}

fn answers_traceroute(translator: &str) {
    let lab = Lab::raise(&Uplink::new());
    around(&lab, &[&format!("translator={translator}")], |_| {
        traffic::traceroute(&lab, "192.0.0.2")
    });
    // As documented, the address that answers is a setting.
    around(
        &lab,
        &[&format!("translator={translator}"), "tayga-v4-addr=192.0.0.3"],
        |_| {
            if translator == "tayga" {
                traffic::traceroute(&lab, "192.0.0.3");
            }
        },
    );
}

/// A link behind the NAT64 is narrower than the first: Packet Too Big must become Fragmentation Needed.
fn follows_a_smaller_path_mtu(translator: &str) {
    let lab = Lab::raise(&Uplink::new().wan_mtu(1300));
    around(
        &lab,
        &[
            &format!("translator={translator}"),
            "v4-defaultroute-mtu=1480",
            "v4-defaultroute-advmss=1440",
        ],
        |_| {
            traffic::upload(&lab, 5_000_000);
            traffic::download(&lab, 5_000_000);
            traffic::udp(&lab, &[1200, 1400, 1472, 3000]);
        },
    );
}

fn lives_on_a_minimal_uplink(translator: &str) {
    let lab = Lab::raise(&Uplink::new().mtu(1280));
    around(&lab, &[&format!("translator={translator}")], |_| {
        traffic::works(&lab);
        traffic::udp(&lab, &[1232, 1233, 20_000]);
    });
}

/// ICMP errors and resets reach the program that caused them.
fn errors_come_back(translator: &str) {
    let lab = Lab::raise(&Uplink::new());
    around(&lab, &[&format!("translator={translator}")], |_| {
        let tcp = lab.run("host", "curl -sS -m 5 http://192.88.99.10:81/");
        assert_eq!(tcp.code, Some(7), "a closed TCP port refuses, at once: {tcp}");
        // ICMP port unreachable, with the inner headers translated, or the socket would not be found.
        let udp = lab.run("host", "traceroute -n -U -p 99 -f 6 -m 6 -q 1 -w 2 192.88.99.10");
        assert!(udp.out.contains("192.88.99.10  "), "port unreachable: {udp}");
        let udp = lab.run("host", "echo x | timeout 5 python3 -c 'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(3); s.connect((\"192.88.99.10\", 99)); s.send(b\"x\"); s.recv(1)'");
        assert!(udp.err.contains("refused"), "a closed UDP port: {udp}");
    });
}

/// TAYGA 0.9 drops these; ours need not.
#[test]
fn datagrams_without_checksum_pass_userspace() {
    let lab = Lab::raise(&Uplink::new());
    around(&lab, &["translator=userspace"], |_| {
        traffic::udp_without_checksum(&lab, 1);
        traffic::udp_without_checksum(&lab, 1200);
    });
}
