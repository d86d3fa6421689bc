//! `PATCH /api/v2/dags/{dag_id}/dagRuns`: runs marked, noted and removed in bulk.

use super::dag_runs::{DAGRunPatchBody, DagRunMutableStates, missing};
use crate::engine::keys::RunKey;
use crate::engine::store::{ReadFor, StoreError, runs};
use crate::server::api_error::ApiError;
use crate::server::body::{Body, fields_as};
use crate::server::bulk::{Bulk, BulkResponse};
use crate::server::bulk_keyed::{self, Entity, Keyed, text_of};
use crate::server::request::Segments;
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use deadpool_postgres::Transaction;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Those of the DAG in the path, or of any where that says `~`.
struct DagRuns {
    path: String,
}

/// A run, and what is to become of it.
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

fn patch_of(mut entity: Map<String, Value>) -> Result<DAGRunPatchBody, ApiError> {
    entity.retain(|name, _| !["dag_id", "dag_run_id"].contains(&name.as_str()));
    fields_as(entity)
}

impl Keyed for DagRuns {
    type Named = RunKey;
    type Key = RunKey;

    const NO_CREATE: &'static str = "Dag Runs bulk create is not supported. Use the trigger Dag Run endpoint instead.";

    fn named(&self, entity: &Entity) -> Result<RunKey, ApiError> {
        let (run_id, own, place) = match entity {
            Entity::Name(text) => (text.clone(), None, "BulkDAGRunBody object, not as string"),
            Entity::Body(body) => {
                (text_of(body, "dag_run_id")?.unwrap_or_default(), text_of(body, "dag_id")?, "request body")
            }
        };
        let dag_id = own.unwrap_or_else(|| self.path.clone());
        if dag_id == "~" || run_id == "~" {
            let detail =
                format!("When using wildcard in path, dag_id must be specified in {place} for dag_run_id: {run_id}");
            return Err(ApiError::new(StatusCode::BAD_REQUEST, detail));
        }
        Ok(RunKey { dag_id, run_id })
    }

    fn check(&self, body: &Map<String, Value>) -> Result<(), ApiError> {
        if text_of(body, "dag_run_id")?.is_none() {
            let location = ["body", "actions", "entities", "dag_run_id"];
            return Err(ApiError::unprocessable(&location, "missing", "Field required"));
        }
        patch_of(body.clone())?.check()
    }

    async fn there(&self, transaction: &Transaction<'_>, key: &RunKey) -> Result<Vec<RunKey>, ApiError> {
        match runs::get(transaction, key, ReadFor::Reading).await {
            Ok(run) => Ok(vec![run.key]),
            Err(StoreError::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    fn not_found(&self, keys: &[RunKey]) -> ApiError {
        let ids: Vec<String> = keys.iter().map(|key| format!("('{}', '{}')", key.dag_id, key.run_id)).collect();
        let detail = format!("The DagRuns with these identifiers: [{}] were not found", ids.join(", "));
        ApiError::new(StatusCode::NOT_FOUND, detail)
    }

    async fn change(
        &self,
        transaction: &Transaction<'_>,
        key: &RunKey,
        body: Map<String, Value>,
        mask: &[String],
    ) -> Result<(), ApiError> {
        patch_of(body)?.apply(transaction, key, mask).await
    }

    async fn remove(&self, transaction: &Transaction<'_>, key: &RunKey) -> Result<(), ApiError> {
        runs::delete(transaction, key).await.map_err(|error| missing(error, key))
    }

    fn shown(key: &RunKey) -> String {
        format!("{}.{}", key.dag_id, key.run_id)
    }
}

pub async fn dag_runs(
    State(state): State<Arc<AppState>>,
    Segments(path): Segments<String>,
    Body(body): Body<Bulk<BulkDAGRunBody>>,
) -> Result<Json<BulkResponse>, ApiError> {
    bulk_keyed::run(&state, &DagRuns { path }, body).await
}
