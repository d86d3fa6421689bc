//! What next, given what happened. Pure: events and the time go in, actions come out, so that hours
//! of crashing and stopping are tested in milliseconds.

pub use super::event::Event;
use super::spec::Plan;
use super::state::{Action, Child, Persistence, Phase};
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Run,
    Stop,
    /// Stop, then run again.
    Restart,
}

/// How it all stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overall {
    Starting,
    Healthy,
    Degraded,
    Failed,
    /// On the way to a level below the whole.
    Switching,
    /// At a level below the whole.
    Held,
    Stopping,
    Stopped,
}

/// All children, in the order in which they are started.
#[derive(Debug)]
pub struct Model {
    pub children: Vec<Child>,
    goal: Goal,
    /// How many of the children are to be up.
    level: usize,
    /// Whether everything was up at least once: from then on a failure is told, and the rest goes on.
    was_healthy: bool,
    /// Between a restart that was asked for and the moment all is up again.
    restarting: bool,
    /// The first failure of a start that did not succeed.
    pub start_failure: Option<usize>,
}

impl Model {
    pub fn new(plans: Vec<Plan>) -> Self {
        Self {
            level: plans.len(),
            children: plans.into_iter().map(Child::new).collect(),
            goal: Goal::Run,
            was_healthy: false,
            restarting: false,
            start_failure: None,
        }
    }

    /// Takes in what happened and says what to do about it.
    pub fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        self.take_in(event, now, &mut actions);
        self.watch_clocks(now, &mut actions);
        match self.goal {
            Goal::Run => {
                if self.lower(now, &mut actions) {
                    self.drive_up(now, &mut actions);
                }
            }
            Goal::Stop | Goal::Restart => self.drive_down(now, &mut actions),
        }
        actions
    }

    /// When `step` must be called again if nothing happens before. Always later than the last step:
    /// a child that waits for another has no time of its own.
    pub fn next_deadline(&self) -> Option<Instant> {
        let next_to_start = self.children.iter().take(self.level).position(|child| !child.phase.is_up());
        let deadline = |(index, child): (usize, &Child)| match &child.phase {
            Phase::Starting { since, .. } => Some(*since + child.start_limit()),
            Phase::Running { heard, .. } => Some(*heard + child.plan.silence_limit),
            Phase::Backoff { until } if self.goal == Goal::Run && Some(index) == next_to_start => Some(*until),
            Phase::Stopping { deadline, .. } => Some(*deadline),
            Phase::Backoff { .. } | Phase::Waiting | Phase::Stopped | Phase::Done | Phase::Failed { .. } => None,
        };
        self.children.iter().enumerate().filter_map(deadline).min()
    }

    /// Takes a stretch of time in which we ourselves did not run (SIGSTOP, a machine that hung) off
    /// everybody's clock.
    pub fn forgive(&mut self, gap: Duration) {
        for child in &mut self.children {
            match &mut child.phase {
                Phase::Starting { since: clock, .. }
                | Phase::Running { heard: clock, .. }
                | Phase::Stopping { deadline: clock, .. } => *clock += gap,
                _ => {}
            }
        }
    }

    pub fn overall(&self) -> Overall {
        let all = |wanted: fn(&Phase) -> bool| self.children.iter().all(|child| wanted(&child.phase));
        let any = |wanted: fn(&Phase) -> bool| self.children.iter().any(|child| wanted(&child.phase));
        let over = |phase: &Phase| matches!(phase, Phase::Stopped | Phase::Done | Phase::Failed { .. });
        match self.goal {
            Goal::Stop if all(over) => Overall::Stopped,
            Goal::Stop => Overall::Stopping,
            Goal::Restart => Overall::Starting,
            Goal::Run if any(|phase| matches!(phase, Phase::Failed { .. })) => Overall::Failed,
            Goal::Run if self.level < self.children.len() => {
                let (below, above) = self.children.split_at(self.level);
                let is_there = below.iter().all(|child| child.phase.is_up())
                    && above.iter().all(|child| matches!(child.phase, Phase::Waiting | Phase::Done));
                if is_there { Overall::Held } else { Overall::Switching }
            }
            Goal::Run if all(|phase| matches!(phase, Phase::Running { .. } | Phase::Done)) => Overall::Healthy,
            Goal::Run if self.was_healthy && !self.restarting => Overall::Degraded,
            Goal::Run => Overall::Starting,
        }
    }

    /// Of children that run already, those of a supervisor before this one; `pids` are theirs; a child
    /// without one is started, unless it is a one-shot, which is done.
    pub fn adopting(plans: Vec<Plan>, pids: &[Option<i32>], now: Instant) -> Self {
        let mut model = Self { was_healthy: true, ..Self::new(plans) };
        for (child, pid) in model.children.iter_mut().zip(pids) {
            child.adopt(*pid, now);
        }
        model
    }

    /// One that waits for what keeps it from running to pass.
    pub fn blocked(&self) -> Option<&Child> {
        let waits = |child: &&Child| matches!(child.phase, Phase::Backoff { .. }) && child.waits_for_better_times();
        self.children.iter().find(waits)
    }

    pub fn was_healthy(&self) -> bool {
        self.was_healthy
    }

    /// How many of the children are to be up.
    pub fn level(&self) -> usize {
        self.level
    }

    pub fn pid_of(&self, index: usize) -> Option<i32> {
        self.children.get(index)?.phase.pid()
    }

    /// An instance that has worked recovers without help, however long that takes.
    fn persistence(&self) -> Persistence {
        match self.was_healthy && self.level == self.children.len() {
            true => Persistence::KeepTrying,
            false => Persistence::GiveUp,
        }
    }

    /// One that is started again and again, and does not stay up.
    pub fn looping(&self) -> Option<&Child> {
        self.children.iter().find(|child| self.goal == Goal::Run && child.keeps_ending())
    }

    fn take_in_of(&mut self, index: usize, event: Event, now: Instant, actions: &mut Vec<Action>) {
        let (may_wait, persistence) = (self.was_healthy, self.persistence());
        let has_ground = self.children[..index].iter().all(|below| below.phase.is_up());
        let child = &mut self.children[index];
        let was_up = child.phase.is_up();
        match event {
            Event::Exited { exit, .. }
                if persistence == Persistence::KeepTrying
                    && !has_ground
                    && !exit.success()
                    && matches!(child.phase, Phase::Starting { .. } | Phase::Running { .. }) =>
            {
                child.ended_with_its_ground(exit, now);
            }
            event => child.take_in(event, may_wait, persistence, now, actions),
        }
        if !was_up && child.phase.is_up() && persistence == Persistence::KeepTrying {
            self.children[index + 1..].iter_mut().for_each(|above| above.try_on_new_ground(now));
        }
    }

    fn take_in(&mut self, event: Event, now: Instant, actions: &mut Vec<Action>) {
        match event {
            Event::Spawned { index, pid } => self.children[index].spawned(pid, now),
            Event::SpawnFailed { index, reason, is_final: true } if self.persistence() == Persistence::GiveUp => {
                self.children[index].phase = Phase::Failed { reason }
            }
            Event::SpawnFailed { index, reason, .. } => {
                let persistence = self.persistence();
                self.children[index].not_spawned(reason, persistence, now);
            }
            Event::OnTrial { index, limit } => self.children[index].on_trial = Some(limit),
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
            Event::Stands { pid, .. }
            | Event::Busy { pid, .. }
            | Event::Ready { pid }
            | Event::Alive { pid }
            | Event::Hindered { pid, .. }
            | Event::Detail { pid, .. }
            | Event::Failure { pid, .. }
            | Event::Unfit { pid, .. }
            | Event::Unanswered { pid, .. }
            | Event::Words { pid, .. }
            | Event::Exited { pid, .. }
            | Event::Damaged { pid, .. } => {
                // Of one that was replaced meanwhile nothing counts any more.
                if let Some(index) = self.children.iter().position(|child| child.phase.pid() == Some(pid)) {
                    self.take_in_of(index, event, now, actions);
                }
            }
        }
    }

    fn stop_now(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.goal = Goal::Stop;
        for child in &mut self.children {
            let first = child.plan.stop_now_at;
            let gentler = !matches!(child.phase, Phase::Stopping { step, .. } if step >= first);
            if let Some(pid) = child.phase.pid().filter(|_| gentler) {
                child.stop_step(pid, first, None, now, actions);
            }
        }
    }

    fn set_level(&mut self, level: usize) {
        self.level = level.min(self.children.len());
        self.children.iter_mut().for_each(|child| child.on_trial = None);
        // What failed before has another chance at a new level.
        for child in &mut self.children {
            match child.phase {
                Phase::Failed { .. } | Phase::Backoff { .. } => child.reset(),
                _ => child.forget_ends(),
            }
        }
    }

    /// Ends what is late to get ready or has fallen silent, and goes on where a stop is not obeyed.
    fn watch_clocks(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for child in &mut self.children {
            match child.phase.clone() {
                Phase::Starting { pid, since, .. } if now >= since + child.start_limit() => {
                    let reason = format!("not ready within {} s", child.start_limit().as_secs());
                    child.end_broken(pid, reason, now, actions);
                }
                Phase::Running { pid, heard } if now >= heard + child.plan.silence_limit => {
                    let reason = format!("silent for {} s", child.plan.silence_limit.as_secs());
                    child.end_broken(pid, reason, now, actions);
                }
                Phase::Stopping { pid, step, deadline, broken } if now >= deadline => {
                    let next = (step + 1).min(child.plan.stop.len() - 1);
                    child.stop_step(pid, next, broken, now, actions);
                }
                _ => {}
            }
        }
    }

    /// Stops what is above the level, last started first. Whether all of it is down.
    fn lower(&mut self, now: Instant, actions: &mut Vec<Action>) -> bool {
        for child in self.children[self.level..].iter_mut().rev() {
            match child.phase.clone() {
                Phase::Starting { pid, .. } | Phase::Running { pid, .. } => {
                    child.stop_step(pid, 0, None, now, actions);
                    return false;
                }
                Phase::Stopping { .. } => return false,
                // What a one-shot has done stays done.
                Phase::Waiting | Phase::Done => {}
                Phase::Backoff { .. } | Phase::Stopped | Phase::Failed { .. } => child.reset(),
            }
        }
        true
    }

    /// Starts what is due, in order: nothing before what it stands on is ready.
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

    /// Stops one after another, last started first.
    fn drive_down(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for child in self.children.iter_mut().rev() {
            match child.phase.clone() {
                Phase::Starting { pid, .. } | Phase::Running { pid, .. } => {
                    child.stop_step(pid, 0, None, now, actions);
                    return;
                }
                Phase::Stopping { .. } => return,
                Phase::Waiting | Phase::Backoff { .. } => child.phase = Phase::Stopped,
                Phase::Stopped | Phase::Done | Phase::Failed { .. } => {}
            }
        }
        if self.goal == Goal::Restart {
            self.children.iter_mut().for_each(Child::reset);
            self.goal = Goal::Run;
            self.drive_up(now, actions);
        }
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
