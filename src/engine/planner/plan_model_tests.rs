//! Compares the planner with a slow but obvious model of Airflow's rules. The test draws random graphs with mapping,
//! groups, setups and teardowns, and random outcomes of the tasks in random order. It clears tasks in between, so that
//! lists shrink and grow. The model evaluates everything in every pass and keeps no counts.

use super::*;
use crate::model::dag::Structure;
use crate::model::dag::TriggerRule;
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

/// An instance: task index and map index.
type Key = (usize, i32);
type States = BTreeMap<Key, Option<TaskState>>;

struct Model<'a> {
    graph: &'a Graph,
    lengths: HashMap<String, usize>,
}

impl Model<'_> {
    fn all_upstream(&self, task_index: usize) -> HashSet<usize> {
        let direct = &self.graph.node(task_index).upstream;
        direct.iter().copied().chain(direct.iter().flat_map(|up| self.all_upstream(*up))).collect()
    }

    fn all_downstream(&self, task_index: usize) -> HashSet<usize> {
        (0..self.graph.len()).filter(|other| self.all_upstream(*other).contains(&task_index)).collect()
    }

    /// Number of instances of a task, once the sources have succeeded.
    fn count(&self, states: &States, task_index: usize) -> Option<usize> {
        let has_succeeded = |id: &str| {
            let source = self.graph.task_index(id).unwrap();
            states.get(&(source, -1)).copied().flatten() == Some(TaskState::Success)
        };
        self.graph.count(task_index, &|id| self.lengths.get(id).copied().filter(|_| has_succeeded(id)))
    }

    fn sources(&self, task_index: usize) -> Vec<usize> {
        let group_sources: &[String] = if self.is_in_group(task_index) { &self.graph.group(0).sources } else { &[] };
        let own_sources = &self.graph.task(task_index).sources;
        own_sources.iter().chain(group_sources).map(|id| self.graph.task_index(id).unwrap()).collect()
    }

    /// Before an instance of a mapped task continues, gives the task as many instances as its list now has.
    fn revise(&self, states: &mut States) {
        for task_index in (0..self.graph.len()).filter(|task_index| self.graph.is_expandable(*task_index)) {
            let map_indexes: Vec<i32> = states.keys().filter(|key| key.0 == task_index).map(|key| key.1).collect();
            let is_due =
                |map_index: &i32| matches!(states[&(task_index, *map_index)], None | Some(TaskState::UpForRetry));
            let (true, Some(count)) = (
                map_indexes.iter().any(|map_index| *map_index >= 0 && is_due(map_index)),
                self.count(states, task_index),
            ) else {
                continue;
            };
            for map_index in map_indexes.into_iter().filter(|map_index| *map_index >= count as i32) {
                states.insert((task_index, map_index), Some(TaskState::Removed));
            }
            for map_index in 0..count as i32 {
                let state = states.entry((task_index, map_index)).or_insert(None);
                *state = state.filter(|state| *state != TaskState::Removed);
            }
        }
    }

    fn is_in_group(&self, task_index: usize) -> bool {
        self.graph.task(task_index).group.is_some()
    }

    /// The states of the instances of `up` that an instance depends on.
    fn relevant_states(&self, states: &States, (task_index, index): Key, up: usize) -> Vec<Option<TaskState>> {
        let all: Vec<(i32, Option<TaskState>)> = states
            .iter()
            .filter(|((other, _), _)| *other == up)
            .map(|((_, map_index), state)| (*map_index, *state))
            .collect();
        let can_fire_early = matches!(
            self.graph.task(task_index).trigger_rule,
            TriggerRule::OneSuccess
                | TriggerRule::OneFailed
                | TriggerRule::OneDone
                | TriggerRule::NoneFailedMinOneSuccess
        );
        let is_known = || self.count(states, task_index).is_some_and(|count| count > 0);
        let has_copy = index >= 0 || !can_fire_early && is_known();
        let same_copy = self.is_in_group(task_index) && self.is_in_group(up) && has_copy;
        all.into_iter()
            .filter(|(other, _)| !same_copy || *other == index || *other < 0)
            .map(|(_, state)| state)
            .collect()
    }

    fn relevant_states_of_all(&self, states: &States, key: Key, upstream: &[usize]) -> Vec<Option<TaskState>> {
        upstream.iter().flat_map(|up| self.relevant_states(states, key, *up)).collect()
    }

    /// Evaluates the trigger rule: `Err` is the state that ends the instance, `Ok(true)` means that it may run.
    fn rule(&self, states: &States, key: Key) -> Result<bool, TaskState> {
        use TaskState::{Failed, Removed, Skipped, Success, UpstreamFailed};
        let task = self.graph.task(key.0);
        let upstream = &self.graph.node(key.0).upstream;
        if upstream.is_empty() || task.trigger_rule == TriggerRule::Always {
            return Ok(true);
        }
        let mut setups_met = true;
        if !task.is_teardown {
            let (bad, met) = self.setups(states, key);
            if let Some(state) = bad {
                return Err(state);
            }
            setups_met = met;
        }
        let upstream_states = self.relevant_states_of_all(states, key, upstream);
        let any = |expected: &[TaskState]| upstream_states.iter().flatten().any(|state| expected.contains(state));
        let all = |expected: &[TaskState]| {
            upstream_states.iter().all(|state| state.is_some_and(|state| expected.contains(&state)))
        };
        let done = upstream_states.iter().all(|state| state.is_some_and(TaskState::is_finished));
        let bad = [Failed, UpstreamFailed];
        let met = match task.trigger_rule {
            TriggerRule::AllSuccess if any(&bad) => return Err(UpstreamFailed),
            TriggerRule::AllSuccess if any(&[Skipped]) => return Err(Skipped),
            TriggerRule::AllSuccess => all(&[Success, Removed]),
            TriggerRule::AllFailed if any(&[Success, Skipped]) => return Err(Skipped),
            TriggerRule::AllFailed => all(&[Failed, UpstreamFailed, Removed]),
            TriggerRule::AllDone => done,
            TriggerRule::AllDoneMinOneSuccess if any(&[Skipped]) => return Err(Skipped),
            TriggerRule::AllDoneMinOneSuccess if done && !any(&[Success]) => return Err(UpstreamFailed),
            TriggerRule::AllDoneMinOneSuccess => done,
            TriggerRule::AllDoneSetupSuccess => return self.teardown(states, key, done),
            TriggerRule::OneSuccess if done && all(&[Skipped]) => return Err(Skipped),
            TriggerRule::OneSuccess if done && !any(&[Success]) => return Err(UpstreamFailed),
            TriggerRule::OneSuccess => any(&[Success]),
            TriggerRule::OneFailed if done && !any(&bad) => return Err(Skipped),
            TriggerRule::OneFailed => any(&bad),
            TriggerRule::OneDone if done && !any(&[Success, Failed]) => return Err(Skipped),
            TriggerRule::OneDone => any(&[Success, Failed]),
            TriggerRule::NoneFailed if any(&bad) => return Err(UpstreamFailed),
            TriggerRule::NoneFailed => all(&[Success, Skipped, Removed]),
            TriggerRule::NoneFailedMinOneSuccess if any(&bad) => return Err(UpstreamFailed),
            TriggerRule::NoneFailedMinOneSuccess if all(&[Skipped]) => return Err(Skipped),
            TriggerRule::NoneFailedMinOneSuccess if done && !any(&[Success]) => return Err(UpstreamFailed),
            TriggerRule::NoneFailedMinOneSuccess => all(&[Success, Skipped, Removed]) && any(&[Success]),
            TriggerRule::NoneSkipped if any(&[Skipped]) => return Err(Skipped),
            TriggerRule::NoneSkipped => done,
            TriggerRule::AllSkipped if any(&[Success, Failed, UpstreamFailed]) => return Err(Skipped),
            TriggerRule::AllSkipped => all(&[Skipped]),
            TriggerRule::Always => true,
        };
        Ok(met && setups_met)
    }

    /// Evaluates the indirect setups of a task. Returns the state in which they end the task, if any, and whether they
    /// have all succeeded.
    fn setups(&self, states: &States, key: Key) -> (Option<TaskState>, bool) {
        let direct = &self.graph.node(key.0).upstream;
        let all_downstream = self.all_downstream(key.0);
        let needed: Vec<usize> = self
            .all_upstream(key.0)
            .into_iter()
            .filter(|up| self.graph.task(*up).is_setup && !direct.contains(up))
            .filter(|setup| {
                let downs = &self.graph.node(*setup).downstream;
                let mut teardowns = downs.iter().filter(|down| self.graph.task(**down).is_teardown).peekable();
                teardowns.peek().is_none() || teardowns.any(|teardown| all_downstream.contains(teardown))
            })
            .collect();
        let setup_states = self.relevant_states_of_all(states, key, &needed);
        let any = |expected: &[TaskState]| setup_states.iter().flatten().any(|state| expected.contains(state));
        let bad = if any(&[TaskState::Failed, TaskState::UpstreamFailed]) {
            Some(TaskState::UpstreamFailed)
        } else {
            any(&[TaskState::Skipped]).then_some(TaskState::Skipped)
        };
        (bad, setup_states.iter().all(|state| *state == Some(TaskState::Success)))
    }

    /// Evaluates a teardown, which runs after its direct upstreams and all tasks between its setups and itself, if a
    /// setup has succeeded. `done` is true if its direct upstreams have finished.
    fn teardown(&self, states: &States, key: Key, done: bool) -> Result<bool, TaskState> {
        let direct = &self.graph.node(key.0).upstream;
        let setups: Vec<usize> = direct.iter().copied().filter(|up| self.graph.task(*up).is_setup).collect();
        let setup_states = self.relevant_states_of_all(states, key, &setups);
        if !done {
            return Ok(false);
        }
        if !setup_states.is_empty() && setup_states.iter().all(|state| *state == Some(TaskState::Skipped)) {
            return Err(TaskState::Skipped);
        }
        if !setup_states.is_empty() && !setup_states.contains(&Some(TaskState::Success)) {
            return Err(TaskState::UpstreamFailed);
        }
        let between: Vec<usize> = self
            .all_upstream(key.0)
            .into_iter()
            .filter(|up| !direct.contains(up) && setups.iter().any(|setup| self.all_downstream(*setup).contains(up)))
            .collect();
        Ok(self
            .relevant_states_of_all(states, key, &between)
            .iter()
            .all(|state| state.is_some_and(TaskState::is_finished)))
    }

    /// Runs passes until nothing changes; instances that may run become `scheduled`.
    fn settle(&self, states: &mut States) {
        loop {
            self.revise(states);
            let before = states.clone();
            let mut pending: Vec<Key> = before.keys().copied().collect();
            while let Some(key) = pending.pop() {
                if !matches!(states[&key], None | Some(TaskState::UpForRetry)) {
                    continue;
                }
                let mapped = key.1 < 0 && self.graph.is_expandable(key.0);
                let sources = self.sources(key.0);
                let source_states: Vec<Option<TaskState>> =
                    sources.iter().map(|source| before.get(&(*source, -1)).copied().flatten()).collect();
                let any = |expected: &[TaskState]| source_states.iter().flatten().any(|state| expected.contains(state));
                if any(&[TaskState::Failed, TaskState::UpstreamFailed]) {
                    states.insert(key, Some(TaskState::UpstreamFailed));
                    continue;
                }
                if any(&[TaskState::Skipped]) {
                    states.insert(key, Some(TaskState::Skipped));
                    continue;
                }
                if key.1 >= 0 && !source_states.iter().all(|state| state.is_some_and(TaskState::is_finished)) {
                    continue;
                }
                match self.rule(&before, key) {
                    Err(state) => drop(states.insert(key, Some(state))),
                    Ok(false) => {}
                    Ok(true) if mapped => match self.count(&before, key.0) {
                        None => drop(states.insert(key, Some(TaskState::UpstreamFailed))),
                        Some(0) => drop(states.insert(key, Some(TaskState::Skipped))),
                        Some(count) => {
                            states.remove(&key);
                            for index in 0..count as i32 {
                                states.insert((key.0, index), None);
                                // The pass evaluates a new instance too, from the states at the beginning of the pass.
                                pending.push((key.0, index));
                            }
                        }
                    },
                    Ok(true) if self.graph.task(key.0).is_no_op => drop(states.insert(key, Some(TaskState::Success))),
                    Ok(true) => drop(states.insert(key, Some(TaskState::Scheduled))),
                }
            }
            if *states == before {
                return;
            }
        }
    }
}

fn first_instances(graph: &Graph) -> Vec<Instance> {
    let instance = |task_index: usize, map_index| Instance {
        task_index: Some(task_index),
        map_index,
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
    let mut states: States =
        instances.iter().map(|instance| ((instance.task_index.unwrap(), instance.map_index), None)).collect();
    for step in 0..1000 {
        let snapshot = Snapshot {
            graph: &graph,
            is_paused: false,
            instances: instances.clone(),
            now: Timestamp::UNIX_EPOCH,
            logical_date: None,
            not_before: None,
            polled: HashMap::new(),
            dates: None,
            deadline: None,
            lengths: model.lengths.iter().map(|(id, length)| (id.clone(), Returned::Elements(*length))).collect(),
            decisions: HashMap::new(),
            held_by_past: HashSet::new(),
        };
        let plan = plan(&snapshot);
        plan.apply(&graph, &mut instances);
        model.settle(&mut states);
        let planned: States = instances
            .iter()
            .map(|instance| ((instance.task_index.unwrap(), instance.map_index), instance.state))
            .collect();
        let dag = || serde_json::to_string_pretty(&graph.structure).unwrap();
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
                .map(|instance| ((instance.task_index.unwrap(), instance.map_index), instance.state))
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
        instance.ended = Some(EndedTry { outcome, at: Timestamp::UNIX_EPOCH, skips: Vec::new() });
        if state == TaskState::Success {
            // A rerun returns another list.
            model.lengths.insert(graph.task(instance.task_index.unwrap()).task_id.clone(), dice.roll(4));
        }
        states.insert((instance.task_index.unwrap(), instance.map_index), Some(state));
    }
    panic!("seed {seed}: the run did not end");
}

#[test]
fn random_runs_match_the_model() {
    (1..=1000).for_each(play);
}
