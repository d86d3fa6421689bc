//! `/api/v2/dags`, `importErrors` and `dagSources`, with Airflow's names and shapes.

use super::views;
use crate::engine::store::StoreError;
use crate::engine::store::dags::{self, Filter};
use crate::server::api_error::ApiError;
use crate::server::body::body_as;
use crate::server::request::{Params, Segments};
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

type Shared = State<Arc<AppState>>;
type Body = Result<Json<Value>, JsonRejection>;

const COLUMNS: &[(&str, &str)] =
    &[("dag_id", "d.dag_id"), ("dag_display_name", "d.dag_id"), ("last_run_state", "last_run_state")];

pub async fn list(State(state): Shared, params: Params) -> Result<Json<Value>, ApiError> {
    let page = params.page("dag_id_pattern", COLUMNS)?;
    let filter = Filter {
        include_stale: !params.flag("exclude_stale")?.unwrap_or(true),
        paused: params.flag("paused")?,
        tags: params.texts("tags"),
    };
    let client = state.database.get().await?;
    let (found, total) = dags::list(&*client, &page, &filter).await?;
    let found: Vec<Value> = found.iter().map(views::dag).collect();
    Ok(Json(json!({"dags": found, "total_entries": total})))
}

pub async fn get(State(state): Shared, Segments(dag_id): Segments<String>) -> Result<Json<Value>, ApiError> {
    let client = state.database.get().await?;
    Ok(Json(views::dag(&dags::get(&*client, &dag_id).await?)))
}

pub async fn details(State(state): Shared, Segments(dag_id): Segments<String>) -> Result<Json<Value>, ApiError> {
    let client = state.database.get().await?;
    Ok(Json(views::dag_details(&dags::get(&*client, &dag_id).await?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pausing {
    is_paused: bool,
}

pub async fn patch(
    State(state): Shared,
    Segments(dag_id): Segments<String>,
    params: Params,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let mask = params.texts("update_mask");
    if !mask.is_empty() && mask != ["is_paused"] {
        let detail = "Only `is_paused` field can be updated through the REST API";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, detail));
    }
    let Pausing { is_paused } = body_as(body)?;
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    dags::set_paused(&transaction, &dag_id, is_paused).await.map_err(|error| missing(error, &dag_id))?;
    let changed = dags::get(&transaction, &dag_id).await?;
    transaction.commit().await?;
    Ok(Json(views::dag(&changed)))
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

const ERROR_COLUMNS: &[(&str, &str)] =
    &[("id", "id"), ("import_error_id", "id"), ("timestamp", "created_at"), ("filename", "filename")];

pub async fn import_errors(State(state): Shared, params: Params) -> Result<Json<Value>, ApiError> {
    let page = params.page("filename_pattern", ERROR_COLUMNS)?;
    let client = state.database.get().await?;
    let (found, total) = dags::import_errors(&*client, &page).await?;
    let found: Vec<Value> = found.iter().map(views::import_error).collect();
    Ok(Json(json!({"import_errors": found, "total_entries": total})))
}

pub async fn import_error(State(state): Shared, Segments(id): Segments<i64>) -> Result<Json<Value>, ApiError> {
    let client = state.database.get().await?;
    Ok(Json(views::import_error(&dags::import_error(&*client, id).await?)))
}
