//! Packet sockets are closed by a thread of its own. At each the kernel waits until no packet is on its way to any packet
//! socket, for 15 ms or longer. With two hundred uplinks the runtime's threads would wait for seconds.

use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use socket2::Socket;

/// `None` = there is no such thread.
static CLOSER: LazyLock<Option<Sender<Socket>>> = LazyLock::new(|| {
    let (sender, receiver) = channel();
    let closer = thread::Builder::new().name("clatd-closer".to_owned());
    let started = closer.spawn(move || close_all(&receiver));
    started.ok().map(|_| sender)
});

fn close_all(sockets: &Receiver<Socket>) {
    sockets.iter().for_each(drop);
}

/// Keeps a socket open while the runtime's own descriptor of it is closed, which costs nothing so, and has the thread
/// close it then.
#[derive(Debug, Default)]
pub(super) struct Last(Option<Socket>);

impl Last {
    pub(super) fn of(socket: &Socket) -> Self {
        Self(socket.try_clone().ok())
    }
}

impl Drop for Last {
    fn drop(&mut self) {
        if let (Some(socket), Some(closer)) = (self.0.take(), CLOSER.as_ref()) {
            // If the thread is gone, the socket is closed here.
            let _ = closer.send(socket);
        }
    }
}
