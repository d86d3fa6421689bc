//! What happens next in a run, given how far it is. Pure: a snapshot goes in, changes come out.
//!
//! The rules are Airflow's: <https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/dags.html>
//! (trigger rules), <https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/dag-run.html>
//! (the state of a run).

use super::dag::Graph;
use super::state::{RunState, TaskState};
use jiff::{SignedDuration, Timestamp};

/// A run as the database has it.
#[derive(Debug)]
pub struct Snapshot<'a> {
    pub graph: &'a Graph,
    /// Nothing new begins in a paused DAG; what has ended is still told.
    pub is_paused: bool,
    pub instances: Vec<Instance>,
    pub now: Timestamp,
}

#[derive(Debug, Clone)]
pub struct Instance {
    /// Its task's place in the graph; none when the task is not in this version any more.
    pub place: Option<usize>,
    pub state: Option<TaskState>,
    pub try_number: i32,
    pub max_tries: i32,
    pub due_at: Option<Timestamp>,
    /// What the agent wrote about the try with that number, once it has ended.
    pub ended: Option<EndedTry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedTry {
    pub outcome: Outcome,
    pub at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Skipped,
    Failed { may_retry: bool },
}

/// A new state for the instance at `index` of the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    pub index: usize,
    pub to: TaskState,
    pub try_number: i32,
    /// Only of one that is to be tried again.
    pub due_at: Option<Timestamp>,
    pub kind: Kind,
}

/// Which dates a transition sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A try ended: the dates are the try's.
    TryEnded,
    /// It ended without having run: it began and ended now.
    NeverRan,
    /// It waits for its turn.
    Waiting,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub transitions: Vec<Transition>,
    /// The run's new state, when it is over.
    pub run: Option<RunState>,
}

/// Everything that can be said now. Applying it and asking again gives an empty plan.
pub fn plan(snapshot: &Snapshot<'_>) -> Plan {
    let mut planner = Planner::new(snapshot);
    planner.settle_ended_tries();
    if snapshot.is_paused {
        return planner.finish(None);
    }
    let ready = planner.follow_arrows();
    planner.queue(ready);
    let run = planner.run_state();
    planner.finish(run)
}

struct Planner<'a> {
    snapshot: &'a Snapshot<'a>,
    /// The states as they will be, by index.
    states: Vec<Option<TaskState>>,
    /// When each is due, likewise.
    dues: Vec<Option<Timestamp>>,
    /// The index of each task's instance.
    instance_of: Vec<Option<usize>>,
    transitions: Vec<Transition>,
}

impl<'a> Planner<'a> {
    fn new(snapshot: &'a Snapshot<'a>) -> Self {
        let mut instance_of = vec![None; snapshot.graph.len()];
        for (index, instance) in snapshot.instances.iter().enumerate() {
            if let Some(place) = instance.place {
                instance_of[place] = Some(index);
            }
        }
        let states = snapshot.instances.iter().map(|instance| instance.state).collect();
        let dues = snapshot.instances.iter().map(|instance| instance.due_at).collect();
        Self { snapshot, states, dues, instance_of, transitions: Vec::new() }
    }

    fn change(&mut self, index: usize, to: TaskState, try_number: i32, due_at: Option<Timestamp>, kind: Kind) {
        self.states[index] = Some(to);
        self.dues[index] = due_at;
        self.transitions.push(Transition { index, to, try_number, due_at, kind });
    }

    /// The agent has said how a try ended; what that means for the task is decided here.
    fn settle_ended_tries(&mut self) {
        for index in 0..self.snapshot.instances.len() {
            let instance = &self.snapshot.instances[index];
            let number = instance.try_number;
            match (instance.state, instance.ended) {
                // Cleared while it ran, and the DAG has no such task any more.
                (Some(TaskState::Restarting), Some(_)) if instance.place.is_none() => {
                    self.change(index, TaskState::Removed, number, None, Kind::TryEnded);
                }
                // Cleared while it ran: the try that ended is not the answer any more.
                (Some(TaskState::Restarting), Some(_)) => {
                    self.change(index, TaskState::UpForRetry, number, Some(self.snapshot.now), Kind::TryEnded);
                }
                (Some(TaskState::Running), Some(ended)) => {
                    let (to, due_at) = self.after(instance, ended);
                    self.change(index, to, number, due_at, Kind::TryEnded);
                }
                _ => {}
            }
        }
    }

    fn after(&self, instance: &Instance, ended: EndedTry) -> (TaskState, Option<Timestamp>) {
        match ended.outcome {
            Outcome::Success => (TaskState::Success, None),
            Outcome::Skipped => (TaskState::Skipped, None),
            Outcome::Failed { may_retry } => {
                let task = instance.place.map(|place| self.snapshot.graph.task(place));
                match task {
                    // As Airflow asks: the number of the try against the most, which clearing raises.
                    Some(task) if may_retry && instance.max_tries > 0 && instance.try_number <= instance.max_tries => {
                        (TaskState::UpForRetry, Some(later(ended.at, task.retry_delay)))
                    }
                    _ => (TaskState::Failed, None),
                }
            }
        }
    }

    /// Each task after those it waits for: fails or skips what cannot run, and returns what can.
    fn follow_arrows(&mut self) -> Vec<usize> {
        let mut ready = Vec::new();
        for place in 0..self.snapshot.graph.len() {
            let Some(index) = self.instance_of[place] else { continue };
            let instance = &self.snapshot.instances[index];
            match self.states[index] {
                None | Some(TaskState::Scheduled) => match self.all_success(place) {
                    Rule::Run if self.snapshot.graph.task(place).is_empty() => {
                        let number = instance.try_number + i32::from(instance.state.is_none());
                        self.change(index, TaskState::Success, number, None, Kind::NeverRan);
                    }
                    Rule::Run => ready.push(index),
                    Rule::Wait => {}
                    Rule::End(state) => self.change(index, state, instance.try_number, None, Kind::NeverRan),
                },
                Some(TaskState::UpForRetry) if self.dues[index].is_none_or(|due| due <= self.snapshot.now) => {
                    match self.all_success(place) {
                        Rule::Run => ready.push(index),
                        Rule::Wait => {}
                        // What it waits for was cleared and has failed since.
                        Rule::End(state) => self.change(index, state, instance.try_number, None, Kind::NeverRan),
                    }
                }
                _ => {}
            }
        }
        ready
    }

    /// The trigger rule `all_success`: the first that failed or was skipped decides, without waiting
    /// for the others.
    fn all_success(&self, place: usize) -> Rule {
        let mut rule = Rule::Run;
        for up in self.snapshot.graph.upstream(place) {
            match self.instance_of[*up].and_then(|index| self.states[index]) {
                Some(TaskState::Success) => {}
                Some(TaskState::Failed | TaskState::UpstreamFailed) => return Rule::End(TaskState::UpstreamFailed),
                Some(TaskState::Skipped) => rule = Rule::End(TaskState::Skipped),
                _ if rule == Rule::Run => rule = Rule::Wait,
                _ => {}
            }
        }
        rule
    }

    /// As many as `max_active_tasks` allows go to the agent; the others are next in line.
    fn queue(&mut self, ready: Vec<usize>) {
        let limit = match self.snapshot.graph.structure.max_active_tasks {
            0 => usize::MAX,
            limit => limit as usize,
        };
        let active = self.states.iter().flatten().filter(|state| state.is_active()).count();
        let mut room = limit.saturating_sub(active);
        for index in ready {
            let instance = &self.snapshot.instances[index];
            // The number goes up when a task is scheduled, not again when its turn comes.
            let number = instance.try_number + i32::from(self.states[index] != Some(TaskState::Scheduled));
            if room > 0 {
                room -= 1;
                self.change(index, TaskState::Queued, number, None, Kind::Waiting);
            } else if self.states[index] != Some(TaskState::Scheduled) {
                self.change(index, TaskState::Scheduled, number, None, Kind::Waiting);
            }
        }
    }

    /// Over when every task is; failed when one that nothing waits for has failed.
    fn run_state(&self) -> Option<RunState> {
        let finished = |state: &Option<TaskState>| state.is_some_and(TaskState::is_finished);
        if !self.states.iter().all(finished) {
            return None;
        }
        let failed = self.snapshot.instances.iter().zip(&self.states).any(|(instance, state)| {
            instance.place.is_some_and(|place| self.snapshot.graph.is_leaf(place))
                && matches!(state, Some(TaskState::Failed | TaskState::UpstreamFailed))
        });
        Some(if failed { RunState::Failed } else { RunState::Success })
    }

    /// One transition for each instance: what it was on the way is nobody's business.
    fn finish(self, run: Option<RunState>) -> Plan {
        let mut last: Vec<Option<Transition>> = vec![None; self.snapshot.instances.len()];
        for transition in self.transitions {
            let index = transition.index;
            last[index] = Some(transition);
        }
        Plan { transitions: last.into_iter().flatten().collect(), run }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Run,
    Wait,
    End(TaskState),
}

/// `seconds` after `at`, as far as the calendar goes.
fn later(at: Timestamp, seconds: f64) -> Timestamp {
    let delay = SignedDuration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(SignedDuration::MAX);
    at.checked_add(delay).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
