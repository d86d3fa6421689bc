//! Decides which children start and stop, in which order, and which children have missed a deadline. `restart` decides
//! whether and when one child restarts after a crash. Pure: events and the time go in, actions come out, so that tests
//! play hours of crashes and stops in milliseconds.

pub use super::event::{ChildEvent, Event};
use super::restart::{Persistence, Transient};
use super::spec::Plan;
use super::state::{Action, ChildState, Phase};
use std::time::{Duration, Instant};

/// The step of the stop sequence at which an immediate stop begins.
const STOP_NOW_STEP: usize = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Run,
    Stop,
    /// Stop, then run again.
    Restart,
}

/// The state of the whole instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overall {
    Starting,
    Healthy,
    Degraded,
    Failed,
    /// Changing to a level below `Whole`.
    Switching,
    /// At a level below `Whole`.
    Held,
    Stopping,
    Stopped,
}

/// The state of all children, in start order.
#[derive(Debug)]
pub struct Model {
    pub children: Vec<ChildState>,
    goal: Goal,
    /// Number of children that should be up.
    level: usize,
    /// True once all children were up. From then on, a failed child does not stop the other children.
    was_healthy: bool,
    /// True from a requested restart until everything is up again.
    restarting: bool,
    /// The first child whose start failed.
    pub start_failure: Option<usize>,
}

impl Model {
    pub fn new(plans: Vec<Plan>) -> Self {
        Self {
            level: plans.len(),
            children: plans.into_iter().map(ChildState::new).collect(),
            goal: Goal::Run,
            was_healthy: false,
            restarting: false,
            start_failure: None,
        }
    }

    /// Processes an event and returns the actions to take.
    pub fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        self.handle_event(event, now, &mut actions);
        self.check_deadlines(now, &mut actions);
        match self.goal {
            Goal::Run => {
                if self.stop_above_level(now, &mut actions) {
                    self.drive_up(now, &mut actions);
                }
            }
            Goal::Stop | Goal::Restart => self.drive_down(now, &mut actions),
        }
        actions
    }

    /// The time at which `step` must be called again even without an event; `None` if there is none. After a step, this
    /// time is always in the future: a child that waits for an earlier child has no deadline.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let next_to_start = self.children.iter().take(self.level).position(|child| !child.phase.is_up());
        let deadline = |(index, child): (usize, &ChildState)| match &child.phase {
            Phase::Starting { since, .. } => Some(*since + child.start_limit()),
            Phase::Running { last_seen, .. } => Some(*last_seen + child.plan.silence_limit),
            Phase::Backoff { until } if self.goal == Goal::Run && Some(index) == next_to_start => Some(*until),
            Phase::Stopping { deadline, .. } => Some(*deadline),
            Phase::Backoff { .. } | Phase::Waiting | Phase::Stopped | Phase::Done | Phase::Failed { .. } => None,
        };
        self.children.iter().enumerate().filter_map(deadline).min()
    }

    /// Extends the deadlines of running children by `gap`, a time in which this process did not run (SIGSTOP, a hung
    /// machine).
    pub(crate) fn extend_deadlines(&mut self, gap: Duration) {
        for child in &mut self.children {
            match &mut child.phase {
                Phase::Starting { since: clock, .. }
                | Phase::Running { last_seen: clock, .. }
                | Phase::Stopping { deadline: clock, .. } => *clock += gap,
                _ => {}
            }
        }
    }

    /// The state of the whole instance, computed from its children.
    pub(crate) fn overall(&self) -> Overall {
        let all = |predicate: fn(&Phase) -> bool| self.children.iter().all(|child| predicate(&child.phase));
        let any = |predicate: fn(&Phase) -> bool| self.children.iter().any(|child| predicate(&child.phase));
        let is_over = |phase: &Phase| matches!(phase, Phase::Stopped | Phase::Done | Phase::Failed { .. });
        match self.goal {
            Goal::Stop if all(is_over) => Overall::Stopped,
            Goal::Stop => Overall::Stopping,
            Goal::Restart => Overall::Starting,
            Goal::Run if any(|phase| matches!(phase, Phase::Failed { .. })) => Overall::Failed,
            Goal::Run if self.level < self.children.len() => {
                let (below, above) = self.children.split_at(self.level);
                let is_reached = below.iter().all(|child| child.phase.is_up())
                    && above.iter().all(|child| matches!(child.phase, Phase::Waiting | Phase::Done));
                if is_reached { Overall::Held } else { Overall::Switching }
            }
            Goal::Run if all(|phase| matches!(phase, Phase::Running { .. } | Phase::Done)) => Overall::Healthy,
            Goal::Run if self.was_healthy && !self.restarting => Overall::Degraded,
            Goal::Run => Overall::Starting,
        }
    }

    /// Adopts the running children of the previous supervisor by their `pids`. A child without a pid is started; a
    /// one-shot without a pid counts as done.
    pub(crate) fn adopting(plans: Vec<Plan>, pids: &[Option<i32>], now: Instant) -> Self {
        let mut model = Self { was_healthy: true, ..Self::new(plans) };
        for (child, pid) in model.children.iter_mut().zip(pids) {
            child.adopt(*pid, now);
        }
        model
    }

    /// The first child that waits until a transient cause, such as a full disk, is gone.
    pub fn blocked(&self) -> Option<&ChildState> {
        let waits =
            |child: &&ChildState| matches!(child.phase, Phase::Backoff { .. }) && child.waits_out_transient_cause();
        self.children.iter().find(waits)
    }

    pub(crate) fn was_healthy(&self) -> bool {
        self.was_healthy
    }

    /// Number of children that should be up.
    pub fn level(&self) -> usize {
        self.level
    }

    pub(crate) fn pid_of(&self, index: usize) -> Option<i32> {
        self.children.get(index)?.phase.pid()
    }

    /// Once the instance has been healthy, children are retried forever, except at a level below `Whole`.
    fn persistence(&self) -> Persistence {
        match self.was_healthy && self.level == self.children.len() {
            true => Persistence::KeepTrying,
            false => Persistence::GiveUp,
        }
    }

    /// The first child in a crash loop, unless the instance is being stopped.
    pub(crate) fn looping(&self) -> Option<&ChildState> {
        self.children.iter().find(|child| self.goal == Goal::Run && child.is_crash_looping())
    }

    fn handle_child_event(&mut self, index: usize, event: ChildEvent, now: Instant, actions: &mut Vec<Action>) {
        let persistence = self.persistence();
        let transient = if self.was_healthy { Transient::WaitedOut } else { Transient::Counted };
        let dependencies_are_up = self.children[..index].iter().all(|dependency| dependency.phase.is_up());
        let child = &mut self.children[index];
        let was_up = child.phase.is_up();
        match event {
            ChildEvent::Exited(exit)
                if persistence == Persistence::KeepTrying
                    && !dependencies_are_up
                    && !exit.success()
                    && matches!(child.phase, Phase::Starting { .. } | Phase::Running { .. }) =>
            {
                child.exited_with_dependency(exit, now);
            }
            event => child.handle_event(event, transient, persistence, now, actions),
        }
        if !was_up && child.phase.is_up() && persistence == Persistence::KeepTrying {
            self.children[index + 1..].iter_mut().for_each(|dependent| dependent.retry_after_dependency(now));
        }
    }

    fn handle_event(&mut self, event: Event, now: Instant, actions: &mut Vec<Action>) {
        match event {
            Event::Spawned { index, pid } => self.children[index].spawned(pid, now),
            Event::SpawnFailed { index, reason, is_final: true } if self.persistence() == Persistence::GiveUp => {
                self.children[index].phase = Phase::Failed { reason }
            }
            Event::SpawnFailed { index, reason, .. } => {
                let persistence = self.persistence();
                self.children[index].spawn_failed(reason, persistence, now);
            }
            Event::OnTrial { index, limit } => self.children[index].trial_limit = Some(limit),
            Event::TryNow => self.children.iter_mut().for_each(|child| child.try_now(now)),
            Event::Tick => {}
            Event::Stop => self.goal = Goal::Stop,
            Event::StopNow => self.stop_now(now, actions),
            Event::Level(level) => self.set_level(level),
            Event::Restart => {
                if self.goal == Goal::Run {
                    self.goal = Goal::Restart;
                    self.restarting = true;
                }
            }
            Event::Child(pid, event) => {
                // Events of a child that was replaced meanwhile are ignored.
                if let Some(index) = self.children.iter().position(|child| child.phase.pid() == Some(pid)) {
                    self.handle_child_event(index, event, now, actions);
                }
            }
        }
    }

    fn stop_now(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.goal = Goal::Stop;
        for child in &mut self.children {
            if !matches!(child.phase, Phase::Stopping { step, .. } if step >= STOP_NOW_STEP) {
                child.stop_step(STOP_NOW_STEP, None, now, actions);
            }
        }
    }

    fn set_level(&mut self, level: usize) {
        self.level = level.min(self.children.len());
        self.children.iter_mut().for_each(|child| child.trial_limit = None);
        // At a new level, failed children are retried.
        for child in &mut self.children {
            match child.phase {
                Phase::Failed { .. } | Phase::Backoff { .. } => child.reset(),
                _ => child.reset_counters(),
            }
        }
    }

    /// Kills children that are not ready in time or silent for too long, and escalates stops that are not obeyed.
    fn check_deadlines(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for child in &mut self.children {
            match child.phase.clone() {
                Phase::Starting { since, .. } if now >= since + child.start_limit() => {
                    let reason = format!("not ready within {} s", child.start_limit().as_secs());
                    child.end_broken(reason, now, actions);
                }
                Phase::Running { last_seen, .. } if now >= last_seen + child.plan.silence_limit => {
                    let reason = format!("silent for {} s", child.plan.silence_limit.as_secs());
                    child.end_broken(reason, now, actions);
                }
                Phase::Stopping { step, deadline, broken, .. } if now >= deadline => {
                    let next = (step + 1).min(child.plan.stop.len() - 1);
                    child.stop_step(next, broken, now, actions);
                }
                _ => {}
            }
        }
    }

    /// Stops the children above the level, last started first. Returns true when all of them are down.
    fn stop_above_level(&mut self, now: Instant, actions: &mut Vec<Action>) -> bool {
        for child in self.children[self.level..].iter_mut().rev() {
            match child.phase {
                Phase::Starting { .. } | Phase::Running { .. } => {
                    child.stop_step(0, None, now, actions);
                    return false;
                }
                Phase::Stopping { .. } => return false,
                // A finished one-shot stays done.
                Phase::Waiting | Phase::Done => {}
                Phase::Backoff { .. } | Phase::Stopped | Phase::Failed { .. } => child.reset(),
            }
        }
        true
    }

    /// Starts due children in order, each after all earlier ones are ready.
    fn drive_up(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for index in 0..self.level {
            let child = &mut self.children[index];
            match &child.phase {
                Phase::Running { .. } | Phase::Done => continue,
                Phase::Waiting | Phase::Stopped => {
                    actions.push(Action::Spawn(index));
                    break;
                }
                Phase::Backoff { until } if *until <= now => {
                    child.restarts += 1;
                    actions.push(Action::Spawn(index));
                    break;
                }
                Phase::Failed { .. } => {
                    if !self.was_healthy {
                        self.start_failure.get_or_insert(index);
                        self.goal = Goal::Stop;
                        self.drive_down(now, actions);
                        return;
                    }
                    break;
                }
                Phase::Backoff { .. } | Phase::Starting { .. } | Phase::Stopping { .. } => break,
            }
        }
        if self.overall() == Overall::Healthy {
            self.was_healthy = true;
            self.restarting = false;
        }
    }

    /// Stops the children one after another, last started first.
    fn drive_down(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for child in self.children.iter_mut().rev() {
            match child.phase {
                Phase::Starting { .. } | Phase::Running { .. } => {
                    child.stop_step(0, None, now, actions);
                    return;
                }
                Phase::Stopping { .. } => return,
                Phase::Waiting | Phase::Backoff { .. } => child.phase = Phase::Stopped,
                Phase::Stopped | Phase::Done | Phase::Failed { .. } => {}
            }
        }
        if self.goal == Goal::Restart {
            self.children.iter_mut().for_each(ChildState::reset);
            self.goal = Goal::Run;
            self.drive_up(now, actions);
        }
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
