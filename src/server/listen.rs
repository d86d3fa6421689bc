//! Accepting connections: on TCP for browsers and programs, on `run/api.sock` for this user's own
//! commands. Limits are set here, before a request exists.

use super::app::Routers;
use super::caller::Caller;
use super::connection_slots::{Answer, Sending, Slot, Slots, Watched};
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
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

/// Connections at once on each listener; more wait in the kernel's queue.
const CONNECTIONS: usize = 256;
/// Request line and headers together.
const HEADER_BYTES: usize = 64 * 1024;
const HEADERS: usize = 100;
/// How long a client may take to send its headers; also how long an idle connection is kept.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may leave its answer unread while others wait for its place.
const SEND_LIMIT: Duration = Duration::from_secs(30);
/// How long requests under way may go on once we are told to leave.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// Connections that are refused at once.
const REFUSALS: usize = 64;
/// How long a refused client has to read its answer and leave.
const REFUSAL_LIMIT: Duration = Duration::from_secs(1);
/// Long enough to read what is in the socket.
const NOTHING: Duration = Duration::from_millis(1);
const NO_ROOM: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n\
    Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{\"detail\": \"Too many requests at once; try again\"}";

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
    let slots = Slots::new(CONNECTIONS, SEND_LIMIT);
    let refusals = Arc::new(Semaphore::new(REFUSALS));
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
                // What was accepted is answered, also when we are told to leave meanwhile.
                match slots.next().await {
                    Some(slot) => {
                        let serving = serve_connection(stream, router, stopped.clone(), slots.wanted(), slot);
                        connections.spawn_local(serving)
                    }
                    None => {
                        let refusal = refusals.clone().acquire_owned().await;
                        connections.spawn_local(async move {
                            let _refusal = refusal;
                            refuse(stream, true, REFUSAL_LIMIT).await;
                        })
                    }
                };
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
    wanted: Arc<AtomicBool>,
    (slot, _slot): (Arc<Slot>, OwnedSemaphorePermit),
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let leaving = stopped.clone();
    let router = router.layer(map_response(move |response| {
        say_farewell(*leaving.borrow() || wanted.load(Ordering::Relaxed), response)
    }));
    let service = TowerToHyperService::new(router);
    let of_request = slot.clone();
    let watched = service_fn(move |request: hyper::Request<Incoming>| {
        let slot = of_request.clone();
        slot.set_requested();
        let request = request.map(|body| {
            slot.set_working(body.is_end_stream());
            Body::new(Watched { body, slot: slot.clone() })
        });
        let answer = service.call(request);
        async move {
            let answer = answer.await?;
            // Also where the request's body is not read to its end.
            slot.set_working(true);
            Ok::<_, Infallible>(answer.map(|body| Body::new(Answer { body, slot })))
        }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(Sending { stream, slot: slot.clone() }), watched);
    loop {
        tokio::select! {
            biased;
            // A client's fault or farewell; there is nobody left to answer.
            _ = &mut connection => return,
            () = slot.closed() => {
                if slot.is_stalled(SEND_LIMIT) {
                    // A refusal would land inside the answer.
                    return;
                }
                if !slot.is_idle() {
                    // A whole request has come since: a refusal now would hide what it has done.
                    continue;
                }
                // What it has begun to send is answered; a connection that was only kept is closed.
                let has_request = slot.has_request();
                let parts = connection.into_parts();
                let has_begun = has_request || !parts.read_buf.is_empty();
                return refuse(parts.io.into_inner().stream, has_begun, REFUSAL_LIMIT).await;
            }
            _ = stopped.changed() => break,
        }
    }
    // hyper would close a connection without a request at once, under a request that is on its way.
    // One that comes within this time is answered, and told that it was the last.
    if tokio::time::timeout(LINGER, &mut connection).await.is_err() {
        if !slot.has_request() {
            // One that comes just now is answered too.
            let parts = connection.into_parts();
            return refuse(parts.io.into_inner().stream, !parts.read_buf.is_empty(), LINGER).await;
        }
        Pin::new(&mut connection).graceful_shutdown();
        let _ = connection.await;
    }
}

/// Answers that there is no room, and when to try again. A connection that has not begun a request is closed without an
/// answer.
async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, has_begun: bool, limit: Duration) {
    let answer = async {
        let mut buffer = [0; 16 * 1024];
        let mut has_begun = has_begun;
        if !has_begun {
            has_begun = matches!(tokio::time::timeout(NOTHING, stream.read(&mut buffer)).await, Ok(Ok(1..)));
        }
        if has_begun {
            stream.write_all(NO_ROOM).await?;
        }
        stream.shutdown().await?;
        // Unread bytes would turn the close into a reset, and the client would not see the answer.
        while stream.read(&mut buffer).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    // A client that goes on sending, or has left, has had its answer.
    let _ = tokio::time::timeout(limit, answer).await;
}

/// Tells the client not to send another request on this connection once we are leaving.
async fn say_farewell(leaving: bool, mut response: Response) -> Response {
    if leaving {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    /// As many open files as the system allows: each side of each connection is one.
    fn raise_limit() {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(16_384), hard).unwrap();
    }

    const LARGE: usize = 32 * 1024 * 1024;

    /// Serves on a thread of its own, which does not run for `pause` after it was told to.
    /// It says when the pause begins.
    fn server(pause: Duration) -> (u16, std::sync::mpsc::Sender<std::sync::mpsc::Sender<()>>) {
        let (told, wait) = std::sync::mpsc::channel::<std::sync::mpsc::Sender<()>>();
        let (say_port, port) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async move {
                let listener = crate::sys::listener::bind_at(std::net::Ipv4Addr::LOCALHOST, 0).unwrap();
                say_port.send(listener.local_addr().unwrap().port()).unwrap();
                let tcp = TcpListener::from_std(listener).unwrap();
                let router = Router::new()
                    .route("/", axum::routing::get(async || "ok"))
                    .route("/wait", axum::routing::get(async || std::future::pending::<&str>().await))
                    .route("/large", axum::routing::get(async || vec![b'x'; LARGE]));
                let (_stop, stopped) = watch::channel(false);
                let next = async move || Ok((tcp.accept().await?.0, None));
                let accepting = tokio::task::spawn_local(accept(stopped, router, next));
                let paused = loop {
                    match wait.try_recv() {
                        Ok(paused) => break paused,
                        Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                    }
                };
                paused.send(()).unwrap();
                std::thread::sleep(pause);
                drop(accepting.await);
            });
        });
        (port.recv().unwrap(), told)
    }

    fn connect(port: u16) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    #[test]
    fn after_a_pause_every_request_is_answered() {
        raise_limit();
        let (port, pause) = server(Duration::from_millis(500));
        let (paused, wait) = std::sync::mpsc::channel();
        pause.send(paused).unwrap();
        wait.recv().unwrap();
        let mut clients: Vec<TcpStream> = (0..3 * CONNECTIONS).map(|_| connect(port)).collect();
        for client in &mut clients {
            client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK"), "{number}: {answer:?}");
        }
    }

    #[tokio::test]
    async fn a_request_that_comes_while_it_is_evicted_is_answered() {
        let (mut client, stream) = tokio::io::duplex(4096);
        client.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let slow = async || {
            tokio::task::yield_now().await;
            "done"
        };
        let router = Router::new().route("/", axum::routing::post(slow));
        let (_stop, stopped) = watch::channel(false);
        let slots = Slots::new(1, SEND_LIMIT);
        let (slot, permit) = slots.next().await.unwrap();
        slot.ask_to_close();
        serve_connection(stream, router, stopped, slots.wanted(), (slot, permit)).await;
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("done"), "{answer:?}");
    }

    #[test]
    fn an_upload_under_way_at_the_drain_is_answered() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        let answer = local.block_on(&runtime, async move {
            let listener = crate::sys::listener::bind_at(std::net::Ipv4Addr::LOCALHOST, 0).unwrap();
            let port = listener.local_addr().unwrap().port();
            let tcp = TcpListener::from_std(listener).unwrap();
            let (begun, on_begin) = tokio::sync::oneshot::channel::<()>();
            let begun = Arc::new(std::sync::Mutex::new(Some(begun)));
            let upload = async move |body: Body| {
                drop(begun.lock().unwrap().take());
                axum::body::to_bytes(body, 100).await.unwrap()
            };
            let router = Router::new().route("/", axum::routing::post(upload));
            let (stop, stopped) = watch::channel(false);
            let accepting =
                tokio::task::spawn_local(accept(stopped, router, async move || Ok((tcp.accept().await?.0, None))));
            let (go_on, wait) = std::sync::mpsc::channel::<()>();
            let client = tokio::task::spawn_blocking(move || {
                let mut client = connect(port);
                client.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab").unwrap();
                wait.recv().unwrap();
                client.write_all(b"cd").unwrap();
                let mut answer = String::new();
                client.read_to_string(&mut answer).unwrap();
                answer
            });
            let _ = on_begin.await;
            stop.send(true).unwrap();
            let mut connections = accepting.await.unwrap();
            tokio::time::sleep(LINGER * 3).await;
            go_on.send(()).unwrap();
            while connections.join_next().await.is_some() {}
            client.await.unwrap()
        });
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("abcd"), "{answer:?}");
    }

    #[test]
    fn unfinished_requests_make_room_and_get_an_answer() {
        raise_limit();
        let (port, _pause) = server(Duration::ZERO);
        let mut slow: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect(port)).collect();
        slow.iter_mut().for_each(|client| client.write_all(b"GET / HTTP/1.1\r\nHost:").unwrap());
        let mut client = connect(port);
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer:?}");
        let mut refused = String::new();
        slow[0].read_to_string(&mut refused).unwrap();
        assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("Retry-After: 1\r\n"), "{refused:?}");
        let (head, body) = refused.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{refused:?}");
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok(), "{body}");
    }

    #[test]
    fn requests_are_refused_at_once_while_all_places_are_at_work() {
        raise_limit();
        let (port, _pause) = server(Duration::ZERO);
        let mut busy: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect(port)).collect();
        busy.iter_mut().for_each(|client| client.write_all(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n").unwrap());
        for number in 0..100 {
            let mut client = connect(port);
            client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("Retry-After"), "{number}: {answer:?}");
        }
    }

    #[test]
    fn an_answer_that_is_being_sent_is_not_cut_off() {
        raise_limit();
        let (port, _pause) = server(Duration::ZERO);
        let mut slow = connect(port);
        slow.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let idle: Vec<TcpStream> = (1..CONNECTIONS).map(|_| connect(port)).collect();
        let mut other = connect(port);
        other.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        other.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer:?}");
        let mut large = Vec::new();
        slow.read_to_end(&mut large).unwrap();
        assert!(large.len() > LARGE, "{}", large.len());
        drop(idle);
    }
}
