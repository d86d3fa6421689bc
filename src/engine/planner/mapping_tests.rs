//! Mapped tasks and groups whose lists become shorter and longer when they run again.

use super::graph::Graph;
use super::plan::plan;
use super::snapshot::{EndedTry, Instance, Outcome, Returned, Snapshot};
use crate::engine::state::{RunState, TaskState};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

/// `files` gives its list to a mapped `load`, and to a mapped group of `a` and `b` after it; `total` comes after both.
fn graph(rule: &str) -> Graph {
    let task = |id: &str, up: &[&str], more: Value| {
        let mut task = json!({"task_id": id, "operator": "o", "upstream": up});
        task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        task
    };
    let mapped = json!({"mapped": true, "length": {"task": "files"}, "sources": ["files"]});
    let tasks = json!([
        task("files", &[], json!({})),
        task("load", &["files"], mapped),
        task("a", &["files"], json!({"group": "g"})),
        task("b", &["a"], json!({"group": "g", "trigger_rule": rule})),
        task("total", &["load", "b"], json!({})),
    ]);
    let groups = json!([{"group_id": "g", "length": {"task": "files"}, "sources": ["files"]}]);
    Graph::new(serde_json::from_value(json!({"dag_id": "d", "groups": groups, "tasks": tasks})).unwrap())
}

struct Play {
    graph: Graph,
    instances: Vec<Instance>,
    length: Option<usize>,
    run: Option<RunState>,
}

impl Play {
    fn new(rule: &str) -> Self {
        let graph = graph(rule);
        let one = |task_index| Instance {
            task_index: Some(task_index),
            map_index: -1,
            state: None,
            try_number: 0,
            max_tries: 0,
            due_at: None,
            waits_since: None,
            ended: None,
        };
        let instances = (0..graph.len()).map(one).collect();
        Self { graph, instances, length: None, run: None }
    }

    fn settle(&mut self) {
        // Twice: a plan leaves nothing to say.
        for turn in 0..2 {
            let lengths = self.length.iter().map(|length| ("files".to_owned(), Returned::Elements(*length))).collect();
            let snapshot = Snapshot {
                graph: &self.graph,
                is_paused: false,
                instances: self.instances.clone(),
                now: Timestamp::UNIX_EPOCH,
                logical_date: None,
                polled: HashMap::new(),
                dates: None,
                deadline: None,
                lengths,
                decisions: HashMap::new(),
                held_by_past: HashSet::new(),
            };
            let plan = plan(&snapshot);
            assert!(turn == 0 || plan.transitions.is_empty() && plan.restored.is_empty() && plan.added.is_empty());
            plan.apply(&self.graph, &mut self.instances);
            self.run = plan.run.map(|(state, _)| state);
        }
    }

    fn end(&mut self, task_id: &str, outcome: Outcome) {
        for one in &mut self.instances {
            let is_own = one.task_index == self.graph.task_index(task_id);
            if is_own && one.state == Some(TaskState::Scheduled) {
                one.state = Some(TaskState::Running);
                one.ended = Some(EndedTry { outcome, at: Timestamp::UNIX_EPOCH, skips: Vec::new() });
            }
        }
        self.settle();
    }

    fn list(&mut self, length: usize) {
        self.length = Some(length);
        self.end("files", Outcome::Success);
    }

    fn clear(&mut self) {
        self.instances.iter_mut().for_each(|one| one.state = None);
        self.settle();
    }

    /// Runs all of it with a list of that length.
    fn go_through(&mut self, length: usize) {
        self.list(length);
        for task_id in ["load", "a", "b", "total"] {
            self.end(task_id, Outcome::Success);
        }
        assert_eq!(self.run, Some(RunState::Success));
    }

    /// The states of a task's instances, in the order of their map indexes.
    fn states(&self, task_id: &str) -> Vec<&'static str> {
        let task_index = self.graph.task_index(task_id);
        let mut own: Vec<_> = self.instances.iter().filter(|one| one.task_index == task_index).collect();
        own.sort_by_key(|one| one.map_index);
        own.iter().map(|one| one.state.map_or("none", TaskState::as_str)).collect()
    }
}

const MAPPED: [&str; 3] = ["load", "a", "b"];

#[test]
fn a_list_that_shrank_and_grows_runs_all_its_elements() {
    for rule in ["all_success", "one_success", "none_failed_min_one_success", "one_done"] {
        let mut play = Play::new(rule);
        play.settle();
        for length in [3, 1, 4, 2, 0, 2] {
            play.go_through(length);
            for task_id in MAPPED {
                let states = play.states(task_id);
                let (there, beyond) = states.split_at(length);
                assert!(there.iter().all(|state| *state == "success"), "{rule}, {length}, {task_id}: {states:?}");
                assert!(beyond.iter().all(|state| *state == "removed"), "{rule}, {length}, {task_id}: {states:?}");
            }
            assert_eq!(play.states("total"), ["success"]);
            play.clear();
        }
    }
}

#[test]
fn removed_instances_that_were_not_cleared_come_back() {
    let mut play = Play::new("all_success");
    play.settle();
    play.go_through(3);
    play.clear();
    play.go_through(1);
    // As it was cleared before removed instances were.
    play.instances.iter_mut().filter(|one| one.state != Some(TaskState::Removed)).for_each(|one| one.state = None);
    play.settle();
    play.list(3);
    assert_eq!(play.states("load"), ["scheduled"; 3]);
    assert_eq!((play.states("a"), play.states("b")), (vec!["scheduled"; 3], vec!["none"; 3]));
    assert!(
        play.instances.iter().filter(|one| one.map_index > 0 && one.state.is_some()).all(|one| one.try_number == 2)
    );
}

#[test]
fn new_copies_of_a_group_wait_for_what_is_above_them() {
    let mut play = Play::new("all_success");
    play.settle();
    play.go_through(1);
    play.clear();
    play.list(3);
    assert_eq!((play.states("a"), play.states("b")), (vec!["scheduled"; 3], vec!["none"; 3]));
    let ends = [Outcome::Success, Outcome::Failed { may_retry: false, due: None }, Outcome::Success];
    let own = play.graph.task_index("a");
    for (at, outcome) in ends.into_iter().enumerate() {
        let index = i32::try_from(at).unwrap();
        let one = play.instances.iter_mut().find(|one| one.task_index == own && one.map_index == index).unwrap();
        one.state = Some(TaskState::Running);
        one.ended = Some(EndedTry { outcome, at: Timestamp::UNIX_EPOCH, skips: Vec::new() });
        play.settle();
    }
    assert_eq!(play.states("b"), ["scheduled", "upstream_failed", "scheduled"]);
}

#[test]
fn instances_wait_while_their_list_is_made_again() {
    let mut play = Play::new("all_success");
    play.settle();
    play.go_through(2);
    play.clear();
    assert_eq!(play.states("load"), ["none"; 2], "the list of the first time is not the list");
    play.end("files", Outcome::Failed { may_retry: false, due: None });
    assert_eq!((play.states("load"), play.run), (vec!["upstream_failed"; 2], Some(RunState::Failed)));
}

#[test]
fn a_list_that_is_not_known_removes_nothing() {
    let mut play = Play::new("all_success");
    play.settle();
    play.go_through(2);
    play.clear();
    // Marked as a success, without a list.
    play.length = None;
    play.end("files", Outcome::Success);
    assert_eq!(play.states("load"), ["scheduled"; 2]);
    assert_eq!(play.run, None);
}

#[test]
fn an_empty_list_lets_what_is_below_go_on() {
    let mut play = Play::new("all_success");
    play.settle();
    play.go_through(2);
    play.clear();
    play.list(0);
    assert_eq!((play.states("load"), play.states("total")), (vec!["removed"; 2], vec!["scheduled"]));
}
