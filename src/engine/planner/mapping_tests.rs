//! Tests of mapped tasks and groups whose lists shrink and grow each time their source runs.

use super::graph::Graph;
use super::plan::plan;
use super::snapshot::{Decision, EndedTry, Instance, Outcome, Returned, Snapshot};
use crate::model::keys::Position;
use crate::model::state::{RunState, TaskState};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::HashMap;

/// `load` is mapped over the list of `files`, and so is the group of `a` and `b`; `total` is downstream of both.
fn graph(rule: &str) -> Graph {
    let task = |id: &str, up: &[&str], extra: Value| {
        let mut task = json!({"task_id": id, "operator": "o", "upstream": up});
        task.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
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

/// A run that is played without a database; `length` is the length of the list that `files` returns.
struct Play {
    graph: Graph,
    instances: Vec<Instance>,
    length: Option<usize>,
    decisions: HashMap<(usize, i32), Decision>,
    run: Option<RunState>,
}

impl Play {
    fn new(rule: &str) -> Self {
        Self::of(graph(rule))
    }

    fn of(graph: Graph) -> Self {
        let instance = |task_index| Instance {
            task_id: String::new(),
            task_index: Some(task_index),
            position: Position::ONLY,
            state: None,
            try_number: 0,
            max_tries: 0,
            due_at: None,
            waits_since: None,
            ended: None,
        };
        let instances = (0..graph.len()).map(instance).collect();
        Self { graph, instances, length: None, decisions: HashMap::new(), run: None }
    }

    fn settle(&mut self) {
        // Twice: planning again must give an empty plan.
        for turn in 0..2 {
            let lengths = self
                .length
                .iter()
                .map(|length| (self.graph.task_index("files").unwrap(), Returned::Elements(*length)))
                .collect();
            let snapshot = Snapshot {
                lengths,
                decisions: self.decisions.clone(),
                ..Snapshot::new(&self.graph, self.instances.clone(), Timestamp::UNIX_EPOCH)
            };
            let plan = plan(&snapshot);
            assert!(turn == 0 || plan.transitions.is_empty() && plan.restored.is_empty() && plan.added.is_empty());
            plan.apply(&self.graph, &mut self.instances);
            self.run = plan.run.map(|(state, _)| state);
        }
    }

    /// Ends the scheduled instances of a task.
    fn end(&mut self, task_id: &str, outcome: Outcome) {
        for instance in &mut self.instances {
            let is_own = instance.task_index == self.graph.task_index(task_id);
            if is_own && instance.state == Some(TaskState::Scheduled) {
                instance.state = Some(TaskState::Running);
                instance.ended = Some(EndedTry::new(outcome, Timestamp::UNIX_EPOCH));
            }
        }
        self.settle();
    }

    /// Ends the instance of a short circuit in a copy of a group: the copy skips the tasks `skips`, the first of which is
    /// directly downstream.
    fn short_circuit(&mut self, task_id: &str, map_index: i32, skips: &[&str]) {
        let task_index = self.graph.task_index(task_id).unwrap();
        let own = |instance: &&mut Instance| {
            (instance.task_index, instance.position.map_index()) == (Some(task_index), map_index)
        };
        let instance = self.instances.iter_mut().find(own).unwrap();
        assert_eq!(instance.state, Some(TaskState::Scheduled));
        let skips: Vec<String> = skips.iter().map(|id| (*id).to_owned()).collect();
        let first = skips.iter().take(1).cloned().collect();
        instance.state = Some(TaskState::Running);
        instance.ended = Some(EndedTry {
            outcome: Outcome::Success,
            at: Timestamp::UNIX_EPOCH,
            skips: skips.clone(),
            loop_stops: None,
            has_asset_events: false,
        });
        self.decisions.insert((task_index, map_index), Decision::Skipped(first));
        self.settle();
    }

    /// Ends `files` with a list of that length.
    fn list(&mut self, length: usize) {
        self.length = Some(length);
        self.end("files", Outcome::Success);
    }

    /// Clears all instances.
    fn clear(&mut self) {
        self.instances.iter_mut().for_each(|instance| instance.state = None);
        self.settle();
    }

    /// Runs all tasks to success, with a list of that length.
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
        let mut instances: Vec<_> =
            self.instances.iter().filter(|instance| instance.task_index == task_index).collect();
        instances.sort_by_key(|instance| instance.position.map_index());
        instances.iter().map(|instance| instance.state.map_or("none", TaskState::as_str)).collect()
    }
}

const MAPPED: [&str; 3] = ["load", "a", "b"];

#[test]
fn a_list_that_shrinks_and_grows_runs_all_elements() {
    for rule in ["all_success", "one_success", "none_failed_min_one_success", "one_done"] {
        let mut play = Play::new(rule);
        play.settle();
        for length in [3, 1, 4, 2, 0, 2] {
            play.go_through(length);
            for task_id in MAPPED {
                let states = play.states(task_id);
                let (present, surplus) = states.split_at(length);
                assert!(present.iter().all(|state| *state == "success"), "{rule}, {length}, {task_id}: {states:?}");
                assert!(surplus.iter().all(|state| *state == "removed"), "{rule}, {length}, {task_id}: {states:?}");
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
    // Earlier releases did not clear removed instances.
    play.instances
        .iter_mut()
        .filter(|instance| instance.state != Some(TaskState::Removed))
        .for_each(|instance| instance.state = None);
    play.settle();
    play.list(3);
    assert_eq!(play.states("load"), ["scheduled"; 3]);
    assert_eq!((play.states("a"), play.states("b")), (vec!["scheduled"; 3], vec!["none"; 3]));
    assert!(
        play.instances
            .iter()
            .filter(|instance| instance.position.map_index() > 0 && instance.state.is_some())
            .all(|instance| instance.try_number == 2)
    );
}

#[test]
fn new_copies_of_a_group_wait_for_their_upstreams() {
    let mut play = Play::new("all_success");
    play.settle();
    play.go_through(1);
    play.clear();
    play.list(3);
    assert_eq!((play.states("a"), play.states("b")), (vec!["scheduled"; 3], vec!["none"; 3]));
    let ends = [Outcome::Success, Outcome::Failed { may_retry: false, due: None }, Outcome::Success];
    let task_index = play.graph.task_index("a");
    for (map_index, outcome) in ends.into_iter().enumerate() {
        let index = i32::try_from(map_index).unwrap();
        let instance = play
            .instances
            .iter_mut()
            .find(|other| other.task_index == task_index && other.position.map_index() == index)
            .unwrap();
        instance.state = Some(TaskState::Running);
        instance.ended = Some(EndedTry::new(outcome, Timestamp::UNIX_EPOCH));
        play.settle();
    }
    assert_eq!(play.states("b"), ["scheduled", "upstream_failed", "scheduled"]);
}

#[test]
fn instances_wait_while_their_source_reruns() {
    let mut play = Play::new("all_success");
    play.settle();
    play.go_through(2);
    play.clear();
    assert_eq!(play.states("load"), ["none"; 2], "the old list does not count");
    play.end("files", Outcome::Failed { may_retry: false, due: None });
    assert_eq!((play.states("load"), play.run), (vec!["upstream_failed"; 2], Some(RunState::Failed)));
}

#[test]
fn an_unknown_list_removes_nothing() {
    let mut play = Play::new("all_success");
    play.settle();
    play.go_through(2);
    play.clear();
    // The source is marked success manually, so it returned no list.
    play.length = None;
    play.end("files", Outcome::Success);
    assert_eq!(play.states("load"), ["scheduled"; 2]);
    assert_eq!(play.run, None);
}

#[test]
fn a_deleted_instance_is_added_when_the_list_shrinks() {
    let mut play = Play::new("all_success");
    play.settle();
    play.go_through(3);
    let load = play.graph.task_index("load");
    play.instances.retain(|instance| (instance.task_index, instance.position.map_index()) != (load, 1));
    play.clear();
    play.list(2);
    let mut states: Vec<_> = play.instances.iter().filter(|instance| instance.task_index == load).collect();
    states.sort_by_key(|instance| instance.position.map_index());
    let states: Vec<_> = states.iter().map(|instance| (instance.position.map_index(), instance.state)).collect();
    let scheduled = Some(TaskState::Scheduled);
    assert_eq!(states, [(0, scheduled), (1, scheduled), (2, Some(TaskState::Removed))]);
}

#[test]
fn downstream_runs_after_an_empty_list() {
    let mut play = Play::new("all_success");
    play.settle();
    play.go_through(2);
    play.clear();
    play.list(0);
    assert_eq!((play.states("load"), play.states("total")), (vec!["removed"; 2], vec!["scheduled"]));
}

/// From the reports apache/airflow#48845, #67265 and #72594.
#[test]
fn a_short_circuit_in_a_group_decides_for_its_own_copy() {
    let task = |id: &str, up: &str, extra: Value| {
        let mut task = json!({"task_id": id, "operator": "o", "upstream": [up]});
        task.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        task
    };
    let in_group = |rule: &str| json!({"group": "g", "trigger_rule": rule});
    let tasks = json!([
        {"task_id": "files", "operator": "o"},
        task("gate", "files", json!({"group": "g", "is_branch": true})),
        task("work", "gate", in_group("all_success")),
        task("after", "work", in_group("none_failed")),
        task("join", "after", json!({"trigger_rule": "none_failed"})),
    ]);
    let groups = json!([{"group_id": "g", "length": {"task": "files"}, "sources": ["files"]}]);
    let structure = json!({"dag_id": "d", "groups": groups, "tasks": tasks});
    let mut play = Play::of(Graph::new(serde_json::from_value(structure).unwrap()));
    play.settle();
    play.list(3);
    play.short_circuit("gate", 1, &["work", "after", "join"]);
    play.end("gate", Outcome::Success);
    assert_eq!(play.states("work"), ["scheduled", "skipped", "scheduled"]);
    assert_eq!(play.states("after"), ["none", "skipped", "none"]);
    assert_eq!(play.states("join"), ["none"], "other copies may decide otherwise");
    for task_id in ["work", "after", "join"] {
        play.end(task_id, Outcome::Success);
    }
    assert_eq!((play.states("join"), play.run), (vec!["success"], Some(RunState::Success)));
}
