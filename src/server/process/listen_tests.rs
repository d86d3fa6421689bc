//! Tests of the server's connections: pauses, eviction, refusals and the drain.

use super::*;
use std::io::{Read, Write};
use std::net::TcpStream;

/// Sets the limit of open files to 16,384, or to the maximum if that is lower: each connection uses two.
fn raise_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(16_384), hard).unwrap();
}

const LARGE: usize = 32 * 1024 * 1024;

/// Serves on its own thread. Returns the port and a sender of pause requests: the thread reports the start of the pause
/// on the channel that was sent as the request, and then blocks for `pause`.
fn server(pause: Duration) -> (u16, std::sync::mpsc::Sender<std::sync::mpsc::Sender<()>>) {
    let (pause_sender, pause_requests) = std::sync::mpsc::channel::<std::sync::mpsc::Sender<()>>();
    let (port_sender, port) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async move {
            let listener = leoflow_base::sys::net::listener::bind_at(std::net::Ipv4Addr::LOCALHOST, 0).unwrap();
            port_sender.send(listener.local_addr().unwrap().port()).unwrap();
            let tcp = TcpListener::from_std(listener).unwrap();
            let router = Router::new()
                .route("/", axum::routing::get(async || "ok"))
                .route("/wait", axum::routing::get(async || std::future::pending::<&str>().await))
                .route("/large", axum::routing::get(async || vec![b'x'; LARGE]));
            let (_stop, stopped) = watch::channel(false);
            let next = async move || Ok((tcp.accept().await?.0, extensions_of(Caller::LocalAdmin)));
            let accepting = tokio::task::spawn_local(accept(stopped, router, next));
            let paused = loop {
                match pause_requests.try_recv() {
                    Ok(paused) => break paused,
                    Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            };
            paused.send(()).unwrap();
            std::thread::sleep(pause);
            drop(accepting.await);
        });
    });
    (port.recv().unwrap(), pause_sender)
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

#[test]
fn answers_every_request_after_a_pause() {
    raise_limit();
    let (port, pause) = server(Duration::from_millis(500));
    let (paused, wait) = std::sync::mpsc::channel();
    pause.send(paused).unwrap();
    wait.recv().unwrap();
    let mut clients: Vec<TcpStream> = (0..3 * MAX_CONNECTIONS).map(|_| connect(port)).collect();
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
async fn answers_a_request_that_arrives_during_eviction() {
    let (mut client, stream) = tokio::io::duplex(4096);
    client.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let slow = async || {
        tokio::task::yield_now().await;
        "done"
    };
    let router = Router::new().route("/", axum::routing::post(slow));
    let (_stop, stopped) = watch::channel(false);
    let slots = Slots::new(1, SEND_TIMEOUT);
    let (slot, permit) = slots.next().await.unwrap();
    slot.ask_to_close();
    let contention = slots.contention_flag();
    let service =
        ConnectionService { router, extensions: extensions_of(Caller::LocalAdmin), stopped, contention, slot };
    serve_connection(stream, service, permit).await;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("done"), "{answer:?}");
}

#[test]
fn answers_an_upload_during_the_drain() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    let answer = local.block_on(&runtime, async move {
        let listener = leoflow_base::sys::net::listener::bind_at(std::net::Ipv4Addr::LOCALHOST, 0).unwrap();
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
        let accepting = tokio::task::spawn_local(accept(stopped, router, async move || {
            Ok((tcp.accept().await?.0, extensions_of(Caller::LocalAdmin)))
        }));
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
fn unfinished_requests_are_evicted_with_a_response() {
    raise_limit();
    let (port, _pause) = server(Duration::ZERO);
    let mut slow: Vec<TcpStream> = (0..MAX_CONNECTIONS).map(|_| connect(port)).collect();
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
fn refuses_while_all_slots_are_busy() {
    raise_limit();
    let (port, _pause) = server(Duration::ZERO);
    let mut busy: Vec<TcpStream> = (0..MAX_CONNECTIONS).map(|_| connect(port)).collect();
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
fn does_not_cut_off_a_response_being_sent() {
    raise_limit();
    let (port, _pause) = server(Duration::ZERO);
    let mut slow = connect(port);
    slow.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let idle: Vec<TcpStream> = (1..MAX_CONNECTIONS).map(|_| connect(port)).collect();
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

/// Sends two requests over one connection, the second with `Connection: close`; returns the answers.
async fn two_answers(contention: bool) -> String {
    let (mut client, stream) = tokio::io::duplex(4096);
    let request = "GET / HTTP/1.1\r\nHost: x\r\n";
    client.write_all(format!("{request}\r\n{request}Connection: close\r\n\r\n").as_bytes()).await.unwrap();
    let caller = async |axum::Extension(caller): axum::Extension<Caller>| format!("from {caller:?};");
    let router = Router::new().route("/", axum::routing::get(caller));
    let (_stop, stopped) = watch::channel(false);
    let (slot, permit) = Slots::new(1, SEND_TIMEOUT).next().await.unwrap();
    let contention = Arc::new(AtomicBool::new(contention));
    let service =
        ConnectionService { router, extensions: extensions_of(Caller::LocalAdmin), stopped, contention, slot };
    serve_connection(stream, service, permit).await;
    let mut answers = String::new();
    client.read_to_string(&mut answers).await.unwrap();
    answers
}

#[tokio::test]
async fn every_request_of_a_connection_knows_its_caller() {
    let answers = two_answers(false).await;
    assert_eq!(answers.matches("from LocalAdmin;").count(), 2, "{answers:?}");
    let (first_head, _) = answers.split_once("from").unwrap();
    assert!(!first_head.contains("connection: close"), "{answers:?}");
}

#[tokio::test]
async fn a_response_closes_its_connection_while_others_wait_for_a_slot() {
    let answers = two_answers(true).await;
    assert!(answers.contains("\r\nconnection: close\r\n"), "{answers:?}");
    assert_eq!(answers.matches("from LocalAdmin;").count(), 1, "{answers:?}");
}
