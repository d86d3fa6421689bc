//! The keeper: one small process that starts the tasks of an agent, writes their logs, ends them at their time limits or
//! on request, and records how they ended. It needs no other process of Leoflow, so that tasks continue while the others
//! are replaced or fail. It exits when no task runs and no agent is connected.

mod children;
mod folder;
mod log;
mod messages;
mod task;
mod task_files;
mod task_pipe;
mod tries;

pub(crate) use folder::Code;
pub use folder::TaskFolder;
pub(crate) use log::{TaskLog, join_pieces};
pub use messages::{Event, Inbox, Libraries, Outbox, Request, Start, WarmStart, split};
pub use task_files::{Cause, Outcome, ResultState, Spec, TaskResult};

use children::Children;
use leoflow_base::home::Home;
use leoflow_base::sys::net::unix_socket;
use leoflow_base::sys::process::descriptors::{FIRST_PASSED, take_inherited};
use leoflow_base::sys::process::{self, ProcessId};
use std::fs;
use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::id;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::LocalSet;
use tracing::warn;
use tries::Tries;

/// The name by which the program is called as a keeper.
pub const PROGRAM_NAME: &str = "leoflow-keeper";

/// Pause after a failure to accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Path of the socket of the keeper with this pid, for the agents after the one that started it.
pub fn socket(home: &Home, pid: i32) -> PathBuf {
    home.keepers().join(format!("{pid}.sock"))
}

/// The running keepers of a home. Removes the sockets of those that were killed.
pub fn running(home: &Home) -> Vec<ProcessId> {
    let mut keepers = Vec::new();
    for entry in fs::read_dir(home.keepers()).into_iter().flatten().flatten() {
        let pid = entry.path().file_stem().and_then(|name| name.to_str()?.parse().ok());
        match pid.and_then(ProcessId::of).filter(|process| is_keeper_of(home, process)) {
            Some(process) => keepers.push(process),
            None => drop(fs::remove_file(entry.path())),
        }
    }
    keepers
}

/// True for a process that runs all tasks of an agent; false for the keeper of an earlier release, which has one task.
pub(crate) fn is_keeper_of(home: &Home, process: &ProcessId) -> bool {
    let arguments = process::arguments(process.pid).unwrap_or_default();
    arguments.first().is_some_and(|name| name == PROGRAM_NAME)
        && arguments.get(1).is_some_and(|root| home.root() == Path::new(root))
}

/// Runs a keeper for the agent at the other end of descriptor 3, until nothing runs and no agent is connected. Must be
/// called on the main thread: the kernel ends the tasks when the thread that starts them ends.
pub fn run(home: &Home) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, serve(home))
}

async fn serve(home: &Home) -> io::Result<()> {
    if let Err(error) = process::become_subreaper() {
        warn!("processes that tasks leave running will not be ended with them: {error}");
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut child_ended = signal(SignalKind::child())?;
    // A terminal's Ctrl-C ends the instance, which then ends the tasks. The kernel sends HUP to a stopped keeper whose
    // parent exits.
    let _ignored = (signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?);
    let path = socket(home, i32::try_from(id()).unwrap_or_default());
    let listener = listen(home, &path)?;
    let stream = StdUnixStream::from(take_inherited(FIRST_PASSED)?);
    stream.set_nonblocking(true)?;
    let mut agent = Some(Agent::connected(UnixStream::from_std(stream)?));
    let children = Rc::new(Children::new());
    let mut tries = Tries::new(home, children.clone())?;
    while agent.is_some() || !tries.is_empty() {
        tokio::select! {
            received = receive(&mut agent) => match received {
                Some(request) => tries.handle(request),
                None => agent = None,
            },
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // An agent connects only when the one before it has exited, by the lock of agents. What that one has
                    // requested comes first.
                    if let Some(mut earlier) = agent.take() {
                        while let Some(request) = earlier.requests.recv().await {
                            tries.handle(request);
                        }
                    }
                    agent = Some(Agent::connected(stream));
                    tell(&agent, &Event::Running(tries.folders()));
                    tries.note_new_agent();
                }
                // No descriptor is left, for example.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            _ = child_ended.recv() => children.reap(),
            event = tries.next_event() => tell(&agent, &event),
            _ = terminate.recv() => tries.stop_all(),
        }
    }
    // The home may have been removed.
    let _ = fs::remove_file(path);
    Ok(())
}

fn listen(home: &Home, path: &Path) -> io::Result<UnixListener> {
    home.create_folder(&home.keepers())?;
    let listener = unix_socket::listen(path)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// The connection to an agent.
struct Agent {
    requests: UnboundedReceiver<Request>,
    outbox: Outbox,
}

impl Agent {
    fn connected(stream: UnixStream) -> Self {
        let (inbox, outbox) = split(stream);
        let (sender, requests) = unbounded_channel();
        tokio::task::spawn_local(read(inbox, sender));
        Self { requests, outbox }
    }
}

/// Reads requests until the connection ends.
async fn read(mut inbox: Inbox, requests: UnboundedSender<Request>) {
    loop {
        match inbox.receive().await {
            Ok(Some(request)) => drop(requests.send(request)),
            Ok(None) => return,
            Err(error) => return warn!("the connection to the agent ends: {error}"),
        }
    }
}

/// Receives a request; `None` once the agent has disconnected. Never completes without an agent.
async fn receive(agent: &mut Option<Agent>) -> Option<Request> {
    match agent {
        Some(agent) => agent.requests.recv().await,
        None => std::future::pending().await,
    }
}

fn tell(agent: &Option<Agent>, event: &Event) {
    if let Some(agent) = agent {
        agent.outbox.send(event);
    }
}
