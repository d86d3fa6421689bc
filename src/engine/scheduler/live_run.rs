//! What the scheduler remembers of runs under way, so that a step costs what has changed and not what there is. The
//! datastore stays the truth: what is remembered is followed by the rows that the agent changes, and read again
//! whenever the run's revision, its version or anything else does not fit.

use super::load;
use crate::engine::keys::RunKey;
use crate::engine::planner::graph::Graph;
use crate::engine::planner::plan::{Instance, Plan};
use crate::engine::state::TaskState;
use crate::engine::store::StoreError;
use crate::postgres::GenericClient;
use std::collections::HashMap;
use std::rc::Rc;

/// The instances of a run, and which is which.
pub struct LiveRun {
    version: i64,
    revision: Option<String>,
    pub graph: Rc<Graph>,
    pub names: Vec<(String, i32)>,
    pub instances: Vec<Instance>,
    positions: HashMap<(String, i32), usize>,
}

/// Instances that are remembered at once, some 150 bytes each.
const MOST_INSTANCES: usize = 200_000;

/// Those that are remembered.
#[derive(Default)]
pub struct LiveRuns(HashMap<RunKey, LiveRun>);

impl LiveRuns {
    /// What is remembered of a run of this version and revision, if anything. It is put back with `keep`.
    pub fn take(&mut self, key: &RunKey, version: i64, revision: Option<&str>) -> Option<LiveRun> {
        let found = self.0.remove(key)?;
        (found.version == version && found.revision.is_some() && found.revision.as_deref() == revision).then_some(found)
    }

    pub fn keep(&mut self, key: &RunKey, run: LiveRun) {
        let all: usize = self.0.values().map(|one| one.instances.len()).sum();
        if all + run.instances.len() > MOST_INSTANCES {
            self.0.clear();
        }
        self.0.insert(key.clone(), run);
    }

    pub fn forget(&mut self, key: &RunKey) {
        self.0.remove(key);
    }

    pub fn forget_all(&mut self) {
        self.0.clear();
    }

    /// An instance of a run got another state by a step of another run.
    pub fn set_state(&mut self, key: &RunKey, task_id: &str, map_index: i32, state: TaskState) {
        let Some(run) = self.0.get_mut(key) else { return };
        match run.positions.get(&(task_id.to_owned(), map_index)) {
            Some(index) => run.instances[*index].state = Some(state),
            None => self.forget(key),
        }
    }
}

impl LiveRun {
    /// Reads it whole.
    pub async fn read(
        client: &impl GenericClient,
        key: &RunKey,
        (version, revision): (i64, Option<String>),
        graph: Rc<Graph>,
    ) -> Result<Self, StoreError> {
        let (names, instances) = load::instances(client, key, &graph).await?;
        let positions = names.iter().cloned().zip(0..).collect();
        Ok(Self { version, revision, graph, names, instances, positions })
    }

    /// Takes what the agent has changed since. `false` when what is there is not what is remembered.
    pub async fn follow(&mut self, client: &impl GenericClient, key: &RunKey) -> Result<bool, StoreError> {
        for (name, changed) in load::under_way(client, key, &self.graph).await? {
            let Some(index) = self.positions.get(&name) else { return Ok(false) };
            let known = &mut self.instances[*index];
            let may_be = matches!(known.state, Some(TaskState::Queued | TaskState::Running | TaskState::Restarting));
            if !may_be || known.try_number != changed.try_number {
                return Ok(false);
            }
            *known = changed;
        }
        Ok(true)
    }

    /// What has become of it once the plan is carried out; `names` has what the plan has added.
    pub fn apply(&mut self, plan: &Plan, names: Vec<(String, i32)>) {
        let known = self.instances.len();
        plan.apply(&self.graph, &mut self.instances);
        for index in &plan.expanded {
            let (task_id, map_index) = &names[*index];
            self.positions.remove(&(task_id.clone(), -1));
            self.positions.insert((task_id.clone(), *map_index), *index);
        }
        self.positions.extend(names[known..].iter().cloned().zip(known..));
        self.names = names;
    }
}
