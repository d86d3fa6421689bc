//! The competition of a run's task instances with those of other runs for the slots of pools. Pure.
//!
//! Other runs may have many more waiting instances than there are slots. A query therefore reads a window of them: for
//! each run and pool, those with the highest weight. [`Choice::hidden`] reports whether an unread instance may fit too.

use super::pool_limits::{SlotUse, Usage, Waiting, choose};
use super::snapshot::{Plan, Snapshot, Transition, TransitionKind};
use crate::model::keys::{InstanceKey, Position, RunKey};
use crate::model::state::TaskState;
use std::collections::{BTreeMap, BTreeSet};

/// The instances of a run that may run, and the usage of all limits by all runs.
pub(crate) struct Competition {
    /// Indices into the plan's instances.
    own_indices: Vec<usize>,
    /// Of each task only as many as its limits allow, because a mapped task may have thousands.
    own: Vec<Waiting>,
    usage: Usage,
}

/// Waiting instances of other runs.
#[derive(Debug, Default)]
pub(crate) struct OtherRuns {
    pub waiting: Vec<Waiting>,
    pub cut_off: Vec<CutOff>,
}

/// A run that may have more waiting instances in a pool than the window contains.
#[derive(Debug)]
pub(crate) struct CutOff {
    pub run: RunKey,
    pub pool: String,
    /// Limit of the run; 0 is no limit.
    pub max_active_tasks: u32,
}

/// A run and a task id.
pub(crate) type RunTask = (RunKey, String);

/// The instances that [`Competition::choose`] has chosen to queue.
pub(crate) struct Choice {
    /// Positions in `Competition::own`.
    own: Vec<usize>,
    /// Indices into `OtherRuns::waiting`.
    pub others: Vec<usize>,
    pub hidden: Hidden,
}

/// Whether instances outside of the window could be queued too.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Hidden {
    None,
    /// Maybe: the window contains instances of these tasks, which are at their own limits. Without them, the window has
    /// space for instances of other tasks.
    Behind(BTreeSet<RunTask>),
    /// Maybe: the window contains no task at its limit, so only a larger window can tell.
    Beyond,
}

impl Competition {
    /// `usage` counts the other runs; this adds the instances of the run itself.
    pub fn of_run(run: &RunKey, snapshot: &Snapshot<'_>, plan: &Plan, mut usage: Usage) -> Self {
        let graph = snapshot.graph;
        // By task: the position and the index of each instance that may run.
        let mut scheduled: BTreeMap<usize, Vec<(Position, usize)>> = BTreeMap::new();
        for (index, state) in plan.states_after(snapshot).into_iter().enumerate() {
            let Some(state) = state.filter(|state| !state.is_finished()) else { continue };
            let (Some(task_index), position) = plan.instance_after(snapshot, index) else { continue };
            if state == TaskState::Scheduled && !snapshot.is_paused {
                scheduled.entry(task_index).or_default().push((position, index));
            } else {
                let task = graph.task(task_index);
                let (task_id, pool, slots) = (task.task_id.as_str(), task.pool(), task.pool_slots.into());
                usage.take(run, SlotUse { task_id, state, pool, slots, count: 1 });
            }
        }
        let mut competition = Self { own_indices: Vec::new(), own: Vec::new(), usage };
        for (task_index, mut instances) in scheduled {
            // Those with the lowest map indexes come first.
            instances.sort_unstable();
            instances.truncate(competition.usage.max_queueable(run, graph, task_index));
            for (position, index) in instances {
                let instance = InstanceKey::new(run.clone(), &graph.task(task_index).task_id, position);
                competition.own_indices.push(index);
                competition.own.push(Waiting::new(instance, graph, task_index, snapshot.logical_date));
            }
        }
        competition
    }

    /// A competition without a run of its own; `usage` counts all runs.
    pub fn of_others(usage: Usage) -> Self {
        Self { own_indices: Vec::new(), own: Vec::new(), usage }
    }

    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// The pools with free slots, each with their number.
    pub fn open_pools(&self) -> Vec<(&str, i64)> {
        self.usage.open_pools()
    }

    /// Chooses the instances to queue, as far as pools and limits allow.
    pub fn choose(&self, others: &OtherRuns) -> Choice {
        let all: Vec<&Waiting> = self.own.iter().chain(&others.waiting).collect();
        let (chosen, usage) = choose(&all, self.usage.clone());
        let (own, chosen_others): (Vec<usize>, Vec<usize>) = chosen.into_iter().partition(|at| *at < self.own.len());
        let chosen_others: Vec<usize> = chosen_others.into_iter().map(|index| index - self.own.len()).collect();
        let hidden = if others.cut_off.iter().any(|cut| usage.can_queue(&cut.run, &cut.pool, cut.max_active_tasks)) {
            let full = others.waiting.iter().filter(|waiting| usage.is_task_full(waiting));
            let tasks: BTreeSet<RunTask> =
                full.map(|waiting| (waiting.instance.run.clone(), waiting.instance.task_id.clone())).collect();
            if tasks.is_empty() { Hidden::Beyond } else { Hidden::Behind(tasks) }
        } else {
            Hidden::None
        };
        Choice { own, others: chosen_others, hidden }
    }

    /// Makes the plan queue the run's own instances.
    pub fn queue(&self, choice: &Choice, snapshot: &Snapshot<'_>, plan: &mut Plan) {
        choice.own.iter().for_each(|position| queue(plan, snapshot, self.own_indices[*position]));
    }
}

/// Makes the plan queue an instance.
fn queue(plan: &mut Plan, snapshot: &Snapshot<'_>, index: usize) {
    if let Some(transition) = plan.transitions.iter_mut().find(|transition| transition.index == index) {
        transition.to = TaskState::Queued;
        return;
    }
    // The instance was already `scheduled` before this plan, so the plan has no transition for it.
    let try_number = snapshot.instances[index].try_number;
    plan.transitions.push(Transition {
        index,
        to: TaskState::Queued,
        try_number,
        due_at: None,
        kind: TransitionKind::Waiting,
    });
}

#[cfg(test)]
mod tests {
    use super::super::pool_limits::PoolSlots;
    use super::*;
    use std::collections::HashMap;

    fn waiting(run_id: &str, task_id: &str, map_index: i32) -> Waiting {
        let run = RunKey { dag_id: "d".to_owned(), run_id: run_id.to_owned() };
        Waiting {
            instance: InstanceKey::new(run, task_id, Position::mapped(map_index)),
            pool: "p".to_owned(),
            pool_slots: 1,
            weight: 1,
            logical_date: None,
            max_active_tasks: 0,
            max_active_tis_per_dag: None,
            max_active_tis_per_dagrun: None,
        }
    }

    fn competition(slots: i64) -> Competition {
        let pool = PoolSlots { all: slots, used: 0, include_deferred: false };
        Competition::of_others(Usage { pools: HashMap::from([("p".to_owned(), pool)]), ..Usage::default() })
    }

    fn cut_off(waiting: Vec<Waiting>) -> OtherRuns {
        let cut_off = CutOff { run: waiting[0].instance.run.clone(), pool: "p".to_owned(), max_active_tasks: 0 };
        OtherRuns { cut_off: vec![cut_off], waiting }
    }

    #[test]
    fn a_window_hides_nothing_once_the_pool_is_full() {
        let window = || cut_off((0..2).map(|map_index| waiting("r", "t", map_index)).collect());
        let choice = competition(2).choose(&window());
        assert_eq!((choice.others, choice.hidden), (vec![0, 1], Hidden::None));
        assert_eq!(competition(3).choose(&window()).hidden, Hidden::Beyond);
        let mut limited = window();
        limited.cut_off[0].max_active_tasks = 2;
        assert_eq!(competition(3).choose(&limited).hidden, Hidden::None, "the run executes as many as it may");
        let all_read = OtherRuns { cut_off: Vec::new(), ..window() };
        assert_eq!(competition(3).choose(&all_read).hidden, Hidden::None);
        assert_eq!(competition(0).open_pools(), []);
    }

    #[test]
    fn a_task_at_its_limit_hides_others() {
        let limited = |map_index| Waiting { max_active_tis_per_dagrun: Some(1), ..waiting("r", "t", map_index) };
        let choice = competition(3).choose(&cut_off(vec![limited(0), limited(1)]));
        let task = (limited(0).instance.run, "t".to_owned());
        assert_eq!((choice.others, choice.hidden), (vec![0], Hidden::Behind(BTreeSet::from([task]))));
    }
}
