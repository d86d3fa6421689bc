//! `/api/v2/backfills`, with Airflow's names and shapes.

use super::views::Stamp;
use crate::engine::schedule::timetable::{Info, Restriction};
use crate::engine::schedule::upcoming::{self, RangeProblem};
use crate::engine::store::StoreError;
use crate::engine::store::backfills::{self, Backfill, Change, Reprocess, Wanted};
use crate::engine::store::dags::{self, Dag};
use crate::engine::store::listing::Column;
use crate::server::api_error::ApiError;
use crate::server::body::Body;
use crate::server::dag_code::DagCode;
use crate::server::listing::{Fields, NOTHING, collection};
use crate::server::query::{Asked, Kind, Parameter, Query};
use crate::server::request::Segments;
use crate::server::state::AppState;
use crate::sys::blocking;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

type Shared = State<Arc<AppState>>;

/// Runs of one backfill: more are refused with their number, so that they can be made in parts.
const MOST_RUNS: usize = 100_000;
/// Task instances of one backfill: they are made within the time of one request.
const MOST_INSTANCES: usize = 300_000;
/// Of a timetable of the user's own, which is asked for each.
const MOST_ASKED: usize = 1_000;
/// How long a schedule is followed to tell how many there would be, well within the time of a request.
const COUNTING: Duration = Duration::from_secs(4);
pub const FIELDS: Fields =
    Fields { order: &[("id", Column::whole("id")), ("created_at", Column::time("created_at"))], ..NOTHING };

#[derive(Serialize, JsonSchema)]
pub struct BackfillResponse {
    #[schemars(range(min = 0))]
    id: i64,
    dag_id: String,
    from_date: Stamp,
    to_date: Stamp,
    dag_run_conf: Option<Map<String, Value>>,
    is_paused: bool,
    #[schemars(with = "Reprocess")]
    reprocess_behavior: String,
    max_active_runs: i32,
    created_at: Stamp,
    completed_at: Option<Stamp>,
    updated_at: Stamp,
    dag_display_name: String,
}

collection! { BackfillCollectionResponse { backfills: BackfillResponse } }

pub fn view(backfill: Backfill) -> BackfillResponse {
    BackfillResponse {
        id: backfill.id,
        dag_display_name: backfill.dag_id.clone(),
        dag_id: backfill.dag_id,
        from_date: Stamp(backfill.from_date),
        to_date: Stamp(backfill.to_date),
        dag_run_conf: Some(backfill.conf),
        is_paused: backfill.is_paused,
        reprocess_behavior: backfill.reprocess_behavior,
        max_active_runs: backfill.max_active_runs,
        created_at: Stamp(backfill.created_at),
        completed_at: backfill.completed_at.map(Stamp),
        updated_at: Stamp(backfill.updated_at),
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackfillPostBody {
    dag_id: String,
    from_date: Timestamp,
    to_date: Timestamp,
    #[serde(default)]
    run_backwards: bool,
    #[serde(default)]
    dag_run_conf: Option<Map<String, Value>>,
    #[serde(default)]
    reprocess_behavior: Reprocess,
    #[serde(default = "ten")]
    max_active_runs: i32,
    /// A run that runs again always takes the newest version here.
    #[serde(default, rename = "run_on_latest_version")]
    _run_on_latest_version: Option<bool>,
}

fn ten() -> i32 {
    10
}

impl From<BackfillPostBody> for Wanted {
    fn from(body: BackfillPostBody) -> Self {
        Self {
            dag_id: body.dag_id,
            from_date: body.from_date,
            to_date: body.to_date,
            run_backwards: body.run_backwards,
            conf: body.dag_run_conf.unwrap_or_default(),
            reprocess: body.reprocess_behavior,
            max_active_runs: body.max_active_runs,
        }
    }
}

fn refusal(error: StoreError) -> ApiError {
    match error {
        StoreError::NotFound { what: "dag", id } => {
            ApiError::new(StatusCode::NOT_FOUND, format!("Could not find dag {id}"))
        }
        StoreError::NotFound { .. } => ApiError::new(StatusCode::NOT_FOUND, "Backfill not found"),
        StoreError::Invalid(text) => ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, text),
        other => other.into(),
    }
}

/// The runs that there are to be, in their order.
async fn infos(code: Option<DagCode>, dag: &Dag, wanted: &Wanted) -> Result<Vec<Info>, ApiError> {
    let Some(timetable) = &dag.structure.timetable else { return Ok(Vec::new()) };
    let now = Timestamp::now();
    let restriction = Restriction { earliest: Some(wanted.from_date), latest: Some(wanted.to_date), catchup: true };
    let mut found = Vec::new();
    let problem = |text: String| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, text);
    if timetable.is_custom() {
        let code = code.ok_or_else(|| problem("there is no workspace".to_owned()))?;
        let told = code.next_runs(dag.version_id, &dag.dag_id, None, restriction, MOST_ASKED + 1).await;
        found.extend(told.map_err(problem)?.into_iter().take_while(|info| info.run_after < now));
        if found.len() > MOST_ASKED {
            return Err(problem(too_many(&format!("more than {MOST_ASKED}"), MOST_ASKED)));
        }
    } else {
        let (timetable, range) = (timetable.clone(), (wanted.from_date, wanted.to_date));
        // Some thousands of dates take their time.
        let followed = blocking::run(move || upcoming::in_range(&timetable, range, now, MOST_RUNS, COUNTING)).await;
        found = followed.map_err(|error| ApiError::internal(&error))?.map_err(|why| problem(why_not(&why)))?;
    }
    if wanted.run_backwards {
        found.reverse();
    }
    Ok(found)
}

fn why_not(problem: &RangeProblem) -> String {
    match problem {
        RangeProblem::TooMany { count, is_exact: true } => too_many(&count.to_string(), MOST_RUNS),
        RangeProblem::TooMany { count, is_exact: false } => too_many(&format!("more than {count}"), MOST_RUNS),
        RangeProblem::Timetable(error) => error.to_string(),
    }
}

fn too_many(count: &str, most: usize) -> String {
    format!(
        "There are {count} runs in this range, and one backfill makes at most {most}: make it in parts, one after another."
    )
}

/// `GET /api/lite/backfills/{id}/outcome`: what became of each of its dates when it was made, in numbers and in words.
pub async fn outcome(State(state): Shared, Segments(id): Segments<i64>) -> Result<Json<Value>, ApiError> {
    let client = state.database.get().await?;
    let (made, left) = backfills::outcome(&*client, id).await.map_err(refusal)?;
    let runs = |count: i64| if count == 1 { "1 run".to_owned() } else { format!("{count} runs") };
    let mut summary = if made == 0 { "no run was made".to_owned() } else { format!("{} to come", runs(made)) };
    for (reason, count) in &left {
        let why = match reason.as_str() {
            "already exists" => "have a run already (choose to run those again to have them made)",
            "in flight" => "have a run that has not ended",
            other => other,
        };
        summary.push_str(&format!("; {count} of the dates {why}"));
    }
    let left: Map<String, Value> = left.into_iter().map(|(reason, count)| (reason, count.into())).collect();
    Ok(Json(json!({"made": made, "left": left, "summary": summary})))
}

pub async fn create(
    State(state): Shared,
    Body(body): Body<BackfillPostBody>,
) -> Result<Json<BackfillResponse>, ApiError> {
    let wanted: Wanted = body.into();
    let client = state.database.get().await?;
    let dag = dags::get(&*client, &wanted.dag_id).await.map_err(refusal)?;
    backfills::check(&*client, &dag, &wanted).await.map_err(refusal)?;
    // Its code may take its time; no connection waits for that.
    drop(client);
    let infos = infos(DagCode::of(&state), &dag, &wanted).await?;
    let most = MOST_INSTANCES / dag.structure.tasks.len().max(1);
    if infos.len() > most {
        return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, too_many(&infos.len().to_string(), most)));
    }
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    let user = state.secrets().admin_email.clone();
    let made = backfills::create(&transaction, &dag, &wanted, &infos, &user).await.map_err(refusal)?;
    transaction.commit().await?;
    Ok(Json(view(made)))
}

/// A run that there would be.
#[derive(Serialize, JsonSchema)]
pub struct DryRunBackfillResponse {
    logical_date: Option<Stamp>,
    partition_key: Option<String>,
    partition_date: Option<Stamp>,
}

collection! { DryRunBackfillCollectionResponse { backfills: DryRunBackfillResponse } }

pub async fn dry_run(
    State(state): Shared,
    Body(body): Body<BackfillPostBody>,
) -> Result<Json<DryRunBackfillCollectionResponse>, ApiError> {
    let wanted: Wanted = body.into();
    let client = state.database.get().await?;
    let dag = dags::get(&*client, &wanted.dag_id).await.map_err(refusal)?;
    match backfills::check(&*client, &dag, &wanted).await {
        // Another one that is under way keeps nobody from looking.
        Ok(()) | Err(StoreError::Busy(_)) => {}
        Err(error) => return Err(refusal(error)),
    }
    drop(client);
    let infos = infos(DagCode::of(&state), &dag, &wanted).await?;
    let date = |info: &Info| DryRunBackfillResponse {
        logical_date: info.logical_date().map(Stamp),
        partition_key: None,
        partition_date: None,
    };
    Ok(Json(infos.iter().map(date).collect()))
}

pub struct OfBackfills;

impl Query for OfBackfills {
    const LIST: Option<&'static Fields> = Some(&FIELDS);
    const OTHERS: &'static [Parameter] = &[Parameter::new("dag_id", Kind::Text)];
}

pub async fn list(
    State(state): Shared,
    asked: Asked<OfBackfills>,
) -> Result<Json<BackfillCollectionResponse>, ApiError> {
    let mut listing = asked.listing(&FIELDS)?;
    listing.conditions.maybe("dag_id = {}", asked.text("dag_id").map(str::to_owned));
    let client = state.database.get().await?;
    let found = backfills::list(&*client, listing).await?;
    Ok(Json(found.map(view).into()))
}

pub async fn get(State(state): Shared, Segments(id): Segments<u32>) -> Result<Json<BackfillResponse>, ApiError> {
    let client = state.database.get().await?;
    Ok(Json(view(backfills::get(&*client, id.into()).await.map_err(refusal)?)))
}

async fn change(state: &AppState, id: i64, how: Change) -> Result<Json<BackfillResponse>, ApiError> {
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    let changed = backfills::change(&transaction, id, how).await.map_err(refusal)?;
    transaction.commit().await?;
    Ok(Json(view(changed)))
}

pub async fn pause(State(state): Shared, Segments(id): Segments<u32>) -> Result<Json<BackfillResponse>, ApiError> {
    change(&state, id.into(), Change::Pause).await
}

pub async fn unpause(State(state): Shared, Segments(id): Segments<u32>) -> Result<Json<BackfillResponse>, ApiError> {
    change(&state, id.into(), Change::Unpause).await
}

pub async fn cancel(State(state): Shared, Segments(id): Segments<u32>) -> Result<Json<BackfillResponse>, ApiError> {
    change(&state, id.into(), Change::Cancel).await
}
