//! What goes into the planner, and what comes out of it.

use super::graph::Graph;
use super::retry;
use crate::engine::state::{RunState, TaskState};
use jiff::Timestamp;
use std::collections::{HashMap, HashSet};

/// A run as the database has it.
#[derive(Debug)]
pub struct Snapshot<'a> {
    pub graph: &'a Graph,
    /// Nothing new begins in a paused DAG; what has ended is still told.
    pub is_paused: bool,
    pub instances: Vec<Instance>,
    pub now: Timestamp,
    pub logical_date: Option<Timestamp>,
    /// What sensors see whose next look is due, by the task's index.
    pub polled: HashMap<usize, Polled>,
    /// What sensors wait by; none where each has a process to wait in.
    pub dates: Option<Dates>,
    /// When the dagrun_timeout is over.
    pub deadline: Option<Timestamp>,
    /// How much the tasks have returned that others are mapped over, by task.
    pub lengths: HashMap<String, Returned>,
    /// What branches and short circuits have decided, by the task's index and the map index.
    pub decisions: HashMap<(usize, i32), Decision>,
    /// Tasks that wait for their own past.
    pub held_by_past: HashSet<usize>,
}

/// How much a task has returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Returned {
    /// So many elements.
    Elements(usize),
    /// Of a mapped task: which of its instances returned something.
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

/// What a sensor's look has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polled {
    NotYet,
    There,
    /// What follows from that is its own code's to say.
    NeedsProcess,
}

/// Of a run.
#[derive(Debug, Clone, Copy)]
pub struct Dates {
    pub interval_end: Option<Timestamp>,
    pub run_after: Timestamp,
}

#[derive(Debug, Clone)]
pub struct Instance {
    /// The task's index in the graph; none when the task is not in this version any more.
    pub task_index: Option<usize>,
    pub map_index: i32,
    pub state: Option<TaskState>,
    pub try_number: i32,
    pub max_tries: i32,
    pub due_at: Option<Timestamp>,
    /// Of a sensor for which nothing runs until then: since when it waits.
    pub waits_since: Option<Timestamp>,
    /// What the agent wrote about the try with that number, once it has ended.
    pub ended: Option<EndedTry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedTry {
    pub outcome: Outcome,
    pub at: Timestamp,
    /// Tasks that it has decided to skip at once.
    pub skips: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Skipped,
    Failed {
        may_retry: bool,
        /// When it is to be tried again, where the task has said so.
        due: Option<Timestamp>,
    },
    /// A sensor that looks again later.
    Rescheduled {
        due: Timestamp,
    },
    /// It goes on once a trigger has fired, which it may have done.
    Deferred {
        fired: Option<Timestamp>,
    },
    /// It goes on once a person has answered, who may have done so.
    AwaitingInput {
        answered: Option<Timestamp>,
    },
}

/// Which of the tasks right below a branch run.
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

/// A new state for the instance at `index`: of the snapshot, and after its end of what is added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    pub index: usize,
    pub to: TaskState,
    pub try_number: i32,
    /// Only of one that is to be tried again, or goes on.
    pub due_at: Option<Timestamp>,
    pub kind: Kind,
}

/// Which dates a transition sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A try ended: the dates are the try's.
    TryEnded,
    /// It began and ended now, without a process.
    Nothing,
    /// It ended without having run.
    NeverRan,
    /// It waits for its turn.
    Waiting,
    /// A sensor waits, without a process.
    Waits { since: Timestamp },
    /// It has waited, and ended now.
    Waited,
    /// The dates stay.
    Cut,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Instances without an index that get the index 0.
    pub expanded: Vec<usize>,
    /// Instances that are new, by the task's index and the map index.
    pub added: Vec<(usize, i32)>,
    /// Removed instances that are there again, without a state.
    pub restored: Vec<usize>,
    /// Those that may run have the state `scheduled`, until `concurrency::admit` lets some of them begin.
    pub transitions: Vec<Transition>,
    /// The run's new state and the reason, when it is over.
    pub run: Option<(RunState, Reason)>,
}

impl Plan {
    /// Makes the instances what they are once the plan is carried out; those that it adds come last.
    pub fn apply(&self, graph: &Graph, instances: &mut Vec<Instance>) {
        self.expanded.iter().for_each(|index| instances[*index].map_index = 0);
        instances.extend(self.added.iter().map(|(task_index, map_index)| Instance {
            task_index: Some(*task_index),
            map_index: *map_index,
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
            instance.max_tries = task.map_or(0, |task| retry::max_tries_again(task, instance.try_number));
            instance.state = None;
            instance.due_at = None;
        }
        for one in &self.transitions {
            let instance = &mut instances[one.index];
            instance.state = Some(one.to);
            instance.try_number = one.try_number;
            instance.due_at = one.due_at;
            instance.waits_since = if let Kind::Waits { since } = one.kind { Some(since) } else { None };
            instance.ended = None;
        }
    }

    /// The states of all instances, the added ones last, once the plan is carried out.
    pub fn states_after(&self, snapshot: &Snapshot<'_>) -> Vec<Option<TaskState>> {
        let mut states: Vec<Option<TaskState>> = snapshot.instances.iter().map(|instance| instance.state).collect();
        states.resize(states.len() + self.added.len(), None);
        self.restored.iter().for_each(|index| states[*index] = None);
        self.transitions.iter().for_each(|one| states[one.index] = Some(one.to));
        states
    }

    /// The task in the graph and the map index that an instance has once the plan is carried out.
    pub fn instance_after(&self, snapshot: &Snapshot<'_>, index: usize) -> (Option<usize>, i32) {
        match snapshot.instances.get(index) {
            Some(instance) if self.expanded.contains(&index) => (instance.task_index, 0),
            Some(instance) => (instance.task_index, instance.map_index),
            None => {
                let (task_index, map_index) = self.added[index - snapshot.instances.len()];
                (Some(task_index), map_index)
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Success,
    TaskFailure,
    Deadlocked,
    TimedOut,
}

impl Reason {
    /// Airflow's words for callbacks.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::TaskFailure => "task_failure",
            Self::Deadlocked => "all_tasks_deadlocked",
            Self::TimedOut => "timed_out",
        }
    }
}
