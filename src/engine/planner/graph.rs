//! The arrows of a DAG, by place in its list of tasks, and what follows from them.

use crate::engine::dag::TriggerRule;
use crate::engine::dag::{Group, Structure, Task};
use std::collections::{BTreeSet, HashMap};

#[derive(Debug)]
pub struct Graph {
    pub structure: Structure,
    places: HashMap<String, usize>,
    nodes: Vec<Node>,
    /// Whether any task depends on its own past.
    pub has_past: bool,
    /// Whether any task decides which of those below it run.
    pub has_decisions: bool,
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
    /// Tasks whose results decide how many instances there are of it.
    pub sources: Vec<usize>,
    /// Whether the run's state depends on it.
    pub is_leaf: bool,
    /// What has to be looked at again when this one has changed.
    pub dependants: Vec<usize>,
}

impl Graph {
    pub fn new(structure: Structure) -> Self {
        let places: HashMap<String, usize> =
            structure.tasks.iter().enumerate().map(|(place, task)| (task.task_id.clone(), place)).collect();
        let has_past = structure.tasks.iter().any(|task| task.depends_on_past);
        let has_decisions = structure.tasks.iter().any(|task| task.decides);
        let nodes = nodes(&structure, &places);
        Self { structure, places, nodes, has_past, has_decisions }
    }

    pub fn len(&self) -> usize {
        self.structure.tasks.len()
    }

    pub fn is_empty(&self) -> bool {
        self.structure.tasks.is_empty()
    }

    pub fn place(&self, task_id: &str) -> Option<usize> {
        self.places.get(task_id).copied()
    }

    pub fn task(&self, place: usize) -> &Task {
        &self.structure.tasks[place]
    }

    pub fn node(&self, place: usize) -> &Node {
        &self.nodes[place]
    }

    pub fn group(&self, group: usize) -> &Group {
        &self.structure.groups[group]
    }

    /// Whether there may be several instances of it.
    pub fn is_expandable(&self, place: usize) -> bool {
        self.task(place).mapped || !self.nodes[place].mapped_groups.is_empty()
    }

    pub fn has_expandable(&self) -> bool {
        (0..self.len()).any(|place| self.is_expandable(place))
    }

    /// How many instances there are to be of it; `None` as long as that is not known.
    pub fn count(&self, place: usize, of_task: &impl Fn(&str) -> Option<usize>) -> Option<usize> {
        let own = match &self.task(place).length {
            Some(length) => length.resolve(of_task)?,
            None => 1,
        };
        let mut whole = own;
        for group in &self.nodes[place].mapped_groups {
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

fn nodes(structure: &Structure, places: &HashMap<String, usize>) -> Vec<Node> {
    let tasks = &structure.tasks;
    let mut nodes: Vec<Node> = tasks.iter().map(|_| Node::default()).collect();
    for (place, task) in tasks.iter().enumerate() {
        let up: Vec<usize> = task.upstream.iter().filter_map(|id| places.get(id).copied()).collect();
        up.iter().for_each(|above| nodes[*above].downstream.push(place));
        nodes[place].upstream = up;
        nodes[place].sources = task.sources.iter().filter_map(|id| places.get(id).copied()).collect();
    }
    add_groups(structure, places, &mut nodes);
    if tasks.iter().any(|task| task.is_setup || task.is_teardown) {
        add_setups(tasks, &mut nodes);
    }
    mark_leaves(tasks, &mut nodes);
    for place in 0..nodes.len() {
        let node = &nodes[place];
        let others: Vec<usize> = node
            .upstream
            .iter()
            .chain(&node.indirect_setups)
            .chain(&node.scope)
            .chain(&node.sources)
            .copied()
            .collect();
        for other in others {
            nodes[other].dependants.push(place);
        }
    }
    nodes.iter_mut().for_each(|node| {
        node.dependants.sort_unstable();
        node.dependants.dedup();
    });
    nodes
}

fn add_groups(structure: &Structure, places: &HashMap<String, usize>, nodes: &mut [Node]) {
    let by_id: HashMap<&str, usize> =
        structure.groups.iter().enumerate().map(|(at, group)| (group.group_id.as_str(), at)).collect();
    for (place, task) in structure.tasks.iter().enumerate() {
        let mut group = task.group.as_deref().and_then(|id| by_id.get(id).copied());
        // A chain of groups without an end would be a mistake of ours; it ends all the same.
        for _ in 0..=structure.groups.len() {
            let Some(at) = group else { break };
            if structure.groups[at].length.is_some() {
                nodes[place].mapped_groups.push(at);
            }
            group = structure.groups[at].parent.as_deref().and_then(|id| by_id.get(id).copied());
        }
        // As in Airflow, only the innermost group's sources are waited for.
        if nodes[place].sources.is_empty()
            && let Some(innermost) = nodes[place].mapped_groups.first()
        {
            let sources = &structure.groups[*innermost].sources;
            nodes[place].sources = sources.iter().filter_map(|id| places.get(id).copied()).collect();
        }
    }
}

/// All that can be reached by the arrows.
fn reach(nodes: &[Node], from: usize, next: impl Fn(&Node) -> &Vec<usize>) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![from];
    while let Some(place) = waiting.pop() {
        for other in next(&nodes[place]) {
            if found.insert(*other) {
                waiting.push(*other);
            }
        }
    }
    found
}

/// <https://airflow.apache.org/docs/apache-airflow/stable/howto/setup-and-teardown.html>
fn add_setups(tasks: &[Task], nodes: &mut [Node]) {
    let is_teardown = |place: &usize| tasks[*place].is_teardown;
    let mut needs: Vec<(usize, Vec<usize>, Vec<usize>)> = Vec::new();
    for place in 0..tasks.len() {
        let above = reach(nodes, place, |node| &node.upstream);
        let direct: BTreeSet<usize> = nodes[place].upstream.iter().copied().collect();
        if tasks[place].is_teardown {
            let mut scope = BTreeSet::new();
            for setup in direct.iter().filter(|other| tasks[**other].is_setup) {
                let below = reach(nodes, *setup, |node| &node.downstream);
                scope.extend(above.iter().filter(|other| !direct.contains(other) && below.contains(other)).copied());
            }
            needs.push((place, Vec::new(), scope.into_iter().collect()));
            continue;
        }
        let setups: Vec<usize> = above.iter().filter(|other| tasks[**other].is_setup).copied().collect();
        if setups.is_empty() {
            continue;
        }
        let below = reach(nodes, place, |node| &node.downstream);
        let is_relevant = |setup: &usize| {
            let mut teardowns = nodes[*setup].downstream.iter().filter(|other| is_teardown(other)).peekable();
            teardowns.peek().is_none() || teardowns.any(|teardown| below.contains(teardown))
        };
        let indirect = setups.into_iter().filter(|setup| !direct.contains(setup) && is_relevant(setup)).collect();
        needs.push((place, indirect, Vec::new()));
    }
    for (place, indirect, scope) in needs {
        nodes[place].indirect_setups = indirect;
        nodes[place].scope = scope;
    }
}

/// A teardown does not decide about its run, unless it says so; whoever comes before one does.
fn mark_leaves(tasks: &[Task], nodes: &mut [Node]) {
    let ignored = |place: usize| tasks[place].is_teardown && !tasks[place].on_failure_fail_dagrun;
    for (place, node) in nodes.iter_mut().enumerate() {
        node.is_leaf = !ignored(place) && node.downstream.iter().all(|down| ignored(*down));
    }
    if !nodes.iter().any(|node| node.is_leaf) {
        for node in nodes.iter_mut() {
            node.is_leaf = node.downstream.is_empty();
        }
    }
}

impl Graph {
    /// All that come after a task.
    pub fn below(&self, place: usize) -> BTreeSet<usize> {
        reach(&self.nodes, place, |node| &node.downstream)
    }

    /// All that come before a task.
    pub fn above(&self, place: usize) -> BTreeSet<usize> {
        reach(&self.nodes, place, |node| &node.upstream)
    }

    /// The setups, direct ones included, that a task needs.
    pub fn relevant_setups(&self, place: usize) -> Vec<usize> {
        let direct = self.nodes[place].upstream.iter().filter(|up| self.task(**up).is_setup);
        direct.chain(&self.nodes[place].indirect_setups).copied().collect()
    }

    /// Rules that one upstream alone can satisfy: before a group is expanded they wait for all of it.
    pub fn is_hasty(&self, place: usize) -> bool {
        matches!(
            self.task(place).trigger_rule,
            TriggerRule::OneSuccess
                | TriggerRule::OneFailed
                | TriggerRule::OneDone
                | TriggerRule::NoneFailedMinOneSuccess
        )
    }
}
