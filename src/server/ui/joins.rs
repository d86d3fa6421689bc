//! Edges of a DAG as the UI draws them. Where the DAG connects a whole group, one edge to the group's join node
//! replaces the edges to each of its first or last tasks. The rules follow Airflow's `airflow.utils.dag_edges`.

use super::tree::Node;
use leoflow_engine::model::dag::{Group, Structure, Task};
use std::collections::{BTreeMap, BTreeSet};

/// Source and target of an edge: ids of tasks or joins.
pub type Edge = (String, String);

pub fn upstream_join(group_id: &str) -> String {
    format!("{group_id}.upstream_join_id")
}

pub fn downstream_join(group_id: &str) -> String {
    format!("{group_id}.downstream_join_id")
}

/// Returns all edges of a DAG; `top` are the top-level nodes of `structure`.
pub fn edges_with_joins(structure: &Structure, top: &[Node<'_>]) -> BTreeSet<Edge> {
    let mut groups = BTreeMap::new();
    collect_ends(top, &mut groups);
    let joins = Joins::new(&groups);
    let pairs = structure.tasks.iter().flat_map(|task| task.upstream.iter().map(move |upstream| (upstream, task)));
    let direct = pairs.filter(|(upstream, task)| !joins.replaces(upstream, &task.task_id));
    let mut edges: BTreeSet<Edge> = direct.map(|(upstream, task)| edge(upstream, &task.task_id)).collect();
    for ends in groups.values() {
        add_group_edges(ends, &groups, &mut edges);
        add_task_edges(ends, &groups, &mut edges);
    }
    edges
}

type Groups<'a> = BTreeMap<&'a str, Ends<'a>>;

/// An index of groups by their first tasks (roots) and last tasks (leaves), since there may be millions of task pairs.
struct Joins<'g, 'a> {
    by_leaf: BTreeMap<&'a str, Vec<&'g Ends<'a>>>,
    by_root: BTreeMap<&'a str, Vec<&'g Ends<'a>>>,
}

impl<'g, 'a> Joins<'g, 'a> {
    fn new(groups: &'g Groups<'a>) -> Self {
        let mut joins = Self { by_leaf: BTreeMap::new(), by_root: BTreeMap::new() };
        for ends in groups.values() {
            ends.leaves.iter().for_each(|leaf| joins.by_leaf.entry(*leaf).or_default().push(ends));
            ends.roots.iter().for_each(|root| joins.by_root.entry(*root).or_default().push(ends));
        }
        joins
    }

    /// True when joins replace the edge between two tasks.
    fn replaces(&self, source: &str, target: &str) -> bool {
        let source_groups = self.by_leaf.get(source).map_or(&[][..], Vec::as_slice);
        let target_groups = self.by_root.get(target).map_or(&[][..], Vec::as_slice);
        let is_target_group = |group_id: &String| target_groups.iter().any(|ends| ends.group.group_id == *group_id);
        source_groups.iter().any(|ends| {
            ends.group.downstream_task_ids.contains(target)
                || ends.group.downstream_group_ids.iter().any(is_target_group)
        }) || target_groups.iter().any(|ends| ends.group.upstream_task_ids.contains(source))
    }
}

/// Adds the edges between a group and its downstream groups.
fn add_group_edges(ends: &Ends<'_>, groups: &Groups<'_>, edges: &mut BTreeSet<Edge>) {
    for downstream in ends.group.downstream_group_ids.iter().filter_map(|id| groups.get(id.as_str())) {
        let (from, to) = (downstream_join(&ends.group.group_id), upstream_join(&downstream.group.group_id));
        edges.extend(ends.leaves.iter().map(|leaf| edge(leaf, &from)));
        edges.extend(downstream.roots.iter().map(|root| edge(&to, root)));
        edges.insert((from, to));
    }
}

/// Adds the edges between a group and the tasks that it is connected with.
fn add_task_edges(ends: &Ends<'_>, groups: &Groups<'_>, edges: &mut BTreeSet<Edge>) {
    let (group, upstream, downstream) =
        (ends.group, upstream_join(&ends.group.group_id), downstream_join(&ends.group.group_id));
    let any_group_ends_at = |ids: &BTreeSet<String>, task: &str, is_end: fn(&Ends<'_>, &str) -> bool| {
        ids.iter().filter_map(|id| groups.get(id.as_str())).any(|other| is_end(other, task))
    };
    for task in &group.downstream_task_ids {
        edges.extend(ends.leaves.iter().map(|leaf| edge(leaf, &downstream)));
        // If a downstream group starts with this task, the edge between the joins replaces this one.
        if !any_group_ends_at(&group.downstream_group_ids, task, |other, task| other.roots.contains(task)) {
            edges.insert(edge(&downstream, task));
        }
    }
    for task in &group.upstream_task_ids {
        edges.extend(ends.roots.iter().map(|root| edge(&upstream, root)));
        if !any_group_ends_at(&group.upstream_group_ids, task, |other, task| other.leaves.contains(task)) {
            edges.insert(edge(task, &upstream));
        }
    }
}

fn edge(source: &str, target: &str) -> Edge {
    (source.to_owned(), target.to_owned())
}

/// A group, with the ids of its first and last tasks.
struct Ends<'a> {
    group: &'a Group,
    roots: BTreeSet<&'a str>,
    leaves: BTreeSet<&'a str>,
}

/// Collects the groups among the nodes and below them.
fn collect_ends<'a>(nodes: &[Node<'a>], groups: &mut Groups<'a>) {
    for node in nodes {
        let Node::Group { group, children, .. } = node else { continue };
        let group_tasks = GroupTasks::new(node.tasks());
        let (roots, leaves) = (group_tasks.roots(), group_tasks.leaves());
        groups.insert(&group.group_id, Ends { group, roots, leaves });
        collect_ends(children, groups);
    }
}

/// The tasks of a group, including nested groups, with their downstream tasks.
struct GroupTasks<'a> {
    tasks: BTreeMap<&'a str, &'a Task>,
    downstream: BTreeMap<&'a str, Vec<&'a Task>>,
}

impl<'a> GroupTasks<'a> {
    fn new(tasks: Vec<&'a Task>) -> Self {
        let tasks: BTreeMap<&str, &Task> = tasks.into_iter().map(|task| (task.task_id.as_str(), task)).collect();
        let mut downstream: BTreeMap<&str, Vec<&Task>> = BTreeMap::new();
        for task in tasks.values().copied() {
            for upstream in &task.upstream {
                downstream.entry(upstream).or_default().push(task);
            }
        }
        Self { tasks, downstream }
    }

    /// Returns the first tasks: those that wait for no task of the group.
    fn roots(&self) -> BTreeSet<&'a str> {
        let waits_within = |task: &Task| task.upstream.iter().any(|id| self.tasks.contains_key(id.as_str()));
        self.tasks.values().filter(|task| !waits_within(task)).map(|task| task.task_id.as_str()).collect()
    }

    /// Returns the last tasks. Tasks after a group wait for the tasks before its teardowns, not for the teardowns.
    fn leaves(&self) -> BTreeSet<&'a str> {
        let mut leaves = BTreeSet::new();
        let last = self.tasks.values().copied().filter(|task| !self.downstream.contains_key(task.task_id.as_str()));
        for task in last {
            if task.is_teardown {
                self.add_leaves_before(task, &mut leaves);
            } else {
                leaves.insert(task.task_id.as_str());
            }
        }
        leaves
    }

    /// Adds the tasks before a teardown after which only teardowns follow.
    fn add_leaves_before(&self, teardown: &'a Task, leaves: &mut BTreeSet<&'a str>) {
        for task in teardown.upstream.iter().filter_map(|id| self.tasks.get(id.as_str()).copied()) {
            let after = self.downstream.get(task.task_id.as_str());
            if task.is_teardown {
                self.add_leaves_before(task, leaves);
            } else if !task.is_setup && after.is_none_or(|after| after.iter().all(|task| task.is_teardown)) {
                leaves.insert(&task.task_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::tree;
    use super::*;
    use serde_json::{Value, json};

    fn task(id: &str, group: Option<&str>, upstream: &[&str]) -> Value {
        json!({"task_id": id, "operator": "x", "group": group, "upstream": upstream})
    }

    fn edges(groups: Value, tasks: Vec<Value>) -> Vec<String> {
        let structure = serde_json::from_value(json!({"dag_id": "d", "groups": groups, "tasks": tasks})).unwrap();
        let edges = edges_with_joins(&structure, &tree(&structure));
        edges.iter().map(|(source, target)| format!("{source}>{target}")).collect()
    }

    #[test]
    fn one_edge_replaces_all_between_two_groups() {
        let groups = json!([
            {"group_id": "a", "downstream_group_ids": ["b"]},
            {"group_id": "b", "upstream_group_ids": ["a"], "upstream_task_ids": ["a.1", "a.2"]},
        ]);
        let tasks = vec![
            task("a.1", Some("a"), &[]),
            task("a.2", Some("a"), &[]),
            task("b.1", Some("b"), &["a.1", "a.2"]),
            task("b.2", Some("b"), &["a.1", "a.2"]),
            task("end", None, &["b.2"]),
        ];
        let expected = [
            "a.1>a.downstream_join_id",
            "a.2>a.downstream_join_id",
            "a.downstream_join_id>b.upstream_join_id",
            "b.2>end",
            "b.upstream_join_id>b.1",
            "b.upstream_join_id>b.2",
        ];
        assert_eq!(edges(groups, tasks), expected);
    }

    #[test]
    fn joins_only_declared_tasks_of_a_group() {
        let groups = json!([{"group_id": "g", "upstream_task_ids": ["start"], "downstream_task_ids": ["end"]}]);
        let tasks = vec![
            task("start", None, &[]),
            task("other", None, &[]),
            task("g.1", Some("g"), &["start", "other"]),
            task("end", None, &["g.1"]),
        ];
        let expected = [
            "g.1>g.downstream_join_id",
            "g.downstream_join_id>end",
            "g.upstream_join_id>g.1",
            "other>g.1",
            "start>g.upstream_join_id",
        ];
        assert_eq!(edges(groups, tasks), expected);
    }

    #[test]
    fn teardowns_are_not_ends_of_a_group() {
        let groups = json!([{"group_id": "g", "downstream_task_ids": ["end"]}]);
        let mut setup = task("g.up", Some("g"), &[]);
        setup["is_setup"] = true.into();
        let mut teardown = task("g.down", Some("g"), &["g.up", "g.work"]);
        teardown["is_teardown"] = true.into();
        let tasks = vec![setup, task("g.work", Some("g"), &["g.up"]), teardown, task("end", None, &["g.work"])];
        let expected =
            ["g.downstream_join_id>end", "g.up>g.down", "g.up>g.work", "g.work>g.down", "g.work>g.downstream_join_id"];
        assert_eq!(edges(groups, tasks), expected);
    }
}
