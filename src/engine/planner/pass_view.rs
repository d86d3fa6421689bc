//! The state of a run at the beginning of a pass, from which the next step of each task instance follows. A pass
//! evaluates the instances once; the next pass sees its changes. Pure.

use super::graph::Graph;
use super::relevant_instances::{Relevant, relevant_instances};
use super::rules::{self, Tally, Verdict};
use super::snapshot::{Returned, Snapshot};
use crate::model::dag::TriggerRule;
use crate::model::state::TaskState;
use jiff::Timestamp;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

/// The next step of a task instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Run,
    Wait,
    /// Set this state without running the instance.
    End(TaskState),
    /// Expand into this number of instances; `None` when the number can never be known.
    Expand(Option<usize>),
}

pub(crate) struct PassView<'a> {
    snapshot: &'a Snapshot<'a>,
    task_indices: Vec<Option<usize>>,
    map_indexes: Vec<i32>,
    // Most vectors are indexed by instance, first those of the snapshot, then the added ones.
    /// Current states, including changes in this pass.
    states: Vec<Option<TaskState>>,
    /// States at the beginning of the pass.
    states_at_start: Vec<Option<TaskState>>,
    /// The instances of each task, as indices ordered by map index. Indexed by task.
    instances: Vec<Vec<usize>>,
    /// Number of instances in each state at the beginning of the pass. Indexed by task.
    tallies: Vec<Tally>,
    /// Indices of tasks that changed since the pass began.
    changed: BTreeSet<usize>,
    /// Cache of `count` during a pass, by task.
    counts: RefCell<HashMap<usize, Option<usize>>>,
}

impl<'a> PassView<'a> {
    pub fn new(snapshot: &'a Snapshot<'a>) -> Self {
        let mut instances = vec![Vec::new(); snapshot.graph.len()];
        for (index, instance) in snapshot.instances.iter().enumerate() {
            if let Some(task_index) = instance.task_index {
                instances[task_index].push(index);
            }
        }
        instances.iter_mut().for_each(|instances| instances.sort_by_key(|index| snapshot.instances[*index].position));
        let states: Vec<_> = snapshot.instances.iter().map(|instance| instance.state).collect();
        let mut view = Self {
            snapshot,
            task_indices: snapshot.instances.iter().map(|instance| instance.task_index).collect(),
            map_indexes: snapshot.instances.iter().map(|instance| instance.position.map_index()).collect(),
            states_at_start: states.clone(),
            states,
            tallies: vec![Tally::default(); instances.len()],
            instances,
            changed: (0..snapshot.graph.len()).collect(),
            counts: RefCell::default(),
        };
        view.end_pass();
        view
    }

    pub fn task_index(&self, index: usize) -> Option<usize> {
        self.task_indices[index]
    }

    pub fn map_index(&self, index: usize) -> i32 {
        self.map_indexes[index]
    }

    pub fn state(&self, index: usize) -> Option<TaskState> {
        self.states[index]
    }

    pub fn states(&self) -> &[Option<TaskState>] {
        &self.states
    }

    /// The instances of a task, ordered by map index.
    pub fn instances(&self, task_index: usize) -> &[usize] {
        &self.instances[task_index]
    }

    /// The instance of a task with this map index.
    pub fn instance(&self, task_index: usize, map_index: i32) -> Option<usize> {
        let instances = &self.instances[task_index];
        let position = instances.binary_search_by_key(&map_index, |index| self.map_indexes[*index]).ok()?;
        Some(instances[position])
    }

    pub fn set(&mut self, index: usize, state: Option<TaskState>) {
        self.states[index] = state;
        self.changed.extend(self.task_indices[index]);
    }

    pub(crate) fn set_map_index(&mut self, index: usize, map_index: i32) {
        self.map_indexes[index] = map_index;
        self.changed.extend(self.task_indices[index]);
    }

    /// Adds a new instance and returns its index.
    pub fn add(&mut self, task_index: usize, map_index: i32) -> usize {
        let index = self.states.len();
        self.task_indices.push(Some(task_index));
        self.map_indexes.push(map_index);
        self.states.push(None);
        self.states_at_start.push(None);
        let position = self.instances[task_index].partition_point(|other| self.map_indexes[*other] < map_index);
        self.instances[task_index].insert(position, index);
        self.changed.insert(task_index);
        index
    }

    /// Makes the current states visible to the next pass.
    pub(crate) fn end_pass(&mut self) {
        let graph = self.snapshot.graph;
        for task_index in std::mem::take(&mut self.changed) {
            let mut tally = Tally::default();
            for index in &self.instances[task_index] {
                self.states_at_start[*index] = self.states[*index];
                tally.count(self.states[*index], graph.task(task_index));
            }
            self.tallies[task_index] = tally;
        }
        self.counts.get_mut().clear();
    }

    /// Quick check whether a task has exactly `count` instances, none of them removed. It may return false although no
    /// instance has to change, because surplus instances may be removed already.
    pub fn is_complete(&self, task_index: usize, count: usize) -> bool {
        let instances = &self.instances[task_index];
        // The instances are sorted by map index and the indexes are unique: the last one rules out a gap.
        let map_index = |index: Option<&usize>| index.and_then(|index| usize::try_from(self.map_indexes[*index]).ok());
        let ends = (map_index(instances.first()), map_index(instances.last()));
        let is_gapless = count == 0 || ends == (Some(0), Some(count - 1));
        instances.len() == count && is_gapless && self.tallies[task_index].removed == 0
    }

    /// The instances of all tasks that depend on the `changed` tasks.
    pub(crate) fn dependants(&self, changed: &BTreeSet<usize>) -> BTreeSet<usize> {
        let task_indices: BTreeSet<usize> =
            changed.iter().flat_map(|task_index| &self.snapshot.graph.node(*task_index).dependants).copied().collect();
        task_indices.into_iter().flat_map(|task_index| &self.instances[task_index]).copied().collect()
    }

    /// Number of instances that a task should have; `None` while it is not known.
    pub fn count(&self, task_index: usize) -> Option<usize> {
        if let Some(count) = self.counts.borrow().get(&task_index) {
            return *count;
        }
        let count = self.snapshot.graph.count(task_index, &|task| self.length_of(task));
        self.counts.borrow_mut().insert(task_index, count);
        count
    }

    /// Number of elements that a task returned; for a mapped task, the number of instances that returned something.
    /// `None` until the task has finished: before that, a value may come from an earlier try.
    fn length_of(&self, task_index: usize) -> Option<usize> {
        let graph = self.snapshot.graph;
        let returned = self.snapshot.lengths.get(&task_index);
        if !graph.is_expandable(task_index) {
            let tally = &self.tallies[task_index];
            return returned.filter(|_| tally.success == tally.all).map(Returned::count);
        }
        let instances = &self.instances[task_index];
        let is_present = |index: &&usize| self.states_at_start[**index] != Some(TaskState::Removed);
        self.has_ended(task_index).then(|| match returned {
            Some(Returned::Instances(indexes)) => {
                instances.iter().filter(is_present).filter(|index| indexes.contains(&self.map_indexes[**index])).count()
            }
            Some(Returned::Elements(length)) => *length,
            None => 0,
        })
    }

    fn has_ended(&self, task_index: usize) -> bool {
        self.tallies[task_index].is_done()
    }

    /// Decides the next step of an instance. `due` is when a retry or a rescheduled sensor may continue.
    pub fn step(&self, index: usize, due: Option<Timestamp>, now: Timestamp) -> Step {
        let Some(task_index) = self.task_indices[index] else { return Step::Wait };
        match self.step_of(index, task_index, due, now) {
            Step::End(TaskState::Skipped) if self.past_holds_skip(task_index) => Step::Wait,
            step => step,
        }
    }

    /// True when `depends_on_past` holds the task back and, by `wait_for_past_before_skipping`, also delays its skip.
    pub(crate) fn past_holds_skip(&self, task_index: usize) -> bool {
        self.snapshot.graph.task(task_index).wait_for_past_before_skipping
            && self.snapshot.held_by_past.contains(&task_index)
    }

    fn step_of(&self, index: usize, task_index: usize, due: Option<Timestamp>, now: Timestamp) -> Step {
        let graph = self.snapshot.graph;
        let map_index = self.map_indexes[index];
        if self.is_skipped_by_branch(task_index, map_index) {
            return Step::End(TaskState::Skipped);
        }
        let is_expandable = graph.is_expandable(task_index);
        let is_unexpanded = map_index < 0 && is_expandable;
        let source_verdict = if is_expandable { self.source_verdict(task_index) } else { Verdict::Run };
        if let Verdict::End(state) = source_verdict {
            return Step::End(state);
        }
        if is_expandable
            && !is_unexpanded
            && !graph.node(task_index).length_sources.iter().all(|up| self.has_ended(*up))
        {
            // A source of the mapped task runs again, so its new list may have no element for this instance.
            return Step::Wait;
        }
        match self.trigger_verdict(task_index, map_index) {
            Verdict::End(state) => return Step::End(state),
            Verdict::Wait => return Step::Wait,
            Verdict::Run => {}
        }
        let is_early = due.is_some_and(|due| due > now);
        if source_verdict == Verdict::Wait || is_early || self.snapshot.held_by_past.contains(&task_index) {
            return Step::Wait;
        }
        if is_unexpanded { Step::Expand(self.count(task_index)) } else { Step::Run }
    }

    /// True when a branch directly upstream has chosen other tasks. A branch in a mapped group decides for its own copy.
    fn is_skipped_by_branch(&self, task_index: usize, map_index: i32) -> bool {
        let graph = self.snapshot.graph;
        if !graph.has_decisions {
            return false;
        }
        let task_id = &graph.task(task_index).task_id;
        graph.node(task_index).upstream.iter().filter(|up| graph.task(**up).is_branch).any(|up| {
            let decider = match self.relevant_instances(task_index, map_index, *up) {
                Relevant::Range(range) => i32::try_from(range.start).ok().filter(|_| range.end - range.start == 1),
                Relevant::All if graph.task(*up).mapped => Some(map_index),
                Relevant::All => Some(-1),
            };
            let Some(decider) = decider else { return false };
            let decision = self.snapshot.decisions.get(&(*up, decider));
            let state = self.instance(*up, decider).and_then(|index| self.states_at_start[index]);
            state.is_some_and(TaskState::is_finished) && decision.is_some_and(|decision| decision.skips(task_id))
        })
    }

    /// The instances of a task that the decision of an instance upstream applies to: in a mapped group, those of the same
    /// copy. Other copies may decide otherwise, so it applies to no task outside of the group.
    pub(crate) fn decided_by(&self, decider: usize, map_index: i32, task_index: usize) -> Vec<usize> {
        let instances = &self.instances[task_index];
        match self.relevant_instances(decider, map_index, task_index) {
            Relevant::Range(range) => {
                let is_own = |index: &&usize| range.contains(&i64::from(self.map_indexes[**index]));
                instances.iter().filter(is_own).copied().collect()
            }
            Relevant::All if self.snapshot.graph.node(decider).mapped_groups.is_empty() => {
                self.instance(task_index, -1).into_iter().collect()
            }
            Relevant::All => Vec::new(),
        }
    }

    /// The verdict on the sources of a mapped task: they must have succeeded, regardless of the task's trigger rule.
    fn source_verdict(&self, task_index: usize) -> Verdict {
        let mut verdict = Verdict::Run;
        for source in &self.snapshot.graph.node(task_index).sources {
            let Some(index) = self.instance(*source, -1) else { continue };
            match self.states_at_start[index] {
                Some(TaskState::Failed | TaskState::UpstreamFailed) => return Verdict::End(TaskState::UpstreamFailed),
                Some(TaskState::Skipped) => verdict = Verdict::End(TaskState::Skipped),
                Some(TaskState::Removed) if verdict == Verdict::Run => verdict = Verdict::Wait,
                _ => {}
            }
        }
        verdict
    }

    /// The verdict of the trigger rule, and of the setups that the task needs.
    fn trigger_verdict(&self, task_index: usize, map_index: i32) -> Verdict {
        let task = self.snapshot.graph.task(task_index);
        let node = self.snapshot.graph.node(task_index);
        if node.upstream.is_empty() || task.trigger_rule == TriggerRule::Always {
            return Verdict::Run;
        }
        let mut setup_verdict = Verdict::Run;
        if !task.is_teardown && !node.indirect_setups.is_empty() {
            setup_verdict =
                rules::judge_setups(&self.upstream_tally(task_index, map_index, &node.indirect_setups), map_index);
            if let Verdict::End(_) = setup_verdict {
                return setup_verdict;
            }
        }
        let verdict = rules::judge(task.trigger_rule, &self.upstream_tally(task_index, map_index, &node.upstream));
        if verdict != Verdict::Run {
            return verdict;
        }
        if task.is_teardown
            && !node.scope.is_empty()
            && !self.upstream_tally(task_index, map_index, &node.scope).is_done()
        {
            return Verdict::Wait;
        }
        setup_verdict
    }

    /// Counts the upstream instances that an instance depends on, by state.
    fn upstream_tally(&self, task_index: usize, map_index: i32, upstream: &[usize]) -> Tally {
        let mut total = Tally::default();
        for up in upstream {
            if self.instances[*up].is_empty() {
                // The start and end dates of the upstream task exclude it from this run. As in Airflow, its downstream
                // tasks still wait for it.
                total.count(None, self.snapshot.graph.task(*up));
                continue;
            }
            match self.relevant_instances(task_index, map_index, *up) {
                Relevant::All => total.add(&self.tallies[*up]),
                Relevant::Range(range) => self.count_range(&mut total, *up, range),
            }
        }
        total
    }

    fn count_range(&self, total: &mut Tally, up: usize, range: Range<i64>) {
        let task = self.snapshot.graph.task(up);
        let instances = &self.instances[up];
        let index_of = |index: &usize| i64::from(self.map_indexes[*index]);
        let first = instances.partition_point(|index| index_of(index) < range.start.max(0));
        for index in instances[first..].iter().take_while(|index| index_of(index) < range.end) {
            total.count(self.states_at_start[*index], task);
        }
        for index in instances.iter().take_while(|index| index_of(index) < 0) {
            total.count(self.states_at_start[*index], task);
        }
    }

    /// The instances of an upstream task that an instance depends on.
    fn relevant_instances(&self, task_index: usize, map_index: i32, up: usize) -> Relevant {
        let graph = self.snapshot.graph;
        if map_index < 0 && graph.can_fire_early(task_index) && !self.decides_length(task_index, up) {
            return Relevant::All;
        }
        let (count, length) = (|task_index| self.count(task_index), |task| self.length_of(task));
        relevant_instances(graph, (task_index, map_index), up, &count, &length)
    }

    /// True when the task or a group around it is mapped over the return value of `up`.
    fn decides_length(&self, task_index: usize, up: usize) -> bool {
        let graph: &Graph = self.snapshot.graph;
        let task_id = &graph.task(up).task_id;
        let own_sources = &graph.task(task_index).sources;
        let groups = &graph.node(task_index).mapped_groups;
        own_sources.contains(task_id) || groups.iter().any(|group| graph.group(*group).sources.contains(task_id))
    }
}
