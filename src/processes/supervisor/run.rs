//! The supervisor's loop: waits for an event, passes it to the policy and performs the resulting actions.

use super::children::child::SupervisedChild;
use super::children::dag_file_processes;
use super::children::logs::OwnLog;
use super::control::{ControlMessage, ControlSocket};
use super::own_pause::OwnPause;
use super::policy::{ChildEvent, Event, Model, Overall};
use super::state::Action;
use super::stop_signals::{Interrupts, StopSignals};
use super::takeover::resources::{ReleaseChange, Resources};
use leoflow_base::home::Home;
use leoflow_base::protocol::child::{FAILURE_KEY, HINDERED_KEY, Notifier, SCHEMA_KEY, watchdog_interval};
use leoflow_base::protocol::control::{Answer, Request};
use leoflow_base::sys::net::sd_notify::{Notification, NotifySocket};
use leoflow_base::sys::process;
use leoflow_base::sys::process::memory;
use leoflow_base::sys::process::replace;
use std::io;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::sync::oneshot;
use tokio::time::Interval;
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
        /// True when another start cannot help: the process does not belong to this instance, or the external server
        /// behind the relay does not answer.
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
    pub(super) children: Vec<SupervisedChild>,
    pub(super) model: Model,
    pub(super) own_log: OwnLog,
    pub(super) resources: Resources,
    pub(super) notify: NotifySocket,
    pub(super) announced: bool,
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) identity: Identity,
    pub(super) schema_version: Option<i64>,
    pub(super) started: Instant,
    pub(super) systemd: Notifier,
    /// Clients that wait for a restart or a level.
    pub(super) waiters: Vec<oneshot::Sender<Answer>>,
    pub(super) change: ReleaseChange,
    pub(super) has_disk_space: bool,
    pub(super) own_pause: OwnPause,
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

/// Poll interval for conditions that send no notification.
fn poll_interval() -> Duration {
    leoflow_base::sys::limit("LEOFLOW_ROUND", Duration::from_secs(10))
}
/// Poll interval during a change of release, when requests may be waiting.
const CHANGE_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Poll interval of the free disk space while a child is blocked by a full disk.
const DISK_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How long to wait for the remaining output of an exited child.
const OUTPUT_TIMEOUT: Duration = Duration::from_millis(100);

impl Supervisor {
    pub(super) async fn run_to_end(
        mut self,
        events: UnboundedReceiver<Event>,
        on_notice: &mut dyn FnMut(Notice),
    ) -> Result<(), SupervisorError> {
        let pid = std::process::id();
        self.own_log.info(format_args!("supervisor {} started, pid {pid}", self.identity.version));
        let outcome = self.run_loop(events, on_notice).await;
        dag_file_processes::end_all();
        self.clean_up(&outcome);
        outcome
    }

    async fn run_loop(
        &mut self,
        events: UnboundedReceiver<Event>,
        on_notice: &mut dyn FnMut(Notice),
    ) -> Result<(), SupervisorError> {
        let mut sources = Sources::open(&self.home, events)?;
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
                return self.outcome(sources.interrupts.immediate_stop);
            }
            let deadline = self.model.next_deadline();
            let next_poll = Instant::now() + poll_interval();
            self.own_pause.wait_until(deadline.unwrap_or(next_poll).min(next_poll));
            let event = self.next_event(&mut sources, deadline).await;
            if let Some(event) = event {
                self.report_busy(&event, on_notice);
                self.feed(event);
            }
            self.handle_pending_notifications();
            self.reap();
            self.feed(Event::Tick);
        }
    }

    /// Waits until something happens; handles it, or returns it for the policy.
    async fn next_event(&mut self, sources: &mut Sources, deadline: Option<Instant>) -> Option<Event> {
        let deadline = deadline.map(tokio::time::Instant::from_std);
        tokio::select! {
            _ = sources.child_ended.recv() => None,
            stop = sources.signals.next() => {
                let (event, is_repeated) = sources.interrupts.stop_event(stop);
                self.own_log.info(format_args!("signal {stop}{}", if is_repeated { ", again" } else { "" }));
                Some(event)
            }
            notification = self.notify.receive() => {
                // An error must not stop the instance; the children are also monitored by other means.
                if let Ok(notification) = notification { self.handle_notification(notification); }
                None
            }
            event = sources.events.recv() => event,
            message = sources.messages.recv() => {
                match message {
                    Some(ControlMessage::Request { request, peer, answer }) => self.answer(request, peer, answer),
                    Some(ControlMessage::Disconnected) => self.check_change(),
                    None => {}
                }
                None
            }
            _ = sources.poll.tick() => {
                sources.release_start_memory();
                self.poll(&mut sources.control)
            }
            () = tokio::time::sleep(DISK_POLL_INTERVAL), if self.model.blocked().is_some() => self.check_disk_space(),
            () = tokio::time::sleep(CHANGE_POLL_INTERVAL), if self.change.watch.is_some() => {
                self.check_change();
                None
            }
            () = sleep_until(deadline) => None,
        }
    }

    /// Processes all pending notifications. The loop calls this before it checks deadlines.
    pub(super) fn handle_pending_notifications(&mut self) {
        while let Some(notification) = self.notify.try_receive() {
            self.handle_notification(notification);
        }
    }

    /// Checks conditions that send no notification: a removed home or socket, a hung child, a change of release.
    fn poll(&mut self, control: &mut ControlSocket) -> Option<Event> {
        if !self.resources.lock.is_in_place(&self.home) {
            self.own_log.warn("the home was removed: stopping everything");
            // Returns before anything is recreated in a removed home.
            return Some(Event::StopNow);
        }
        control.ensure();
        self.notify.ensure();
        if self.resources.api.ensure(&self.home) {
            // The server has the old listener; the next server gets the new one.
            let server = self.children.iter().position(|child| child.spec.plan.name == "server");
            if let Some(pid) = server.and_then(|index| self.model.pid_of(index)) {
                process::signal_group(pid, process::Signal::Terminate);
            }
        }
        self.probe_running();
        self.check_change();
        None
    }

    pub(super) fn feed(&mut self, event: Event) {
        let mut event_queue = std::collections::VecDeque::from([event]);
        while let Some(event) = event_queue.pop_front() {
            let now = self.now();
            for action in self.model.step(event, now) {
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

    pub(super) fn index_of(&self, pid: i32) -> Option<usize> {
        (0..self.children.len()).find(|index| self.model.pid_of(*index) == Some(pid))
    }

    /// Waits for the last output of exited children, which may still be in the pipes.
    async fn finish_logs(&mut self) {
        for process in self.children.iter_mut().filter_map(|child| child.process.take()) {
            // A grandchild may hold the pipe open forever.
            let _ = tokio::time::timeout(OUTPUT_TIMEOUT, process.copy_task).await;
        }
    }

    /// Handles a notification; the kernel supplies the sender's pid.
    pub(super) fn handle_notification(&mut self, Notification { pid, text }: Notification) {
        for line in text.lines() {
            let Some((key, value)) = line.split_once('=') else { continue };
            match key {
                "READY" if value == "1" => self.feed(Event::Child(pid, ChildEvent::Ready)),
                "WATCHDOG" if value == "1" => self.feed(Event::Child(pid, ChildEvent::Alive)),
                "STATUS" => self.feed(Event::Child(pid, ChildEvent::Detail(value.to_owned()))),
                HINDERED_KEY => self.feed(Event::Child(pid, ChildEvent::Impaired(value.to_owned()))),
                FAILURE_KEY => self.feed(Event::Child(pid, ChildEvent::Failure(value.to_owned()))),
                SCHEMA_KEY if self.index_of(pid).is_some() => self.schema_version = value.parse().ok(),
                _ => {}
            }
        }
    }

    /// Returns the time for a step, after extending all deadlines if this process was paused before.
    fn now(&mut self) -> Instant {
        let now = Instant::now();
        if let Some(pause) = self.own_pause.ended(now) {
            self.own_log.warn(format_args!("this process was paused for {} s", pause.as_secs()));
            self.model.extend_deadlines(pause + watchdog_interval());
        }
        now
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
                self.resources.api.ensure(&self.home);
                self.notify.ensure();
                self.feed(Event::Restart);
                self.waiters.push(answer);
                return;
            }
        };
        // The client may have disconnected.
        let _ = answer.send(reply);
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

/// The event sources of the loop, besides the notifications of the children.
struct Sources {
    child_ended: Signal,
    signals: StopSignals,
    interrupts: Interrupts,
    /// Events of probes.
    events: UnboundedReceiver<Event>,
    messages: mpsc::Receiver<ControlMessage>,
    control: ControlSocket,
    poll: Interval,
    polls: u64,
}

impl Sources {
    fn open(home: &Home, events: UnboundedReceiver<Event>) -> io::Result<Self> {
        let child_ended = signal(SignalKind::child())?;
        let signals = StopSignals::new()?;
        let (message_sender, messages) = mpsc::channel(16);
        // Delivers the signals that arrived during the exec.
        replace::unblock_signals();
        Ok(Self {
            child_ended,
            signals,
            interrupts: Interrupts::default(),
            events,
            messages,
            control: ControlSocket::open(home, message_sender)?,
            poll: tokio::time::interval(poll_interval()),
            polls: 0,
        })
    }

    /// Counts a poll. At the second poll the start is over, so the memory that the start has used is freed.
    fn release_start_memory(&mut self) {
        self.polls += 1;
        if self.polls == 2 {
            memory::release_memory();
        }
    }
}

async fn sleep_until(wake: Option<tokio::time::Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}
