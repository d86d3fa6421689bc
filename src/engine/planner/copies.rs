//! Which instances of one task belong to an instance of another: those of the same copy of a mapped group. Pure.

use super::graph::Graph;
use std::ops::Range;

/// Instances of another task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Relevant {
    All,
    /// Those with these map indexes, and one that has none yet.
    Range(Range<i64>),
}

/// Airflow's `_get_relevant_map_indexes`: inside of one copy of a mapped group the instances of that copy, otherwise
/// all. `count` gives the number of instances of a task, `length` that of the elements that a task has returned.
pub fn relevant(
    graph: &Graph,
    (task_index, map_index): (usize, i32),
    other: usize,
    count: &impl Fn(usize) -> Option<usize>,
    length: &impl Fn(&str) -> Option<usize>,
) -> Relevant {
    let own = &graph.node(task_index).mapped_groups;
    let theirs = &graph.node(other).mapped_groups;
    // The innermost group that both are in.
    let Some(at) = own.iter().position(|group| theirs.contains(group)) else { return Relevant::All };
    let is_mapped_further = |task: usize, groups: &[usize]| graph.task(task).mapped || groups.first() != Some(&own[at]);
    let theirs_further = is_mapped_further(other, theirs);
    let index = i64::from(map_index);
    if index >= 0 && !theirs_further && !is_mapped_further(task_index, own) {
        // One instance of each for each copy, whatever their number.
        return Relevant::Range(index..index + 1);
    }
    let copies: Option<usize> = own[at..].iter().map(|group| graph.group_count(*group, length)).product();
    let positive = |number: Option<usize>| number.filter(|number| *number > 0);
    let (Some(copies), Some(instances)) = (positive(copies), positive(count(task_index))) else { return Relevant::All };
    let width = if theirs_further {
        let Some(instances) = count(other) else { return Relevant::All };
        (instances / copies) as i64
    } else {
        1
    };
    let copy = (index * copies as i64).div_euclid(instances as i64);
    Relevant::Range(copy * width..(copy + 1) * width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// `a` and `d` in an outer group of two copies, `b` and `c` in an inner one of three; `z` in none.
    fn nested() -> Graph {
        let tasks = [("a", "outer", "z"), ("b", "inner", "a"), ("c", "inner", "b"), ("d", "outer", "c")]
            .map(|(id, group, up)| json!({"task_id": id, "operator": "o", "group": group, "upstream": [up]}));
        let first = json!({"task_id": "z", "operator": "o"});
        let groups = json!([{"group_id": "outer", "length": {"task": "z"}, "sources": ["z"]},
                            {"group_id": "inner", "parent": "outer", "length": 3}]);
        let tasks: Vec<_> = std::iter::once(first).chain(tasks).collect();
        Graph::new(serde_json::from_value(json!({"dag_id": "d", "groups": groups, "tasks": tasks})).unwrap())
    }

    #[test]
    fn an_instance_belongs_to_its_own_copy_of_a_group() {
        let graph = nested();
        let of = |task: &str, map_index: i32, other: &str, length: Option<usize>| {
            let index = |id: &str| graph.task_index(id).unwrap();
            let length = |_: &str| length;
            relevant(&graph, (index(task), map_index), index(other), &|task| graph.count(task, &length), &length)
        };
        assert_eq!(of("b", 4, "c", Some(2)), Relevant::Range(4..5));
        assert_eq!(of("b", 4, "a", Some(2)), Relevant::Range(1..2), "of three to one");
        assert_eq!(of("d", 1, "c", Some(2)), Relevant::Range(3..6), "of one to three");
        assert_eq!(of("a", 1, "z", Some(2)), Relevant::All, "outside of the group");
        // The number of copies matters only where their instances are mapped further.
        assert_eq!(of("b", 4, "c", None), Relevant::Range(4..5));
        assert_eq!(of("b", 4, "a", None), Relevant::All);
        assert_eq!(of("b", 4, "a", Some(0)), Relevant::All);
    }
}
