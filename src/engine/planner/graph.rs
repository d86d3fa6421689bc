//! The dependency graph of a DAG's tasks. A group is identified by its index in `Structure::groups`. A task is identified
//! by its index among the graph's nodes. A loop is unrolled: each of its tasks has a node in each iteration of the run.

use super::unrolled::Unrolled;
use crate::model::dag::{Group, Loop, Structure, Task, TriggerRule};
use crate::model::keys::{MAX_MAPPED_IN_LOOP, Position};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

#[derive(Debug)]
pub struct Graph {
    pub structure: Arc<Structure>,
    unrolled: Unrolled,
    nodes: Vec<Node>,
    /// True when any task has `depends_on_past`.
    pub has_past: bool,
    /// True when any task is a branch or a short circuit.
    pub has_decisions: bool,
    /// Indices of the sensors that the scheduler polls.
    pub polled_sensors: Vec<usize>,
}

/// A task's links to other tasks.
#[derive(Debug, Default)]
pub struct Node {
    pub upstream: Vec<usize>,
    /// Each iteration of a loop's gate has the tasks outside of the loop, although these wait for the last iteration only.
    pub downstream: Vec<usize>,
    /// Setup tasks that the task needs and that are not its direct upstreams.
    pub indirect_setups: Vec<usize>,
    /// For a teardown: the tasks between its setups and itself.
    pub scope: Vec<usize>,
    /// The mapped groups that contain the task, innermost first.
    pub mapped_groups: Vec<usize>,
    /// Tasks whose return values decide the number of instances: the task's own sources, or those of its innermost
    /// mapped group.
    pub sources: Vec<usize>,
    /// The task's own sources and those of all enclosing groups.
    pub length_sources: Vec<usize>,
    /// True when the run's final state depends on the task.
    pub is_leaf: bool,
    /// Tasks to evaluate again when this one has changed.
    pub dependants: Vec<usize>,
}

impl Graph {
    pub fn new(structure: Structure) -> Self {
        Self::with_iterations(Arc::new(structure), &HashMap::new())
    }

    /// The graph of a run whose loops have these numbers of iterations, by the index of their group; others have one.
    pub(crate) fn with_iterations(structure: Arc<Structure>, iterations: &HashMap<usize, i32>) -> Self {
        let unrolled = Unrolled::new(&structure, iterations);
        let has_past = structure.tasks.iter().any(|task| task.depends_on_past);
        let has_decisions = structure.tasks.iter().any(|task| task.is_branch);
        let nodes = nodes(&structure, &unrolled);
        let is_polled = |task: &Task| task.waits.as_ref().is_some_and(|wait| wait.until.poke_interval().is_some());
        let polled_sensors = (0..nodes.len()).filter(|index| is_polled(unrolled.task(&structure, *index))).collect();
        Self { structure, unrolled, nodes, has_past, has_decisions, polled_sensors }
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The index of a task; in a loop, of its first iteration.
    pub fn task_index(&self, task_id: &str) -> Option<usize> {
        self.unrolled.indices_of(task_id).next()
    }

    /// The indices of a task; in a loop, of all iterations.
    pub(crate) fn task_indices(&self, task_id: &str) -> impl Iterator<Item = usize> + '_ {
        self.unrolled.indices_of(task_id)
    }

    /// The index of a task in an iteration of its loop; `None` if the task has no such iteration.
    pub(crate) fn index_in(&self, task_id: &str, iteration: Option<i32>) -> Option<usize> {
        self.unrolled.index_in(task_id, iteration)
    }

    /// The index of another task as a task sees it: in a common loop, that of the same iteration; otherwise the last one.
    pub(crate) fn index_seen_from(&self, task_index: usize, task_id: &str) -> Option<usize> {
        self.unrolled.index_seen_from(task_index, task_id)
    }

    /// The indices of other tasks: in a common loop those of the same iteration, otherwise of all iterations.
    pub(crate) fn related<'a>(&'a self, task_index: usize, ids: &'a [String]) -> impl Iterator<Item = usize> + 'a {
        self.unrolled.related(task_index, ids)
    }

    /// The loop whose gate a task is.
    pub(crate) fn loop_of_gate(&self, task_index: usize) -> Option<(usize, &Loop)> {
        let group = self.loop_of(task_index)?;
        let repeats = self.group(group).repeats.as_ref()?;
        (repeats.gate == self.task(task_index).task_id).then_some((group, repeats))
    }

    /// The position of an instance of a task.
    pub fn position(&self, task_index: usize, map_index: i32) -> Position {
        Position::new(self.iteration(task_index), map_index)
    }

    /// The index of a task in `Structure::tasks`.
    pub(crate) fn index_in_structure(&self, task_index: usize) -> usize {
        self.unrolled.index_in_structure(task_index)
    }

    /// The iteration of a task in a loop.
    pub fn iteration(&self, task_index: usize) -> Option<i32> {
        self.unrolled.iteration(task_index)
    }

    /// The loop that contains a task, by the index of its group.
    pub fn loop_of(&self, task_index: usize) -> Option<usize> {
        self.unrolled.loop_of(task_index)
    }

    /// Number of iterations of a loop.
    pub fn iterations(&self, loop_group: usize) -> i32 {
        self.unrolled.iterations(loop_group)
    }

    pub fn task(&self, task_index: usize) -> &Task {
        self.unrolled.task(&self.structure, task_index)
    }

    pub fn node(&self, task_index: usize) -> &Node {
        &self.nodes[task_index]
    }

    pub fn group(&self, group: usize) -> &Group {
        &self.structure.groups[group]
    }

    /// True when the task may have several instances.
    pub(crate) fn is_expandable(&self, task_index: usize) -> bool {
        self.task(task_index).mapped || !self.nodes[task_index].mapped_groups.is_empty()
    }

    pub(crate) fn has_expandable(&self) -> bool {
        (0..self.len()).any(|task_index| self.is_expandable(task_index))
    }

    /// Number of instances that the task should have; `None` while that is not known. `task_length` returns the number of
    /// elements that a task has returned.
    pub fn count(&self, task_index: usize, task_length: &impl Fn(usize) -> Option<usize>) -> Option<usize> {
        let own_count = match &self.task(task_index).length {
            Some(length) => length.resolve(&|id| task_length(self.index_seen_from(task_index, id)?))?,
            None => 1,
        };
        let mut total = own_count;
        for group in &self.nodes[task_index].mapped_groups {
            total *= self.group_count(task_index, *group, task_length)?;
        }
        // In a loop, more would have no position; Airflow's limit of a list's length is far lower.
        Some(total).filter(|total| self.iteration(task_index).is_none() || *total <= MAX_MAPPED_IN_LOOP)
    }

    /// Number of copies of a group around a task; `None` while that is not known, 1 for a group that is not mapped.
    pub(crate) fn group_count(
        &self,
        task_index: usize,
        group: usize,
        task_length: &impl Fn(usize) -> Option<usize>,
    ) -> Option<usize> {
        let length = self.structure.groups[group].length.as_ref();
        length.map_or(Some(1), |length| length.resolve(&|id| task_length(self.index_seen_from(task_index, id)?)))
    }

    /// Ids of all tasks whose return values decide the length of a mapped task or group.
    pub(crate) fn length_sources(&self) -> Vec<&str> {
        let task_sources = self.structure.tasks.iter().flat_map(|task| &task.sources);
        let group_sources = self.structure.groups.iter().flat_map(|group| &group.sources);
        task_sources.chain(group_sources).map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

fn nodes(structure: &Structure, unrolled: &Unrolled) -> Vec<Node> {
    let tasks: Vec<&Task> = (0..unrolled.len()).map(|task_index| unrolled.task(structure, task_index)).collect();
    let mut nodes: Vec<Node> = tasks.iter().map(|_| Node::default()).collect();
    for (task_index, task) in tasks.iter().enumerate() {
        let seen = |ids: &[String]| -> Vec<usize> {
            ids.iter().filter_map(|id| unrolled.index_seen_from(task_index, id)).collect()
        };
        nodes[task_index].upstream = seen(&task.upstream);
        nodes[task_index].sources = seen(&task.sources);
        for upstream in unrolled.related(task_index, &task.upstream) {
            nodes[upstream].downstream.push(task_index);
        }
    }
    add_groups(structure, unrolled, &mut nodes);
    if tasks.iter().any(|task| task.is_setup || task.is_teardown) {
        add_setups(&tasks, &mut nodes);
    }
    mark_leaves(&tasks, &mut nodes);
    for task_index in 0..nodes.len() {
        let node = &nodes[task_index];
        let others: Vec<usize> = node
            .upstream
            .iter()
            .chain(&node.indirect_setups)
            .chain(&node.scope)
            .chain(&node.sources)
            .chain(&node.length_sources)
            .copied()
            .collect();
        for other in others {
            nodes[other].dependants.push(task_index);
        }
    }
    nodes.iter_mut().for_each(|node| {
        node.dependants.sort_unstable();
        node.dependants.dedup();
    });
    nodes
}

/// Sets the mapped groups and the sources of each task.
fn add_groups(structure: &Structure, unrolled: &Unrolled, nodes: &mut [Node]) {
    let group_indices: HashMap<&str, usize> =
        structure.groups.iter().enumerate().map(|(index, group)| (group.group_id.as_str(), index)).collect();
    for (task_index, node) in nodes.iter_mut().enumerate() {
        let task = unrolled.task(structure, task_index);
        let mut group = task.group.as_deref().and_then(|id| group_indices.get(id).copied());
        // Bounded, so that a cycle of parents, which would be a bug, cannot loop forever.
        for _ in 0..=structure.groups.len() {
            let Some(index) = group else { break };
            if structure.groups[index].length.is_some() {
                node.mapped_groups.push(index);
            }
            group = structure.groups[index].parent.as_deref().and_then(|id| group_indices.get(id).copied());
        }
        let group_sources = node.mapped_groups.iter().flat_map(|index| &structure.groups[*index].sources);
        let ids: BTreeSet<&String> = task.sources.iter().chain(group_sources).collect();
        node.length_sources = ids.into_iter().filter_map(|id| unrolled.index_seen_from(task_index, id)).collect();
        // As in Airflow, the task waits only for the innermost group's sources.
        if node.sources.is_empty()
            && let Some(innermost) = node.mapped_groups.first()
        {
            let sources = &structure.groups[*innermost].sources;
            node.sources = sources.iter().filter_map(|id| unrolled.index_seen_from(task_index, id)).collect();
        }
    }
}

/// All tasks reachable from a task by following `next`, without the task itself.
fn reachable(nodes: &[Node], from: usize, next: impl Fn(&Node) -> &Vec<usize>) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let mut pending = vec![from];
    while let Some(task_index) = pending.pop() {
        for other in next(&nodes[task_index]) {
            if reached.insert(*other) {
                pending.push(*other);
            }
        }
    }
    reached
}

/// Sets `indirect_setups` and `scope` of each task:
/// <https://airflow.apache.org/docs/apache-airflow/stable/howto/setup-and-teardown.html>
fn add_setups(tasks: &[&Task], nodes: &mut [Node]) {
    let is_teardown = |task_index: &usize| tasks[*task_index].is_teardown;
    // Task, indirect setups, scope.
    let mut needs: Vec<(usize, Vec<usize>, Vec<usize>)> = Vec::new();
    for task_index in 0..tasks.len() {
        let all_upstream = reachable(nodes, task_index, |node| &node.upstream);
        let direct: BTreeSet<usize> = nodes[task_index].upstream.iter().copied().collect();
        if tasks[task_index].is_teardown {
            let mut scope = BTreeSet::new();
            for setup in direct.iter().filter(|other| tasks[**other].is_setup) {
                let all_downstream = reachable(nodes, *setup, |node| &node.downstream);
                scope.extend(
                    all_upstream
                        .iter()
                        .filter(|other| !direct.contains(other) && all_downstream.contains(other))
                        .copied(),
                );
            }
            needs.push((task_index, Vec::new(), scope.into_iter().collect()));
            continue;
        }
        let setups: Vec<usize> = all_upstream.iter().filter(|other| tasks[**other].is_setup).copied().collect();
        if setups.is_empty() {
            continue;
        }
        let all_downstream = reachable(nodes, task_index, |node| &node.downstream);
        let is_relevant = |setup: &usize| {
            let mut teardowns = nodes[*setup].downstream.iter().filter(|other| is_teardown(other)).peekable();
            teardowns.peek().is_none() || teardowns.any(|teardown| all_downstream.contains(teardown))
        };
        let indirect = setups.into_iter().filter(|setup| !direct.contains(setup) && is_relevant(setup)).collect();
        needs.push((task_index, indirect, Vec::new()));
    }
    for (task_index, indirect, scope) in needs {
        nodes[task_index].indirect_setups = indirect;
        nodes[task_index].scope = scope;
    }
}

/// Marks the leaves, which decide the run's state. A teardown is ignored unless `on_failure_fail_dagrun` is set, so
/// the tasks directly before it count as leaves.
fn mark_leaves(tasks: &[&Task], nodes: &mut [Node]) {
    let is_ignored = |task_index: usize| tasks[task_index].is_teardown && !tasks[task_index].on_failure_fail_dagrun;
    for (task_index, node) in nodes.iter_mut().enumerate() {
        node.is_leaf = !is_ignored(task_index) && node.downstream.iter().all(|down| is_ignored(*down));
    }
    if !nodes.iter().any(|node| node.is_leaf) {
        for node in nodes.iter_mut() {
            node.is_leaf = node.downstream.is_empty();
        }
    }
}

impl Graph {
    /// All downstream tasks, direct and indirect.
    pub(crate) fn all_downstream(&self, task_index: usize) -> BTreeSet<usize> {
        reachable(&self.nodes, task_index, |node| &node.downstream)
    }

    /// All upstream tasks, direct and indirect; of a loop, in all iterations.
    pub(crate) fn all_upstream(&self, task_index: usize) -> BTreeSet<usize> {
        let mut reached = BTreeSet::new();
        let mut pending = vec![task_index];
        while let Some(task_index) = pending.pop() {
            let upstream = self.related(task_index, &self.task(task_index).upstream);
            pending.extend(upstream.filter(|other| reached.insert(*other)).collect::<Vec<_>>());
        }
        reached
    }

    /// The setups that a task needs, direct ones included.
    pub(crate) fn relevant_setups(&self, task_index: usize) -> Vec<usize> {
        let direct = self.nodes[task_index].upstream.iter().filter(|up| self.task(**up).is_setup);
        direct.chain(&self.nodes[task_index].indirect_setups).copied().collect()
    }

    /// True for the `one_…` rules and `none_failed_min_one_success`. Until a mapped task or group with such a rule is
    /// expanded, the rule counts all instances of its upstreams, as in Airflow.
    pub(crate) fn can_fire_early(&self, task_index: usize) -> bool {
        matches!(
            self.task(task_index).trigger_rule,
            TriggerRule::OneSuccess
                | TriggerRule::OneFailed
                | TriggerRule::OneDone
                | TriggerRule::NoneFailedMinOneSuccess
        )
    }
}
