//! The tasks of a DAG within their groups, in the order in which the UI shows them.

use crate::engine::dag::{Group, Structure, Task};
use crate::engine::planner::graph::Graph;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A task, or a group with what is in it.
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

    /// The tasks below it, itself where it is one.
    pub fn tasks(&self) -> Vec<&'a Task> {
        match self {
            Self::Task(task) => vec![task],
            Self::Group { children, .. } => children.iter().flat_map(Node::tasks).collect(),
        }
    }

    /// What the UI calls it: within a group without that group's own prefix.
    pub fn label(&self) -> String {
        let (id, given, parent) = match self {
            Self::Task(task) => {
                (&task.task_id, task.display_name.as_deref().unwrap_or_default(), task.group.as_deref())
            }
            Self::Group { group, .. } => (&group.group_id, group.display_name.as_str(), group.parent.as_deref()),
        };
        if !given.is_empty() && given != id {
            return given.to_owned();
        }
        let within = parent.and_then(|parent| id.strip_prefix(parent)).and_then(|rest| rest.strip_prefix('.'));
        within.unwrap_or(id).to_owned()
    }
}

/// What is at the top of the DAG.
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
    let mut found: Vec<Node<'a>> = groups.chain(tasks).collect();
    found.sort_by_key(Node::id);
    sorted(found)
}

/// Each after what any of its tasks waits for; those that wait for one another in their first order.
fn sorted(nodes: Vec<Node<'_>>) -> Vec<Node<'_>> {
    let mut owners = HashMap::new();
    for (at, node) in nodes.iter().enumerate() {
        owners.extend(node.tasks().into_iter().map(|task| (task.task_id.as_str(), at)));
    }
    let waits_for: Vec<BTreeSet<usize>> = nodes
        .iter()
        .enumerate()
        .map(|(at, node)| {
            let upstream = node.tasks().into_iter().flat_map(|task| &task.upstream);
            upstream.filter_map(|id| owners.get(id.as_str())).copied().filter(|other| *other != at).collect()
        })
        .collect();
    let mut left: Vec<Option<Node<'_>>> = nodes.into_iter().map(Some).collect();
    let mut done = Vec::with_capacity(left.len());
    loop {
        let before = done.len();
        for (at, waits_for) in waits_for.iter().enumerate() {
            if waits_for.iter().all(|other| left[*other].is_none()) {
                done.extend(left[at].take());
            }
        }
        if done.len() == before {
            done.extend(left.into_iter().flatten());
            return done;
        }
    }
}

/// Which part of a DAG is looked at.
#[derive(Debug, Default)]
pub struct Part {
    /// In the ids of the tasks that it is around; all without one.
    pub root: Option<String>,
    pub upstream: bool,
    pub downstream: bool,
    /// How far from the root.
    pub depth: Option<usize>,
}

impl Part {
    /// The DAG with those tasks alone, and the groups that still have some.
    pub fn of(&self, mut structure: Structure) -> Structure {
        let Some(root) = &self.root else { return structure };
        let graph = Graph::new(structure.clone());
        let chosen: Vec<usize> =
            (0..graph.len()).filter(|at| graph.task(*at).task_id.contains(root.as_str())).collect();
        let mut kept: BTreeSet<usize> = chosen.iter().copied().collect();
        for at in chosen {
            if self.upstream {
                kept.extend(self.reached(at, |at| &graph.node(at).upstream));
            }
            if self.downstream {
                kept.extend(self.reached(at, |at| &graph.node(at).downstream));
            }
        }
        let kept: BTreeSet<String> = kept.into_iter().map(|at| graph.task(at).task_id.clone()).collect();
        structure.tasks.retain(|task| kept.contains(&task.task_id));
        for task in &mut structure.tasks {
            task.upstream.retain(|upstream| kept.contains(upstream));
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
            group.keep_links_to(&kept, &used);
        }
        structure
    }

    fn reached<'g>(&self, from: usize, next: impl Fn(usize) -> &'g Vec<usize>) -> BTreeSet<usize> {
        let (mut found, mut edge) = (BTreeSet::new(), vec![from]);
        for _ in 0..self.depth.unwrap_or(usize::MAX) {
            let beyond = edge.iter().flat_map(|at| next(*at)).copied().filter(|at| found.insert(*at));
            edge = beyond.collect::<Vec<_>>();
            if edge.is_empty() {
                break;
            }
        }
        found
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

    fn shown(nodes: &[Node<'_>]) -> Vec<String> {
        nodes
            .iter()
            .map(|node| match node {
                Node::Task(_) => node.label(),
                Node::Group { children, .. } => format!("{}({})", node.label(), shown(children).join(" ")),
            })
            .collect()
    }

    #[test]
    fn groups_stand_where_their_tasks_do() {
        assert_eq!(shown(&tree(&dag())), ["a", "g(h(x) y)", "z"]);
    }

    #[test]
    fn a_part_is_what_is_around_its_root() {
        let part = |upstream, downstream, depth| {
            let part = Part { root: Some("g.y".into()), upstream, downstream, depth };
            shown(&tree(&part.of(dag())))
        };
        assert_eq!(part(false, false, None), ["g(y)"]);
        assert_eq!(part(true, false, None), ["a", "g(h(x) y)"]);
        assert_eq!(part(true, true, Some(1)), ["g(h(x) y)", "z"]);
    }
}
