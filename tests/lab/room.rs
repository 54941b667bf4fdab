//! The runtime directory is full or cannot be written: a running instance goes on, and one that cannot start says why.

use std::path::PathBuf;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

use crate::bed::{Lab, Uplink};
use crate::daemon::Daemon;
use crate::traffic;

/// A small file system as the runtime directory, seen by this thread and what it starts only.
fn small_runtime_directory(lab: &Lab) -> PathBuf {
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    let directory = lab.file("run");
    std::fs::create_dir(&directory).unwrap();
    mount(
        Some("tmpfs"),
        &directory,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=128k,mode=755"),
    )
    .unwrap();
    directory
}

/// Takes all room that is left.
fn fill(directory: &std::path::Path) -> PathBuf {
    let path = directory.join("of-somebody-else");
    // The write fails, and leaves as much as there was room for.
    assert!(std::fs::write(&path, vec![b'x'; 1 << 20]).is_err());
    path
}

#[test]
fn a_full_directory_leaves_what_runs_alone() {
    let lab = Lab::raise(&Uplink::new());
    let directory = small_runtime_directory(&lab);
    let before = lab.state();
    // Packets that the narrower uplink carries, too: the router's end stays as wide as it was.
    let mut daemon = Daemon::up(&lab, &["v4-defaultroute-mtu=1260"]);
    let filler = fill(&directory);
    lab.host("ip link set up0 mtu 1400");
    daemon.wait_for("word of that", || {
        let said = lab.read("clatd.err") + &lab.read("clatd.out");
        said.contains("changes nothing until it can record it") && said.contains("No space left")
    });
    traffic::works(&lab);
    assert!(lab.host("ip link show clat").contains("mtu 1500"));

    std::fs::remove_file(filler).unwrap();
    lab.host("ip link set up0 mtu 1390");
    daemon.wait_for("the change", || lab.host("ip link show clat").contains("mtu 1390"));
    daemon.wait_until_running(&lab);
    traffic::works(&lab);
    lab.host("ip link set up0 mtu 1500");
    daemon.wait_for("the change", || lab.host("ip link show clat").contains("mtu 1500"));
    daemon.wait_until_running(&lab);
    // Full again: what is recorded already can be undone all the same.
    let filler = fill(&directory);
    daemon.stop(Signal::SIGTERM);
    std::fs::remove_file(filler).unwrap();
    lab.assert_state_is(&before, "after the stop");
}

#[test]
fn a_start_says_what_is_wrong_with_the_directory() {
    let lab = Lab::raise(&Uplink::new());
    let directory = small_runtime_directory(&lab);
    let before = lab.state();
    let starts = |what: &str, words: &[&str]| {
        let mut daemon = Daemon::start(&lab, &[]);
        let ran = daemon.wait_exit(std::time::Duration::from_secs(20));
        assert_eq!(ran.code, Some(1), "{what}: {ran}");
        for word in words.iter().copied().chain([directory.to_str().unwrap()]) {
            assert!(
                ran.err.contains(word) || ran.out.contains(word),
                "{what}: no {word:?}: {ran}"
            );
        }
        lab.assert_state_is(&before, what);
    };
    let filler = fill(&directory);
    starts("full", &["No space left"]);
    std::fs::remove_file(filler).unwrap();
    let none = None::<&str>;
    mount(none, &directory, none, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none).unwrap();
    starts("read-only", &["Read-only file system"]);
}
