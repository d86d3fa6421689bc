//! The supervisor's end of `run/control.sock`.

use crate::home::Home;
use crate::protocol::control::{Answer, LINE_LIMIT, Request};
use crate::sys::{files, unix_socket, user};
use std::io;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// What came over the socket.
pub enum Asked {
    /// A request, who asks, and where its answer goes.
    Request { request: Request, peer: i32, answer: oneshot::Sender<Answer> },
    /// Whoever had asked for something has left.
    Left,
}

/// The socket and the task that serves it.
pub struct ControlSocket {
    home: Home,
    asked: mpsc::Sender<Asked>,
    task: JoinHandle<()>,
    inode: u64,
}

impl ControlSocket {
    pub fn open(home: &Home, asked: mpsc::Sender<Asked>) -> io::Result<Self> {
        let listener = unix_socket::listen(&home.control_socket())?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let inode = files::inode(&home.control_socket()).ok_or(io::ErrorKind::NotFound)?;
        let task = tokio::task::spawn_local(serve(listener, asked.clone()));
        Ok(Self { home: home.clone(), asked, task, inode })
    }

    /// Opens it again when somebody has removed or replaced it.
    pub fn ensure(&mut self) {
        if files::inode(&self.home.control_socket()) == Some(self.inode) {
            return;
        }
        if let Ok(again) = Self::open(&self.home, self.asked.clone()) {
            self.task.abort();
            *self = again;
        }
    }
}

async fn serve(listener: UnixListener, asked: mpsc::Sender<Asked>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::task::spawn_local(converse(stream, asked.clone()));
            }
            // Out of descriptors: the next connection may find some.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
        }
    }
}

/// Answers until the other end leaves. Errors end the conversation and nothing else.
async fn converse(stream: UnixStream, asked: mpsc::Sender<Asked>) {
    let ours = user::effective_uid();
    if !unix_socket::peer_uid(&stream).is_ok_and(|uid| uid == ours || uid == 0) {
        return;
    }
    let peer = unix_socket::peer_pid(&stream).unwrap_or_default();
    let (reader, mut writer) = stream.into_split();
    answer_all(BufReader::new(reader), &mut writer, &asked, peer).await;
    // The supervisor may be leaving too.
    let _ = asked.send(Asked::Left).await;
}

async fn answer_all(
    mut reader: BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
    asked: &mpsc::Sender<Asked>,
    peer: i32,
) {
    loop {
        let mut line = String::new();
        match (&mut reader).take(LINE_LIMIT).read_line(&mut line).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
        let answer = match serde_json::from_str(&line) {
            Ok(request) => ask(asked, request, peer).await,
            Err(error) => Answer::Error(format!("not a request: {error}")),
        };
        let Ok(mut text) = serde_json::to_vec(&answer) else { return };
        text.push(b'\n');
        if writer.write_all(&text).await.is_err() {
            return;
        }
    }
}

async fn ask(asked: &mpsc::Sender<Asked>, request: Request, peer: i32) -> Answer {
    let (answer, answered) = oneshot::channel();
    if asked.send(Asked::Request { request, peer, answer }).await.is_err() {
        return Answer::Error("the supervisor is leaving".to_owned());
    }
    answered.await.unwrap_or_else(|_| Answer::Error("the supervisor is leaving".to_owned()))
}
