//! The keeper: one small process that starts the tasks of an agent, writes their logs, ends them at their time limits or
//! on request, and records how they ended. It needs no other process of Leoflow, so that tasks continue while the others
//! are replaced or fail. It exits when no task runs and no agent is connected.

mod folder;
mod leftovers;
mod log;
mod messages;
mod secrets;
mod task;
mod task_files;
mod tries;

pub use folder::TaskFolder;
pub(crate) use log::{TaskLog, join_pieces};
pub use messages::{Event, Inbox, Libraries, Outbox, Request, Start, WarmStart, split};
pub use task_files::{Cause, Outcome, ResultState, Spec, TaskResult};

use leoflow_base::home::Home;
use leoflow_base::sys::net::unix_socket;
use leoflow_base::sys::process::descriptors::{FIRST_PASSED, take_inherited};
use leoflow_base::sys::process::{self, ProcessId};
use std::fs;
use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::id;
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::LocalSet;
use tracing::warn;
use tries::Tries;

/// The name by which the program is called as a keeper.
pub const PROGRAM_NAME: &str = "leoflow-keeper";

/// Path of the socket of the keeper with this pid, for the agents after the one that started it.
pub fn socket(home: &Home, pid: i32) -> PathBuf {
    home.keepers().join(format!("{pid}.sock"))
}

/// The running keepers of a home.
pub fn running(home: &Home) -> Vec<ProcessId> {
    let entries = fs::read_dir(home.keepers()).into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.path().file_stem()?.to_str()?.parse().ok());
    // The socket of a killed keeper stays, and its pid may be that of another process.
    let is_keeper = |pid: &i32| process::arguments(*pid).is_some_and(|arguments| arguments[0] == PROGRAM_NAME);
    pids.filter(is_keeper).filter_map(ProcessId::of).collect()
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
    // A terminal's Ctrl-C ends the instance, which then ends the tasks.
    let _interrupt = signal(SignalKind::interrupt())?;
    let path = socket(home, i32::try_from(id()).unwrap_or_default());
    let listener = listen(home, &path)?;
    let stream = StdUnixStream::from(take_inherited(FIRST_PASSED)?);
    stream.set_nonblocking(true)?;
    let mut agent = Some(Agent::connected(UnixStream::from_std(stream)?));
    let mut tries = Tries::new(home)?;
    while agent.is_some() || !tries.is_empty() {
        tokio::select! {
            received = receive(&mut agent) => match received {
                Some(request) => tries.handle(request),
                None => agent = None,
            },
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                // An agent connects only when the one before it has exited. What that one has requested comes first.
                if let Some(mut earlier) = agent.take() {
                    while let Some(request) = earlier.requests.recv().await {
                        tries.handle(request);
                    }
                }
                agent = Some(Agent::connected(stream));
                tell(&agent, &Event::Running(tries.folders()));
            },
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
