//! `/api/v2/providers`, with Airflow's names and shapes.

use crate::server::api_error::ApiError;
use crate::server::listing::{Fields, NOTHING, collection};
use crate::server::provider_cache::Provider;
use crate::server::providers;
use crate::server::query::{Asked, Query};
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use std::sync::Arc;

pub struct OfProviders;

impl Query for OfProviders {
    const LIST: Option<&'static Fields> = Some(&NOTHING);
}

#[derive(Serialize, JsonSchema)]
pub struct ProviderResponse {
    package_name: String,
    description: String,
    version: String,
    documentation_url: Option<String>,
}

collection! { ProviderCollectionResponse { providers: ProviderResponse } }

/// Those of all projects.
pub async fn list(
    State(state): State<Arc<AppState>>,
    params: Asked<OfProviders>,
) -> Result<Json<ProviderCollectionResponse>, ApiError> {
    let listing = params.listing(&NOTHING)?;
    let found = providers::list(&state).await;
    let found = found.map_err(|reason| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, reason))?;
    let view = |one: &Provider| ProviderResponse {
        package_name: one.package_name.clone(),
        description: one.description.clone(),
        version: one.version.clone(),
        documentation_url: one.documentation_url.clone(),
    };
    Ok(Json(listing.page_of(found.iter().collect()).map(view).into()))
}
