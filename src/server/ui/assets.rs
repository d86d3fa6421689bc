//! What a DAG that waits for assets or their partitions waits for.

use super::structure::not_found;
use crate::engine::store::dags;
use crate::engine::store::waiting::{self, PendingPartition};
use crate::server::api::views::{maybe, stamp};
use crate::server::api_error::ApiError;
use crate::server::request::{Params, Segments};
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use std::sync::Arc;

type Shared = State<Arc<AppState>>;

/// `/ui/next_run_assets/{dag_id}`.
pub async fn next_run(State(state): Shared, Segments(dag_id): Segments<String>) -> Result<Json<Value>, ApiError> {
    let client = state.database.get().await?;
    let dag = dags::get(&*client, &dag_id).await.map_err(|_| not_found(&dag_id))?;
    let is_partitioned = dag.structure.timetable.as_ref().is_some_and(|timetable| timetable.is_partitioned());
    let pending = waiting::partitions(&*client, Some(&dag_id)).await?;
    let events: Vec<Value> = waiting::assets(&*client, &dag_id)
        .await?
        .iter()
        .map(|asset| {
            json!({
                "id": asset.id, "name": asset.name, "uri": asset.uri, "last_update": maybe(asset.queued_at),
                "received_count": i64::from(asset.queued_at.is_some()), "required_count": 1,
                "received_keys": [], "required_keys": [], "is_rollup": false, "mapper_error": null,
                "asset_inactive": false,
            })
        })
        .collect();
    Ok(Json(json!({
        "asset_expression": dag.structure.asset_condition, "events": events,
        "pending_partition_count": is_partitioned.then_some(pending.len()),
    })))
}

fn shown(pending: &PendingPartition) -> Value {
    json!({
        "id": pending.id, "dag_id": pending.dag_id, "partition_key": pending.key, "created_at": stamp(pending.created_at),
        "total_received": pending.received, "total_required": pending.received.max(1), "state": null,
        "created_dag_run_id": null, "is_rollup": false,
    })
}

/// `/ui/partitioned_dag_runs`: runs that are to be, once what they wait for is there.
pub async fn partitioned(State(state): Shared, params: Params) -> Result<Json<Value>, ApiError> {
    let client = state.database.get().await?;
    let found = match params.flag("has_created_dag_run_id")? {
        // Once there is the run, nothing waits for it any more.
        Some(true) => Vec::new(),
        _ => waiting::partitions(&*client, params.text("dag_id")).await?,
    };
    let runs: Vec<Value> = found.iter().map(shown).collect();
    Ok(Json(json!({"partitioned_dag_runs": runs, "total": runs.len(), "asset_expressions": null})))
}

/// `/ui/pending_partitioned_dag_run/{dag_id}`.
pub async fn pending(
    State(state): Shared,
    Segments(dag_id): Segments<String>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let client = state.database.get().await?;
    let dag = dags::get(&*client, &dag_id).await.map_err(|_| not_found(&dag_id))?;
    let key = params.text("partition_key").unwrap_or_default();
    let found = waiting::partitions(&*client, Some(&dag_id)).await?;
    let one = found.iter().find(|one| one.key == key).ok_or_else(|| {
        let detail = format!("No PartitionedDagRun for dag={dag_id} partition={key}");
        ApiError::new(axum::http::StatusCode::NOT_FOUND, detail)
    })?;
    let mut shown = shown(one);
    shown["partition_date"] = Value::Null;
    shown["updated_at"] = stamp(one.created_at).into();
    shown["assets"] = json!([]);
    shown["asset_expression"] = dag.structure.asset_condition.clone().unwrap_or_default();
    Ok(Json(shown))
}
