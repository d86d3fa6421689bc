//! Serves `run/control.sock`, through which the other commands and an upgrade send requests to the supervisor.

use leoflow_base::home::Home;
use leoflow_base::protocol::control::{Answer, LINE_LIMIT, Request};
use leoflow_base::sys::fs::files;
use leoflow_base::sys::net::unix_socket;
use leoflow_base::sys::user;
use std::io;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// A message from the control socket.
pub enum ControlMessage {
    /// A request, the client's pid, and the channel for its answer.
    Request { request: Request, peer: i32, answer: oneshot::Sender<Answer> },
    /// A client disconnected.
    Disconnected,
}

/// The socket and the task that serves it. The inode tells whether the socket's file was replaced.
pub struct ControlSocket {
    home: Home,
    messages: mpsc::Sender<ControlMessage>,
    task: JoinHandle<()>,
    inode: u64,
}

impl ControlSocket {
    pub fn open(home: &Home, messages: mpsc::Sender<ControlMessage>) -> io::Result<Self> {
        let listener = unix_socket::listen(&home.control_socket())?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let inode = files::inode(&home.control_socket()).ok_or(io::ErrorKind::NotFound)?;
        let task = tokio::task::spawn_local(serve(listener, messages.clone()));
        Ok(Self { home: home.clone(), messages, task, inode })
    }

    /// Recreates the socket if it was removed or replaced.
    pub fn ensure(&mut self) {
        if files::inode(&self.home.control_socket()) == Some(self.inode) {
            return;
        }
        if let Ok(reopened) = Self::open(&self.home, self.messages.clone()) {
            self.task.abort();
            *self = reopened;
        }
    }
}

async fn serve(listener: UnixListener, messages: mpsc::Sender<ControlMessage>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::task::spawn_local(serve_client(stream, messages.clone()));
            }
            // This process has run out of descriptors, so it accepts again after a pause.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
        }
    }
}

/// Answers a client's requests until it disconnects. An error ends only this connection.
async fn serve_client(stream: UnixStream, messages: mpsc::Sender<ControlMessage>) {
    let own_uid = user::effective_uid();
    if !unix_socket::peer_uid(&stream).is_ok_and(|uid| uid == own_uid || uid == 0) {
        return;
    }
    let peer = unix_socket::peer_pid(&stream).unwrap_or_default();
    let (reader, mut writer) = stream.into_split();
    answer_all(BufReader::new(reader), &mut writer, &messages, peer).await;
    // The send fails only while the supervisor exits, which then does not need the message.
    let _ = messages.send(ControlMessage::Disconnected).await;
}

/// Answers one request per line.
async fn answer_all(
    mut reader: BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
    messages: &mpsc::Sender<ControlMessage>,
    peer: i32,
) {
    loop {
        let mut line = String::new();
        match (&mut reader).take(LINE_LIMIT).read_line(&mut line).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
        let answer = match serde_json::from_str(&line) {
            Ok(request) => forward_request(messages, request, peer).await,
            Err(error) => Answer::Error(format!("invalid request: {error}")),
        };
        let Ok(mut text) = serde_json::to_vec(&answer) else { return };
        text.push(b'\n');
        if writer.write_all(&text).await.is_err() {
            return;
        }
    }
}

/// Passes a request to the supervisor's loop and waits for its answer.
async fn forward_request(messages: &mpsc::Sender<ControlMessage>, request: Request, peer: i32) -> Answer {
    let (answer, answer_receiver) = oneshot::channel();
    if messages.send(ControlMessage::Request { request, peer, answer }).await.is_err() {
        return Answer::Error("the supervisor is exiting".to_owned());
    }
    answer_receiver.await.unwrap_or_else(|_| Answer::Error("the supervisor is exiting".to_owned()))
}
