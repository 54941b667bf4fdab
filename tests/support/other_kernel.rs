//! Tests of what this machine's kernel may lack. They are marked `ignored`, and one test that is not runs them all: here
//! if the kernel will do, else in a virtual machine with a kernel of Debian's (`scripts/vm`), which is started once.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Runs the ignored tests of this program whose names begin so, of which there is at least one: here if the kernel has
/// VRFs.
pub fn run_ignored(prefix: &str) {
    if has_vrf() {
        run(Command::new(this()), prefix);
    } else {
        run_ignored_elsewhere(prefix);
    }
}

/// The same in a virtual machine in any case. It has two network cards, eth0 and eth1, with a cable between.
pub fn run_ignored_elsewhere(prefix: &str) {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/vm"));
    // Under emulation it is slow, and slower beside other tests: that is no failure.
    command.args(["-n", "-t", "1200"]).arg(this());
    run(command, prefix);
}

fn this() -> PathBuf {
    std::env::current_exe().unwrap()
}

fn run(mut command: Command, prefix: &str) {
    // Below /tmp, which the virtual machine has for itself: a checkout may be there, and must be seen all the same.
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let output = command
        .args(["--ignored", "--nocapture", prefix])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        // The runner of tests has told its own of these.
        .env_remove("NEXTEST_EXECUTION_MODE")
        .output()
        .expect("the tests start");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    let some_ran = out.contains("test result: ok") && !out.contains(" 0 passed");
    assert!(
        output.status.success() && some_ran,
        "{prefix} {}\n{out}\n{err}",
        output.status
    );
    eprintln!("{out}");
}

/// Whether a VRF can be made here; the attempt leaves nothing.
fn has_vrf() -> bool {
    let made = Command::new("unshare")
        .args(["--net", "ip", "link", "add", "vrf0", "type", "vrf", "table", "100"])
        .output()
        .expect("unshare starts");
    made.status.success()
}
