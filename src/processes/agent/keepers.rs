//! The agent's side of keepers: starts its own, connects to those of earlier agents, sends requests and receives events.

use crate::keeper::{self, Event, Inbox, Libraries, Outbox, Request, Start, TaskFolder};
use leoflow_base::home::Home;
use leoflow_base::sys::env_vars;
use leoflow_base::sys::net::unix_socket;
use leoflow_base::sys::process::reaper::{self, Exit};
use leoflow_base::sys::process::spawn::Spawn;
use leoflow_base::sys::process::{self, ProcessId, Signal, exit};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::warn;

/// Deadline for the keeper of an earlier release, which has one task, to end it after a request; then it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(12);
/// Deadline for a keeper to answer an agent that connects to it. The agent tries again at each heartbeat.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
const LOG: &str = "keeper.log";
/// Size in bytes at which the log of keepers is moved to `.1`.
const LOG_LIMIT: u64 = 5 * 1024 * 1024;
/// A keeper that is found stopped in this many checks in a row is killed instead of continued.
const MAX_CONTINUES: u32 = 3;
/// Number of tasks whose libraries are remembered.
const MOST_LIBRARIES: usize = 1000;
/// Variables of the agent that describe its own descriptors.
const OWN_VARIABLES: &[&str] = &["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "NOTIFY_SOCKET"];

/// An event of a keeper or of one of its tries.
pub enum KeeperEvent {
    /// The try in this folder has ended, or this keeper did not take it.
    Ended(ProcessId, PathBuf),
    /// These DAG versions get no template.
    Refused(Vec<i64>),
    /// Nothing runs there.
    Idle(ProcessId),
    /// The keeper has exited; its exit is unknown if it was not started by this agent.
    Gone(ProcessId, Option<Exit>),
}

pub struct Keepers {
    home: Home,
    connected: Vec<Connection>,
    /// What tasks have imported; sent to each new keeper.
    libraries: Vec<Libraries>,
    sender: UnboundedSender<KeeperEvent>,
    events: UnboundedReceiver<KeeperEvent>,
}

struct Connection {
    process: ProcessId,
    outbox: Outbox,
    /// True for the keeper that this agent has started; only this one starts tries.
    is_own: bool,
    /// Checks in a row that found it stopped (process state T).
    stopped: u32,
}

impl Keepers {
    pub fn new(home: &Home) -> Self {
        let (sender, events) = unbounded_channel();
        Self { home: home.clone(), connected: Vec::new(), libraries: Vec::new(), sender, events }
    }

    /// Waits for the next event.
    pub async fn next(&mut self) -> KeeperEvent {
        match self.events.recv().await {
            Some(event) => event,
            // Never: this value has a sender.
            None => std::future::pending().await,
        }
    }

    /// Returns an event that has already arrived.
    pub fn try_next(&mut self) -> Option<KeeperEvent> {
        self.events.try_recv().ok()
    }

    /// Connects to keepers of earlier agents that this agent is not connected to; returns the folders of the tries that
    /// run there.
    pub async fn attach(&mut self) -> Vec<(ProcessId, Vec<PathBuf>)> {
        let mut attached = Vec::new();
        for process in keeper::running(&self.home) {
            if self.is_connected(&process) {
                continue;
            }
            // One that is stopped does not answer.
            process.signal(Signal::Continue);
            let path = keeper::socket(&self.home, process.pid);
            match tokio::time::timeout(CONNECT_LIMIT, connect(&path)).await {
                Ok(Ok((folders, inbox, outbox))) => {
                    self.add(process.clone(), (inbox, outbox), false);
                    attached.push((process, folders));
                }
                // It has exited meanwhile.
                Ok(Err(error)) if unix_socket::is_not_listening(&error) => {}
                Ok(Err(error)) => warn!("cannot connect to the keeper with the pid {}: {error}", process.pid),
                Err(_) => warn!("the keeper with the pid {} does not answer", process.pid),
            }
        }
        attached
    }

    /// True if this process is a keeper that this agent is connected to.
    pub fn is_connected(&self, keeper: &ProcessId) -> bool {
        self.connected.iter().any(|connection| connection.process == *keeper)
    }

    /// True for the keeper that this agent has started.
    pub fn is_own(&self, keeper: &ProcessId) -> bool {
        self.connected.iter().any(|connection| connection.is_own && connection.process == *keeper)
    }

    /// Sends a request to this agent's own keeper, which is started if none runs; returns the keeper.
    pub fn request(&mut self, request: &Request) -> io::Result<ProcessId> {
        let own = match self.connected.iter().position(|connection| connection.is_own) {
            Some(index) => index,
            None => self.start_own()?,
        };
        self.connected[own].outbox.send(request);
        Ok(self.connected[own].process.clone())
    }

    /// Starts a try; returns its keeper.
    pub fn start(&mut self, start: Start) -> io::Result<ProcessId> {
        self.request(&Request::Start(Box::new(start)))
    }

    /// Remembers libraries that a task has imported, and has a warm Python with them started the first time.
    pub fn note_libraries(&mut self, noted: Libraries) {
        if self.libraries.contains(&noted) {
            return;
        }
        let (interpreter, usage_key) = (Box::new(noted.interpreter.clone()), noted.usage_key.clone());
        if let Some(own) = self.connected.iter().find(|connection| connection.is_own) {
            own.outbox.send(&Request::Libraries(noted.clone()));
            own.outbox.send(&Request::Prepare { interpreter, usage_key });
        }
        self.libraries.retain(|known| known.usage_key != noted.usage_key);
        self.libraries.truncate(MOST_LIBRARIES);
        self.libraries.insert(0, noted);
    }

    /// True if this task has imported libraries that a warm Python preloads.
    pub fn has_libraries(&self, usage_key: &str) -> bool {
        self.libraries.iter().any(|known| known.usage_key == usage_key)
    }

    /// Asks a keeper to end a try.
    pub fn stop(&self, keeper: &ProcessId, folder: &Path) {
        match self.connected.iter().find(|connection| connection.process == *keeper) {
            Some(connection) => {
                connection.outbox.send(&Request::Stop(folder.to_owned()));
                // If it was stopped.
                keeper.signal(Signal::Continue);
            }
            // It has other tasks too, so only this one is ended.
            None if self.is_shared(keeper) => {
                if let Ok(Some(child)) = TaskFolder::at(folder.to_owned()).child() {
                    process::signal_group(child.pid, Signal::Terminate);
                }
            }
            None => stop_single(keeper),
        }
    }

    /// True for a keeper that runs all tasks of an agent; false for that of an earlier release, which has one task.
    pub fn is_shared(&self, keeper: &ProcessId) -> bool {
        self.is_connected(keeper) || keeper::is_keeper_of(&self.home, keeper)
    }

    /// Disconnects from a keeper, which then exits if nothing runs there.
    pub fn disconnect(&mut self, keeper: &ProcessId) {
        self.connected.retain(|connection| connection.process != *keeper);
    }

    /// Continues stopped keepers (SIGCONT): while stopped, a keeper neither reads output nor enforces time limits. Kills
    /// one that is stopped again and again; its tries fail.
    pub fn continue_stopped(&mut self) {
        rotate(&self.home.logs().join(LOG));
        for Connection { process, stopped, .. } in &mut self.connected {
            if !process.is_alive() || !process::is_stopped(process.pid) {
                *stopped = 0;
                continue;
            }
            *stopped += 1;
            let is_last = *stopped >= MAX_CONTINUES;
            let action = if is_last { "killing it" } else { "continuing it" };
            warn!("the keeper with the pid {} is stopped; {action}", process.pid);
            process.signal(if is_last { Signal::Kill } else { Signal::Continue });
        }
    }

    /// Starts a keeper, which leads its own process group and outlives the agent; returns its index.
    fn start_own(&mut self) -> io::Result<usize> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let log = OpenOptions::new().append(true).create(true).open(self.home.logs().join(LOG))?;
        let is_passed = |name: &str| !OWN_VARIABLES.contains(&name);
        let environment = env_vars::all().into_iter().filter(|(name, _)| name.to_str().is_none_or(is_passed));
        let spawn = Spawn {
            argv0: Some(keeper::PROGRAM_NAME.into()),
            arguments: vec![self.home.root().into()],
            environment: environment.collect(),
            passed: vec![theirs.as_fd()],
            ..Spawn::new(env_vars::running_program())
        };
        let pid = spawn.start(log.as_fd()).map_err(io::Error::other)?;
        // The pid of our child is not reused before we reap it.
        let process = ProcessId::of(pid).ok_or_else(|| io::Error::other("the keeper is not in /proc"))?;
        self.add(process, keeper::split(UnixStream::from_std(ours)?), true);
        let own = self.connected.len() - 1;
        for known in &self.libraries {
            self.connected[own].outbox.send(&Request::Libraries(known.clone()));
        }
        Ok(own)
    }

    fn add(&mut self, process: ProcessId, (inbox, outbox): (Inbox, Outbox), is_own: bool) {
        tokio::task::spawn_local(read(process.clone(), inbox, self.sender.clone()));
        self.connected.push(Connection { process, outbox, is_own, stopped: 0 });
    }
}

/// Moves the content of a large log to `.1`. Keepers have the file open, so it stays the same file.
fn rotate(log: &Path) {
    if fs::metadata(log).is_ok_and(|meta| meta.len() > LOG_LIMIT) {
        let _ = fs::copy(log, log.with_extension("log.1"));
        let _ = OpenOptions::new().write(true).truncate(true).open(log);
    }
}

/// Connects to the keeper that listens at `path`; returns the folders of its tries.
async fn connect(path: &Path) -> io::Result<(Vec<PathBuf>, Inbox, Outbox)> {
    let stream = unix_socket::connect(path)?;
    stream.set_nonblocking(true)?;
    let (mut inbox, outbox) = keeper::split(UnixStream::from_std(stream)?);
    match inbox.receive().await? {
        Some(Event::Running(folders)) => Ok((folders, inbox, outbox)),
        _ => Err(io::ErrorKind::ConnectionRefused.into()),
    }
}

/// Reads the events of a keeper until it has exited.
async fn read(process: ProcessId, mut inbox: Inbox, events: UnboundedSender<KeeperEvent>) {
    loop {
        let event = match inbox.receive().await {
            Ok(Some(Event::Ended(folder))) => KeeperEvent::Ended(process.clone(), folder),
            Ok(Some(Event::Idle)) => KeeperEvent::Idle(process.clone()),
            Ok(Some(Event::Refused(versions))) => KeeperEvent::Refused(versions),
            Ok(Some(Event::Running(_))) => continue,
            Ok(None) => break,
            Err(error) => {
                warn!("the connection to the keeper with the pid {} has failed: {error}", process.pid);
                break;
            }
        };
        // Fails for the keeper of a probe that has ended.
        let _ = events.send(event);
    }
    // The kernel ends the tasks of a killed keeper only after it has closed the connection.
    exit::wait_gone(&process).await;
    // Fails unless it is our child; otherwise its own parent reaps it.
    let exit = reaper::ended_child(process.pid);
    let _ = events.send(KeeperEvent::Gone(process, exit));
}

/// Asks the keeper of an earlier release to end its only task. If it has not exited after `STOP_DEADLINE`, it is killed,
/// and its task with it.
fn stop_single(keeper: &ProcessId) {
    keeper.signal(Signal::Terminate);
    keeper.signal(Signal::Continue);
    let keeper = keeper.clone();
    tokio::task::spawn_local(async move {
        tokio::time::sleep(STOP_DEADLINE).await;
        keeper.signal(Signal::Kill);
    });
}
