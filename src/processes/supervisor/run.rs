//! The supervisor's loop: waits for an event, passes it to the policy and performs the resulting actions.

use super::children::api_socket::ApiSocket;
use super::children::child::{self, Child, ChildResources, Started};
use super::children::logs::OwnLog;
use super::children::record::Record;
use super::control::{ControlMessage, ControlSocket};
use super::instance::SharedProgram;
use super::limits::poll_interval;
use super::policy::{Event, Model, Overall};
use super::state::Action;
use super::stop_signals::{Interrupts, StopSignals};
use super::takeover::change::{ChangeWatch, Trial};
use leoflow_base::home::Home;
use leoflow_base::home::lock::HomeLock;
use leoflow_base::protocol::child::{FAILURE_KEY, HINDERED_KEY, Notifier, SCHEMA_KEY, watchdog_interval};
use leoflow_base::protocol::control::{Answer, Request};
use leoflow_base::sys::net::notify::{Notification, NotifySocket};
use leoflow_base::sys::process::memory;
use leoflow_base::sys::process::replace;
use leoflow_base::sys::process::spawn::SpawnError;
use leoflow_base::sys::process::{self, ProcessId};
use std::ffi::OsString;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tracing::Level;

/// Why an instance ended abnormally.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{process} failed to start: {reason}")]
    Start {
        process: &'static str,
        reason: String,
        /// True when the process runs, but does not belong to this instance.
        unfit: bool,
        /// The process's own error as JSON.
        failure: Option<String>,
        last_lines: Vec<String>,
    },
    /// A stop was requested before everything was up.
    #[error("stopped before startup finished")]
    StoppedEarly,
    /// A second interrupt stopped all processes without waiting.
    #[error("stopped at once")]
    StoppedAtOnce { signal: i32 },
}

/// Events reported by the running supervisor.
pub enum Notice {
    Healthy,
    Trouble(String),
    Recovered,
    /// A process reports why its start takes long.
    Busy(String),
    Stopping,
}

pub struct Supervisor {
    pub(super) home: Home,
    pub(super) children: Vec<Child>,
    pub(super) model: Model,
    pub(super) own_log: OwnLog,
    pub(super) tcp: TcpListener,
    pub(super) api: ApiSocket,
    /// Read end of the lifeline, a pipe that each child inherits.
    pub(super) lifeline: OwnedFd,
    /// Write end of the lifeline. Nothing is written to it: it closes when this process dies, and the children exit.
    pub(super) lifeline_held: OwnedFd,
    pub(super) notify: NotifySocket,
    pub(super) announced: bool,
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) identity: Identity,
    pub(super) schema_version: Option<i64>,
    pub(super) started: Instant,
    pub(super) systemd: Notifier,
    /// Clients that wait for a restart or a level.
    pub(super) waiters: Vec<oneshot::Sender<Answer>>,
    /// The program of migrator, server and agent.
    pub(super) program: SharedProgram,
    /// The descriptors of a candidate server, from level `Trial` until it gets the listeners.
    pub(super) trial: Option<Trial>,
    pub(super) change: ChangeWatch,
    pub(super) has_disk_space: bool,
    /// The pid of a running `leoflow upgrade --resume`.
    pub(super) resume: Option<i32>,
    pub(super) lock: Rc<HomeLock>,
}

/// Constant properties, shown in the status.
pub struct Identity {
    pub version: String,
    pub url: String,
    pub detached: bool,
    pub log_level: Level,
    /// True with `--verbose`, which overrides the configured log level and is passed to a program that takes over.
    pub verbose: bool,
}

/// Poll interval during a change of release, when requests may be waiting.
const CHANGE_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Poll interval of the free disk space while a child is blocked by a full disk.
const DISK_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// A wake-up later than this means that this process was paused, not its children.
const OWN_PAUSE: Duration = Duration::from_secs(3);
/// How long to wait for the remaining output of an exited child.
const OUTPUT_TIMEOUT: Duration = Duration::from_millis(100);

impl Supervisor {
    pub(super) async fn run_to_end(mut self, on_notice: &mut dyn FnMut(Notice)) -> Result<(), SupervisorError> {
        let pid = std::process::id();
        self.own_log.info(format_args!("supervisor {} started, pid {pid}", self.identity.version));
        let outcome = self.run_loop(on_notice).await;
        self.clean_up(&outcome);
        outcome
    }

    async fn run_loop(&mut self, on_notice: &mut dyn FnMut(Notice)) -> Result<(), SupervisorError> {
        let mut child_ended = signal(SignalKind::child())?;
        let mut signals = StopSignals::new()?;
        let (message_sender, mut messages) = mpsc::channel(16);
        let (events, mut event_receiver) = mpsc::unbounded_channel();
        self.events = events;
        // Delivers the signals that arrived during the exec.
        replace::unblock_signals();
        let mut control = ControlSocket::open(&self.home, message_sender)?;
        let mut poll = tokio::time::interval(poll_interval());
        let mut polls = 0_u64;
        let mut interrupts = Interrupts::default();
        let mut last_overall = Overall::Starting;
        self.reap();
        self.feed(Event::Tick);
        loop {
            let overall = self.model.overall();
            self.report_change(last_overall, overall, on_notice);
            last_overall = overall;
            self.answer_waiters();
            if overall == Overall::Stopped {
                self.finish_logs().await;
                return self.outcome(interrupts.immediate_stop);
            }
            let deadline = self.model.next_deadline();
            let wake = deadline.map(tokio::time::Instant::from_std);
            let next_poll = Instant::now() + poll_interval();
            let expected = deadline.unwrap_or(next_poll).min(next_poll);
            let event = tokio::select! {
                _ = child_ended.recv() => None,
                stop = signals.next() => {
                    let (event, is_repeated) = interrupts.stop_event(stop);
                    self.own_log.info(format_args!("signal {stop}{}", if is_repeated { ", again" } else { "" }));
                    Some(event)
                }
                notification = self.notify.receive() => {
                    // An error must not stop the instance; the children are also monitored by other means.
                    if let Ok(notification) = notification { self.handle_notification(notification); }
                    None
                }
                event = event_receiver.recv() => event,
                message = messages.recv() => {
                    match message {
                        Some(ControlMessage::Request { request, peer, answer }) => self.answer(request, peer, answer),
                        Some(ControlMessage::Disconnected) => self.check_change(),
                        None => {}
                    }
                    None
                }
                _ = poll.tick() => {
                    polls += 1;
                    // The start is over, so the memory that it used can be freed.
                    if polls == 2 {
                        memory::release_memory();
                    }
                    self.poll(&mut control)
                }
                () = tokio::time::sleep(DISK_POLL_INTERVAL), if self.model.blocked().is_some() => self.check_disk_space(),
                () = tokio::time::sleep(CHANGE_POLL_INTERVAL), if self.change.under_way => {
                    self.check_change();
                    None
                }
                () = sleep_until(wake) => None,
            };
            self.forgive_own_pause(expected);
            if let Some(event) = event {
                self.report_busy(&event, on_notice);
                self.feed(event);
            }
            // Pending notifications are processed before deadlines are checked.
            while let Some(notification) = self.notify.try_receive() {
                self.handle_notification(notification);
            }
            self.reap();
            self.feed(Event::Tick);
        }
    }

    /// Checks conditions that send no notification: a removed home or socket, a hung child, a change of release.
    fn poll(&mut self, control: &mut ControlSocket) -> Option<Event> {
        if self.home_is_gone() {
            // Returns before anything is recreated in a removed home.
            return Some(Event::StopNow);
        }
        control.ensure();
        self.notify.ensure();
        if self.api.ensure(&self.home) {
            // The server has the old listener; the next server gets the new one.
            self.terminate("server");
        }
        self.probe_running();
        self.check_change();
        None
    }

    pub(super) fn feed(&mut self, event: Event) {
        let mut event_queue = std::collections::VecDeque::from([event]);
        while let Some(event) = event_queue.pop_front() {
            for action in self.model.step(event, Instant::now()) {
                match action {
                    Action::Spawn(index) => event_queue.push_back(self.spawn(index)),
                    Action::Signal { pid, signal } => {
                        self.own_log.info(format_args!("{signal:?} to {pid}"));
                        process::signal_group(pid, signal);
                        // A stopped process acts on no signal but KILL until it continues.
                        process::signal_group(pid, process::Signal::Continue);
                    }
                }
            }
        }
    }

    /// Starts a child and returns `Spawned` or `SpawnFailed`.
    fn spawn(&mut self, index: usize) -> Event {
        let name = self.children[index].spec.plan.name;
        let launch = (self.children[index].spec.launch)().map_err(|reason| SpawnFailure { reason, is_final: false });
        let started = launch.and_then(|launch| {
            let resources = ChildResources {
                listeners: self.listeners(),
                arguments: self.trial_arguments(),
                lifeline: &self.lifeline,
                notify_address: self.notify.address().into(),
            };
            let started = child::start(launch, &resources, &self.children[index].log);
            started.map_err(|error| SpawnFailure {
                is_final: matches!(error, SpawnError::UserNamespace(_)),
                reason: error.to_string(),
            })
        });
        match started {
            Ok(Started { pid, output, copy_task }) => {
                self.children[index].copy_task = Some(copy_task);
                self.children[index].output = Some(output);
                self.own_log.info(format_args!("{name} started, pid {pid}"));
                self.probe_until_ready(index, pid);
                self.record(index, pid);
                Event::Spawned { index, pid }
            }
            Err(SpawnFailure { reason, is_final }) => {
                self.own_log.warn(format_args!("failed to start {name}: {reason}"));
                Event::SpawnFailed { index, reason, is_final }
            }
        }
    }

    fn listeners(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let listeners = [("http", self.tcp.as_fd()), ("api", self.api.listener.as_fd())];
        listeners.into_iter().chain(self.trial.iter().flat_map(Trial::descriptors)).collect()
    }

    /// The additional arguments of a candidate server.
    fn trial_arguments(&self) -> Vec<OsString> {
        match self.trial {
            Some(_) => vec!["--private-socket".into(), self.home.trial_socket().into()],
            None => Vec::new(),
        }
    }

    /// Records all running children; the one at `index` has just started as `pid`.
    fn record(&self, index: usize, pid: i32) {
        let entry = |(child_index, child): (usize, &Child)| {
            let pid = if child_index == index { Some(pid) } else { self.model.pid_of(child_index) };
            Some((child.spec.plan.name.to_owned(), ProcessId::of(pid?)?))
        };
        let children = self.children.iter().enumerate().filter_map(entry).collect();
        // Without the record the next start only takes longer to find leftovers.
        let _ = Record { children }.write(&self.home);
    }

    pub(super) fn index_of(&self, pid: i32) -> Option<usize> {
        (0..self.children.len()).find(|index| self.model.pid_of(*index) == Some(pid))
    }

    /// Waits for the last output of exited children, which may still be in the pipes.
    async fn finish_logs(&mut self) {
        for copy_task in self.children.iter_mut().filter_map(|child| child.copy_task.take()) {
            // A grandchild may hold the pipe open forever.
            let _ = tokio::time::timeout(OUTPUT_TIMEOUT, copy_task).await;
        }
    }

    fn terminate(&mut self, name: &str) {
        let index = self.children.iter().position(|child| child.spec.plan.name == name);
        if let Some(pid) = index.and_then(|index| self.model.pid_of(index)) {
            process::signal_group(pid, process::Signal::Terminate);
        }
    }

    /// Handles a notification; the kernel supplies the sender's pid.
    pub(super) fn handle_notification(&mut self, Notification { pid, text }: Notification) {
        for line in text.lines() {
            let Some((key, value)) = line.split_once('=') else { continue };
            match key {
                "READY" if value == "1" => self.feed(Event::Ready { pid }),
                "WATCHDOG" if value == "1" => self.feed(Event::Alive { pid }),
                "STATUS" => self.feed(Event::Detail { pid, text: value.to_owned() }),
                HINDERED_KEY => self.feed(Event::Impaired { pid, reason: value.to_owned() }),
                FAILURE_KEY => self.feed(Event::Failure { pid, json: value.to_owned() }),
                SCHEMA_KEY if self.index_of(pid).is_some() => self.schema_version = value.parse().ok(),
                _ => {}
            }
        }
    }

    /// Extends all deadlines if this process woke up long after `expected`, because it was paused.
    fn forgive_own_pause(&mut self, expected: Instant) {
        let late = Instant::now().saturating_duration_since(expected);
        if late > OWN_PAUSE {
            self.own_log.warn(format_args!("this process was paused for {} s", late.as_secs()));
            self.model.forgive(late + watchdog_interval());
        }
    }

    fn answer(&mut self, request: Request, peer: i32, answer: oneshot::Sender<Answer>) {
        let reply = match request {
            Request::Status => Answer::Status(Box::new(self.status())),
            Request::Stop => {
                self.own_log.info("stop requested");
                self.feed(Event::Stop);
                Answer::Accepted
            }
            Request::Run { level, program, limit_ms } => {
                return self.set_level(level, program, limit_ms.map(Duration::from_millis), peer, answer);
            }
            Request::Become { program } => return self.become_program(&program, answer),
            Request::Restart => {
                self.own_log.info("restart requested");
                self.api.ensure(&self.home);
                self.notify.ensure();
                self.feed(Event::Restart);
                self.waiters.push(answer);
                return;
            }
        };
        // The client may have disconnected.
        let _ = answer.send(reply);
    }

    fn home_is_gone(&mut self) -> bool {
        let is_gone = !self.lock.is_in_place(&self.home);
        if is_gone {
            self.own_log.warn("the home was removed: stopping everything");
        }
        is_gone
    }

    fn clean_up(&mut self, outcome: &Result<(), SupervisorError>) {
        match outcome {
            Ok(()) => self.own_log.info("stopped"),
            Err(error) => self.own_log.error(format_args!("stopped: {error}")),
        }
        for path in [
            self.home.control_socket(),
            self.home.api_socket(),
            self.home.notify_socket(),
            self.home.processes(),
            self.home.trial_socket(),
        ] {
            // A socket file without a listener is harmless.
            let _ = leoflow_base::sys::fs::files::remove_any(&path);
        }
    }
}

/// Why starting a child failed; `is_final` when a retry cannot help.
struct SpawnFailure {
    reason: String,
    is_final: bool,
}

async fn sleep_until(wake: Option<tokio::time::Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}
