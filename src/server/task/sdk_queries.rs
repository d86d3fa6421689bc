//! Requests about runs and task instances by tasks and triggers that run with Airflow's own SDK.

use super::{Body, JsonAnswer};
use crate::app_state::Shared;
use crate::http::api_error::ApiError;
use crate::http::datastore::Datastore;
use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use leoflow_engine::model::keys::RunKey;
use leoflow_engine::store::instance::sdk_queries::{self, PreviousInstance, SdkInstanceFilter, SdkRunFilter};
use serde::Deserialize;
use serde_json::json;

pub async fn run(Datastore(client): Datastore, Body(key): Body<RunKey>) -> JsonAnswer {
    let run_row = sdk_queries::run(&*client, &key).await?;
    let missing = || format!("Dag run with dag_id '{}' and run_id '{}' was not found", key.dag_id, key.run_id);
    run_row.map(Json).ok_or_else(|| ApiError::not_found(missing()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreviousRun {
    dag_id: String,
    logical_date: Timestamp,
    state: Option<String>,
}

pub async fn previous_run(State(state): Shared, Body(query): Body<PreviousRun>) -> JsonAnswer {
    let client = state.core.database.get().await?;
    let run = sdk_queries::previous_run(&*client, &query.dag_id, query.logical_date, query.state.as_deref()).await?;
    Ok(Json(run.unwrap_or_default()))
}

pub async fn count_runs(Datastore(client): Datastore, Body(query): Body<SdkRunFilter>) -> JsonAnswer {
    Ok(Json(json!({"count": sdk_queries::count_runs(&*client, &query).await?})))
}

pub async fn count_instances(Datastore(client): Datastore, Body(query): Body<SdkInstanceFilter>) -> JsonAnswer {
    Ok(Json(json!({"count": sdk_queries::count_instances(&*client, &query).await?})))
}

pub async fn states(Datastore(client): Datastore, Body(query): Body<SdkInstanceFilter>) -> JsonAnswer {
    Ok(Json(sdk_queries::states(&*client, &query).await?))
}

pub async fn breadcrumbs(Datastore(client): Datastore, Body(key): Body<RunKey>) -> JsonAnswer {
    Ok(Json(sdk_queries::breadcrumbs(&*client, &key).await?))
}

pub async fn previous_instance(Datastore(client): Datastore, Body(query): Body<PreviousInstance>) -> JsonAnswer {
    Ok(Json(sdk_queries::previous_instance(&*client, &query).await?.unwrap_or_default()))
}
