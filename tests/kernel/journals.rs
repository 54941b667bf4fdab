//! Journal files and the lock.

use std::os::unix::fs::PermissionsExt;

use clatd::kernel::{FileJournal, Holds, Kernel, RuntimeLock};
use clatd_stages::apply::{System, unwind};
use clatd_stages::journal::{Journal, Left};
use clatd_stages::op::Op;
use clatd_stages::plan::{StageName, Step};

use crate::support::{Bed, assert_unchanged, chain, in_namespace, sh, state};

fn step(path: &str) -> Step {
    let path = path.to_owned();
    Step::new(
        StageName::Translator,
        "a test",
        Op::WriteFile {
            path: path.clone(),
            contents: "x".into(),
        },
        Op::RemoveFile { path },
    )
}

#[tokio::test]
async fn a_journal_outlives_its_daemon_and_goes_when_nothing_is_pending() {
    let runtime = tempfile::tempdir().unwrap();
    let file = runtime.path().join("journal/wan0.jsonl");
    let mut journal = FileJournal::open(runtime.path(), "wan0").unwrap();
    assert!(!file.exists(), "made by the first step only");
    let first = journal.intend(&step("/tmp/a")).await.unwrap();
    journal.done(first, &Left::Rule(7).into()).await.unwrap();
    journal.intend(&step("/tmp/b")).await.unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    drop(journal);

    // Killed in the middle of a line.
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}{{\"v\":1,\"event\":\"inte")).unwrap();
    assert_eq!(FileJournal::list(runtime.path()).unwrap(), ["wan0"]);
    let mut journal = FileJournal::open(runtime.path(), "wan0").unwrap();
    let pending = journal.pending();
    assert_eq!(pending.len(), 2);
    assert_eq!(pending[0].outcome, Some(Left::Rule(7).into()));
    assert_eq!(pending[1].outcome, None);
    let third = journal.intend(&step("/tmp/c")).await.unwrap();
    assert_eq!(third, 3);
    drop(journal);

    let mut journal = FileJournal::open(runtime.path(), "wan0").unwrap();
    assert_eq!(journal.pending().len(), 3);
    for seq in [3, 2, 1] {
        journal.undone(seq).await.unwrap();
    }
    assert!(!file.exists());
    assert!(FileJournal::list(runtime.path()).unwrap().is_empty());
    let last = journal.intend(&step("/tmp/d")).await.unwrap();
    assert!(file.exists(), "the same journal begins anew");
    drop(journal);

    // Killed after the last undo and before the file was removed.
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        format!("{text}{{\"v\":1,\"event\":\"undone\",\"seq\":{last}}}\n"),
    )
    .unwrap();
    assert!(FileJournal::list(runtime.path()).unwrap().is_empty());
}

#[test]
fn a_journal_is_unwound_by_the_kernel() {
    in_namespace(|mut bed| async move {
        let runtime = tempfile::tempdir().unwrap();
        let path = runtime.path().join("x").display().to_string();
        let mut journal = FileJournal::open(runtime.path(), "wan0").unwrap();
        let steps = [step(&path)];
        clatd_stages::apply::apply(&steps, &mut bed.kernel, &mut journal, &|| false)
            .await
            .unwrap();
        assert!(runtime.path().join("x").exists());
        assert!(unwind(&mut bed.kernel, &mut journal, &[]).await.is_empty());
        assert!(!runtime.path().join("x").exists());
        assert!(FileJournal::list(runtime.path()).unwrap().is_empty());
    });
}

#[test]
fn what_is_no_journal_is_named() {
    let runtime = tempfile::tempdir().unwrap();
    std::fs::create_dir(runtime.path().join("journal")).unwrap();
    std::fs::write(runtime.path().join("journal/wan0.jsonl"), "nonsense\n").unwrap();
    let error = FileJournal::open(runtime.path(), "wan0").unwrap_err();
    assert!(chain(&error).contains("wan0.jsonl, line 1"), "{}", chain(&error));
    assert!(FileJournal::open(runtime.path(), "../wan0").is_err());
}

#[test]
fn two_daemons_cannot_share_a_runtime_directory() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = directory.path().join("clatd");
    let lock = RuntimeLock::acquire(&runtime).unwrap();
    let error = RuntimeLock::acquire(&runtime).unwrap_err();
    let wanted = format!(
        "another clatd (process {}) runs with the runtime directory",
        std::process::id()
    );
    assert!(chain(&error).starts_with(&wanted), "{}", chain(&error));
    drop(lock);
    RuntimeLock::acquire(&runtime).unwrap();
}

/// A journal of an earlier version (tests/journals): its steps are done, the daemon is killed, and the journal is undone.
async fn is_undone(bed: &mut Bed, sample: &str, meanwhile: &str) -> Vec<(String, bool)> {
    let runtime = tempfile::tempdir().unwrap();
    let directory = runtime.path().join("journal");
    std::fs::create_dir(&directory).unwrap();
    let text = sample.replace("@DIRECTORY@", &runtime.path().display().to_string());
    std::fs::write(directory.join("wan0.jsonl"), text).unwrap();
    sh(
        "nft add table ip6 theirs; nft add chain ip6 theirs forward; ip6tables -A FORWARD -j ACCEPT; ip6tables -F FORWARD
        echo 1 >/proc/sys/net/ipv6/conf/isp0/forwarding",
    );
    let before = state();

    let (exits, _) = tokio::sync::mpsc::unbounded_channel();
    let mut killed = Kernel::new("test", bed.netlink.clone(), Holds::default(), exits);
    let mut journal = FileJournal::open(runtime.path(), "wan0").unwrap();
    let mut same = Vec::new();
    for pending in journal.pending() {
        let name = pending.step.apply.to_string();
        let outcome = killed.apply(&pending.step.apply, None).await;
        let outcome = outcome.unwrap_or_else(|error| panic!("{name}: {}", chain(&error)));
        same.push((name, pending.outcome == Some(outcome)));
    }
    drop(killed);
    sh(meanwhile);
    let errors = unwind(&mut bed.kernel, &mut journal, &[]).await;
    assert!(errors.is_empty(), "{errors:?}");
    assert_unchanged(&before);
    assert_eq!(FileJournal::list(runtime.path()).unwrap(), [""; 0]);
    same
}

#[test]
fn each_operation_is_in_a_journal() {
    let journals = [
        include_str!("../journals/operations.jsonl"),
        include_str!("../journals/oldest.jsonl"),
    ]
    .concat();
    let name = |variant: &str| {
        let dashed = variant.chars().map(|c| {
            if c.is_uppercase() {
                format!("-{}", c.to_lowercase())
            } else {
                c.to_string()
            }
        });
        dashed.collect::<String>().trim_start_matches('-').to_owned()
    };
    let names = crate::every_op::VARIANTS.iter().map(|variant| name(variant));
    let missing: Vec<_> = names
        .filter(|name| !journals.contains(&format!("\"op\":\"{name}\"")))
        .collect();
    assert!(
        missing.is_empty(),
        "no sample in tests/journals/operations.jsonl: {missing:?}"
    );
}

#[test]
fn a_journal_of_each_operation_is_undone() {
    in_namespace(|mut bed| async move {
        let same = is_undone(&mut bed, include_str!("../journals/operations.jsonl"), "").await;
        // Devices, rules and tables have the same numbers in each new namespace.
        let other: Vec<_> = same.iter().filter(|(_, same)| !same).collect();
        assert!(other.is_empty(), "their outcomes were others: {other:?}");
    });
}

/// Their outcomes lack indexes of devices; one was killed before it wrote what it had done.
#[test]
fn a_journal_of_the_oldest_form_is_undone() {
    in_namespace(|mut bed| async move {
        let moved = "ip -6 rule add pref 1 lookup local protocol kernel; ip -6 rule del pref 0";
        let oldest = include_str!("../journals/oldest.jsonl");
        is_undone(&mut bed, oldest, moved).await;
        assert!(!sh("tc qdisc show dev up0").contains("clsact"));
    });
}
