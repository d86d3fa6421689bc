//! Tests of loops: the gate begins iterations, and tasks outside wait for the gate of the last one.

use super::graph::Graph;
use super::plan::plan;
use super::snapshot::{EndedTry, Instance, Outcome, Snapshot};
use crate::model::keys::Position;
use crate::model::state::{RunState, TaskState};
use jiff::Timestamp;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;

/// `before`, then a loop of `step` and `gate` with at most three iterations, then `after` and, also after a failure,
/// `always`.
fn graph() -> Graph {
    let task = |id: &str, up: &[&str], group: Option<&str>, rule: &str| json!({"task_id": id, "operator": "o", "upstream": up, "group": group, "loop": group, "trigger_rule": rule});
    let tasks = json!([
        task("before", &[], None, "all_success"),
        task("step", &["before"], Some("g"), "all_success"),
        task("gate", &["step"], Some("g"), "all_success"),
        task("after", &["gate"], None, "all_success"),
        task("always", &["gate"], None, "all_done"),
    ]);
    let groups = json!([{"group_id": "g", "loop": {"max_iterations": 3, "gate": "gate", "terminal": "step"}}]);
    Graph::new(serde_json::from_value(json!({"dag_id": "d", "groups": groups, "tasks": tasks})).unwrap())
}

/// A run that is played without a database.
struct Play {
    graph: Graph,
    instances: Vec<Instance>,
    run: Option<RunState>,
}

fn instance(task_id: &str, position: Position) -> Instance {
    Instance {
        task_id: task_id.to_owned(),
        task_index: None,
        position,
        state: None,
        try_number: 0,
        max_tries: 0,
        due_at: None,
        waits_since: None,
        ended: None,
    }
}

impl Play {
    fn new() -> Self {
        let graph = graph();
        let first = |index: usize| instance(&graph.task(index).task_id, graph.position(index, -1));
        let instances = (0..graph.len()).map(first).collect();
        let mut play = Self { graph, instances, run: None };
        play.settle();
        play
    }

    /// Plans until nothing changes, and reads the run again when an iteration begins, as the scheduler does.
    fn settle(&mut self) {
        loop {
            for instance in &mut self.instances {
                instance.task_index = self.graph.index_in(&instance.task_id, instance.position.iteration());
            }
            let snapshot = Snapshot::new(&self.graph, self.instances.clone(), Timestamp::UNIX_EPOCH);
            let plan = plan(&snapshot);
            plan.apply(&self.graph, &mut self.instances);
            self.run = plan.run.map(|(state, _)| state);
            let Some((group, iteration)) = plan.iterations.first().copied() else { return };
            assert!(plan.run.is_none());
            let count = HashMap::from([(group, iteration + 1)]);
            self.graph = Graph::with_iterations(Arc::clone(&self.graph.structure), &count);
            for task_id in ["step", "gate"] {
                self.instances.push(instance(task_id, Position::in_loop(iteration, -1)));
            }
        }
    }

    /// Ends a scheduled instance such as `step@0`; the gate `gate@0` decides by `stops`.
    fn end(&mut self, name: &str, outcome: Outcome, stops: Option<bool>) {
        let is_named = |instance: &&mut Instance| format!("{}{}", instance.task_id, instance.position) == name;
        let instance = self.instances.iter_mut().find(is_named).unwrap();
        assert_eq!(instance.state, Some(TaskState::Scheduled), "{name}");
        instance.state = Some(TaskState::Running);
        instance.ended = Some(EndedTry { loop_stops: stops, ..EndedTry::new(outcome, Timestamp::UNIX_EPOCH) });
        self.settle();
    }

    fn succeed(&mut self, names: &[&str]) {
        names.iter().for_each(|name| self.end(name, Outcome::Success, None));
    }

    fn continue_from(&mut self, gate: &str) {
        self.end(gate, Outcome::Success, Some(false));
    }

    /// The names of the instances in a state.
    fn names(&self, state: Option<TaskState>) -> Vec<String> {
        let in_state = self.instances.iter().filter(|instance| instance.state == state);
        let mut names: Vec<_> = in_state.map(|instance| format!("{}{}", instance.task_id, instance.position)).collect();
        names.sort();
        names
    }

    fn scheduled(&self) -> Vec<String> {
        self.names(Some(TaskState::Scheduled))
    }
}

const FAILED: Outcome = Outcome::Failed { may_retry: false, due: None };

#[test]
fn a_gate_begins_iterations_until_it_stops() {
    let mut play = Play::new();
    assert_eq!(play.scheduled(), ["before"]);
    play.succeed(&["before", "step@0"]);
    play.continue_from("gate@0");
    assert_eq!(play.scheduled(), ["step@1"], "the tasks outside wait for the next iteration");
    play.succeed(&["step@1"]);
    play.end("gate@1", Outcome::Success, Some(true));
    assert_eq!(play.scheduled(), ["after", "always"]);
    play.succeed(&["after", "always"]);
    assert_eq!(play.run, Some(RunState::Success));
}

#[test]
fn a_loop_ends_at_its_limit_whatever_its_gate_says() {
    let mut play = Play::new();
    play.succeed(&["before", "step@0"]);
    play.continue_from("gate@0");
    play.succeed(&["step@1"]);
    play.continue_from("gate@1");
    play.succeed(&["step@2"]);
    play.continue_from("gate@2");
    assert_eq!(play.scheduled(), ["after", "always"]);
}

#[test]
fn a_failed_iteration_is_the_last() {
    let mut play = Play::new();
    play.succeed(&["before", "step@0"]);
    play.continue_from("gate@0");
    play.end("step@1", FAILED, None);
    assert_eq!(play.names(Some(TaskState::UpstreamFailed)), ["after", "gate@1"]);
    play.succeed(&["always"]);
    assert_eq!(play.run, Some(RunState::Failed));
    assert_eq!(play.names(Some(TaskState::Success)), ["always", "before", "gate@0", "step@0"]);
}

#[test]
fn a_skipped_iteration_is_the_last() {
    let mut play = Play::new();
    play.succeed(&["before"]);
    play.end("step@0", Outcome::Skipped, None);
    assert_eq!(play.names(Some(TaskState::Skipped)), ["after", "gate@0", "step@0"]);
    assert_eq!(play.scheduled(), ["always"]);
}

#[test]
fn a_late_gate_changes_nothing() {
    let mut play = Play::new();
    play.succeed(&["before", "step@0"]);
    play.continue_from("gate@0");
    // A user clears the first gate and keeps the later iterations.
    for stops in [false, true] {
        let gate = play.instances.iter_mut().find(|instance| instance.task_id == "gate").unwrap();
        gate.state = None;
        play.settle();
        play.end("gate@0", Outcome::Success, Some(stops));
        assert_eq!(play.scheduled(), ["step@1"]);
        assert_eq!(play.instances.len(), 7, "no further iteration");
    }
}

#[test]
fn a_gate_that_a_user_marks_stops_the_loop() {
    let mut play = Play::new();
    play.succeed(&["before"]);
    let gate = play.instances.iter_mut().find(|instance| instance.task_id == "gate").unwrap();
    gate.state = Some(TaskState::Success);
    play.settle();
    assert_eq!(play.scheduled(), ["after", "always", "step@0"]);
}
