//! `PATCH /api/v2/dags/bulk`: pauses, drains and activates DAGs in bulk.

use super::dags::DAGPatchBody;
use crate::api::bulk::keyed::{self, Entity, KeyedEntities, require_text, text_of};
use crate::api::bulk::{Bulk, BulkResponse};
use crate::api::prelude::*;
use crate::http::body::fields_as;
use leoflow_base::home::Home;
use leoflow_base::protocol::task_log;
use leoflow_engine::store::dag::dags::{self, Scheduling};
use std::path::PathBuf;

struct Dags;

/// A DAG, and for an update the state to set.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only for the JSON schema; `parse_patch` parses the fields")]
pub struct BulkDAGBody {
    dag_id: String,
    #[serde(default)]
    is_paused: Option<bool>,
    #[serde(default)]
    scheduling_state: Option<Scheduling>,
}

fn parse_patch(mut entity: Map<String, Value>) -> ApiResult<DAGPatchBody> {
    entity.retain(|name, _| name != "dag_id");
    fields_as(entity)
}

impl KeyedEntities for Dags {
    type Selector = String;
    type Key = String;

    const CREATE_REFUSAL: &'static str = "Dags bulk create is not supported";

    fn selector(&self, entity: &Entity) -> ApiResult<String> {
        match entity {
            Entity::Name(name) => Ok(name.clone()),
            Entity::Body(body) => Ok(text_of(body, "dag_id")?.unwrap_or_default()),
        }
    }

    fn check(&self, body: &Map<String, Value>) -> ApiResult<()> {
        require_text(body, "dag_id")?;
        parse_patch(body.clone())?.scheduling(&[]).map(drop)
    }

    async fn existing(&self, transaction: &Transaction<'_>, dag_id: &String) -> ApiResult<Vec<String>> {
        match dags::is_paused(transaction, dag_id).await {
            Ok(_) => Ok(vec![dag_id.clone()]),
            Err(StoreError::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    fn not_found(&self, dag_ids: &[String]) -> ApiError {
        ApiError::not_found(format!("The Dags with these ids: {dag_ids:?} were not found"))
    }

    async fn change(
        &self,
        transaction: &Transaction<'_>,
        dag_id: &String,
        body: Map<String, Value>,
        mask: &[String],
    ) -> ApiResult<()> {
        Ok(dags::set_scheduling(transaction, dag_id, parse_patch(body)?.scheduling(mask)?).await?)
    }

    async fn remove(&self, _: &Transaction<'_>, _: &String) -> ApiResult<()> {
        let detail = "Dags bulk delete is not supported. Use the delete Dag endpoint instead.";
        Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, detail))
    }

    fn log_folder(home: &Home, dag_id: &String) -> PathBuf {
        task_log::folder_of_dag(home, dag_id)
    }

    fn format_key(dag_id: &String) -> String {
        dag_id.clone()
    }
}

pub async fn bulk(State(state): Shared, Body(body): Body<Bulk<BulkDAGBody>>) -> JsonResult<BulkResponse> {
    keyed::run(&state.core, &Dags, body).await
}
