//! What a DAG that waits for assets or their partitions waits for.

use super::structure::not_found;
use crate::engine::schedule::partition_mapper::Mappers;
use crate::engine::schedule::timetable::Timetable;
use crate::engine::store::dags::{self, Dag};
use crate::engine::store::waiting::{self, AwaitedAsset, PendingPartition};
use crate::postgres::GenericClient;
use crate::server::api::asset_expressions;
use crate::server::api::views::{maybe, stamp};
use crate::server::api_error::ApiError;
use crate::server::request::{Params, Segments};
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

type Shared = State<Arc<AppState>>;

/// How far a DAG is with one asset.
struct Progress {
    received: BTreeSet<String>,
    required: BTreeSet<String>,
    is_rollup: bool,
    /// The mapper cannot say which keys are wanted.
    is_broken: bool,
}

impl Progress {
    fn of(mappers: &Mappers, asset: &str, key: &str, received: BTreeSet<String>) -> Self {
        let is_broken =
            |is_broken| Self { received: BTreeSet::new(), required: BTreeSet::new(), is_rollup: true, is_broken };
        match mappers.of(asset).expected(key) {
            Ok(Some((required, _))) => Self { received, required, ..is_broken(false) },
            Ok(None) => {
                Self { received, required: BTreeSet::from([key.to_owned()]), is_rollup: false, is_broken: false }
            }
            Err(_) => is_broken(true),
        }
    }

    fn required_count(&self) -> usize {
        if self.is_broken { 1 } else { self.required.len() }
    }

    fn fields(&self) -> Value {
        json!({
            "received_count": self.received.len(), "required_count": self.required_count(),
            "received_keys": self.received, "required_keys": self.required, "is_rollup": self.is_rollup,
            "mapper_error": self.is_broken, "asset_inactive": false,
        })
    }
}

fn mappers(dag: &Dag) -> Option<&Mappers> {
    match &dag.structure.timetable {
        Some(Timetable::PartitionedAsset(mappers)) => Some(mappers),
        _ => None,
    }
}

/// How far a partition is, asset by asset.
async fn progress<'a>(
    client: &impl GenericClient,
    mappers: &Mappers,
    assets: &'a [AwaitedAsset],
    pending: &PendingPartition,
) -> Result<Vec<(&'a AwaitedAsset, Progress)>, ApiError> {
    let mut received: BTreeMap<i64, BTreeSet<String>> = waiting::received(client, pending.id).await?;
    let one = |asset: &'a AwaitedAsset| {
        let keys = received.remove(&asset.id).unwrap_or_default();
        (asset, Progress::of(mappers, &asset.name, &pending.key, keys))
    };
    Ok(assets.iter().map(one).collect())
}

fn with(mut fields: Value, more: Value) -> Value {
    if let (Some(fields), Value::Object(more)) = (fields.as_object_mut(), more) {
        fields.extend(more);
    }
    fields
}

/// `/ui/next_run_assets/{dag_id}`: of the oldest partition, where it waits for partitions.
pub async fn next_run(State(state): Shared, Segments(dag_id): Segments<String>) -> Result<Json<Value>, ApiError> {
    let client = state.database.get().await?;
    let dag = dags::get(&*client, &dag_id).await.map_err(|_| not_found(&dag_id))?;
    let assets = waiting::assets(&*client, &dag_id).await?;
    let about = |asset: &AwaitedAsset| json!({"id": asset.id, "name": asset.name, "uri": asset.uri});
    let pending = waiting::partitions(&*client, Some(&dag_id)).await?;
    let events: Vec<Value> = match (mappers(&dag), pending.first()) {
        (Some(mappers), Some(first)) => progress(&*client, mappers, &assets, first)
            .await?
            .into_iter()
            .map(|(asset, progress)| {
                let is_there = !progress.is_broken && progress.received.len() >= progress.required.len();
                let since = is_there.then(|| stamp(first.created_at));
                with(with(about(asset), progress.fields()), json!({"last_update": since}))
            })
            .collect(),
        _ => assets
            .iter()
            .map(|asset| {
                let fields = json!({
                    "last_update": maybe(asset.queued_at), "received_count": 0,
                    "required_count": 1, "received_keys": [], "required_keys": [], "is_rollup": false,
                    "mapper_error": false, "asset_inactive": false,
                });
                with(about(asset), fields)
            })
            .collect(),
    };
    let expression = asset_expressions::one(&*client, dag.structure.asset_condition.as_ref()).await?;
    Ok(Json(json!({
        "asset_expression": expression, "events": events,
        "pending_partition_count": mappers(&dag).map(|_| pending.len()),
    })))
}

/// With its assets, where the DAG still waits for partitions.
async fn detail(client: &impl GenericClient, dag: &Dag, pending: &PendingPartition) -> Result<Value, ApiError> {
    let assets = waiting::assets(client, &dag.dag_id).await?;
    let found = match mappers(dag) {
        Some(mappers) => progress(client, mappers, &assets, pending).await?,
        None => Vec::new(),
    };
    let count = |of: fn(&Progress) -> usize| found.iter().map(|(_, progress)| of(progress)).sum::<usize>();
    let shown: Vec<Value> = found
        .iter()
        .map(|(asset, progress)| {
            let is_there = !progress.is_broken && progress.received.len() >= progress.required.len();
            let about =
                json!({"asset_id": asset.id, "asset_name": asset.name, "asset_uri": asset.uri, "received": is_there});
            with(about, progress.fields())
        })
        .collect();
    let expression = asset_expressions::one(client, dag.structure.asset_condition.as_ref()).await?;
    Ok(json!({
        "id": pending.id, "dag_id": dag.dag_id, "partition_key": pending.key, "created_at": stamp(pending.created_at),
        "updated_at": stamp(pending.created_at), "created_dag_run_id": null, "assets": shown,
        "total_required": count(Progress::required_count), "total_received": count(|progress| progress.received.len()),
        "asset_expression": expression,
    }))
}

/// Fields of the list that are in the detail too.
const IN_LIST: [&str; 7] =
    ["id", "dag_id", "partition_key", "created_at", "total_received", "total_required", "created_dag_run_id"];

/// `/ui/partitioned_dag_runs`: runs that are to be, once what they wait for is there.
pub async fn partitioned(State(state): Shared, params: Params) -> Result<Json<Value>, ApiError> {
    let client = state.database.get().await?;
    let found = match params.flag("has_created_dag_run_id")? {
        // Once there is the run, nothing waits for it any more.
        Some(true) => Vec::new(),
        _ => waiting::partitions(&*client, params.text("dag_id")).await?,
    };
    let mut shown = Vec::with_capacity(found.len());
    for pending in &found {
        let dag = dags::get(&*client, &pending.dag_id).await?;
        let mut one = detail(&*client, &dag, pending).await?;
        if let Some(fields) = one.as_object_mut() {
            fields.retain(|name, _| IN_LIST.contains(&name.as_str()));
        }
        shown.push(with(one, json!({"state": null})));
    }
    Ok(Json(json!({"partitioned_dag_runs": shown, "total": found.len(), "asset_expressions": null})))
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
    let Some(one) = found.iter().find(|one| one.key == key) else {
        let detail = format!("No PartitionedDagRun for dag={dag_id} partition={key}");
        return Err(ApiError::new(StatusCode::NOT_FOUND, detail));
    };
    Ok(Json(detail(&*client, &dag, one).await?))
}
