//! Compares the planner with a slow but obvious model of Airflow's rules. The test draws random graphs with mapping,
//! groups, setups and teardowns, and random outcomes of the tasks in random order. It clears tasks in between, so that
//! lists shrink and grow.

#[path = "airflow_model_tests.rs"]
mod airflow_model;

use self::airflow_model::{Model, States};
use super::*;
use crate::model::dag::{Structure, TriggerRule};
use crate::model::keys::Position;
use crate::model::state::RunState;
use crate::planner::graph::Graph;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Xorshift random number generator, which gives the same numbers for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % sides
    }

    fn one_in(&mut self, sides: usize) -> bool {
        self.roll(sides) == 0
    }
}

const RULES: &[&str] = &[
    "all_success",
    "all_failed",
    "all_done",
    "all_done_min_one_success",
    "one_success",
    "one_failed",
    "one_done",
    "none_failed",
    "none_failed_min_one_success",
    "none_skipped",
    "all_skipped",
    "always",
];

fn random_dag(dice: &mut Dice) -> Structure {
    let count = 2 + dice.roll(9);
    // For some DAGs, the tasks from a random index on are in one mapped group.
    let grouped = if dice.one_in(2) { 1 + dice.roll(count - 1)..count } else { 0..0 };
    // The group is mapped over the return value of the first task, or over a literal.
    let has_source = dice.one_in(2);
    let mut tasks: Vec<Value> = Vec::new();
    for task_index in 0..count {
        let mut up: Vec<usize> = (0..task_index).filter(|_| dice.one_in(3)).collect();
        if has_source && grouped.contains(&task_index) && !up.contains(&0) {
            up.insert(0, 0);
        }
        let mut rule = if dice.one_in(2) { "all_success" } else { RULES[dice.roll(RULES.len())] };
        let in_group = grouped.contains(&task_index);
        if in_group && rule == "always" {
            rule = "all_done";
        }
        let mut task = json!({
            "task_id": format!("t{task_index}"), "operator": "o", "trigger_rule": rule, "is_nothing": dice.one_in(4),
            "upstream": up.iter().map(|up| format!("t{up}")).collect::<Vec<_>>(), "retries": dice.roll(2),
        });
        if in_group {
            task["group"] = "g".into();
        } else if rule != "always" && dice.one_in(4) {
            task["mapped"] = true.into();
            let source = up.iter().find(|up| tasks[**up]["mapped"].is_null() && tasks[**up]["group"].is_null());
            match source {
                Some(up) => {
                    task["length"] = json!({"product": [{"task": format!("t{up}")}]});
                    task["sources"] = json!([format!("t{up}")]);
                }
                None => task["length"] = json!({"product": [dice.roll(3)]}),
            }
        } else if dice.one_in(6) {
            task["is_setup"] = true.into();
        } else if let Some(setup) = up.iter().find(|up| tasks[**up]["is_setup"] == true)
            && dice.one_in(2)
        {
            let _ = setup;
            task["is_teardown"] = true.into();
            task["trigger_rule"] = "all_done_setup_success".into();
            task["on_failure_fail_dagrun"] = dice.one_in(3).into();
        }
        tasks.push(task);
    }
    let is_chain = count > 3 && dice.one_in(3);
    if is_chain {
        // A setup, its teardown, and a chain between them; the teardown is directly downstream of one link only.
        for task in &mut tasks {
            for key in ["mapped", "length", "sources", "group", "is_setup", "is_teardown", "is_nothing"] {
                task.as_object_mut().unwrap().remove(key);
            }
        }
        tasks[0]["is_setup"] = true.into();
        for (task_index, task) in tasks.iter_mut().enumerate().take(count - 1).skip(1) {
            let (first, second) = (dice.roll(task_index), dice.roll(task_index));
            let up = if first == second { vec![first] } else { vec![first, second] };
            task["upstream"] = up.iter().map(|up| format!("t{up}")).collect();
            task["trigger_rule"] = RULES[dice.roll(8)].into();
        }
        tasks[count - 1]["upstream"] = json!(["t0", format!("t{}", 1 + dice.roll(count - 2))]);
        tasks[count - 1]["is_teardown"] = true.into();
        tasks[count - 1]["trigger_rule"] = "all_done_setup_success".into();
    }
    let mut groups = json!([{"group_id": "g", "length": 1 + dice.roll(3)}]);
    if has_source && !is_chain && tasks[0]["mapped"].is_null() {
        groups = json!([{"group_id": "g", "length": {"task": "t0"}, "sources": ["t0"]}]);
    }
    serde_json::from_value(json!({"dag_id": "d", "groups": groups, "tasks": tasks})).unwrap()
}

fn first_instances(graph: &Graph) -> Vec<Instance> {
    let instance = |task_index: usize, map_index| Instance {
        task_id: String::new(),
        task_index: Some(task_index),
        position: Position::mapped(map_index),
        state: None,
        try_number: 0,
        max_tries: graph.task(task_index).retries as i32,
        due_at: None,
        waits_since: None,
        ended: None,
    };
    let count = |task_index: usize| {
        graph.count(task_index, &|_| None).filter(|count| *count > 0 && graph.is_expandable(task_index))
    };
    (0..graph.len())
        .flat_map(|task_index| match count(task_index) {
            Some(count) => (0..count as i32).map(|map_index| instance(task_index, map_index)).collect(),
            None => vec![instance(task_index, -1)],
        })
        .collect()
}

/// Clears all or some instances of a task and, in most cases, of all its downstream tasks.
fn clear(dice: &mut Dice, graph: &Graph, instances: &mut [Instance]) {
    let sources = graph.length_sources();
    let task_index = match sources.len() {
        0 => dice.roll(graph.len()),
        _ if dice.one_in(2) => dice.roll(graph.len()),
        count => graph.task_index(sources[dice.roll(count)]).unwrap(),
    };
    let all_downstream = if dice.one_in(6) { BTreeSet::new() } else { graph.all_downstream(task_index) };
    let only_some = dice.one_in(4);
    let keeps_removed = dice.one_in(3);
    for instance in instances {
        let is_chosen = instance.task_index == Some(task_index)
            || instance.task_index.is_some_and(|other| all_downstream.contains(&other));
        let is_kept = keeps_removed && instance.state == Some(TaskState::Removed) || only_some && dice.one_in(3);
        if is_chosen && !is_kept {
            instance.max_tries = instance.try_number + graph.task(instance.task_index.unwrap()).retries as i32;
            (instance.state, instance.due_at, instance.ended) = (None, None, None);
        }
    }
}

/// Plays a random DAG to its end, and compares the states with those of the model after each step.
fn play(seed: u64) {
    let mut dice = Dice(seed * 0x9e37_79b9 + 1);
    let graph = Graph::new(random_dag(&mut dice));
    // The lengths of the lists are chosen before the tasks return them; they count once the task has succeeded.
    let lengths: HashMap<String, usize> =
        graph.structure.tasks.iter().map(|task| (task.task_id.clone(), dice.roll(4))).collect();
    let mut model = Model { graph: &graph, lengths };
    let mut clears = dice.roll(8);
    // With fewer failures and skips, more mapped instances get to run.
    let sides = if dice.one_in(2) { 4 } else { 16 };
    let mut instances = first_instances(&graph);
    let mut states: States = instances
        .iter()
        .map(|instance| ((instance.task_index.unwrap(), instance.position.map_index()), None))
        .collect();
    for step in 0..1000 {
        let snapshot = Snapshot {
            lengths: model
                .lengths
                .iter()
                .map(|(id, length)| (graph.task_index(id).unwrap(), Returned::Elements(*length)))
                .collect(),
            ..Snapshot::new(&graph, instances.clone(), Timestamp::UNIX_EPOCH)
        };
        let plan = plan(&snapshot);
        plan.apply(&graph, &mut instances);
        model.settle(&mut states);
        let planned: States = instances
            .iter()
            .map(|instance| ((instance.task_index.unwrap(), instance.position.map_index()), instance.state))
            .collect();
        let dag = || serde_json::to_string_pretty(&*graph.structure).unwrap();
        assert_eq!(planned, states, "seed {seed}, step {step}: {:?}\n{}", model.lengths, dag());
        let ready: Vec<usize> =
            (0..instances.len()).filter(|index| instances[*index].state == Some(TaskState::Scheduled)).collect();
        let unfinished = instances.iter().any(|instance| !instance.state.is_some_and(TaskState::is_finished));
        if ready.is_empty() {
            assert!(plan.run.is_some(), "seed {seed}: the run neither continues nor ends\n{}", dag());
            let (state, reason) = plan.run.unwrap();
            assert_eq!(reason == Reason::Deadlocked, unfinished, "seed {seed}\n{}", dag());
            let is_ignored = |task: &crate::model::dag::Task| task.is_teardown && !task.on_failure_fail_dagrun;
            let is_leaf = |task_index: usize| {
                let all_downstream = &graph.node(task_index).downstream;
                !is_ignored(graph.task(task_index)) && all_downstream.iter().all(|down| is_ignored(graph.task(*down)))
            };
            let has_leaf = (0..graph.len()).any(is_leaf);
            let failed = instances.iter().any(|instance| {
                let task_index = instance.task_index.unwrap();
                let counts = if has_leaf { is_leaf(task_index) } else { graph.node(task_index).downstream.is_empty() };
                counts && matches!(instance.state, Some(TaskState::Failed | TaskState::UpstreamFailed))
            });
            assert_eq!(state == RunState::Failed, failed || unfinished, "seed {seed}\n{}", dag());
            if clears == 0 {
                return;
            }
        } else {
            assert!(plan.run.is_none(), "seed {seed}: the run ended while tasks are ready");
        }
        if clears > 0 && (ready.is_empty() || dice.one_in(6)) {
            clears -= 1;
            clear(&mut dice, &graph, &mut instances);
            states = instances
                .iter()
                .map(|instance| ((instance.task_index.unwrap(), instance.position.map_index()), instance.state))
                .collect();
            continue;
        }
        let index = ready[dice.roll(ready.len())];
        let instance = &mut instances[index];
        instance.state = Some(TaskState::Running);
        let (outcome, state) = match dice.roll(sides) {
            0 => (Outcome::Skipped, TaskState::Skipped),
            1 if instance.try_number <= instance.max_tries && instance.max_tries > 0 => {
                (Outcome::Failed { may_retry: true, due: None }, TaskState::UpForRetry)
            }
            1 => (Outcome::Failed { may_retry: true, due: None }, TaskState::Failed),
            _ => (Outcome::Success, TaskState::Success),
        };
        instance.ended = Some(EndedTry::new(outcome, Timestamp::UNIX_EPOCH));
        if state == TaskState::Success {
            // A rerun returns another list.
            model.lengths.insert(graph.task(instance.task_index.unwrap()).task_id.clone(), dice.roll(4));
        }
        states.insert((instance.task_index.unwrap(), instance.position.map_index()), Some(state));
    }
    panic!("seed {seed}: the run did not end");
}

#[test]
fn random_runs_match_the_model() {
    (1..=1000).for_each(play);
}
