//! The processes that `scripts/lab-managers` starts.

use std::fs::File;
use std::process::{Child, Command};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bed::{Lab, Ran, poll};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lab-managers");

/// A service of the lab, which ends with this.
pub struct Service(Child);

impl Service {
    /// The bus.
    pub fn bus(lab: &Lab) -> Self {
        let bus = Self::start(lab, "host", &["bus"]);
        until("a bus", lab, || lab.file("bus").exists());
        bus
    }

    /// systemd-resolved in a node.
    pub fn resolved(lab: &Lab, node: &str) -> Self {
        let service = Self::start(lab, node, &["resolved"]);
        until("systemd-resolved", lab, || {
            tool(lab, node, &["resolvectl", "dns"]).code == Some(0)
        });
        service
    }

    /// NetworkManager, which takes these devices over.
    pub fn network_manager(lab: &Lab, devices: &[&str]) -> Self {
        let words: Vec<_> = ["networkmanager"].iter().chain(devices).copied().collect();
        let service = Self::start(lab, "host", &words);
        until("NetworkManager", lab, || {
            tool(lab, "host", &["nmcli", "general"]).code == Some(0)
        });
        service
    }

    fn start(lab: &Lab, node: &str, words: &[&str]) -> Self {
        let log = || {
            File::options()
                .create(true)
                .append(true)
                .open(lab.file("services.log"))
                .unwrap()
        };
        let child = script(lab, node, words)
            .stdout(log())
            .stderr(log())
            .spawn()
            .expect("ip netns exec starts");
        Self(child)
    }

    /// It is there and says nothing any more.
    pub fn hang(&self) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), Signal::SIGSTOP).unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Says which servers a link has, by device name or index.
pub fn resolvectl_dns(lab: &Lab, node: &str, link: &str, servers: &[&str]) {
    let words: Vec<_> = ["resolvectl", "dns", link].iter().chain(servers).copied().collect();
    tool(lab, node, &words).ok("resolvectl dns");
}

/// Changes the device's profile, and the device with it.
pub fn nmcli_dns(lab: &Lab, device: &str, servers: &str) {
    nmcli(lab, &["connection", "modify", device, "ipv6.dns", servers]);
    nmcli(lab, &["device", "reapply", device]);
}

pub fn nmcli(lab: &Lab, words: &[&str]) {
    let words: Vec<_> = ["nmcli"].iter().chain(words).copied().collect();
    tool(lab, "host", &words).ok(&format!("{words:?}"));
}

fn tool(lab: &Lab, node: &str, words: &[&str]) -> Ran {
    Ran::from(script(lab, node, words).output().expect("ip netns exec starts"))
}

fn script(lab: &Lab, node: &str, words: &[&str]) -> Command {
    let mut command = lab.command(node);
    command.arg(SCRIPT).arg(lab.file("bus")).args(words);
    command
}

fn until(what: &str, lab: &Lab, answer: impl FnMut() -> bool) {
    assert!(
        poll(Duration::from_secs(20), answer),
        "no {what}:\n{}",
        lab.read("services.log")
    );
}
