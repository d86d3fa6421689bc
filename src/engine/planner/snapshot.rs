//! The planner's input, a snapshot of a run, and its output, a plan.

use super::graph::Graph;
use super::retry;
use crate::model::keys::Position;
use crate::model::state::{RunState, TaskState};
use jiff::Timestamp;
use std::collections::{HashMap, HashSet};

/// A run as it is stored in the database.
#[derive(Debug)]
pub struct Snapshot<'a> {
    pub graph: &'a Graph,
    /// No task of a paused DAG starts; tries that ended are still settled.
    pub is_paused: bool,
    pub instances: Vec<Instance>,
    pub now: Timestamp,
    pub logical_date: Option<Timestamp>,
    /// The logical date, if it was in the future when the run was queued; no task starts before it. A run whose logical
    /// date had passed by then continues even if the clock is set back.
    pub not_before: Option<Timestamp>,
    /// Results of the sensors whose poke was due, by task index.
    pub polled: HashMap<usize, Polled>,
    /// The dates of the run that sensors wait for; with `None`, every sensor waits in its own process.
    pub dates: Option<Dates>,
    /// When the `dagrun_timeout` expires.
    pub times_out_at: Option<Timestamp>,
    /// The state in which a user has ended the run, while its teardowns run.
    pub marked: Option<RunState>,
    /// Number of elements returned by the tasks that others are mapped over, by task index.
    pub lengths: HashMap<usize, Returned>,
    /// Decisions of branches and short circuits, by task index and map index.
    pub decisions: HashMap<(usize, i32), Decision>,
    /// Indices of the tasks that `depends_on_past` or `wait_for_downstream` holds back.
    pub held_by_past: HashSet<usize>,
}

impl<'a> Snapshot<'a> {
    /// A snapshot with these instances and nothing else: no dates, no results, no limits.
    pub fn new(graph: &'a Graph, instances: Vec<Instance>, now: Timestamp) -> Self {
        Self {
            graph,
            is_paused: false,
            instances,
            now,
            logical_date: None,
            not_before: None,
            polled: HashMap::new(),
            dates: None,
            times_out_at: None,
            marked: None,
            lengths: HashMap::new(),
            decisions: HashMap::new(),
            held_by_past: HashSet::new(),
        }
    }
}

/// Number of elements that a task has returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Returned {
    /// The length of the task's list.
    Elements(usize),
    /// For a mapped task: the map indexes that returned something.
    Instances(HashSet<i32>),
}

impl Returned {
    pub fn count(&self) -> usize {
        match self {
            Self::Elements(length) => *length,
            Self::Instances(indexes) => indexes.len(),
        }
    }
}

/// Result of a sensor's poke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polled {
    NotYet,
    Met,
    /// The sensor's own code has to decide.
    NeedsProcess,
}

/// Dates of a run.
#[derive(Debug, Clone, Copy)]
pub struct Dates {
    pub interval_end: Option<Timestamp>,
    pub run_after: Timestamp,
}

/// A task instance of the run.
#[derive(Debug, Clone)]
pub struct Instance {
    pub task_id: String,
    /// The task's index in the graph; `None` when the DAG version of the run no longer has the task.
    pub task_index: Option<usize>,
    pub position: Position,
    pub state: Option<TaskState>,
    pub try_number: i32,
    pub max_tries: i32,
    /// When a retry may start or a sensor pokes again; for a deferred task or one that awaits input, when it
    /// may resume.
    pub due_at: Option<Timestamp>,
    /// For a sensor that waits without a process: when it started to wait.
    pub waits_since: Option<Timestamp>,
    /// The outcome that the agent wrote for the current try, once it has ended.
    pub ended: Option<EndedTry>,
}

/// The recorded end of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedTry {
    pub outcome: Outcome,
    /// When the try ended.
    pub at: Timestamp,
    /// For the gate of a loop: whether the loop stops after this iteration.
    pub loop_stops: Option<bool>,
    /// Tasks that the try has decided to skip immediately.
    pub skips: Vec<String>,
    /// True if the try has reported asset events, which need not be of outlets that the DAG file declares.
    pub has_asset_events: bool,
}

impl EndedTry {
    pub fn new(outcome: Outcome, at: Timestamp) -> Self {
        Self { outcome, at, loop_stops: None, skips: Vec::new(), has_asset_events: false }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Skipped,
    Failed {
        may_retry: bool,
        /// When to retry, if the task itself has set the time; otherwise `retry_delay` applies.
        due: Option<Timestamp>,
    },
    /// A sensor that pokes again later.
    Rescheduled {
        due: Timestamp,
    },
    /// The task continues once its trigger has fired; `fired` is set if that has happened.
    Deferred {
        fired: Option<Timestamp>,
    },
    /// The task continues once a person has answered; `answered` is set if that has happened.
    AwaitingInput {
        answered: Option<Timestamp>,
    },
}

/// The decision of a branch or short circuit: the direct downstream tasks that run, or those that are skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Followed(HashSet<String>),
    Skipped(HashSet<String>),
}

impl Decision {
    pub fn skips(&self, task_id: &str) -> bool {
        match self {
            Self::Followed(ids) => !ids.contains(task_id),
            Self::Skipped(ids) => ids.contains(task_id),
        }
    }
}

/// A new state for the instance at `index`; indices past the snapshot's instances are the added ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    pub index: usize,
    pub to: TaskState,
    pub try_number: i32,
    /// Set only for a retry, and for a rescheduled, deferred or awaiting instance.
    pub due_at: Option<Timestamp>,
    pub kind: TransitionKind,
}

/// Which dates a transition sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransitionKind {
    /// The try has ended; the instance gets its end date.
    TryEnded,
    /// The instance started and ended now, without a process.
    NoOp,
    /// The instance ended now, without running or because of `fail_fast` or `dagrun_timeout`.
    NeverRan,
    /// The instance waits for a slot.
    Waiting,
    /// A sensor waits without a process.
    Waits { since: Timestamp },
    /// A sensor that waited without a process ended now.
    Waited,
    /// The dates do not change.
    KeepDates,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Instances with map index -1 that get map index 0.
    pub expanded: Vec<usize>,
    /// New instances, by task index and map index.
    pub added: Vec<(usize, i32)>,
    /// Iterations that begin, by the index of the loop's group. Their instances are added before the next plan.
    pub iterations: Vec<(usize, i32)>,
    /// Removed instances that exist again; their state is cleared.
    pub restored: Vec<usize>,
    /// New states. Instances that may run become `scheduled`; `competition::Competition::queue` then changes some to
    /// `queued`.
    pub transitions: Vec<Transition>,
    /// The run's final state and the reason, when the run has ended.
    pub run: Option<(RunState, Reason)>,
}

impl Plan {
    /// Applies the plan to the instances; the added ones are appended.
    pub fn apply(&self, graph: &Graph, instances: &mut Vec<Instance>) {
        self.expanded
            .iter()
            .for_each(|index| instances[*index].position = instances[*index].position.with_map_index(0));
        instances.extend(self.added.iter().map(|(task_index, map_index)| Instance {
            task_id: graph.task(*task_index).task_id.clone(),
            task_index: Some(*task_index),
            position: graph.position(*task_index, *map_index),
            state: None,
            try_number: 0,
            max_tries: i32::try_from(graph.task(*task_index).retries).unwrap_or(i32::MAX),
            due_at: None,
            waits_since: None,
            ended: None,
        }));
        for index in &self.restored {
            let instance = &mut instances[*index];
            let task = instance.task_index.map(|task_index| graph.task(task_index));
            instance.max_tries = task.map_or(0, |task| retry::max_tries_after_clear(task, instance.try_number));
            instance.state = None;
            instance.due_at = None;
        }
        for transition in &self.transitions {
            let instance = &mut instances[transition.index];
            instance.state = Some(transition.to);
            instance.try_number = transition.try_number;
            instance.due_at = transition.due_at;
            instance.waits_since =
                if let TransitionKind::Waits { since } = transition.kind { Some(since) } else { None };
            instance.ended = None;
        }
    }

    /// The instances that a timeout or a deadlock has kept from finishing, the candidates for the task instance of the
    /// DAG's callbacks; `None` after another end of the run. As in Airflow, those of a deadlock have a direct upstream
    /// task that has finished.
    pub(crate) fn unfinished_at_end(&self, snapshot: &Snapshot<'_>) -> Option<Vec<usize>> {
        match self.run?.1 {
            Reason::Success | Reason::TaskFailure | Reason::Marked => None,
            Reason::TimedOut => {
                let cut = (TaskState::Skipped, TransitionKind::NeverRan);
                let is_cut = |transition: &&Transition| (transition.to, transition.kind) == cut;
                Some(self.transitions.iter().filter(is_cut).map(|transition| transition.index).collect())
            }
            Reason::Deadlocked => {
                let states = self.states_after(snapshot);
                let is_finished = |index: &usize| states[*index].is_some_and(TaskState::is_finished);
                let task_of = |index: usize| self.instance_after(snapshot, index).0;
                let (ended, open): (Vec<usize>, Vec<usize>) = (0..states.len()).partition(is_finished);
                let ended: HashSet<usize> = ended.into_iter().filter_map(task_of).collect();
                let is_blocked = |task: usize| snapshot.graph.node(task).upstream.iter().any(|up| ended.contains(up));
                Some(open.into_iter().filter(|index| task_of(*index).is_some_and(is_blocked)).collect())
            }
        }
    }

    /// The states of all instances after the plan, the added ones last.
    pub(crate) fn states_after(&self, snapshot: &Snapshot<'_>) -> Vec<Option<TaskState>> {
        let mut states: Vec<Option<TaskState>> = snapshot.instances.iter().map(|instance| instance.state).collect();
        states.resize(states.len() + self.added.len(), None);
        self.restored.iter().for_each(|index| states[*index] = None);
        self.transitions.iter().for_each(|transition| states[transition.index] = Some(transition.to));
        states
    }

    /// The state that an instance has in the database before the plan; `None` is no state.
    pub(crate) fn state_before(&self, snapshot: &Snapshot<'_>, index: usize) -> Option<TaskState> {
        snapshot.instances.get(index).filter(|_| !self.restored.contains(&index)).and_then(|instance| instance.state)
    }

    /// The task id and the position of an instance after the plan.
    pub(crate) fn name_after<'a>(&self, snapshot: &'a Snapshot<'_>, index: usize) -> (&'a str, Position) {
        let (task_index, position) = self.instance_after(snapshot, index);
        let added = || task_index.map_or("", |task_index| &snapshot.graph.task(task_index).task_id);
        (snapshot.instances.get(index).map_or_else(added, |instance| &instance.task_id), position)
    }

    /// The task index and the position of an instance after the plan.
    pub(crate) fn instance_after(&self, snapshot: &Snapshot<'_>, index: usize) -> (Option<usize>, Position) {
        match snapshot.instances.get(index) {
            Some(instance) if self.expanded.contains(&index) => {
                (instance.task_index, instance.position.with_map_index(0))
            }
            Some(instance) => (instance.task_index, instance.position),
            None => {
                let (task_index, map_index) = self.added[index - snapshot.instances.len()];
                (Some(task_index), snapshot.graph.position(task_index, map_index))
            }
        }
    }
}

leoflow_base::words! {
    /// Why a run ended, as Airflow passes it to callbacks; `Marked` is for listeners only.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Reason: as_str {
        Success = "success",
        TaskFailure = "task_failure",
        Deadlocked = "all_tasks_deadlocked",
        TimedOut = "timed_out",
        /// A user has marked the run.
        Marked = "marked",
    }
}
