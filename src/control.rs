//! The control socket: `control.sock` in the runtime directory, one JSON request per line, one JSON answer per line.
//!
//! ```text
//! -> {"request":"status"}     <- {"version":1,"clatd":"1.0.0","instances":[...]}
//! -> {"request":"doctor"}     <- {"version":1,"wrong":false,"instances":[...]}
//! -> {"request":"reload"}     <- {"ok":true}   or   {"error":"..."}
//! -> {"request":"events"}     <- an object for each event, for as long as the client listens
//! ```
//!
//! Root (and the user that the daemon runs as) may ask for everything; the members of `control-group` for what changes
//! nothing. Who asks is told by the kernel, not by the client.
//!
//! Clients are served side by side, each for a limited time and number of bytes; where there are too many, a new one
//! takes the place of the one that has kept us waiting for longest. So a slow or rude one harms nobody but itself.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clatd_stages::world::World;
use nix::unistd::Group;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::doctor::diagnose;
use crate::status::{Board, FOLLOWERS};
use crate::trusted;
use crate::util::lock;

/// Name of the socket in the runtime directory.
pub const SOCKET: &str = "control.sock";
/// Longest request in bytes.
const LONGEST_REQUEST: u64 = 4096;
/// How long a client may take to send a request, or to read an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Clients served at once.
const CLIENTS: usize = 64;

/// What a client may ask for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ControlRequest {
    request: String,
}

/// How long a doctor may take.
const EXAMINATION: Duration = Duration::from_secs(90);

/// What requests are answered from.
#[derive(Clone)]
pub struct Sources {
    /// All instances.
    pub board: Board,
    /// The running system.
    pub world: Arc<dyn World>,
    /// Where reloads are asked for.
    pub reloads: mpsc::Sender<Reload>,
    /// One examination at a time, since each sends probes.
    examining: Arc<Semaphore>,
}

impl Sources {
    /// The sources of a daemon.
    pub fn new(board: Board, world: Arc<dyn World>, reloads: mpsc::Sender<Reload>) -> Self {
        Self {
            board,
            world,
            reloads,
            examining: Arc::new(Semaphore::new(1)),
        }
    }
}

/// A client's request to reload. The answer is an error text or nothing.
pub type Reload = oneshot::Sender<Result<(), String>>;

/// The socket; removed when dropped.
pub struct Control {
    path: PathBuf,
    _task: AbortOnDropHandle<()>,
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Opens the socket. Replaces the leftover of a killed daemon: the caller holds the lock of the directory.
pub fn open(runtime_dir: &Path, sources: Sources, group: Option<&str>) -> io::Result<Control> {
    let path = runtime_dir.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    if let Some(group) = group {
        admit(group, runtime_dir, &path)?;
    }
    let _task = AbortOnDropHandle::new(tokio::spawn(accept(listener, sources)));
    Ok(Control { path, _task })
}

/// Lets the members of a group use the socket, and nothing else in its directory.
fn admit(group: &str, runtime_dir: &Path, socket: &Path) -> io::Result<()> {
    let found = Group::from_name(group)?;
    let found = found.ok_or_else(|| io::Error::other(format!("there is no group {group} (control-group)")))?;
    let id = Some(found.gid.as_raw());
    for (path, mode) in [(runtime_dir, 0o710), (socket, 0o660)] {
        std::os::unix::fs::chown(path, None, id)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

async fn accept(listener: UnixListener, sources: Sources) {
    let places = Arc::new(Semaphore::new(CLIENTS));
    let waiting = WaitingClients::default();
    for number in 0.. {
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                debug!("control socket: cannot accept: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if places.available_permits() == 0 {
            waiting.send_the_first_away();
        }
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let sources = sources.clone();
        let waiting = waiting.clone();
        tokio::spawn(async move {
            if let Err(error) = serve(client, number, &waiting, &sources).await {
                debug!("control socket: {error}");
            }
            drop(place);
        });
    }
}

/// The clients for which the daemon waits, to send a request or to read an answer, in the order of their arrival.
#[derive(Debug, Clone, Default)]
struct WaitingClients(Arc<Mutex<BTreeMap<u64, CancellationToken>>>);

impl WaitingClients {
    fn send_the_first_away(&self) {
        if let Some((_, first)) = self.lock().pop_first() {
            first.cancel();
        }
    }

    /// Waits for a client, but no longer than any client may take.
    async fn for_client<T>(&self, number: u64, what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let away = CancellationToken::new();
        self.lock().insert(number, away.clone());
        let result = tokio::select! {
            biased;
            result = timeout(PATIENCE, what) => result?,
            () = away.cancelled() => Err(io::Error::other("a client for which the daemon had waited was replaced by another")),
        };
        self.lock().remove(&number);
        result
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, CancellationToken>> {
        lock(&self.0)
    }
}

async fn serve(client: UnixStream, number: u64, waiting: &WaitingClients, sources: &Sources) -> io::Result<()> {
    let user = client.peer_cred()?.uid();
    let may_change = user == 0 || user == nix::unistd::geteuid().as_raw();
    let (read, mut write) = client.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut read).take(LONGEST_REQUEST);
        let length = waiting.for_client(number, limited.read_until(b'\n', &mut line)).await?;
        if length == 0 {
            return Ok(());
        }
        let whole = line.ends_with(b"\n");
        let asked = if whole {
            request(&line)
        } else {
            Err(format!(
                "a request is one line of JSON of {LONGEST_REQUEST} bytes at most"
            ))
        };
        let answer = match asked.as_deref() {
            Ok("events") => return follow(&mut read, &mut write, sources).await,
            Ok(word) => answer(word, may_change, sources).await,
            Err(problem) => refusal(problem),
        };
        let text = answer + "\n";
        waiting.for_client(number, write.write_all(text.as_bytes())).await?;
        if !whole {
            return Ok(());
        }
    }
}

/// The request in a line, or what is wrong with it.
fn request(line: &[u8]) -> Result<String, String> {
    // Serde would also accept a list of values for an object.
    if !line.trim_ascii_start().starts_with(b"{") {
        return Err("not a request: expected an object as in {\"request\":\"status\"}".into());
    }
    let parsed: Result<ControlRequest, _> = serde_json::from_slice(line);
    parsed
        .map(|asked| asked.request)
        .map_err(|error| format!("not a request: {error}"))
}

async fn answer(word: &str, may_change: bool, sources: &Sources) -> String {
    match word {
        "status" => in_json(&sources.board.document()),
        "doctor" => doctor(sources).await,
        "reload" if !may_change => refusal("only root may change anything"),
        "reload" => {
            let (reply, replied) = oneshot::channel();
            let asked = sources.reloads.send(reply).await.is_ok();
            match replied.await {
                Ok(Ok(())) if asked => json!({"ok": true}).to_string(),
                Ok(Err(error)) => refusal(&error),
                _ => refusal("the daemon is stopping"),
            }
        }
        _ => refusal(&format!(
            "unknown request `{word}`, expected `status`, `doctor`, `events` or `reload`"
        )),
    }
}

/// Written at once: as a tree of values, the status of hundreds of instances would take megabytes.
fn in_json(document: &impl Serialize) -> String {
    serde_json::to_string(document).unwrap_or_else(|error| refusal(&error.to_string()))
}

fn refusal(why: &str) -> String {
    json!({ "error": why }).to_string()
}

/// Sends events until the client goes away. It may lag behind by the events that are kept for it.
async fn follow(
    read: &mut (impl AsyncRead + Unpin),
    write: &mut (impl AsyncWrite + Unpin),
    sources: &Sources,
) -> io::Result<()> {
    let Some(mut events) = sources.board.events() else {
        let refusal = json!({"error": format!("{FOLLOWERS} clients follow the events already: no more are allowed")});
        return send(write, &refusal).await;
    };
    let mut byte = [0; 1];
    loop {
        let line = tokio::select! {
            // Whatever the client sends now, it wants no more events.
            _ = read.read(&mut byte) => return Ok(()),
            event = events.recv() => match event {
                Ok(event) => serde_json::to_value(event).map_err(io::Error::other)?,
                Err(RecvError::Lagged(lost)) => json!({ "lost": lost }),
                Err(RecvError::Closed) => return Ok(()),
            },
        };
        send(write, &line).await?;
    }
}

async fn send(write: &mut (impl AsyncWrite + Unpin), value: &Value) -> io::Result<()> {
    let text = format!("{value}\n");
    timeout(PATIENCE, write.write_all(text.as_bytes())).await?
}

async fn doctor(sources: &Sources) -> String {
    let examination = async {
        let _one = sources.examining.acquire().await;
        diagnose(sources.board.patients(), &*sources.world).await
    };
    match timeout(EXAMINATION, examination).await {
        Ok(document) => in_json(&document),
        Err(_) => refusal(&format!(
            "the examination did not end within {} s",
            EXAMINATION.as_secs()
        )),
    }
}

/// Sends a request to the daemon of this runtime directory. A socket of another user is not trusted.
pub fn ask(runtime_dir: &Path, request: &str) -> io::Result<Value> {
    let patience = if request == "doctor" {
        EXAMINATION
    } else {
        Duration::ZERO
    };
    let mut answers = connect(runtime_dir, request, Some(patience + PATIENCE))?;
    match answers.next() {
        Some(answer) => answer,
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// The events of the daemon of this runtime directory, as they happen.
pub fn events(runtime_dir: &Path) -> io::Result<impl Iterator<Item = io::Result<Value>>> {
    connect(runtime_dir, "events", None)
}

fn connect(
    runtime_dir: &Path,
    request: &str,
    patience: Option<Duration>,
) -> io::Result<impl Iterator<Item = io::Result<Value>> + use<>> {
    use std::io::{BufRead, Write};
    trusted::directory(runtime_dir)?;
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    // Connecting waits, too, where many do already.
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.connect(&socket2::SockAddr::unix(runtime_dir.join(SOCKET))?)?;
    let mut stream = std::os::unix::net::UnixStream::from(socket);
    stream.set_read_timeout(patience)?;
    writeln!(stream, "{}", json!({ "request": request }))?;
    let lines = std::io::BufReader::new(stream).lines();
    Ok(lines.map(|line| serde_json::from_str(&line?).map_err(io::Error::other)))
}
