//! `/api/v2/assets`, with Airflow's names and shapes.

use super::views::{self, stamp};
use crate::engine::store::assets::{self, Source};
use crate::engine::store::runs::{self, Trigger};
use crate::server::api_error::ApiError;
use crate::server::request::{Params, Segments, body_as};
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tokio_postgres::types::Json as Stored;
use tokio_postgres::{GenericClient, Row};

type Shared = State<Arc<AppState>>;
type Body = Result<Json<Value>, JsonRejection>;

const COLUMNS: &[(&str, &str)] = &[
    ("id", "a.id"),
    ("name", "a.name"),
    ("uri", "a.uri"),
    ("created_at", "a.created_at"),
    ("updated_at", "a.updated_at"),
];

/// Who is scheduled by an asset, who makes it and who reads it, as JSON.
const ASSET: &str = "
    SELECT a.*, e.id AS event_id, e.happened_at,
           (SELECT coalesce(json_agg(json_build_array(d.dag_id, d.task_id, d.role, d.created_at)
                                     ORDER BY d.dag_id, d.task_id), '[]')
            FROM dag_asset d JOIN dag USING (dag_id)
            WHERE dag.is_active AND (d.kind = 'asset' AND d.name = a.name AND d.uri = a.uri
                  OR d.kind = 'name' AND d.name = a.name OR d.kind = 'uri' AND d.uri = a.uri)) AS users,
           (SELECT coalesce(json_agg(json_build_object('id', n.id, 'name', n.name, 'group', n.group_name)), '[]')
            FROM asset_alias_asset l JOIN asset_alias n ON n.id = l.alias_id WHERE l.asset_id = a.id) AS aliases
    FROM asset a LEFT JOIN LATERAL (
        SELECT id, happened_at FROM asset_event WHERE asset_id = a.id ORDER BY happened_at DESC, id DESC LIMIT 1) e ON true";

fn view(row: &Row) -> Value {
    let Stored(extra): Stored<Value> = row.get("extra");
    let Stored(users): Stored<Vec<(String, String, String, String)>> = row.get("users");
    let Stored(aliases): Stored<Value> = row.get("aliases");
    let of = |role: &str| -> Vec<Value> {
        let with_task = |(dag_id, task_id, _, at): &(String, String, String, String)| {
            let mut one = json!({"dag_id": dag_id, "created_at": at, "updated_at": at});
            if role != "schedule" {
                one["task_id"] = task_id.as_str().into();
            }
            one
        };
        users.iter().filter(|user| user.2 == role).map(with_task).collect()
    };
    json!({
        "id": row.get::<_, i64>("id"),
        "name": row.get::<_, String>("name"),
        "uri": row.get::<_, String>("uri"),
        "group": row.get::<_, String>("group_name"),
        "extra": extra,
        "created_at": stamp(row.get("created_at")),
        "updated_at": stamp(row.get("updated_at")),
        "scheduled_dags": of("schedule"),
        "producing_tasks": of("outlet"),
        "consuming_tasks": of("inlet"),
        "aliases": aliases,
        "watchers": [],
        "last_asset_event": {
            "id": row.get::<_, Option<i64>>("event_id"),
            "timestamp": row.get::<_, Option<Timestamp>>("happened_at").map(stamp),
        },
    })
}

pub async fn list(State(state): Shared, params: Params) -> Result<Json<Value>, ApiError> {
    let page = params.page("name_pattern", COLUMNS)?;
    let uri = params.text("uri_pattern").unwrap_or("%").to_owned();
    let pattern = page.pattern.clone().unwrap_or_else(|| "%".to_owned());
    let client = state.database.get().await?;
    let count = "SELECT count(*) FROM asset a WHERE a.name ILIKE $1 AND a.uri ILIKE $2";
    let total: i64 = client.query_one(count, &[&pattern, &uri]).await?.get(0);
    let order = page.order_by("a.id");
    let query = format!("{ASSET} WHERE a.name ILIKE $1 AND a.uri ILIKE $2 ORDER BY {order} LIMIT $3 OFFSET $4");
    let rows = client.query(&query, &[&pattern, &uri, &page.limit, &page.offset]).await?;
    Ok(Json(json!({"assets": rows.iter().map(view).collect::<Vec<_>>(), "total_entries": total})))
}

fn not_found(id: i64) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("The Asset with ID: `{id}` was not found"))
}

pub async fn get(State(state): Shared, Segments(id): Segments<i64>) -> Result<Json<Value>, ApiError> {
    let client = state.database.get().await?;
    let row = client.query_opt(&format!("{ASSET} WHERE a.id = $1"), &[&id]).await?;
    Ok(Json(view(&row.ok_or_else(|| not_found(id))?)))
}

const EVENT: &str = "
    SELECT e.*, a.name, a.uri, a.group_name,
           (SELECT coalesce(json_agg(json_build_object(
                'run_id', r.run_id, 'dag_id', r.dag_id, 'logical_date', r.logical_date, 'start_date', r.start_date,
                'end_date', r.end_date, 'state', r.state, 'data_interval_start', r.data_interval_start,
                'data_interval_end', r.data_interval_end, 'partition_key', NULL)), '[]')
            FROM dag_run_asset_event d JOIN dag_run r USING (dag_id, run_id) WHERE d.event_id = e.id) AS created
    FROM asset_event e JOIN asset a ON a.id = e.asset_id";

fn event_view(row: &Row) -> Value {
    let Stored(extra): Stored<Value> = row.get("extra");
    let Stored(created): Stored<Value> = row.get("created");
    json!({
        "id": row.get::<_, i64>("id"),
        "asset_id": row.get::<_, i64>("asset_id"),
        "uri": row.get::<_, String>("uri"),
        "name": row.get::<_, String>("name"),
        "group": row.get::<_, String>("group_name"),
        "extra": extra,
        "source_task_id": row.get::<_, Option<String>>("source_task_id"),
        "source_dag_id": row.get::<_, Option<String>>("source_dag_id"),
        "source_run_id": row.get::<_, Option<String>>("source_run_id"),
        "source_map_index": row.get::<_, i32>("source_map_index"),
        "created_dagruns": created,
        "timestamp": stamp(row.get("happened_at")),
        "partition_key": null,
    })
}

const EVENT_COLUMNS: &[(&str, &str)] = &[("id", "e.id"), ("timestamp", "e.happened_at"), ("asset_id", "e.asset_id")];

pub async fn events(State(state): Shared, params: Params) -> Result<Json<Value>, ApiError> {
    let page = params.page("name_pattern", EVENT_COLUMNS)?;
    let asset = params.whole("asset_id")?;
    let (dag, task, run) = (params.text("source_dag_id"), params.text("source_task_id"), params.text("source_run_id"));
    let matches = "($1::bigint IS NULL OR e.asset_id = $1) AND ($2::text IS NULL OR e.source_dag_id = $2)
                   AND ($3::text IS NULL OR e.source_task_id = $3) AND ($4::text IS NULL OR e.source_run_id = $4)";
    let client = state.database.get().await?;
    let count = format!("SELECT count(*) FROM asset_event e WHERE {matches}");
    let total: i64 = client.query_one(&count, &[&asset, &dag, &task, &run]).await?.get(0);
    let order = page.order_by(if page.order.is_empty() { "e.happened_at, e.id" } else { "e.id" });
    let query = format!("{EVENT} WHERE {matches} ORDER BY {order} LIMIT $5 OFFSET $6");
    let rows = client.query(&query, &[&asset, &dag, &task, &run, &page.limit, &page.offset]).await?;
    Ok(Json(json!({"asset_events": rows.iter().map(event_view).collect::<Vec<_>>(), "total_entries": total})))
}

/// The events that a run was made for.
pub async fn upstream(
    State(state): Shared,
    Segments((dag_id, run_id)): Segments<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let client = state.database.get().await?;
    let query = format!(
        "{EVENT} JOIN dag_run_asset_event c ON c.event_id = e.id WHERE c.dag_id = $1 AND c.run_id = $2
         ORDER BY e.happened_at, e.id"
    );
    let rows = client.query(&query, &[&dag_id, &run_id]).await?;
    Ok(Json(json!({"asset_events": rows.iter().map(event_view).collect::<Vec<_>>(), "total_entries": rows.len()})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewEvent {
    asset_id: i64,
    #[serde(default)]
    extra: Map<String, Value>,
    #[serde(default, rename = "partition_key")]
    _partition_key: Option<String>,
}

pub async fn create_event(State(state): Shared, body: Body) -> Result<Json<Value>, ApiError> {
    let NewEvent { asset_id, mut extra, .. } = body_as(body)?;
    extra.insert("from_rest_api".to_owned(), true.into());
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    if transaction.query_opt("SELECT FROM asset WHERE id = $1", &[&asset_id]).await?.is_none() {
        let detail = format!("Asset with ID: `{asset_id}` was not found");
        return Err(ApiError::new(StatusCode::NOT_FOUND, detail));
    }
    let source = Source { run: None, task_id: None, map_index: -1 };
    let id = assets::add_event(&transaction, asset_id, &extra.into(), &source, &[]).await?;
    let row = transaction.query_one(&format!("{EVENT} WHERE e.id = $1"), &[&id]).await?;
    transaction.commit().await?;
    Ok(Json(event_view(&row)))
}

/// Starts the one DAG that makes an asset.
pub async fn materialize(State(state): Shared, Segments(id): Segments<i64>) -> Result<Json<Value>, ApiError> {
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    let dag_id = producer(&*transaction, id).await?;
    let with = Trigger {
        run_id: Some(format!("asset_materialization_{}", crate::engine::store::new_run::isoformat(Timestamp::now()))),
        logical_date: None,
        data_interval: None,
        run_after: None,
        conf: Map::new(),
        note: None,
        triggered_by: "rest_api",
        user: state.secrets().admin_email.clone(),
        run_type: Some("asset_materialization"),
    };
    let run = runs::trigger(&transaction, &dag_id, &with).await?;
    transaction.commit().await?;
    Ok(Json(views::run(&run)))
}

async fn producer(client: &impl GenericClient, id: i64) -> Result<String, ApiError> {
    let query = "SELECT DISTINCT d.dag_id FROM dag_asset d JOIN dag USING (dag_id) JOIN asset a ON a.id = $1
                 WHERE dag.is_active AND d.role = 'outlet' AND d.kind = 'asset' AND d.name = a.name AND d.uri = a.uri";
    let rows = client.query(query, &[&id]).await?;
    match rows.as_slice() {
        [one] => Ok(one.get(0)),
        [] => Err(ApiError::new(StatusCode::NOT_FOUND, format!("No Dag materializes asset with ID: {id}"))),
        _ => Err(ApiError::new(StatusCode::CONFLICT, format!("More than one Dag materializes asset with ID: {id}"))),
    }
}

/// Updates that wait for the others that a DAG needs.
pub async fn queued(State(state): Shared, Segments(dag_id): Segments<String>) -> Result<Json<Value>, ApiError> {
    let client = state.database.get().await?;
    let query = "SELECT asset_id, created_at FROM asset_queue WHERE dag_id = $1 ORDER BY created_at";
    let rows = client.query(query, &[&dag_id]).await?;
    let events: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "dag_id": dag_id, "asset_id": row.get::<_, i64>(0), "created_at": stamp(row.get(1)),
                "dag_display_name": dag_id,
            })
        })
        .collect();
    Ok(Json(json!({"queued_events": events, "total_entries": events.len()})))
}
