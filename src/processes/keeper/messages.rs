//! What an agent and a keeper say to each other: a line of JSON for each message.

use leoflow_python::Interpreter;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io;
use std::path::PathBuf;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Longest message in bytes.
const LONGEST: u64 = 4 * 1024 * 1024;

/// A request of the agent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    Start(Box<Start>),
    /// End the try in this folder.
    Stop(PathBuf),
    /// Start the warm Python for this task; for any without a key.
    Prepare {
        interpreter: Box<Interpreter>,
        usage_key: String,
    },
    Libraries(Libraries),
}

/// Libraries that a task has imported, which later warm Pythons preload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Libraries {
    pub interpreter: Interpreter,
    pub usage_key: String,
    pub libraries: Vec<String>,
}

/// Start the try in a folder.
#[derive(Debug, Serialize, Deserialize)]
pub struct Start {
    pub folder: PathBuf,
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// Working directory of the program.
    pub work_in: PathBuf,
    pub log: PathBuf,
    /// The task's execution_timeout in seconds, after which the keeper ends the task.
    pub time_limit: Option<f64>,
    /// `None` if the program must be started cold.
    pub warm: Option<WarmStart>,
}

/// How to fork the task from a warm Python instead.
#[derive(Debug, Serialize, Deserialize)]
pub struct WarmStart {
    pub interpreter: Interpreter,
    /// The task, independent of the run.
    pub usage_key: String,
    /// Options of `leoflow.entry.task`.
    pub options: Value,
    /// The id of the DAG version, if a template may run its file once for several tries.
    pub template: Option<i64>,
}

/// An event that a keeper reports to the agent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The first event of a connection: the folders of the tries that run.
    Running(Vec<PathBuf>),
    /// The try in this folder has ended, or this keeper did not take it.
    Ended(PathBuf),
    /// These DAG versions get no template.
    Refused(Vec<i64>),
    /// No task and no warm Python runs: the keeper exits once the agent disconnects.
    Idle,
}

/// Sends messages without waiting for the receiver.
#[derive(Debug, Clone)]
pub struct Outbox(UnboundedSender<Vec<u8>>);

impl Outbox {
    pub fn send(&self, message: &impl Serialize) {
        if let Ok(mut line) = serde_json::to_vec(message) {
            line.push(b'\n');
            // Fails once the connection is closed, which its reader notices.
            let _ = self.0.send(line);
        }
    }
}

/// Receives messages.
pub struct Inbox(BufReader<OwnedReadHalf>);

impl Inbox {
    /// Receives a message; `None` at the end of the connection. Must not be cancelled, which could lose a part of a line.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let mut line = Vec::new();
        (&mut self.0).take(LONGEST).read_until(b'\n', &mut line).await?;
        match line.strip_suffix(b"\n") {
            Some(line) => Ok(Some(serde_json::from_slice(line)?)),
            // A line without an end was cut off with the connection.
            None => Ok(None),
        }
    }
}

/// Splits a connection. It is closed for writing when the last clone of the outbox is dropped. Must be called in a
/// `LocalSet`.
pub fn split(stream: UnixStream) -> (Inbox, Outbox) {
    let (reader, writer) = stream.into_split();
    let (sender, receiver) = unbounded_channel();
    tokio::task::spawn_local(write_all(writer, receiver));
    (Inbox(BufReader::new(reader)), Outbox(sender))
}

async fn write_all(mut writer: OwnedWriteHalf, mut lines: UnboundedReceiver<Vec<u8>>) {
    while let Some(line) = lines.recv().await {
        if writer.write_all(&line).await.is_err() {
            return;
        }
    }
}
