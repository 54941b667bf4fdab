//! Reloading: what changed restarts, what did not keeps running.

use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::bed::{Lab, SERVER, Uplink, poll};
use crate::home::{
    device, instance, leaves_by, no_instance, raise, running, says, sorted_state, start, status_of, stop, tool,
};

/// How much the internet sends, at most so fast: long enough for what is done meanwhile.
const BYTES: u64 = 12_000_000;
const RATE: &str = "1500K";

/// A download that runs; whoever asks for its end learns whether every byte arrived.
pub struct Download {
    child: Option<Child>,
    body: std::path::PathBuf,
    headers: std::path::PathBuf,
}

impl Download {
    /// Begins it on a device, and waits until bytes flow.
    pub fn begin(lab: &Lab, device: &str) -> Self {
        let (body, headers) = (lab.file("body"), lab.file("headers"));
        let child = lab
            .command("host")
            .args([
                "curl",
                "-sSf",
                "-m",
                "120",
                "--speed-time",
                "15",
                "--speed-limit",
                "1000",
                "--interface",
                device,
                "--limit-rate",
                RATE,
                "-D",
            ])
            .arg(&headers)
            .arg("-o")
            .arg(&body)
            .arg(format!("http://{SERVER}/blob?size={BYTES}"))
            .stdout(Stdio::null())
            .spawn()
            .expect("curl starts");
        let download = Self {
            child: Some(child),
            body,
            headers,
        };
        let flows = poll(Duration::from_secs(20), || {
            std::fs::metadata(&download.body).is_ok_and(|meta| meta.len() > 0)
        });
        assert!(flows, "the download on {device} begins");
        download
    }

    /// Waits for its end: no byte may differ. It must have run all the time until now.
    pub fn arrives_whole(mut self) {
        let mut child = self.child.take().unwrap();
        assert!(child.wait().unwrap().success(), "the download was interrupted");
        let sum = std::process::Command::new("sha256sum")
            .arg(&self.body)
            .output()
            .unwrap();
        let sum = String::from_utf8(sum.stdout).unwrap();
        let headers = std::fs::read_to_string(&self.headers).unwrap();
        let want = headers
            .lines()
            .find_map(|line| line.strip_prefix("X-SHA256: "))
            .unwrap();
        assert_eq!(sum.split_whitespace().next(), Some(want.trim()));
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// SIGHUP and `clatd reload` add, change and remove one instance while a download runs on another.
#[test]
fn a_reload_touches_only_what_changed() {
    let lab = raise(&[Uplink::new(), Uplink::new(), Uplink::new()]);
    let before = sorted_state(&lab);
    instance(&lab, "up0", "plat-dev=up0\n");
    instance(&lab, "up1", "plat-dev=up1\n");
    let mut daemon = start(&lab, &[], 2);
    let since = status_of(&lab, "up0")["since"].clone();
    let download = Download::begin(&lab, &device(0));

    instance(&lab, "up2", "plat-dev=up2\n");
    daemon.signal(Signal::SIGHUP);
    running(&lab, &mut daemon, 3);
    leaves_by(&lab, Some(&device(2)), 2);

    instance(&lab, "up1", "plat-dev=up1\nv4-defaultroute-mtu=1400\n");
    tool(&lab, &["reload"]).ok("clatd reload");
    daemon.wait_for("the changed instance", || {
        lab.host("ip route show default").contains("mtu 1400") && status_of(&lab, "up1")["state"] == "running"
    });
    leaves_by(&lab, Some(&device(1)), 1);

    no_instance(&lab, "up2");
    tool(&lab, &["reload"]).ok("clatd reload");
    daemon.wait_for("the removed instance's end", || {
        lab.run("host", "ip link show clat-up2").code != Some(0)
    });

    // An error in the configuration leaves everything as it is, and is told to whoever asked.
    instance(&lab, "up1", "plat-dev=up1\nv4-defaultroute-mtu=many\n");
    let ran = tool(&lab, &["reload"]);
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(ran.err.contains("v4-defaultroute-mtu"), "{ran}");
    running(&lab, &mut daemon, 2);

    download.arrives_whole();
    assert_eq!(status_of(&lab, "up0")["since"], since, "it was never restarted");
    stop(&lab, &mut daemon, &before, &[]);
}

/// A file that sorts before the others does not take what they were allotted.
#[test]
fn an_instance_added_in_front_interrupts_nobody() {
    let lab = raise(&[Uplink::new(), Uplink::new()]);
    let before = sorted_state(&lab);
    instance(&lab, "up1", "plat-dev=up1\n");
    let mut daemon = start(&lab, &[], 1);
    let since = status_of(&lab, "up1")["since"].clone();
    let download = Download::begin(&lab, &device(1));
    instance(&lab, "up0", "plat-dev=up0\n");
    tool(&lab, &["reload"]).ok("clatd reload");
    running(&lab, &mut daemon, 2);
    leaves_by(&lab, Some(&device(0)), 0);
    download.arrives_whole();
    assert_eq!(status_of(&lab, "up1")["since"], since, "it was never restarted");
    stop(&lab, &mut daemon, &before, &[]);
}

/// An instance file for an uplink that a template serves takes it over, device and all; without it the template has it.
#[test]
fn a_file_takes_an_uplink_over_from_a_template() {
    let lab = raise(&[Uplink::new(), Uplink::new()]);
    let before = sorted_state(&lab);
    instance(&lab, "any", "plat-dev=up*\n");
    let mut daemon = start(&lab, &[], 2);
    let since = status_of(&lab, "any@up0")["since"].clone();
    for _ in 0..2 {
        instance(&lab, "up1", "plat-dev=up1\n");
        tool(&lab, &["reload"]).ok("clatd reload");
        daemon.wait_for("the file's instance", || status_of(&lab, "up1")["state"] == "running");
        running(&lab, &mut daemon, 2);
        assert_eq!(status_of(&lab, "up1")["device"], device(1), "what the template had");
        leaves_by(&lab, Some(&device(1)), 1);
        no_instance(&lab, "up1");
        tool(&lab, &["reload"]).ok("clatd reload");
        daemon.wait_for("the template's instance", || {
            status_of(&lab, "any@up1")["state"] == "running"
        });
        running(&lab, &mut daemon, 2);
        leaves_by(&lab, Some(&device(1)), 1);
    }
    assert_eq!(
        status_of(&lab, "any@up0")["since"],
        since,
        "the other was never restarted"
    );
    stop(&lab, &mut daemon, &before, &[]);
}

/// A template's instances restart when the template changes, and end when it is taken away.
#[test]
fn a_template_is_reloaded_like_an_instance() {
    let lab = raise(&[Uplink::new(), Uplink::new()]);
    let before = sorted_state(&lab);
    instance(&lab, "any", "plat-dev=up*\n");
    let mut daemon = start(&lab, &[], 2);
    tool(&lab, &["reload"]).ok("clatd reload");
    assert!(
        !daemon.output().contains("was changed"),
        "nothing changed:\n{}",
        daemon.output()
    );
    instance(&lab, "any", "plat-dev=up*\nv4-defaultroute-mtu=1400\n");
    tool(&lab, &["reload"]).ok("clatd reload");
    daemon.wait_for("both changed", || {
        lab.host("ip route show default").matches("mtu 1400").count() == 2
    });
    running(&lab, &mut daemon, 2);
    no_instance(&lab, "any");
    instance(&lab, "one", "plat-dev=up1\n");
    tool(&lab, &["reload"]).ok("clatd reload");
    daemon.wait_for("the one that is left", || status_of(&lab, "one")["state"] == "running");
    running(&lab, &mut daemon, 1);
    says(&mut daemon, "was removed");
    leaves_by(&lab, None, 1);
    stop(&lab, &mut daemon, &before, &[]);
}
