//! `wait_for_past_depends_before_skipping`: a task that `depends_on_past` holds back is not skipped.

use super::*;
use crate::model::dag::Structure;
use crate::model::keys::Position;
use crate::planner::graph::Graph;
use serde_json::json;
use std::collections::{HashMap, HashSet};

/// `gate >> held >> after`, where `held` has `wait_for_past_depends_before_skipping`.
fn graph(gate_is_branch: bool) -> Graph {
    let structure: Structure = serde_json::from_value(json!({"dag_id": "d", "tasks": [
        {"task_id": "gate", "operator": "PythonOperator", "decides": gate_is_branch},
        {"task_id": "held", "operator": "PythonOperator", "upstream": ["gate"], "depends_on_past": true,
         "wait_for_past_before_skipping": true},
        {"task_id": "after", "operator": "PythonOperator", "upstream": ["held"]},
    ]}))
    .unwrap();
    Graph::new(structure)
}

/// The states of `held` and `after` once `gate` has ended.
fn states(graph: &Graph, outcome: Outcome, skips: &[&str], is_held: bool) -> [Option<TaskState>; 2] {
    let ended = EndedTry {
        outcome,
        at: Timestamp::UNIX_EPOCH,
        skips: skips.iter().map(|task_id| (*task_id).to_owned()).collect(),
        loop_stops: None,
        has_asset_events: false,
    };
    let instance = |task_index: usize| Instance {
        task_id: String::new(),
        task_index: Some(task_index),
        position: Position::ONLY,
        state: (task_index == 0).then_some(TaskState::Running),
        try_number: i32::from(task_index == 0),
        max_tries: 0,
        due_at: None,
        waits_since: None,
        ended: (task_index == 0).then(|| ended.clone()),
    };
    let skipped: HashSet<String> = ended.skips.iter().cloned().collect();
    let snapshot = Snapshot {
        logical_date: Some(Timestamp::UNIX_EPOCH),
        decisions: HashMap::from([((0, -1), Decision::Skipped(skipped))]),
        held_by_past: if is_held { HashSet::from([1]) } else { HashSet::new() },
        ..Snapshot::new(graph, (0..3).map(instance).collect(), Timestamp::UNIX_EPOCH)
    };
    let plan = plan(&snapshot);
    let states = plan.states_after(&snapshot);
    assert_eq!(plan.run.is_none(), states[1].is_none(), "a run whose task waits for its past goes on");
    [states[1], states[2]]
}

#[test]
fn a_skip_by_the_trigger_rule_waits_for_the_past() {
    let graph = graph(false);
    let skipped = Some(TaskState::Skipped);
    assert_eq!(states(&graph, Outcome::Skipped, &[], true), [None, None]);
    assert_eq!(states(&graph, Outcome::Skipped, &[], false), [skipped, skipped]);
    // The option applies to skips only, not to `upstream_failed`.
    let failed = Outcome::Failed { may_retry: false, due: None };
    assert_eq!(states(&graph, failed, &[], true)[0], Some(TaskState::UpstreamFailed));
}

#[test]
fn a_skip_by_a_branch_waits_for_the_past() {
    let graph = graph(true);
    let skipped = Some(TaskState::Skipped);
    assert_eq!(states(&graph, Outcome::Success, &["held"], true), [None, None]);
    assert_eq!(states(&graph, Outcome::Success, &["held"], false), [skipped, skipped]);
}
