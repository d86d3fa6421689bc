//! `/api/v2/dags/{dag_id}/dagRuns`, with Airflow's names and shapes.

use super::clear::check_note;
use super::views;
use crate::engine::keys::RunKey;
use crate::engine::state::RunState;
use crate::engine::store::dags::{self, Dag};
use crate::engine::store::listing::{Column, Listing};
use crate::engine::store::mark;
use crate::engine::store::runs::{self, Trigger};
use crate::engine::store::{ReadFor, StoreError};
use crate::server::api_error::ApiError;
use crate::server::body::{body_as, given};
use crate::server::caller::Caller;
use crate::server::dag_code::DagCode;
use crate::server::listing::{Fields, InBody, literal, page_with_cursor};
use crate::server::request::{Params, Segments};
use crate::server::state::AppState;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::{Extension, Json};
use deadpool_postgres::Transaction;
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use std::sync::Arc;

type Shared = State<Arc<AppState>>;
type Body = Result<Json<Value>, JsonRejection>;

const QUEUED_AT: Column = Column::time("r.queued_at");
const UPDATED_AT: Column = Column::time("greatest(r.queued_at, r.start_date, r.end_date)");
const DURATION: Column = Column::number("extract(epoch FROM r.end_date - r.start_date)::float8");
const FIELDS: Fields = Fields {
    order: &[
        ("id", QUEUED_AT),
        ("state", Column::text("r.state")),
        ("dag_id", Column::text("r.dag_id")),
        ("run_id", Column::text("r.run_id")),
        ("dag_run_id", Column::text("r.run_id")),
        ("logical_date", Column::time("r.logical_date")),
        ("partition_date", Column::time("r.partition_date")),
        ("run_after", Column::time("r.run_after")),
        ("start_date", Column::time("r.start_date")),
        ("end_date", Column::time("r.end_date")),
        ("updated_at", UPDATED_AT),
        ("conf", Column::text("r.conf::text")),
        ("duration", DURATION),
    ],
    patterns: &[
        ("run_id", "r.run_id"),
        ("dag_id", "r.dag_id"),
        ("triggering_user_name", "r.triggering_user_name"),
        ("partition_key", "r.partition_key"),
    ],
    ranges: &[
        ("run_after", Column::time("r.run_after")),
        ("logical_date", Column::time("r.logical_date")),
        ("start_date", Column::time("r.start_date")),
        ("end_date", Column::time("r.end_date")),
        ("updated_at", UPDATED_AT),
        ("duration", DURATION),
    ],
    exact: &[
        ("state", Column::text("r.state")),
        ("run_type", Column::text("r.run_type")),
        ("dag_version", Column::whole("v.version_number")),
        ("dag_ids", Column::text("r.dag_id")),
    ],
};

/// What a list of runs is asked for, in a query or in a body.
fn wanted(params: &Params) -> Result<Listing, ApiError> {
    check_states(&params.texts("state"), &RunState::ALL.iter().map(|state| state.as_str()).collect::<Vec<_>>())?;
    let mut listing = params.listing_with_cursor(&FIELDS, QUEUED_AT, runs::KEY)?;
    let conditions = &mut listing.conditions;
    conditions.maybe("r.conf::text LIKE {}", params.text("conf_contains").map(|text| format!("%{text}%")));
    // There is one bundle, and it has no versions.
    conditions.maybe("{}::text IS NULL", params.text("bundle_version").map(str::to_owned));
    let asset = "EXISTS (SELECT FROM dag_run_asset_event c JOIN asset_event e ON e.id = c.event_id
                             JOIN asset a ON a.id = e.asset_id
                             WHERE c.dag_id = r.dag_id AND c.run_id = r.run_id AND (a.name ILIKE {} OR a.uri ILIKE {}))";
    if let Some(text) = params.text("consuming_asset_pattern") {
        let pattern = format!("%{}%", literal(text));
        conditions.add(asset, vec![Box::new(pattern.clone()), Box::new(pattern)]);
    }
    Ok(listing)
}

/// Airflow's word for all of them.
pub fn unless_all(id: &str) -> Option<&str> {
    (id != "~").then_some(id)
}

pub fn check_states(states: &[String], known: &[&str]) -> Result<(), ApiError> {
    if states.iter().all(|state| known.contains(&state.as_str()) || ["none", "no_status"].contains(&state.as_str())) {
        return Ok(());
    }
    let detail = format!("Invalid value for state. Valid values are {}", known.join(", "));
    Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, detail))
}

pub async fn list(
    State(state): Shared,
    Segments(dag_id): Segments<String>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let mut listing = wanted(&params)?;
    let client = state.database.get().await?;
    let (from, to) = (params.date("partition_date_gte")?, params.date("partition_date_lte")?);
    if let Some(dag_id) = unless_all(&dag_id) {
        let dag = dags::get(&*client, dag_id).await?;
        listing.conditions.with("r.dag_id = {}", dag_id.to_owned());
        of_partition_dates(&dag, from, to, &mut listing)?;
    } else if from.or(to).is_some() {
        let detail = "partition_date_gte and partition_date_lte require a specific dag_id.";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, detail));
    }
    let found = runs::list(&*client, listing).await?;
    Ok(Json(page_with_cursor("dag_runs", &found, views::run)))
}

/// Whole days, in the time zone of the DAG's timetable.
fn of_partition_dates(dag: &Dag, from: Option<Date>, to: Option<Date>, listing: &mut Listing) -> Result<(), ApiError> {
    if from.or(to).is_none() {
        return Ok(());
    }
    let timetable = dag.structure.timetable.as_ref().filter(|timetable| timetable.is_partitioned());
    let Some(timetable) = timetable else {
        let detail = format!(
            "Dag with dag_id: '{}' is not partitioned; partition_date_gte and partition_date_lte are not supported.",
            dag.dag_id
        );
        return Err(ApiError::new(StatusCode::BAD_REQUEST, detail));
    };
    let zone = timetable.zone_of_partitions();
    let start = |date: Date| date.to_zoned(zone.clone()).map(|at| at.timestamp()).ok();
    listing.conditions.maybe("r.partition_date >= {}", from.and_then(start));
    listing.conditions.maybe("r.partition_date < {}", to.and_then(|date| date.tomorrow().ok()).and_then(start));
    Ok(())
}

/// Fields of a body, and what a query calls them.
const IN_BODY: InBody<'static> = InBody {
    fields: &[("dag_ids", "dag_ids"), ("states", "state"), ("conf_contains", "conf_contains")],
    ranges: &["run_after", "logical_date", "start_date", "end_date", "duration"],
};

/// What is posted to one run, or to one task instance, is nothing; only the word of lists is.
pub fn only_list(word: &str) -> Result<(), ApiError> {
    if word == "list" {
        return Ok(());
    }
    Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"))
}

/// What a body asks for that may name several DAGs.
pub async fn list_of_body(
    State(state): Shared,
    Segments((dag_id, word)): Segments<(String, String)>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    only_list(&word)?;
    only_all(&dag_id, "dag_id")?;
    let params = Params::of_body(&body_as(body)?, IN_BODY)?;
    let found = runs::list(&*state.database.get().await?, wanted(&params)?).await?;
    Ok(Json(page_with_cursor("dag_runs", &found, views::run)))
}

/// Where a body says which, the path says all.
pub fn only_all(id: &str, name: &str) -> Result<(), ApiError> {
    if unless_all(id).is_none() {
        return Ok(());
    }
    Err(ApiError::unprocessable(&["path", name], "literal_error", "Input should be '~'"))
}

pub fn missing(error: StoreError, key: &RunKey) -> ApiError {
    match error {
        StoreError::NotFound { what: "run", .. } => {
            let RunKey { dag_id, run_id } = key;
            let detail = format!("The DagRun with dag_id: `{dag_id}` and run_id: `{run_id}` was not found");
            ApiError::new(StatusCode::NOT_FOUND, detail)
        }
        other => other.into(),
    }
}

pub async fn get(
    State(state): Shared,
    Segments((dag_id, run_id)): Segments<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let key = RunKey { dag_id, run_id };
    let client = state.database.get().await?;
    let run = runs::get(&*client, &key, ReadFor::Reading).await.map_err(|error| missing(error, &key))?;
    Ok(Json(views::run(&run)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TriggerBody {
    #[serde(default)]
    dag_run_id: Option<String>,
    #[serde(default)]
    data_interval_start: Option<Timestamp>,
    #[serde(default)]
    data_interval_end: Option<Timestamp>,
    /// Required, and may be null: Airflow wants it said.
    #[serde(deserialize_with = "said")]
    logical_date: Option<Timestamp>,
    #[serde(default)]
    run_after: Option<Timestamp>,
    #[serde(default)]
    conf: Option<Map<String, Value>>,
    #[serde(default)]
    note: Option<String>,
    #[serde(default)]
    partition_key: Option<String>,
}

fn said<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    Option::deserialize(deserializer)
}

pub async fn trigger(
    State(state): Shared,
    Segments(dag_id): Segments<String>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let body: TriggerBody = body_as(body)?;
    if body.data_interval_start.is_some() != body.data_interval_end.is_some() {
        let message =
            "Value error, Either both data_interval_start and data_interval_end must be provided or both must be None";
        return Err(ApiError::unprocessable(&["body"], "value_error", message));
    }
    let triggered_by = match caller {
        Caller::LocalAdmin => "cli",
        Caller::Network if headers.contains_key(header::REFERER) => "ui",
        Caller::Network => "rest_api",
    };
    let with = Trigger {
        run_id: body.dag_run_id,
        logical_date: body.logical_date,
        data_interval: body.data_interval_start.zip(body.data_interval_end),
        run_after: body.run_after,
        conf: body.conf.unwrap_or_default(),
        note: body.note,
        triggered_by,
        user: state.secrets().admin_email.clone(),
        run_type: None,
        partition_key: body.partition_key,
    };
    let mut with = with;
    if let (Some(date), None) = (with.logical_date, with.data_interval) {
        with.data_interval = own_interval(&state, &dag_id, date).await?;
    }
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    let run = runs::trigger(&transaction, &dag_id, &with).await.map_err(|error| match error {
        StoreError::NotFound { .. } => {
            ApiError::new(StatusCode::NOT_FOUND, format!("Dag with dag_id: '{dag_id}' not found"))
        }
        StoreError::Invalid(text) => ApiError::new(StatusCode::BAD_REQUEST, text),
        other => other.into(),
    })?;
    transaction.commit().await?;
    Ok(Json(views::run(&run)))
}

/// The interval that a timetable of the user's own gives a run of that date.
async fn own_interval(
    state: &Arc<AppState>,
    dag_id: &str,
    date: Timestamp,
) -> Result<Option<(Timestamp, Timestamp)>, ApiError> {
    // Its code may take its time; no connection waits for that.
    let found = dags::get(&*state.database.get().await?, dag_id).await;
    let Ok(dag) = found else { return Ok(None) };
    let custom = dag.structure.timetable.as_ref().is_some_and(|timetable| timetable.is_custom());
    let (true, Some(code)) = (custom, DagCode::of(state)) else { return Ok(None) };
    let interval = code.manual(dag.version_id, dag_id, date).await;
    let interval = interval.map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, error))?;
    Ok(Some((interval.start, interval.end)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    #[serde(default)]
    state: Option<RunState>,
    #[serde(default, deserialize_with = "given")]
    note: Option<Option<String>>,
}

impl Patch {
    pub fn check(&self) -> Result<(), ApiError> {
        check_note(self.note.as_ref().and_then(Option::as_deref))?;
        if self.state != Some(RunState::Running) {
            return Ok(());
        }
        let message = "Input should be 'queued', 'success' or 'failed'";
        Err(ApiError::unprocessable(&["body", "state"], "enum", message))
    }

    /// All of it, without a mask.
    pub async fn apply(self, transaction: &Transaction<'_>, key: &RunKey, mask: &[String]) -> Result<(), ApiError> {
        let counts = |field: &str| mask.is_empty() || mask.iter().any(|name| name == field);
        if let Some(note) = self.note.filter(|_| counts("note")) {
            let note = note.filter(|note| !note.is_empty());
            runs::set_note(transaction, key, note.as_deref()).await.map_err(|error| missing(error, key))?;
        }
        if let Some(new) = self.state.filter(|_| counts("state")) {
            mark::run(transaction, key, new).await.map_err(|error| missing(error, key))?;
        }
        Ok(())
    }
}

pub async fn patch(
    State(state): Shared,
    Segments((dag_id, run_id)): Segments<(String, String)>,
    params: Params,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let key = RunKey { dag_id, run_id };
    let body: Patch = body_as(body)?;
    body.check()?;
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    body.apply(&transaction, &key, &params.texts("update_mask")).await?;
    let run = runs::get(&transaction, &key, ReadFor::Reading).await.map_err(|error| missing(error, &key))?;
    transaction.commit().await?;
    Ok(Json(views::run(&run)))
}

pub async fn delete(
    State(state): Shared,
    Segments((dag_id, run_id)): Segments<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let key = RunKey { dag_id, run_id };
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    runs::delete(&transaction, &key).await.map_err(|error| missing(error, &key))?;
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
