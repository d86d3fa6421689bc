//! `/api/v2/variables`, with Airflow's names and shapes.

use super::api_error::ApiError;
use super::paging::ListParams;
use super::redact;
use super::state::AppState;
use crate::engine::variables::{self, Variable};
use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

type Shared = State<Arc<AppState>>;

fn response(variable: &Variable) -> Value {
    json!({
        "key": variable.key,
        "value": redact::text(&variable.key, &variable.value),
        "description": variable.description,
        "is_encrypted": true,
    })
}

pub fn bad_query(error: QueryRejection) -> ApiError {
    ApiError::unprocessable(&["query"], "value_error", error.body_text())
}

pub fn bad_body(error: JsonRejection) -> ApiError {
    match error {
        JsonRejection::BytesRejection(too_large) => ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, too_large.body_text()),
        other => ApiError::unprocessable(&["body"], "value_error", other.body_text()),
    }
}

/// A JSON value as Airflow stores it: text as it is, everything else as JSON.
pub fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

pub async fn list(
    State(state): Shared,
    params: Result<Query<ListParams>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let page = params.map_err(bad_query)?.0.page("key")?;
    let client = state.database.get().await?;
    let (found, total) = variables::list(&**client, &state.cipher, &page).await?;
    let variables: Vec<Value> = found.iter().map(response).collect();
    Ok(Json(json!({"variables": variables, "total_entries": total})))
}

pub async fn get(State(state): Shared, Path(key): Path<String>) -> Result<Json<Value>, ApiError> {
    let client = state.database.get().await?;
    Ok(Json(response(&variables::get(&**client, &state.cipher, &key).await?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariableBody {
    key: String,
    value: Value,
    #[serde(default)]
    description: Option<String>,
    /// Airflow's teams; Lite has one user.
    #[serde(default, rename = "team_name")]
    _team_name: Option<String>,
}

impl VariableBody {
    fn into_variable(self) -> Variable {
        Variable { value: as_text(&self.value), key: self.key, description: self.description }
    }
}

pub async fn create(
    State(state): Shared,
    body: Result<Json<VariableBody>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let variable = body.map_err(bad_body)?.0.into_variable();
    let client = state.database.get().await?;
    variables::create(&**client, &state.cipher, &variable).await?;
    Ok((StatusCode::CREATED, Json(response(&variable))))
}

#[derive(Deserialize)]
pub struct Mask {
    /// Comma-separated names of the fields to change; without it, all that are in the body.
    update_mask: Option<String>,
}

impl Mask {
    pub fn allows(&self, field: &str) -> bool {
        self.update_mask.as_ref().is_none_or(|mask| mask.split(',').any(|name| name.trim() == field))
    }
}

pub async fn patch(
    State(state): Shared,
    Path(key): Path<String>,
    Query(mask): Query<Mask>,
    body: Result<Json<VariableBody>, JsonRejection>,
) -> Result<Json<Value>, ApiError> {
    let new = body.map_err(bad_body)?.0.into_variable();
    if new.key != key {
        let detail = "Invalid body, key from request body doesn't match uri parameter";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, detail));
    }
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    let mut variable = variables::get(&*transaction, &state.cipher, &key).await?;
    if mask.allows("value") {
        variable.value = new.value;
    }
    if mask.allows("description") {
        variable.description = new.description;
    }
    variables::set(&*transaction, &state.cipher, &variable).await?;
    transaction.commit().await?;
    Ok(Json(response(&variable)))
}

pub async fn delete(State(state): Shared, Path(key): Path<String>) -> Result<StatusCode, ApiError> {
    let client = state.database.get().await?;
    variables::delete(&**client, &key).await?;
    Ok(StatusCode::NO_CONTENT)
}
