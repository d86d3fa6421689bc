//! `/api/v2/assets/events` and `…/upstreamAssetEvents`, with Airflow's names and shapes.

use crate::api::instance::clear::yes;
use crate::api::prelude::*;
use crate::api::run::dag_runs::run_not_found;
use crate::api::views::Uuid;
use leoflow_engine::schedule::partition_key;
use leoflow_engine::schedule::timetable::Partition;
use leoflow_engine::store::asset::asset_lists::{self, AssetEvent, AssetEventField, AssetEventFilter, CreatedRuns};
use leoflow_engine::store::asset::assets;
use leoflow_engine::store::list::column::Order;
use leoflow_engine::store::run::runs;

/// A run that the event triggered, alone or together with other events.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct DagRunAssetReference {
    run_id: String,
    dag_id: String,
    logical_date: Option<Stamp>,
    start_date: Stamp,
    end_date: Option<Stamp>,
    state: String,
    data_interval_start: Option<Stamp>,
    data_interval_end: Option<Stamp>,
    partition_key: Option<String>,
    triggering: bool,
}

view! {
    pub struct AssetEventResponse;
    fn response(event: AssetEvent) {
        id: i64,
        asset_id: i64,
        uri: Option<String> = Some(event.uri),
        name: Option<String> = Some(event.name),
        group: Option<String> = Some(event.group),
        #[schemars(with = "Option<Map<String, Value>>")]
        extra: Value,
        source_task_id: Option<String>,
        source_dag_id: Option<String>,
        source_run_id: Option<String>,
        source_map_index: i32 = event.source_position.map_index(),
        #[schemars(with = "Option<Uuid>")]
        source_task_instance_id: Option<String> = None,
        #[schemars(with = "Vec<DagRunAssetReference>")]
        created_dagruns: Value = event.created_runs,
        timestamp: Stamp = Stamp(event.happened_at),
        partition_key: Option<String>,
    }
}

collection! { AssetEventCollectionResponse { asset_events: AssetEventResponse } }

const FIELDS: Fields<AssetEventField> = Fields {
    order: &[
        ("id", AssetEventField::Id),
        ("timestamp", AssetEventField::HappenedAt),
        ("asset_id", AssetEventField::AssetId),
        ("source_dag_id", AssetEventField::SourceDagId),
        ("source_task_id", AssetEventField::SourceTaskId),
        ("source_run_id", AssetEventField::SourceRunId),
        ("source_map_index", AssetEventField::SourceMapIndex),
    ],
    default_order: &["timestamp"],
    patterns: &[("name", AssetEventField::AssetName)],
    ranges: &[("timestamp", AssetEventField::HappenedAt)],
    exact: &[
        ("asset_id", AssetEventField::AssetId),
        ("source_dag_id", AssetEventField::SourceDagId),
        ("source_task_id", AssetEventField::SourceTaskId),
        ("source_run_id", AssetEventField::SourceRunId),
        ("source_map_index", AssetEventField::SourceMapIndex),
        ("partition_key", AssetEventField::PartitionKey),
    ],
    ..Fields::NONE
};

query! {
    pub AssetEventsQuery(FIELDS) {
        Parameter::new("source_task_instance_id", Kind::Uuid),
        Parameter::new("partition_key_regexp_pattern", Kind::Text),
        // Texts of `extra`, each as NAME=VALUE.
        Parameter::new("extra", Kind::Texts),
    }
}

pub async fn list(
    Datastore(client): Datastore,
    params: QueryParams<AssetEventsQuery>,
) -> JsonResult<AssetEventCollectionResponse> {
    let mut listing = params.listing(&FIELDS)?;
    listing.order_by_default(Order::ascending(AssetEventField::HappenedAt));
    if params.text("source_task_instance_id").is_some() {
        // Events name no attempt.
        listing.select_none();
    }
    let pair = |text: &str| match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), Value::from(value))),
        None => Err(ApiError::bad_request(format!("Invalid extra parameter format: {text:?}. Expected 'key=value'."))),
    };
    let extra: Map<String, Value> = params.texts("extra").iter().map(|text| pair(text)).collect::<ApiResult<_>>()?;
    let pattern = params.text("partition_key_regexp_pattern");
    if let Some(pattern) = pattern
        && !asset_lists::is_pattern(&*client, pattern).await
    {
        return Err(ApiError::bad_request(format!("Invalid regular expression: {pattern}")));
    }
    listing.filter = AssetEventFilter {
        partition_key_matches: pattern.map(str::to_owned),
        extra: (!extra.is_empty()).then_some(extra),
    };
    let page = asset_lists::events(&*client, listing).await?;
    Ok(Json(page.map(response).into()))
}

/// Lists the events that triggered a run.
pub async fn upstream(
    Datastore(client): Datastore,
    Segments((dag_id, run_id)): Segments<RunPath>,
) -> JsonResult<AssetEventCollectionResponse> {
    let key = RunKey { dag_id, run_id };
    runs::get(&*client, &key, ReadFor::Reading).await.map_err(run_not_found(&key))?;
    let events = asset_lists::events_of_run(&*client, &key, CreatedRuns::Read).await?;
    Ok(Json(events.into_iter().map(response).collect()))
}

/// Airflow's access control by team; accepted and ignored, since Lite has no teams.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AssetEventAccessControl {
    #[serde(default, rename = "consumer_teams")]
    _consumer_teams: Option<Vec<String>>,
    #[serde(default = "yes", rename = "allow_global")]
    _allow_global: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateAssetEventsBody {
    asset_id: i64,
    #[serde(default)]
    extra: Map<String, Value>,
    #[serde(default)]
    #[schemars(length(max = 250), regex(pattern = r"\S"))]
    partition_key: Option<String>,
    #[serde(default, rename = "access_control")]
    _access_control: Option<AssetEventAccessControl>,
}

pub async fn create(
    Datastore(mut client): Datastore,
    Body(body): Body<CreateAssetEventsBody>,
) -> JsonResult<AssetEventResponse> {
    let CreateAssetEventsBody { asset_id, mut extra, partition_key, .. } = body;
    if let Some(problem) = partition_key.as_deref().and_then(|key| partition_key::check(key).err()) {
        return Err(ApiError::unprocessable(&["body", "partition_key"], "value_error", problem.to_string()));
    }
    let partition = partition_key.map(|key| Partition { key, date: None });
    extra.insert("from_rest_api".to_owned(), true.into());
    let transaction = client.transaction().await?;
    if asset_lists::get(&transaction, asset_id).await?.is_none() {
        let detail = format!("Asset with ID: `{asset_id}` was not found");
        return Err(ApiError::not_found(detail));
    }
    let id = assets::add_event(&transaction, asset_id, &extra.into(), None, &[], partition.as_ref()).await?;
    let event = asset_lists::event(&transaction, id).await?;
    transaction.commit().await?;
    Ok(Json(response(event)))
}
