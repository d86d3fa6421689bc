//! Measures the planner: one transition in a run of 10,000 task instances. `scripts/bench` runs it.

use jiff::Timestamp;
use leoflow::engine::model::dag::Structure;
use leoflow::engine::model::keys::Position;
use leoflow::engine::model::state::TaskState;
use leoflow::engine::planner::graph::Graph;
use leoflow::engine::planner::plan::{EndedTry, Instance, Outcome, Snapshot, plan};
use serde_json::json;
use std::time::Instant;

const INSTANCES: i32 = 10_000;
const ROUNDS: usize = 50;

/// Two mapped tasks of 5,000 instances in one group, and one task downstream of both. Half of the first task's
/// instances have finished.
fn grouped() -> (Graph, Vec<Instance>) {
    let half = INSTANCES / 2;
    let structure: Structure = serde_json::from_value(json!({
        "dag_id": "d", "groups": [{"group_id": "g", "length": half}],
        "tasks": [
            {"task_id": "g.a", "operator": "o", "group": "g"},
            {"task_id": "g.b", "operator": "o", "group": "g", "upstream": ["g.a"]},
            {"task_id": "end", "operator": "o", "upstream": ["g.b"]},
        ],
    }))
    .expect("a structure");
    let state = |task_index, index| match (task_index, index) {
        (0, 0) => Some(TaskState::Running),
        (0, _) if index % 2 == 0 => Some(TaskState::Success),
        (0, _) => Some(TaskState::Scheduled),
        _ if index % 2 == 0 && index > 0 => Some(TaskState::Scheduled),
        _ => None,
    };
    let mut instances: Vec<Instance> = (0..2)
        .flat_map(|task_index| (0..half).map(move |index| (task_index, index)))
        .map(|(task_index, index)| instance(task_index, index, state(task_index, index)))
        .collect();
    instances.push(instance(2, -1, None));
    (Graph::new(structure), instances)
}

/// 10,000 tasks in layers of 100, each downstream of three tasks of the previous layer.
fn layered() -> (Graph, Vec<Instance>) {
    let count = INSTANCES as usize;
    let tasks: Vec<_> = (0..count)
        .map(|task_index| {
            let up: Vec<String> = (0..3)
                .filter(|_| task_index >= 100)
                .map(|step| format!("t{}", (task_index / 100 - 1) * 100 + (task_index + step * 7) % 100))
                .collect();
            json!({"task_id": format!("t{task_index}"), "operator": "o", "upstream": up})
        })
        .collect();
    let structure: Structure = serde_json::from_value(json!({"dag_id": "d", "tasks": tasks})).expect("a structure");
    let state = |task_index| match task_index {
        5000 => Some(TaskState::Running),
        task_index if task_index < 5000 => Some(TaskState::Success),
        task_index if task_index < 5100 => Some(TaskState::Scheduled),
        _ => None,
    };
    let instances = (0..count).map(|task_index| instance(task_index, -1, state(task_index))).collect();
    (Graph::new(structure), instances)
}

fn instance(task_index: usize, map_index: i32, state: Option<TaskState>) -> Instance {
    let at = Timestamp::UNIX_EPOCH;
    let ended = (state == Some(TaskState::Running)).then(|| EndedTry::new(Outcome::Success, at));
    Instance {
        task_id: String::new(),
        task_index: Some(task_index),
        position: Position::mapped(map_index),
        state,
        try_number: 1,
        max_tries: 0,
        due_at: None,
        waits_since: None,
        ended,
    }
}

fn measure(name: &str, (graph, instances): (Graph, Vec<Instance>)) {
    let snapshot = Snapshot::new(&graph, instances, Timestamp::UNIX_EPOCH);
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            let plan = plan(&snapshot);
            assert!(!plan.transitions.is_empty());
            begun.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("{name}: median {:.2} ms, longest {:.2} ms", times[ROUNDS / 2], times[ROUNDS - 1]);
}

fn main() {
    measure("planner, one transition, 2 x 5,000 mapped instances in a group", grouped());
    measure("planner, one transition, 10,000 tasks in layers", layered());
}
