//! The loop that acts: it waits for something to happen, tells the policy, and does what it says.

use super::api_socket::ApiSocket;
use super::change::{Trial, Watched};
use super::child::{self, Child, Given, Started};
use super::control::{Asked, ControlSocket};
use super::instance::SharedProgram;
use super::limits::round_pause;
use super::logs::OwnLog;
use super::policy::{Event, Model, Overall};
use super::record::Record;
use super::state::Action;
use super::stop_signals::{Patience, StopSignals};
use crate::home::Home;
use crate::home::lock::HomeLock;
use crate::protocol::child::{FAILURE_KEY, HINDERED_KEY, Notifier, SCHEMA_KEY, watchdog_interval};
use crate::protocol::control::{Answer, Request};
use crate::sys::memory;
use crate::sys::notify::{Notification, NotifySocket};
use crate::sys::process::{self, ProcessId};
use crate::sys::replace;
use crate::sys::spawn::SpawnError;
use std::ffi::OsString;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tracing::Level;

/// How the instance ended without having got up.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{process} does not start: {reason}")]
    Start {
        process: &'static str,
        reason: String,
        /// It runs, but is not what belongs here.
        unfit: bool,
        /// What the process itself said, for whoever understands it.
        failure: Option<String>,
        last_lines: Vec<String>,
    },
    /// Asked to stop before everything was up.
    #[error("stopped before everything was up")]
    StoppedEarly,
    /// A second interrupt: nothing was waited for.
    #[error("stopped at once")]
    StoppedAtOnce { signal: i32 },
}

/// What the supervisor tells while it runs.
pub enum Notice {
    Healthy,
    /// A process ended; it will be restarted, or not any more.
    Trouble(String),
    Recovered,
    /// A process has something to say about why it takes so long.
    Busy(String),
    Stopping,
}

pub struct Supervisor {
    pub(super) home: Home,
    /// In the order in which they start.
    pub(super) children: Vec<Child>,
    pub(super) model: Model,
    pub(super) own_log: OwnLog,
    pub(super) tcp: TcpListener,
    pub(super) api: ApiSocket,
    pub(super) lifeline: OwnedFd,
    /// Never written to: its closing, by our death, is the message.
    pub(super) lifeline_held: OwnedFd,
    pub(super) notify: NotifySocket,
    pub(super) announced: bool,
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) identity: Identity,
    pub(super) schema_version: Option<i64>,
    pub(super) started: Instant,
    pub(super) systemd: Notifier,
    /// Those who asked for a restart or a level.
    pub(super) waiters: Vec<oneshot::Sender<Answer>>,
    /// The program that our own children are started from.
    pub(super) program: SharedProgram,
    pub(super) trial: Option<Trial>,
    pub(super) change: Watched,
    /// Whether there was room on the disk at the last look.
    pub(super) has_room: bool,
    /// The one that takes an upgrade up again.
    pub(super) resume: Option<i32>,
    pub(super) lock: Rc<HomeLock>,
}

/// What does not change while it runs, for the status.
pub struct Identity {
    pub version: String,
    pub url: String,
    pub detached: bool,
    pub log_level: Level,
    /// Whether that is for this start, whatever is configured; a program that takes over goes on with it.
    pub verbose: bool,
}

/// The same while a change of release is under way, of which something may wait.
const CHANGE_ROUND: Duration = Duration::from_secs(1);
/// How often it is looked at while something does not run for want of it.
const ROOM_ROUND: Duration = Duration::from_secs(1);
/// A wake-up later than this is our own pause, not theirs.
const OWN_PAUSE: Duration = Duration::from_secs(3);
/// How long the output of a child that has ended is waited for.
const LAST_WORDS: Duration = Duration::from_millis(100);

impl Supervisor {
    pub(super) async fn until_the_end(mut self, told: &mut dyn FnMut(Notice)) -> Result<(), SupervisorError> {
        let pid = std::process::id();
        self.own_log.info(format_args!("supervisor {} started, pid {pid}", self.identity.version));
        let ended = self.turn(told).await;
        self.leave(&ended);
        ended
    }

    async fn turn(&mut self, told: &mut dyn FnMut(Notice)) -> Result<(), SupervisorError> {
        let mut child_ended = signal(SignalKind::child())?;
        let mut signals = StopSignals::new()?;
        let (ask, mut asked) = mpsc::channel(16);
        let (events, mut happened) = mpsc::unbounded_channel();
        self.events = events;
        // What had come for the program before us came while it could not be handled.
        replace::let_signals_through();
        let mut control = ControlSocket::open(&self.home, ask)?;
        let mut round = tokio::time::interval(round_pause());
        let mut rounds = 0_u64;
        let mut patience = Patience::default();
        let mut was = Overall::Starting;
        self.reap();
        self.feed(Event::Tick);
        loop {
            let now_is = self.model.overall();
            self.tell_change(was, now_is, told);
            was = now_is;
            self.answer_waiters();
            if now_is == Overall::Stopped {
                self.finish_logs().await;
                return self.outcome(patience.ended_by);
            }
            let deadline = self.model.next_deadline();
            let wake = deadline.map(tokio::time::Instant::from_std);
            let next_round = Instant::now() + round_pause();
            let expected = deadline.unwrap_or(next_round).min(next_round);
            let event = tokio::select! {
                _ = child_ended.recv() => None,
                stop = signals.next() => {
                    let (event, again) = patience.told(stop);
                    self.own_log.info(format_args!("signal {stop}{}", if again { ", again" } else { "" }));
                    Some(event)
                }
                notification = self.notify.receive() => {
                    // An error here must not be the end of everything; the children are watched by other means too.
                    if let Ok(notification) = notification { self.heard(notification); }
                    None
                }
                event = happened.recv() => event,
                request = asked.recv() => {
                    match request {
                        Some(Asked::Request { request, peer, answer }) => self.answer(request, peer, answer),
                        Some(Asked::Left) => self.look_after_change(),
                        None => {}
                    }
                    None
                }
                _ = round.tick() => {
                    rounds += 1;
                    // What a start needs is done.
                    if rounds == 2 {
                        memory::rest();
                    }
                    self.look_around(&mut control)
                }
                () = tokio::time::sleep(ROOM_ROUND), if self.model.blocked().is_some() => self.room_again(),
                () = tokio::time::sleep(CHANGE_ROUND), if self.change.under_way => {
                    self.look_after_change();
                    None
                }
                () = sleep_until(wake) => None,
            };
            self.forgive_own_pause(expected);
            if let Some(event) = event {
                self.note_busy(&event, told);
                self.feed(event);
            }
            // What is already there counts before any clock does.
            while let Some(notification) = self.notify.try_receive() {
                self.heard(notification);
            }
            self.reap();
            self.feed(Event::Tick);
        }
    }

    /// What nobody tells of: that the home or a socket in it is gone, that a child hangs, how a change of release goes.
    fn look_around(&mut self, control: &mut ControlSocket) -> Option<Event> {
        if self.home_is_gone() {
            // Before anything is made anew in what somebody has removed.
            return Some(Event::StopNow);
        }
        control.ensure();
        self.notify.ensure();
        if self.api.ensure(&self.home) {
            // The server has the old listener; the next one gets the new.
            self.replace("server");
        }
        self.probe_running();
        self.look_after_change();
        None
    }

    /// Tells the policy and does what it says.
    pub(super) fn feed(&mut self, event: Event) {
        let mut todo = std::collections::VecDeque::from([event]);
        while let Some(event) = todo.pop_front() {
            for action in self.model.step(event, Instant::now()) {
                match action {
                    Action::Spawn(index) => todo.push_back(self.spawn(index)),
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

    fn spawn(&mut self, index: usize) -> Event {
        let name = self.children[index].spec.plan.name;
        let launch = (self.children[index].spec.launch)().map_err(|reason| Refused { reason, is_final: false });
        let started = launch.and_then(|launch| {
            let given = Given {
                listeners: self.listeners(),
                arguments: self.trial_arguments(),
                lifeline: &self.lifeline,
                notify_address: self.notify.address().into(),
            };
            let started = child::start(launch, &given, &self.children[index].log);
            started.map_err(|error| Refused {
                is_final: matches!(error, SpawnError::UserNamespace(_)),
                reason: error.to_string(),
            })
        });
        match started {
            Ok(Started { pid, output, copying }) => {
                self.children[index].copying = Some(copying);
                self.children[index].output = Some(output);
                self.own_log.info(format_args!("{name} started, pid {pid}"));
                self.probe_until_ready(index, pid);
                self.record(index, pid);
                Event::Spawned { index, pid }
            }
            Err(Refused { reason, is_final }) => {
                self.own_log.warn(format_args!("{name} cannot be started: {reason}"));
                Event::SpawnFailed { index, reason, is_final }
            }
        }
    }

    fn listeners(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let ours = [("http", self.tcp.as_fd()), ("api", self.api.listener.as_fd())];
        ours.into_iter().chain(self.trial.iter().flat_map(Trial::descriptors)).collect()
    }

    fn trial_arguments(&self) -> Vec<OsString> {
        match self.trial {
            Some(_) => vec!["--private-socket".into(), self.home.trial_socket().into()],
            None => Vec::new(),
        }
    }

    fn record(&self, index: usize, pid: i32) {
        let named = |(at, child): (usize, &Child)| {
            let pid = if at == index { Some(pid) } else { self.model.pid_of(at) };
            Some((child.spec.plan.name.to_owned(), ProcessId::of(pid?)?))
        };
        let children = self.children.iter().enumerate().filter_map(named).collect();
        // Without it the next start only takes longer to find out by itself.
        let _ = Record { children }.write(&self.home);
    }

    pub(super) fn index_of(&self, pid: i32) -> Option<usize> {
        (0..self.children.len()).find(|index| self.model.pid_of(*index) == Some(pid))
    }

    /// What an ended child printed last may still be in its pipe.
    async fn finish_logs(&mut self) {
        for copying in self.children.iter_mut().filter_map(|child| child.copying.take()) {
            // A grandchild may hold the pipe open for ever.
            let _ = tokio::time::timeout(LAST_WORDS, copying).await;
        }
    }

    /// Ends a child, which the policy then starts again.
    fn replace(&mut self, name: &str) {
        let index = self.children.iter().position(|child| child.spec.plan.name == name);
        if let Some(pid) = index.and_then(|index| self.model.pid_of(index)) {
            process::signal_group(pid, process::Signal::Terminate);
        }
    }

    /// A datagram, from a process that the kernel names.
    pub(super) fn heard(&mut self, Notification { pid, text }: Notification) {
        for line in text.lines() {
            let Some((key, value)) = line.split_once('=') else { continue };
            match key {
                "READY" if value == "1" => self.feed(Event::Ready { pid }),
                "WATCHDOG" if value == "1" => self.feed(Event::Alive { pid }),
                "STATUS" => self.feed(Event::Detail { pid, text: value.to_owned() }),
                HINDERED_KEY => self.feed(Event::Hindered { pid, reason: value.to_owned() }),
                FAILURE_KEY => self.feed(Event::Failure { pid, json: value.to_owned() }),
                SCHEMA_KEY if self.index_of(pid).is_some() => self.schema_version = value.parse().ok(),
                _ => {}
            }
        }
    }

    fn forgive_own_pause(&mut self, expected: Instant) {
        let late = Instant::now().saturating_duration_since(expected);
        if late > OWN_PAUSE {
            self.own_log.warn(format_args!("did not run for {} s", late.as_secs()));
            self.model.forgive(late + watchdog_interval());
        }
    }

    fn answer(&mut self, request: Request, peer: i32, answer: oneshot::Sender<Answer>) {
        let reply = match request {
            Request::Status => Answer::Status(Box::new(self.status())),
            Request::Stop => {
                self.own_log.info("asked to stop");
                self.feed(Event::Stop);
                Answer::Accepted
            }
            Request::Run { level, program, limit_ms } => {
                return self.set_level(level, program, limit_ms.map(Duration::from_millis), peer, answer);
            }
            Request::Become { program } => return self.become_program(&program, answer),
            Request::Restart => {
                self.own_log.info("asked to restart");
                self.api.ensure(&self.home);
                self.notify.ensure();
                self.feed(Event::Restart);
                self.waiters.push(answer);
                return;
            }
        };
        // Whoever asked may have left.
        let _ = answer.send(reply);
    }

    /// Somebody has removed it, or put another in its place: what we hold is nobody's.
    fn home_is_gone(&mut self) -> bool {
        let is_gone = !self.lock.is_in_place(&self.home);
        if is_gone {
            self.own_log.warn("the home is gone: everything ends");
        }
        is_gone
    }

    fn leave(&mut self, ended: &Result<(), SupervisorError>) {
        match ended {
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
            // A socket without a listener says the same as none.
            let _ = crate::sys::files::remove_any(&path);
        }
    }
}

/// Why a child could not be started, and whether trying again could help.
struct Refused {
    reason: String,
    is_final: bool,
}

async fn sleep_until(wake: Option<tokio::time::Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}
