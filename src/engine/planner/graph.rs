//! The dependency graph of a DAG's tasks. A task is identified by its index in `Structure::tasks`, a group by its index
//! in `Structure::groups`.

use crate::model::dag::{Group, Structure, Task, TriggerRule};
use std::collections::{BTreeSet, HashMap};

#[derive(Debug)]
pub struct Graph {
    pub structure: Structure,
    task_indices: HashMap<String, usize>,
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
        let task_indices: HashMap<String, usize> =
            structure.tasks.iter().enumerate().map(|(task_index, task)| (task.task_id.clone(), task_index)).collect();
        let has_past = structure.tasks.iter().any(|task| task.depends_on_past);
        let has_decisions = structure.tasks.iter().any(|task| task.is_branch);
        let nodes = nodes(&structure, &task_indices);
        let is_polled = |task: &Task| task.waits.as_ref().is_some_and(|wait| wait.until.poke_interval().is_some());
        let polled_sensors = (0..structure.tasks.len()).filter(|index| is_polled(&structure.tasks[*index])).collect();
        Self { structure, task_indices, nodes, has_past, has_decisions, polled_sensors }
    }

    pub fn len(&self) -> usize {
        self.structure.tasks.len()
    }

    pub fn is_empty(&self) -> bool {
        self.structure.tasks.is_empty()
    }

    pub fn task_index(&self, task_id: &str) -> Option<usize> {
        self.task_indices.get(task_id).copied()
    }

    pub fn task(&self, task_index: usize) -> &Task {
        &self.structure.tasks[task_index]
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

    /// Number of instances that the task should have; `None` while that is not known.
    pub fn count(&self, task_index: usize, task_length: &impl Fn(&str) -> Option<usize>) -> Option<usize> {
        let own_count = match &self.task(task_index).length {
            Some(length) => length.resolve(task_length)?,
            None => 1,
        };
        let mut total = own_count;
        for group in &self.nodes[task_index].mapped_groups {
            total *= self.group_count(*group, task_length)?;
        }
        Some(total)
    }

    /// Number of copies of a group; `None` while that is not known, 1 for a group that is not mapped.
    pub(crate) fn group_count(&self, group: usize, task_length: &impl Fn(&str) -> Option<usize>) -> Option<usize> {
        self.structure.groups[group].length.as_ref().map_or(Some(1), |length| length.resolve(task_length))
    }

    /// Ids of all tasks whose return values decide the length of a mapped task or group.
    pub(crate) fn length_sources(&self) -> Vec<&str> {
        let task_sources = self.structure.tasks.iter().flat_map(|task| &task.sources);
        let group_sources = self.structure.groups.iter().flat_map(|group| &group.sources);
        task_sources.chain(group_sources).map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

fn nodes(structure: &Structure, task_indices: &HashMap<String, usize>) -> Vec<Node> {
    let tasks = &structure.tasks;
    let mut nodes: Vec<Node> = tasks.iter().map(|_| Node::default()).collect();
    for (task_index, task) in tasks.iter().enumerate() {
        let up: Vec<usize> = task.upstream.iter().filter_map(|id| task_indices.get(id).copied()).collect();
        up.iter().for_each(|upstream| nodes[*upstream].downstream.push(task_index));
        nodes[task_index].upstream = up;
        nodes[task_index].sources = task.sources.iter().filter_map(|id| task_indices.get(id).copied()).collect();
    }
    add_groups(structure, task_indices, &mut nodes);
    if tasks.iter().any(|task| task.is_setup || task.is_teardown) {
        add_setups(tasks, &mut nodes);
    }
    mark_leaves(tasks, &mut nodes);
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
fn add_groups(structure: &Structure, task_indices: &HashMap<String, usize>, nodes: &mut [Node]) {
    let group_indices: HashMap<&str, usize> =
        structure.groups.iter().enumerate().map(|(index, group)| (group.group_id.as_str(), index)).collect();
    for (task_index, task) in structure.tasks.iter().enumerate() {
        let mut group = task.group.as_deref().and_then(|id| group_indices.get(id).copied());
        // Bounded, so that a cycle of parents, which would be a bug, cannot loop forever.
        for _ in 0..=structure.groups.len() {
            let Some(index) = group else { break };
            if structure.groups[index].length.is_some() {
                nodes[task_index].mapped_groups.push(index);
            }
            group = structure.groups[index].parent.as_deref().and_then(|id| group_indices.get(id).copied());
        }
        let group_sources = nodes[task_index].mapped_groups.iter().flat_map(|index| &structure.groups[*index].sources);
        let ids: BTreeSet<&String> = task.sources.iter().chain(group_sources).collect();
        nodes[task_index].length_sources = ids.into_iter().filter_map(|id| task_indices.get(id).copied()).collect();
        // As in Airflow, the task waits only for the innermost group's sources.
        if nodes[task_index].sources.is_empty()
            && let Some(innermost) = nodes[task_index].mapped_groups.first()
        {
            let sources = &structure.groups[*innermost].sources;
            nodes[task_index].sources = sources.iter().filter_map(|id| task_indices.get(id).copied()).collect();
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
fn add_setups(tasks: &[Task], nodes: &mut [Node]) {
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
fn mark_leaves(tasks: &[Task], nodes: &mut [Node]) {
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

    /// All upstream tasks, direct and indirect.
    pub(crate) fn all_upstream(&self, task_index: usize) -> BTreeSet<usize> {
        reachable(&self.nodes, task_index, |node| &node.upstream)
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
