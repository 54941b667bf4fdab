//! The journal files and the lock of the runtime directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use clatd_stages::journal::{Entry, Journal, JournalError, Ledger, Outcome, Pending, encode};
use clatd_stages::plan::Step;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use crate::trusted;

const DIRECTORY: &str = "journal";
const EXTENSION: &str = "jsonl";

/// Bytes for the lines that follow an intent: its outcome, and its undo.
const ROOM_PER_STEP: u64 = 512;

/// One instance's journal: JSON lines in `<runtime>/journal/<instance>.jsonl`. Each is written at once. Only root can
/// read the file. It exists only while something is pending.
///
/// Each intent reserves room for its later lines. So an undo can be recorded even if the disk is full by then.
#[derive(Debug)]
pub struct FileJournal {
    path: PathBuf,
    file: Option<File>,
    /// Where its last whole line ends. The next line is written there, over a line that was written by half.
    end: u64,
    ledger: Ledger,
}

impl FileJournal {
    /// Opens the journal of an instance, and continues at its end. Creates nothing.
    pub fn open(runtime: &Path, instance: &str) -> Result<Self, JournalError> {
        let directory = runtime.join(DIRECTORY);
        let path = directory.join(format!("{instance}.{EXTENSION}"));
        // The name becomes part of a path, so it is checked here too.
        if instance.is_empty() || instance.contains('/') {
            return Err(error(
                "opening",
                &path,
                io::Error::other("the instance's name cannot be a file name"),
            ));
        }
        let opened = trusted::directory(&directory)
            .and_then(|()| trusted::open_file(&path, OpenOptions::new().read(true).write(true)));
        let mut file = match opened {
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

    /// The instances with a pending step in their journal, by name. Those whose journal cannot be read are included:
    /// opening it reports that.
    pub fn list(runtime: &Path) -> Result<Vec<String>, JournalError> {
        let directory = runtime.join(DIRECTORY);
        let entries = match trusted::directory(&directory).and_then(|()| fs::read_dir(&directory)) {
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
        // A daemon that was killed after its last undo left a file in which nothing is pending.
        names.retain(|name| Self::open(runtime, name).map_or(true, |journal| !journal.pending().is_empty()));
        names.sort();
        Ok(names)
    }

    /// When it was last written to.
    pub(crate) fn modified(&self) -> Option<std::time::SystemTime> {
        self.file.as_ref()?.metadata().ok()?.modified().ok()
    }

    fn write(&mut self, event: Entry) -> Result<(), JournalError> {
        let line = self.line(&event)?;
        self.append(line.as_bytes())
            .map_err(|cause| error("writing", &self.path, cause))?;
        self.ledger.record(event);
        if self.ledger.pending().is_empty() {
            self.remove().map_err(|cause| error("removing", &self.path, cause))?;
        }
        Ok(())
    }

    fn line(&self, event: &Entry) -> Result<String, JournalError> {
        encode(event.clone()).map_err(|cause| error("encoding a line of", &self.path, cause.into()))
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let end = self.end;
        let file = self.file()?;
        // Cuts off the rest of a failed write; then one call writes one line. Otherwise the file is not cut, since
        // that would release the reserved room.
        if file.metadata()?.len() != end {
            file.set_len(end)?;
        }
        file.seek(SeekFrom::Start(end))?;
        file.write_all(line)?;
        self.end += line.len() as u64;
        Ok(())
    }

    /// Makes sure that so many more bytes can be written. The length of the file does not change.
    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        let end = self.end;
        let file = self.file()?;
        let [from, length] = [end, bytes].map(|number| i64::try_from(number).map_err(io::Error::other));
        match fallocate(&*file, FallocateFlags::FALLOC_FL_KEEP_SIZE, from?, length?) {
            // Not every file system can; then writing tells.
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
            other => other.map_err(io::Error::from),
        }
    }

    /// The file, made if it is not there.
    fn file(&mut self) -> io::Result<&mut File> {
        match &mut self.file {
            Some(file) => Ok(file),
            none => {
                if let Some(directory) = self.path.parent() {
                    trusted::create_directory(directory)?;
                }
                let mut options = OpenOptions::new();
                options.write(true).create_new(true).mode(0o600);
                Ok(none.insert(trusted::open_file(&self.path, &mut options)?))
            }
        }
    }

    /// Removes a file that was created for a first line that could not be written.
    fn forget_if_empty(&mut self) {
        if self.ledger.pending().is_empty()
            && let Err(cause) = self.remove()
        {
            tracing::debug!("removing {}: {cause}", self.path.display());
        }
    }

    fn remove(&mut self) -> io::Result<()> {
        self.file = None;
        self.end = 0;
        trusted::remove(&self.path)
    }
}

#[async_trait]
impl Journal for FileJournal {
    async fn intend(&mut self, step: &Step) -> Result<u64, JournalError> {
        let seq = self.ledger.next_seq();
        let event = Entry::Intend {
            seq,
            step: Box::new(step.clone()),
        };
        let length = self.line(&event)?.len() as u64;
        let steps = self.ledger.pending().len() as u64 + 1;
        if let Err(cause) = self.reserve(length + steps * ROOM_PER_STEP) {
            self.forget_if_empty();
            return Err(error("making room in", &self.path, cause));
        }
        let written = self.write(event);
        if written.is_err() {
            self.forget_if_empty();
        }
        written.map(|()| seq)
    }

    async fn done(&mut self, seq: u64, outcome: &Outcome) -> Result<(), JournalError> {
        self.write(Entry::Done {
            seq,
            outcome: outcome.clone(),
        })
    }

    async fn undone(&mut self, seq: u64) -> Result<(), JournalError> {
        self.write(Entry::Undone { seq })
    }

    fn pending(&self) -> Vec<Pending> {
        self.ledger.pending().to_vec()
    }

    async fn make_room(&mut self, keep: usize, steps: &[Step]) -> Result<(), JournalError> {
        let mut room = (self.ledger.pending().len().saturating_sub(keep) as u64) * ROOM_PER_STEP;
        for step in steps {
            let step = Box::new(step.clone());
            room += self.line(&Entry::Intend { seq: u64::MAX, step })?.len() as u64 + ROOM_PER_STEP;
        }
        // A step that stays needs room for its undo, too.
        room += keep as u64 * ROOM_PER_STEP;
        let made = self.reserve(room);
        self.forget_if_empty();
        made.map_err(|cause| error("making room in", &self.path, cause))
    }
}

fn error(doing: &'static str, path: &Path, source: io::Error) -> JournalError {
    JournalError::Io {
        doing,
        path: path.display().to_string(),
        source,
    }
}
