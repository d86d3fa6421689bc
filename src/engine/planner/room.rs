//! Which of the tasks that may run are given to the agent: as many as pools and limits have room for, the
//! heaviest first. Pure.
//!
//! <https://airflow.apache.org/docs/apache-airflow/stable/administration-and-deployment/pools.html>

use crate::engine::keys::RunKey;
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

/// What runs already, or is about to.
#[derive(Debug, Default)]
pub struct Usage {
    /// Slots of each pool: all, and those in use. -1 is no limit.
    pub pools: HashMap<String, (i64, i64)>,
    pub runs: HashMap<RunKey, u32>,
    pub tasks: HashMap<(RunKey, String), u32>,
}

impl Usage {
    pub fn take(&mut self, run: &RunKey, task_id: &str, pool: &str, slots: i64, count: u32) {
        if let Some((_, used)) = self.pools.get_mut(pool) {
            *used += slots;
        }
        *self.runs.entry(run.clone()).or_default() += count;
        *self.tasks.entry((run.clone(), task_id.to_owned())).or_default() += count;
    }

    fn has_room(&self, one: &Waiting) -> bool {
        // A pool that is not there has no slots.
        let Some((all, used)) = self.pools.get(&one.pool) else { return false };
        if *all >= 0 && i64::from(one.pool_slots) > all - used {
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

/// The places of those that there is room for, in the order in which they are to begin.
pub fn choose(waiting: &[Waiting], mut usage: Usage) -> Vec<usize> {
    let mut order: Vec<usize> = (0..waiting.len()).collect();
    order.sort_by_key(|at| {
        let one = &waiting[*at];
        // As Postgres sorts for Airflow: no date comes last.
        (std::cmp::Reverse(one.weight), one.logical_date.is_none(), one.logical_date, one.map_index)
    });
    let mut chosen = Vec::new();
    for at in order {
        let one = &waiting[at];
        if usage.has_room(one) {
            usage.take(&one.run, &one.task_id, &one.pool, one.pool_slots.into(), 1);
            chosen.push(at);
        }
    }
    chosen
}
