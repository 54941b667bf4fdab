//! The journal files and the lock of the runtime directory.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use clatd_stages::journal::{Event, Journal, JournalError, Ledger, Outcome, Pending, encode};
use clatd_stages::plan::Step;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

const DIRECTORY: &str = "journal";
const EXTENSION: &str = "jsonl";
const LOCK: &str = "lock";

/// One instance's journal: JSON lines in `<runtime>/journal/<instance>.jsonl`, each written at once, for root alone.
/// The file is there only while something is pending.
#[derive(Debug)]
pub struct FileJournal {
    path: PathBuf,
    file: Option<File>,
    /// Where its last whole line ends: a half-written one behind it would swallow the next.
    end: u64,
    ledger: Ledger,
}

impl FileJournal {
    /// Opens the journal of an instance, and goes on where it ends. Creates nothing.
    pub fn open(runtime: &Path, instance: &str) -> Result<Self, JournalError> {
        let path = runtime.join(DIRECTORY).join(format!("{instance}.{EXTENSION}"));
        // An instance is named after a file, but nothing says so here.
        if instance.is_empty() || instance.contains('/') {
            return Err(error(
                "opening",
                &path,
                io::Error::other("the instance's name makes no file name"),
            ));
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NOFOLLOW);
        let mut file = match options.open(&path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                return Ok(Self {
                    path,
                    file: None,
                    end: 0,
                    ledger: Ledger::default(),
                });
            }
            other => other.map_err(|cause| error("opening", &path, cause))?,
        };
        let mut text = String::new();
        file.read_to_string(&mut text)
            .map_err(|cause| error("reading", &path, cause))?;
        let ledger = Ledger::parse(&path.display().to_string(), &text)?;
        let end = text.rfind('\n').map_or(0, |end| end as u64 + 1);
        Ok(Self {
            path,
            file: Some(file),
            end,
            ledger,
        })
    }

    /// The instances with something pending in their journal, by name; also those whose journal cannot be read, for that
    /// is for opening it to say.
    pub fn list(runtime: &Path) -> Result<Vec<String>, JournalError> {
        let directory = runtime.join(DIRECTORY);
        let entries = match fs::read_dir(&directory) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|cause| error("listing", &directory, cause))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let path = entry.map_err(|cause| error("listing", &directory, cause))?.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION) {
                names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
            }
        }
        // Killed after the last undo and before the file was removed.
        names.retain(|name| Self::open(runtime, name).map_or(true, |journal| !journal.pending().is_empty()));
        names.sort();
        Ok(names)
    }

    /// When it was last written to.
    pub(crate) fn modified(&self) -> Option<std::time::SystemTime> {
        self.file.as_ref()?.metadata().ok()?.modified().ok()
    }

    fn write(&mut self, event: Event) -> Result<(), JournalError> {
        let line = encode(event.clone());
        self.append(line.as_bytes())
            .map_err(|cause| error("writing", &self.path, cause))?;
        self.ledger.record(event);
        if self.ledger.pending().is_empty() {
            self.remove().map_err(|cause| error("removing", &self.path, cause))?;
        }
        Ok(())
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                if let Some(directory) = self.path.parent() {
                    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
                }
                let mut options = OpenOptions::new();
                options
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .custom_flags(libc::O_NOFOLLOW);
                none.insert(options.open(&self.path)?)
            }
        };
        // Cuts off what an earlier attempt left of a line; then one call a line.
        file.set_len(self.end)?;
        file.seek(SeekFrom::Start(self.end))?;
        file.write_all(line)?;
        self.end += line.len() as u64;
        Ok(())
    }

    fn remove(&mut self) -> io::Result<()> {
        self.file = None;
        self.end = 0;
        match fs::remove_file(&self.path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

#[async_trait]
impl Journal for FileJournal {
    async fn intend(&mut self, step: &Step) -> Result<u64, JournalError> {
        let seq = self.ledger.next_seq();
        self.write(Event::Intend {
            seq,
            step: Box::new(step.clone()),
        })?;
        Ok(seq)
    }

    async fn done(&mut self, seq: u64, outcome: &Outcome) -> Result<(), JournalError> {
        self.write(Event::Done {
            seq,
            outcome: outcome.clone(),
        })
    }

    async fn undone(&mut self, seq: u64) -> Result<(), JournalError> {
        self.write(Event::Undone { seq })
    }

    fn pending(&self) -> Vec<Pending> {
        self.ledger.pending().to_vec()
    }
}

fn error(doing: &'static str, path: &Path, source: io::Error) -> JournalError {
    JournalError::Io {
        doing,
        path: path.display().to_string(),
        source,
    }
}

/// The runtime directory cannot be ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another clatd has it.
    #[error("another clatd{} runs with the runtime directory {directory}; stop it, or set CLATD_RUNTIME_DIR", .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Taken {
        /// The runtime directory.
        directory: String,
        /// Its process number, as far as the lock file tells.
        pid: Option<u32>,
    },
    /// It cannot be made or written.
    #[error("locking the runtime directory {directory}")]
    Io {
        /// The runtime directory.
        directory: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// How long the lock of a dead daemon may linger.
const LINGERING: Duration = Duration::from_secs(3);

fn is_alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// Keeps other daemons out of the runtime directory until it is dropped.
#[derive(Debug)]
pub struct RuntimeLock {
    _lock: Flock<File>,
}

impl RuntimeLock {
    /// Whether a daemon has ever locked this directory.
    pub(crate) fn exists(runtime: &Path) -> bool {
        runtime.join(LOCK).exists()
    }

    /// Makes the runtime directory if need be, and locks it. The kernel unlocks it when this process ends, however
    /// it ends; so the file stays, and says nothing by being there.
    pub fn acquire(runtime: &Path) -> Result<Self, LockError> {
        let directory = runtime.display().to_string();
        let io_error = |source| LockError::Io {
            directory: directory.clone(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(runtime)
            .map_err(io_error)?;
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW);
        let begun = Instant::now();
        loop {
            let file = options.open(runtime.join(LOCK)).map_err(io_error)?;
            match Self::lock(file, &directory) {
                // A daemon that was killed while it started a program has a child that still holds the lock, until it
                // becomes that program.
                Err(LockError::Taken { pid: Some(pid), .. }) if !is_alive(pid) && begun.elapsed() < LINGERING => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                locked => return locked,
            }
        }
    }

    fn lock(file: File, directory: &str) -> Result<Self, LockError> {
        let io_error = |source| LockError::Io {
            directory: directory.to_owned(),
            source,
        };
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                let pid = format!("{}\n", std::process::id());
                lock.set_len(0)
                    .and_then(|()| lock.write_all(pid.as_bytes()))
                    .map_err(io_error)?;
                Ok(Self { _lock: lock })
            }
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let mut text = String::new();
                let pid = file
                    .read_to_string(&mut text)
                    .ok()
                    .and_then(|_| text.trim().parse().ok());
                Err(LockError::Taken {
                    directory: directory.to_owned(),
                    pid,
                })
            }
            Err((_, errno)) => Err(io_error(errno.into())),
        }
    }
}
