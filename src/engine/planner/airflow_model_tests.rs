//! A slow but obvious model of Airflow's rules, which evaluates everything in every pass and keeps no counts.

use super::*;

/// An instance: task index and map index.
pub(super) type Key = (usize, i32);
pub(super) type States = BTreeMap<Key, Option<TaskState>>;

pub(super) struct Model<'a> {
    pub graph: &'a Graph,
    pub lengths: HashMap<String, usize>,
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
        let has_succeeded = |source: usize| states.get(&(source, -1)).copied().flatten() == Some(TaskState::Success);
        let length = |source: usize| self.lengths.get(&self.graph.task(source).task_id).copied();
        self.graph.count(task_index, &|source| length(source).filter(|_| has_succeeded(source)))
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
    pub fn settle(&self, states: &mut States) {
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
