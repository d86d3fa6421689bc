//! The task instances above and below others in a run: of a mapped group those of the same copy. Pure.

use crate::engine::planner::copies::{self, Relevant};
use crate::engine::planner::graph::Graph;
use crate::engine::planner::snapshot::Returned;
use std::collections::{BTreeSet, HashMap};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Up,
    Down,
}

/// Instances of a run, by the indices of their tasks: all of a task, or some by their map indexes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    pub whole: BTreeSet<usize>,
    pub single: BTreeSet<(usize, i32)>,
}

/// What decides which instances belong together. `lengths` are those of the run.
pub struct Relatives<'a> {
    pub graph: &'a Graph,
    pub lengths: &'a HashMap<String, Returned>,
}

impl Chosen {
    /// Without a map index all instances of a task are meant. Tasks that the graph lacks are left out.
    pub fn named<'a>(graph: &Graph, tasks: impl Iterator<Item = (&'a str, Option<i32>)>) -> Self {
        let mut chosen = Self::default();
        for (task_id, at) in tasks {
            match (graph.task_index(task_id), at) {
                (Some(task_index), None) => drop(chosen.whole.insert(task_index)),
                (Some(task_index), Some(at)) => drop(chosen.single.insert((task_index, at))),
                (None, _) => {}
            }
        }
        chosen
    }

    pub fn contains(&self, task_index: usize, map_index: i32) -> bool {
        self.whole.contains(&task_index) || self.single.contains(&(task_index, map_index))
    }

    pub fn extend(&mut self, other: Self) {
        self.whole.extend(other.whole);
        self.single.extend(other.single);
    }
}

impl Relatives<'_> {
    /// All that come before or after what is chosen, as Airflow's `find_relevant_relatives`.
    pub fn of(&self, chosen: &Chosen, direction: Direction) -> Chosen {
        let reach = |task_index: usize| match direction {
            Direction::Up => self.graph.above(task_index),
            Direction::Down => self.graph.below(task_index),
        };
        let mut found = Chosen::default();
        chosen.whole.iter().for_each(|task_index| found.whole.extend(reach(*task_index)));
        for (task_index, map_index) in &chosen.single {
            for other in reach(*task_index) {
                if found.whole.contains(&other) {
                    continue;
                }
                if self.add(&mut found, (*task_index, *map_index), other) == Whole::Yes {
                    found.whole.extend(reach(other));
                }
            }
        }
        found
    }

    /// The setups and teardowns that what is chosen needs.
    pub fn setups(&self, chosen: &Chosen) -> Chosen {
        let mut found = Chosen::default();
        for task_index in &chosen.whole {
            found.whole.extend(self.needed(*task_index));
        }
        for (task_index, map_index) in &chosen.single {
            for other in self.needed(*task_index) {
                self.add(&mut found, (*task_index, *map_index), other);
            }
        }
        found
    }

    fn needed(&self, task_index: usize) -> Vec<usize> {
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

    /// Adds the instances of another task that belong to one.
    fn add(&self, found: &mut Chosen, (task_index, map_index): (usize, i32), other: usize) -> Whole {
        let length = |task: &str| self.lengths.get(task).map(Returned::count);
        let count = |task_index: usize| self.graph.count(task_index, &length);
        match copies::relevant(self.graph, (task_index, map_index), other, &count, &length) {
            Relevant::Range(range) if map_index >= 0 => {
                let indexes = range.filter_map(|at| i32::try_from(at).ok());
                // With the one that stands for all copies until they are there.
                found.single.extend(indexes.chain([-1]).map(|at| (other, at)));
                Whole::No
            }
            _ => {
                found.whole.insert(other);
                Whole::Yes
            }
        }
    }
}

/// Whether all instances of a task belong to one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whole {
    Yes,
    No,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// `letters` gives a mapped group its copies, in which `first` comes before `second`, with a setup and a teardown
    /// of each copy; `after` comes after the group.
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

    /// The tasks that are chosen, with a map index where only that one is. What stands for copies to come is left out.
    fn shown(graph: &Graph, chosen: &Chosen) -> Vec<String> {
        let id = |task_index: &usize| graph.task(*task_index).task_id.clone();
        let whole = chosen.whole.iter().map(id);
        let single = chosen.single.iter().filter(|(_, at)| *at >= 0).map(|(one, at)| format!("{}[{at}]", id(one)));
        let mut all: Vec<String> = whole.chain(single).collect();
        all.sort();
        all
    }

    #[test]
    fn relatives_of_one_copy_are_of_that_copy() {
        let graph = lanes();
        // Whether the number of copies is known or not.
        for lengths in [HashMap::new(), HashMap::from([("letters".to_owned(), Returned::Elements(3))])] {
            let relatives = Relatives { graph: &graph, lengths: &lengths };
            let of = |task: &str, at: i32, direction: Direction| {
                let named = Chosen::named(&graph, [(task, Some(at))].into_iter());
                shown(&graph, &relatives.of(&named, direction))
            };
            assert_eq!(of("first", 1, Direction::Down), ["after", "close[1]", "second[1]"]);
            assert_eq!(of("second", 2, Direction::Up), ["first[2]", "letters", "open[2]"]);
            let all = ["after", "close", "first", "open", "second"];
            assert_eq!(of("letters", -1, Direction::Down), all, "outside of the group: all copies");
        }
    }

    #[test]
    fn a_copy_needs_its_own_setup_and_teardown() {
        let (graph, lengths) = (lanes(), HashMap::new());
        let relatives = Relatives { graph: &graph, lengths: &lengths };
        let of = |task: &str, at: Option<i32>| {
            shown(&graph, &relatives.setups(&Chosen::named(&graph, [(task, at)].into_iter())))
        };
        assert_eq!(of("first", Some(1)), ["close[1]", "open[1]"]);
        assert_eq!(of("open", Some(1)), ["close[1]"]);
        assert_eq!(of("first", None), ["close", "open"]);
    }
}
