#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]
//! What only a bug could bring about.

use clatd_stages::journal::Journal;
use clatd_stages::op::{Op, ScriptRun, Undo};
use clatd_stages::plan::{StageName, Step};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, raise};
use nix::unistd::geteuid;

use super::*;
use crate::config::{Paths, load_from};

/// A step whose undo is a script that hangs.
fn step() -> Step {
    let script = Op::RunScript(ScriptRun {
        event: "script-down".into(),
        user: None,
        command: "sleep 1000".into(),
        environment: BTreeMap::new(),
        timeout_s: 60,
    });
    let nothing = Op::Nothing { what: "nothing".into() };
    Step {
        undo: Undo::Op(script),
        ..Step::new(StageName::Script, "a test", nothing.clone(), nothing)
    }
}

/// A signal is heard while what an instance did that panicked is undone, and ends that in time.
#[test]
fn a_signal_after_a_panic_ends_the_daemon() {
    if !geteuid().is_root() {
        return;
    }
    // One clatd runs in a network namespace.
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let bed = tempfile::tempdir().unwrap();
    let paths = Paths {
        config: bed.path().join("clatd.conf"),
        instances_dir: bed.path().join("instances.d"),
        runtime_dir: bed.path().join("run"),
        has_service_manager: false,
    };
    let options = Options::default();
    let loaded = load_from(&options, &paths).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let signals = Signals::new().unwrap();
        let mut supervisor = Supervisor::new(options, &loaded).await.unwrap();
        let configured = loaded.instances.into_iter().next().unwrap();
        let name = configured.instance.name.clone();
        supervisor.start(configured, None);
        // The instance itself has nothing to do with it.
        supervisor.started[&name].stop.cancel();
        let mut journal = FileJournal::open(&paths.runtime_dir, &name).unwrap();
        journal.intend(&step()).await.unwrap();
        let task = supervisor
            .tasks
            .spawn(async { panic!("a panic of this test's, as if clatd had a bug") })
            .id();
        supervisor.started.get_mut(&name).unwrap().task = task;
        let begun = Instant::now();
        let told = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            raise(Signal::SIGTERM).unwrap();
        };
        let (clean, ()) = tokio::join!(supervisor.supervise(signals), told);
        assert!(!clean, "it is told that something failed");
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(15), "{took:?}");
    });
}
