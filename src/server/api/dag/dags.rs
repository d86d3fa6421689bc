//! `/api/v2/dags`, with Airflow's names and shapes.

use super::dag_views::{DAGCollectionResponse, DAGDetailsResponse, DAGResponse};
use crate::api::asset::asset_expressions;
use crate::api::views::BUNDLE;
use crate::http::api_error::ApiError;
use crate::http::body::Body;
use crate::http::listing::{Fields, NO_FIELDS, escape_like};
use crate::http::openapi::answers::{NoContent, Written};
use crate::http::query::{Kind, Parameter, Query, QueryParams, UPDATE_MASK, UpdateMaskQuery};
use crate::http::request::{Params, Segments};
use crate::process::state::AppState;
use axum::extract::State;
use axum::http::StatusCode;
use leoflow_engine::store::StoreError;
use leoflow_engine::store::dag::dags;
use leoflow_engine::store::list::listing::{Column, Conditions, Listing};
use schemars::JsonSchema;
use serde::Deserialize;
use std::sync::Arc;

type Shared = State<Arc<AppState>>;

const LAST_STATE: &str = "(SELECT r.state FROM dag_run r WHERE r.dag_id = d.dag_id
    ORDER BY r.run_after DESC, r.queued_at DESC LIMIT 1)";
const LAST_START: &str = "(SELECT r.start_date FROM dag_run r WHERE r.dag_id = d.dag_id
    ORDER BY r.run_after DESC, r.queued_at DESC LIMIT 1)";
const DISPLAY_NAME: &str = "coalesce(v.structure->>'dag_display_name', d.dag_id)";
/// Airflow's class for each kind of timetable.
const TIMETABLE_TYPE: &str = "CASE v.structure->'timetable'->>'kind'
    WHEN 'custom' THEN v.structure->'timetable'->>'class'
    WHEN 'once' THEN 'airflow.timetables.simple.OnceTimetable'
    WHEN 'continuous' THEN 'airflow.timetables.simple.ContinuousTimetable'
    WHEN 'cron_trigger' THEN 'airflow.timetables.trigger.CronTriggerTimetable'
    WHEN 'multiple_cron_trigger' THEN 'airflow.timetables.trigger.MultipleCronTriggerTimetable'
    WHEN 'cron_interval' THEN 'airflow.timetables.interval.CronDataIntervalTimetable'
    WHEN 'delta_trigger' THEN 'airflow.timetables.trigger.DeltaTriggerTimetable'
    WHEN 'delta_interval' THEN 'airflow.timetables.interval.DeltaDataIntervalTimetable'
    WHEN 'events' THEN 'airflow.timetables.events.EventsTimetable'
    WHEN 'asset' THEN 'airflow.timetables.simple.AssetTriggeredTimetable'
    WHEN 'cron_partition' THEN 'airflow.timetables.trigger.CronPartitionTimetable'
    WHEN 'partitioned_asset' THEN 'airflow.timetables.simple.PartitionedAssetTimetable'
    WHEN 'partitioned_at_runtime' THEN 'airflow.timetables.simple.PartitionedAtRuntime'
    WHEN 'asset_or_time' THEN 'airflow.timetables.assets.AssetOrTimeSchedule'
    ELSE 'airflow.timetables.simple.NullTimetable' END";
const FIELDS: Fields = Fields {
    order: &[
        ("dag_id", Column::text("d.dag_id")),
        ("dag_display_name", Column::text(DISPLAY_NAME)),
        ("next_dagrun", Column::time("d.next_interval_start")),
        ("next_dagrun_create_after", Column::time("d.next_run_after")),
        ("state", Column::text(LAST_STATE)),
        ("last_run_state", Column::text(LAST_STATE)),
        ("start_date", Column::time(LAST_START)),
        ("last_run_start_date", Column::time(LAST_START)),
    ],
    default_order: &["dag_id"],
    patterns: &[("dag_id", "d.dag_id"), ("dag_display_name", DISPLAY_NAME)],
    ..NO_FIELDS
};

const RUN_STATES: &[&str] = &["queued", "running", "success", "failed"];

pub struct DagsQuery;

impl Query for DagsQuery {
    const LIST: Option<&'static Fields> = Some(&FIELDS);
    const OTHERS: &'static [Parameter] = &[
        Parameter::new("tags", Kind::Texts),
        Parameter::new("tags_match_mode", Kind::OneOf(&["any", "all"])),
        Parameter::new("owners", Kind::Texts),
        Parameter::new("exclude_stale", Kind::Flag).or("true"),
        Parameter::new("paused", Kind::Flag),
        Parameter::new("has_import_errors", Kind::Flag),
        Parameter::new("last_dag_run_state", Kind::OneOf(RUN_STATES)),
        Parameter::new("bundle_name", Kind::Text),
        Parameter::new("bundle_version", Kind::Text),
        Parameter::new("has_asset_schedule", Kind::Flag),
        Parameter::new("asset_dependency", Kind::Text),
        Parameter::new("dag_run_start_date_gte", Kind::Time),
        Parameter::new("dag_run_start_date_gt", Kind::Time),
        Parameter::new("dag_run_start_date_lte", Kind::Time),
        Parameter::new("dag_run_start_date_lt", Kind::Time),
        Parameter::new("dag_run_end_date_gte", Kind::Time),
        Parameter::new("dag_run_end_date_gt", Kind::Time),
        Parameter::new("dag_run_end_date_lte", Kind::Time),
        Parameter::new("dag_run_end_date_lt", Kind::Time),
        Parameter::new("dag_run_state", Kind::Texts),
        Parameter::new("is_favorite", Kind::Flag),
        Parameter::new("timetable_type", Kind::Texts),
    ];
}

/// Builds the listing for the filters that reading and patching share.
fn shared_listing(params: &Params, fields: &Fields) -> Result<Listing, ApiError> {
    let mut listing = params.listing(fields)?;
    let conditions = &mut listing.conditions;
    if params.flag("exclude_stale")?.unwrap_or(true) {
        conditions.add("d.is_active", Vec::new());
    }
    conditions.maybe("d.is_paused = {}", params.flag("paused")?);
    let (tags, owners) = (params.texts("tags"), params.texts("owners"));
    match params.text("tags_match_mode") {
        _ if tags.is_empty() => {}
        Some("all") => conditions.with("jsonb_exists_all(v.structure->'tags', {})", tags),
        None | Some("any") => conditions.with("jsonb_exists_any(v.structure->'tags', {})", tags),
        Some(_) => {
            let message = "Input should be 'any' or 'all'";
            return Err(ApiError::unprocessable(&["query", "tags_match_mode"], "literal_error", message));
        }
    }
    if !owners.is_empty() {
        let owners: Vec<String> = owners.iter().map(|owner| format!("%{}%", escape_like(owner))).collect();
        let any = "EXISTS (SELECT FROM jsonb_array_elements_text(v.structure->'owners') AS o (name) WHERE o.name ILIKE ANY ({}))";
        conditions.with(any, owners);
    }
    Ok(listing)
}

/// Builds the listing for reading, with all filters.
pub fn dag_listing(params: &Params) -> Result<Listing, ApiError> {
    let mut listing = shared_listing(params, &FIELDS)?;
    let conditions = &mut listing.conditions;
    conditions.maybe("d.is_favorite = {}", params.flag("is_favorite")?);
    let errors = "EXISTS (SELECT FROM import_error e WHERE e.filename = d.fileloc) = {}";
    conditions.maybe(errors, params.flag("has_import_errors")?);
    conditions.maybe(&format!("{LAST_STATE} = {{}}"), params.text("last_dag_run_state").map(str::to_owned));
    conditions.maybe("(v.structure->'asset_condition' IS NOT NULL) = {}", params.flag("has_asset_schedule")?);
    let asset = "EXISTS (SELECT FROM dag_asset a WHERE a.dag_id = d.dag_id AND a.role = 'schedule' AND (a.name ILIKE {} OR a.uri ILIKE {}))";
    if let Some(text) = params.text("asset_dependency") {
        let pattern = format!("%{}%", escape_like(text));
        conditions.add(asset, vec![Box::new(pattern.clone()), Box::new(pattern)]);
    }
    // There is one bundle, and it has no versions.
    conditions.maybe(&format!("{{}} = '{BUNDLE}'"), params.text("bundle_name").map(str::to_owned));
    conditions.maybe("{}::text IS NULL", params.text("bundle_version").map(str::to_owned));
    conditions.any(Column::text(TIMETABLE_TYPE), params.texts("timetable_type"));
    let mut run_conditions = Conditions::default();
    run_conditions.any(Column::text("r.state"), params.texts("dag_run_state"));
    params.range("dag_run_start_date", Column::time("r.start_date"), &mut run_conditions)?;
    params.range("dag_run_end_date", Column::time("r.end_date"), &mut run_conditions)?;
    // Filters by the latest run, as Airflow does.
    let latest =
        "SELECT FROM (SELECT * FROM dag_run WHERE dag_id = d.dag_id ORDER BY run_after DESC, queued_at DESC LIMIT 1) r
                  WHERE true";
    conditions.exists(latest, run_conditions);
    Ok(listing)
}

type Page = Written<DAGCollectionResponse<'static>>;
type DagBody = Written<DAGResponse<'static>>;

pub async fn list(State(state): Shared, params: QueryParams<DagsQuery>) -> Result<Page, ApiError> {
    let listing = dag_listing(&params)?;
    let client = state.database.get().await?;
    let page = dags::list(&*client, &state.structures, listing).await?;
    let dags = page.rows.iter().map(DAGResponse::new).collect();
    Ok(Written::new(DAGCollectionResponse::new(dags, page.total)))
}

pub async fn get(State(state): Shared, Segments(dag_id): Segments<String>) -> Result<DagBody, ApiError> {
    let client = state.database.get().await?;
    Ok(Written::new(DAGResponse::new(&dags::get(&*client, &dag_id).await?)))
}

pub async fn details(
    State(state): Shared,
    Segments(dag_id): Segments<String>,
) -> Result<Written<DAGDetailsResponse<'static>>, ApiError> {
    let client = state.database.get().await?;
    let dag = dags::get(&*client, &dag_id).await?;
    let expression = asset_expressions::resolve(&*client, dag.structure.asset_condition.as_ref()).await?;
    Ok(Written::new(DAGDetailsResponse::new(&dag, dags::active_runs(&*client, &dag_id).await?, expression)))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DAGPatchBody {
    is_paused: bool,
}

/// Accepts only `is_paused` in the mask.
fn check_mask(params: &Params) -> Result<(), ApiError> {
    let mask = params.texts("update_mask");
    if mask.is_empty() || mask == ["is_paused"] {
        return Ok(());
    }
    let detail = "Only `is_paused` field can be updated through the REST API";
    Err(ApiError::new(StatusCode::BAD_REQUEST, detail))
}

pub async fn patch(
    State(state): Shared,
    Segments(dag_id): Segments<String>,
    params: QueryParams<UpdateMaskQuery>,
    Body(DAGPatchBody { is_paused }): Body<DAGPatchBody>,
) -> Result<DagBody, ApiError> {
    check_mask(&params)?;
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    dags::set_paused(&transaction, &dag_id, is_paused).await.map_err(|error| not_found(error, &dag_id))?;
    let changed = dags::get(&transaction, &dag_id).await?;
    transaction.commit().await?;
    Ok(Written::new(DAGResponse::new(&changed)))
}

/// Parameters of a PATCH of several DAGs, which are always ordered by `dag_id`.
const PATCH_FIELDS: Fields = Fields { patterns: &[("dag_id", "d.dag_id")], ..NO_FIELDS };

pub struct PatchDagsQuery;

impl Query for PatchDagsQuery {
    const LIST: Option<&'static Fields> = Some(&PATCH_FIELDS);
    const OTHERS: &'static [Parameter] = &[
        UPDATE_MASK,
        Parameter::new("tags", Kind::Texts),
        Parameter::new("tags_match_mode", Kind::OneOf(&["any", "all"])),
        Parameter::new("owners", Kind::Texts),
        Parameter::new("exclude_stale", Kind::Flag).or("true"),
        Parameter::new("paused", Kind::Flag),
    ];
}

/// Pauses or unpauses all DAGs that match a pattern; without a pattern nothing changes.
pub async fn patch_several(
    State(state): Shared,
    params: QueryParams<PatchDagsQuery>,
    Body(DAGPatchBody { is_paused }): Body<DAGPatchBody>,
) -> Result<Page, ApiError> {
    check_mask(&params)?;
    // Airflow ignores these filters here, which would pause more DAGs than intended.
    params.refuse_params_of::<DagsQuery>()?;
    let mut listing = shared_listing(&params, &PATCH_FIELDS)?;
    if params.text("dag_id_pattern").or(params.text("dag_id_prefix_pattern")).is_none() {
        listing.conditions.add("FALSE", Vec::new());
    }
    let (limit, offset) = (listing.limit.take(), std::mem::take(&mut listing.offset));
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    let mut page = dags::list(&transaction, &state.structures, listing).await?;
    for dag in &mut page.rows {
        dags::set_paused(&transaction, &dag.dag_id, is_paused).await?;
        dag.is_paused = is_paused;
    }
    transaction.commit().await?;
    let number = |count: i64| usize::try_from(count).unwrap_or(usize::MAX);
    let shown_dags = page.rows.iter().skip(number(offset)).take(limit.map_or(usize::MAX, number));
    Ok(Written::new(DAGCollectionResponse::new(shown_dags.map(DAGResponse::new).collect(), page.total)))
}

/// 404 of routes that change a DAG; Airflow words it differently for routes that read it.
fn not_found(error: StoreError, dag_id: &str) -> ApiError {
    match error {
        StoreError::NotFound { .. } => {
            ApiError::new(StatusCode::NOT_FOUND, format!("Dag with id: {dag_id} was not found"))
        }
        other => other.into(),
    }
}

pub async fn delete(State(state): Shared, Segments(dag_id): Segments<String>) -> Result<NoContent, ApiError> {
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    dags::delete(&transaction, &dag_id).await.map_err(|error| not_found(error, &dag_id))?;
    transaction.commit().await?;
    // If its file still defines the DAG, the file is parsed again.
    state.dag_deleted.notify_one();
    Ok(NoContent)
}

/// 404 of the routes about favorites.
fn favorite_not_found(error: StoreError, dag_id: &str) -> ApiError {
    match error {
        StoreError::NotFound { .. } => {
            ApiError::new(StatusCode::NOT_FOUND, format!("Dag with id '{dag_id}' not found"))
        }
        other => other.into(),
    }
}

pub async fn favorite(State(state): Shared, Segments(dag_id): Segments<String>) -> Result<NoContent, ApiError> {
    let client = state.database.get().await?;
    dags::set_favorite(&*client, &dag_id, true).await.map_err(|error| favorite_not_found(error, &dag_id))?;
    Ok(NoContent)
}

pub async fn unfavorite(State(state): Shared, Segments(dag_id): Segments<String>) -> Result<NoContent, ApiError> {
    let client = state.database.get().await?;
    if !dags::get(&*client, &dag_id).await.map_err(|error| favorite_not_found(error, &dag_id))?.is_favorite {
        return Err(ApiError::new(StatusCode::CONFLICT, "Dag is not marked as favorite"));
    }
    dags::set_favorite(&*client, &dag_id, false).await?;
    Ok(NoContent)
}
