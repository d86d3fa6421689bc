//! Chooses the DAG version of a rerun.

use crate::model::dag::Structure;
use crate::planner::graph::Graph;
use crate::store::Result;
use crate::store::dag::dags::{self, Dag};
use crate::store::dag::versions;
use leoflow_postgres::GenericClient;
use std::collections::HashMap;
use std::sync::Arc;

/// The DAG version that a rerun uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionChoice {
    /// The version that the run has.
    Own,
    /// The DAG's current version.
    Newest,
}

impl From<bool> for VersionChoice {
    /// From Airflow's `run_on_latest_version`.
    fn from(is_newest: bool) -> Self {
        if is_newest { Self::Newest } else { Self::Own }
    }
}

impl VersionChoice {
    /// Returns the request's value; if it has none, the DAG's value, then the instance's `setting`, then `default`.
    /// Source: Airflow's `resolve_run_on_latest_version`.
    pub fn resolve(requested: Option<bool>, dag: &Structure, setting: Option<bool>, default: Self) -> Self {
        requested.or(dag.rerun_with_latest_version).or(setting).map_or(default, Self::from)
    }
}

/// A DAG version with its structure and graph.
pub(crate) struct RunVersion {
    pub id: i64,
    pub structure: Arc<Structure>,
    pub graph: Graph,
}

impl RunVersion {
    fn new(id: i64, structure: Arc<Structure>) -> Self {
        Self { id, graph: Graph::new((*structure).clone()), structure }
    }
}

/// The DAG versions with which the runs of a DAG are rerun, each loaded once.
pub(crate) struct RunVersions {
    choice: VersionChoice,
    pub dag: Dag,
    newest: Arc<RunVersion>,
    others: HashMap<i64, Arc<RunVersion>>,
}

impl RunVersions {
    pub async fn load(client: &impl GenericClient, dag_id: &str, choice: VersionChoice) -> Result<Self> {
        let dag = dags::get(client, dag_id).await?;
        let newest = Arc::new(RunVersion::new(dag.version_id, Arc::clone(&dag.structure)));
        Ok(Self { choice, dag, newest, others: HashMap::new() })
    }

    /// Returns the version for the rerun of a run that has this version. A run without a version gets the newest.
    pub async fn of_run(&mut self, client: &impl GenericClient, version_id: Option<i64>) -> Result<Arc<RunVersion>> {
        let own = version_id.filter(|id| self.choice == VersionChoice::Own && *id != self.newest.id);
        let Some(id) = own else { return Ok(Arc::clone(&self.newest)) };
        if let Some(known) = self.others.get(&id) {
            return Ok(Arc::clone(known));
        }
        let structure = Arc::new(versions::structure_by_id(client, id).await?);
        let version = Arc::new(RunVersion::new(id, structure));
        self.others.insert(id, Arc::clone(&version));
        Ok(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_request_precedes_the_dag_and_the_dag_the_setting() {
        let dag = |value: Option<bool>| -> Structure {
            serde_json::from_value(json!({"dag_id": "d", "rerun_with_latest_version": value})).unwrap()
        };
        let resolve =
            |requested, of_dag, setting, default| VersionChoice::resolve(requested, &dag(of_dag), setting, default);
        use VersionChoice::{Newest, Own};
        assert_eq!(resolve(Some(false), Some(true), Some(true), Newest), Own);
        assert_eq!(resolve(Some(true), Some(false), Some(false), Own), Newest);
        assert_eq!(resolve(None, Some(true), Some(false), Own), Newest);
        assert_eq!(resolve(None, Some(false), Some(true), Newest), Own);
        assert_eq!(resolve(None, None, Some(true), Own), Newest);
        assert_eq!(resolve(None, None, Some(false), Newest), Own);
        assert_eq!(resolve(None, None, None, Own), Own);
        assert_eq!(resolve(None, None, None, Newest), Newest);
    }
}
