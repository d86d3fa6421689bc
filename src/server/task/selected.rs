//! What a task that Airflow's own SDK runs asks about runs and task instances, of its own DAG and of others.

use crate::engine::keys::RunKey;
use crate::engine::store::selected::{self, Earlier, Instances, Runs};
use crate::server::api_error::ApiError;
use crate::server::body::body_as;
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

type Shared = State<Arc<AppState>>;
type Body = Result<Json<Value>, JsonRejection>;

pub async fn run(State(state): Shared, body: Body) -> Result<Json<Value>, ApiError> {
    let key: RunKey = body_as(body)?;
    let client = state.database.get().await?;
    let found = selected::run(&*client, &key).await?;
    let missing = || format!("Dag run with dag_id '{}' and run_id '{}' was not found", key.dag_id, key.run_id);
    found.map(Json).ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, missing()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PreviousRun {
    dag_id: String,
    logical_date: Timestamp,
    state: Option<String>,
}

pub async fn previous_run(State(state): Shared, body: Body) -> Result<Json<Value>, ApiError> {
    let wanted: PreviousRun = body_as(body)?;
    let client = state.database.get().await?;
    let found = selected::previous_run(&*client, &wanted.dag_id, wanted.logical_date, wanted.state.as_deref()).await?;
    Ok(Json(found.unwrap_or_default()))
}

pub async fn count_runs(State(state): Shared, body: Body) -> Result<Json<Value>, ApiError> {
    let wanted: Runs = body_as(body)?;
    let client = state.database.get().await?;
    Ok(Json(json!({"count": selected::count_runs(&*client, &wanted).await?})))
}

pub async fn count_instances(State(state): Shared, body: Body) -> Result<Json<Value>, ApiError> {
    let wanted: Instances = body_as(body)?;
    let client = state.database.get().await?;
    Ok(Json(json!({"count": selected::count_instances(&*client, &wanted).await?})))
}

pub async fn states(State(state): Shared, body: Body) -> Result<Json<Value>, ApiError> {
    let wanted: Instances = body_as(body)?;
    let client = state.database.get().await?;
    Ok(Json(selected::states(&*client, &wanted).await?))
}

pub async fn breadcrumbs(State(state): Shared, body: Body) -> Result<Json<Value>, ApiError> {
    let key: RunKey = body_as(body)?;
    let client = state.database.get().await?;
    Ok(Json(selected::breadcrumbs(&*client, &key).await?))
}

pub async fn previous_instance(State(state): Shared, body: Body) -> Result<Json<Value>, ApiError> {
    let wanted: Earlier = body_as(body)?;
    let client = state.database.get().await?;
    Ok(Json(selected::previous_instance(&*client, &wanted).await?.unwrap_or_default()))
}
