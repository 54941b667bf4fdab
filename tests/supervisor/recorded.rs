//! Recorded cases: each file tells what happens, and behind each event what the instance does about it.
//!
//! ```text
//! # what it is about                         comment
//! settings KEY=VALUE...                      before the first event: of the instance
//! only when-idle=MODE: WHY                   without it the case goes the same with `wait` and with `exit`
//! world EVENT                                before the first event: what the world is like, see `events.rs`
//! > EVENT                                    something happens, and the instance is told
//! > quietly EVENT                            ... and it is not told
//! > wait SECONDS                             nothing happens
//! > fail TEXT | fail always TEXT | heal      operations with this text in them fail: the next one, or all until healed
//! > somebody undoes TEXT                     what operations with this text in them did is gone
//! > the translator dies: WHY | a former translator died: WHY
//! > stop | stop during TEXT                  a stop is asked for, now or during the operation with this text in it
//! ```
//!
//! What follows are lines of the recorder: a state and its reason, operations (a long row of them in one line), and the
//! end. Times are those since the event.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clatd::instance::{End, Status};
use clatd::kernel::{Start, TranslatorExit};
use clatd_stages::op::Op;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::events::{happens, two_uplinks};
use crate::shared::{SharedJournal, SharedSystem};
use crate::support::cases::settings;
use crate::support::living::{Beginning, Living};
use crate::support::model::ModelState;

/// How long the recorder listens after an event.
const LISTEN: Duration = Duration::from_secs(3);
/// Begins the line that says in which mode a case is played.
const ONLY: &str = "only when-idle=";
/// Rows of operations longer than this take one line.
const ROW: usize = 8;

#[derive(Default)]
struct Log {
    lines: Vec<String>,
    row: Vec<String>,
    event: Option<Instant>,
}

impl Log {
    fn operation(&mut self, op: &Op) {
        self.row.push(op.to_string());
    }

    fn say(&mut self, text: &str) {
        self.end_row();
        let passed = self.event.map_or(0.0, |event| event.elapsed().as_secs_f32());
        let time = if passed >= 0.05 {
            format!(" ({passed:.1} s)")
        } else {
            String::new()
        };
        self.lines.push(format!("{text}{time}"));
    }

    fn end_row(&mut self) {
        let row = std::mem::take(&mut self.row);
        match row.as_slice() {
            [first, .., last] if row.len() > ROW => {
                self.lines
                    .push(format!("    {} operations: {first} ... {last}", row.len()));
            }
            row => self.lines.extend(row.iter().map(|op| format!("    {op}"))),
        }
    }
}

/// What shall fail, and where a stop is asked for.
#[derive(Default)]
struct Trouble {
    once: Option<String>,
    always: Option<String>,
    stop: Option<String>,
}

struct Recorder {
    system: SharedSystem,
    log: Arc<Mutex<Log>>,
    trouble: Arc<Mutex<Trouble>>,
    changes: watch::Sender<u64>,
    exits: mpsc::UnboundedSender<TranslatorExit>,
    stop: CancellationToken,
    task: Option<JoinHandle<End>>,
    before: ModelState,
}

impl Recorder {
    fn begin(head: &[&str], waits: bool) -> Self {
        let mut world = two_uplinks();
        let mut pairs = Vec::new();
        for line in head {
            if let Some(event) = line.strip_prefix("world ") {
                happens(&mut world, event);
            } else if let Some(words) = line.strip_prefix("settings ") {
                pairs.extend(words.split(' ').map(|word| word.split_once('=').expect("KEY=VALUE")));
            } else {
                let known = line.starts_with('#') || line.starts_with(ONLY);
                assert!(line.is_empty() || known, "{line}");
            }
        }
        let pairs: Vec<_> = pairs
            .into_iter()
            .map(|(key, value)| {
                let typed = serde_json::from_str(value).unwrap_or_else(|_| value.replace('_', " ").into());
                (key, typed)
            })
            .collect();

        let log = Arc::new(Mutex::new(Log::default()));
        let trouble = Arc::new(Mutex::new(Trouble::default()));
        let stop = CancellationToken::new();
        let interference = {
            let (log, trouble, stop) = (log.clone(), trouble.clone(), stop.clone());
            Box::new(move |_: &str, op: &Op| {
                log.lock().unwrap().operation(op);
                trouble.lock().unwrap().meets(&op.to_string(), &stop)
            })
        };
        let system = SharedSystem::new(world, interference);
        let before = system.state();
        let changes = watch::channel(0).0;
        let (status, statuses) = watch::channel(Status::default());
        tokio::spawn(watch_states(statuses, log.clone()));
        let beginning = Beginning {
            name: "clat",
            number: 0,
            settings: settings(&pairs),
            waits,
            world: system.clone(),
            system: Box::new(system.of("clat")),
            journal: Box::new(SharedJournal::default()),
            changes: changes.subscribe(),
            stop,
            status,
        };
        let Living { exits, stop, task } = beginning.run();
        Self {
            system,
            log,
            trouble,
            changes,
            exits,
            stop,
            task: Some(task),
            before,
        }
    }

    async fn event(&mut self, event: &str) {
        let mut listen = LISTEN;
        self.log.lock().unwrap().event = Some(Instant::now());
        if let Some(seconds) = event.strip_prefix("wait ") {
            listen = Duration::from_secs(seconds.parse().unwrap());
        } else if let Some(quiet) = event.strip_prefix("quietly ") {
            self.system.change(|world| happens(world, quiet));
        } else if let Some(text) = event.strip_prefix("fail always ") {
            self.trouble.lock().unwrap().always = Some(text.to_owned());
        } else if let Some(text) = event.strip_prefix("fail ") {
            self.trouble.lock().unwrap().once = Some(text.to_owned());
        } else if let Some(text) = event.strip_prefix("stop during ") {
            self.trouble.lock().unwrap().stop = Some(text.to_owned());
        } else if let Some(text) = event.strip_prefix("somebody undoes ") {
            self.system.undo(text);
            self.changes.send_modify(|count| *count += 1);
        } else if let Some(why) = event.strip_prefix("the translator dies: ") {
            self.exits.send(exit(why)).unwrap();
        } else if let Some(why) = event.strip_prefix("a former translator died: ") {
            let exit = exit(why);
            exit.start.end();
            self.exits.send(exit).unwrap();
        } else {
            match event {
                "start" => {}
                "heal" => *self.trouble.lock().unwrap() = Trouble::default(),
                "stop" => self.stop.cancel(),
                event => {
                    self.system.change(|world| happens(world, event));
                    self.changes.send_modify(|count| *count += 1);
                }
            }
        }
        // Trouble is what comes next, not an event by itself.
        if !event.starts_with("fail ") && !event.starts_with("stop during ") && event != "heal" {
            tokio::time::sleep(listen).await;
        }
        self.look_for_the_end().await;
    }

    async fn look_for_the_end(&mut self) {
        let Some(task) = self.task.take_if(|task| task.is_finished()) else {
            self.log.lock().unwrap().end_row();
            return;
        };
        let end = task.await.unwrap();
        let mut log = self.log.lock().unwrap();
        log.event = None;
        log.say(&format!("ended: {end:?}").to_lowercase());
        let after = self.system.state();
        for (_, object) in after.objects.difference(&self.before.objects) {
            log.say(&format!("left behind: {object}"));
        }
        for (_, object) in self.before.objects.difference(&after.objects) {
            log.say(&format!("missing: {object}"));
        }
        for (key, value) in after
            .sysctls
            .iter()
            .filter(|(key, value)| self.before.sysctls.get(*key) != Some(value))
        {
            log.say(&format!("left behind: {key}={value}"));
        }
    }
}

impl Trouble {
    fn meets(&mut self, op: &str, stop: &CancellationToken) -> Result<(), String> {
        if self.stop.take_if(|text| op.contains(text.as_str())).is_some() {
            stop.cancel();
        }
        let once = self.once.take_if(|text| op.contains(text.as_str())).is_some();
        let always = self.always.as_ref().is_some_and(|text| op.contains(text.as_str()));
        if once || always {
            return Err("it fails in this case".into());
        }
        Ok(())
    }
}

fn exit(why: &str) -> TranslatorExit {
    TranslatorExit {
        instance: "clat".into(),
        device: "clat".into(),
        detail: why.into(),
        start: Start::default(),
    }
}

/// Writes down each state as it is entered.
async fn watch_states(mut statuses: watch::Receiver<Status>, log: Arc<Mutex<Log>>) {
    let mut last = (String::new(), None);
    loop {
        let status = statuses.borrow_and_update().clone();
        if status.last_error != last.1 {
            let error = status.last_error.as_deref().unwrap_or_default();
            log.lock().unwrap().say(&format!("  error: {error}"));
        }
        let mut state = format!("  {:?}", status.state).to_lowercase();
        if !status.reason.is_empty() {
            state = format!("{state}: {}", status.reason);
        }
        if state != last.0 {
            log.lock().unwrap().say(&state);
        }
        last = (state, status.last_error);
        if statuses.changed().await.is_err() {
            return;
        }
    }
}

/// Plays the events of a case; the text comes back with what follows now.
async fn play(text: &str, waits: bool) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.iter().position(|line| line.starts_with("> ")).expect("an event");
    let mut played: Vec<String> = lines[..first].iter().map(ToString::to_string).collect();
    let mut recorder = Recorder::begin(&lines[..first], waits);
    for event in lines.iter().filter_map(|line| line.strip_prefix("> ")) {
        recorder.event(event).await;
        played.push(format!("> {event}"));
        played.append(&mut recorder.log.lock().unwrap().lines);
    }
    assert!(recorder.task.is_none(), "it never ends:\n{}", played.join("\n"));
    assert!(
        recorder.system.is_free() || played.join("\n").contains("left behind"),
        "a hold is left"
    );
    played.join("\n") + "\n"
}

/// Whether it waits, for each way in which the case is played.
fn modes(text: &str) -> Vec<bool> {
    let only = text.lines().find_map(|line| line.strip_prefix(ONLY));
    match only.map(|rest| rest.split_once(": ").expect("MODE: WHY").0) {
        Some("wait") => vec![true],
        Some("exit") => vec![false],
        Some(other) => panic!("no such mode: {other}"),
        None => vec![true, false],
    }
}

fn play_alone(text: &str, waits: bool) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(play(text, waits))
}

#[test]
fn every_case_goes_as_recorded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/supervisor/cases");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 25, "only {} cases", files.len());
    let bless = std::env::var_os("CLATD_BLESS").is_some();
    let mut wrong = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let modes = modes(&text);
        let now = play_alone(&text, modes[0]);
        if now != text && bless {
            std::fs::write(&path, &now).unwrap();
        } else if now != text {
            wrong.push(format!("--- {name}: recorded\n{text}--- {name}: now\n{now}"));
        }
        if let Some(other) = modes.get(1).map(|mode| play_alone(&text, *mode))
            && other != now
        {
            wrong.push(format!(
                "--- {name}: with when-idle=wait\n{now}--- {name}: with when-idle=exit\n{other}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}\nCLATD_BLESS=1 records anew", wrong.join("\n"));
}
