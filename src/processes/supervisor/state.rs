//! The state of one child, and how an event changes it. `restart` decides whether and when it restarts after a crash;
//! `policy` starts and stops all children.

use super::event::ChildEvent;
use super::restart::{Failures, Persistence, Transient};
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
pub struct ChildState {
    pub plan: Plan,
    pub phase: Phase,
    pub restarts: u32,
    pub report: Report,
    pub last_exit: Option<Exit>,
    failures: Failures,
    /// The reason of the last unexpected exit.
    last_reason: Option<String>,
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
    /// How a transient `exit_reason` is handled.
    transient: Transient,
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

impl ChildState {
    pub(super) fn new(plan: Plan) -> Self {
        Self {
            plan,
            phase: Phase::Waiting,
            restarts: 0,
            report: Report::default(),
            last_exit: None,
            failures: Failures::default(),
            last_reason: None,
            trial_limit: None,
            unfit: false,
        }
    }

    pub(super) fn start_limit(&self) -> Duration {
        self.trial_limit.unwrap_or(self.plan.start_limit)
    }

    /// Processes an event of this child's process.
    pub(super) fn handle_event(
        &mut self,
        event: ChildEvent,
        transient: Transient,
        persistence: Persistence,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        match event {
            ChildEvent::Busy(text) => {
                if let Phase::Starting { since, .. } = &mut self.phase {
                    *since = now;
                }
                self.report.detail = Some(text);
            }
            ChildEvent::Ready => self.ready(now),
            ChildEvent::Alive => self.alive(now),
            ChildEvent::RemoteStatus(away) => {
                self.report.away = away;
                self.alive(now);
            }
            ChildEvent::Impaired(reason) => self.report.away = Some(reason).filter(|reason| !reason.is_empty()),
            ChildEvent::Detail(text) => self.report.detail = Some(text),
            ChildEvent::Failure(json) => self.report.failure = Some(json),
            ChildEvent::Unfit(reason) => self.end_unfit(true, reason, now, actions),
            ChildEvent::Unanswered(reason) => {
                self.end_unfit(persistence == Persistence::GiveUp, reason, now, actions);
            }
            ChildEvent::ExitReason(exit_reason) => {
                (self.report.exit_reason, self.report.transient) = (Some(exit_reason), transient);
            }
            ChildEvent::Exited(exit) => self.exited(exit, persistence, now),
            ChildEvent::Damaged(text) => self.report.damage = Some(text),
        }
    }

    /// Stops a process that another start cannot help, if `unfit`. Keeps a stop in progress, which may be at a later
    /// step.
    fn end_unfit(&mut self, unfit: bool, reason: String, now: Instant, actions: &mut Vec<Action>) {
        self.unfit = unfit;
        if !matches!(self.phase, Phase::Stopping { .. }) {
            self.stop_step(0, Some(reason), now, actions);
        }
    }

    /// Records a sign of life, which restarts the silence limit.
    fn alive(&mut self, now: Instant) {
        if let Phase::Running { last_seen, .. } = &mut self.phase {
            *last_seen = now;
        }
    }

    pub(super) fn spawned(&mut self, pid: i32, now: Instant) {
        self.phase = Phase::Starting { pid, begun: now, since: now };
        self.report = Report::default();
    }

    fn ready(&mut self, now: Instant) {
        if let Phase::Starting { pid, .. } = self.phase
            && !self.plan.one_shot
        {
            self.phase = Phase::Running { pid, last_seen: now, ready_since: now };
            self.report.detail = None;
            self.report.exit_reason = None;
            self.failures.clear_transient();
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
        self.last_reason = None;
    }

    /// Sends the signal of a step of the stop sequence. `broken` is the reason when the child is stopped for its own
    /// fault. Without a process nothing happens.
    pub(super) fn stop_step(&mut self, step: usize, broken: Option<String>, now: Instant, actions: &mut Vec<Action>) {
        let Some(pid) = self.phase.pid() else { return };
        let (signal, time_limit) = self.plan.stop[step];
        actions.push(Action::Signal { pid, signal });
        let ready_since = self.phase.ready_since();
        self.phase = Phase::Stopping { pid, step, deadline: now + time_limit, broken, ready_since };
    }

    /// Kills a faulty child at once.
    pub(super) fn end_broken(&mut self, reason: String, now: Instant, actions: &mut Vec<Action>) {
        self.stop_step(self.plan.stop.len() - 1, Some(reason), now, actions);
    }

    /// Handles an exit: after a requested stop the child is stopped; otherwise it is done or has failed.
    fn exited(&mut self, exit: Exit, persistence: Persistence, now: Instant) {
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

    /// Handles an unexpected exit or a failed spawn: the child is restarted after a pause, or has failed.
    fn handle_failure(&mut self, reason: String, persistence: Persistence, now: Instant) {
        self.report.detail = None;
        let reason = self.report.exit_reason.as_ref().map_or(reason, |exit_reason| exit_reason.text.clone());
        self.last_reason = Some(reason.clone());
        if self.waits_out_transient_cause() && !self.unfit {
            self.phase = Phase::Backoff { until: now + self.failures.add_transient() };
            return;
        }
        self.failures.add_exit(self.phase.ready_since(), now);
        let gives_up = persistence == Persistence::GiveUp || self.outlook() == Outlook::Lasts;
        self.phase = if self.unfit || self.trial_limit.is_some() || self.is_final_exit(persistence) {
            Phase::Failed { reason }
        } else if gives_up && self.failures.is_loop() {
            Phase::Failed { reason: format!("{reason}, {}", self.failures.count_text()) }
        } else {
            Phase::Backoff { until: now + self.failures.pause() }
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
        !self.phase.is_up() && self.failures.is_loop()
    }

    /// Describes a crash loop and when the next start is; `None` without one.
    pub fn trouble(&self, now: Instant) -> Option<String> {
        let reason = self.last_reason.as_ref().filter(|_| self.is_crash_looping())?;
        Some(match &self.phase {
            Phase::Backoff { until } => {
                let seconds = until.saturating_duration_since(now).as_secs() + 1;
                format!("{reason}, {}; restart in {seconds} s", self.failures.count_text())
            }
            _ => format!("{reason}, {}; restarting", self.failures.count_text()),
        })
    }

    /// True when the child exited for a transient cause and is retried until the cause is gone.
    pub(crate) fn waits_out_transient_cause(&self) -> bool {
        self.report.transient == Transient::WaitedOut && self.outlook() == Outlook::Passes
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
