//! Metrics by HTTP, for Prometheus: `GET /metrics` on the address of `metrics-listen`, and nothing else.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clatd_stages::metrics::{CONTENT_TYPE, text};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE as TYPE_HEADER, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::status::Board;

/// The path that is served.
const PATH: &str = "/metrics";
/// Connections at the same time. Further ones wait for a place.
const CONNECTIONS: usize = 16;
/// How long a connection may take for everything.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a client may take for its request.
const REQUEST: Duration = Duration::from_secs(5);
/// Longest request head in bytes.
const LONGEST_HEAD: usize = 16 * 1024;

/// A server; ends when dropped.
pub struct MetricsServer {
    address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl MetricsServer {
    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Begins to serve. Needs a runtime.
pub fn serve(address: SocketAddr, board: Board) -> io::Result<MetricsServer> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let _task = AbortOnDropHandle::new(tokio::spawn(accept(listener, board)));
    Ok(MetricsServer { address, _task })
}

async fn accept(listener: TcpListener, board: Board) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((client, _)) => {
                let board = board.clone();
                tokio::spawn(async move {
                    if timeout(PATIENCE, converse(client, board)).await.is_err() {
                        debug!("metrics: a client took too long");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                debug!("metrics: cannot accept: {error}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(client: TcpStream, board: Board) {
    let service = service_fn(move |request| {
        let response = answer(&request, &board);
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST)
        .max_buf_size(LONGEST_HEAD)
        // One request per connection: a scrape every fifteen seconds gains nothing from more, and no place is kept
        // busy.
        .keep_alive(false)
        .serve_connection(TokioIo::new(client), service)
        .await;
    if let Err(error) = served {
        debug!("metrics: {error}");
    }
}

fn answer(request: &Request<Incoming>, board: &Board) -> Response<Full<Bytes>> {
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, PATH) => (StatusCode::OK, text(&board.document())),
        (&Method::GET | &Method::HEAD, _) => (StatusCode::NOT_FOUND, format!("only {PATH} is here\n")),
        _ => (
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET and HEAD are understood\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = if status == StatusCode::OK {
        CONTENT_TYPE
    } else {
        "text/plain; charset=utf-8"
    };
    response
        .headers_mut()
        .insert(TYPE_HEADER, HeaderValue::from_static(kind));
    response
}
