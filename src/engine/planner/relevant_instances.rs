//! Finds the instances of one task that an instance of another task depends on. A mapped group has a copy of its tasks
//! for each element of its list, and within the group an instance depends only on instances of its own copy. Pure.

use super::graph::Graph;
use std::ops::Range;

/// A selection of another task's instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Relevant {
    All,
    /// The instances with these map indexes, and an instance with map index -1.
    Range(Range<i64>),
}

/// Selects the instances of the task `other` that an instance depends on, like Airflow's
/// `_get_relevant_map_indexes`: within a copy of a mapped group the instances of that copy, otherwise all. `count`
/// returns a task's number of instances, `length` the number of elements that a task has returned.
pub(crate) fn relevant_instances(
    graph: &Graph,
    (task_index, map_index): (usize, i32),
    other: usize,
    count: &impl Fn(usize) -> Option<usize>,
    length: &impl Fn(usize) -> Option<usize>,
) -> Relevant {
    let own_groups = &graph.node(task_index).mapped_groups;
    let other_groups = &graph.node(other).mapped_groups;
    // The innermost mapped group that contains both tasks.
    let Some(depth) = own_groups.iter().position(|group| other_groups.contains(group)) else { return Relevant::All };
    let is_mapped_further =
        |task: usize, groups: &[usize]| graph.task(task).mapped || groups.first() != Some(&own_groups[depth]);
    let is_other_mapped_further = is_mapped_further(other, other_groups);
    let index = i64::from(map_index);
    if index >= 0 && !is_other_mapped_further && !is_mapped_further(task_index, own_groups) {
        // Each copy has one instance of each task, so the number of copies does not matter.
        return Relevant::Range(index..index + 1);
    }
    let copy_count: Option<usize> =
        own_groups[depth..].iter().map(|group| graph.group_count(task_index, *group, length)).product();
    let positive = |number: Option<usize>| number.filter(|number| *number > 0);
    let (Some(copy_count), Some(own_count)) = (positive(copy_count), positive(count(task_index))) else {
        return Relevant::All;
    };
    let others_per_copy = if is_other_mapped_further {
        let Some(other_count) = count(other) else { return Relevant::All };
        (other_count / copy_count) as i64
    } else {
        1
    };
    let copy = (index * copy_count as i64).div_euclid(own_count as i64);
    Relevant::Range(copy * others_per_copy..(copy + 1) * others_per_copy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// `a` and `d` are in an outer group of two copies, `b` and `c` in an inner group of three; `z` is in no group.
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
        let relevant_to = |task: &str, map_index: i32, other: &str, length: Option<usize>| {
            let index = |id: &str| graph.task_index(id).unwrap();
            let length = |_: usize| length;
            relevant_instances(
                &graph,
                (index(task), map_index),
                index(other),
                &|task| graph.count(task, &length),
                &length,
            )
        };
        assert_eq!(relevant_to("b", 4, "c", Some(2)), Relevant::Range(4..5));
        assert_eq!(relevant_to("b", 4, "a", Some(2)), Relevant::Range(1..2), "three instances to one");
        assert_eq!(relevant_to("d", 1, "c", Some(2)), Relevant::Range(3..6), "one instance to three");
        assert_eq!(relevant_to("a", 1, "z", Some(2)), Relevant::All, "outside of the group");
        // The number of copies matters only where one of the tasks is mapped further.
        assert_eq!(relevant_to("b", 4, "c", None), Relevant::Range(4..5));
        assert_eq!(relevant_to("b", 4, "a", None), Relevant::All);
        assert_eq!(relevant_to("b", 4, "a", Some(0)), Relevant::All);
    }
}
