//! A process that runs triggers: how it is begun, told, heard, and let go.

use crate::engine::state::TryState;
use crate::engine::store::watchers::WatcherEvent;
use crate::home::Home;
use crate::python::{Interpreter, Job, VersionCode, environment};
use crate::sys::pidfd::PidFd;
use crate::sys::process::{self, Signal};
use crate::sys::reaper::{self, Exit};
use crate::sys::spawn::Spawn;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc::{Sender, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::warn;

/// For a process that has said all to end.
const FAREWELL: Duration = Duration::from_secs(15);

/// Where triggers run: the environment and the project's folder.
pub(super) type Place = (PathBuf, PathBuf);

pub(super) struct Host {
    pub pid: i32,
    pub to: UnboundedSender<Value>,
    pub has: HashSet<i64>,
    pub used: Instant,
}

/// By a process, or of it.
pub(super) enum Said {
    Told(Told),
    Ended(Option<Exit>),
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
        let options = json!({"work_in": code.roots, "socket": home.api_socket()});
        let errors = io::stderr();
        let spawn = Spawn {
            program: python.program.clone(),
            called: None,
            arguments: python.arguments(Job::Triggers, &options),
            environment: environment(),
            output: errors.as_fd(),
            errors: None,
            folder: None,
            passed: vec![theirs.as_fd()],
            single_user: None,
            parent_death: Some(Signal::Kill),
            own_session: false,
        };
        let pid = spawn.start().map_err(io::Error::other)?;
        drop(theirs);
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
            let _ = telling.send((place, pid, Said::Ended(reaper::ended_child(pid)))).await;
        });
        Ok(Self { pid, to, has: HashSet::new(), used: Instant::now() })
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
