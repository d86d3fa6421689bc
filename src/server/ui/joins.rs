//! Which edges of a DAG the UI draws between groups: where all of one group come before all of another, one line between
//! two joins stands for all of them.

use super::tree::Node;
use crate::engine::dag::Structure;
use std::collections::{BTreeMap, BTreeSet, HashSet};

pub fn upstream_join(group_id: &str) -> String {
    format!("{group_id}.upstream_join_id")
}

pub fn downstream_join(group_id: &str) -> String {
    format!("{group_id}.downstream_join_id")
}

type Edge<'a> = (&'a str, &'a str);

#[derive(Default)]
pub struct Joins {
    edges: BTreeSet<(String, String)>,
    upstream: BTreeSet<String>,
    downstream: BTreeSet<String>,
}

/// A group: what it has, and those of them that others outside come before and after.
struct Inside<'a> {
    tasks: BTreeSet<&'a str>,
    roots: Vec<&'a str>,
    leaves: Vec<&'a str>,
}

/// The edges between tasks, and those of them that a line between joins stands for.
struct Direct<'a> {
    all: BTreeSet<Edge<'a>>,
    skipped: HashSet<Edge<'a>>,
}

impl<'a> Direct<'a> {
    /// Whether every source comes before every target, more than one pair of them, and nothing stands for any yet.
    fn is_whole(&self, sources: &[&'a str], targets: &[&'a str]) -> bool {
        let count = sources.len().saturating_mul(targets.len());
        // There cannot be more than there are.
        count > 1
            && count <= self.all.len()
            && pairs(sources, targets).all(|edge| self.all.contains(&edge) && !self.skipped.contains(&edge))
    }
}

fn pairs<'a>(sources: &[&'a str], targets: &[&'a str]) -> impl Iterator<Item = Edge<'a>> {
    sources.iter().flat_map(move |source| targets.iter().map(move |target| (*source, *target)))
}

impl Joins {
    pub fn of<'a>(structure: &'a Structure, top: &[Node<'a>]) -> Self {
        let edges = structure
            .tasks
            .iter()
            .flat_map(|task| task.upstream.iter().map(|upstream| (upstream.as_str(), task.task_id.as_str())));
        let mut direct = Direct { all: edges.collect(), skipped: HashSet::new() };
        let mut groups = BTreeMap::new();
        gather(top, &direct.all, &mut groups);
        let mut joins = Self::default();
        joins.between_groups(&groups, &mut direct);
        joins.with_tasks(&groups, &mut direct);
        let left = direct.all.iter().filter(|edge| !direct.skipped.contains(*edge));
        joins.edges.extend(left.map(|(source, target)| ((*source).to_owned(), (*target).to_owned())));
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
    fn between_groups<'a>(&mut self, groups: &BTreeMap<&'a str, Inside<'a>>, direct: &mut Direct<'a>) {
        for (source_id, source) in groups {
            for (target_id, target) in groups {
                if !direct.is_whole(&source.leaves, &target.roots) || !source.tasks.is_disjoint(&target.tasks) {
                    continue;
                }
                direct.skipped.extend(pairs(&source.leaves, &target.roots));
                self.leave(source_id, source);
                self.enter(target_id, target);
                self.edges.insert((downstream_join(source_id), upstream_join(target_id)));
            }
        }
    }

    fn with_tasks<'a>(&mut self, groups: &BTreeMap<&'a str, Inside<'a>>, direct: &mut Direct<'a>) {
        let tasks: BTreeSet<&str> = direct.all.iter().flat_map(|(source, target)| [*source, *target]).collect();
        for (group_id, group) in groups {
            for task in tasks.iter().copied().filter(|task| !group.tasks.contains(task)) {
                if direct.is_whole(&[task], &group.roots) {
                    direct.skipped.extend(pairs(&[task], &group.roots));
                    self.enter(group_id, group);
                    self.edges.insert((task.to_owned(), upstream_join(group_id)));
                }
                if direct.is_whole(&group.leaves, &[task]) {
                    direct.skipped.extend(pairs(&group.leaves, &[task]));
                    self.leave(group_id, group);
                    self.edges.insert((downstream_join(group_id), task.to_owned()));
                }
            }
        }
    }

    fn enter(&mut self, id: &str, group: &Inside<'_>) {
        self.upstream.insert(id.to_owned());
        self.edges.extend(group.roots.iter().map(|root| (upstream_join(id), (*root).to_owned())));
    }

    fn leave(&mut self, id: &str, group: &Inside<'_>) {
        self.downstream.insert(id.to_owned());
        self.edges.extend(group.leaves.iter().map(|leaf| ((*leaf).to_owned(), downstream_join(id))));
    }
}

fn gather<'a>(nodes: &[Node<'a>], direct: &BTreeSet<Edge<'a>>, found: &mut BTreeMap<&'a str, Inside<'a>>) {
    for node in nodes {
        let Node::Group { group, children, .. } = node else { continue };
        let ids: Vec<&str> = node.tasks().iter().map(|task| task.task_id.as_str()).collect();
        let tasks: BTreeSet<&str> = ids.iter().copied().collect();
        let within = direct.iter().filter(|(source, target)| tasks.contains(source) && tasks.contains(target));
        let (sources, targets): (BTreeSet<&str>, BTreeSet<&str>) = within.copied().unzip();
        let roots = ids.iter().copied().filter(|id| !targets.contains(id)).collect();
        let leaves = ids.iter().copied().filter(|id| !sources.contains(id)).collect();
        found.insert(&group.group_id, Inside { tasks, roots, leaves });
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
