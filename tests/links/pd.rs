//! An address in a prefix that DHCPv6 delegates (RFC 8415), by Kea.

use std::process::{Child, Stdio};

use crate::bed::Lab;
use crate::bed::Uplink;
use crate::daemon::Daemon;
use crate::{fact, traffic};
use nix::sys::signal::Signal;

in_both_modes!(an_address_in_a_delegated_prefix);

const POOL: &str = "3fff:1:f00::";

/// Kea in the ISP, until dropped.
struct Kea(Child);

impl Kea {
    fn serve(lab: &Lab) -> Self {
        let leases = lab.file("leases.csv");
        let config = serde_json::json!({"Dhcp6": {
            "interfaces-config": {"interfaces": ["cust"]},
            "lease-database": {"type": "memfile", "persist": true, "name": leases, "lfc-interval": 0},
            "server-id": {"type": "EN", "persist": false, "enterprise-id": 2495, "identifier": "0464"},
            "preferred-lifetime": 3000, "valid-lifetime": 4000, "renew-timer": 1000, "rebind-timer": 2000,
            "subnet6": [{"id": 1, "subnet": "3fff:1:0:1::/64", "interface": "cust",
                "pd-pools": [{"prefix": POOL, "prefix-len": 56, "delegated-len": 64}]}],
            "loggers": [{"name": "kea-dhcp6", "severity": "INFO", "output_options": [{"output": lab.file("kea.log")}]}],
        }});
        let file = lab.file("kea.json");
        std::fs::write(&file, config.to_string()).unwrap();
        let child = lab
            .command("isp0")
            .env("KEA_PIDFILE_DIR", lab.file(""))
            .env("KEA_LOCKFILE_DIR", "none")
            .args(["kea-dhcp6", "-c"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("kea-dhcp6 starts (Debian package kea-dhcp6-server)");
        Self(child)
    }
}

impl Drop for Kea {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn an_address_in_a_delegated_prefix(mode: &str) {
    let lab = Lab::raise(&Uplink::new());
    let _kea = Kea::serve(&lab);
    // The ISP's router learns the route from its DHCPv6 relay; here it is told.
    let host = lab.host("ip -6 -j addr show dev up0 scope link | jq -r '.[].addr_info[]?.local | select(. != null)'");
    lab.run(
        "isp0",
        &format!("ip -6 route add {POOL}/56 via {} dev cust", host.trim()),
    )
    .ok("the prefix is routed");
    let before = lab.state();
    let mut daemon = Daemon::up(&lab, &["clat-v6-addr=pd", mode]);
    assert!(
        fact(&lab, "clat_v6_addr").starts_with("3fff:1:f00:"),
        "{}",
        daemon.output()
    );
    assert!(fact(&lab, "delegated_prefix").ends_with("/64"));
    traffic::works(&lab);
    // What is sent to the rest of the prefix does not go round between host and router.
    lab.run("isp0", &format!("ping -6 -n -c 1 -W 1 -t 10 {POOL}1234"))
        .out
        .contains("Time exceeded")
        .then(|| {
            panic!("packets to an unused address of the delegated prefix go round");
        });
    daemon.stop(Signal::SIGTERM);
    lab.assert_state_is(&before, "after the stop");
    let leases = lab.read("leases.csv");
    let last = leases.lines().rfind(|line| line.starts_with(POOL)).unwrap_or_default();
    // Kea writes a released lease with a valid lifetime of 0.
    assert_eq!(last.split(',').nth(2), Some("0"), "released: {leases}");
}
