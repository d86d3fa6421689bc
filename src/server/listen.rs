//! Accepting connections: on TCP for browsers and programs, on `run/api.sock` for this user's own
//! commands. Limits are set here, before a request exists.

use super::app::Routers;
use super::guard::Caller;
use crate::sys::{unix_socket, user};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;

/// Connections at once on each listener; more wait in the kernel's queue.
const CONNECTIONS: usize = 256;
/// Request line and headers together.
const HEADER_BYTES: usize = 64 * 1024;
const HEADERS: usize = 100;
/// How long a client may take to send its headers; also how long an idle connection is kept.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long requests under way may go on once we are told to leave.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// The accepting tasks.
pub struct Serving {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<GracefulShutdown>>,
}

/// Begins to accept on both listeners.
pub fn serve(http: OwnedFd, api: OwnedFd, routers: Rc<Routers>) -> io::Result<Serving> {
    let tcp = TcpListener::from_std(std::net::TcpListener::from(http))?;
    let unix = UnixListener::from_std(std::os::unix::net::UnixListener::from(api))?;
    let (stop, stopped) = watch::channel(false);
    let over_tcp = accept(stopped.clone(), routers.with_caller(Caller::Network), async move || {
        let (stream, _) = tcp.accept().await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    });
    let ours = user::effective_uid();
    let over_unix = accept(stopped, routers.with_caller(Caller::LocalAdmin), async move || {
        let (stream, _) = unix.accept().await?;
        match unix_socket::peer_uid(&stream)? {
            uid if uid == ours || uid == 0 => Ok(stream),
            _ => Err(io::ErrorKind::PermissionDenied.into()),
        }
    });
    let tasks = vec![tokio::task::spawn_local(over_tcp), tokio::task::spawn_local(over_unix)];
    Ok(Serving { stop, tasks })
}

impl Serving {
    /// Accepts no more (what comes now waits in the supervisor's queue for the next server) and
    /// lets what is under way finish, with `Connection: close`.
    pub async fn drain(self) {
        // The receivers live in the tasks below.
        let _ = self.stop.send(true);
        let finished = async {
            for task in self.tasks {
                if let Ok(connections) = task.await {
                    connections.shutdown().await;
                }
            }
        };
        // Whoever is not done by then has had its time.
        let _ = tokio::time::timeout(DRAIN_LIMIT, finished).await;
    }
}

async fn accept<S>(
    mut stopped: watch::Receiver<bool>,
    router: Router,
    next: impl AsyncFn() -> io::Result<S>,
) -> GracefulShutdown
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let connections = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            _ = stopped.changed() => return connections,
            accepted = async {
                let permit = room.clone().acquire_owned().await;
                (permit, next().await)
            } => accepted,
        };
        match accepted {
            (Ok(permit), Ok(stream)) => serve_connection(stream, router.clone(), &connections, permit),
            // Out of descriptors, or a client that left at once: neither ends the server.
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

fn serve_connection<S>(stream: S, router: Router, connections: &GracefulShutdown, permit: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let watched = connections.watch(connection);
    tokio::task::spawn_local(async move {
        // A client's fault or farewell; there is nobody left to tell.
        let _ = watched.await;
        drop(permit);
    });
}
