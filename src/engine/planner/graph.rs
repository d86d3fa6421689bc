//! The dependencies between the tasks of a DAG, by each task's index in its list, and what follows from them.

use crate::engine::dag::{Group, Structure, Task, TriggerRule};
use std::collections::{BTreeSet, HashMap};

#[derive(Debug)]
pub struct Graph {
    pub structure: Structure,
    task_indices: HashMap<String, usize>,
    nodes: Vec<Node>,
    /// Whether any task depends on its own past.
    pub has_past: bool,
    /// Whether any task decides which of those below it run.
    pub has_decisions: bool,
    /// Sensors for which the scheduler looks.
    pub polled_sensors: Vec<usize>,
}

/// A task among the others.
#[derive(Debug, Default)]
pub struct Node {
    pub upstream: Vec<usize>,
    pub downstream: Vec<usize>,
    /// Setups above it that it needs, other than those right above it.
    pub indirect_setups: Vec<usize>,
    /// Of a teardown: what lies between its setups and it.
    pub scope: Vec<usize>,
    /// The mapped groups it is in, the innermost first.
    pub mapped_groups: Vec<usize>,
    /// Tasks whose results decide how many instances there are of it: its own, or those of its innermost mapped group.
    pub sources: Vec<usize>,
    /// The same with those of all the groups around it.
    pub length_sources: Vec<usize>,
    /// Whether the run's state depends on it.
    pub is_leaf: bool,
    /// What has to be looked at again when this one has changed.
    pub dependants: Vec<usize>,
}

impl Graph {
    pub fn new(structure: Structure) -> Self {
        let task_indices: HashMap<String, usize> =
            structure.tasks.iter().enumerate().map(|(task_index, task)| (task.task_id.clone(), task_index)).collect();
        let has_past = structure.tasks.iter().any(|task| task.depends_on_past);
        let has_decisions = structure.tasks.iter().any(|task| task.decides);
        let nodes = nodes(&structure, &task_indices);
        let is_polled = |task: &Task| task.waits.as_ref().is_some_and(|wait| wait.until.poke_interval().is_some());
        let polled_sensors = (0..structure.tasks.len()).filter(|at| is_polled(&structure.tasks[*at])).collect();
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

    /// Whether there may be several instances of it.
    pub fn is_expandable(&self, task_index: usize) -> bool {
        self.task(task_index).mapped || !self.nodes[task_index].mapped_groups.is_empty()
    }

    pub fn has_expandable(&self) -> bool {
        (0..self.len()).any(|task_index| self.is_expandable(task_index))
    }

    /// How many instances there are to be of it; `None` as long as that is not known.
    pub fn count(&self, task_index: usize, of_task: &impl Fn(&str) -> Option<usize>) -> Option<usize> {
        let own = match &self.task(task_index).length {
            Some(length) => length.resolve(of_task)?,
            None => 1,
        };
        let mut whole = own;
        for group in &self.nodes[task_index].mapped_groups {
            whole *= self.group_count(*group, of_task)?;
        }
        Some(whole)
    }

    pub fn group_count(&self, group: usize, of_task: &impl Fn(&str) -> Option<usize>) -> Option<usize> {
        self.structure.groups[group].length.as_ref().map_or(Some(1), |length| length.resolve(of_task))
    }

    /// Every task whose result some length depends on.
    pub fn length_sources(&self) -> Vec<&str> {
        let of_tasks = self.structure.tasks.iter().flat_map(|task| &task.sources);
        let of_groups = self.structure.groups.iter().flat_map(|group| &group.sources);
        of_tasks.chain(of_groups).map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

fn nodes(structure: &Structure, task_indices: &HashMap<String, usize>) -> Vec<Node> {
    let tasks = &structure.tasks;
    let mut nodes: Vec<Node> = tasks.iter().map(|_| Node::default()).collect();
    for (task_index, task) in tasks.iter().enumerate() {
        let up: Vec<usize> = task.upstream.iter().filter_map(|id| task_indices.get(id).copied()).collect();
        up.iter().for_each(|above| nodes[*above].downstream.push(task_index));
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

fn add_groups(structure: &Structure, task_indices: &HashMap<String, usize>, nodes: &mut [Node]) {
    let by_id: HashMap<&str, usize> =
        structure.groups.iter().enumerate().map(|(at, group)| (group.group_id.as_str(), at)).collect();
    for (task_index, task) in structure.tasks.iter().enumerate() {
        let mut group = task.group.as_deref().and_then(|id| by_id.get(id).copied());
        // A chain of groups without an end would be a mistake of ours; it ends all the same.
        for _ in 0..=structure.groups.len() {
            let Some(at) = group else { break };
            if structure.groups[at].length.is_some() {
                nodes[task_index].mapped_groups.push(at);
            }
            group = structure.groups[at].parent.as_deref().and_then(|id| by_id.get(id).copied());
        }
        let of_groups = nodes[task_index].mapped_groups.iter().flat_map(|at| &structure.groups[*at].sources);
        let ids: BTreeSet<&String> = task.sources.iter().chain(of_groups).collect();
        nodes[task_index].length_sources = ids.into_iter().filter_map(|id| task_indices.get(id).copied()).collect();
        // As in Airflow, only the innermost group's sources are waited for.
        if nodes[task_index].sources.is_empty()
            && let Some(innermost) = nodes[task_index].mapped_groups.first()
        {
            let sources = &structure.groups[*innermost].sources;
            nodes[task_index].sources = sources.iter().filter_map(|id| task_indices.get(id).copied()).collect();
        }
    }
}

/// All that can be reached by the arrows.
fn reach(nodes: &[Node], from: usize, next: impl Fn(&Node) -> &Vec<usize>) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![from];
    while let Some(task_index) = waiting.pop() {
        for other in next(&nodes[task_index]) {
            if found.insert(*other) {
                waiting.push(*other);
            }
        }
    }
    found
}

/// <https://airflow.apache.org/docs/apache-airflow/stable/howto/setup-and-teardown.html>
fn add_setups(tasks: &[Task], nodes: &mut [Node]) {
    let is_teardown = |task_index: &usize| tasks[*task_index].is_teardown;
    let mut needs: Vec<(usize, Vec<usize>, Vec<usize>)> = Vec::new();
    for task_index in 0..tasks.len() {
        let above = reach(nodes, task_index, |node| &node.upstream);
        let direct: BTreeSet<usize> = nodes[task_index].upstream.iter().copied().collect();
        if tasks[task_index].is_teardown {
            let mut scope = BTreeSet::new();
            for setup in direct.iter().filter(|other| tasks[**other].is_setup) {
                let below = reach(nodes, *setup, |node| &node.downstream);
                scope.extend(above.iter().filter(|other| !direct.contains(other) && below.contains(other)).copied());
            }
            needs.push((task_index, Vec::new(), scope.into_iter().collect()));
            continue;
        }
        let setups: Vec<usize> = above.iter().filter(|other| tasks[**other].is_setup).copied().collect();
        if setups.is_empty() {
            continue;
        }
        let below = reach(nodes, task_index, |node| &node.downstream);
        let is_relevant = |setup: &usize| {
            let mut teardowns = nodes[*setup].downstream.iter().filter(|other| is_teardown(other)).peekable();
            teardowns.peek().is_none() || teardowns.any(|teardown| below.contains(teardown))
        };
        let indirect = setups.into_iter().filter(|setup| !direct.contains(setup) && is_relevant(setup)).collect();
        needs.push((task_index, indirect, Vec::new()));
    }
    for (task_index, indirect, scope) in needs {
        nodes[task_index].indirect_setups = indirect;
        nodes[task_index].scope = scope;
    }
}

/// A teardown does not decide about its run, unless it says so; whoever comes before one does.
fn mark_leaves(tasks: &[Task], nodes: &mut [Node]) {
    let ignored = |task_index: usize| tasks[task_index].is_teardown && !tasks[task_index].on_failure_fail_dagrun;
    for (task_index, node) in nodes.iter_mut().enumerate() {
        node.is_leaf = !ignored(task_index) && node.downstream.iter().all(|down| ignored(*down));
    }
    if !nodes.iter().any(|node| node.is_leaf) {
        for node in nodes.iter_mut() {
            node.is_leaf = node.downstream.is_empty();
        }
    }
}

impl Graph {
    /// All that come after a task.
    pub fn below(&self, task_index: usize) -> BTreeSet<usize> {
        reach(&self.nodes, task_index, |node| &node.downstream)
    }

    /// All that come before a task.
    pub fn above(&self, task_index: usize) -> BTreeSet<usize> {
        reach(&self.nodes, task_index, |node| &node.upstream)
    }

    /// The setups, direct ones included, that a task needs.
    pub fn relevant_setups(&self, task_index: usize) -> Vec<usize> {
        let direct = self.nodes[task_index].upstream.iter().filter(|up| self.task(**up).is_setup);
        direct.chain(&self.nodes[task_index].indirect_setups).copied().collect()
    }

    /// Rules that one upstream alone can satisfy: before a group is expanded they wait for all of it.
    pub fn is_hasty(&self, task_index: usize) -> bool {
        matches!(
            self.task(task_index).trigger_rule,
            TriggerRule::OneSuccess
                | TriggerRule::OneFailed
                | TriggerRule::OneDone
                | TriggerRule::NoneFailedMinOneSuccess
        )
    }
}
