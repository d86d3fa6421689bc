//! `/api/v2/assets`, with Airflow's names and shapes.

use crate::api::prelude::*;
use crate::api::run::dag_runs::{check_bundle_version, parse_interval, trigger_run};
use crate::api::views::DAGRunResponse;
use crate::http::body::OptionalBody;
use leoflow_engine::model::state::RunType;
use leoflow_engine::store::asset::asset_lists::{self, AliasField, Asset, AssetField, AssetFilter, AssetUse, UsedBy};
use leoflow_engine::store::run::new_run::isoformat;
use leoflow_engine::store::run::runs::Trigger;

view! {
    /// A DAG that is scheduled on an asset.
    #[schemars(deny_unknown_fields)]
    struct DagScheduleAssetReference;
    fn scheduled_dag(asset_use: &AssetUse) {
        dag_id: String = asset_use.dag_id.clone(),
        #[schemars(with = "Stamp")]
        created_at: String = asset_use.created_at.clone(),
        #[schemars(with = "Stamp")]
        updated_at: String = asset_use.created_at.clone(),
        // Clients of Airflow 3.3 refuse the field.
        #[serde(skip_serializing_if = "Option::is_none")]
        team_name: Option<String> = None,
    }
}

view! {
    /// A task with the asset as an outlet.
    #[schemars(deny_unknown_fields)]
    struct TaskOutletAssetReference;
    fn producing_task(asset_use: &AssetUse) {
        dag_id: String = asset_use.dag_id.clone(),
        task_id: String = asset_use.task_id.clone(),
        #[schemars(with = "Stamp")]
        created_at: String = asset_use.created_at.clone(),
        #[schemars(with = "Stamp")]
        updated_at: String = asset_use.created_at.clone(),
        // Clients of Airflow 3.3 refuse the field.
        #[serde(skip_serializing_if = "Option::is_none")]
        team_name: Option<String> = None,
    }
}

view! {
    /// A task with the asset as an inlet.
    #[schemars(deny_unknown_fields)]
    struct TaskInletAssetReference;
    fn consuming_task(asset_use: &AssetUse) {
        dag_id: String = asset_use.dag_id.clone(),
        task_id: String = asset_use.task_id.clone(),
        #[schemars(with = "Stamp")]
        created_at: String = asset_use.created_at.clone(),
        #[schemars(with = "Stamp")]
        updated_at: String = asset_use.created_at.clone(),
    }
}

/// A trigger that creates events of an asset.
#[derive(Serialize, JsonSchema)]
struct AssetWatcherResponse {
    name: String,
    trigger_id: i64,
    created_date: Stamp,
}

#[derive(Serialize, JsonSchema)]
struct LastAssetEventResponse {
    #[schemars(range(min = 0))]
    id: Option<i64>,
    timestamp: Option<Stamp>,
}

view! {
    pub struct AssetResponse;
    pub fn response(asset: Asset) {
        id: i64,
        name: String,
        uri: String,
        group: String,
        #[schemars(with = "Option<Map<String, Value>>")]
        extra: Value,
        created_at: Stamp = Stamp(asset.created_at),
        updated_at: Stamp = Stamp(asset.updated_at),
        scheduled_dags: Vec<DagScheduleAssetReference> = uses(&asset.uses, "schedule", scheduled_dag),
        producing_tasks: Vec<TaskOutletAssetReference> = uses(&asset.uses, "outlet", producing_task),
        consuming_tasks: Vec<TaskInletAssetReference> = uses(&asset.uses, "inlet", consuming_task),
        #[schemars(with = "Vec<AssetAliasResponse>")]
        aliases: Value,
        watchers: Vec<AssetWatcherResponse> = Vec::new(),
        last_asset_event: Option<LastAssetEventResponse> = Some(last_event(asset.last_event)),
    }
}

collection! { AssetCollectionResponse { assets: AssetResponse } }

/// Returns the uses of an asset in one role.
fn uses<T>(uses: &[AssetUse], role: &str, view: fn(&AssetUse) -> T) -> Vec<T> {
    uses.iter().filter(|asset_use| asset_use.role == role).map(view).collect()
}

fn last_event(event: Option<(i64, Timestamp)>) -> LastAssetEventResponse {
    let (id, happened_at) = event.unzip();
    LastAssetEventResponse { id, timestamp: happened_at.map(Stamp) }
}

const ASSET_FIELDS: Fields<AssetField> = Fields {
    order: &[
        ("id", AssetField::Id),
        ("name", AssetField::Name),
        ("uri", AssetField::Uri),
        ("created_at", AssetField::CreatedAt),
        ("updated_at", AssetField::UpdatedAt),
    ],
    patterns: &[("name", AssetField::Name), ("uri", AssetField::Uri)],
    one_of: &[("uri", AssetField::Uri)],
    ..Fields::NONE
};

query! {
    pub AssetsQuery(ASSET_FIELDS) {
        Parameter::new("dag_ids", Kind::Texts),
        Parameter::new("only_active", Kind::Flag).or("true"),
    }
}

pub fn asset_filter(params: &Params) -> ApiResult<AssetFilter> {
    let dag_ids = params.all("dag_ids").flat_map(|list| list.split(',')).map(str::to_owned).collect();
    let used_by = if params.flag("only_active")?.unwrap_or(true) { UsedBy::ActiveDag } else { UsedBy::Any };
    Ok(AssetFilter { dag_ids, used_by, has_events: None })
}

pub async fn list(
    Datastore(client): Datastore,
    params: QueryParams<AssetsQuery>,
) -> JsonResult<AssetCollectionResponse> {
    let mut listing = params.listing(&ASSET_FIELDS)?;
    listing.filter = asset_filter(&params)?;
    let page = asset_lists::list(&*client, listing).await?;
    Ok(Json(page.map(response).into()))
}

const ALIAS_FIELDS: Fields<AliasField> = Fields {
    order: &[("id", AliasField::Id), ("name", AliasField::Name)],
    patterns: &[("name", AliasField::Name)],
    ..Fields::NONE
};

query! { pub AliasesQuery(ALIAS_FIELDS) }

#[derive(Serialize, JsonSchema)]
pub struct AssetAliasResponse {
    id: i64,
    name: String,
    group: String,
}

collection! { AssetAliasCollectionResponse { asset_aliases: AssetAliasResponse } }

fn alias_view((id, name, group): (i64, String, String)) -> AssetAliasResponse {
    AssetAliasResponse { id, name, group }
}

pub async fn aliases(
    State(state): Shared,
    params: QueryParams<AliasesQuery>,
) -> JsonResult<AssetAliasCollectionResponse> {
    let listing = params.listing(&ALIAS_FIELDS)?;
    let page = asset_lists::aliases(&*state.core.database.get().await?, listing).await?;
    Ok(Json(page.map(alias_view).into()))
}

pub async fn alias(State(state): Shared, Segments(id): Segments<i64>) -> JsonResult<AssetAliasResponse> {
    let alias = asset_lists::alias(&*state.core.database.get().await?, id).await?;
    let not_found = || ApiError::not_found(format!("The Asset Alias with ID: `{id}` was not found"));
    Ok(Json(alias_view(alias.ok_or_else(not_found)?)))
}

fn asset_not_found(id: i64) -> ApiError {
    ApiError::not_found(format!("The Asset with ID: `{id}` was not found"))
}

pub async fn get(Datastore(client): Datastore, Segments(id): Segments<i64>) -> JsonResult<AssetResponse> {
    let asset = asset_lists::get(&*client, id).await?;
    Ok(Json(response(asset.ok_or_else(|| asset_not_found(id))?)))
}

/// Parameters of the run that materializes an asset.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MaterializeAssetBody {
    dag_run_id: Option<String>,
    data_interval_start: Option<Timestamp>,
    data_interval_end: Option<Timestamp>,
    logical_date: Option<Timestamp>,
    run_after: Option<Timestamp>,
    conf: Option<Map<String, Value>>,
    note: Option<String>,
    partition_key: Option<String>,
    bundle_version: Option<String>,
    drain_dag: bool,
}

/// Triggers a run of the DAG that produces the asset; fails unless exactly one does.
pub async fn materialize(
    State(state): Shared,
    Segments(id): Segments<i64>,
    OptionalBody(body): OptionalBody<MaterializeAssetBody>,
) -> JsonResult<DAGRunResponse> {
    let body = body.unwrap_or_default();
    let data_interval = parse_interval(body.data_interval_start, body.data_interval_end)?;
    let dag_id = producing_dag(&*state.core.database.get().await?, id).await?;
    let default_run_id =
        || format!("asset_materialization_{}", isoformat(body.run_after.unwrap_or_else(Timestamp::now)));
    let trigger = Trigger {
        run_id: Some(body.dag_run_id.unwrap_or_else(default_run_id)),
        logical_date: body.logical_date,
        data_interval,
        run_after: body.run_after,
        conf: body.conf.unwrap_or_default(),
        note: body.note,
        triggered_by: "rest_api",
        user: state.auth.admin_email(),
        run_type: Some(RunType::AssetMaterialization),
        partition_key: body.partition_key,
    };
    check_bundle_version(body.bundle_version.as_deref())?;
    trigger_run(&state, &dag_id, trigger, body.drain_dag, ApiError::from).await
}

async fn producing_dag(client: &impl GenericClient, id: i64) -> ApiResult<String> {
    let mut dag_ids = asset_lists::producers(client, id).await?.into_iter();
    match (dag_ids.next(), dag_ids.next()) {
        (Some(dag_id), None) => Ok(dag_id),
        (None, _) => Err(ApiError::not_found(format!("No Dag materializes asset with ID: {id}"))),
        _ => Err(ApiError::conflict(format!("More than one Dag materializes asset with ID: {id}"))),
    }
}
