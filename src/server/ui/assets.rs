//! The assets and partition keys that a DAG scheduled on assets or partitions still waits for.

use super::structure::not_found;
use crate::api::asset::asset_expressions;
use crate::api::asset::assets::{AssetCollectionResponse, asset_filter, response as asset_response};
use crate::api::prelude::*;
use crate::api::views::{optional_stamp, stamp};
use leoflow_engine::schedule::partition_mapper::Mappers;
use leoflow_engine::schedule::timetable::Timetable;
use leoflow_engine::store::asset::asset_lists::{self, AssetField, AwaitedAsset};
use leoflow_engine::store::asset::partitions::{self, PendingPartition};
use leoflow_engine::store::dag::dags::{self, Dag};
use std::collections::{BTreeMap, BTreeSet};

/// The partition keys of one asset that a pending partition of a DAG has received, and the keys that it requires.
struct Progress {
    received: BTreeSet<String>,
    required: BTreeSet<String>,
    is_rollup: bool,
    /// True when the mapper cannot compute the required keys.
    is_broken: bool,
}

impl Progress {
    /// `key` is the partition's key; `asset` is the asset's name.
    fn compute(mappers: &Mappers, asset: &str, key: &str, received: BTreeSet<String>) -> Self {
        let empty =
            |is_broken| Self { received: BTreeSet::new(), required: BTreeSet::new(), is_rollup: true, is_broken };
        match mappers.of(asset).expected(key) {
            Ok(Some((required, _))) => Self { received, required, ..empty(false) },
            Ok(None) => {
                Self { received, required: BTreeSet::from([key.to_owned()]), is_rollup: false, is_broken: false }
            }
            Err(_) => empty(true),
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

/// Returns the partition mappers of a DAG that is scheduled on partitioned assets.
fn mappers(dag: &Dag) -> Option<&Mappers> {
    match &dag.structure.timetable {
        Some(Timetable::PartitionedAsset(mappers)) => Some(mappers),
        _ => None,
    }
}

/// Returns a partition's progress per asset.
async fn progress<'a>(
    client: &impl GenericClient,
    mappers: &Mappers,
    assets: &'a [AwaitedAsset],
    pending: &PendingPartition,
) -> ApiResult<Vec<(&'a AwaitedAsset, Progress)>> {
    let mut received: BTreeMap<i64, BTreeSet<String>> = partitions::received(client, pending.id).await?;
    let with_progress = |asset: &'a AwaitedAsset| {
        let keys = received.remove(&asset.id).unwrap_or_default();
        (asset, Progress::compute(mappers, &asset.name, &pending.key, keys))
    };
    Ok(assets.iter().map(with_progress).collect())
}

/// Adds fields to an object.
fn with_fields(mut fields: Value, others: Value) -> Value {
    if let (Some(fields), Value::Object(others)) = (fields.as_object_mut(), others) {
        fields.extend(others);
    }
    fields
}

/// `/ui/next_run_assets/{dag_id}`: the assets that the next run waits for. The next run of a partitioned DAG is that of
/// its oldest pending partition.
pub async fn next_run(Datastore(client): Datastore, Id(dag_id): Id) -> JsonResult<Value> {
    let dag = dags::get(&*client, &dag_id).await.map_err(|_| not_found(&dag_id))?;
    let assets = asset_lists::awaited(&*client, &dag_id).await?;
    let asset_fields = |asset: &AwaitedAsset| json!({"id": asset.id, "name": asset.name, "uri": asset.uri});
    let pending = partitions::pending(&*client, Some(&dag_id)).await?;
    let events: Vec<Value> = match (mappers(&dag), pending.first()) {
        (Some(mappers), Some(first)) => progress(&*client, mappers, &assets, first)
            .await?
            .into_iter()
            .map(|(asset, progress)| {
                let is_complete = !progress.is_broken && progress.received.len() >= progress.required.len();
                let completed_at = is_complete.then(|| stamp(first.created_at));
                with_fields(with_fields(asset_fields(asset), progress.fields()), json!({"last_update": completed_at}))
            })
            .collect(),
        _ => assets
            .iter()
            .map(|asset| {
                let fields = json!({
                    "last_update": optional_stamp(asset.queued_at), "received_count": 0,
                    "required_count": 1, "received_keys": [], "required_keys": [], "is_rollup": false,
                    "mapper_error": false, "asset_inactive": false,
                });
                with_fields(asset_fields(asset), fields)
            })
            .collect(),
    };
    let expression = asset_expressions::resolve(&*client, dag.structure.asset_condition.as_ref()).await?;
    Ok(Json(json!({
        "asset_expression": expression, "events": events, "scheduling_asset_count": assets.len(),
        "pending_partition_count": mappers(&dag).map(|_| pending.len()),
    })))
}

/// Fields of the UI's list of assets.
const LIST_FIELDS: Fields<AssetField> = Fields {
    order: &[
        ("id", AssetField::Id),
        ("name", AssetField::Name),
        ("uri", AssetField::Uri),
        ("group", AssetField::Group),
        ("created_at", AssetField::CreatedAt),
        ("updated_at", AssetField::UpdatedAt),
        ("last_asset_event_timestamp", AssetField::LastEvent),
    ],
    patterns: &[("name", AssetField::Name), ("uri", AssetField::Uri), ("group", AssetField::Group)],
    ranges: &[("last_asset_event_timestamp", AssetField::LastEvent)],
    one_of: &[("uri", AssetField::Uri)],
    ..Fields::NONE
};

/// `/ui/assets`.
pub async fn list(Datastore(client): Datastore, params: Params) -> JsonResult<AssetCollectionResponse> {
    let mut listing = params.listing(&LIST_FIELDS)?;
    listing.filter = asset_filter(&params)?;
    listing.filter.has_events = params.flag("has_events")?;
    let page = asset_lists::list(&*client, listing).await?;
    Ok(Json(page.map(asset_response).into()))
}

/// Describes a pending partition; includes its assets if the DAG is still partitioned.
async fn partition_view(client: &impl GenericClient, dag: &Dag, pending: &PendingPartition) -> ApiResult<Value> {
    let assets = asset_lists::awaited(client, &dag.dag_id).await?;
    let progress_by_asset = match mappers(dag) {
        Some(mappers) => progress(client, mappers, &assets, pending).await?,
        None => Vec::new(),
    };
    let count = |count_of: fn(&Progress) -> usize| {
        progress_by_asset.iter().map(|(_, progress)| count_of(progress)).sum::<usize>()
    };
    let asset_views: Vec<Value> = progress_by_asset
        .iter()
        .map(|(asset, progress)| {
            let is_complete = !progress.is_broken && progress.received.len() >= progress.required.len();
            let asset_fields = json!({
                "asset_id": asset.id, "asset_name": asset.name, "asset_uri": asset.uri, "received": is_complete,
            });
            with_fields(asset_fields, progress.fields())
        })
        .collect();
    let expression = asset_expressions::resolve(client, dag.structure.asset_condition.as_ref()).await?;
    Ok(json!({
        "id": pending.id, "dag_id": dag.dag_id, "partition_key": pending.key, "created_at": stamp(pending.created_at),
        "updated_at": stamp(pending.created_at), "created_dag_run_id": null, "assets": asset_views,
        "total_required": count(Progress::required_count), "total_received": count(|progress| progress.received.len()),
        "asset_expression": expression,
    }))
}

/// Fields of `partition_view` that the list includes.
const LISTED_FIELDS: [&str; 7] =
    ["id", "dag_id", "partition_key", "created_at", "total_received", "total_required", "created_dag_run_id"];

/// `/ui/partitioned_dag_runs`: pending partitions, each of which becomes a run once it is complete.
pub async fn list_pending(State(state): Shared, params: Params) -> JsonResult<Value> {
    let client = state.core.database.get().await?;
    let pending = match params.flag("has_created_dag_run_id")? {
        // A created run has no pending partition.
        Some(true) => Vec::new(),
        _ => partitions::pending(&*client, params.text("dag_id")).await?,
    };
    let mut views = Vec::with_capacity(pending.len());
    for partition in &pending {
        let dag = dags::get(&*client, &partition.dag_id).await?;
        let mut view = partition_view(&*client, &dag, partition).await?;
        if let Some(fields) = view.as_object_mut() {
            fields.retain(|name, _| LISTED_FIELDS.contains(&name.as_str()));
        }
        views.push(with_fields(view, json!({"state": null})));
    }
    let views = if params.text("limit").is_some() { params.page()?.of(views).rows } else { views };
    Ok(Json(json!({"partitioned_dag_runs": views, "total": pending.len(), "asset_expressions": null})))
}

/// `/ui/pending_partitioned_dag_run/{dag_id}`: one pending partition, with its assets.
pub async fn pending(Datastore(client): Datastore, Id(dag_id): Id, params: Params) -> JsonResult<Value> {
    let dag = dags::get(&*client, &dag_id).await.map_err(|_| not_found(&dag_id))?;
    let key = params.text("partition_key").unwrap_or_default();
    let id = params.whole("partitioned_dag_run_id")?;
    let partitions = partitions::pending(&*client, Some(&dag_id)).await?;
    let is_named = |partition: &&PendingPartition| id.map_or(partition.key == key, |id| partition.id == id);
    let Some(partition) = partitions.iter().find(is_named) else {
        let detail = format!("No PartitionedDagRun for dag={dag_id} partition={key}");
        return Err(ApiError::not_found(detail));
    };
    Ok(Json(partition_view(&*client, &dag, partition).await?))
}
