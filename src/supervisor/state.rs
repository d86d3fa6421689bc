//! What can be true of a child, and how one truth follows from another.

use super::event::Event;
use super::spec::{LastWords, Plan};
use crate::sys::process::Signal;
use crate::sys::reaper::Exit;
use std::time::{Duration, Instant};

/// What is to be done about a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Spawn(usize),
    /// To the child's whole process group.
    Signal {
        pid: i32,
        signal: Signal,
    },
}

/// Ends within this time of one another count as one loop.
const LOOP_WINDOW: Duration = Duration::from_secs(60);
/// More ends than this within the window: it will not get better by itself.
pub(super) const LOOP_LIMIT: usize = 5;
/// The same of ends for silence, each of which takes longer than a crash.
const SILENCE_WINDOW: Duration = Duration::from_secs(300);
pub(super) const SILENCE_LIMIT: usize = 3;
/// Starts in a row that came to nothing.
pub(super) const START_TRIES: u32 = 3;
/// Between attempts while a cause lasts that may pass.
const FIRST_PASSING: Duration = Duration::from_secs(1);
const LONGEST_PASSING: Duration = Duration::from_secs(60);
const FIRST_BACKOFF: Duration = Duration::from_millis(20);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// To be started when those before it are ready.
    Waiting,
    /// `since` is what its time limit counts from: the start, or the last word on what keeps it.
    Starting {
        pid: i32,
        begun: Instant,
        since: Instant,
    },
    Running {
        pid: i32,
        heard: Instant,
    },
    /// Ended, and started again at `until`.
    Backoff {
        until: Instant,
    },
    /// Told to go; `step` of the plan's stop is in force until `deadline`. `broken` when it is ended
    /// for its own fault and not because the instance stops.
    Stopping {
        pid: i32,
        step: usize,
        deadline: Instant,
        broken: Option<String>,
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
    /// What it last said of itself.
    pub detail: Option<String>,
    /// The reason it gave for its end, for the one who reports it.
    pub failure: Option<String>,
    pub last_exit: Option<Exit>,
    ends: Vec<Instant>,
    /// Those of them that were ours, because it did not answer.
    silences: Vec<Instant>,
    /// Starts in a row that never got ready.
    unready: u32,
    was_ready: bool,
    /// It has one try, and so long for it.
    pub(super) on_trial: Option<Duration>,
    /// What is wrong with what it keeps.
    pub damage: Option<String>,
    /// Why what it stands for, which is elsewhere, does not answer.
    pub away: Option<String>,
    /// Why it ended, in its own words.
    pub words: Option<LastWords>,
    /// Whether it may be waited for: only what has been up once may, a first start fails at once.
    pub may_wait: bool,
    /// How often in a row it ended for a cause that may pass.
    passing: u32,
    /// It is not what belongs here; trying again changes nothing.
    pub unfit: bool,
}

impl Phase {
    /// What stands on it may start.
    pub(super) fn is_up(&self) -> bool {
        matches!(self, Self::Running { .. } | Self::Done)
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
            detail: None,
            failure: None,
            last_exit: None,
            ends: Vec::new(),
            silences: Vec::new(),
            unready: 0,
            was_ready: false,
            on_trial: None,
            damage: None,
            away: None,
            words: None,
            may_wait: false,
            passing: 0,
            unfit: false,
        }
    }

    pub(super) fn start_limit(&self) -> Duration {
        self.on_trial.unwrap_or(self.plan.start_limit)
    }

    /// What was heard of it, or from it; events that are nobody's in particular are nothing to it.
    pub(super) fn take_in(&mut self, event: Event, may_wait: bool, now: Instant, actions: &mut Vec<Action>) {
        match event {
            Event::Busy { text, .. } => self.busy(text, now),
            Event::Ready { pid } => self.ready(pid, now),
            Event::Alive { .. } => self.alive(now),
            Event::Stands { away, .. } => {
                self.away = away;
                self.alive(now);
            }
            Event::Detail { text, .. } => self.detail = Some(text),
            Event::Failure { json, .. } => self.failure = Some(json),
            Event::Unfit { pid, reason } => {
                self.unfit = true;
                // One that is being stopped already is not stopped more gently for it.
                if !matches!(self.phase, Phase::Stopping { .. }) {
                    self.stop_step(pid, 0, Some(reason), now, actions);
                }
            }
            Event::Words { words, .. } => (self.words, self.may_wait) = (Some(words), may_wait),
            Event::Exited { exit, .. } => self.exited(exit, now),
            Event::Damaged { text, .. } => self.damage = Some(text),
            _ => {}
        }
    }

    /// It shows that it is getting on; its time begins anew.
    fn alive(&mut self, now: Instant) {
        if let Phase::Running { heard, .. } = &mut self.phase {
            *heard = now;
        }
    }

    pub(super) fn busy(&mut self, text: String, now: Instant) {
        if let Phase::Starting { since, .. } = &mut self.phase {
            *since = now;
        }
        self.detail = Some(text);
    }

    pub(super) fn spawned(&mut self, pid: i32, now: Instant) {
        self.phase = Phase::Starting { pid, begun: now, since: now };
        self.words = None;
        self.damage = None;
        self.away = None;
        self.failure = None;
        self.detail = None;
        self.was_ready = false;
    }

    pub(super) fn ready(&mut self, pid: i32, now: Instant) {
        if matches!(self.phase, Phase::Starting { .. }) && !self.plan.one_shot {
            self.phase = Phase::Running { pid, heard: now };
            self.was_ready = true;
            self.detail = None;
            self.words = None;
            self.passing = 0;
        }
    }

    /// It runs already, started by a supervisor before this one.
    pub(super) fn adopt(&mut self, pid: Option<i32>, now: Instant) {
        self.was_ready = pid.is_some();
        self.phase = match pid {
            Some(pid) => Phase::Running { pid, heard: now },
            None if self.plan.one_shot => Phase::Done,
            None => Phase::Waiting,
        };
    }

    /// As if it had never been started.
    pub(super) fn reset(&mut self) {
        self.phase = Phase::Waiting;
        self.ends.clear();
        self.silences.clear();
        self.unready = 0;
        self.unfit = false;
        self.failure = None;
        self.last_exit = None;
        self.words = None;
        self.passing = 0;
    }

    pub(super) fn stop_step(
        &mut self,
        pid: i32,
        step: usize,
        broken: Option<String>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let (signal, patience) = self.plan.stop[step];
        actions.push(Action::Signal { pid, signal });
        self.phase = Phase::Stopping { pid, step, deadline: now + patience, broken };
    }

    /// Ends a child for its own fault: at once, it had its time.
    pub(super) fn end_broken(&mut self, pid: i32, reason: String, now: Instant, actions: &mut Vec<Action>) {
        let last = self.plan.stop.len() - 1;
        self.stop_step(pid, last, Some(reason), now, actions);
    }

    /// It does not answer any more. Ended for that again and again, it will not get better by itself.
    pub(super) fn end_silent(&mut self, pid: i32, reason: String, now: Instant, actions: &mut Vec<Action>) {
        self.silences.retain(|end| now.saturating_duration_since(*end) < SILENCE_WINDOW);
        self.silences.push(now);
        self.end_broken(pid, reason, now, actions);
    }

    pub(super) fn exited(&mut self, exit: Exit, now: Instant) {
        self.last_exit = Some(exit);
        match &self.phase {
            Phase::Stopping { broken: None, .. } => self.phase = Phase::Stopped,
            Phase::Stopping { broken: Some(reason), .. } => {
                let reason = reason.clone();
                self.ended(reason, now);
            }
            _ if self.plan.one_shot && exit.success() => self.phase = Phase::Done,
            _ => self.ended(format!("ended with {exit}"), now),
        }
    }

    /// It ended and should not have: again, a little later each time, or not any more.
    pub(super) fn ended(&mut self, reason: String, now: Instant) {
        self.detail = None;
        if self.waits_for_better_times() && !self.plan.one_shot && !self.unfit {
            let pause = FIRST_PASSING.saturating_mul(1 << self.passing.min(6)).min(LONGEST_PASSING);
            self.passing += 1;
            self.phase = Phase::Backoff { until: now + pause };
            return;
        }
        let reason = self.words.as_ref().map_or(reason, |words| words.text.clone());
        self.ends.retain(|end| now.saturating_duration_since(*end) < LOOP_WINDOW);
        self.silences.retain(|end| now.saturating_duration_since(*end) < SILENCE_WINDOW);
        self.ends.push(now);
        let count = self.ends.len();
        self.unready = if self.was_ready { 0 } else { self.unready + 1 };
        self.phase = if self.plan.one_shot || self.unfit || self.on_trial.is_some() {
            Phase::Failed { reason }
        } else if count > LOOP_LIMIT {
            Phase::Failed { reason: format!("{reason}, {count} times within a minute") }
        } else if self.silences.len() >= SILENCE_LIMIT {
            let minutes = SILENCE_WINDOW.as_secs() / 60;
            Phase::Failed { reason: format!("{reason}, {SILENCE_LIMIT} times within {minutes} minutes") }
        } else if self.unready >= START_TRIES {
            Phase::Failed { reason: format!("{reason}, {START_TRIES} times without ever getting ready") }
        } else {
            let backoff = FIRST_BACKOFF.saturating_mul(4u32.saturating_pow(count as u32 - 1)).min(LONGEST_BACKOFF);
            Phase::Backoff { until: now + backoff }
        };
    }

    /// Whether it ended for a cause that may pass, and is tried again and again.
    pub fn waits_for_better_times(&self) -> bool {
        self.may_wait && self.words.as_ref().is_some_and(|words| words.passes)
    }

    /// What kept it may be gone.
    pub(super) fn try_now(&mut self, now: Instant) {
        let waits = self.waits_for_better_times();
        if let Phase::Backoff { until } = &mut self.phase
            && waits
        {
            *until = now;
        }
    }
}
