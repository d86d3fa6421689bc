//! The loop that acts: it waits for something to happen, tells the policy, and does what it says.

use super::api_socket::ApiSocket;
use super::child::{self, Given};
use super::control::{Asked, ControlSocket};
use super::logs::LogFile;
use super::policy::{Event, Model, Overall};
use super::record::Record;
use super::spec::Spec;
use super::state::Action;
use super::stop_signals::StopSignals;
use crate::home::Home;
use crate::protocol::child::{FAILURE_KEY, Notifier, SCHEMA_KEY, WATCHDOG_INTERVAL};
use crate::protocol::control::{Answer, Request};
use crate::sys::notify::{Notification, NotifySocket};
use crate::sys::process::{self, ProcessId};
use crate::sys::spawn::SpawnError;
use crate::sys::{listener, reaper};
use std::cell::RefCell;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinHandle};

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
    pub(super) specs: Vec<Spec>,
    pub(super) model: Model,
    pub(super) logs: Vec<Rc<RefCell<LogFile>>>,
    pub(super) own_log: LogFile,
    tcp: TcpListener,
    api: ApiSocket,
    lifeline: OwnedFd,
    /// Never written to: its closing, by our death, is the message.
    _lifeline_held: OwnedFd,
    notify: NotifySocket,
    pub(super) probes: Vec<Option<AbortHandle>>,
    /// What copies each child's output into its log.
    copying: Vec<Option<JoinHandle<()>>>,
    pub(super) announced: bool,
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) identity: Identity,
    pub(super) schema_version: Option<i64>,
    pub(super) started: Instant,
    pub(super) systemd: Notifier,
    pub(super) restart_waiters: Vec<oneshot::Sender<Answer>>,
}

/// What does not change while it runs, for the status.
pub struct Identity {
    pub version: String,
    pub url: String,
    pub detached: bool,
}

/// How often what cannot notify is looked at.
const ROUND: Duration = Duration::from_secs(10);
/// A wake-up later than this is our own pause, not theirs.
const OWN_PAUSE: Duration = Duration::from_secs(3);
/// How long the output of a child that has ended is waited for.
const LAST_WORDS: Duration = Duration::from_millis(100);

impl Supervisor {
    /// Runs the instance until it is stopped. Must be called on the main thread (the kernel ties
    /// Postgres's end to this thread), inside a current-thread runtime and a `LocalSet`.
    pub async fn run(
        home: &Home,
        specs: Vec<Spec>,
        tcp: TcpListener,
        identity: Identity,
        told: &mut dyn FnMut(Notice),
    ) -> Result<(), SupervisorError> {
        process::become_subreaper()?;
        let api = ApiSocket::open(home)?;
        let (lifeline, held) = listener::pipe()?;
        listener::set_nonblocking(&lifeline)?;
        let (events, happened) = mpsc::unbounded_channel();
        let mut supervisor = Self {
            model: Model::new(specs.iter().map(|spec| spec.plan.clone()).collect()),
            logs: specs.iter().map(|spec| Rc::new(RefCell::new(LogFile::new(home, spec.plan.name)))).collect(),
            own_log: LogFile::new(home, "supervisor"),
            probes: specs.iter().map(|_| None).collect(),
            copying: specs.iter().map(|_| None).collect(),
            announced: false,
            home: home.clone(),
            specs,
            tcp,
            api,
            lifeline,
            _lifeline_held: held,
            notify: NotifySocket::bind(&home.notify_socket())?,
            events,
            identity,
            schema_version: None,
            started: Instant::now(),
            systemd: Notifier::from_environment(),
            restart_waiters: Vec::new(),
        };
        supervisor.own_log.line(&format!(
            "supervisor {} started, pid {}",
            supervisor.identity.version,
            std::process::id()
        ));
        let ended = supervisor.turn(happened, told).await;
        supervisor.leave(&ended);
        ended
    }

    async fn turn(
        &mut self,
        mut happened: mpsc::UnboundedReceiver<Event>,
        told: &mut dyn FnMut(Notice),
    ) -> Result<(), SupervisorError> {
        let mut child_ended = signal(SignalKind::child())?;
        let mut signals = StopSignals::new()?;
        let (ask, mut asked) = mpsc::channel(16);
        let mut control = ControlSocket::open(&self.home, ask)?;
        let mut round = tokio::time::interval(ROUND);
        let mut impatient = None;
        let interrupted = SignalKind::interrupt().as_raw_value();
        let mut was_interrupted = false;
        let mut was = Overall::Starting;
        self.feed(Event::Tick);
        loop {
            let now_is = self.model.overall();
            self.tell_change(was, now_is, told);
            was = now_is;
            if now_is == Overall::Stopped {
                self.finish_logs().await;
                return self.outcome(impatient);
            }
            let deadline = self.model.next_deadline();
            let wake = deadline.map(tokio::time::Instant::from_std);
            let expected = deadline.unwrap_or_else(|| Instant::now() + ROUND).min(Instant::now() + ROUND);
            let event = tokio::select! {
                _ = child_ended.recv() => None,
                stop = signals.next() => {
                    // A terminal that closes sends HUP more than once; impatience is Ctrl-C, twice.
                    let again = stop == interrupted && std::mem::replace(&mut was_interrupted, stop == interrupted);
                    self.own_log.line(&format!("signal {stop}{}", if again { ", again" } else { "" }));
                    if again { impatient = Some(stop); Some(Event::StopNow) } else { Some(Event::Stop) }
                }
                notification = self.notify.receive() => {
                    // An error here must not be the end of everything; the children are watched by other means too.
                    if let Ok(notification) = notification { self.heard(notification); }
                    None
                }
                event = happened.recv() => event,
                request = asked.recv() => { if let Some(request) = request { self.answer(request); } None }
                _ = round.tick() => {
                    control.ensure();
                    self.notify.ensure();
                    if self.api.ensure(&self.home) {
                        // The server has the old listener; the next one gets the new.
                        self.replace("server");
                    }
                    self.probe_running();
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

    /// Tells the policy and does what it says.
    fn feed(&mut self, event: Event) {
        let mut todo = std::collections::VecDeque::from([event]);
        while let Some(event) = todo.pop_front() {
            for action in self.model.step(event, Instant::now()) {
                match action {
                    Action::Spawn(index) => todo.push_back(self.spawn(index)),
                    Action::Signal { pid, signal } => {
                        self.own_log.line(&format!("{signal:?} to {pid}"));
                        process::signal_group(pid, signal);
                        // A stopped process acts on no signal but KILL until it continues.
                        process::signal_group(pid, process::Signal::Continue);
                    }
                }
            }
        }
    }

    fn spawn(&mut self, index: usize) -> Event {
        let name = self.specs[index].plan.name;
        let launch = (self.specs[index].launch)().map_err(|reason| Refused { reason, is_final: false });
        let started = launch.and_then(|launch| {
            let given = Given {
                listeners: vec![("http", self.tcp.as_fd()), ("api", self.api.listener.as_fd())],
                lifeline: &self.lifeline,
                notify_address: self.notify.address().into(),
            };
            let started = child::start(launch, &given, &self.logs[index]);
            started.map_err(|error| Refused {
                is_final: matches!(error, SpawnError::UserNamespace(_)),
                reason: error.to_string(),
            })
        });
        match started {
            Ok((pid, copying)) => {
                self.copying[index] = Some(copying);
                self.own_log.line(&format!("{name} started, pid {pid}"));
                self.probe_until_ready(index, pid);
                self.record(index, pid);
                Event::Spawned { index, pid }
            }
            Err(Refused { reason, is_final }) => {
                self.own_log.line(&format!("{name} cannot be started: {reason}"));
                Event::SpawnFailed { index, reason, is_final }
            }
        }
    }

    fn record(&self, index: usize, pid: i32) {
        let named = |(at, spec): (usize, &Spec)| {
            let pid = if at == index { Some(pid) } else { self.model.pid_of(at) };
            Some((spec.plan.name.to_owned(), ProcessId::of(pid?)?))
        };
        let children = self.specs.iter().enumerate().filter_map(named).collect();
        // Without it the next start only takes longer to find out by itself.
        let _ = Record { children }.write(&self.home);
    }

    pub(super) fn index_of(&self, pid: i32) -> Option<usize> {
        (0..self.specs.len()).find(|index| self.model.pid_of(*index) == Some(pid))
    }

    /// What an ended child printed last may still be in its pipe.
    async fn finish_logs(&mut self) {
        for copying in self.copying.iter_mut().filter_map(Option::take) {
            // A grandchild may hold the pipe open for ever.
            let _ = tokio::time::timeout(LAST_WORDS, copying).await;
        }
    }

    fn reap(&mut self) {
        for (pid, exit) in reaper::ended_children() {
            let Some(index) = self.index_of(pid) else { continue };
            if let Some(probe) = self.probes[index].take() {
                probe.abort();
            }
            // What the process said last may still be in the socket, from before its end.
            while let Some(notification) = self.notify.try_receive() {
                self.heard(notification);
            }
            self.own_log.line(&format!("{} ({pid}) ended with {exit}", self.specs[index].plan.name));
            if !exit.success()
                && let Some(clean_up) = &self.specs[index].clean_up
            {
                clean_up();
            }
            self.feed(Event::Exited { pid, exit });
        }
    }

    /// Ends a child, which the policy then starts again.
    fn replace(&mut self, name: &str) {
        let index = self.specs.iter().position(|spec| spec.plan.name == name);
        if let Some(pid) = index.and_then(|index| self.model.pid_of(index)) {
            process::signal_group(pid, process::Signal::Terminate);
        }
    }

    /// A datagram, from a process that the kernel names.
    fn heard(&mut self, Notification { pid, text }: Notification) {
        for line in text.lines() {
            let Some((key, value)) = line.split_once('=') else { continue };
            match key {
                "READY" if value == "1" => self.feed(Event::Ready { pid }),
                "WATCHDOG" if value == "1" => self.feed(Event::Alive { pid }),
                "STATUS" => self.feed(Event::Detail { pid, text: value.to_owned() }),
                FAILURE_KEY => self.feed(Event::Failure { pid, json: value.to_owned() }),
                SCHEMA_KEY if self.index_of(pid).is_some() => self.schema_version = value.parse().ok(),
                _ => {}
            }
        }
    }

    fn forgive_own_pause(&mut self, expected: Instant) {
        let late = Instant::now().saturating_duration_since(expected);
        if late > OWN_PAUSE {
            self.own_log.line(&format!("did not run for {} s", late.as_secs()));
            self.model.forgive(late + WATCHDOG_INTERVAL);
        }
    }

    fn answer(&mut self, Asked { request, answer }: Asked) {
        let reply = match request {
            Request::Status => Answer::Status(Box::new(self.status())),
            Request::Stop => {
                self.own_log.line("asked to stop");
                self.feed(Event::Stop);
                Answer::Accepted
            }
            Request::Restart => {
                self.own_log.line("asked to restart");
                self.api.ensure(&self.home);
                self.notify.ensure();
                self.feed(Event::Restart);
                self.restart_waiters.push(answer);
                return;
            }
        };
        // Whoever asked may have left.
        let _ = answer.send(reply);
    }

    fn leave(&mut self, ended: &Result<(), SupervisorError>) {
        match ended {
            Ok(()) => self.own_log.line("stopped"),
            Err(error) => self.own_log.line(&format!("stopped: {error}")),
        }
        for path in
            [self.home.control_socket(), self.home.api_socket(), self.home.notify_socket(), self.home.processes()]
        {
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
