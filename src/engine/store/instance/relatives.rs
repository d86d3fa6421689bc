//! Upstream and downstream task instances in a run; within a mapped group, those of the same copy. Pure.

use crate::model::keys::Position;
use crate::planner::graph::Graph;
use crate::planner::relevant_instances::{Relevant, relevant_instances};
use crate::planner::snapshot::Returned;
use std::collections::{BTreeSet, HashMap};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    Upstream,
    Downstream,
}

/// A set of a run's instances: all instances of some tasks, and single instances by map index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InstanceSet {
    pub whole_tasks: BTreeSet<usize>,
    pub single_instances: BTreeSet<(usize, i32)>,
}

/// Finds related instances in a run. `lengths` are the lengths of the lists that the run's tasks have returned.
pub struct Relatives<'a> {
    pub graph: &'a Graph,
    pub lengths: &'a HashMap<usize, Returned>,
}

impl InstanceSet {
    /// The set of the named instances; a task id without a position names all instances. Leaves out tasks that are not
    /// in the graph.
    pub fn named<'a>(graph: &Graph, tasks: impl Iterator<Item = (&'a str, Option<Position>)>) -> Self {
        let mut chosen = Self::default();
        for (task_id, position) in tasks {
            match position {
                None => chosen.whole_tasks.extend(graph.task_indices(task_id)),
                Some(position) => chosen
                    .single_instances
                    .extend(graph.index_in(task_id, position.iteration()).map(|index| (index, position.map_index()))),
            }
        }
        chosen
    }

    pub fn contains(&self, task_index: usize, map_index: i32) -> bool {
        self.whole_tasks.contains(&task_index) || self.single_instances.contains(&(task_index, map_index))
    }

    pub fn extend(&mut self, other: Self) {
        self.whole_tasks.extend(other.whole_tasks);
        self.single_instances.extend(other.single_instances);
    }
}

impl Relatives<'_> {
    /// All instances upstream or downstream of the given ones, like Airflow's `find_relevant_relatives`.
    pub fn related_to(&self, chosen: &InstanceSet, relation: Relation) -> InstanceSet {
        let all_related = |task_index: usize| match relation {
            Relation::Upstream => self.graph.all_upstream(task_index),
            Relation::Downstream => self.graph.all_downstream(task_index),
        };
        let mut related = InstanceSet::default();
        chosen.whole_tasks.iter().for_each(|task_index| related.whole_tasks.extend(all_related(*task_index)));
        for (task_index, map_index) in &chosen.single_instances {
            for other in all_related(*task_index) {
                if related.whole_tasks.contains(&other) {
                    continue;
                }
                if self.add(&mut related, (*task_index, *map_index), other) == Whole::Yes {
                    related.whole_tasks.extend(all_related(other));
                }
            }
        }
        related
    }

    /// The setups and teardowns that the given instances need.
    pub fn setups(&self, chosen: &InstanceSet) -> InstanceSet {
        let mut needed = InstanceSet::default();
        for task_index in &chosen.whole_tasks {
            needed.whole_tasks.extend(self.setups_and_teardowns(*task_index));
        }
        for (task_index, map_index) in &chosen.single_instances {
            for other in self.setups_and_teardowns(*task_index) {
                self.add(&mut needed, (*task_index, *map_index), other);
            }
        }
        needed
    }

    /// The setups and teardowns that a task needs.
    fn setups_and_teardowns(&self, task_index: usize) -> Vec<usize> {
        let graph = self.graph;
        let teardowns =
            |setup: usize| graph.node(setup).downstream.iter().copied().filter(|down| graph.task(*down).is_teardown);
        let task = graph.task(task_index);
        if task.is_setup {
            return teardowns(task_index).collect();
        }
        if task.is_teardown {
            return Vec::new();
        }
        let setups = graph.relevant_setups(task_index);
        setups.iter().flat_map(|setup| teardowns(*setup)).chain(setups.iter().copied()).collect()
    }

    /// Adds the instances of the task `other` that are related to the given instance.
    fn add(&self, set: &mut InstanceSet, (task_index, map_index): (usize, i32), other: usize) -> Whole {
        let length = |task: usize| self.lengths.get(&task).map(Returned::count);
        let count = |task_index: usize| self.graph.count(task_index, &length);
        match relevant_instances(self.graph, (task_index, map_index), other, &count, &length) {
            Relevant::Range(range) if map_index >= 0 => {
                let indexes = range.filter_map(|index| i32::try_from(index).ok());
                // Until the copies exist, one instance with map index -1 represents all of them.
                set.single_instances.extend(indexes.chain([-1]).map(|index| (other, index)));
                Whole::No
            }
            _ => {
                set.whole_tasks.insert(other);
                Whole::Yes
            }
        }
    }
}

/// Whether all instances of a task were added.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whole {
    Yes,
    No,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// `letters` is the source of a mapped group in which `first` is upstream of `second`, with a setup and a
    /// teardown in each copy; `after` is downstream of the group.
    fn lanes() -> Graph {
        let task = |id: &str, up: &[&str]| {
            let group = if ["letters", "after"].contains(&id) { json!(null) } else { json!("lane") };
            json!({"task_id": id, "operator": "o", "group": group, "upstream": up, "is_setup": id == "open",
                   "is_teardown": id == "close"})
        };
        let tasks = json!([
            task("letters", &[]),
            task("open", &["letters"]),
            task("first", &["letters", "open"]),
            task("second", &["first"]),
            task("close", &["open", "second"]),
            task("after", &["second"]),
        ]);
        let groups = json!([{"group_id": "lane", "length": {"task": "letters"}, "sources": ["letters"]}]);
        Graph::new(serde_json::from_value(json!({"dag_id": "d", "groups": groups, "tasks": tasks})).unwrap())
    }

    /// The task ids in the set, with the map index of single instances. Instances with map index -1 are left out.
    fn describe(graph: &Graph, chosen: &InstanceSet) -> Vec<String> {
        let id = |task_index: &usize| graph.task(*task_index).task_id.clone();
        let whole_tasks = chosen.whole_tasks.iter().map(id);
        let single_instances = chosen
            .single_instances
            .iter()
            .filter(|(_, index)| *index >= 0)
            .map(|(task, index)| format!("{}[{index}]", id(task)));
        let mut all: Vec<String> = whole_tasks.chain(single_instances).collect();
        all.sort();
        all
    }

    #[test]
    fn relatives_stay_within_their_copy() {
        let graph = lanes();
        // The result is the same whether the number of copies is known or not.
        for lengths in [HashMap::new(), HashMap::from([(graph.task_index("letters").unwrap(), Returned::Elements(3))])]
        {
            let relatives = Relatives { graph: &graph, lengths: &lengths };
            let related = |task: &str, map_index: i32, relation: Relation| {
                let named = InstanceSet::named(&graph, [(task, Some(Position::mapped(map_index)))].into_iter());
                describe(&graph, &relatives.related_to(&named, relation))
            };
            assert_eq!(related("first", 1, Relation::Downstream), ["after", "close[1]", "second[1]"]);
            assert_eq!(related("second", 2, Relation::Upstream), ["first[2]", "letters", "open[2]"]);
            let all = ["after", "close", "first", "open", "second"];
            assert_eq!(related("letters", -1, Relation::Downstream), all, "all copies of a task outside the group");
        }
    }

    #[test]
    fn a_copy_needs_its_own_setup_and_teardown() {
        let (graph, lengths) = (lanes(), HashMap::new());
        let relatives = Relatives { graph: &graph, lengths: &lengths };
        let setups = |task: &str, map_index: Option<i32>| {
            describe(
                &graph,
                &relatives.setups(&InstanceSet::named(&graph, [(task, map_index.map(Position::mapped))].into_iter())),
            )
        };
        assert_eq!(setups("first", Some(1)), ["close[1]", "open[1]"]);
        assert_eq!(setups("open", Some(1)), ["close[1]"]);
        assert_eq!(setups("first", None), ["close", "open"]);
    }
}
