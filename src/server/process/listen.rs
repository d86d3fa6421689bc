//! Accepts connections: on TCP for browsers and programs, on a Unix socket for this user's commands and tasks. Limits
//! connections, headers and the time that clients take.

use super::connection_slots::{Progress, Slot, Slots, TrackedRequestBody, TrackedResponseBody, TrackedStream};
use crate::http::caller::{Caller, Peer};
use axum::Router;
use axum::body::Body;
use axum::http::{Extensions, HeaderValue, header};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use leoflow_base::sys::net::unix_socket;
use leoflow_base::sys::user;
use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

/// Concurrent connections per listener. The next one waits for a slot, and gets 503 if none becomes free.
const MAX_CONNECTIONS: usize = 256;
/// Request line and headers together.
const MAX_HEADER_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 100;
/// How long a client may leave its response unread while others wait for its slot.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client may take to send its headers; also the keep-alive timeout.
fn header_timeout() -> Duration {
    leoflow_base::sys::limit("LEOFLOW_HEADER_LIMIT", Duration::from_secs(10))
}

/// How long running requests may continue once the server shuts down.
fn drain_timeout() -> Duration {
    leoflow_base::sys::limit("LEOFLOW_DRAIN_LIMIT", Duration::from_secs(5))
}

/// Refusals that are sent at the same time.
const MAX_REFUSALS: usize = 64;
/// How long a refused client has to read its response and disconnect.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a refusal waits for bytes that the socket may hold already.
const PENDING_TIMEOUT: Duration = Duration::from_millis(1);
const BUSY_RESPONSE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n\
    Content-Type: application/json\r\nContent-Length: 55\r\n\r\n\
    {\"detail\": \"The server is busy or stopping; try again\"}";

/// How long an idle connection may still send a request during shutdown, since one may be in transit.
const LINGER: Duration = Duration::from_millis(100);

/// The accept loops of all listeners.
#[derive(Default)]
pub struct Serving {
    /// Becomes true when the loops must stop.
    stop: watch::Sender<bool>,
    /// Each returns its open connections.
    tasks: Vec<JoinHandle<JoinSet<()>>>,
}

impl Serving {
    /// Starts accepting from browsers and programs.
    pub fn over_tcp(&mut self, listener: OwnedFd, router: &Router) -> io::Result<()> {
        let tcp = TcpListener::from_std(std::net::TcpListener::from(listener))?;
        let accepting = accept(self.stop.subscribe(), router.clone(), async move || {
            let (stream, client) = tcp.accept().await?;
            stream.set_nodelay(true)?;
            let mut extensions = extensions_of(Caller::Network);
            extensions.insert(Peer::new(client, stream.local_addr()?));
            Ok((stream, extensions))
        });
        self.tasks.push(tokio::task::spawn_local(accepting));
        Ok(())
    }

    /// Starts accepting from processes of this user and of root.
    pub fn over_unix(&mut self, listener: OwnedFd, router: &Router) -> io::Result<()> {
        let unix = UnixListener::from_std(std::os::unix::net::UnixListener::from(listener))?;
        let own_uid = user::effective_uid();
        let accepting = accept(self.stop.subscribe(), router.clone(), async move || {
            let (stream, _) = unix.accept().await?;
            match unix_socket::peer_uid(&stream)? {
                uid if uid == own_uid || uid == 0 => Ok((stream, extensions_of(Caller::LocalAdmin))),
                _ => Err(io::ErrorKind::PermissionDenied.into()),
            }
        });
        self.tasks.push(tokio::task::spawn_local(accepting));
        Ok(())
    }

    /// Stops accepting (new connections wait in the supervisor's queue for the next server) and lets running requests
    /// finish, with `Connection: close`.
    pub async fn drain(self) {
        self.stop.send_replace(true);
        let finished = async {
            for task in self.tasks {
                if let Ok(mut connections) = task.await {
                    while connections.join_next().await.is_some() {}
                }
            }
        };
        // Requests that take longer are cut off.
        let _ = tokio::time::timeout(drain_timeout(), finished).await;
    }
}

/// Accepts until stopped; returns the connections still open then. `accept_next` returns a connection and the
/// extensions of each of its requests: the [`Caller`], and over TCP the [`Peer`].
async fn accept<S>(
    mut stopped: watch::Receiver<bool>,
    router: Router,
    accept_next: impl AsyncFn() -> io::Result<(S, Extensions)>,
) -> JoinSet<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut connections = JoinSet::new();
    let slots = Slots::new(MAX_CONNECTIONS, SEND_TIMEOUT);
    let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
    loop {
        let accepted = tokio::select! {
            _ = stopped.changed() => return connections,
            _ = connections.join_next(), if !connections.is_empty() => continue,
            accepted = accept_next() => accepted,
        };
        match accepted {
            Ok((stream, extensions)) => {
                // An accepted connection is answered even if a shutdown starts meanwhile.
                match slots.next().await {
                    Some(slot) => {
                        let service = ConnectionService {
                            router: router.clone(),
                            extensions,
                            stopped: stopped.clone(),
                            contention: slots.contention_flag(),
                            slot: slot.0.clone(),
                        };
                        let serving = serve_connection(stream, service, slot.1);
                        connections.spawn_local(serving)
                    }
                    None => {
                        let refusal = refusals.clone().acquire_owned().await;
                        connections.spawn_local(async move {
                            let _refusal = refusal;
                            refuse(stream, true, REFUSAL_TIMEOUT).await;
                        })
                    }
                };
            }
            // Out of file descriptors, the client disconnected at once, or another user's process: keep accepting.
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

fn extensions_of(caller: Caller) -> Extensions {
    let mut extensions = Extensions::new();
    extensions.insert(caller);
    extensions
}

/// Serves the requests of one connection. Adds the connection's extensions and header to each request and response: a
/// layer of the router for each connection would wrap all routes again.
struct ConnectionService {
    router: Router,
    /// Added to each request.
    extensions: Extensions,
    stopped: watch::Receiver<bool>,
    /// True while another connection waits for a slot.
    contention: Arc<AtomicBool>,
    slot: Arc<Slot>,
}

impl ConnectionService {
    /// Serves requests with the router and records their progress in the slot. Responses have `Connection: close` while
    /// the server shuts down or another connection waits for a slot.
    fn into_hyper(
        self,
    ) -> impl Service<hyper::Request<Incoming>, Response = hyper::Response<Body>, Error = Infallible> {
        let Self { router, extensions, stopped, contention, slot } = self;
        let service = TowerToHyperService::new(router);
        service_fn(move |request: hyper::Request<Incoming>| {
            let (slot, stopped, contention) = (slot.clone(), stopped.clone(), contention.clone());
            slot.set_requested();
            let mut request = request.map(|body| {
                slot.set_progress(if body.is_end_stream() { Progress::Working } else { Progress::Receiving });
                Body::new(TrackedRequestBody { body, slot: slot.clone() })
            });
            request.extensions_mut().extend(extensions.clone());
            let response = service.call(request);
            async move {
                let mut response = response.await?;
                if *stopped.borrow() || contention.load(Ordering::Relaxed) {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                // A handler may answer before the body is read to its end.
                slot.set_progress(Progress::Working);
                Ok::<_, Infallible>(response.map(|body| Body::new(TrackedResponseBody { body, slot })))
            }
        })
    }
}

fn http() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout())
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS);
    builder
}

async fn serve_connection<S>(stream: S, service: ConnectionService, _permit: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (slot, mut stopped) = (service.slot.clone(), service.stopped.clone());
    let io = TokioIo::new(TrackedStream { stream, slot: slot.clone() });
    let mut connection = http().serve_connection(io, service.into_hyper());
    loop {
        tokio::select! {
            biased;
            // The connection has ended.
            _ = &mut connection => return,
            () = slot.close_requested() => {
                if slot.is_stalled(SEND_TIMEOUT) {
                    // A refusal would be sent in the middle of the response.
                    return;
                }
                if !slot.is_idle() {
                    // A whole request has arrived in the meantime and is running: the client needs its response.
                    continue;
                }
                // A started request gets an answer; an idle keep-alive connection is just closed.
                let has_request = slot.has_request();
                let parts = connection.into_parts();
                let has_begun = has_request || !parts.read_buf.is_empty();
                return refuse(parts.io.into_inner().stream, has_begun, REFUSAL_TIMEOUT).await;
            }
            _ = stopped.changed() => break,
        }
    }
    // hyper would close a connection without a request at once, even with a request in transit. A request that arrives
    // within `LINGER` is answered with `Connection: close`.
    if tokio::time::timeout(LINGER, &mut connection).await.is_err() {
        if !slot.has_request() {
            // A request that arrives now is answered too.
            let parts = connection.into_parts();
            return refuse(parts.io.into_inner().stream, !parts.read_buf.is_empty(), LINGER).await;
        }
        Pin::new(&mut connection).graceful_shutdown();
        let _ = connection.await;
    }
}

/// Responds 503 with Retry-After. A connection that has not started a request is closed without a response.
async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, has_begun: bool, limit: Duration) {
    let refusal = async {
        let mut buffer = [0; 16 * 1024];
        let mut has_begun = has_begun;
        if !has_begun {
            has_begun = matches!(tokio::time::timeout(PENDING_TIMEOUT, stream.read(&mut buffer)).await, Ok(Ok(1..)));
        }
        if has_begun {
            stream.write_all(BUSY_RESPONSE).await?;
        }
        stream.shutdown().await?;
        // Unread bytes would turn the close into a reset, and the client would not see the response.
        while stream.read(&mut buffer).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    // A client that keeps sending or does not read is cut off.
    let _ = tokio::time::timeout(limit, refusal).await;
}

#[cfg(test)]
#[path = "listen_tests.rs"]
mod tests;
