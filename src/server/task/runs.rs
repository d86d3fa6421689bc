//! What a running task asks about other runs, and its own: `/task/…` over `run/api.sock`.

use crate::engine::dag::Length;
use crate::engine::keys::{RunKey, TryKey};
use crate::engine::planner::graph::Graph;
use crate::engine::schedule::timetable::{Interval, Restriction};
use crate::engine::scheduler::load;
use crate::engine::store::clear::{self, Selection};
use crate::engine::store::dags;
use crate::engine::store::runs::{self, Trigger};
use crate::engine::store::{ReadFor, StoreError};
use crate::server::api_error::ApiError;
use crate::server::request::{Id, body_as};
use crate::server::state::AppState;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::{Extension, Json};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

type Shared = State<Arc<AppState>>;
type Body = Result<Json<Value>, JsonRejection>;

pub async fn dag(State(state): Shared, Id(dag_id): Id) -> Result<Json<Value>, ApiError> {
    let client = state.database.get().await?;
    let dag = dags::get(&**client, &dag_id).await?;
    Ok(Json(json!({"dag_id": dag.dag_id, "is_paused": dag.is_paused})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TriggerBody {
    dag_id: String,
    run_id: String,
    conf: Map<String, Value>,
    logical_date: Option<Timestamp>,
    run_after: Option<Timestamp>,
    note: Option<String>,
    /// Whether a run of that id runs again.
    reset: bool,
}

/// A request that is sent again finds the run that it made: its id is its own.
pub async fn trigger(
    State(state): Shared,
    Extension(of): Extension<TryKey>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let body: TriggerBody = body_as(body)?;
    let with = Trigger {
        run_id: Some(body.run_id.clone()),
        logical_date: body.logical_date,
        data_interval: None,
        run_after: body.run_after,
        conf: body.conf,
        note: body.note,
        triggered_by: "operator",
        user: of.run.dag_id.clone(),
        run_type: Some("operator_triggered"),
    };
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    match runs::trigger(&transaction, &body.dag_id, &with).await {
        Ok(_) => {}
        Err(StoreError::AlreadyExists { .. }) if body.reset => {
            drop(transaction);
            let transaction = client.transaction().await?;
            let key = RunKey { dag_id: body.dag_id, run_id: body.run_id };
            clear::clear(&transaction, &key, &Selection::default()).await?;
            transaction.commit().await?;
            return Ok(StatusCode::NO_CONTENT);
        }
        Err(StoreError::Invalid(text)) => return Err(ApiError::new(StatusCode::BAD_REQUEST, text)),
        Err(error) => return Err(error.into()),
    }
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn state(State(state): Shared, body: Body) -> Result<Json<Value>, ApiError> {
    let key: RunKey = body_as(body)?;
    let client = state.database.get().await?;
    let run = runs::get(&**client, &key, ReadFor::Reading).await?;
    Ok(Json(json!({"state": run.state})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Count {
    dag_id: String,
    task_ids: Option<Vec<String>>,
    group_id: Option<String>,
    dates: Vec<Timestamp>,
    states: Vec<String>,
}

/// Runs of those dates, or task instances in them, that have one of the states.
pub async fn count(State(state): Shared, body: Body) -> Result<Json<Value>, ApiError> {
    let Count { dag_id, task_ids, group_id, dates, states } = body_as(body)?;
    let client = state.database.get().await?;
    let count: i64 = match (task_ids, group_id) {
        (None, None) => {
            let query =
                "SELECT count(*) FROM dag_run WHERE dag_id = $1 AND logical_date = ANY ($2) AND state = ANY ($3)";
            client.query_one(query, &[&dag_id, &dates, &states]).await?.get(0)
        }
        (Some(task_ids), _) => {
            let query = "
                SELECT count(*) FROM task_instance ti JOIN dag_run r USING (dag_id, run_id)
                WHERE ti.dag_id = $1 AND r.logical_date = ANY ($2) AND ti.state = ANY ($3) AND ti.task_id = ANY ($4)";
            client.query_one(query, &[&dag_id, &dates, &states, &task_ids]).await?.get(0)
        }
        (None, Some(group)) => {
            // A group counts for a date when all of its instances have such a state.
            let dag = dags::get(&**client, &dag_id).await?;
            let inside = tasks_of_group(&dag.structure, &group);
            let query = "
                SELECT count(*) FROM (
                    SELECT r.run_id FROM task_instance ti JOIN dag_run r USING (dag_id, run_id)
                    WHERE ti.dag_id = $1 AND r.logical_date = ANY ($2) AND ti.task_id = ANY ($4)
                    GROUP BY r.run_id HAVING bool_and(coalesce(ti.state = ANY ($3), false))) whole";
            client.query_one(query, &[&dag_id, &dates, &states, &inside]).await?.get(0)
        }
    };
    Ok(Json(json!({"count": count})))
}

fn tasks_of_group(structure: &crate::engine::dag::Structure, group: &str) -> Vec<String> {
    let mut groups = vec![group.to_owned()];
    let mut at = 0;
    while at < groups.len() {
        let below = structure.groups.iter().filter(|one| one.parent.as_deref() == Some(groups[at].as_str()));
        let below: Vec<String> = below.map(|one| one.group_id.clone()).collect();
        groups.extend(below);
        at += 1;
    }
    let inside = |group: &Option<String>| group.as_ref().is_some_and(|group| groups.contains(group));
    structure.tasks.iter().filter(|task| inside(&task.group)).map(|task| task.task_id.clone()).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LengthBody {
    length: Length,
}

/// How many elements something has, in the task's own run.
pub async fn length(
    State(state): Shared,
    Extension(of): Extension<TryKey>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let LengthBody { length } = body_as(body)?;
    let client = state.database.get().await?;
    let run = runs::get(&**client, &of.run, ReadFor::Reading).await?;
    let Some(version) = run.version_id else { return Ok(Json(json!({"length": null}))) };
    let version = crate::engine::store::tries::version(&**client, version).await?;
    let graph = Graph::new(version.structure);
    let lengths = load::lengths(&**client, &of.run, &graph).await?;
    Ok(Json(json!({"length": length.resolve(&|task| lengths.get(task).copied())})))
}

/// The last run of the DAG before the task's own that has succeeded.
pub async fn previous(State(state): Shared, Extension(of): Extension<TryKey>) -> Result<Json<Value>, ApiError> {
    let query = "
        SELECT p.data_interval_start, p.data_interval_end, p.start_date, p.end_date
        FROM dag_run r JOIN dag_run p ON p.dag_id = r.dag_id AND p.state = 'success' AND p.logical_date < r.logical_date
        WHERE r.dag_id = $1 AND r.run_id = $2 ORDER BY p.logical_date DESC LIMIT 1";
    let client = state.database.get().await?;
    let row = client.query_opt(query, &[&of.run.dag_id, &of.run.run_id]).await?;
    Ok(Json(row.map_or(Value::Null, |row| {
        let time = |name: &str| row.get::<_, Option<Timestamp>>(name);
        json!({
            "data_interval_start": time("data_interval_start"), "data_interval_end": time("data_interval_end"),
            "start_date": time("start_date"), "end_date": time("end_date"),
        })
    })))
}

/// Whether the task's own run is the newest that its schedule has by now.
pub async fn latest(State(state): Shared, Extension(of): Extension<TryKey>) -> Result<Json<Value>, ApiError> {
    let client = state.database.get().await?;
    let run = runs::get(&**client, &of.run, ReadFor::Reading).await?;
    let dag = dags::get(&**client, &of.run.dag_id).await?;
    let ends = run.data_interval_start.zip(run.data_interval_end);
    let (Some((start, end)), Some(timetable)) = (ends, &dag.structure.timetable) else {
        return Ok(Json(json!({"is_latest": true})));
    };
    let every = Restriction { catchup: true, ..dag.structure.restriction() };
    let now = Timestamp::now();
    let next = timetable.next(Some(Interval { start, end }), every, now).ok().flatten();
    let right = next.and_then(|next| next.interval).map(|interval| interval.end);
    let is_latest = right.is_none_or(|right| start < now && now <= right);
    Ok(Json(json!({"is_latest": is_latest})))
}

const EVENT: &str = "
    SELECT a.name, a.uri, a.group_name, e.extra, e.happened_at, e.source_dag_id, e.source_task_id, e.source_run_id,
           e.source_map_index, e.aliases
    FROM asset_event e JOIN asset a ON a.id = e.asset_id";

fn event(row: &tokio_postgres::Row) -> Value {
    let tokio_postgres::types::Json(extra): tokio_postgres::types::Json<Value> = row.get("extra");
    json!({
        "name": row.get::<_, String>("name"), "uri": row.get::<_, String>("uri"),
        "group": row.get::<_, String>("group_name"), "extra": extra,
        "timestamp": row.get::<_, Timestamp>("happened_at"),
        "source_dag_id": row.get::<_, Option<String>>("source_dag_id"),
        "source_task_id": row.get::<_, Option<String>>("source_task_id"),
        "source_run_id": row.get::<_, Option<String>>("source_run_id"),
        "source_map_index": row.get::<_, i32>("source_map_index"), "aliases": row.get::<_, Vec<String>>("aliases"),
    })
}

/// The events that the task's own run was made for.
pub async fn triggering(State(state): Shared, Extension(of): Extension<TryKey>) -> Result<Json<Value>, ApiError> {
    let query = format!(
        "{EVENT} JOIN dag_run_asset_event d ON d.event_id = e.id WHERE d.dag_id = $1 AND d.run_id = $2 ORDER BY e.happened_at, e.id"
    );
    let client = state.database.get().await?;
    let rows = client.query(&query, &[&of.run.dag_id, &of.run.run_id]).await?;
    Ok(Json(rows.iter().map(event).collect()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

/// The asset of a name; of several, the one that was declared last.
pub async fn named(State(state): Shared, body: Body) -> Result<Json<Value>, ApiError> {
    let Named { name } = body_as(body)?;
    let query =
        "SELECT name, uri, group_name, extra FROM asset WHERE name = $1 ORDER BY updated_at DESC, id DESC LIMIT 1";
    let client = state.database.get().await?;
    let row = client.query_opt(query, &[&name]).await?;
    let row = row.ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, format!("there is no asset named {name:?}")))?;
    let tokio_postgres::types::Json(extra): tokio_postgres::types::Json<Value> = row.get("extra");
    Ok(Json(json!({
        "name": row.get::<_, String>("name"), "uri": row.get::<_, String>("uri"),
        "group": row.get::<_, String>("group_name"), "extra": extra,
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsOf {
    of: Value,
}

/// All events of what a task reads.
pub async fn events(State(state): Shared, body: Body) -> Result<Json<Value>, ApiError> {
    let EventsOf { of } = body_as(body)?;
    let Some(reference) = crate::engine::schedule::asset_condition::reference(&of) else { return Ok(Json(json!([]))) };
    let (kind, name, uri) = reference.columns();
    let query = format!(
        "{EVENT} WHERE CASE $1 WHEN 'asset' THEN a.name = $2 AND a.uri = $3 WHEN 'name' THEN a.name = $2
                               WHEN 'uri' THEN a.uri = $3 ELSE $2 = ANY (e.aliases) END ORDER BY e.happened_at, e.id"
    );
    let client = state.database.get().await?;
    let rows = client.query(&query, &[&kind, &name, &uri]).await?;
    Ok(Json(rows.iter().map(event).collect()))
}
