//! The commands in the documents, as they stand there.

use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::bed::{Lab, SERVER, Uplink};
use crate::daemon::{Daemon, clatd};
use crate::pages::{COMMANDS, RunBy};

/// What the lab runs of this page.
fn commands(page: &str) -> Vec<&'static str> {
    let of_page = COMMANDS.iter().filter(|(name, ..)| *name == page);
    let ours = of_page.filter(|(.., by)| *by == RunBy::Lab);
    ours.map(|(_, line, _)| *line).collect()
}

/// The configurations of a page, in order.
fn configurations(page: &str) -> Vec<&str> {
    let blocks = page.split("```conf\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap()).collect()
}

/// The addresses that documents use are reachable in this internet.
fn internet(lab: &Lab) {
    lab.run(
        "net",
        "ip address add 192.0.2.1/32 dev lo && ip address add 8.8.8.8/32 dev lo",
    )
    .ok("addresses of the documents");
}

#[test]
fn troubleshooting() {
    let lab = Lab::raise(&Uplink::new());
    internet(&lab);
    let mut daemon = Daemon::up(&lab, &[]);
    let lines = commands("troubleshooting.md");
    assert_eq!(lines.len(), 4, "{lines:?}");
    for line in lines {
        // It shows packets until somebody ends it.
        let shown = match line.strip_prefix("tcpdump ") {
            Some(words) => {
                let watching = format!("timeout 20 tcpdump -c 2 {words} 2>/dev/null");
                lab.host(&format!(
                    "{watching} & sleep 1; ping -n -c 3 -i 0.3 -W 1 {SERVER} >/dev/null; wait"
                ))
            }
            None => lab.host(line),
        };
        assert!(!shown.trim().is_empty(), "{line} shows nothing");
    }
    for words in [&["status", "--json"][..], &["status"], &["plan"], &["discover"]] {
        let ran = clatd(&lab, words);
        assert_eq!(ran.code, Some(0), "{words:?}: {ran}");
        assert!(!ran.out.trim().is_empty(), "{words:?} shows nothing");
    }
    daemon.stop(Signal::SIGTERM);
}

#[test]
fn several_uplinks() {
    let lab = Lab::raise(&Uplink::new());
    // TAYGA carries no addresses of documents in the well-known prefix.
    lab.add(1, &Uplink::new().plat("2001:db8:64::/96"));
    internet(&lab);
    let page = include_str!("../../docs/multi-homing.md");
    let files = configurations(page).into_iter().skip(1).zip(["fibre", "lte"]);
    for (text, name) in files {
        let text = text.replace("wwan0", "up1").replace("wan0", "up0");
        std::fs::write(lab.file("instances.d").join(format!("{name}.conf")), text).unwrap();
    }
    let mut web = lab.command("net");
    web.args([
        "python3",
        "-m",
        "http.server",
        "80",
        "--bind",
        "192.0.2.1",
        "--directory",
    ])
    .arg(lab.file("instances.d"));
    let mut web = web.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut daemon = Daemon::start(&lab, &[]);
    daemon.wait_for("the CLAT of the second uplink, and the server", || {
        lab.run(
            "host",
            "curl -sf -m 1 -o /dev/null --interface clat-lte http://192.0.2.1/",
        )
        .code
            == Some(0)
    });
    for line in commands("multi-homing.md") {
        // Only that one has an end of its own.
        let line = line.replace("ping ", "ping -n -c 1 ");
        assert!(!lab.host(&line).trim().is_empty(), "{line} shows nothing");
    }
    daemon.stop(Signal::SIGTERM);
    web.kill().unwrap();
    web.wait().unwrap();
}

#[test]
fn containers_and_a_lan() {
    let lab = Lab::raise(&Uplink::new());
    for line in commands("containers-and-lan.md") {
        lab.host(line);
    }
    assert_eq!(lab.host("sysctl -n net.ipv4.ip_forward").trim(), "1");
}
