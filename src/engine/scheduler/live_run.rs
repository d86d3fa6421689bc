//! The scheduler's cache of running runs. It makes the cost of a step depend on the number of changes, not on the size
//! of the run. Before each step the cache reads the rows that the agent may have changed; the whole run is read again
//! when its revision, its version or anything else does not match. The graphs of DAG versions, which never change, are
//! cached too.

use crate::model::keys::{InstanceKey, NOT_MAPPED, Position, RunKey};
use crate::model::state::TaskState;
use crate::planner::graph::Graph;
use crate::planner::plan::{Instance, Plan};
use crate::planner::pool_limits::Usage;
use crate::store::Result;
use crate::store::dag::versions;
use crate::store::instance::planner_input;
use leoflow_postgres::GenericClient;
use std::collections::HashMap;
use std::rc::Rc;

/// A cached run.
pub struct LiveRun {
    version: i64,
    /// Revision of the run when it was read; see `runs::bump_revision`.
    revision: Option<String>,
    pub graph: Rc<Graph>,
    pub instances: Vec<Instance>,
    /// Index of each instance by its task id and position.
    positions: HashMap<(String, Position), usize>,
}

/// Maximum number of cached instances, some 150 bytes each.
const MAX_INSTANCES: usize = 200_000;

/// The cached runs.
#[derive(Default)]
pub struct LiveRuns(HashMap<RunKey, LiveRun>);

impl LiveRuns {
    /// Removes and returns the cached run, if it has this version and revision. `keep` puts it back.
    pub fn take(&mut self, key: &RunKey, version: i64, revision: Option<&str>) -> Option<LiveRun> {
        let cached = self.0.remove(key)?;
        (cached.version == version && cached.revision.is_some() && cached.revision.as_deref() == revision)
            .then_some(cached)
    }

    /// Caches a run. If there are too many instances, all other runs are forgotten.
    pub fn keep(&mut self, key: &RunKey, run: LiveRun) {
        let total: usize = self.0.values().map(|cached| cached.instances.len()).sum();
        if total + run.instances.len() > MAX_INSTANCES {
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

    /// The cached runs that execute as many tasks as they may.
    pub fn full(&self, usage: &Usage) -> Vec<RunKey> {
        let limit = |run: &LiveRun| run.graph.structure.max_active_tasks;
        self.0.iter().filter(|(key, run)| usage.is_run_full(key, limit(run))).map(|(key, _)| key.clone()).collect()
    }

    /// Sets the state of an instance that a step of another run has changed.
    pub fn set_state(&mut self, key: &InstanceKey, state: TaskState) {
        let Some(run) = self.0.get_mut(&key.run) else { return };
        match run.positions.get(&(key.task_id.clone(), key.position)) {
            Some(index) => run.instances[*index].state = Some(state),
            None => self.forget(&key.run),
        }
    }
}

impl LiveRun {
    /// Reads all instances of the run.
    pub async fn read(
        client: &impl GenericClient,
        key: &RunKey,
        (version, revision): (i64, Option<String>),
        graph: Rc<Graph>,
    ) -> Result<Self> {
        let graph = planner_input::unroll(client, key, &graph).await?.map_or(graph, Rc::new);
        let instances = planner_input::instances(client, key, &graph).await?;
        let positions = instances.iter().map(name).zip(0..).collect();
        Ok(Self { version, revision, graph, instances, positions })
    }

    /// Reads the instances that the agent may have changed. Returns `false` when the rows do not match the cache.
    pub async fn refresh(&mut self, client: &impl GenericClient, key: &RunKey) -> Result<bool> {
        for changed in planner_input::claimed_instances(client, key, &self.graph).await? {
            let Some(index) = self.positions.get(&name(&changed)) else { return Ok(false) };
            let cached = &mut self.instances[*index];
            let may_change =
                matches!(cached.state, Some(TaskState::Queued | TaskState::Running | TaskState::Restarting));
            if !may_change || cached.try_number != changed.try_number {
                return Ok(false);
            }
            *cached = changed;
        }
        Ok(true)
    }

    /// Applies the plan to the cache.
    pub fn apply(&mut self, plan: &Plan) {
        let old_count = self.instances.len();
        plan.apply(&self.graph, &mut self.instances);
        for index in &plan.expanded {
            let name = name(&self.instances[*index]);
            self.positions.remove(&(name.0.clone(), name.1.with_map_index(NOT_MAPPED)));
            self.positions.insert(name, *index);
        }
        self.positions.extend(self.instances[old_count..].iter().map(name).zip(old_count..));
    }
}

fn name(instance: &Instance) -> (String, Position) {
    (instance.task_id.clone(), instance.position)
}

/// The cached graphs, by the id of the version.
#[derive(Default)]
pub struct Graphs(HashMap<i64, Rc<Graph>>);

/// Maximum number of cached graphs; a laptop runs few DAGs at once.
const MAX_GRAPHS: usize = 64;

impl Graphs {
    /// Returns the graph of the version with this id.
    pub async fn get(&mut self, client: &impl GenericClient, id: i64) -> Result<Rc<Graph>> {
        if let Some(graph) = self.0.get(&id) {
            return Ok(graph.clone());
        }
        let structure = versions::structure_by_id(client, id).await?;
        if self.0.len() >= MAX_GRAPHS {
            self.0.clear();
        }
        let graph = Rc::new(Graph::new(structure));
        self.0.insert(id, graph.clone());
        Ok(graph)
    }
}
