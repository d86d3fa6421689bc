//! A run as it looks at the beginning of a pass, and what one task instance is to do, seen from there. Pure.

use super::copies::{self, Relevant};
use super::graph::Graph;
use super::rules::{self, Tally, Verdict};
use super::snapshot::{Returned, Snapshot};
use crate::engine::dag::TriggerRule;
use crate::engine::state::TaskState;
use jiff::Timestamp;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Run,
    Wait,
    /// Without having run.
    End(TaskState),
    /// Into so many; `None` when it will never be known into how many.
    Expand(Option<usize>),
}

pub struct PassView<'a> {
    snapshot: &'a Snapshot<'a>,
    task_indices: Vec<Option<usize>>,
    map_indexes: Vec<i32>,
    /// As they are by now.
    states: Vec<Option<TaskState>>,
    /// As they were when the pass began.
    seen: Vec<Option<TaskState>>,
    /// The instances of each task, by map index.
    rows: Vec<Vec<usize>>,
    tallies: Vec<Tally>,
    /// Indices of tasks that have changed since the pass began.
    changed: BTreeSet<usize>,
    counts: RefCell<HashMap<usize, Option<usize>>>,
}

impl<'a> PassView<'a> {
    pub fn new(snapshot: &'a Snapshot<'a>) -> Self {
        let mut rows = vec![Vec::new(); snapshot.graph.len()];
        for (index, instance) in snapshot.instances.iter().enumerate() {
            if let Some(task_index) = instance.task_index {
                rows[task_index].push(index);
            }
        }
        rows.iter_mut().for_each(|rows| rows.sort_by_key(|index| snapshot.instances[*index].map_index));
        let states: Vec<_> = snapshot.instances.iter().map(|instance| instance.state).collect();
        let mut view = Self {
            snapshot,
            task_indices: snapshot.instances.iter().map(|instance| instance.task_index).collect(),
            map_indexes: snapshot.instances.iter().map(|instance| instance.map_index).collect(),
            seen: states.clone(),
            states,
            tallies: vec![Tally::default(); rows.len()],
            rows,
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

    pub fn rows(&self, task_index: usize) -> &[usize] {
        &self.rows[task_index]
    }

    /// The instance of a task with that index.
    pub fn row(&self, task_index: usize, map_index: i32) -> Option<usize> {
        let at = self.rows[task_index].binary_search_by_key(&map_index, |index| self.map_indexes[*index]).ok()?;
        Some(self.rows[task_index][at])
    }

    pub fn set(&mut self, index: usize, state: Option<TaskState>) {
        self.states[index] = state;
        self.changed.extend(self.task_indices[index]);
    }

    pub fn set_map_index(&mut self, index: usize, map_index: i32) {
        self.map_indexes[index] = map_index;
        self.changed.extend(self.task_indices[index]);
    }

    /// A new instance; it is the last of its task.
    pub fn add(&mut self, task_index: usize, map_index: i32) -> usize {
        let index = self.states.len();
        self.task_indices.push(Some(task_index));
        self.map_indexes.push(map_index);
        self.states.push(None);
        self.seen.push(None);
        let at = self.rows[task_index].partition_point(|other| self.map_indexes[*other] < map_index);
        self.rows[task_index].insert(at, index);
        self.changed.insert(task_index);
        index
    }

    /// From here on, what has changed is seen.
    pub fn end_pass(&mut self) {
        let graph = self.snapshot.graph;
        for task_index in std::mem::take(&mut self.changed) {
            let mut tally = Tally::default();
            for index in &self.rows[task_index] {
                self.seen[*index] = self.states[*index];
                tally.count(self.states[*index], graph.task(task_index).is_setup);
            }
            self.tallies[task_index] = tally;
        }
        self.counts.get_mut().clear();
    }

    /// Whether a task has as many instances as it is to have, none of them removed. The cheap answer: `false` may be
    /// wrong.
    pub fn is_complete(&self, task_index: usize, count: usize) -> bool {
        let rows = &self.rows[task_index];
        let first = rows.first().map_or(0, |row| self.map_indexes[*row]);
        rows.len() == count && first == 0 && self.tallies[task_index].removed == 0
    }

    /// The instances of all tasks that these matter to.
    pub fn dependants(&self, changed: &BTreeSet<usize>) -> BTreeSet<usize> {
        let task_indices: BTreeSet<usize> =
            changed.iter().flat_map(|task_index| &self.snapshot.graph.node(*task_index).dependants).copied().collect();
        task_indices.into_iter().flat_map(|task_index| &self.rows[task_index]).copied().collect()
    }

    /// How many instances there are to be of a task.
    pub fn count(&self, task_index: usize) -> Option<usize> {
        if let Some(count) = self.counts.borrow().get(&task_index) {
            return *count;
        }
        let count = self.snapshot.graph.count(task_index, &|task| self.length_of(task));
        self.counts.borrow_mut().insert(task_index, count);
        count
    }

    /// How much a task has returned; of a mapped one, how many of its instances returned something. `None` until it has
    /// ended: what is there until then may be of an earlier try.
    fn length_of(&self, task_id: &str) -> Option<usize> {
        let graph = self.snapshot.graph;
        let task_index = graph.task_index(task_id)?;
        let known = self.snapshot.lengths.get(task_id);
        if !graph.is_expandable(task_index) {
            let tally = &self.tallies[task_index];
            return known.filter(|_| tally.success == tally.all).map(Returned::count);
        }
        let rows = &self.rows[task_index];
        let is_there = |row: &&usize| self.seen[**row] != Some(TaskState::Removed);
        self.has_ended(task_index).then(|| match known {
            Some(Returned::Instances(indexes)) => {
                rows.iter().filter(is_there).filter(|row| indexes.contains(&self.map_indexes[**row])).count()
            }
            Some(Returned::Elements(length)) => *length,
            None => 0,
        })
    }

    fn has_ended(&self, task_index: usize) -> bool {
        self.tallies[task_index].is_done()
    }

    /// `due` is when a retry or a rescheduled sensor may go on.
    pub fn step(&self, index: usize, due: Option<Timestamp>, now: Timestamp) -> Step {
        let Some(task_index) = self.task_indices[index] else { return Step::Wait };
        let graph = self.snapshot.graph;
        let map_index = self.map_indexes[index];
        if self.is_decided_against(task_index, map_index) {
            return Step::End(TaskState::Skipped);
        }
        let is_expandable = graph.is_expandable(task_index);
        let expandable = map_index < 0 && is_expandable;
        let sources = if is_expandable { self.sources(task_index) } else { Verdict::Run };
        if let Verdict::End(state) = sources {
            return Step::End(state);
        }
        if is_expandable && !expandable && !graph.node(task_index).length_sources.iter().all(|up| self.has_ended(*up)) {
            // What it is mapped over runs again: whether this instance is still one of them is not known.
            return Step::Wait;
        }
        match self.trigger(task_index, map_index) {
            Verdict::End(state) => return Step::End(state),
            Verdict::Wait => return Step::Wait,
            Verdict::Run => {}
        }
        let is_early = due.is_some_and(|due| due > now);
        if sources == Verdict::Wait || is_early || self.snapshot.held_by_past.contains(&task_index) {
            return Step::Wait;
        }
        if expandable { Step::Expand(self.count(task_index)) } else { Step::Run }
    }

    /// Whether a branch right above it has chosen other tasks.
    fn is_decided_against(&self, task_index: usize, map_index: i32) -> bool {
        let graph = self.snapshot.graph;
        if !graph.has_decisions {
            return false;
        }
        let task_id = &graph.task(task_index).task_id;
        graph.node(task_index).upstream.iter().filter(|up| graph.task(**up).decides).any(|up| {
            let finished = |index: &usize| self.seen[*index].is_some_and(TaskState::is_finished);
            let at = if graph.task(*up).mapped { map_index } else { -1 };
            let decision = self.snapshot.decisions.get(&(*up, at));
            self.rows[*up].iter().any(finished) && decision.is_some_and(|decision| decision.skips(task_id))
        })
    }

    /// What a task is mapped over must be there, whatever its trigger rule.
    fn sources(&self, task_index: usize) -> Verdict {
        let mut verdict = Verdict::Run;
        for source in &self.snapshot.graph.node(task_index).sources {
            let Some(index) = self.row(*source, -1) else { continue };
            match self.seen[index] {
                Some(TaskState::Failed | TaskState::UpstreamFailed) => return Verdict::End(TaskState::UpstreamFailed),
                Some(TaskState::Skipped) => verdict = Verdict::End(TaskState::Skipped),
                Some(TaskState::Removed) if verdict == Verdict::Run => verdict = Verdict::Wait,
                _ => {}
            }
        }
        verdict
    }

    fn trigger(&self, task_index: usize, map_index: i32) -> Verdict {
        let task = self.snapshot.graph.task(task_index);
        let node = self.snapshot.graph.node(task_index);
        if node.upstream.is_empty() || task.trigger_rule == TriggerRule::Always {
            return Verdict::Run;
        }
        let mut setups = Verdict::Run;
        if !task.is_teardown && !node.indirect_setups.is_empty() {
            setups = rules::judge_setups(&self.tally(task_index, map_index, &node.indirect_setups), map_index);
            if let Verdict::End(_) = setups {
                return setups;
            }
        }
        let verdict = rules::judge(task.trigger_rule, &self.tally(task_index, map_index, &node.upstream));
        if verdict != Verdict::Run {
            return verdict;
        }
        if task.is_teardown && !node.scope.is_empty() && !self.tally(task_index, map_index, &node.scope).is_done() {
            return Verdict::Wait;
        }
        setups
    }

    fn tally(&self, task_index: usize, map_index: i32, above: &[usize]) -> Tally {
        let mut whole = Tally::default();
        for up in above {
            if self.rows[*up].is_empty() {
                // Its dates keep it out of this run: as in Airflow, it is waited for all the same.
                whole.count(None, self.snapshot.graph.task(*up).is_setup);
                continue;
            }
            match self.relevant(task_index, map_index, *up) {
                Relevant::All => whole.add(&self.tallies[*up]),
                Relevant::Range(range) => self.count_range(&mut whole, *up, range),
            }
        }
        whole
    }

    fn count_range(&self, whole: &mut Tally, up: usize, range: Range<i64>) {
        let is_setup = self.snapshot.graph.task(up).is_setup;
        let rows = &self.rows[up];
        let index_of = |row: &usize| i64::from(self.map_indexes[*row]);
        let first = rows.partition_point(|row| index_of(row) < range.start.max(0));
        for row in rows[first..].iter().take_while(|row| index_of(row) < range.end) {
            whole.count(self.seen[*row], is_setup);
        }
        for row in rows.iter().take_while(|row| index_of(row) < 0) {
            whole.count(self.seen[*row], is_setup);
        }
    }

    /// Which instances of a task above matter to one.
    fn relevant(&self, task_index: usize, map_index: i32, up: usize) -> Relevant {
        let graph = self.snapshot.graph;
        if map_index < 0 && graph.is_hasty(task_index) && !self.decides_length(task_index, up) {
            return Relevant::All;
        }
        let (count, length) = (|task_index| self.count(task_index), |task: &str| self.length_of(task));
        copies::relevant(graph, (task_index, map_index), up, &count, &length)
    }

    /// Whether one is mapped over what the other returns.
    fn decides_length(&self, task_index: usize, up: usize) -> bool {
        let graph: &Graph = self.snapshot.graph;
        let id = &graph.task(up).task_id;
        let own = &graph.task(task_index).sources;
        let groups = &graph.node(task_index).mapped_groups;
        own.contains(id) || groups.iter().any(|group| graph.group(*group).sources.contains(id))
    }
}
