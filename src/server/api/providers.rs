//! `/api/v2/providers`, with Airflow's names and shapes.

use crate::server::api_error::ApiError;
use crate::server::listing::NOTHING;
use crate::server::providers;
use crate::server::request::Params;
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

/// Those of all projects.
pub async fn list(State(state): State<Arc<AppState>>, params: Params) -> Result<Json<Value>, ApiError> {
    let listing = params.listing(&NOTHING)?;
    let found = providers::list(&state).await;
    let found = found.map_err(|reason| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, reason))?;
    let (from, most) = (
        usize::try_from(listing.offset).unwrap_or(0),
        listing.limit.and_then(|most| usize::try_from(most).ok()).unwrap_or(0),
    );
    let shown: Vec<Value> = found
        .iter()
        .skip(from)
        .take(most)
        .map(|one| {
            json!({
                "package_name": one.package_name, "description": one.description, "version": one.version,
                "documentation_url": one.documentation_url,
            })
        })
        .collect();
    Ok(Json(json!({"providers": shown, "total_entries": found.len()})))
}
