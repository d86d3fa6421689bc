//! `/api/v2/providers`, with Airflow's names and shapes.

use crate::api::prelude::*;
use crate::dag_code::provider_cache::Provider;
use crate::http::query::Paging;

query! { pub ProvidersQuery(Paging) }

#[derive(Serialize, JsonSchema)]
pub struct ProviderResponse {
    package_name: String,
    description: String,
    version: String,
    documentation_url: Option<String>,
}

collection! { ProviderCollectionResponse { providers: ProviderResponse } }

/// Lists the providers of all projects.
pub async fn list(State(state): Shared, params: QueryParams<ProvidersQuery>) -> JsonResult<ProviderCollectionResponse> {
    let page = params.page()?;
    let providers = state.dag_code.list_providers().await;
    let providers = providers.map_err(|error| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    let view = |provider: &Provider| ProviderResponse {
        package_name: provider.package_name.clone(),
        description: provider.description.clone(),
        version: provider.version.clone(),
        documentation_url: provider.documentation_url.clone(),
    };
    Ok(Json(page.of(providers.iter().collect()).map(view).into()))
}
