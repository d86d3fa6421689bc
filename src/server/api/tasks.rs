//! `/api/v2/dags/{dag_id}/tasks`, and the instances of a mapped task, with Airflow's names and shapes.

use super::task_instances;
use super::views;
use crate::engine::dag::{Structure, Task};
use crate::engine::keys::RunKey;
use crate::engine::store::StoreError;
use crate::engine::store::dags;
use crate::engine::store::instances;
use crate::server::api_error::ApiError;
use crate::server::listing::page_with_cursor;
use crate::server::request::{Params, Segments};
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

type Shared = State<Arc<AppState>>;

/// As Airflow writes a timedelta.
fn delta(seconds: f64) -> Value {
    let whole = seconds.floor();
    let microseconds = ((seconds - whole) * 1e6).round();
    json!({
        "__type": "TimeDelta", "days": (whole / 86_400.0).floor() as i64, "seconds": (whole % 86_400.0) as i64,
        "microseconds": microseconds as i64,
    })
}

fn view(structure: &Structure, task: &Task) -> Value {
    let below: Vec<&str> = structure
        .tasks
        .iter()
        .filter(|other| other.upstream.contains(&task.task_id))
        .map(|other| other.task_id.as_str())
        .collect();
    json!({
        "task_id": task.task_id,
        "task_display_name": task.display_name.as_ref().unwrap_or(&task.task_id),
        "owner": task.owner,
        "start_date": task.start_date,
        "end_date": task.end_date,
        "trigger_rule": task.trigger_rule,
        "depends_on_past": task.depends_on_past,
        "wait_for_downstream": task.wait_for_downstream,
        "retries": task.retries,
        "queue": "default",
        "pool": task.pool(),
        "pool_slots": task.pool_slots,
        "execution_timeout": task.execution_timeout.map(delta),
        "retry_delay": delta(task.retry_delay),
        "retry_exponential_backoff": task.retry_backoff.unwrap_or(0.0),
        "priority_weight": task.own_weight,
        "weight_rule": task.weight_rule.as_deref().unwrap_or("downstream"),
        "ui_color": null,
        "ui_fgcolor": null,
        "template_fields": task.template_fields,
        "downstream_task_ids": below,
        "doc_md": task.doc_md,
        "operator_name": task.operator_name,
        "params": task.params,
        "class_ref": {"module_path": null, "class_name": task.operator},
        "is_mapped": task.mapped,
        "extra_links": [],
    })
}

pub async fn list(State(state): Shared, Segments(dag_id): Segments<String>) -> Result<Json<Value>, ApiError> {
    let client = state.database.get().await?;
    let structure = dags::get(&*client, &dag_id).await?.structure;
    let mut tasks: Vec<&Task> = structure.tasks.iter().collect();
    tasks.sort_by_key(|task| &task.task_id);
    let found: Vec<Value> = tasks.into_iter().map(|task| view(&structure, task)).collect();
    Ok(Json(json!({"tasks": found, "total_entries": found.len()})))
}

pub async fn get(
    State(state): Shared,
    Segments((dag_id, task_id)): Segments<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let client = state.database.get().await?;
    let structure = dags::get(&*client, &dag_id).await?.structure;
    let task = structure
        .tasks
        .iter()
        .find(|task| task.task_id == task_id)
        .ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, format!("Task with id {task_id} was not found")))?;
    Ok(Json(view(&structure, task)))
}

pub async fn mapped(
    State(state): Shared,
    Segments((dag_id, run_id, task_id)): Segments<(String, String, String)>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let mut listing = task_instances::wanted(&params, task_instances::Scope::Run)?;
    let client = state.database.get().await?;
    listing.conditions.add_run(&RunKey { dag_id: dag_id.clone(), run_id: run_id.clone() });
    listing.conditions.with("ti.task_id = {} AND ti.map_index >= 0", task_id.clone());
    let found = instances::list(&*client, listing).await?;
    if found.total == 0 {
        let structure = dags::get(&*client, &dag_id).await?.structure;
        let not_found = |detail: String| Err(ApiError::new(StatusCode::NOT_FOUND, detail));
        match structure.tasks.iter().find(|task| task.task_id == task_id) {
            None => return not_found(format!("Task id {task_id} not found")),
            Some(task) if !task.mapped && task.group.is_none() => {
                return not_found(format!("Task id {task_id} is not mapped"));
            }
            Some(_) => {}
        }
    }
    Ok(Json(page_with_cursor("task_instances", &found, views::instance)))
}

pub async fn one_mapped(
    State(state): Shared,
    Segments((dag_id, run_id, task_id, map_index)): Segments<(String, String, String, i32)>,
) -> Result<Json<Value>, ApiError> {
    let key = RunKey { dag_id, run_id };
    let client = state.database.get().await?;
    let found = instances::get(&*client, &key, &task_id, map_index).await.map_err(|error| match error {
        StoreError::NotFound { .. } => {
            let RunKey { dag_id, run_id } = &key;
            let detail = format!(
                "The Mapped Task Instance with dag_id: `{dag_id}`, run_id: `{run_id}`, task_id: `{task_id}`, \
                 and map_index: `{map_index}` was not found"
            );
            ApiError::new(StatusCode::NOT_FOUND, detail)
        }
        other => other.into(),
    })?;
    Ok(Json(views::instance(&found)))
}

/// What an operator leads to beyond Leoflow; nothing keeps such links yet.
pub async fn links(
    State(state): Shared,
    Segments((dag_id, run_id, task_id)): Segments<(String, String, String)>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let map_index = params.map_index()?.unwrap_or(instances::NOT_MAPPED);
    let client = state.database.get().await?;
    instances::get(&*client, &RunKey { dag_id, run_id }, &task_id, map_index).await?;
    Ok(Json(json!({"extra_links": {}, "total_entries": 0})))
}
