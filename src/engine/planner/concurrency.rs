//! Which of the tasks that may run are given to the agent: as many as pools and limits have room for, the
//! heaviest first. Pure.
//!
//! <https://airflow.apache.org/docs/apache-airflow/stable/administration-and-deployment/pools.html>

use super::graph::Graph;
use super::snapshot::{Kind, Plan, Snapshot, Transition};
use crate::engine::keys::RunKey;
use crate::engine::state::TaskState;
use jiff::Timestamp;
use std::collections::HashMap;

/// One that may run.
#[derive(Debug, Clone)]
pub struct Waiting {
    pub run: RunKey,
    pub task_id: String,
    pub map_index: i32,
    pub pool: String,
    pub pool_slots: i32,
    pub weight: i32,
    pub logical_date: Option<Timestamp>,
    /// Of its run; 0 is no limit.
    pub max_active_tasks: u32,
    pub max_active_tis_per_dag: Option<u32>,
    pub max_active_tis_per_dagrun: Option<u32>,
}

impl Waiting {
    /// `task_index` is the task's in the graph.
    pub fn new(
        run: &RunKey,
        graph: &Graph,
        task_index: usize,
        map_index: i32,
        logical_date: Option<Timestamp>,
    ) -> Self {
        let task = graph.task(task_index);
        Self {
            run: run.clone(),
            task_id: task.task_id.clone(),
            map_index,
            pool: task.pool().to_owned(),
            pool_slots: task.pool_slots,
            weight: task.weight,
            logical_date,
            max_active_tasks: graph.structure.max_active_tasks,
            max_active_tis_per_dag: task.max_active_tis_per_dag,
            max_active_tis_per_dagrun: task.max_active_tis_per_dagrun,
        }
    }

    /// What it takes once it is queued.
    fn taken(&self) -> Taken<'_> {
        let (task_id, pool, slots) = (self.task_id.as_str(), self.pool.as_str(), self.pool_slots.into());
        Taken { task_id, state: TaskState::Queued, pool, slots, count: 1 }
    }
}

/// The slots of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSlots {
    /// -1 is no limit.
    pub all: i64,
    pub used: i64,
    pub include_deferred: bool,
}

impl PoolSlots {
    fn takes(&self, state: TaskState) -> bool {
        state.is_executing() || (self.include_deferred && state == TaskState::Deferred)
    }
}

/// Task instances of one task and state.
#[derive(Debug, Clone, Copy)]
pub struct Taken<'a> {
    pub task_id: &'a str,
    pub state: TaskState,
    pub pool: &'a str,
    /// Of all of them.
    pub slots: i64,
    pub count: u32,
}

/// What the limits count.
#[derive(Debug, Default)]
pub struct Usage {
    pub pools: HashMap<String, PoolSlots>,
    /// For `max_active_tasks`.
    pub runs: HashMap<RunKey, u32>,
    /// For `max_active_tis_per_dag` and `max_active_tis_per_dagrun`.
    pub tasks: HashMap<(RunKey, String), u32>,
}

impl Usage {
    /// Counts task instances of a run for each limit that counts their state.
    pub fn take(&mut self, run: &RunKey, taken: Taken<'_>) {
        let Taken { task_id, state, pool, slots, count } = taken;
        if let Some(pool) = self.pools.get_mut(pool).filter(|pool| pool.takes(state)) {
            pool.used += slots;
        }
        if state.is_executing() {
            *self.runs.entry(run.clone()).or_default() += count;
        }
        if state.is_in_flight() {
            *self.tasks.entry((run.clone(), task_id.to_owned())).or_default() += count;
        }
    }

    fn has_room(&self, one: &Waiting) -> bool {
        // A pool that is not there has no slots.
        let Some(pool) = self.pools.get(&one.pool) else { return false };
        if pool.all >= 0 && i64::from(one.pool_slots) > pool.all - pool.used {
            return false;
        }
        let of_run = self.runs.get(&one.run).copied().unwrap_or(0);
        if one.max_active_tasks > 0 && of_run >= one.max_active_tasks {
            return false;
        }
        let in_run = || self.tasks.get(&(one.run.clone(), one.task_id.clone())).copied().unwrap_or(0);
        if one.max_active_tis_per_dagrun.is_some_and(|most| in_run() >= most) {
            return false;
        }
        one.max_active_tis_per_dag.is_none_or(|most| self.of_dag(one) < most)
    }

    fn of_dag(&self, one: &Waiting) -> u32 {
        let same = |(run, task): &&(RunKey, String)| run.dag_id == one.run.dag_id && *task == one.task_id;
        self.tasks.iter().filter(|(key, _)| same(key)).map(|(_, count)| count).sum()
    }
}

/// Which of them may begin, by their indices, in the order in which they are to.
pub fn choose(waiting: &[Waiting], usage: Usage) -> Vec<usize> {
    choose_among(&waiting.iter().collect::<Vec<_>>(), usage)
}

fn choose_among(waiting: &[&Waiting], mut usage: Usage) -> Vec<usize> {
    let mut order: Vec<usize> = (0..waiting.len()).collect();
    order.sort_by_key(|index| {
        let one = waiting[*index];
        // As Postgres sorts for Airflow: no date comes last.
        (std::cmp::Reverse(one.weight), one.logical_date.is_none(), one.logical_date, one.map_index)
    });
    let mut chosen = Vec::new();
    for index in order {
        let one = waiting[index];
        if usage.has_room(one) {
            usage.take(&one.run, one.taken());
            chosen.push(index);
        }
    }
    chosen
}

/// Turns what may run into what is to run, as far as pools and limits allow. The tasks of this run compete with those
/// that wait in `others`, other runs; `usage` is without this run. Returns the indices of the others that are to be
/// queued.
pub fn admit(
    run: &RunKey,
    snapshot: &Snapshot<'_>,
    plan: &mut Plan,
    mut usage: Usage,
    others: &[Waiting],
) -> Vec<usize> {
    let graph = snapshot.graph;
    let mut own = Vec::new();
    let mut candidates = Vec::new();
    for (index, state) in plan.states_after(snapshot).into_iter().enumerate() {
        let (Some(task_index), map_index) = plan.instance_after(snapshot, index) else { continue };
        match state {
            Some(TaskState::Scheduled) if !snapshot.is_paused => {
                own.push(index);
                candidates.push(Waiting::new(run, graph, task_index, map_index, snapshot.logical_date));
            }
            Some(state) => {
                let task = graph.task(task_index);
                let (task_id, pool, slots) = (task.task_id.as_str(), task.pool(), task.pool_slots.into());
                usage.take(run, Taken { task_id, state, pool, slots, count: 1 });
            }
            None => {}
        }
    }
    let all: Vec<&Waiting> = candidates.iter().chain(others).collect();
    let mut chosen_others = Vec::new();
    for index in choose_among(&all, usage) {
        match own.get(index) {
            Some(index) => queue(plan, snapshot, *index),
            None => chosen_others.push(index - own.len()),
        }
    }
    chosen_others
}

fn queue(plan: &mut Plan, snapshot: &Snapshot<'_>, index: usize) {
    if let Some(transition) = plan.transitions.iter_mut().find(|one| one.index == index) {
        transition.to = TaskState::Queued;
        return;
    }
    // One that has waited since an earlier step.
    let try_number = snapshot.instances[index].try_number;
    plan.transitions.push(Transition { index, to: TaskState::Queued, try_number, due_at: None, kind: Kind::Waiting });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(dag_id: &str, run_id: &str) -> RunKey {
        RunKey { dag_id: dag_id.to_owned(), run_id: run_id.to_owned() }
    }

    /// Without limits of its own, in a pool named `p`.
    fn waiting(run_id: &str, task_id: &str) -> Waiting {
        Waiting {
            run: run("d", run_id),
            task_id: task_id.to_owned(),
            map_index: -1,
            pool: "p".to_owned(),
            pool_slots: 1,
            weight: 1,
            logical_date: None,
            max_active_tasks: 0,
            max_active_tis_per_dag: None,
            max_active_tis_per_dagrun: None,
        }
    }

    fn pool(all: i64, used: i64) -> Usage {
        let pool = PoolSlots { all, used, include_deferred: false };
        Usage { pools: HashMap::from([("p".to_owned(), pool)]), ..Usage::default() }
    }

    #[test]
    fn a_pool_gives_its_free_slots_and_no_more() {
        let tasks = ["a", "b", "c"].map(|task_id| waiting("r", task_id));
        assert_eq!(choose(&tasks, pool(3, 1)), [0, 1]);
        assert_eq!(choose(&tasks, pool(-1, 50)), [0, 1, 2]);
        assert_eq!(choose(&tasks, pool(0, 0)), [0_usize; 0]);
        assert_eq!(choose(&tasks, Usage::default()), [0_usize; 0], "a pool that is not there");
    }

    #[test]
    fn one_that_needs_more_slots_than_there_are_does_not_hold_up_a_smaller_one() {
        let large = Waiting { pool_slots: 3, weight: 9, ..waiting("r", "large") };
        assert_eq!(choose(&[large, waiting("r", "small")], pool(2, 0)), [1]);
    }

    #[test]
    fn the_heaviest_begins_first_then_the_oldest_date_then_the_lowest_map_index() {
        let date = |text: &str| Some(text.parse().unwrap());
        let tasks = [
            waiting("r", "without a date"),
            Waiting { logical_date: date("2026-01-02T00:00:00Z"), ..waiting("r", "later") },
            Waiting { logical_date: date("2026-01-01T00:00:00Z"), map_index: 1, ..waiting("r", "second") },
            Waiting { logical_date: date("2026-01-01T00:00:00Z"), map_index: 0, ..waiting("r", "first") },
            Waiting { weight: 2, ..waiting("r", "heavy") },
        ];
        assert_eq!(choose(&tasks, pool(-1, 0)), [4, 3, 2, 1, 0]);
    }

    #[test]
    fn a_run_has_no_more_tasks_than_its_dag_allows_it() {
        let tasks = ["a", "b", "c"].map(|task_id| Waiting { max_active_tasks: 2, ..waiting("r", task_id) });
        assert_eq!(choose(&tasks, pool(-1, 0)), [0, 1]);
        let mut usage = pool(-1, 0);
        let two = Taken { task_id: "z", state: TaskState::Running, pool: "p", slots: 2, count: 2 };
        usage.take(&run("d", "r"), two);
        assert_eq!(choose(&tasks, usage), [0_usize; 0]);
    }

    #[test]
    fn a_task_has_limits_in_its_run_and_over_the_runs_of_its_dag() {
        let in_run =
            ["r", "r", "s"].map(|run_id| Waiting { max_active_tis_per_dagrun: Some(1), ..waiting(run_id, "t") });
        assert_eq!(choose(&in_run, pool(-1, 0)), [0, 2]);
        let of_dag = ["r", "s", "s"].map(|run_id| Waiting { max_active_tis_per_dag: Some(2), ..waiting(run_id, "t") });
        assert_eq!(choose(&of_dag, pool(-1, 0)), [0, 1]);
        let elsewhere = Waiting { run: run("other", "r"), max_active_tis_per_dag: Some(2), ..waiting("r", "t") };
        let both = [of_dag[0].clone(), of_dag[1].clone(), elsewhere];
        assert_eq!(choose(&both, pool(-1, 0)), [0, 1, 2], "another DAG's task of that name is another task");
    }

    /// Which limits count a state: the pool's slots without and with `include_deferred`, `max_active_tasks`, and
    /// `max_active_tis_per_dag`. Source: `EXECUTION_STATES`, `ACTIVE_STATES` and `Pool.get_occupied_states` of
    /// Airflow 3.3.2.
    #[test]
    fn each_limit_counts_the_states_that_airflow_counts() {
        let counted = |state, include_deferred| {
            let mut usage = pool(9, 0);
            usage.pools.values_mut().for_each(|pool| pool.include_deferred = include_deferred);
            usage.take(&run("d", "r"), Taken { task_id: "t", state, pool: "p", slots: 1, count: 1 });
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
