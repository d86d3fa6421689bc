//! The nodes of a dependency graph: a task, or a task in one iteration of its loop.

use crate::model::dag::{Structure, Task};
use std::collections::HashMap;
use std::ops::Range;

#[derive(Debug)]
pub(super) struct Unrolled {
    /// In the order of `Structure::tasks`, the iterations of a task one after the other.
    nodes: Vec<LoopedTask>,
    /// The nodes of each task by its id.
    by_id: HashMap<String, Range<usize>>,
    iterations: HashMap<usize, i32>,
}

#[derive(Debug)]
struct LoopedTask {
    /// Index in `Structure::tasks`.
    task: usize,
    /// The index of the group of the loop, and the iteration.
    iteration: Option<(usize, i32)>,
}

impl Unrolled {
    /// `iterations` has the numbers of iterations of loops, by the index of their group; others have one.
    pub fn new(structure: &Structure, iterations: &HashMap<usize, i32>) -> Self {
        let mut unrolled = Self { nodes: Vec::new(), by_id: HashMap::new(), iterations: iterations.clone() };
        for (index, task) in structure.tasks.iter().enumerate() {
            let first = unrolled.nodes.len();
            match structure.loop_of(task) {
                Some(group) => {
                    let all = (0..unrolled.iterations(group)).map(|iteration| Some((group, iteration)));
                    unrolled.nodes.extend(all.map(|iteration| LoopedTask { task: index, iteration }));
                }
                None => unrolled.nodes.push(LoopedTask { task: index, iteration: None }),
            }
            unrolled.by_id.insert(task.task_id.clone(), first..unrolled.nodes.len());
        }
        unrolled
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn task<'a>(&self, structure: &'a Structure, task_index: usize) -> &'a Task {
        &structure.tasks[self.nodes[task_index].task]
    }

    pub fn index_in_structure(&self, task_index: usize) -> usize {
        self.nodes[task_index].task
    }

    pub fn iteration(&self, task_index: usize) -> Option<i32> {
        self.nodes[task_index].iteration.map(|(_, iteration)| iteration)
    }

    pub fn loop_of(&self, task_index: usize) -> Option<usize> {
        self.nodes[task_index].iteration.map(|(group, _)| group)
    }

    pub fn iterations(&self, loop_group: usize) -> i32 {
        self.iterations.get(&loop_group).copied().unwrap_or(1)
    }

    pub fn indices_of(&self, task_id: &str) -> Range<usize> {
        self.by_id.get(task_id).cloned().unwrap_or_default()
    }

    pub fn index_in(&self, task_id: &str, iteration: Option<i32>) -> Option<usize> {
        let mut indices = self.indices_of(task_id);
        let index = indices.nth(usize::try_from(iteration.unwrap_or(0)).ok()?)?;
        (self.iteration(index) == iteration).then_some(index)
    }

    pub fn index_seen_from(&self, task_index: usize, task_id: &str) -> Option<usize> {
        let indices = self.indices_of(task_id);
        let last = indices.clone().next_back()?;
        match self.nodes[task_index].iteration {
            Some((group, iteration)) if self.loop_of(last) == Some(group) => {
                Some(indices.start + usize::try_from(iteration).ok()?)
            }
            _ => Some(last),
        }
    }

    /// The nodes of other tasks: in a common loop those of the same iteration, otherwise of all iterations.
    pub fn related<'a>(&'a self, task_index: usize, ids: &'a [String]) -> impl Iterator<Item = usize> + 'a {
        ids.iter().flat_map(move |id| match self.index_seen_from(task_index, id) {
            Some(seen) if self.loop_of(seen).is_some() && self.loop_of(seen) == self.loop_of(task_index) => {
                seen..seen + 1
            }
            _ => self.indices_of(id),
        })
    }
}
