//! Decides whether and when one child restarts after a crash (backoff). `policy` starts and stops all children.

use super::event::Event;
use super::spec::{ExitReason, Outlook, Plan};
use leoflow_base::sys::process::Signal;
use leoflow_base::sys::process::reaper::Exit;
use std::time::{Duration, Instant};

/// An action on a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Spawn(usize),
    /// Sent to the child's whole process group.
    Signal {
        pid: i32,
        signal: Signal,
    },
}

/// Once a child has been ready for this long, earlier exits no longer count.
const STABLE: Duration = Duration::from_secs(60);
/// More consecutive exits than this are a crash loop.
pub(super) const LOOP_LIMIT: u32 = 5;
/// This many consecutive starts that never become ready are a crash loop too.
pub(super) const START_TRIES: u32 = 3;
/// First pause between attempts while a transient cause lasts.
const FIRST_TRANSIENT_PAUSE: Duration = Duration::from_secs(1);
/// The pause after the first exit.
const FIRST_BACKOFF: Duration = Duration::from_millis(20);
/// Up to this value each pause is four times the previous one; beyond it, twice.
fn quick_backoff() -> Duration {
    leoflow_base::sys::limit("LEOFLOW_QUICK_BACKOFF", Duration::from_secs(5))
}
pub(super) const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// How to handle a child in a crash loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Persistence {
    /// Retry forever with growing pauses, because the instance has worked before.
    KeepTrying,
    /// Fail, because a caller waits for the result: of the first start, or of a step of an upgrade.
    GiveUp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Starts when all earlier children are ready.
    Waiting,
    /// Spawned at `begun`. The time limit counts from `since`: the spawn, or the last `Busy` report.
    Starting {
        pid: i32,
        begun: Instant,
        since: Instant,
    },
    Running {
        pid: i32,
        last_seen: Instant,
        ready_since: Instant,
    },
    /// Exited; restarted at `until`.
    Backoff {
        until: Instant,
    },
    /// Being stopped; `step` of the plan's stop sequence lasts until `deadline`. `broken` is the fault for which the
    /// child is stopped; `None` for a requested stop. `ready_since` is `None` if the child never became ready.
    Stopping {
        pid: i32,
        step: usize,
        deadline: Instant,
        broken: Option<String>,
        ready_since: Option<Instant>,
    },
    Stopped,
    /// A one-shot that succeeded.
    Done,
    Failed {
        reason: String,
    },
}

/// A child's state.
#[derive(Debug, Clone)]
pub struct Child {
    pub plan: Plan,
    pub phase: Phase,
    pub restarts: u32,
    pub report: Report,
    pub last_exit: Option<Exit>,
    failures: Failures,
    /// If set, the child has only one try, with this time limit.
    pub(super) trial_limit: Option<Duration>,
    /// True when a retry cannot help, for example because the process does not belong to this instance.
    pub unfit: bool,
}

/// Reports of, and about, the last process of a child.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The last status text of the process.
    pub detail: Option<String>,
    /// The error that the process reported before its exit, as JSON.
    pub failure: Option<String>,
    /// Describes the damage to the child's data, if any.
    pub damage: Option<String>,
    /// Why the process runs but cannot work, or why the external server behind the relay does not answer.
    pub away: Option<String>,
    /// The reason for the exit, from the child's log.
    pub exit_reason: Option<ExitReason>,
    /// True when a transient `exit_reason` is retried until it is gone; false in the first start of an instance, which
    /// fails after `START_TRIES`.
    may_wait: bool,
}

/// Counts of exits in a row, without a time of `STABLE` between them.
#[derive(Debug, Clone, Default)]
struct Failures {
    exits: u32,
    /// Starts that never became ready.
    failed_starts: u32,
    /// Exits for a transient cause.
    transient_exits: u32,
    last_reason: Option<String>,
}

impl Phase {
    /// True when later children may start.
    pub(super) fn is_up(&self) -> bool {
        matches!(self, Self::Running { .. } | Self::Done)
    }

    /// When the process became ready.
    fn ready_since(&self) -> Option<Instant> {
        match self {
            Self::Running { ready_since, .. } => Some(*ready_since),
            Self::Stopping { ready_since, .. } => *ready_since,
            _ => None,
        }
    }

    pub fn pid(&self) -> Option<i32> {
        match self {
            Self::Starting { pid, .. } | Self::Running { pid, .. } | Self::Stopping { pid, .. } => Some(*pid),
            Self::Waiting | Self::Backoff { .. } | Self::Stopped | Self::Done | Self::Failed { .. } => None,
        }
    }
}

impl Child {
    pub(super) fn new(plan: Plan) -> Self {
        Self {
            plan,
            phase: Phase::Waiting,
            restarts: 0,
            report: Report::default(),
            last_exit: None,
            failures: Failures::default(),
            trial_limit: None,
            unfit: false,
        }
    }

    pub(super) fn start_limit(&self) -> Duration {
        self.trial_limit.unwrap_or(self.plan.start_limit)
    }

    /// Processes an event of this child; other events are ignored.
    pub(super) fn handle_event(
        &mut self,
        event: Event,
        may_wait: bool,
        persistence: Persistence,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let is_unfit = matches!(event, Event::Unfit { .. }) || persistence == Persistence::GiveUp;
        match event {
            Event::Busy { text, .. } => self.busy(text, now),
            Event::Ready { pid } => self.ready(pid, now),
            Event::Alive { .. } => self.alive(now),
            Event::RemoteStatus { away, .. } => {
                self.report.away = away;
                self.alive(now);
            }
            Event::Impaired { reason, .. } => self.report.away = Some(reason).filter(|reason| !reason.is_empty()),
            Event::Detail { text, .. } => self.report.detail = Some(text),
            Event::Failure { json, .. } => self.report.failure = Some(json),
            Event::Unfit { pid, reason } | Event::Unanswered { pid, reason } => {
                self.unfit = is_unfit;
                // Keeps a stop in progress, which may be at a later step.
                if !matches!(self.phase, Phase::Stopping { .. }) {
                    self.stop_step(pid, 0, Some(reason), now, actions);
                }
            }
            Event::ExitReason { exit_reason, .. } => {
                (self.report.exit_reason, self.report.may_wait) = (Some(exit_reason), may_wait);
            }
            Event::Exited { exit, .. } => self.exited(exit, persistence, now),
            Event::Damaged { text, .. } => self.report.damage = Some(text),
            _ => {}
        }
    }

    /// Records a sign of life, which restarts the silence limit.
    fn alive(&mut self, now: Instant) {
        if let Phase::Running { last_seen, .. } = &mut self.phase {
            *last_seen = now;
        }
    }

    /// Records why the start takes long, and restarts its time limit.
    pub(super) fn busy(&mut self, text: String, now: Instant) {
        if let Phase::Starting { since, .. } = &mut self.phase {
            *since = now;
        }
        self.report.detail = Some(text);
    }

    pub(super) fn spawned(&mut self, pid: i32, now: Instant) {
        self.phase = Phase::Starting { pid, begun: now, since: now };
        self.report = Report::default();
    }

    pub(super) fn ready(&mut self, pid: i32, now: Instant) {
        if matches!(self.phase, Phase::Starting { .. }) && !self.plan.one_shot {
            self.phase = Phase::Running { pid, last_seen: now, ready_since: now };
            self.report.detail = None;
            self.report.exit_reason = None;
            self.failures.transient_exits = 0;
        }
    }

    /// Adopts a child of the previous supervisor.
    pub(super) fn adopt(&mut self, pid: Option<i32>, now: Instant) {
        self.phase = match pid {
            Some(pid) => Phase::Running { pid, last_seen: now, ready_since: now },
            None if self.plan.one_shot => Phase::Done,
            None => Phase::Waiting,
        };
    }

    /// Resets the child to its initial state.
    pub(super) fn reset(&mut self) {
        self.phase = Phase::Waiting;
        self.reset_counters();
        self.unfit = false;
        self.report.failure = None;
        self.last_exit = None;
        self.report.exit_reason = None;
    }

    /// Clears the counters, so that the next retry begins with the shortest pause.
    pub(super) fn reset_counters(&mut self) {
        self.failures = Failures::default();
    }

    /// Sends the signal of a step of the stop sequence. `broken` is the reason when the child is stopped for its own
    /// fault.
    pub(super) fn stop_step(
        &mut self,
        pid: i32,
        step: usize,
        broken: Option<String>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let (signal, time_limit) = self.plan.stop[step];
        actions.push(Action::Signal { pid, signal });
        let ready_since = self.phase.ready_since();
        self.phase = Phase::Stopping { pid, step, deadline: now + time_limit, broken, ready_since };
    }

    /// Kills a faulty child at once.
    pub(super) fn end_broken(&mut self, pid: i32, reason: String, now: Instant, actions: &mut Vec<Action>) {
        let last = self.plan.stop.len() - 1;
        self.stop_step(pid, last, Some(reason), now, actions);
    }

    /// Handles an exit: after a requested stop the child is stopped; otherwise it is done or has failed.
    pub(super) fn exited(&mut self, exit: Exit, persistence: Persistence, now: Instant) {
        self.last_exit = Some(exit);
        match &self.phase {
            Phase::Stopping { broken: None, .. } => self.phase = Phase::Stopped,
            Phase::Stopping { broken: Some(reason), .. } => {
                let reason = reason.clone();
                self.handle_failure(reason, persistence, now);
            }
            _ if self.plan.one_shot && exit.success() => self.phase = Phase::Done,
            _ => self.handle_failure(format!("exited with {exit}"), persistence, now),
        }
    }

    /// Handles an unexpected exit: the child is restarted after a pause, or has failed.
    pub(super) fn handle_failure(&mut self, reason: String, persistence: Persistence, now: Instant) {
        self.report.detail = None;
        let reason = self.report.exit_reason.as_ref().map_or(reason, |exit_reason| exit_reason.text.clone());
        self.failures.last_reason = Some(reason.clone());
        if self.waits_out_transient_cause() && !self.unfit {
            let pause =
                FIRST_TRANSIENT_PAUSE.saturating_mul(1 << self.failures.transient_exits.min(6)).min(LONGEST_BACKOFF);
            self.failures.transient_exits += 1;
            self.phase = Phase::Backoff { until: now + pause };
            return;
        }
        let ready_since = self.phase.ready_since();
        let was_stable = ready_since.is_some_and(|since| now.saturating_duration_since(since) >= STABLE);
        let Failures { exits, failed_starts, .. } = &mut self.failures;
        *exits = if was_stable { 1 } else { *exits + 1 };
        *failed_starts = if ready_since.is_some() { 0 } else { *failed_starts + 1 };
        let gives_up = persistence == Persistence::GiveUp || self.outlook() == Outlook::Lasts;
        self.phase = if self.unfit || self.trial_limit.is_some() || self.is_final_exit(persistence) {
            Phase::Failed { reason }
        } else if gives_up && self.is_loop() {
            Phase::Failed { reason: format!("{reason}, {}", self.failure_count()) }
        } else {
            Phase::Backoff { until: now + backoff(self.failures.exits) }
        };
    }

    /// Handles a failed spawn.
    pub(super) fn spawn_failed(&mut self, reason: String, persistence: Persistence, now: Instant) {
        self.last_exit = None;
        self.handle_failure(reason, persistence, now);
    }

    /// Handles an exit while an earlier child is down: it does not count, and this child waits for the earlier one.
    pub(super) fn exited_with_dependency(&mut self, exit: Exit, now: Instant) {
        self.last_exit = Some(exit);
        self.report.detail = None;
        self.phase = Phase::Backoff { until: now };
    }

    /// True for the failure of a one-shot, unless `persistence` is `KeepTrying` and it was killed or not spawned.
    fn is_final_exit(&self, persistence: Persistence) -> bool {
        let was_killed = matches!(self.last_exit, Some(Exit::Signal(_)) | None);
        self.plan.one_shot && !(persistence == Persistence::KeepTrying && was_killed)
    }

    fn outlook(&self) -> Outlook {
        self.report.exit_reason.as_ref().map_or(Outlook::Unknown, |exit_reason| exit_reason.outlook)
    }

    /// True for a child in a crash loop.
    pub(crate) fn is_crash_looping(&self) -> bool {
        !self.phase.is_up() && self.is_loop()
    }

    fn is_loop(&self) -> bool {
        self.failures.failed_starts >= START_TRIES || self.failures.exits > LOOP_LIMIT
    }

    /// Describes how often the child failed in a row.
    fn failure_count(&self) -> String {
        match self.failures.failed_starts >= START_TRIES {
            true => format!("{} times without becoming ready", self.failures.failed_starts),
            false => format!("{} times in a row", self.failures.exits),
        }
    }

    /// Describes a crash loop and when the next start is; `None` without one.
    pub fn trouble(&self, now: Instant) -> Option<String> {
        let reason = self.failures.last_reason.as_ref().filter(|_| self.is_crash_looping())?;
        Some(match &self.phase {
            Phase::Backoff { until } => {
                let seconds = until.saturating_duration_since(now).as_secs() + 1;
                format!("{reason}, {}; restart in {seconds} s", self.failure_count())
            }
            _ => format!("{reason}, {}; restarting", self.failure_count()),
        })
    }

    /// True when the child exited for a transient cause and is retried until the cause is gone.
    pub(crate) fn waits_out_transient_cause(&self) -> bool {
        self.report.may_wait && self.outlook() == Outlook::Passes
    }

    /// Retries at once, because the transient cause may be gone.
    pub(super) fn try_now(&mut self, now: Instant) {
        let waits = self.waits_out_transient_cause();
        if let Phase::Backoff { until } = &mut self.phase
            && waits
        {
            *until = now;
        }
    }

    /// Retries at once, because an earlier child is up again and may have been the cause.
    pub(super) fn retry_after_dependency(&mut self, now: Instant) {
        if let Phase::Backoff { until } = &mut self.phase {
            *until = now;
            self.reset_counters();
        }
    }
}

/// The pause after `exits` consecutive exits: 20 ms, 80 ms, 320 ms, 1.3 s, 5 s, 10 s, 20 s, 40 s, 60 s.
fn backoff(exits: u32) -> Duration {
    let quick = FIRST_BACKOFF.saturating_mul(4u32.saturating_pow(exits.saturating_sub(1))).min(quick_backoff());
    let slow = quick_backoff().saturating_mul(2u32.saturating_pow(exits.saturating_sub(LOOP_LIMIT)));
    if exits <= LOOP_LIMIT { quick } else { slow.min(LONGEST_BACKOFF) }
}
