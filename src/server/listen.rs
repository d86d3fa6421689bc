//! Accepting connections: on TCP for browsers and programs, on `run/api.sock` for this user's own
//! commands. Limits are set here, before a request exists.

use super::app::Routers;
use super::caller::Caller;
use super::connection_slots::{Answer, Slot, Slots, Watched};
use super::logins::Peer;
use crate::sys::{unix_socket, user};
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::middleware::map_response;
use axum::response::Response;
use axum::{Extension, Router};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::{JoinHandle, JoinSet};

/// Connections at once on each listener; more wait in the kernel's queue.
const CONNECTIONS: usize = 256;
/// Request line and headers together.
const HEADER_BYTES: usize = 64 * 1024;
const HEADERS: usize = 100;
/// How long a client may take to send its headers; also how long an idle connection is kept.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long requests under way may go on once we are told to leave.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// How long a connection that waits for a request may still send one: it may be on its way.
const LINGER: Duration = Duration::from_millis(100);

/// The accepting tasks.
pub struct Serving {
    stopped: watch::Receiver<bool>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<JoinSet<()>>>,
}

impl Default for Serving {
    fn default() -> Self {
        let (stop, stopped) = watch::channel(false);
        Self { stop, stopped, tasks: Vec::new() }
    }
}

impl Serving {
    /// Begins to accept from browsers and programs.
    pub fn over_tcp(&mut self, listener: OwnedFd, routers: &Routers) -> io::Result<()> {
        let tcp = TcpListener::from_std(std::net::TcpListener::from(listener))?;
        let accepting = accept(self.stopped.clone(), routers.with_caller(Caller::Network), async move || {
            let (stream, client) = tcp.accept().await?;
            stream.set_nodelay(true)?;
            let server = stream.local_addr()?;
            Ok((stream, Some(Peer { client, server })))
        });
        self.tasks.push(tokio::task::spawn_local(accepting));
        Ok(())
    }

    /// Begins to accept from this user's own commands.
    pub fn over_unix(&mut self, listener: OwnedFd, routers: &Routers) -> io::Result<()> {
        let unix = UnixListener::from_std(std::os::unix::net::UnixListener::from(listener))?;
        let ours = user::effective_uid();
        let accepting = accept(self.stopped.clone(), routers.with_caller(Caller::LocalAdmin), async move || {
            let (stream, _) = unix.accept().await?;
            match unix_socket::peer_uid(&stream)? {
                uid if uid == ours || uid == 0 => Ok((stream, None)),
                _ => Err(io::ErrorKind::PermissionDenied.into()),
            }
        });
        self.tasks.push(tokio::task::spawn_local(accepting));
        Ok(())
    }

    /// Accepts no more (what comes now waits in the supervisor's queue for the next server) and
    /// lets what is under way finish, with `Connection: close`.
    pub async fn drain(self) {
        // The receivers live in the tasks below.
        let _ = self.stop.send(true);
        let finished = async {
            for task in self.tasks {
                if let Ok(mut connections) = task.await {
                    while connections.join_next().await.is_some() {}
                }
            }
        };
        // Whoever is not done by then has had its time.
        let _ = tokio::time::timeout(DRAIN_LIMIT, finished).await;
    }
}

/// Accepts until stopped; returns the connections that are then still there.
async fn accept<S>(
    mut stopped: watch::Receiver<bool>,
    router: Router,
    next: impl AsyncFn() -> io::Result<(S, Option<Peer>)>,
) -> JoinSet<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut connections = JoinSet::new();
    let slots = Slots::new(CONNECTIONS);
    loop {
        let accepted = tokio::select! {
            _ = stopped.changed() => return connections,
            _ = connections.join_next(), if !connections.is_empty() => continue,
            accepted = next() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let router = match peer {
                    Some(peer) => router.clone().layer(Extension(peer)),
                    None => router.clone(),
                };
                // Somebody who says nothing makes room for it; where all are at work, it waits. What was accepted is
                // served, also when we are told to leave meanwhile.
                let slot = slots.next().await;
                connections.spawn_local(serve_connection(stream, router, stopped.clone(), slot));
            }
            // Out of descriptors, or a client that left at once: neither ends the server.
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn serve_connection<S>(
    stream: S,
    router: Router,
    mut stopped: watch::Receiver<bool>,
    (slot, _slot): (Arc<Slot>, Option<OwnedSemaphorePermit>),
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let leaving = stopped.clone();
    let router = router.layer(map_response(move |response| say_farewell(*leaving.borrow(), response)));
    let service = TowerToHyperService::new(router);
    let of_request = slot.clone();
    let watched = service_fn(move |request: hyper::Request<Incoming>| {
        let slot = of_request.clone();
        let request = request.map(|body| {
            slot.set_working(body.is_end_stream());
            Body::new(Watched { body, slot: slot.clone() })
        });
        let answer = service.call(request);
        async move { Ok::<_, Infallible>(answer.await?.map(|body| Body::new(Answer { body, slot }))) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), watched);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // A client's fault or farewell; there is nobody left to tell.
        _ = connection.as_mut() => return,
        () = slot.closed() => return,
        _ = stopped.changed() => {}
    }
    // hyper would close a connection without a request at once, under a request that is on its way.
    // One that comes within this time is answered, and told that it was the last.
    if tokio::time::timeout(LINGER, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

/// Tells the client not to send another request on this connection once we are leaving.
async fn say_farewell(leaving: bool, mut response: Response) -> Response {
    if leaving {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
