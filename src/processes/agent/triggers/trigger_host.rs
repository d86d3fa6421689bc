//! A host: a Python process that runs triggers. Starts it, exchanges messages with it, and ends it.

use leoflow_base::config::leoflow_yaml;
use leoflow_base::home::Home;
use leoflow_base::sys::net::listener;
use leoflow_base::sys::process::reaper::{self, Exit};
use leoflow_base::sys::process::spawn::Spawn;
use leoflow_base::sys::process::{self, Signal, exit};
use leoflow_engine::model::state::TryState;
use leoflow_engine::store::asset::watchers::WatcherEvent;
use leoflow_python::{Interpreter, Job, VersionCode};
use serde::Deserialize;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf, pipe};
use tokio::sync::mpsc::{Sender, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tracing::warn;

/// Time for a host to exit after its connection is closed.
const EXIT_TIMEOUT: Duration = Duration::from_secs(15);

/// Time limit for the output of a host that has ended: a process that it started may keep the pipe open.
const DRAIN: Duration = Duration::from_millis(500);
/// Bytes at the end of a host's output that are kept for error messages.
const KEPT_OUTPUT_BYTES: usize = 4 * 1024;

/// Identifies a host: triggers with equal keys run in the same host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct HostKey {
    /// The Python of the environment.
    pub program: PathBuf,
    /// The project's folder; the workspace for a DAG file outside of projects.
    pub folder: PathBuf,
    /// Path of Leoflow's support packages, once installed. Part of the key, because a host that started earlier lacks
    /// them.
    pub packages: Option<PathBuf>,
}

pub(crate) struct Host {
    pub pid: i32,
    pub sender: UnboundedSender<Value>,
    pub trigger_ids: HashSet<i64>,
    pub last_used: Instant,
    pub started: Instant,
}

/// An event of a host.
pub(crate) enum HostEvent {
    Message(HostMessage),
    Ended {
        /// `None` if unknown.
        exit: Option<Exit>,
        /// The last lines of its output.
        output: Vec<String>,
    },
}

/// A message of a host about a trigger: its outcome, or lines for the log of its task.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum HostMessage {
    Log { id: i64, log: String },
    Outcome(Box<Outcome>),
}

#[derive(Debug, Deserialize)]
pub(crate) struct Outcome {
    pub id: i64,
    /// The arguments of the task's `next_method`, with the event.
    pub next_kwargs: Option<Value>,
    /// The lines of a traceback.
    pub failed: Option<Vec<String>>,
    /// The state in which the trigger ended the task.
    pub ended: Option<TryState>,
    #[serde(default)]
    pub xcoms: BTreeMap<String, Value>,
    /// An event of a watcher, which keeps running.
    pub event: Option<WatcherEvent>,
}

impl Host {
    pub fn start(
        home: &Home,
        python: &Interpreter,
        code: &VersionCode,
        host_key: &HostKey,
        event_sender: Sender<(HostKey, i32, HostEvent)>,
    ) -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let settings = code.folders.first().and_then(|project| leoflow_yaml::load(project).ok().flatten());
        let options = json!({
            "roots": code.roots, "work_in": code.folders, "socket": home.api_socket(), "settings": settings,
        });
        let (output_reader, output) = listener::pipe_with_async_reader()?;
        let spawn = Spawn { passed: vec![theirs.as_fd()], ..python.spawn(Job::Triggers, &options, None) };
        let pid = spawn.start(output.as_fd()).map_err(io::Error::other)?;
        drop((theirs, output));
        let last_output = Rc::new(RefCell::default());
        let copying = tokio::task::spawn_local(copy_output(output_reader, last_output.clone()));
        let (reader, writer) = UnixStream::from_std(ours)?.into_split();
        let (sender, messages) = unbounded_channel();
        let sending = tokio::task::spawn_local(send(writer, messages));
        let connection = Connection { pid, host_key: host_key.clone(), event_sender };
        tokio::task::spawn_local(async move {
            connection.serve(reader, sending).await;
            connection.wait_for_exit().await;
            let _ = tokio::time::timeout(DRAIN, copying).await;
            let (exit, output) = (reaper::ended_child(pid), last_lines(&last_output.take()));
            connection.send(HostEvent::Ended { exit, output }).await;
        });
        Ok(Self { pid, sender, trigger_ids: HashSet::new(), last_used: Instant::now(), started: Instant::now() })
    }
}

/// The agent's connection to a running host: forwards the host's messages to the agent, and ends the host.
struct Connection {
    pid: i32,
    host_key: HostKey,
    event_sender: Sender<(HostKey, i32, HostEvent)>,
}

impl Connection {
    /// Forwards messages until the host closes its end. Once `sending` has ended because no sender is left, the host
    /// has `EXIT_TIMEOUT` to exit.
    async fn serve(&self, reader: OwnedReadHalf, sending: JoinHandle<()>) {
        let exit_deadline = async {
            let _ = sending.await;
            tokio::time::sleep(EXIT_TIMEOUT).await;
        };
        tokio::select! {
            () = self.listen(reader) => {}
            () = exit_deadline => process::signal_process(self.pid, Signal::Kill),
        }
    }

    async fn listen(&self, reader: OwnedReadHalf) {
        let mut lines = BufReader::new(reader).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            match serde_json::from_str(&line) {
                Ok(message) => self.send(HostEvent::Message(message)).await,
                // The trigger of the lost message would wait for ever, so the host is restarted.
                Err(error) => {
                    warn!("cannot parse a message of a trigger host: {error}");
                    process::signal_process(self.pid, Signal::Kill);
                }
            }
        }
    }

    /// Waits for the exit of a host that has closed its end; kills the host after `EXIT_TIMEOUT`.
    async fn wait_for_exit(&self) {
        if tokio::time::timeout(EXIT_TIMEOUT, exit::wait_child(self.pid)).await.is_err() {
            process::signal_process(self.pid, Signal::Kill);
            exit::wait_child(self.pid).await;
        }
    }

    /// Sends an event to the agent. While the channel is full, no further message is read, so the host waits.
    async fn send(&self, event: HostEvent) {
        drop(self.event_sender.send((self.host_key.clone(), self.pid, event)).await);
    }
}

/// Sends messages to the host until all senders are dropped; closing the connection ends the host.
async fn send(mut writer: OwnedWriteHalf, mut messages: UnboundedReceiver<Value>) {
    while let Some(message) = messages.recv().await {
        if writer.write_all(format!("{message}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Copies the output of a host to the agent's standard error, and keeps the end of the output in `last`.
async fn copy_output(mut output: pipe::Receiver, last: Rc<RefCell<Vec<u8>>>) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = output.read(&mut buffer).await {
        // A failed write, for example on a full disk, must not block the host.
        let _ = io::stderr().write_all(&buffer[..length]);
        let mut last = last.borrow_mut();
        last.extend_from_slice(&buffer[..length]);
        let excess = last.len().saturating_sub(KEPT_OUTPUT_BYTES);
        last.drain(..excess);
    }
}

/// The lines from the last traceback on; without a traceback, the last line.
fn last_lines(output: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let traceback = lines.iter().rposition(|line| line.starts_with("Traceback "));
    let first = traceback.unwrap_or(lines.len().saturating_sub(1));
    lines[first..].iter().map(|line| (*line).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_traceback_of_a_host() {
        let output = b"[INFO] waiting\nTraceback (most recent call last):\nKeyError: 1\n\nTraceback (most recent call last):\n  File \"x\"\nValueError: no\n";
        assert_eq!(last_lines(output), ["Traceback (most recent call last):", "  File \"x\"", "ValueError: no"]);
        assert_eq!(last_lines(b"one\nSegmentation fault\n"), ["Segmentation fault"]);
        assert!(last_lines(b"").is_empty());
    }
}
