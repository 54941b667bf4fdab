//! What is believed, and whose things are touched: planted journals, other clatds, full directories.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clatd::kernel::{FileJournal, NamespaceLock, cleanup};
use clatd_stages::apply::{apply, unwind};
use clatd_stages::journal::{Journal, Left};
use clatd_stages::op::{NewTun, Op, ScriptRun, Undo};
use clatd_stages::plan::{StageName, Step};
use clatd_stages::settings::Settings;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::support::{assert_unchanged, chain, in_namespace, settled_state, sh, state};

/// A step whose undo leaves a trace.
fn planted(trace: &Path) -> Step {
    Step {
        stage: StageName::Script,
        why: "planted".into(),
        apply: Op::Nothing { what: "x".into() },
        undo: Undo::Op(Op::RunScript(ScriptRun {
            event: "script-down".into(),
            command: format!("touch {}", trace.display()),
            environment: Default::default(),
            timeout_s: 60,
            user: None,
        })),
    }
}

/// A runtime directory with a journal, spoilt in one way: neither cleanup nor the daemon carries it out, and the error
/// names what is wrong.
async fn is_refused(words: &str, spoil: impl FnOnce(&Path)) {
    let bed = tempfile::tempdir().unwrap();
    let (runtime, trace) = (bed.path().join("clatd"), bed.path().join("trace"));
    let mut journal = FileJournal::open(&runtime, "wan0").unwrap();
    journal.intend(&planted(&trace)).await.unwrap();
    drop(journal);
    spoil(&runtime);
    let said = match cleanup::run(&runtime, &Settings::default(), false).await {
        Ok(report) => report.errors.join("\n"),
        Err(error) => chain(&error),
    };
    assert!(said.contains(words), "{words}: {said}");
    assert!(!trace.exists(), "{words}: it was carried out");
    let error = FileJournal::open(&runtime, "wan0").unwrap_err();
    assert!(chain(&error).contains(words), "{words}: {}", chain(&error));
    assert!(
        runtime.join("journal/wan0.jsonl").symlink_metadata().is_ok(),
        "{words}: it is kept"
    );
}

#[test]
fn what_others_could_have_written_is_not_carried_out() {
    in_namespace(|_bed| async move {
        let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        let owner = |path: &Path| chown(path, Some(1234), None).unwrap();
        is_refused("clatd can be written by others", |runtime| mode(runtime, 0o777)).await;
        is_refused("clatd can be written by others", |runtime| mode(runtime, 0o770)).await;
        is_refused("clatd belongs to user 1234", |runtime| owner(runtime)).await;
        is_refused("journal can be written by others", |runtime| {
            mode(&runtime.join("journal"), 0o722)
        })
        .await;
        is_refused("journal belongs to user 1234", |runtime| {
            owner(&runtime.join("journal"))
        })
        .await;
        let file = |runtime: &Path| runtime.join("journal/wan0.jsonl");
        is_refused("wan0.jsonl can be written by others", |runtime| {
            mode(&file(runtime), 0o620)
        })
        .await;
        is_refused("wan0.jsonl belongs to user 1234", |runtime| owner(&file(runtime))).await;
        is_refused("clatd is a symbolic link", |runtime| {
            let elsewhere = runtime.with_file_name("elsewhere");
            fs::rename(runtime, &elsewhere).unwrap();
            symlink(elsewhere, runtime).unwrap();
        })
        .await;
        is_refused("wan0.jsonl is a symbolic link", |runtime| {
            let elsewhere = runtime.join("elsewhere");
            fs::rename(file(runtime), &elsewhere).unwrap();
            symlink(elsewhere, file(runtime)).unwrap();
        })
        .await;
        let begun = Instant::now();
        is_refused("wan0.jsonl is a fifo", |runtime| {
            fs::remove_file(file(runtime)).unwrap();
            sh(&format!("mkfifo -m 600 {}", file(runtime).display()));
        })
        .await;
        assert!(begun.elapsed() < Duration::from_secs(10));
    });
}

#[test]
fn a_journal_of_another_version_is_not_carried_out() {
    in_namespace(|_bed| async move {
        for version in [0, 2, 4_000_000_000u32] {
            is_refused(&format!("format {version}, this one reads 1"), |runtime| {
                let path = runtime.join("journal/wan0.jsonl");
                let text = fs::read_to_string(&path).unwrap();
                fs::write(path, text.replace("\"v\":1", &format!("\"v\":{version}"))).unwrap();
            })
            .await;
        }
        // Of another version it may look like anything.
        is_refused("format 2, this one reads 1", |runtime| {
            fs::write(runtime.join("journal/wan0.jsonl"), "{\"v\":2,\"what\":[1]}\n").unwrap();
        })
        .await;
    });
}

#[test]
fn two_clatds_in_one_namespace_refuse_each_other_wherever_they_run() {
    in_namespace(|_bed| async move {
        let bed = tempfile::tempdir().unwrap();
        let first = NamespaceLock::acquire(&bed.path().join("first")).await.unwrap();
        let other = bed.path().join("other");
        let answer = tokio::task::spawn_blocking({
            let other = other.clone();
            move || tokio::runtime::Handle::current().block_on(NamespaceLock::acquire(&other))
        });
        let error = chain(&answer.await.unwrap().unwrap_err());
        let wanted = format!(
            "another clatd (process {}) runs in this network namespace, with the runtime directory {}",
            std::process::id(),
            bed.path().join("first").display()
        );
        assert!(error.starts_with(&wanted), "{error}");
        first.release().await;
        NamespaceLock::acquire(&other).await.unwrap().release().await;
    });
}

/// Holds a name that clatds find each other by, as a user without rights; ends when dropped.
struct Squatter(Child);

impl Drop for Squatter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn nobody_without_rights_keeps_clatd_from_running() {
    in_namespace(|_bed| async move {
        let program = "import os, socket, sys, time\n\
                       os.setuid(65534)\n\
                       held = [socket.socket(socket.AF_UNIX) for name in sys.argv[1:]]\n\
                       for (one, name) in zip(held, sys.argv[1:]): one.bind('\\0' + name); one.listen()\n\
                       print('ready', flush=True); time.sleep(1000)";
        let child = Command::new("python3")
            .args(["-c", program, "clatd", "clatd.1"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut squatter = Squatter(child);
        let mut line = String::new();
        let mut output = std::io::BufReader::new(squatter.0.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        assert_eq!(line, "ready\n");
        let lock = NamespaceLock::acquire(Path::new("/nonexistent")).await.unwrap();
        let names = sh("cat /proc/net/unix");
        assert!(names.contains("@clatd.2"), "{names}");
        lock.release().await;
    });
}

fn tun(persistent: bool) -> [Op; 2] {
    let (device, alias) = ("clat".to_owned(), "clatd:wan0".to_owned());
    let create = Op::CreateTun(NewTun {
        device: device.clone(),
        alias: alias.clone(),
        persistent,
        queues: 1,
    });
    [create, Op::DeleteTun { device, alias }]
}

/// Another clatd's device, in use, and what of it a failed start, an undo without a record, and cleanup leave: all.
#[test]
fn a_running_clat_of_another_is_not_torn_down() {
    in_namespace(|mut bed| async move {
        let directory = tempfile::tempdir().unwrap();
        let runtime = directory.path().join("clatd");
        let mut other = kernel_of_another(&bed.netlink);
        let [create, delete] = tun(false);
        clatd_stages::apply::System::apply(&mut other, &create, None)
            .await
            .unwrap();
        sh("ip link set clat up; until ip link show clat | grep -q LOWER_UP; do sleep 0.02; done");
        let before = settled_state().await;

        let mut journal = FileJournal::open(&runtime, "wan0").unwrap();
        let step = Step::new(StageName::Device, "", create.clone(), delete.clone());
        apply(std::slice::from_ref(&step), &mut bed.kernel, &mut journal, &|| false)
            .await
            .unwrap_err();
        assert!(journal.pending().is_empty(), "there is nothing to take back");
        assert!(unwind(&mut bed.kernel, &mut journal, &[]).await.is_empty());
        assert_unchanged(&before);

        // A killed daemon's record of the same device, before and after it was made.
        for index in [None, Some(999_999)] {
            let seq = journal.intend(&step).await.unwrap();
            if let Some(index) = index {
                journal.done(seq, &Left::Device(index).into()).await.unwrap();
            }
            let report = cleanup::run(&runtime, &Settings::default(), false).await.unwrap();
            assert!(
                report
                    .errors
                    .iter()
                    .any(|error| error.contains("a running program has it open")),
                "{report:?}"
            );
            assert_unchanged(&before);
            journal = FileJournal::open(&runtime, "wan0").unwrap();
            while let Some(pending) = journal.pending().first() {
                journal.undone(pending.seq).await.unwrap();
            }
        }
        drop(other);
    });
}

fn kernel_of_another(netlink: &clatd::kernel::Netlink) -> clatd::kernel::Kernel {
    let (exits, _) = tokio::sync::mpsc::unbounded_channel();
    clatd::kernel::Kernel::new("wan0", netlink.clone(), Default::default(), exits)
}

/// A runtime directory with this many bytes.
fn small_directory(path: &Path, size: &str) {
    fs::create_dir(path).unwrap();
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .unwrap();
    let options = format!("size={size},mode=700");
    mount(
        Some("none"),
        path,
        Some("tmpfs"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .unwrap();
}

fn fill(directory: &Path) {
    let _ = Command::new("dd")
        .args(["if=/dev/zero", "bs=1k", "oflag=append", "conv=notrunc"])
        .arg(format!("of={}/filler", directory.display()))
        .stderr(Stdio::null())
        .status()
        .unwrap();
}

#[test]
fn a_directory_that_fills_up_keeps_nothing_from_being_undone() {
    in_namespace(|mut bed| async move {
        let directory = tempfile::tempdir().unwrap();
        let runtime = directory.path().join("clatd");
        small_directory(&runtime, "64k");
        let [create, delete] = tun(true);
        let step = Step::new(StageName::Device, "", create, delete);
        let mut journal = FileJournal::open(&runtime, "wan0").unwrap();
        let before = state();
        apply(std::slice::from_ref(&step), &mut bed.kernel, &mut journal, &|| false)
            .await
            .unwrap();
        fill(&runtime);
        // Where there is no room for what is to come, nothing of it is begun.
        let many = vec![step; 200];
        let error = journal.make_room(0, &many).await.unwrap_err();
        assert!(chain(&error).contains("No space left"), "{}", chain(&error));
        assert_eq!(journal.pending().len(), 1);
        assert!(
            unwind(&mut bed.kernel, &mut journal, &[]).await.is_empty(),
            "it is recorded, too"
        );
        assert!(!runtime.join("journal/wan0.jsonl").exists());
        assert_unchanged(&before);
        // And a first step is not begun either.
        fill(&runtime);
        let error = journal.intend(&many[0]).await.unwrap_err();
        assert!(chain(&error).contains("No space left"), "{}", chain(&error));
        assert!(!runtime.join("journal/wan0.jsonl").exists(), "nothing is left behind");
    });
}
