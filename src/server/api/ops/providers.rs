//! `/api/v2/providers`, with Airflow's names and shapes.

use crate::api::prelude::*;
use crate::dag_code::provider_cache::Provider;
use crate::http::query::Paging;

query! { pub ProvidersQuery(Paging) }

view! {
    pub struct ProviderResponse;
    fn response(provider: &Provider) {
        package_name: String = provider.package_name.clone(),
        description: String = provider.description.clone(),
        version: String = provider.version.clone(),
        documentation_url: Option<String> = provider.documentation_url.clone(),
    }
}

collection! { ProviderCollectionResponse { providers: ProviderResponse } }

/// Lists the providers of all projects.
pub async fn list(State(state): Shared, params: QueryParams<ProvidersQuery>) -> JsonResult<ProviderCollectionResponse> {
    let page = params.page()?;
    let providers = state.dag_code.list_providers().await;
    let providers = providers.map_err(|error| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    Ok(Json(page.of(providers.iter().collect()).map(response).into()))
}
