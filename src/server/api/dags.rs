//! `/api/v2/dags`, `importErrors` and `dagSources`, with Airflow's names and shapes.

use super::dag_views::{DagView, dag, dag_details};
use super::views::{self, BUNDLE};
use crate::engine::store::StoreError;
use crate::engine::store::dags;
use crate::engine::store::listing::{Column, Conditions, Listing};
use crate::server::api_error::ApiError;
use crate::server::body::body_as;
use crate::server::listing::{Fields, NOTHING, literal, page};
use crate::server::request::{Params, Segments};
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

type Shared = State<Arc<AppState>>;
type Body = Result<Json<Value>, JsonRejection>;

const LAST_STATE: &str = "(SELECT r.state FROM dag_run r WHERE r.dag_id = d.dag_id
    ORDER BY r.run_after DESC, r.queued_at DESC LIMIT 1)";
const LAST_START: &str = "(SELECT r.start_date FROM dag_run r WHERE r.dag_id = d.dag_id
    ORDER BY r.run_after DESC, r.queued_at DESC LIMIT 1)";
const DISPLAY_NAME: &str = "coalesce(v.structure->>'dag_display_name', d.dag_id)";
/// The classes of Airflow's that make the timetables.
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
    patterns: &[("dag_id", "d.dag_id"), ("dag_display_name", DISPLAY_NAME)],
    ..NOTHING
};

/// What a list of DAGs is asked for, in a query that reads it or changes it.
pub fn wanted(params: &Params) -> Result<Listing, ApiError> {
    let mut listing = params.listing(&FIELDS)?;
    let conditions = &mut listing.conditions;
    if params.flag("exclude_stale")?.unwrap_or(true) {
        conditions.add("d.is_active", Vec::new());
    }
    conditions.maybe("d.is_paused = {}", params.flag("paused")?);
    conditions.maybe("d.is_favorite = {}", params.flag("is_favorite")?);
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
        let owners: Vec<String> = owners.iter().map(|owner| format!("%{}%", literal(owner))).collect();
        let any = "EXISTS (SELECT FROM jsonb_array_elements_text(v.structure->'owners') AS o (name) WHERE o.name ILIKE ANY ({}))";
        conditions.with(any, owners);
    }
    let errors = "EXISTS (SELECT FROM import_error e WHERE e.filename = d.fileloc) = {}";
    conditions.maybe(errors, params.flag("has_import_errors")?);
    conditions.maybe(&format!("{LAST_STATE} = {{}}"), params.text("last_dag_run_state").map(str::to_owned));
    conditions.maybe("(v.structure->'asset_condition' IS NOT NULL) = {}", params.flag("has_asset_schedule")?);
    let asset = "EXISTS (SELECT FROM dag_asset a WHERE a.dag_id = d.dag_id AND a.role = 'schedule' AND (a.name ILIKE {} OR a.uri ILIKE {}))";
    if let Some(text) = params.text("asset_dependency") {
        let pattern = format!("%{}%", literal(text));
        conditions.add(asset, vec![Box::new(pattern.clone()), Box::new(pattern)]);
    }
    // There is one bundle, and it has no versions.
    conditions.maybe(&format!("{{}} = '{BUNDLE}'"), params.text("bundle_name").map(str::to_owned));
    conditions.maybe("{}::text IS NULL", params.text("bundle_version").map(str::to_owned));
    conditions.any(Column::text(TIMETABLE_TYPE), params.texts("timetable_type"));
    let mut of_runs = Conditions::default();
    of_runs.any(Column::text("r.state"), params.texts("dag_run_state"));
    params.range("dag_run_start_date", Column::time("r.start_date"), &mut of_runs)?;
    params.range("dag_run_end_date", Column::time("r.end_date"), &mut of_runs)?;
    // Of its latest run, as on Airflow.
    let latest =
        "SELECT FROM (SELECT * FROM dag_run WHERE dag_id = d.dag_id ORDER BY run_after DESC, queued_at DESC LIMIT 1) r
                  WHERE true";
    conditions.some(latest, of_runs);
    Ok(listing)
}

#[derive(Serialize)]
struct Page<'a> {
    dags: Vec<DagView<'a>>,
    total_entries: i64,
}

pub async fn list(State(state): Shared, params: Params) -> Result<Response, ApiError> {
    let listing = wanted(&params)?;
    let client = state.database.get().await?;
    let found = dags::list(&*client, &state.structures, listing).await?;
    let dags = found.rows.iter().map(DagView::of).collect();
    Ok(Json(Page { dags, total_entries: found.total }).into_response())
}

pub async fn get(State(state): Shared, Segments(dag_id): Segments<String>) -> Result<Json<Value>, ApiError> {
    let client = state.database.get().await?;
    Ok(Json(dag(&dags::get(&*client, &dag_id).await?)))
}

pub async fn details(State(state): Shared, Segments(dag_id): Segments<String>) -> Result<Json<Value>, ApiError> {
    let client = state.database.get().await?;
    let found = dags::get(&*client, &dag_id).await?;
    Ok(Json(dag_details(&found, dags::active_runs(&*client, &dag_id).await?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pausing {
    is_paused: bool,
}

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
    params: Params,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    check_mask(&params)?;
    let Pausing { is_paused } = body_as(body)?;
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    dags::set_paused(&transaction, &dag_id, is_paused).await.map_err(|error| missing(error, &dag_id))?;
    let changed = dags::get(&transaction, &dag_id).await?;
    transaction.commit().await?;
    Ok(Json(dag(&changed)))
}

/// Pauses or unpauses all that a pattern finds; without one nothing is changed.
pub async fn patch_several(State(state): Shared, params: Params, body: Body) -> Result<Json<Value>, ApiError> {
    check_mask(&params)?;
    let Pausing { is_paused } = body_as(body)?;
    let mut listing = wanted(&params)?;
    if params.text("dag_id_pattern").or(params.text("dag_id_prefix_pattern")).is_none() {
        listing.conditions.add("FALSE", Vec::new());
    }
    let (limit, offset) = (listing.limit.take(), std::mem::take(&mut listing.offset));
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    let mut found = dags::list(&transaction, &state.structures, listing).await?;
    for dag in &mut found.rows {
        dags::set_paused(&transaction, &dag.dag_id, is_paused).await?;
        dag.is_paused = is_paused;
    }
    transaction.commit().await?;
    let number = |count: i64| usize::try_from(count).unwrap_or(usize::MAX);
    let shown = found.rows.iter().skip(number(offset)).take(limit.map_or(usize::MAX, number));
    Ok(Json(page("dags", shown.map(dag).collect(), found.total)))
}

/// Parses the file with that token again, as it is.
pub async fn parse_again(State(state): Shared, Segments(token): Segments<String>) -> Result<StatusCode, ApiError> {
    let found = dags::list(&*state.database.get().await?, &state.structures, Listing::default()).await?;
    let dag = found.rows.into_iter().find(|dag| views::file_token(&dag.fileloc) == token);
    let dag = dag.ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "The DAG file with this token was not found"))?;
    state.asked_files.ask(dag.fileloc.into());
    Ok(StatusCode::CREATED)
}

/// Routes that change a DAG say this where those that read say something else.
fn missing(error: StoreError, dag_id: &str) -> ApiError {
    match error {
        StoreError::NotFound { .. } => {
            ApiError::new(StatusCode::NOT_FOUND, format!("Dag with id: {dag_id} was not found"))
        }
        other => other.into(),
    }
}

pub async fn delete(State(state): Shared, Segments(dag_id): Segments<String>) -> Result<StatusCode, ApiError> {
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    dags::delete(&transaction, &dag_id).await.map_err(|error| missing(error, &dag_id))?;
    transaction.commit().await?;
    // A file that still makes it is parsed again.
    state.dag_deleted.notify_one();
    Ok(StatusCode::NO_CONTENT)
}

pub async fn source(
    State(state): Shared,
    Segments(dag_id): Segments<String>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let number = params.whole("version_number")?.filter(|number| *number > 0);
    let wanted = number.map(|number| i32::try_from(number).unwrap_or(i32::MAX));
    let client = state.database.get().await?;
    let (version_number, content) = dags::source(&*client, &dag_id, wanted).await?.ok_or_else(|| {
        let number = number.map_or_else(|| "None".to_owned(), |number| number.to_string());
        let detail = format!("The source code of the Dag {dag_id}, version_number {number} was not found");
        ApiError::new(StatusCode::NOT_FOUND, detail)
    })?;
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("*/*");
    if accept.starts_with("text/plain") {
        return Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], content).into_response());
    }
    let whole = json!({
        "content": content, "dag_id": dag_id, "version_number": version_number, "dag_display_name": dag_id,
    });
    Ok(Json(whole).into_response())
}

const ERROR_FIELDS: Fields = Fields {
    order: &[
        ("id", Column::whole("id")),
        ("import_error_id", Column::whole("id")),
        ("timestamp", Column::time("created_at")),
        ("filename", Column::text("filename")),
        // There is one.
        ("bundle_name", Column::whole("id")),
        ("stacktrace", Column::text("stack_trace")),
    ],
    patterns: &[("filename", "filename")],
    exact: &[("filename", Column::text("filename"))],
    ..NOTHING
};

pub async fn import_errors(State(state): Shared, params: Params) -> Result<Json<Value>, ApiError> {
    let mut listing = params.listing(&ERROR_FIELDS)?;
    listing.conditions.maybe(&format!("{{}} = '{BUNDLE}'"), params.text("bundle_name").map(str::to_owned));
    let client = state.database.get().await?;
    let found = dags::import_errors(&*client, listing).await?;
    Ok(Json(page("import_errors", found.rows.iter().map(views::import_error).collect(), found.total)))
}

pub async fn import_error(State(state): Shared, Segments(id): Segments<i64>) -> Result<Json<Value>, ApiError> {
    let client = state.database.get().await?;
    Ok(Json(views::import_error(&dags::import_error(&*client, id).await?)))
}

fn no_dag(error: StoreError, dag_id: &str) -> ApiError {
    match error {
        StoreError::NotFound { .. } => {
            ApiError::new(StatusCode::NOT_FOUND, format!("Dag with id '{dag_id}' not found"))
        }
        other => other.into(),
    }
}

pub async fn favorite(State(state): Shared, Segments(dag_id): Segments<String>) -> Result<StatusCode, ApiError> {
    let client = state.database.get().await?;
    dags::set_favorite(&*client, &dag_id, true).await.map_err(|error| no_dag(error, &dag_id))?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn unfavorite(State(state): Shared, Segments(dag_id): Segments<String>) -> Result<StatusCode, ApiError> {
    let client = state.database.get().await?;
    if !dags::get(&*client, &dag_id).await.map_err(|error| no_dag(error, &dag_id))?.is_favorite {
        return Err(ApiError::new(StatusCode::CONFLICT, "Dag is not marked as favorite"));
    }
    dags::set_favorite(&*client, &dag_id, false).await?;
    Ok(StatusCode::NO_CONTENT)
}
