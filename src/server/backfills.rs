//! `/api/v2/backfills`, with Airflow's names and shapes.

use super::api_error::ApiError;
use super::dag_code::DagCode;
use super::request::{Params, Segments, body_as};
use super::state::AppState;
use super::views::stamp;
use crate::engine::backfills::{self, Backfill, Change, Reprocess, Wanted};
use crate::engine::dags::{self, Dag};
use crate::engine::store::StoreError;
use crate::engine::timetable::{Info, Restriction, TimetableProblem};
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

type Shared = State<Arc<AppState>>;
type Body = Result<Json<Value>, JsonRejection>;

/// Runs of one backfill: what is more was surely not meant.
const MOST_RUNS: usize = 100_000;
const COLUMNS: &[(&str, &str)] = &[("id", "id"), ("created_at", "created_at")];

pub fn view(backfill: &Backfill) -> Value {
    json!({
        "id": backfill.id,
        "dag_id": backfill.dag_id,
        "from_date": stamp(backfill.from_date),
        "to_date": stamp(backfill.to_date),
        "dag_run_conf": backfill.conf,
        "is_paused": backfill.is_paused,
        "reprocess_behavior": backfill.reprocess_behavior,
        "max_active_runs": backfill.max_active_runs,
        "created_at": stamp(backfill.created_at),
        "completed_at": backfill.completed_at.map(stamp),
        "updated_at": stamp(backfill.updated_at),
        "dag_display_name": backfill.dag_id,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
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

impl From<Create> for Wanted {
    fn from(body: Create) -> Self {
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
async fn infos(code: Option<&DagCode>, dag: &Dag, wanted: &Wanted) -> Result<Vec<Info>, ApiError> {
    let Some(timetable) = &dag.structure.timetable else { return Ok(Vec::new()) };
    let now = Timestamp::now();
    let restriction = Restriction { earliest: Some(wanted.from_date), latest: Some(wanted.to_date), catchup: true };
    let mut found = Vec::new();
    let problem = |text: String| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, text);
    if timetable.is_custom() {
        let code = code.ok_or_else(|| problem("there is no workspace".to_owned()))?;
        let told = code.next_runs(dag.version_id, &dag.dag_id, None, restriction, 1000).await.map_err(problem)?;
        found.extend(told.into_iter().take_while(|info| info.run_after < now));
    } else {
        let mut last = None;
        while found.len() < MOST_RUNS {
            match timetable.next(last, restriction, now) {
                Ok(Some(info)) if info.interval.is_some_and(|interval| interval.end < now) => {
                    last = info.interval;
                    found.push(info);
                }
                Ok(_) | Err(TimetableProblem::Cron(_)) => break,
                Err(error) => return Err(problem(error.to_string())),
            }
        }
    }
    if wanted.run_backwards {
        found.reverse();
    }
    Ok(found)
}

pub async fn create(State(state): Shared, body: Body) -> Result<Json<Value>, ApiError> {
    let wanted: Wanted = body_as::<Create>(body)?.into();
    let client = state.database.get().await?;
    let dag = dags::get(&**client, &wanted.dag_id).await.map_err(refusal)?;
    backfills::check(&**client, &dag, &wanted).await.map_err(refusal)?;
    // Its code may take its time; no connection waits for that.
    drop(client);
    let infos = infos(state.dag_code(), &dag, &wanted).await?;
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    let user = state.secrets().admin_email.clone();
    let made = backfills::create(&transaction, &dag, &wanted, &infos, &user).await.map_err(refusal)?;
    transaction.commit().await?;
    Ok(Json(view(&made)))
}

pub async fn dry_run(State(state): Shared, body: Body) -> Result<Json<Value>, ApiError> {
    let wanted: Wanted = body_as::<Create>(body)?.into();
    let client = state.database.get().await?;
    let dag = dags::get(&**client, &wanted.dag_id).await.map_err(refusal)?;
    match backfills::check(&**client, &dag, &wanted).await {
        // Another one that is under way keeps nobody from looking.
        Ok(()) | Err(StoreError::Busy(_)) => {}
        Err(error) => return Err(refusal(error)),
    }
    drop(client);
    let dates: Vec<Value> = infos(state.dag_code(), &dag, &wanted)
        .await?
        .iter()
        .map(|info| json!({"logical_date": info.logical_date().map(stamp), "partition_key": null, "partition_date": null}))
        .collect();
    Ok(Json(json!({"backfills": dates, "total_entries": dates.len()})))
}

pub async fn list(State(state): Shared, params: Params) -> Result<Json<Value>, ApiError> {
    let page = params.page("dag_id_pattern", COLUMNS)?;
    let client = state.database.get().await?;
    let (found, total) = backfills::list(&**client, params.text("dag_id"), &page).await?;
    Ok(Json(json!({"backfills": found.iter().map(view).collect::<Vec<_>>(), "total_entries": total})))
}

pub async fn get(State(state): Shared, Segments(id): Segments<i64>) -> Result<Json<Value>, ApiError> {
    let client = state.database.get().await?;
    Ok(Json(view(&backfills::get(&**client, id).await.map_err(refusal)?)))
}

async fn change(state: &AppState, id: i64, how: Change) -> Result<Json<Value>, ApiError> {
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    let changed = backfills::change(&transaction, id, how).await.map_err(refusal)?;
    transaction.commit().await?;
    Ok(Json(view(&changed)))
}

pub async fn pause(State(state): Shared, Segments(id): Segments<i64>) -> Result<Json<Value>, ApiError> {
    change(&state, id, Change::Pause).await
}

pub async fn unpause(State(state): Shared, Segments(id): Segments<i64>) -> Result<Json<Value>, ApiError> {
    change(&state, id, Change::Unpause).await
}

pub async fn cancel(State(state): Shared, Segments(id): Segments<i64>) -> Result<Json<Value>, ApiError> {
    change(&state, id, Change::Cancel).await
}
