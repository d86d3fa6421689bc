//! A DAG's tasks nested in their groups, in the UI's order.

use leoflow_engine::model::dag::{Group, Structure, Task};
use leoflow_engine::planner::graph::Graph;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A task, or a group with its children.
pub enum Node<'a> {
    Task(&'a Task),
    Group { group: &'a Group, children: Vec<Node<'a>>, is_mapped: bool },
}

impl<'a> Node<'a> {
    pub fn id(&self) -> &'a str {
        match self {
            Self::Task(task) => &task.task_id,
            Self::Group { group, .. } => &group.group_id,
        }
    }

    /// Returns all tasks of the node: itself, or those of a group and its nested groups.
    pub fn tasks(&self) -> Vec<&'a Task> {
        match self {
            Self::Task(task) => vec![task],
            Self::Group { children, .. } => children.iter().flat_map(Node::tasks).collect(),
        }
    }

    /// Returns the UI's label: within a group, without the group's prefix.
    pub fn label(&self) -> String {
        let (id, display_name, parent) = match self {
            Self::Task(task) => {
                (&task.task_id, task.display_name.as_deref().unwrap_or_default(), task.group.as_deref())
            }
            Self::Group { group, .. } => (&group.group_id, group.display_name.as_str(), group.parent.as_deref()),
        };
        if !display_name.is_empty() && display_name != id {
            return display_name.to_owned();
        }
        let relative_id = parent.and_then(|parent| id.strip_prefix(parent)).and_then(|suffix| suffix.strip_prefix('.'));
        relative_id.unwrap_or(id).to_owned()
    }
}

/// The fields of a group that is a loop, for the graph and the grid.
pub fn loop_fields(group: &Group) -> Vec<(&'static str, Value)> {
    let Some(repeats) = &group.repeats else { return Vec::new() };
    vec![
        ("is_loop", true.into()),
        ("loop_max_iterations", repeats.max_iterations.into()),
        ("loop_exit_task_id", repeats.gate.as_str().into()),
        ("loop_exit_criteria_doc", repeats.doc.as_deref().into()),
    ]
}

/// Returns the top-level nodes of the DAG.
pub fn tree(structure: &Structure) -> Vec<Node<'_>> {
    children(structure, None)
}

fn children<'a>(structure: &'a Structure, parent: Option<&str>) -> Vec<Node<'a>> {
    let groups = structure.groups.iter().filter(|group| group.parent.as_deref() == parent).map(|group| Node::Group {
        group,
        children: children(structure, Some(&group.group_id)),
        is_mapped: group.length.is_some() || !group.sources.is_empty(),
    });
    let tasks = structure.tasks.iter().filter(|task| task.group.as_deref() == parent).map(Node::Task);
    let mut nodes: Vec<Node<'a>> = groups.chain(tasks).collect();
    nodes.sort_by_key(Node::id);
    sort_topologically(nodes)
}

/// Sorts nodes topologically; nodes in a cycle keep their order.
fn sort_topologically(nodes: Vec<Node<'_>>) -> Vec<Node<'_>> {
    let mut owners = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        owners.extend(node.tasks().into_iter().map(|task| (task.task_id.as_str(), index)));
    }
    let waits_for: Vec<BTreeSet<usize>> = nodes
        .iter()
        .enumerate()
        .map(|(index, node)| {
            let upstream = node.tasks().into_iter().flat_map(|task| &task.upstream);
            upstream.filter_map(|id| owners.get(id.as_str())).copied().filter(|other| *other != index).collect()
        })
        .collect();
    let mut remaining: Vec<Option<Node<'_>>> = nodes.into_iter().map(Some).collect();
    let mut sorted = Vec::with_capacity(remaining.len());
    loop {
        let before = sorted.len();
        for (index, waits_for) in waits_for.iter().enumerate() {
            if waits_for.iter().all(|other| remaining[*other].is_none()) {
                sorted.extend(remaining[index].take());
            }
        }
        if sorted.len() == before {
            sorted.extend(remaining.into_iter().flatten());
            return sorted;
        }
    }
}

/// Selects a part of a DAG.
#[derive(Debug, Default)]
pub struct Part {
    /// Selects the tasks whose id contains this text, called roots; `None` selects all tasks.
    pub root: Option<String>,
    /// True to select the tasks upstream of the roots too.
    pub upstream: bool,
    pub downstream: bool,
    /// Largest distance from a root.
    pub depth: Option<usize>,
}

impl Part {
    /// Reduces the DAG to the selected tasks and the groups that still have some.
    pub fn reduce(&self, mut structure: Structure) -> Structure {
        let Some(root) = &self.root else { return structure };
        let graph = Graph::new(structure.clone());
        let roots: Vec<usize> =
            (0..graph.len()).filter(|index| graph.task(*index).task_id.contains(root.as_str())).collect();
        let mut selected: BTreeSet<usize> = roots.iter().copied().collect();
        for index in roots {
            if self.upstream {
                selected.extend(self.reachable(index, |index| &graph.node(index).upstream));
            }
            if self.downstream {
                selected.extend(self.reachable(index, |index| &graph.node(index).downstream));
            }
        }
        let selected: BTreeSet<String> = selected.into_iter().map(|index| graph.task(index).task_id.clone()).collect();
        structure.tasks.retain(|task| selected.contains(&task.task_id));
        for task in &mut structure.tasks {
            task.upstream.retain(|upstream| selected.contains(upstream));
        }
        let parents: BTreeMap<String, Option<String>> =
            structure.groups.iter().map(|group| (group.group_id.clone(), group.parent.clone())).collect();
        let mut used = BTreeSet::new();
        for task in &structure.tasks {
            let mut group = task.group.clone();
            while let Some(id) = group {
                group = parents.get(&id).cloned().flatten();
                used.insert(id);
            }
        }
        structure.groups.retain(|group| used.contains(&group.group_id));
        for group in &mut structure.groups {
            group.keep_links_to(&selected, &used);
        }
        structure
    }

    /// Returns the tasks that are reached from one task along `next`.
    fn reachable<'g>(&self, from: usize, next: impl Fn(usize) -> &'g Vec<usize>) -> BTreeSet<usize> {
        let (mut reached, mut frontier) = (BTreeSet::new(), vec![from]);
        for _ in 0..self.depth.unwrap_or(usize::MAX) {
            let next_tasks =
                frontier.iter().flat_map(|index| next(*index)).copied().filter(|index| reached.insert(*index));
            frontier = next_tasks.collect::<Vec<_>>();
            if frontier.is_empty() {
                break;
            }
        }
        reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn dag() -> Structure {
        let task = |id: &str, group: Option<&str>, upstream: &[&str]| json!({"task_id": id, "operator": "x", "group": group, "upstream": upstream});
        let text = json!({
            "dag_id": "d",
            "groups": [{"group_id": "g"}, {"group_id": "g.h", "parent": "g"}],
            "tasks": [task("a", None, &[]), task("g.h.x", Some("g.h"), &["a"]), task("g.y", Some("g"), &["g.h.x"]), task("z", None, &["g.y"])],
        });
        serde_json::from_value(text).unwrap()
    }

    fn outline(nodes: &[Node<'_>]) -> Vec<String> {
        nodes
            .iter()
            .map(|node| match node {
                Node::Task(_) => node.label(),
                Node::Group { children, .. } => format!("{}({})", node.label(), outline(children).join(" ")),
            })
            .collect()
    }

    #[test]
    fn groups_are_ordered_by_their_tasks() {
        assert_eq!(outline(&tree(&dag())), ["a", "g(h(x) y)", "z"]);
    }

    #[test]
    fn selects_tasks_around_the_root() {
        let part = |upstream, downstream, depth| {
            let part = Part { root: Some("g.y".into()), upstream, downstream, depth };
            outline(&tree(&part.reduce(dag())))
        };
        assert_eq!(part(false, false, None), ["g(y)"]);
        assert_eq!(part(true, false, None), ["a", "g(h(x) y)"]);
        assert_eq!(part(true, true, Some(1)), ["g(h(x) y)", "z"]);
    }
}
