//! Which edges of a DAG the UI draws between groups: where all of one group come before all of another, one line between
//! two joins stands for all of them.

use super::tree::Node;
use crate::engine::dag::Structure;
use std::collections::{BTreeMap, BTreeSet};

pub fn upstream_join(group_id: &str) -> String {
    format!("{group_id}.upstream_join_id")
}

pub fn downstream_join(group_id: &str) -> String {
    format!("{group_id}.downstream_join_id")
}

type Edge = (String, String);

#[derive(Default)]
pub struct Joins {
    edges: BTreeSet<Edge>,
    upstream: BTreeSet<String>,
    downstream: BTreeSet<String>,
}

/// A group: what it has, and those of them that others outside come before and after.
struct Inside {
    tasks: BTreeSet<String>,
    roots: Vec<String>,
    leaves: Vec<String>,
}

impl Joins {
    pub fn of(structure: &Structure, top: &[Node<'_>]) -> Self {
        let direct: BTreeSet<Edge> = structure
            .tasks
            .iter()
            .flat_map(|task| task.upstream.iter().map(|upstream| (upstream.clone(), task.task_id.clone())))
            .collect();
        let mut groups = BTreeMap::new();
        gather(top, &direct, &mut groups);
        let mut joins = Self::default();
        let mut skipped = BTreeSet::new();
        joins.between_groups(&groups, &direct, &mut skipped);
        joins.with_tasks(&groups, &direct, &mut skipped);
        joins.edges.extend(direct.into_iter().filter(|edge| !skipped.contains(edge)));
        joins
    }

    pub fn edges(&self) -> impl Iterator<Item = (&str, &str)> {
        self.edges.iter().map(|(source, target)| (source.as_str(), target.as_str()))
    }

    pub fn has_upstream(&self, group_id: &str) -> bool {
        self.upstream.contains(group_id)
    }

    pub fn has_downstream(&self, group_id: &str) -> bool {
        self.downstream.contains(group_id)
    }

    /// Outer groups first: what they have said of an edge, inner ones do not say again.
    fn between_groups(
        &mut self,
        groups: &BTreeMap<String, Inside>,
        direct: &BTreeSet<Edge>,
        skipped: &mut BTreeSet<Edge>,
    ) {
        for (source_id, source) in groups {
            for (target_id, target) in groups {
                let all = pairs(&source.leaves, &target.roots);
                let is_apart = source.tasks.is_disjoint(&target.tasks);
                if !is_apart
                    || all.len() < 2
                    || !all.iter().all(|edge| direct.contains(edge) && !skipped.contains(edge))
                {
                    continue;
                }
                skipped.extend(all);
                self.leave(source_id, source);
                self.enter(target_id, target);
                self.edges.insert((downstream_join(source_id), upstream_join(target_id)));
            }
        }
    }

    fn with_tasks(&mut self, groups: &BTreeMap<String, Inside>, direct: &BTreeSet<Edge>, skipped: &mut BTreeSet<Edge>) {
        let tasks: BTreeSet<&String> = direct.iter().flat_map(|(source, target)| [source, target]).collect();
        for (group_id, group) in groups {
            for task in tasks.iter().filter(|task| !group.tasks.contains(**task)) {
                let one = std::slice::from_ref(*task);
                let (into, out) = (pairs(one, &group.roots), pairs(&group.leaves, one));
                let is_whole = |all: &[Edge], skipped: &BTreeSet<Edge>| {
                    all.len() > 1 && all.iter().all(|edge| direct.contains(edge) && !skipped.contains(edge))
                };
                if is_whole(&into, skipped) {
                    skipped.extend(into);
                    self.enter(group_id, group);
                    self.edges.insert(((*task).clone(), upstream_join(group_id)));
                }
                if is_whole(&out, skipped) {
                    skipped.extend(out);
                    self.leave(group_id, group);
                    self.edges.insert((downstream_join(group_id), (*task).clone()));
                }
            }
        }
    }

    fn enter(&mut self, id: &str, group: &Inside) {
        self.upstream.insert(id.to_owned());
        self.edges.extend(group.roots.iter().map(|root| (upstream_join(id), root.clone())));
    }

    fn leave(&mut self, id: &str, group: &Inside) {
        self.downstream.insert(id.to_owned());
        self.edges.extend(group.leaves.iter().map(|leaf| (leaf.clone(), downstream_join(id))));
    }
}

fn pairs(sources: &[String], targets: &[String]) -> Vec<Edge> {
    sources.iter().flat_map(|source| targets.iter().map(|target| (source.clone(), target.clone()))).collect()
}

fn gather(nodes: &[Node<'_>], direct: &BTreeSet<Edge>, found: &mut BTreeMap<String, Inside>) {
    for node in nodes {
        let Node::Group { group, children, .. } = node else { continue };
        let ids: Vec<String> = node.tasks().iter().map(|task| task.task_id.clone()).collect();
        let tasks: BTreeSet<String> = ids.iter().cloned().collect();
        let within: Vec<&Edge> =
            direct.iter().filter(|(source, target)| tasks.contains(source) && tasks.contains(target)).collect();
        let (sources, targets): (BTreeSet<&String>, BTreeSet<&String>) =
            within.into_iter().map(|(source, target)| (source, target)).unzip();
        let roots = ids.iter().filter(|id| !targets.contains(id)).cloned().collect();
        let leaves = ids.iter().filter(|id| !sources.contains(id)).cloned().collect();
        found.insert(group.group_id.clone(), Inside { tasks, roots, leaves });
        gather(children, direct, found);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::tree;
    use super::*;
    use serde_json::{Value, json};

    fn edges(groups: Value, tasks: &[(&str, Option<&str>, &[&str])]) -> Vec<String> {
        let task = |(id, group, upstream): &(&str, Option<&str>, &[&str])| json!({"task_id": id, "operator": "x", "group": group, "upstream": upstream});
        let tasks: Vec<Value> = tasks.iter().map(task).collect();
        let structure = serde_json::from_value(json!({"dag_id": "d", "groups": groups, "tasks": tasks})).unwrap();
        let joins = Joins::of(&structure, &tree(&structure));
        joins.edges().map(|(source, target)| format!("{source}>{target}")).collect()
    }

    #[test]
    fn one_line_stands_for_all_between_two_groups() {
        let groups = json!([{"group_id": "a"}, {"group_id": "b"}]);
        let tasks: [(&str, Option<&str>, &[&str]); 5] = [
            ("a.1", Some("a"), &[]),
            ("a.2", Some("a"), &[]),
            ("b.1", Some("b"), &["a.1", "a.2"]),
            ("b.2", Some("b"), &["a.1", "a.2"]),
            ("end", None, &["b.2"]),
        ];
        let expected = [
            "a.1>a.downstream_join_id",
            "a.2>a.downstream_join_id",
            "a.downstream_join_id>b.upstream_join_id",
            "b.2>end",
            "b.upstream_join_id>b.1",
            "b.upstream_join_id>b.2",
        ];
        assert_eq!(edges(groups, &tasks), expected);
    }

    #[test]
    fn a_task_before_all_of_a_group_leads_to_its_join() {
        let groups = json!([{"group_id": "g"}]);
        let tasks: [(&str, Option<&str>, &[&str]); 3] =
            [("start", None, &[]), ("g.1", Some("g"), &["start"]), ("g.2", Some("g"), &["start"])];
        assert_eq!(
            edges(groups, &tasks),
            ["g.upstream_join_id>g.1", "g.upstream_join_id>g.2", "start>g.upstream_join_id"]
        );
    }
}
