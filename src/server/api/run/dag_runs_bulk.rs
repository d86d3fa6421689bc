//! `PATCH /api/v2/dags/{dag_id}/dagRuns`: changes and deletes runs in bulk.

use super::dag_runs::{DAGRunPatchBody, DagRunMutableStates, run_not_found};
use crate::api::bulk::keyed::{self, Entity, KeyedEntities, require_text, text_of};
use crate::api::bulk::{Bulk, BulkResponse};
use crate::api::prelude::*;
use crate::http::body::fields_as;
use leoflow_base::home::Home;
use leoflow_base::protocol::task_log;
use leoflow_engine::store::run::runs;
use std::path::PathBuf;

/// Runs of the DAG in the path, or of any DAG when the path says `~`.
struct DagRuns {
    path_dag_id: String,
}

/// A run, and for a bulk update the change to apply.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BulkDAGRunBody {
    pub dag_run_id: String,
    #[serde(default)]
    pub dag_id: Option<String>,
    #[serde(default, rename = "state")]
    #[schemars(with = "Option<DagRunMutableStates>")]
    _state: Option<Value>,
    #[serde(default, rename = "note")]
    #[schemars(with = "Option<String>", length(max = 1000))]
    _note: Option<Value>,
}

fn parse_patch(mut entity: Map<String, Value>) -> ApiResult<DAGRunPatchBody> {
    entity.retain(|name, _| !["dag_id", "dag_run_id"].contains(&name.as_str()));
    fields_as(entity)
}

impl KeyedEntities for DagRuns {
    type Selector = RunKey;
    type Key = RunKey;

    const CREATE_REFUSAL: &'static str =
        "Dag Runs bulk create is not supported. Use the trigger Dag Run endpoint instead.";

    fn selector(&self, entity: &Entity) -> ApiResult<RunKey> {
        let (run_id, own_dag_id, location) = match entity {
            Entity::Name(name) => (name.clone(), None, "BulkDAGRunBody object, not as string"),
            Entity::Body(body) => {
                (text_of(body, "dag_run_id")?.unwrap_or_default(), text_of(body, "dag_id")?, "request body")
            }
        };
        let dag_id = own_dag_id.unwrap_or_else(|| self.path_dag_id.clone());
        if dag_id == "~" || run_id == "~" {
            let detail =
                format!("When using wildcard in path, dag_id must be specified in {location} for dag_run_id: {run_id}");
            return Err(ApiError::bad_request(detail));
        }
        Ok(RunKey { dag_id, run_id })
    }

    fn check(&self, body: &Map<String, Value>) -> ApiResult<()> {
        require_text(body, "dag_run_id")?;
        parse_patch(body.clone())?.check()
    }

    async fn existing(&self, transaction: &Transaction<'_>, key: &RunKey) -> ApiResult<Vec<RunKey>> {
        match runs::get(transaction, key, ReadFor::Reading).await {
            Ok(run) => Ok(vec![run.key]),
            Err(StoreError::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    fn not_found(&self, keys: &[RunKey]) -> ApiError {
        let ids: Vec<String> = keys.iter().map(|key| format!("('{}', '{}')", key.dag_id, key.run_id)).collect();
        let detail = format!("The DagRuns with these identifiers: [{}] were not found", ids.join(", "));
        ApiError::not_found(detail)
    }

    async fn change(
        &self,
        transaction: &Transaction<'_>,
        key: &RunKey,
        body: Map<String, Value>,
        mask: &[String],
    ) -> ApiResult<()> {
        parse_patch(body)?.apply(transaction, key, mask).await
    }

    async fn remove(&self, transaction: &Transaction<'_>, key: &RunKey) -> ApiResult<()> {
        runs::delete(transaction, key).await.map_err(run_not_found(key))
    }

    fn log_folder(home: &Home, key: &RunKey) -> PathBuf {
        task_log::folder_of_run(home, &key.dag_id, &key.run_id)
    }

    fn format_key(key: &RunKey) -> String {
        format!("{}.{}", key.dag_id, key.run_id)
    }
}

pub async fn dag_runs(
    State(state): Shared,
    Id(path_dag_id): Id,
    Body(body): Body<Bulk<BulkDAGRunBody>>,
) -> JsonResult<BulkResponse> {
    keyed::run(&state.core, &DagRuns { path_dag_id }, body).await
}
