//! What can be true of a child, and how one truth follows from another.

use super::event::Event;
use super::spec::{LastWords, Outlook, Plan};
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

/// A child that was ready for this long has got over what ended it before.
const STABLE: Duration = Duration::from_secs(60);
/// More ends than this in a row are a crash loop.
pub(super) const LOOP_LIMIT: u32 = 5;
/// Starts in a row that never get ready are one earlier.
pub(super) const START_TRIES: u32 = 3;
/// Pauses between attempts while a cause lasts that may pass.
const FIRST_PASSING: Duration = Duration::from_secs(1);
const FIRST_BACKOFF: Duration = Duration::from_millis(20);
/// Up to here a pause is four times the one before, and from here on twice.
fn quick_backoff() -> Duration {
    crate::sys::limit("LEOFLOW_QUICK_BACKOFF", Duration::from_secs(5))
}
pub(super) const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// What to do about a child that ends again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Persistence {
    /// It has worked before: it is tried for ever, with growing pauses.
    KeepTrying,
    /// A first start, or a step of an upgrade, which has somebody who waits for its result.
    GiveUp,
}

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
    /// Why it last ended.
    last_reason: Option<String>,
    /// Ends in a row, without a stable stretch between them.
    ends: u32,
    /// Starts in a row that never got ready.
    unready: u32,
    ready_since: Option<Instant>,
    /// It has one try, and so long for it.
    pub(super) on_trial: Option<Duration>,
    /// What is wrong with what it keeps.
    pub damage: Option<String>,
    /// Why it cannot do its work though it runs, or why what it stands for, which is elsewhere, does not answer.
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
            last_reason: None,
            ends: 0,
            unready: 0,
            ready_since: None,
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
    pub(super) fn take_in(
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
            Event::Stands { away, .. } => {
                self.away = away;
                self.alive(now);
            }
            Event::Hindered { reason, .. } => self.away = Some(reason).filter(|reason| !reason.is_empty()),
            Event::Detail { text, .. } => self.detail = Some(text),
            Event::Failure { json, .. } => self.failure = Some(json),
            Event::Unfit { pid, reason } | Event::Unanswered { pid, reason } => {
                self.unfit = is_unfit;
                // One that is being stopped already is not stopped more gently for it.
                if !matches!(self.phase, Phase::Stopping { .. }) {
                    self.stop_step(pid, 0, Some(reason), now, actions);
                }
            }
            Event::Words { words, .. } => (self.words, self.may_wait) = (Some(words), may_wait),
            Event::Exited { exit, .. } => self.exited(exit, persistence, now),
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
        self.ready_since = None;
    }

    pub(super) fn ready(&mut self, pid: i32, now: Instant) {
        if matches!(self.phase, Phase::Starting { .. }) && !self.plan.one_shot {
            self.phase = Phase::Running { pid, heard: now };
            self.ready_since = Some(now);
            self.detail = None;
            self.words = None;
            self.passing = 0;
        }
    }

    /// It runs already, started by a supervisor before this one.
    pub(super) fn adopt(&mut self, pid: Option<i32>, now: Instant) {
        self.ready_since = pid.map(|_| now);
        self.phase = match pid {
            Some(pid) => Phase::Running { pid, heard: now },
            None if self.plan.one_shot => Phase::Done,
            None => Phase::Waiting,
        };
    }

    /// As if it had never been started.
    pub(super) fn reset(&mut self) {
        self.phase = Phase::Waiting;
        self.forget_ends();
        self.unfit = false;
        self.failure = None;
        self.last_exit = None;
        self.words = None;
    }

    /// A new attempt begins with the shortest pause.
    pub(super) fn forget_ends(&mut self) {
        (self.ends, self.unready, self.passing) = (0, 0, 0);
        self.last_reason = None;
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

    pub(super) fn exited(&mut self, exit: Exit, persistence: Persistence, now: Instant) {
        self.last_exit = Some(exit);
        match &self.phase {
            Phase::Stopping { broken: None, .. } => self.phase = Phase::Stopped,
            Phase::Stopping { broken: Some(reason), .. } => {
                let reason = reason.clone();
                self.ended(reason, persistence, now);
            }
            _ if self.plan.one_shot && exit.success() => self.phase = Phase::Done,
            _ => self.ended(format!("ended with {exit}"), persistence, now),
        }
    }

    /// It ended and should not have: it is started again after a pause, or has failed.
    pub(super) fn ended(&mut self, reason: String, persistence: Persistence, now: Instant) {
        self.detail = None;
        let reason = self.words.as_ref().map_or(reason, |words| words.text.clone());
        self.last_reason = Some(reason.clone());
        if self.waits_for_better_times() && !self.unfit {
            let pause = FIRST_PASSING.saturating_mul(1 << self.passing.min(6)).min(LONGEST_BACKOFF);
            self.passing += 1;
            self.phase = Phase::Backoff { until: now + pause };
            return;
        }
        let was_stable = self.ready_since.is_some_and(|since| now.saturating_duration_since(since) >= STABLE);
        self.ends = if was_stable { 1 } else { self.ends + 1 };
        self.unready = if self.ready_since.is_some() { 0 } else { self.unready + 1 };
        let gives_up = persistence == Persistence::GiveUp || self.outlook() == Outlook::Lasts;
        self.phase = if self.unfit || self.on_trial.is_some() || self.has_spoken_for_good(persistence) {
            Phase::Failed { reason }
        } else if gives_up && self.is_loop() {
            Phase::Failed { reason: format!("{reason}, {}", self.times()) }
        } else {
            Phase::Backoff { until: now + backoff(self.ends) }
        };
    }

    /// It could not be started.
    pub(super) fn not_spawned(&mut self, reason: String, persistence: Persistence, now: Instant) {
        self.last_exit = None;
        self.ready_since = None;
        self.ended(reason, persistence, now);
    }

    /// What stands below it is not up: it starts again when that is, and the end does not count.
    pub(super) fn ended_with_its_ground(&mut self, exit: Exit, now: Instant) {
        self.last_exit = Some(exit);
        self.detail = None;
        self.phase = Phase::Backoff { until: now };
    }

    /// A one-shot that ended by itself means what it says. One that was killed has said nothing.
    fn has_spoken_for_good(&self, persistence: Persistence) -> bool {
        let was_killed = matches!(self.last_exit, Some(Exit::Signal(_)) | None);
        self.plan.one_shot && !(persistence == Persistence::KeepTrying && was_killed)
    }

    fn outlook(&self) -> Outlook {
        self.words.as_ref().map_or(Outlook::Unknown, |words| words.outlook)
    }

    /// True for a child that does not stay up, or does not come up, however often it is started.
    pub fn keeps_ending(&self) -> bool {
        !self.phase.is_up() && self.is_loop()
    }

    fn is_loop(&self) -> bool {
        self.unready >= START_TRIES || self.ends > LOOP_LIMIT
    }

    fn times(&self) -> String {
        match self.unready >= START_TRIES {
            true => format!("{} times without ever getting ready", self.unready),
            false => format!("{} times in a row", self.ends),
        }
    }

    /// Why a child that keeps ending does not run, and when it is tried again; `None` for another.
    pub fn trouble(&self, now: Instant) -> Option<String> {
        let reason = self.last_reason.as_ref().filter(|_| self.keeps_ending())?;
        Some(match &self.phase {
            Phase::Backoff { until } => {
                let seconds = until.saturating_duration_since(now).as_secs() + 1;
                format!("{reason}, {}; it is started again in {seconds} s", self.times())
            }
            _ => format!("{reason}, {}; it is being started again", self.times()),
        })
    }

    /// Whether it ended for a cause that may pass, and is tried again and again.
    pub fn waits_for_better_times(&self) -> bool {
        self.may_wait && self.outlook() == Outlook::Passes
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

    /// What stands below it is up again, and may have been the reason.
    pub(super) fn try_on_new_ground(&mut self, now: Instant) {
        if let Phase::Backoff { until } = &mut self.phase {
            *until = now;
            self.forget_ends();
        }
    }
}

/// The pause after so many ends in a row: 20 ms, 80 ms, 320 ms, 1.3 s, 5 s, 10 s, 20 s, 40 s, 60 s.
fn backoff(ends: u32) -> Duration {
    let quick = FIRST_BACKOFF.saturating_mul(4u32.saturating_pow(ends.saturating_sub(1))).min(quick_backoff());
    let slow = quick_backoff().saturating_mul(2u32.saturating_pow(ends.saturating_sub(LOOP_LIMIT)));
    if ends <= LOOP_LIMIT { quick } else { slow.min(LONGEST_BACKOFF) }
}
