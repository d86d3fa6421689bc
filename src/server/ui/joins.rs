//! The edges of a DAG as the UI draws them: where its file joins a group with something, one line to the group's join stands
//! for those to each of its ends. The rules are those of Airflow's `airflow.utils.dag_edges`.

use super::tree::Node;
use crate::engine::dag::{Group, Structure, Task};
use std::collections::{BTreeMap, BTreeSet};

/// The ids of tasks or of joins.
pub type Edge = (String, String);

pub fn upstream_join(group_id: &str) -> String {
    format!("{group_id}.upstream_join_id")
}

pub fn downstream_join(group_id: &str) -> String {
    format!("{group_id}.downstream_join_id")
}

/// `top` is what is at the top of `structure`.
pub fn edges_with_joins(structure: &Structure, top: &[Node<'_>]) -> BTreeSet<Edge> {
    let mut groups = BTreeMap::new();
    gather(top, &mut groups);
    let joins = Joins::of(&groups);
    let pairs = structure.tasks.iter().flat_map(|task| task.upstream.iter().map(move |upstream| (upstream, task)));
    let kept = pairs.filter(|(upstream, task)| !joins.stand_for(upstream, &task.task_id));
    let mut edges: BTreeSet<Edge> = kept.map(|(upstream, task)| pair(upstream, &task.task_id)).collect();
    for ends in groups.values() {
        with_groups(ends, &groups, &mut edges);
        with_tasks(ends, &groups, &mut edges);
    }
    edges
}

type Groups<'a> = BTreeMap<&'a str, Ends<'a>>;

/// Of which groups each task is an end: what is between two tasks is looked up, for there may be millions of it.
struct Joins<'g, 'a> {
    by_leaf: BTreeMap<&'a str, Vec<&'g Ends<'a>>>,
    by_root: BTreeMap<&'a str, Vec<&'g Ends<'a>>>,
}

impl<'g, 'a> Joins<'g, 'a> {
    fn of(groups: &'g Groups<'a>) -> Self {
        let mut joins = Self { by_leaf: BTreeMap::new(), by_root: BTreeMap::new() };
        for ends in groups.values() {
            ends.leaves.iter().for_each(|leaf| joins.by_leaf.entry(*leaf).or_default().push(ends));
            ends.roots.iter().for_each(|root| joins.by_root.entry(*root).or_default().push(ends));
        }
        joins
    }

    /// Whether a join stands for the line between two tasks.
    fn stand_for(&self, above: &str, below: &str) -> bool {
        let ends_above = self.by_leaf.get(above).map_or(&[][..], Vec::as_slice);
        let ends_below = self.by_root.get(below).map_or(&[][..], Vec::as_slice);
        let is_below = |group_id: &String| ends_below.iter().any(|ends| ends.group.group_id == *group_id);
        ends_above.iter().any(|ends| {
            ends.group.downstream_task_ids.contains(below) || ends.group.downstream_group_ids.iter().any(is_below)
        }) || ends_below.iter().any(|ends| ends.group.upstream_task_ids.contains(above))
    }
}

fn with_groups(above: &Ends<'_>, groups: &Groups<'_>, edges: &mut BTreeSet<Edge>) {
    for below in above.group.downstream_group_ids.iter().filter_map(|id| groups.get(id.as_str())) {
        let (from, to) = (downstream_join(&above.group.group_id), upstream_join(&below.group.group_id));
        edges.extend(above.leaves.iter().map(|leaf| pair(leaf, &from)));
        edges.extend(below.roots.iter().map(|root| pair(&to, root)));
        edges.insert((from, to));
    }
}

fn with_tasks(ends: &Ends<'_>, groups: &Groups<'_>, edges: &mut BTreeSet<Edge>) {
    let (group, upstream, downstream) =
        (ends.group, upstream_join(&ends.group.group_id), downstream_join(&ends.group.group_id));
    let of_groups = |ids: &BTreeSet<String>, task: &str, is_end: fn(&Ends<'_>, &str) -> bool| {
        ids.iter().filter_map(|id| groups.get(id.as_str())).any(|other| is_end(other, task))
    };
    for task in &group.downstream_task_ids {
        edges.extend(ends.leaves.iter().map(|leaf| pair(leaf, &downstream)));
        // A group that it is joined with begins with it: the line between the joins stands for this one.
        if !of_groups(&group.downstream_group_ids, task, |other, task| other.roots.contains(task)) {
            edges.insert(pair(&downstream, task));
        }
    }
    for task in &group.upstream_task_ids {
        edges.extend(ends.roots.iter().map(|root| pair(&upstream, root)));
        if !of_groups(&group.upstream_group_ids, task, |other, task| other.leaves.contains(task)) {
            edges.insert(pair(task, &upstream));
        }
    }
}

fn pair(source: &str, target: &str) -> Edge {
    (source.to_owned(), target.to_owned())
}

/// A group, and the ids of the tasks that it begins and ends with.
struct Ends<'a> {
    group: &'a Group,
    roots: BTreeSet<&'a str>,
    leaves: BTreeSet<&'a str>,
}

fn gather<'a>(nodes: &[Node<'a>], found: &mut Groups<'a>) {
    for node in nodes {
        let Node::Group { group, children, .. } = node else { continue };
        let inside = Inside::of(node.tasks());
        let (roots, leaves) = (inside.roots(), inside.leaves());
        found.insert(&group.group_id, Ends { group, roots, leaves });
        gather(children, found);
    }
}

/// The tasks of a group, of groups inside too, and which of them wait for each.
struct Inside<'a> {
    tasks: BTreeMap<&'a str, &'a Task>,
    downstream: BTreeMap<&'a str, Vec<&'a Task>>,
}

impl<'a> Inside<'a> {
    fn of(tasks: Vec<&'a Task>) -> Self {
        let tasks: BTreeMap<&str, &Task> = tasks.into_iter().map(|task| (task.task_id.as_str(), task)).collect();
        let mut downstream: BTreeMap<&str, Vec<&Task>> = BTreeMap::new();
        for task in tasks.values().copied() {
            for upstream in &task.upstream {
                downstream.entry(upstream).or_default().push(task);
            }
        }
        Self { tasks, downstream }
    }

    fn roots(&self) -> BTreeSet<&'a str> {
        let waits_within = |task: &Task| task.upstream.iter().any(|id| self.tasks.contains_key(id.as_str()));
        self.tasks.values().filter(|task| !waits_within(task)).map(|task| task.task_id.as_str()).collect()
    }

    /// Whoever comes after a group does not wait for its teardowns, but for what comes before those.
    fn leaves(&self) -> BTreeSet<&'a str> {
        let mut found = BTreeSet::new();
        let last = self.tasks.values().copied().filter(|task| !self.downstream.contains_key(task.task_id.as_str()));
        for task in last {
            if task.is_teardown {
                self.before_teardown(task, &mut found);
            } else {
                found.insert(task.task_id.as_str());
            }
        }
        found
    }

    fn before_teardown(&self, teardown: &'a Task, found: &mut BTreeSet<&'a str>) {
        for task in teardown.upstream.iter().filter_map(|id| self.tasks.get(id.as_str()).copied()) {
            let after = self.downstream.get(task.task_id.as_str());
            if task.is_teardown {
                self.before_teardown(task, found);
            } else if !task.is_setup && after.is_none_or(|after| after.iter().all(|task| task.is_teardown)) {
                found.insert(&task.task_id);
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
    fn one_line_stands_for_all_between_two_groups() {
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
    fn a_group_is_joined_with_tasks_as_its_file_says() {
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
    fn teardowns_are_no_ends_of_a_group() {
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
