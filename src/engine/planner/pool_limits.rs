//! Chooses which of the tasks that may run are queued for the agent, the process that runs tasks: as many as pools and
//! limits allow, the highest weight first. Pure.
//!
//! <https://airflow.apache.org/docs/apache-airflow/stable/administration-and-deployment/pools.html>

use super::graph::Graph;
use crate::model::keys::{InstanceKey, RunKey};
use crate::model::state::TaskState;
use jiff::Timestamp;
use std::collections::HashMap;

/// A task instance that may run and waits for a slot.
#[derive(Debug, Clone)]
pub struct Waiting {
    pub instance: InstanceKey,
    pub pool: String,
    pub pool_slots: i32,
    pub weight: i32,
    pub logical_date: Option<Timestamp>,
    /// Maximum number of executing tasks of its run; 0 is no limit.
    pub max_active_tasks: u32,
    pub max_active_tis_per_dag: Option<u32>,
    pub max_active_tis_per_dagrun: Option<u32>,
}

impl Waiting {
    /// `task_index` is the task's index in the graph.
    pub fn new(instance: InstanceKey, graph: &Graph, task_index: usize, logical_date: Option<Timestamp>) -> Self {
        let task = graph.task(task_index);
        Self {
            instance,
            pool: task.pool().to_owned(),
            pool_slots: task.pool_slots,
            weight: task.weight,
            logical_date,
            max_active_tasks: graph.structure.max_active_tasks,
            max_active_tis_per_dag: task.max_active_tis_per_dag,
            max_active_tis_per_dagrun: task.max_active_tis_per_dagrun,
        }
    }

    /// The usage that the instance adds once it is queued.
    fn taken(&self) -> SlotUse<'_> {
        let (task_id, pool, slots) = (self.instance.task_id.as_str(), self.pool.as_str(), self.pool_slots.into());
        SlotUse { task_id, state: TaskState::Queued, pool, slots, count: 1 }
    }
}

/// Slots of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSlots {
    /// Size of the pool; -1 is no limit.
    pub all: i64,
    pub used: i64,
    pub include_deferred: bool,
}

impl PoolSlots {
    /// True if task instances in this state occupy slots of the pool.
    fn counts(&self, state: TaskState) -> bool {
        state.is_executing() || (self.include_deferred && state == TaskState::Deferred)
    }
}

/// Task instances of one task in one state, with the slots that they occupy.
#[derive(Debug, Clone, Copy)]
pub struct SlotUse<'a> {
    pub task_id: &'a str,
    pub state: TaskState,
    pub pool: &'a str,
    /// Slots of all `count` instances together.
    pub slots: i64,
    pub count: u32,
}

/// Current usage of each limit.
#[derive(Debug, Default, Clone)]
pub struct Usage {
    pub pools: HashMap<String, PoolSlots>,
    /// Number of executing tasks of each run, for `max_active_tasks`.
    pub runs: HashMap<RunKey, u32>,
    /// Number of instances in flight of each task of each run, for `max_active_tis_per_dag` and
    /// `max_active_tis_per_dagrun`.
    pub tasks: HashMap<(RunKey, String), u32>,
}

impl Usage {
    /// Adds task instances of a run to each limit that counts their state.
    pub fn take(&mut self, run: &RunKey, taken: SlotUse<'_>) {
        let SlotUse { task_id, state, pool, slots, count } = taken;
        if let Some(pool) = self.pools.get_mut(pool).filter(|pool| pool.counts(state)) {
            pool.used += slots;
        }
        if state.is_executing() {
            *self.runs.entry(run.clone()).or_default() += count;
        }
        if state.is_in_flight() {
            *self.tasks.entry((run.clone(), task_id.to_owned())).or_default() += count;
        }
    }

    fn has_capacity(&self, waiting: &Waiting) -> bool {
        // A pool that does not exist has no slots.
        let Some(pool) = self.pools.get(&waiting.pool) else { return false };
        if pool.all >= 0 && i64::from(waiting.pool_slots) > pool.all - pool.used {
            return false;
        }
        !self.is_run_full(&waiting.instance.run, waiting.max_active_tasks) && !self.is_task_full(waiting)
    }

    /// Number of further tasks that the run may execute. A `max_active_tasks` of 0 is no limit.
    fn free_in_run(&self, run: &RunKey, max_active_tasks: u32) -> u32 {
        match max_active_tasks {
            0 => u32::MAX,
            limit => limit.saturating_sub(self.runs.get(run).copied().unwrap_or(0)),
        }
    }

    /// True when the run executes as many tasks as it may.
    pub(crate) fn is_run_full(&self, run: &RunKey, max_active_tasks: u32) -> bool {
        self.free_in_run(run, max_active_tasks) == 0
    }

    /// True when a limit of the task allows no further instance.
    pub(crate) fn is_task_full(&self, waiting: &Waiting) -> bool {
        let task_count =
            || self.tasks.get(&(waiting.instance.run.clone(), waiting.instance.task_id.clone())).copied().unwrap_or(0);
        waiting.max_active_tis_per_dagrun.is_some_and(|limit| task_count() >= limit)
            || waiting.max_active_tis_per_dag.is_some_and(|limit| self.dag_count(waiting) >= limit)
    }

    /// True when the pool has a free slot and the run is below its `max_active_tasks`; 0 is no limit.
    pub(crate) fn can_queue(&self, run: &RunKey, pool: &str, max_active_tasks: u32) -> bool {
        self.open_slots(pool) > 0 && !self.is_run_full(run, max_active_tasks)
    }

    /// Maximum number of instances of a task that can be queued at once in a run.
    pub(crate) fn max_queueable(&self, run: &RunKey, graph: &Graph, task_index: usize) -> usize {
        let task = graph.task(task_index);
        let of_pool = self.open_slots(task.pool()) / i64::from(task.pool_slots.max(1));
        let of_run = self.free_in_run(run, graph.structure.max_active_tasks);
        of_pool.min(of_run.into()).try_into().unwrap_or(usize::MAX)
    }

    /// Number of free slots of a pool.
    fn open_slots(&self, pool: &str) -> i64 {
        match self.pools.get(pool) {
            None => 0,
            Some(pool) if pool.all < 0 => i64::MAX,
            Some(pool) => (pool.all - pool.used).max(0),
        }
    }

    /// The pools with free slots, each with their number.
    pub(crate) fn open_pools(&self) -> Vec<(&str, i64)> {
        let pools = self.pools.keys().map(|name| (name.as_str(), self.open_slots(name)));
        pools.filter(|(_, open)| *open > 0).collect()
    }

    /// Number of instances in flight of the task in all runs of its DAG.
    fn dag_count(&self, waiting: &Waiting) -> u32 {
        let is_same_task = |(run, task): &&(RunKey, String)| {
            run.dag_id == waiting.instance.run.dag_id && *task == waiting.instance.task_id
        };
        self.tasks.iter().filter(|(key, _)| is_same_task(key)).map(|(_, count)| count).sum()
    }
}

/// Returns the indices of the instances to queue, in the order in which to queue them, and the usage after that.
pub(crate) fn choose(waiting: &[&Waiting], mut usage: Usage) -> (Vec<usize>, Usage) {
    let mut order: Vec<usize> = (0..waiting.len()).collect();
    order.sort_by_key(|index| {
        let candidate = waiting[*index];
        // Instances without a date come last: Airflow sorts in Postgres, where NULLs are last.
        (
            std::cmp::Reverse(candidate.weight),
            candidate.logical_date.is_none(),
            candidate.logical_date,
            candidate.instance.position,
            // Airflow does not define the order of ties. Sorting by run makes it independent of which run the scheduler
            // advances; within a DAG, the run with the lower run id comes first.
            &candidate.instance.run,
        )
    });
    let mut chosen = Vec::new();
    for index in order {
        let candidate = waiting[index];
        if usage.has_capacity(candidate) {
            usage.take(&candidate.instance.run, candidate.taken());
            chosen.push(index);
        }
    }
    (chosen, usage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::keys::Position;

    fn run(dag_id: &str, run_id: &str) -> RunKey {
        RunKey { dag_id: dag_id.to_owned(), run_id: run_id.to_owned() }
    }

    /// A waiting instance in the pool `p`, without limits of its own.
    fn waiting(run_id: &str, task_id: &str) -> Waiting {
        Waiting {
            instance: InstanceKey::only(run("d", run_id), task_id),
            pool: "p".to_owned(),
            pool_slots: 1,
            weight: 1,
            logical_date: None,
            max_active_tasks: 0,
            max_active_tis_per_dag: None,
            max_active_tis_per_dagrun: None,
        }
    }

    fn choose(waiting: &[Waiting], usage: Usage) -> Vec<usize> {
        super::choose(&waiting.iter().collect::<Vec<_>>(), usage).0
    }

    fn pool(all: i64, used: i64) -> Usage {
        let pool = PoolSlots { all, used, include_deferred: false };
        Usage { pools: HashMap::from([("p".to_owned(), pool)]), ..Usage::default() }
    }

    #[test]
    fn a_pool_grants_only_its_free_slots() {
        let tasks = ["a", "b", "c"].map(|task_id| waiting("r", task_id));
        assert_eq!(choose(&tasks, pool(3, 1)), [0, 1]);
        assert_eq!(choose(&tasks, pool(-1, 50)), [0, 1, 2]);
        assert_eq!(choose(&tasks, pool(0, 0)), [0_usize; 0]);
        assert_eq!(choose(&tasks, Usage::default()), [0_usize; 0], "a pool that does not exist");
    }

    #[test]
    fn a_task_that_does_not_fit_does_not_block_a_smaller_one() {
        let large = Waiting { pool_slots: 3, weight: 9, ..waiting("r", "large") };
        assert_eq!(choose(&[large, waiting("r", "small")], pool(2, 0)), [1]);
    }

    #[test]
    fn a_mapped_task_queues_what_pool_and_run_allow() {
        let graph = |max_active_tasks: u32| {
            let task = serde_json::json!({"task_id": "a", "operator": "o", "pool": "p", "pool_slots": 2});
            let dag = serde_json::json!({"dag_id": "d", "max_active_tasks": max_active_tasks, "tasks": [task]});
            Graph::new(serde_json::from_value(dag).unwrap())
        };
        let max_queueable = |max_active_tasks: u32, all: i64, running: u32| {
            let run = run("d", "r");
            let usage = Usage { runs: HashMap::from([(run.clone(), running)]), ..pool(all, 1) };
            usage.max_queueable(&run, &graph(max_active_tasks), 0)
        };
        assert_eq!(max_queueable(0, 10, 3), 4, "nine free slots");
        assert_eq!(max_queueable(5, 10, 3), 2, "five tasks of a run at once");
        assert_eq!(max_queueable(5, -1, 7), 0);
        assert!(max_queueable(0, -1, 7) > 1_000_000, "no limit");
        assert_eq!(max_queueable(0, 0, 0), 0);
    }

    #[test]
    fn order_is_weight_then_date_then_map_index() {
        let date = |text: &str| Some(text.parse().unwrap());
        let mapped = |task_id: &str, map_index: i32| Waiting {
            instance: InstanceKey::new(run("d", "r"), task_id, Position::mapped(map_index)),
            logical_date: date("2026-01-01T00:00:00Z"),
            ..waiting("r", task_id)
        };
        let tasks = [
            waiting("r", "without a date"),
            Waiting { logical_date: date("2026-01-02T00:00:00Z"), ..waiting("r", "later") },
            mapped("second", 1),
            mapped("first", 0),
            Waiting { weight: 2, ..waiting("r", "heavy") },
        ];
        assert_eq!(choose(&tasks, pool(-1, 0)), [4, 3, 2, 1, 0]);
        // Ties between two runs are sorted by run id, not by the order of the input.
        let tied = ["manual__2", "manual__1"].map(|run_id| waiting(run_id, "t"));
        assert_eq!(choose(&tied, pool(1, 0)), [1]);
    }

    #[test]
    fn max_active_tasks_limits_a_run() {
        let tasks = ["a", "b", "c"].map(|task_id| Waiting { max_active_tasks: 2, ..waiting("r", task_id) });
        assert_eq!(choose(&tasks, pool(-1, 0)), [0, 1]);
        let mut usage = pool(-1, 0);
        let two = SlotUse { task_id: "z", state: TaskState::Running, pool: "p", slots: 2, count: 2 };
        usage.take(&run("d", "r"), two);
        assert_eq!(choose(&tasks, usage), [0_usize; 0]);
    }

    #[test]
    fn limits_a_task_per_run_and_per_dag() {
        let task_count =
            ["r", "r", "s"].map(|run_id| Waiting { max_active_tis_per_dagrun: Some(1), ..waiting(run_id, "t") });
        assert_eq!(choose(&task_count, pool(-1, 0)), [0, 2]);
        let dag_count =
            ["r", "s", "s"].map(|run_id| Waiting { max_active_tis_per_dag: Some(2), ..waiting(run_id, "t") });
        assert_eq!(choose(&dag_count, pool(-1, 0)), [0, 1]);
        let other_dag = Waiting {
            instance: InstanceKey::only(run("other", "r"), "t"),
            max_active_tis_per_dag: Some(2),
            ..waiting("r", "t")
        };
        let both = [dag_count[0].clone(), dag_count[1].clone(), other_dag];
        assert_eq!(choose(&both, pool(-1, 0)), [0, 1, 2], "a task with the same id in another DAG");
    }

    /// Expected counts of each state: the pool's slots, `max_active_tasks` and `max_active_tis_per_dag`, first without
    /// and then with `include_deferred`. Source: `EXECUTION_STATES`, `ACTIVE_STATES` and `Pool.get_occupied_states` of
    /// Airflow 3.3.2.
    #[test]
    fn each_limit_counts_the_states_that_airflow_counts() {
        let counted = |state, include_deferred| {
            let mut usage = pool(9, 0);
            usage.pools.values_mut().for_each(|pool| pool.include_deferred = include_deferred);
            usage.take(&run("d", "r"), SlotUse { task_id: "t", state, pool: "p", slots: 1, count: 1 });
            (usage.pools["p"].used, usage.runs.values().sum::<u32>(), usage.tasks.values().sum::<u32>())
        };
        for state in TaskState::ALL {
            let (without, with) = (counted(*state, false), counted(*state, true));
            let expected = match state {
                TaskState::Queued | TaskState::Running => ((1, 1, 1), (1, 1, 1)),
                TaskState::Deferred => ((0, 0, 1), (1, 0, 1)),
                TaskState::AwaitingInput => ((0, 0, 1), (0, 0, 1)),
                _ => ((0, 0, 0), (0, 0, 0)),
            };
            assert_eq!((without, with), expected, "{state}");
        }
    }
}
