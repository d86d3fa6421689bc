//! A process that runs triggers: how it is begun, told, heard, and let go.

use crate::engine::state::TryState;
use crate::engine::store::watchers::WatcherEvent;
use crate::home::Home;
use crate::python::{Interpreter, Job, VersionCode, environment};
use crate::sys::listener;
use crate::sys::pidfd::PidFd;
use crate::sys::process::{self, Signal};
use crate::sys::reaper::{self, Exit};
use crate::sys::spawn::Spawn;
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
use tokio::net::unix::{OwnedWriteHalf, pipe};
use tokio::sync::mpsc::{Sender, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::warn;

/// For a process that has said all to end.
const FAREWELL: Duration = Duration::from_secs(15);

/// How long the output of a process that has ended is waited for: something that it started may keep the pipe open.
const DRAIN: Duration = Duration::from_millis(500);
/// How much of the output is kept.
const LAST_OUTPUT: usize = 4 * 1024;

/// Where triggers run. Each place has a process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// The Python of the environment.
    pub program: PathBuf,
    /// The project's folder.
    pub folder: PathBuf,
    /// The packages that come with Leoflow, once they are installed: a process that began without them lacks them.
    pub packages: Option<PathBuf>,
}

pub(super) struct Host {
    pub pid: i32,
    pub to: UnboundedSender<Value>,
    pub has: HashSet<i64>,
    pub used: Instant,
    pub begun: Instant,
}

/// By a process, or of it.
pub(super) enum Said {
    Told(Told),
    Ended(Ending),
}

/// How a process has ended.
pub(super) struct Ending {
    /// `None` when that is not known.
    pub exit: Option<Exit>,
    /// The last lines of its output.
    pub output: Vec<String>,
}

/// What a process says of a trigger: what it has come to, or lines for the log of its task.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Told {
    Log { id: i64, log: String },
    Outcome(Box<Outcome>),
}

#[derive(Debug, Deserialize)]
pub(super) struct Outcome {
    pub id: i64,
    /// The arguments of the method that goes on, with the event.
    pub next_kwargs: Option<Value>,
    /// The lines of a traceback.
    pub failed: Option<Vec<String>>,
    /// The state that the trigger has ended the task with.
    pub ended: Option<TryState>,
    #[serde(default)]
    pub xcoms: BTreeMap<String, Value>,
    /// Of a watcher, which goes on.
    pub event: Option<WatcherEvent>,
}

impl Host {
    pub fn start(
        home: &Home,
        python: &Interpreter,
        code: &VersionCode,
        place: &Place,
        telling: Sender<(Place, i32, Said)>,
    ) -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let options = json!({"roots": code.roots, "work_in": code.folders, "socket": home.api_socket()});
        let (output_reader, output) = listener::pipe_with_async_reader()?;
        let spawn = Spawn {
            program: python.program.clone(),
            called: None,
            arguments: python.arguments(Job::Triggers, &options),
            environment: environment(),
            output: output.as_fd(),
            errors: None,
            folder: None,
            passed: vec![theirs.as_fd()],
            single_user: None,
            parent_death: Some(Signal::Kill),
            own_session: false,
        };
        let pid = spawn.start().map_err(io::Error::other)?;
        drop((theirs, output));
        let last_output = Rc::new(RefCell::default());
        let passing_on = tokio::task::spawn_local(pass_on(output_reader, last_output.clone()));
        let (reader, writer) = UnixStream::from_std(ours)?.into_split();
        let (to, messages) = unbounded_channel();
        let sending = tokio::task::spawn_local(send(writer, messages));
        let place = place.clone();
        tokio::task::spawn_local(async move {
            let listen = async {
                let mut lines = BufReader::new(reader).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    match serde_json::from_str(&line) {
                        // One that says more than is written down waits.
                        Ok(told) => drop(telling.send((place.clone(), pid, Said::Told(told))).await),
                        // What it has said is lost, so it says it again from the beginning.
                        Err(error) => {
                            warn!("what the process of the triggers says cannot be read: {error}");
                            process::signal_process(pid, Signal::Kill);
                        }
                    }
                }
            };
            let let_go = async {
                let _ = sending.await;
                tokio::time::sleep(FAREWELL).await;
            };
            tokio::select! {
                () = listen => {}
                () = let_go => process::signal_process(pid, Signal::Kill),
            }
            // It has closed its end, so it ends; one that does not is ended.
            if let Ok(ended) = PidFd::of_pid(pid) {
                let ended = ended.ended();
                tokio::pin!(ended);
                if tokio::time::timeout(FAREWELL, &mut ended).await.is_err() {
                    process::signal_process(pid, Signal::Kill);
                    let _ = ended.await;
                }
            }
            let _ = tokio::time::timeout(DRAIN, passing_on).await;
            let ending = Ending { exit: reaper::ended_child(pid), output: last_lines(&last_output.take()) };
            let _ = telling.send((place, pid, Said::Ended(ending))).await;
        });
        Ok(Self { pid, to, has: HashSet::new(), used: Instant::now(), begun: Instant::now() })
    }
}

/// Until nobody has anything to say any more: then it ends.
async fn send(mut writer: OwnedWriteHalf, mut messages: UnboundedReceiver<Value>) {
    while let Some(message) = messages.recv().await {
        if writer.write_all(format!("{message}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Writes the output of a process to where our own errors go, and keeps the end of it.
async fn pass_on(mut output: pipe::Receiver, last: Rc<RefCell<Vec<u8>>>) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = output.read(&mut buffer).await {
        // The log may be full; the process must not wait for it.
        let _ = io::stderr().write_all(&buffer[..length]);
        let mut last = last.borrow_mut();
        last.extend_from_slice(&buffer[..length]);
        let excess = last.len().saturating_sub(LAST_OUTPUT);
        last.drain(..excess);
    }
}

/// From the last traceback on, or the last line where there is none.
fn last_lines(output: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let traceback = lines.iter().rposition(|line| line.starts_with("Traceback "));
    let from = traceback.unwrap_or(lines.len().saturating_sub(1));
    lines[from..].iter().map(|line| (*line).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_traceback_says_why_a_process_ended() {
        let output = b"[INFO] waiting\nTraceback (most recent call last):\nKeyError: 1\n\nTraceback (most recent call last):\n  File \"x\"\nValueError: no\n";
        assert_eq!(last_lines(output), ["Traceback (most recent call last):", "  File \"x\"", "ValueError: no"]);
        assert_eq!(last_lines(b"one\nSegmentation fault\n"), ["Segmentation fault"]);
        assert!(last_lines(b"").is_empty());
    }
}
