//! A server that says what the test wants.

use std::io::ErrorKind;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use clatd_stages::dhcp6::{ALL_SERVERS, CLIENT_PORT, Dhcp6Message, SERVER_PORT};

use super::bed::Bed;

pub struct Server {
    heard: Arc<Mutex<Vec<Dhcp6Message>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(bed: &Bed, mut answers: impl FnMut(&Dhcp6Message) -> Vec<Dhcp6Message> + Send + 'static) -> Self {
        let (heard, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (list, end) = (Arc::clone(&heard), Arc::clone(&stop));
        let (ready, is_ready) = channel();
        let thread = bed.thread_there(move || {
            let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, SERVER_PORT)).unwrap();
            let index = super::bed::index("isp0");
            socket.join_multicast_v6(&ALL_SERVERS, index).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            ready.send(()).unwrap();
            let mut buffer = [0; 2048];
            while !end.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                assert_eq!(from.port(), CLIENT_PORT);
                let SocketAddr::V6(from) = from else { panic!("{from}") };
                assert!(from.ip().is_unicast_link_local());
                let asked = Dhcp6Message::decode(&buffer[..length]).unwrap();
                list.lock().unwrap().push(asked.clone());
                for answer in answers(&asked) {
                    // Its own link-local address may not have passed duplicate address detection yet.
                    while let Err(error) = socket.send_to(&answer.encode(), from) {
                        assert_eq!(error.kind(), ErrorKind::AddrNotAvailable, "{error}");
                        assert!(!end.load(Ordering::Relaxed), "never had an address to answer from");
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
            }
        });
        is_ready.recv().unwrap();
        let thread = Some(thread);
        Self { heard, stop, thread }
    }

    /// All messages so far.
    pub fn heard(&self) -> Vec<Dhcp6Message> {
        self.heard.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        assert!(
            ended.is_ok() || std::thread::panicking(),
            "the server of the test failed"
        );
    }
}
