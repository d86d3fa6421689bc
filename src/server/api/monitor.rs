//! What runs beside DAGs, with Airflow's names and shapes.

use crate::server::api_error::ApiError;
use crate::server::listing::NOTHING;
use crate::server::request::Params;
use axum::Json;
use serde_json::{Value, json};

/// Leoflow itself has none; those of a project are of its own processes.
pub async fn plugins(params: Params) -> Result<Json<Value>, ApiError> {
    params.listing(&NOTHING)?;
    Ok(Json(json!({"plugins": [], "total_entries": 0})))
}

pub async fn plugin_errors() -> Json<Value> {
    Json(json!({"import_errors": [], "total_entries": 0}))
}
