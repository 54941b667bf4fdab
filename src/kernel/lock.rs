//! Who runs: one clatd in a runtime directory, and one in a network namespace.
//!
//! An abstract Unix socket marks the network namespace, since its names belong to that. It answers everybody who
//! connects with one line: which process runs, and with which runtime directory. Anybody may take such a name. If a
//! user holds it who could not run a clatd, it says nothing, and the next name is tried.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;
use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio_util::task::AbortOnDropHandle;

use crate::trusted;

const LOCK: &str = "lock";
/// The first name of the socket; further ones have a number behind it.
const NAME: &str = "clatd";
/// How many names are tried.
const NAMES: usize = 16;
/// How long another clatd may take to say where it runs.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest answer that is read.
const LONGEST: u64 = 8192;
/// How long the lock of a dead daemon may remain.
const LINGERING: Duration = Duration::from_secs(3);
/// How often the lock is tried meanwhile.
const POLL: Duration = Duration::from_millis(20);

/// This clatd must not run.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another clatd has the runtime directory.
    #[error(
        "another clatd{} runs with the runtime directory {directory}; stop it first{}; \"clatd status\" shows what it does",
        process(.pid),
        ELSEWHERE
    )]
    Taken {
        /// The runtime directory.
        directory: String,
        /// Its process number, if the lock file has it.
        pid: Option<u32>,
    },
    /// Another clatd runs in this network namespace.
    #[error(
        "another clatd{} runs in this network namespace{}; stop it first",
        process(.pid),
        .directory.as_ref().map(|directory| format!(", with the runtime directory {directory}")).unwrap_or_default()
    )]
    Namespace {
        /// Its runtime directory, as far as it tells.
        directory: Option<String>,
        /// Its process number, if it is in our process namespace.
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
    /// The socket cannot be made.
    #[error("looking for other clatds in this network namespace")]
    Socket(#[source] io::Error),
}

const ELSEWHERE: &str = " (in another network namespace, set CLATD_RUNTIME_DIR)";

fn process(pid: &Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

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
        runtime.join(LOCK).symlink_metadata().is_ok()
    }

    /// Creates the runtime directory if needed, and locks it. The kernel releases the lock when this process ends in
    /// any way. So the file stays, and its existence says nothing.
    pub fn acquire(runtime: &Path) -> Result<Self, LockError> {
        let directory = runtime.display().to_string();
        let io_error = |source| LockError::Io {
            directory: directory.clone(),
            source,
        };
        trusted::create_directory(runtime).map_err(io_error)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let begun = Instant::now();
        loop {
            let file = trusted::open_file(&runtime.join(LOCK), &mut options).map_err(io_error)?;
            match Self::lock(file, &directory) {
                // A daemon that was killed while it started a program has a child that holds the lock until it
                // becomes that program.
                Err(LockError::Taken { pid: Some(pid), .. }) if !is_alive(pid) && begun.elapsed() < LINGERING => {
                    std::thread::sleep(POLL);
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
            Err((file, Errno::EWOULDBLOCK)) => {
                let mut text = String::new();
                let pid = file
                    .take(LONGEST)
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

/// Keeps other daemons out of the network namespace until it is dropped.
#[derive(Debug)]
pub struct NamespaceLock {
    answering: Option<AbortOnDropHandle<()>>,
}

impl NamespaceLock {
    /// Takes the network namespace of the calling thread. Whoever connects is told the number and the runtime
    /// directory of this process. Needs a runtime.
    pub async fn acquire(runtime: &Path) -> Result<Self, LockError> {
        let begun = Instant::now();
        let mut number = 0;
        while number < NAMES {
            let address = SocketAddr::from_abstract_name(name(number)).map_err(LockError::Socket)?;
            match UnixListener::bind_addr(&address) {
                Ok(listener) => return Self::answering(listener, runtime).map_err(LockError::Socket),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(LockError::Socket(error)),
            }
            match owner(number) {
                // The owner has just gone, so the same name is tried again.
                NameOwner::Gone if begun.elapsed() < LINGERING => tokio::time::sleep(POLL).await,
                NameOwner::Clatd { pid, directory } => return Err(LockError::Namespace { directory, pid }),
                NameOwner::Stranger(user) => {
                    tracing::debug!(?user, "the abstract socket {} is not a clatd's", name(number));
                    number += 1;
                }
                NameOwner::Gone => number += 1,
            }
        }
        tracing::warn!(
            "cannot tell whether another clatd runs in this network namespace: other users hold all socket names that clatd uses"
        );
        Ok(Self { answering: None })
    }

    /// Gives the namespace back, at once.
    pub async fn release(mut self) {
        if let Some(answering) = self.answering.take() {
            answering.abort();
            // Cancelled, which is what was asked for.
            let _ = answering.await;
        }
    }

    fn answering(listener: UnixListener, runtime: &Path) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let line = json!({
            "clatd": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "runtime_dir": runtime.to_string_lossy(),
        });
        let line = format!("{line}\n");
        let task = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    // The buffer of a new connection takes the whole line, so there is nothing to wait for.
                    Ok((client, _)) => _ = client.into_std().and_then(|mut client| client.write(line.as_bytes())),
                    Err(_) => tokio::time::sleep(POLL).await,
                }
            }
        });
        Ok(Self {
            answering: Some(AbortOnDropHandle::new(task)),
        })
    }
}

/// Who has a name.
enum NameOwner {
    /// Nobody any more.
    Gone,
    /// A process that may be a clatd.
    Clatd {
        pid: Option<u32>,
        directory: Option<String>,
    },
    /// A user who cannot run one.
    Stranger(Option<u32>),
}

fn name(number: usize) -> String {
    match number {
        0 => NAME.to_owned(),
        number => format!("{NAME}.{number}"),
    }
}

fn owner(number: usize) -> NameOwner {
    let stream = match connect(number) {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return NameOwner::Gone,
        // It lets nobody in, as no clatd does.
        Err(_) => return NameOwner::Stranger(None),
    };
    let Ok(peer) = getsockopt(&stream, PeerCredentials) else {
        return NameOwner::Stranger(None);
    };
    if peer.uid() != 0 && peer.uid() != geteuid().as_raw() {
        return NameOwner::Stranger(Some(peer.uid()));
    }
    // 0 = it is in another PID namespace.
    let pid = u32::try_from(peer.pid()).ok().filter(|pid| *pid != 0);
    if pid.is_some_and(|pid| !is_alive(pid)) {
        return NameOwner::Gone;
    }
    let directory = answer(stream)
        .ok()
        .and_then(|answer| Some(answer.get("runtime_dir")?.as_str()?.to_owned()));
    NameOwner::Clatd { pid, directory }
}

/// The standard library's connect would wait for ever if many clients wait already.
fn connect(number: usize) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.connect(&SockAddr::unix(format!("\0{}", name(number)))?)?;
    Ok(UnixStream::from(socket))
}

fn answer(stream: UnixStream) -> io::Result<Value> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.take(LONGEST)).read_line(&mut line)?;
    serde_json::from_str(&line).map_err(io::Error::other)
}
